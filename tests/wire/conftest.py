"""Without a loop nothing goes on in a later turn: subscribing is not cut by a busy machine's clock."""

from __future__ import annotations

import math

import pytest

from cacheflow.wire.resp.commands import channels


@pytest.fixture(autouse=True)
def _slices_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channels, "SLICE_S", math.inf)
