"""One real node with users for all tests of a file, and another one that speaks TLS on every port."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from access.guarded import Guarded
from cluster.processes import wait_for
from fakes.certificates import Authority


@pytest.fixture(scope="module", params=["plain", "TLS"])
def guarded(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Guarded]:
    folder = tmp_path_factory.mktemp("guarded")
    guarded = Guarded(folder, Authority(folder / "ca") if request.param == "TLS" else None)
    guarded.node.start()
    try:
        wait_for(lambda: not guarded.node.alive or guarded.node.is_ready())
        yield guarded
    finally:
        if guarded.node.alive:
            guarded.node.kill()
