"""The types of the messages between nodes: their fields. docs/messages.md says what the fields mean.

A receiver trusts none of this: what comes from a peer is checked by guards.py and by its handler. The types are for those who
send and for those who read: mypy checks what a sender writes down, the simulation every message that is sent.
"""

from __future__ import annotations

from typing import Any, Final, Literal, NotRequired, TypeAlias, TypedDict

# As msgpack carries an entry of the log: command, index, term.
WireEntry = tuple[bytes, int, int]


class AppendEntries(TypedDict):
    """Message of a leader: log entries that follow the entry ``prevLogIdx``, or no entries, as a heartbeat or a probe."""

    type: Literal["append_entries"]
    term: int
    commit_index: int
    prevLogIdx: int
    prevLogTerm: int | None
    entries: list[WireEntry]
    time: int
    at: int
    age: int
    clock: int
    hold: int
    down: list[str]
    digest: list[Any]
    seen: NotRequired[dict[str, int]]
    under_way: NotRequired[int]


class AppendAck(TypedDict):
    """Message of a follower, in answer to AppendEntries: how far its log equals the leader's, or where they differ."""

    type: Literal["append_ack"]
    term: int
    at: int
    clock: int
    ok: bool
    match: NotRequired[int]
    prev: NotRequired[int]
    last: NotRequired[int]
    conflict_term: NotRequired[int | None]
    conflict_index: NotRequired[int]


class Commit(TypedDict):
    """Message of a leader: the entry at ``index`` is committed. The message is not answered."""

    type: Literal["commit"]
    term: int
    index: int
    index_term: int | None


class Propose(TypedDict):
    """Message of any node to its leader: blocks of commands, to be appended to the log."""

    type: Literal["propose"]
    blocks: list[bytes]
    crowded: bool
    again: NotRequired[bool]


class Term(TypedDict):
    """Message in answer to a message of an earlier term: it tells the later term of the node that answers."""

    type: Literal["term"]
    term: int


class PreVote(TypedDict):
    """Message that asks whether the receiver would vote for the sender in the message's term. It changes nobody's term."""

    type: Literal["pre_vote"]
    term: int
    last_log_index: int
    last_log_term: int


class PreVoteReply(TypedDict):
    """Message in answer to a pre-vote request: whether the vote would be granted.

    current: the answering node's own term.
    time, heard: the answering node's estimate of the cluster's time, and whether a leader has told that node the time.
    """

    type: Literal["pre_vote_reply"]
    term: int
    current: int
    granted: bool
    time: int
    heard: bool


class RequestVote(TypedDict):
    """Message of a candidate that asks for a vote. transfer: whether the leader has asked the candidate to take over."""

    type: Literal["request_vote"]
    term: int
    last_log_index: int
    last_log_term: int
    transfer: bool


class ResponseVote(TypedDict):
    """Message of a voter: its vote, which is durable.

    time, heard: the voter's estimate of the cluster's time, and whether a leader has told the voter the time.
    """

    type: Literal["response_vote"]
    term: int
    time: int
    heard: bool


class TimeoutNow(TypedDict):
    """Message of a leader that asks a voter with the whole log to campaign at once."""

    type: Literal["timeout_now"]
    term: int


class HandOver(TypedDict):
    """Message that asks the leader to hand leadership to the voter ``heir``; "" stands for the one with the longest log."""

    type: Literal["hand_over"]
    heir: str


class SnapshotPiece(TypedDict):
    """Message of a leader to a follower: one piece of the leader's snapshot."""

    type: Literal["snapshot"]
    term: int
    index: int
    snapshot_term: int
    bytes: int
    offset: int
    data: bytes


class SnapshotAck(TypedDict):
    """Message of a follower: ``offset`` bytes of the snapshot are received.

    done: whether the snapshot is installed.  refused: whether the last piece did not follow the bytes received.
    """

    type: Literal["snapshot_ack"]
    term: int
    index: int
    offset: int
    done: bool
    refused: bool


class Differs(TypedDict):
    """Message of a follower: the digest of its state machine at a log index at which the leader's digest differs."""

    type: Literal["differs"]
    index: int
    digest: bytes


class Register(TypedDict):
    """Message that asks the leader to make a node a member, to remove it, or to change its vote.

    member: the node's id, incarnation, Raft address, HTTP address.  observer: whether a newcomer gets no vote unless promoted.
    was: whether a newcomer says that it has been a member.  level: the highest feature level that a newcomer's build knows.
    The last three count in a registration alone.
    """

    type: Literal["register", "remove", "promote", "demote"]
    request: int
    member: list[str]
    observer: bool
    was: bool
    level: int


class ChangeReply(TypedDict):
    """Message in answer to a request to add, remove, promote or demote a member: the outcome of that change."""

    type: Literal["change_reply"]
    request: int
    outcome: str
    detail: str


class Membership(TypedDict):
    """Message of a member that hears no leader: it asks whether it is still a member.

    first: [term, index] of the entry by which it became a member.
    """

    type: Literal["membership"]
    first: list[int]


class NotMember(TypedDict):
    """Message that tells the receiver that it is no member of the cluster.

    since: the log index of a member table without the receiver.
    """

    type: Literal["not_member"]
    incarnation: str
    term: int
    index: int
    since: int
    first: NotRequired[list[int]]
    was: NotRequired[bool]


# Any of them, as a sender makes it.
Sent: TypeAlias = (
    AppendEntries
    | AppendAck
    | Commit
    | Propose
    | Term
    | PreVote
    | PreVoteReply
    | RequestVote
    | ResponseVote
    | TimeoutNow
    | HandOver
    | SnapshotPiece
    | SnapshotAck
    | Differs
    | Register
    | ChangeReply
    | Membership
    | NotMember
)
MESSAGES: Final[dict[str, type]] = {
    "append_entries": AppendEntries,
    "append_ack": AppendAck,
    "commit": Commit,
    "propose": Propose,
    "term": Term,
    "pre_vote": PreVote,
    "pre_vote_reply": PreVoteReply,
    "request_vote": RequestVote,
    "response_vote": ResponseVote,
    "timeout_now": TimeoutNow,
    "hand_over": HandOver,
    "snapshot": SnapshotPiece,
    "snapshot_ack": SnapshotAck,
    "differs": Differs,
    "register": Register,
    "remove": Register,
    "promote": Register,
    "demote": Register,
    "change_reply": ChangeReply,
    "membership": Membership,
    "not_member": NotMember,
}
# The kinds that keep their order: they may be large, or mean something only behind what was sent before.
IN_ORDER: Final = frozenset(("append_entries", "commit", "propose", "snapshot"))
# The kinds that may overtake these, which are small and mean the same whatever is still on its way. So does an append message
# without entries: it refers to nothing that is (roles/replication.py).
OVERTAKING: Final = frozenset(MESSAGES) - IN_ORDER
# The feature level that brought each message (``machine/language/levels.py``): none is sent before that level is in force. A
# field that is added later is NotRequired, and sent from its level on.
LEVELS: Final[dict[str, int]] = dict.fromkeys(MESSAGES, 1)
