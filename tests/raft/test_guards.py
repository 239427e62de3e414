"""The rules for messages, one by one, against a log that is a list of terms."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest

from cacheflow.errors import NewerCacheFlow
from cacheflow.machine.language import commands
from cacheflow.raft import guards


class Log:
    """Entries ``first`` and up, by their terms."""

    def __init__(self, *terms: int, first: int = 1) -> None:
        self.terms = terms
        self.first_index = first
        self.last_index = first + len(terms) - 1

    def term_at(self, index: int) -> int | None:
        position = index - self.first_index
        return self.terms[position] if 0 <= position < len(self.terms) else None


def append(prev: int, prev_term: int, *terms: int, commit: int = 0) -> dict[str, Any]:
    entries = [[b"\0x", prev + offset, term] for offset, term in enumerate(terms, 1)]
    return {
        "type": "append_entries",
        "prevLogIdx": prev,
        "prevLogTerm": prev_term,
        "entries": entries,
        "commit_index": commit,
    }


def accept(log: Log, message: dict[str, Any], commit_index: int = 0) -> guards.Append:
    verdict = guards.check_append(log, commit_index, message)
    assert isinstance(verdict, guards.Append)
    return verdict


def test_entries_that_are_there_are_kept_with_everything_behind_them() -> None:
    verdict = accept(Log(1, 1, 1, 2, 2), append(1, 1, 1, 1))
    assert (verdict.entries, verdict.truncates, verdict.verified) == ([], False, 3)
    assert (verdict.prev_index, verdict.prev_term) == (5, 2), "PySyncObj deletes whatever stands behind this"


def test_only_what_conflicts_is_dropped() -> None:
    verdict = accept(Log(1, 1, 2, 2), append(1, 1, 1, 3, 3))
    assert (verdict.prev_index, verdict.prev_term, verdict.truncates) == (2, 1, True)
    assert [entry[1:] for entry in verdict.entries] == [(3, 3), (4, 3)]
    assert verdict.verified == 4


def test_no_commit_index_above_what_was_verified_is_taken() -> None:
    assert accept(Log(1, 1, 1, 1), append(1, 1, commit=4)).commit_index == 1
    assert accept(Log(1, 1), append(2, 1, 1, 1, commit=9)).commit_index == 4


def test_what_is_committed_is_never_dropped() -> None:
    with pytest.raises(guards.SafetyViolation):
        guards.check_append(Log(1, 1, 2), 3, append(1, 1, 1, 3))
    with pytest.raises(guards.SafetyViolation):
        guards.check_append(Log(1, 1, 2), 3, append(3, 9))


def test_what_the_snapshot_covers_is_taken_for_granted() -> None:
    verdict = accept(Log(2, 2, first=10), append(7, 1, 1, 1, 2, 2, 3), commit_index=10)
    assert (verdict.prev_index, [entry[1] for entry in verdict.entries], verdict.verified) == (11, [12], 12)
    assert accept(Log(2, 2, first=10), append(3, 1, 1)).verified == 10


def test_a_rejection_tells_where_the_conflicting_term_begins() -> None:
    verdict = guards.check_append(Log(1, 1, 2, 2, 2), 0, append(5, 3))
    assert verdict == guards.Reject(5, 2, 3)
    assert guards.check_append(Log(1, 1), 0, append(9, 1)) == guards.Reject(2, 0, 3)


@pytest.mark.parametrize(
    ("leader", "reject", "match", "expected"),
    [
        # Its log is short: right behind its end.
        (Log(1, 1, 1, 1), {"prev": 4, "last": 2, "conflict_term": 0, "conflict_index": 3}, 0, 3),
        # The leader has no entry of the conflicting term: at the first of the follower's.
        (Log(1, 1, 3, 3, 3), {"prev": 4, "last": 5, "conflict_term": 2, "conflict_index": 3}, 0, 3),
        # It has: behind its own last one of that term.
        (Log(1, 2, 2, 3, 3), {"prev": 4, "last": 5, "conflict_term": 2, "conflict_index": 2}, 0, 4),
        # Never at or below what was verified.
        (Log(1, 1, 3, 3, 3), {"prev": 4, "last": 5, "conflict_term": 1, "conflict_index": 1}, 3, 4),
    ],
)
def test_the_leader_backs_off_a_term_at_a_time(leader: Log, reject: dict[str, Any], match: int, expected: int) -> None:
    assert guards.next_after_reject(leader, {"type": "append_ack", **reject}, match) == expected


@pytest.mark.parametrize(
    "wrong",
    [
        {"prevLogIdx": -1},
        {"prevLogIdx": True},
        {"prevLogTerm": "1"},
        {"commit_index": 2**63},
        {"entries": None},
        {"entries": [[b"\0", 3, 1]]},
        {"entries": [[b"", 2, 1]]},
        {"entries": [["text", 2, 1]]},
        {"entries": [[b"\0", 2, 2], [b"\0", 3, 1]]},
        {"entries": [[b"\0", 2]]},
    ],
)
def test_a_message_of_the_wrong_shape_is_dropped(wrong: dict[str, Any]) -> None:
    with pytest.raises(guards.BadMessage):
        guards.check_append(Log(1), 0, append(1, 1) | wrong)


def test_a_candidate_needs_a_log_that_is_at_least_as_complete() -> None:
    def candidate(term: int, index: int) -> bool:
        return guards.is_up_to_date(5, 3, {"type": "v", "last_log_term": term, "last_log_index": index})

    assert candidate(3, 5) and candidate(4, 1) and candidate(3, 6)
    assert not candidate(3, 4) and not candidate(2, 99)


@pytest.mark.parametrize("kind", [b"\x00", b"\x02", b"\x09"])
def test_an_entry_of_a_newer_build_is_not_appended(kind: bytes) -> None:
    known = [kind + commands.encode_entry(1, [], level) for level in (1, 2)]
    newer = kind + commands.encode_entry(1, [], 3)
    other_shape: bytes = kind + msgpack.packb((200, {}, [], "more"))
    message = append(2, 1, 1, 1, 1)
    for position, command in enumerate((*known, b"\x01")):
        message["entries"][position][0] = command
    assert isinstance(guards.check_append(Log(1, 1), 1, message, 2), guards.Append)
    for command in (newer, other_shape):
        message["entries"][1][0] = command
        with pytest.raises(
            NewerCacheFlow, match=r"entry 4 of the log was written by a newer CacheFlow \(level .* knows 2"
        ):
            guards.check_append(Log(1, 1), 1, message, 2)
