"""Every alert fires when its fault is made on real nodes, and nothing else does; before the fault none fires."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from monitoring.faults import FAULTS, Fault
from monitoring.recording import Recording, scrapes_until
from monitoring.rules import PREFIX, rules
from monitoring.scenes import Scene, Unavailable

RULES = rules()
WANTED = set[str]().union(*[rule.metrics for rule in RULES.values()])
# Scrapes before the fault.
HEALTHY = 3


class Scenes:
    """The scene of the latest fault, which the next one may share."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._kind: object = None
        self._scene: Scene | None = None
        self._stack = contextlib.ExitStack()

    @contextlib.contextmanager
    def of(self, fault: Fault) -> Iterator[Scene]:
        """The fault's scene, with all nodes up. A scene in which something else went wrong is of no use to the next fault."""
        if self._kind is not fault.scene or self._scene is None:
            self.close()
            folder = self._folder / fault.name.replace(" ", "-")
            folder.mkdir()
            try:
                self._scene = self._stack.enter_context(fault.scene(folder))
            except Unavailable as reason:
                pytest.skip(str(reason))
            self._kind = fault.scene
        try:
            yield self._scene
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End the nodes."""
        self._stack.close()
        self._kind = self._scene = None


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scenes]:
    with contextlib.closing(Scenes(tmp_path_factory.mktemp("scenes"))) as found:
        yield found


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_fires_its_alerts_and_no_others(fault: Fault, scenes: Scenes, promtool: str, tmp_path: Path) -> None:
    own = [RULES[f"{PREFIX}{alert}"] for alert in fault.alerts]
    with scenes.of(fault) as scene, Recording(scene.all, WANTED, fault.interval_s) as recording:
        for _ in range(HEALTHY):
            recording.scrape()
        with contextlib.closing(fault.make(scene)) as minutes:
            for _ in range(scrapes_until(own, fault.interval_s)):
                fired = next(minutes)
                recording.scrape()
    assert {alert for alert, _ in fired} == fault.alerts
    fires = [(f"{PREFIX}{alert}", node) for alert, node in fired]
    if wrong := recording.check(promtool, tmp_path, {HEALTHY - 1: [], recording.scrapes - 1: fires}):
        pytest.fail(wrong, pytrace=False)


def test_each_alert_has_a_fault() -> None:
    assert {f"{PREFIX}{alert}" for fault in FAULTS for alert in fault.alerts} == set(RULES)
