"""What all simulations share."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """A run logs thousands of lines that say what was done to it."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)
