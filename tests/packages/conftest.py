"""The image of a node, built once for all tests here."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from documented.running import NO_INDEX, copy_checkout
from packages.bare_root import PROGRAMS, BareRoot
from packages.dockerfile import Stage, stages_of

DOCKERFILE = Path(__file__).parents[2] / "scripts/packaging/Dockerfile"


@pytest.fixture(scope="session")
def stages() -> list[Stage]:
    return stages_of(DOCKERFILE.read_text())


@pytest.fixture(scope="session")
def image(stages: list[Stage], tmp_path_factory: pytest.TempPathFactory) -> Iterator[BareRoot]:
    """The root of the last stage, after all steps."""
    if os.geteuid() != 0 or sys.platform != "linux":
        pytest.skip("only root may make a root of its own (on Linux)")
    if missing := [name for name in PROGRAMS if shutil.which(name) is None]:
        pytest.skip(f"{', '.join(missing)} is not installed")
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode:
        pytest.skip("there are no mount namespaces to be had")
    place = tmp_path_factory.mktemp("image")
    # Everybody may pass: the image's user is nobody here.
    for folder in (place, place.parent):
        folder.chmod(0o755)
    copy_checkout(place / "context")
    made: dict[str, BareRoot] = {}
    for number, stage in enumerate(stages):
        root = BareRoot(place / f"stage-{number}")
        root.make()
        try:
            root.follow(stage, place / "context", made)
        except subprocess.CalledProcessError as error:
            said = f"{error.stdout}{error.stderr}"
            if any(sign in said for sign in NO_INDEX):
                pytest.skip(f"pip does not reach its index: {said[-300:]}")
            raise AssertionError(f"{error.cmd}\n{said}") from None
        made[stage.name] = root
    yield root
    # Some hundred megabytes. What of this machine was mounted there was so in namespaces that have ended.
    assert str(place) not in Path("/proc/self/mountinfo").read_text()
    shutil.rmtree(place)
