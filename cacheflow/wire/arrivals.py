"""Arrivals: the input of several clients that came in the same round of the loop, and may be answered together."""

from __future__ import annotations

import asyncio
from typing import Any

# (connection, its new input, its transport): see ``WirePort.answer_many``.
Arrival = tuple[Any, bytes, asyncio.Transport]


def others(arrived: list[Arrival], answered: list[Arrival]) -> list[Arrival]:
    """Return those of ``arrived`` that are not in ``answered``, in their order.

    arrived: tuples of (a client's connection, its new input, its transport).  answered: a part of ``arrived``, in its order.
    """
    if len(answered) == len(arrived):
        return []
    left = iter(answered)
    first = next(left, None)
    rest = []
    for arrival in arrived:
        if arrival is first:
            first = next(left, None)
        else:
            rest.append(arrival)
    return rest
