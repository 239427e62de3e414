"""The shared cluster, and what the nodes said when a test fails."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cluster.processes import Nodes

LOG_CHARACTERS = 6000


@pytest.fixture(scope="session")
def _shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    with Nodes(3, tmp_path_factory.mktemp("trio"), ["--max-items", "500"]) as nodes:
        yield nodes


@pytest.fixture
def trio(_shared: Nodes) -> Nodes:
    """Three whole nodes with contents from other tests; a test may leave them killed, but not paused."""
    return _shared.start()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where a test's own nodes keep their data."""
    return tmp_path


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    outcome: Any = yield
    report = outcome.get_result()
    if report.failed:
        clusters = {id(value): value for value in getattr(item, "funcargs", {}).values() if isinstance(value, Nodes)}
        for nodes in clusters.values():
            for node in nodes.all:
                report.sections.append((f"{node.node_id} said", node.output()[-LOG_CHARACTERS:]))
