"""Large calls: commands too large for one block are sent in several, one after the other, or refused before they are sent.

A batch that is not atomic is cut where it must be, and its results are put together again: each of its operations succeeds
or fails for itself anyway. What must be one command and is too large has the result TOO_LARGE, as if the machine had said so.

What another call sends may come between two pieces. The wire ports, which send before they are answered, make no such calls:
what they hold of a connection's input is smaller.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import islice

from cacheflow.contract import Done, Outcome
from cacheflow.errors import OutcomeUnknown, ReplicationError
from cacheflow.machine.language import commands
from cacheflow.machine.language.commands import Command, Result

# The most that one call sends at once: the largest value that may be configured, 64 MiB, with its key and what is around it.
# A block may hold some smaller calls besides, and a frame takes that too (``FRAME_BYTES_MAX``).
CALL_BYTES_MAX = 66 * 1024 * 1024
# The size of the pieces of a larger one, unless a single command is larger: that of an entry of many calls, for a large entry
# makes every other write wait.
PIECE_BYTES_MAX = 1024 * 1024


class LargeCall:
    """A call whose commands together are too large for one block: it sends these commands in pieces, one after the other.

    send: a function that sends one piece: (commands, their size in bytes, how many they are, the function called with the
    outcome).
    done: called with the outcome of the whole call, which is unknown if only a part of it took place.
    """

    def __init__(
        self, commands_: Sequence[Command], send: Callable[[Sequence[Command], int, int, Done], None], done: Done
    ) -> None:
        # For each command what is sent in its place, or its result.
        self._cut = [_cut(command) for command in commands_]
        self._pieces = deque(_pieces([part for parts in self._cut if isinstance(parts, tuple) for part in parts]))
        self._send = send
        self._done = done
        self._results: list[Result] = []

    def go_on(self) -> Callable[[], None]:
        """Send the call's next piece; after the last piece answer the call.

        Returns the function that wakes the caller's thread; while pieces remain, one that wakes nobody.
        """
        if self._pieces:
            piece = self._pieces.popleft()
            size, number = commands.measured(piece)
            self._send(piece, min(size, CALL_BYTES_MAX), number, self._answered)
            return _nobody_waits
        return self._done(list(self._put_together()))

    def _answered(self, outcome: Outcome) -> Callable[[], None]:
        if isinstance(outcome, ReplicationError):
            if self._results:
                outcome = OutcomeUnknown(f"a part of this call took place, and then: {outcome}")
            return self._done(outcome)
        self._results += outcome
        return self.go_on()

    def _put_together(self) -> Iterator[Result]:
        results = iter(self._results)
        for parts in self._cut:
            if isinstance(parts, list):
                yield parts
                continue
            first, *others = islice(results, len(parts))
            failed = next((result for result in (first, *others) if result[0] != commands.OK), None)
            if others and failed is None:
                yield [commands.OK, [result for part in (first, *others) for result in part[1]]]
            else:
                yield failed or first


def _cut(command: Command) -> tuple[Command, ...] | Result:
    """Return the commands to send in place of ``command``: the command itself, or a large batch cut into several batches.

    If no block can carry these, returns a TOO_LARGE result instead.
    """
    if commands.size_of(command) <= CALL_BYTES_MAX:
        return (command,)
    size = commands.packed_bytes(command)
    if size <= CALL_BYTES_MAX:
        return (command,)
    if command[0] == commands.BATCH and not command[1]:
        pieces = tuple(commands.batch(piece) for piece in _pieces(command[2]))
        if all(commands.packed_bytes(piece) <= CALL_BYTES_MAX for piece in pieces):
            return pieces
    return [commands.TOO_LARGE, f"this takes {size} bytes in the log, and at most {CALL_BYTES_MAX} are taken at once"]


def _pieces(commands_: Sequence[Command]) -> Iterator[list[Command]]:
    """Yield ``commands_`` in pieces of at most PIECE_BYTES_MAX bytes; a larger command is a piece of its own."""
    piece: list[Command] = []
    size = 64
    for command in commands_:
        added = commands.size_of(command)
        if piece and size + added > PIECE_BYTES_MAX:
            yield piece
            piece, size = [], 64
        piece.append(command)
        size += added
    if piece:
        yield piece


def _nobody_waits() -> None:
    """Do nothing: stands for the function that wakes a call's thread, as long as the call is not answered."""
