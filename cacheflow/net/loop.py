"""NodeLoop: the node's event loop, which handles clients' input last in each turn.

A client that was answered by one node and asks another finds what it has written there: the commit reached that node's
socket before the answer reached the client. But the kernel lists ready descriptors in an order of its own, so that the
client's question could be handled before the commit, whenever both have come since the loop last looked.
"""

from __future__ import annotations

import asyncio
import selectors

# Stands for no descriptor at all.
_NONE = -1


class _ClientsLast(selectors.DefaultSelector):
    """A selector that returns the descriptor ``last`` behind all others that are ready at the same time."""

    last = _NONE

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(timeout)
        if len(ready) > 1:
            ready.sort(key=lambda item: item[0].fd == self.last)
        return ready


class NodeLoop(asyncio.SelectorEventLoop):
    """asyncio's selector loop, with one descriptor that it handles behind all others that are ready at the same time."""

    def __init__(self) -> None:
        self._order = _ClientsLast()
        super().__init__(self._order)

    def descriptors(self) -> list[int]:
        """Return the descriptors that the loop watches, and its own."""
        own = [end.fileno() for end in (self._ssock, self._csock) if end is not None]  # type: ignore[attr-defined]
        return [self._order.fileno(), *own, *list(self._order.get_map() or ())]

    def put_last(self, descriptor: int = _NONE) -> None:
        """Handle the events of ``descriptor`` behind all others of the same turn.

        Call it without an argument before that descriptor is closed, because its number may be reused.
        """
        self._order.last = descriptor
