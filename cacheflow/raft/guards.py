"""Guards: the Raft rules that PySyncObj leaves out, enforced where messages enter.

Each guard names the section of Ongaro's dissertation ("Consensus: Bridging Theory and Practice") that it restores:

1. A follower deletes entries only on a proven conflict, and never committed ones (3.5, 3.6.3).
2. A follower acknowledges exactly what it has verified against the leader's message, and takes no commit index above
   that (3.5).
3. A rejection carries the term and first index of the conflict, so that the leader backs off a term at a time (3.5).
4. Every reply carries a term, and an old leader is told the new one (3.3).
5. A vote counts once, from a voter of the configuration with the incarnation that it names (3.4, 11.2).
6. A message is checked for its shape before anything else; a term that no elections can have led to is dropped, and what says
   something about the receiver counts from members alone.
7. An entry of a later feature level than this build knows is not appended: the node stops (machine/language/levels.py).

The functions are pure: they look at the journal and the message, and say what to do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from cacheflow.machine.language.levels import BUILD_LEVEL
from cacheflow.raft.log.records import LogEntry, check_level

# The highest index, term or time that a message may carry: sums of two still fit into 64 bits.
INDEX_MAX = 2**62


# A term further above a node's own than this is no term that elections have led to: it would end elections for good.
TERM_LEAP_MAX = 10**6
# Kinds of messages that say something about the receiver or its leader, and so count from members alone.
FROM_MEMBERS = frozenset(
    ("term", "not_member", "hand_over", "timeout_now", "pre_vote_reply", "change_reply", "differs")
)


class BadMessage(Exception):
    """Raised for a message of a wrong shape, or of a kind that its sender may not send; the message is dropped."""


class SafetyViolation(Exception):
    """Raised when a leader contradicts entries that are committed on this node: Raft was violated; the node must stop."""


class Log(Protocol):
    """Interface: what is needed of a Raft log to check messages: its first and last index and the terms of its entries."""

    @property
    def first_index(self) -> int: ...

    @property
    def last_index(self) -> int: ...

    def term_at(self, index: int) -> int | None: ...


@dataclass(frozen=True, slots=True)
class Append:
    """The verdict that a leader's append message fits a follower's log, with what the follower has to do.

    entries: the entries to append behind the index ``prev_index``.  verified: the index up to which the log then equals the
    leader's.  truncates: whether entries of the follower's log behind ``prev_index`` must be deleted first.
    """

    prev_index: int
    prev_term: int
    entries: list[LogEntry]
    verified: int
    commit_index: int
    truncates: bool


@dataclass(frozen=True, slots=True)
class Reject:
    """The verdict on a leader's append message that this node's log lacks the entry before the message's entries.

    The verdict carries what the leader needs in order to send earlier entries.
    """

    last_index: int
    conflict_term: int
    conflict_index: int


def natural(message: dict[str, Any], name: str) -> int:
    """Return the field ``name`` of ``message``, which must be an integer from 0 to 2^62. Raises BadMessage."""
    value = message.get(name)
    if type(value) is not int or not 0 <= value <= INDEX_MAX:
        raise BadMessage(f"{message.get('type')}: {name} is {value!r}")
    return value


def check_sender(message: dict[str, Any], is_member: bool, own_term: int) -> None:
    """Raise BadMessage if a message's sender may not send it, or if the term in the message is not credible.

    Called only by nodes that belong to a cluster. is_member: whether the sender is a member.  own_term: the term of the
    checking node.
    """
    kind = message["type"]
    if not is_member and kind in FROM_MEMBERS:
        raise BadMessage(f"{kind} of a node that is no member")
    for name in ("term", "current"):
        term = message.get(name)
        if type(term) is int and term > own_term + TERM_LEAP_MAX:
            raise BadMessage(f"{kind}: {name} is {term}, and this node is in term {own_term}")


def entries_of(message: dict[str, Any], prev_index: int, build_level: int = BUILD_LEVEL) -> list[LogEntry]:
    """Return the log entries in a leader's append message, which must follow the entry at ``prev_index`` without a gap.

    Their terms must not fall. Raises BadMessage; NewerCacheFlow for an entry of a later build.
    """
    raw = message.get("entries")
    if type(raw) is not list:
        raise BadMessage("append_entries: no entries")
    entries: list[LogEntry] = []
    index, term = prev_index, 0
    for item in raw:
        if type(item) is not list or len(item) != 3:
            raise BadMessage("append_entries: an entry is not [command, index, term]")
        command, entry_index, entry_term = item
        if type(command) is not bytes or not command or type(entry_index) is not int or type(entry_term) is not int:
            raise BadMessage("append_entries: an entry's field has the wrong type")
        index += 1
        if entry_index != index or not term <= entry_term <= INDEX_MAX:
            raise BadMessage(f"append_entries: entry {entry_index} of term {entry_term} where {index} was due")
        if len(command) > 2 and command[2] > build_level:
            check_level(command, index, build_level)
        term = entry_term
        entries.append((command, entry_index, entry_term))
    return entries


def check_append(
    log: Log, commit_index: int, message: dict[str, Any], build_level: int = BUILD_LEVEL
) -> Append | Reject:
    """Decide what a follower does with a leader's append message of the current term.

    log, commit_index: the follower's own.  build_level: the highest feature level that the follower's build knows. Raises
    BadMessage, SafetyViolation, NewerCacheFlow.
    """
    prev_index = natural(message, "prevLogIdx")
    prev_term = natural(message, "prevLogTerm")
    leader_commit = natural(message, "commit_index")
    entries = entries_of(message, prev_index, build_level)
    verified = prev_index + len(entries)

    if prev_index < log.first_index:
        # The snapshot covers this part, and what a snapshot holds is committed: every leader has it (3.6.3).
        entries = entries[log.first_index - prev_index :]
        prev_index = log.first_index
        verified = max(verified, prev_index)
        prev_term = log.term_at(prev_index) or 0
    elif prev_index > log.last_index:
        return Reject(log.last_index, 0, log.last_index + 1)
    else:
        own_term = log.term_at(prev_index)
        if own_term != prev_term:
            if prev_index <= commit_index:
                raise SafetyViolation(
                    f"entry {prev_index} is committed here in term {own_term}, the leader has {prev_term}"
                )
            return Reject(log.last_index, own_term or 0, first_of_term(log, prev_index))

    known = 0
    for _, index, term in entries:
        own_term = log.term_at(index)
        if own_term != term:
            break
        prev_index, prev_term = index, term
        known += 1
    entries = entries[known:]
    truncates = bool(entries) and prev_index < log.last_index
    if truncates and prev_index < commit_index:
        raise SafetyViolation(f"entry {prev_index + 1} is committed here, the leader has another")
    if not entries:
        # PySyncObj would delete whatever stands behind prevLogIdx: show it the end of its own log.
        prev_index = log.last_index
        prev_term = log.term_at(prev_index) or 0
    return Append(prev_index, prev_term, entries, verified, min(leader_commit, verified), truncates)


def first_of_term(log: Log, index: int) -> int:
    """Return the index of the first log entry that has the same term as the entry at ``index``."""
    term = log.term_at(index)
    while index - 1 > log.first_index and log.term_at(index - 1) == term:
        index -= 1
    return index


def next_after_reject(log: Log, message: dict[str, Any], match_index: int) -> int:
    """Return the index of the log entry that the leader sends next to a follower, which has sent the rejection ``message``.

    The index is above ``match_index``, up to which the follower's log is verified. By the fast back-off of Raft dissertation
    3.5 it is the one behind the leader's last entry of the conflicting term, or else that of the follower's first such entry.
    """
    last_index = natural(message, "last")
    conflict_term = natural(message, "conflict_term")
    conflict_index = natural(message, "conflict_index")
    candidate = min(conflict_index, last_index + 1, log.last_index + 1, max(1, natural(message, "prev")))
    if conflict_term:
        index = min(last_index, log.last_index)
        while index > max(log.first_index, match_index):
            term = log.term_at(index)
            if term is not None and term <= conflict_term:
                if term == conflict_term:
                    candidate = index + 1
                break
            index -= 1
    return max(candidate, match_index + 1)


def is_up_to_date(log_index: int, log_term: int, message: dict[str, Any]) -> bool:
    """True if the candidate that sent ``message`` has a log at least as complete as this node's.

    That is Raft's election restriction. log_index, log_term: index and term of this node's last log entry.
    """
    return (natural(message, "last_log_term"), natural(message, "last_log_index")) >= (log_term, log_index)
