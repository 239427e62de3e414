"""Sessions: which commands of which node were already applied, so that each is applied once (dissertation, section 6.3).

1. A session belongs to one start of one member; opening one closes the member's older one.
2. Its commands are numbered from 1 on, and only last + 1 is applied. A lower number is answered with the kept result, a
   higher one is refused, so that a node may send what is pending again as often as it likes.
3. Results below the lowest number that the node still waits for are dropped.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from typing import Final

from cacheflow.machine.language.commands import Result

# Results kept for one session: far above what an honest node has under way; without a limit a node that never raises
# ``lowest`` would fill the memory of all nodes.
KEPT_RESULTS_MAX: Final = 100_000
# Open sessions: above the number of members by far; the oldest one is closed when there are more.
SESSIONS_MAX: Final = 10_000


class Session:
    """One session: the last number applied and the results of the latest numbers, the last one at the right end.

    Kept results are answers that were already given out: nobody may change one.
    """

    __slots__ = ("kept", "last", "member_id", "nonce")

    def __init__(self, member_id: str, nonce: str) -> None:
        self.member_id = member_id
        self.nonce = nonce
        self.last = 0
        self.kept: deque[Result] = deque(maxlen=KEPT_RESULTS_MAX)

    def answered_below(self, lowest: int) -> None:
        """Drop the results of numbers below ``lowest``."""
        kept = self.kept
        surplus = len(kept) - (self.last + 1 - lowest)
        if surplus >= len(kept):
            kept.clear()
        else:
            for _ in range(surplus):
                kept.popleft()

    def kept_result(self, number: int) -> Result | None:
        """Return the kept result of command ``number``, which is at most ``last``; None when it was dropped."""
        back = self.last - number
        return self.kept[-1 - back] if back < len(self.kept) else None


class Sessions:
    """All open sessions. Not safe for concurrent use."""

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
        """Return the open session ``session_id``, None when there is none."""
        return self._by_id.get(session_id)

    def open(self, member_id: str, nonce: str) -> int:
        """Open a session for a new start of ``member_id`` and return its id.

        nonce: names the start, so that a command that was sent twice opens one session.
        """
        present = self._by_member.get(member_id)
        if present is not None and self._by_id[present].nonce == nonce:
            return present
        self.latest_id += 1
        self.adopt(self.latest_id, Session(member_id, nonce))
        if len(self._by_id) > SESSIONS_MAX:
            self._close(next(iter(self._by_id)))
        return self.latest_id

    def adopt(self, session_id: int, session: Session) -> None:
        """Add ``session``, closing the older one of its member. Ids come in rising order."""
        older = self._by_member.get(session.member_id)
        if older is not None:
            self._close(older)
        self._by_id[session_id] = session
        self._by_member[session.member_id] = session_id

    def keep_members(self, member_ids: Mapping[str, object]) -> None:
        """Close the sessions of all nodes that are not in ``member_ids``."""
        for session_id, session in list(self._by_id.items()):
            if session.member_id not in member_ids:
                self._close(session_id)

    def _close(self, session_id: int) -> None:
        session = self._by_id.pop(session_id)
        del self._by_member[session.member_id]
