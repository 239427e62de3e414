"""Turns: scripts that name the same key run one after the other on a node, so that they do not undo each other's attempts."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable


class Turn:
    """A script's place in the queues of the keys that it names; scripts in one queue run one after the other.

    waits: the number of keys in whose queues another script is first.  begin: the function that starts the script, called when
    ``waits`` is 0; None until ``wait`` is called with it.
    """

    __slots__ = ("begin", "keys", "waits")

    def __init__(self, keys: tuple[bytes, ...]) -> None:
        self.keys = keys
        self.waits = 0
        self.begin: Callable[[], None] | None = None

    def wait(self, begin: Callable[[], None]) -> None:
        """Have the function ``begin`` called once no earlier script that names one of this script's keys is left."""
        self.begin = begin
        if not self.waits:
            begin()


class Turns:
    """The queues of all keys that scripts on this node name: a key's scripts run one after the other.

    A script enters the queues of all its keys at once. So of two scripts that have keys in common the earlier one is first
    in all their common queues, and no scripts wait for each other in a circle.
    Not safe for concurrent use: the event loop owns it.
    """

    def __init__(self) -> None:
        # Lists, which take a tenth of a deque's memory and time: nearly all have one turn, and a script may name many keys.
        self._queues: dict[bytes, list[Turn]] = {}
        self._ready: deque[Turn] = deque()
        self._is_beginning = False

    def __len__(self) -> int:
        return len(self._queues)

    def enter(self, keys: Iterable[bytes]) -> Turn:
        """Put a script that names ``keys`` into the queues of all these keys, behind earlier scripts.

        Returns an object that stands for the script in these queues.
        """
        turn = Turn(tuple(dict.fromkeys(keys)))
        for key in turn.keys:
            queue = self._queues.get(key)
            if queue is None:
                self._queues[key] = [turn]
            else:
                turn.waits += 1
                queue.append(turn)
        return turn

    def leave(self, turn: Turn) -> None:
        """Take the script of ``turn`` out of the queues of its keys; begin those scripts that waited only for this one.

        turn: the object that stands for the script in the queues.
        """
        turn.begin = None
        for key in turn.keys:
            queue = self._queues[key]
            was_first = queue[0] is turn
            queue.remove(turn)
            if not queue:
                del self._queues[key]
            elif was_first:
                queue[0].waits -= 1
                if not queue[0].waits:
                    self._ready.append(queue[0])
        if not self._is_beginning:
            self._begin_ready()

    def _begin_ready(self) -> None:
        # One that begins may end at once, as with a client that has gone, and make others ready: any number in a row.
        self._is_beginning = True
        try:
            while self._ready:
                each = self._ready.popleft()
                if each.begin is not None:
                    each.begin()
        finally:
            self._is_beginning = False
