"""What holds for all tests: no thread of a node outlives the file that made it, and Hypothesis draws the same examples each time.

With RANDOM_EXAMPLES=1 it draws others.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import pytest
from fakes.embedded import node_threads, wait_for
from hypothesis import settings

settings.register_profile("suite", derandomize=not os.environ.get("RANDOM_EXAMPLES"), deadline=None)
settings.load_profile("suite")


@pytest.fixture(autouse=True, scope="module")
def nothing_is_left_running() -> Iterator[None]:
    """A thread that is left would be told of in another file, which is not to blame."""
    yield
    with contextlib.suppress(AssertionError):
        wait_for(lambda: not node_threads())
    assert node_threads() == []
