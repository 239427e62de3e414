"""Reads do not wait behind writes, and writes are not starved."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from cacheflow.rest.server.lanes import READS_IN_A_ROW, TwoLanes


def channel(method: str, name: int) -> Any:
    return SimpleNamespace(requests=[SimpleNamespace(command=method)], name=f"{method}{name}")


def test_a_read_overtakes_the_writes_that_wait() -> None:
    lanes = TwoLanes()
    for number in range(3):
        lanes.append(channel("PUT", number))
    lanes.append(channel("GET", 0))
    assert [lanes.popleft().name for _ in range(len(lanes))] == ["GET0", "PUT0", "PUT1", "PUT2"]
    with pytest.raises(IndexError):
        lanes.popleft()


def test_a_write_goes_first_after_some_reads_in_a_row() -> None:
    lanes = TwoLanes()
    for number in range(3 * READS_IN_A_ROW):
        lanes.append(channel("GET", number))
    lanes.append(channel("POST", 0))
    order = [lanes.popleft().name for _ in range(len(lanes))]
    assert order.index("POST0") == READS_IN_A_ROW
