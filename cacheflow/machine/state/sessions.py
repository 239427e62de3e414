"""Sessions: which commands of which node were already applied, so that each is applied once (dissertation, section 6.3).

1. A session belongs to one start of one member; opening one closes the member's older one. A start counts once it is
   higher than that of the session there is: a repeated message of a process that is dead opens nothing any more.
2. Its commands are numbered from 1 on, and only last + 1 is applied. A lower number is answered with the kept result, a
   higher one is refused, so that a node may send what is pending again as often as it likes.
3. Results below the lowest number that the node still waits for are dropped. What is kept is bounded in number, and the
   values that were read in bytes: the oldest results go, and a node that asks for one is told that it is not kept.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Final

from cacheflow.machine.language.commands import Result

# Results kept for one session: far above what an honest node has under way; without a limit a node that never raises
# ``lowest`` would fill the memory of all nodes.
KEPT_RESULTS_MAX: Final = 100_000
# Bytes of values in the kept results of one session: one large batch of reads, or many small ones. They are shared with the
# items in memory, and written once for each read in a snapshot.
KEPT_READ_BYTES_MAX: Final = 64 * 1024 * 1024


class Session:
    """One process's session: the last command number applied and the results of the latest ones, the last at the right end.

    start: the number of the process's start within its member's incarnation.
    level: the highest feature level that the process's build knows.
    Kept results are answers that were already given out: nobody may change one.
    """

    __slots__ = ("kept", "last", "level", "member_id", "nonce", "read_bytes", "reads", "start")

    def __init__(self, member_id: str, start: int, nonce: str, level: int) -> None:
        self.member_id = member_id
        self.start = start
        self.nonce = nonce
        self.level = level
        self.last = 0
        self.kept: deque[Result] = deque(maxlen=KEPT_RESULTS_MAX)
        # (last number of a block, bytes of the values that it has read), for the blocks that are kept; and the sum.
        self.reads: deque[tuple[int, int]] = deque()
        self.read_bytes = 0

    def answered_below(self, lowest: int) -> None:
        """Drop a session's kept results of commands with numbers below ``lowest``: the node has received them."""
        kept = self.kept
        surplus = len(kept) - (self.last + 1 - lowest)
        if surplus >= len(kept):
            kept.clear()
        else:
            for _ in range(surplus):
                kept.popleft()
        while self.reads and self.reads[0][0] < lowest:
            self.read_bytes -= self.reads.popleft()[1]

    def has_read(self, size: int) -> None:
        """Note that the results of the session's latest block hold ``size`` bytes of values, which the block has read.

        Drops the oldest kept results while all kept results of the session hold too many bytes of values.
        """
        while self.reads and self.reads[0][0] <= self.last - len(self.kept):
            self.read_bytes -= self.reads.popleft()[1]
        self.adopt_read(self.last, size)
        while self.read_bytes > KEPT_READ_BYTES_MAX:
            self.answered_below(self.reads[0][0] + 1)

    def adopt_read(self, last: int, size: int) -> None:
        """Note that the kept results of the block whose last command has the number ``last`` hold ``size`` bytes of values."""
        self.reads.append((last, size))
        self.read_bytes += size

    def kept_result(self, number: int) -> Result | None:
        """Return the kept result of the session's command ``number``, which was applied; None when the result was dropped."""
        back = self.last - number
        return self.kept[-1 - back] if back < len(self.kept) else None


class Sessions:
    """All open sessions, at most one for each member. Not safe for concurrent use."""

    __slots__ = ("_by_id", "_by_member", "latest_id")

    def __init__(self, latest_id: int = 0) -> None:
        self.latest_id = latest_id
        # {id: session} in order of opening, which is the order of the ids.
        self._by_id: dict[int, Session] = {}
        self._by_member: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._by_id)

    def __iter__(self) -> Iterator[tuple[int, Session]]:
        return iter(self._by_id.items())

    def find(self, session_id: int) -> Session | None:
        """Return the open session with the id ``session_id``, None if it is not open."""
        return self._by_id.get(session_id)

    def of(self, member_id: str) -> Session | None:
        """Return the open session of the member with the id ``member_id``, None when there is none."""
        return self._by_id.get(self._by_member.get(member_id, 0))

    def open(self, member_id: str, start: int, nonce: str, level: int) -> int | None:
        """Open a session for a new start of the member ``member_id`` and return its id.

        nonce: a unique name of the start, so that a command that was sent twice opens one session. Returns None if the
        member's open session belongs to a later start, or to another start with the same number.
        """
        present_id = self._by_member.get(member_id)
        if present_id is not None:
            present = self._by_id[present_id]
            if present.nonce == nonce:
                return present_id
            if start <= present.start:
                return None
        self.latest_id += 1
        self.adopt(self.latest_id, Session(member_id, start, nonce, level))
        return self.latest_id

    def adopt(self, session_id: int, session: Session) -> None:
        """Add ``session`` under ``session_id``, an id above all earlier ids, and close the same member's older session."""
        self.close_of(session.member_id)
        self._by_id[session_id] = session
        self._by_member[session.member_id] = session_id

    def close_of(self, member_id: str) -> None:
        """Close the open session of the member with the id ``member_id``, if there is one."""
        session_id = self._by_member.pop(member_id, None)
        if session_id is not None:
            del self._by_id[session_id]
