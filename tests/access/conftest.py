"""One real node with users for all tests of a file."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from access.guarded import Guarded
from cluster.processes import wait_for


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    guarded = Guarded(tmp_path_factory.mktemp("guarded"))
    guarded.node.start()
    try:
        wait_for(lambda: not guarded.node.alive or guarded.node.is_ready())
        yield guarded
    finally:
        if guarded.node.alive:
            guarded.node.kill()
