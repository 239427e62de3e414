"""Conversations have no event loop, so nothing in them may be put off by a clock; who tests slices sets them by hand."""

from __future__ import annotations

import math

import pytest

from cacheflow.wire.resp.commands import channels, scan


@pytest.fixture(autouse=True)
def _slices_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (scan, channels):
        monkeypatch.setattr(module, "SLICE_S", math.inf)
