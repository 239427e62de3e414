"""One real node and the four classes that reach it, for all tests of a file."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from verbs.four import Four, running


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Four]:
    with running(tmp_path_factory.mktemp("verbs")) as four:
        yield four
