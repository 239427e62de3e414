"""The messages between nodes: which fields each has, and of which type. docs/messages.md says what they mean.

A receiver trusts none of this: what comes from a peer is checked by guards.py and by its handler. The types are for those who
send and for those who read: mypy checks what a sender writes down, the simulation every message that is sent.
"""

from __future__ import annotations

from typing import Any, Final, Literal, NotRequired, TypeAlias, TypedDict

# As msgpack carries an entry of the log: command, index, term.
WireEntry = tuple[bytes, int, int]


class AppendEntries(TypedDict):
    """The leader's entries behind one that the follower is to have, or none: a heartbeat, a probe."""

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
    """A follower's answer: how far its log is the leader's and durable; or where they differ."""

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
    """The entry at an index is committed; nobody answers."""

    type: Literal["commit"]
    term: int
    index: int
    index_term: int | None


class Propose(TypedDict):
    """Blocks of commands on their way to the leader."""

    type: Literal["propose"]
    blocks: list[bytes]
    crowded: bool
    again: NotRequired[bool]


class Term(TypedDict):
    """The sender is in a later term than the message that it answers."""

    type: Literal["term"]
    term: int


class PreVote(TypedDict):
    """Would you vote for me in this term? Nobody's term changes by it."""

    type: Literal["pre_vote"]
    term: int
    last_log_index: int
    last_log_term: int


class PreVoteReply(TypedDict):
    """The answer to a pre-vote. current: the answering node's own term.  time, heard: as in a vote."""

    type: Literal["pre_vote_reply"]
    term: int
    current: int
    granted: bool
    time: int
    heard: bool


class RequestVote(TypedDict):
    """A candidate asks for a vote. transfer: the leader has asked it to take over."""

    type: Literal["request_vote"]
    term: int
    last_log_index: int
    last_log_term: int
    transfer: bool


class ResponseVote(TypedDict):
    """A vote, durable. time, heard: the voter's estimate of the cluster's time, and whether it comes from a leader."""

    type: Literal["response_vote"]
    term: int
    time: int
    heard: bool


class TimeoutNow(TypedDict):
    """The leader asks a voter that has everything to campaign at once."""

    type: Literal["timeout_now"]
    term: int


class HandOver(TypedDict):
    """A node asks the leader to hand leadership over. heir: "" for whoever is most complete."""

    type: Literal["hand_over"]
    heir: str


class SnapshotPiece(TypedDict):
    """A piece of the leader's snapshot."""

    type: Literal["snapshot"]
    term: int
    index: int
    snapshot_term: int
    bytes: int
    offset: int
    data: bytes


class SnapshotAck(TypedDict):
    """What is there of a snapshot. done: it is in place. refused: the piece that came does not follow that."""

    type: Literal["snapshot_ack"]
    term: int
    index: int
    offset: int
    done: bool
    refused: bool


class Differs(TypedDict):
    """A follower's digest at an index, at which the leader's is another."""

    type: Literal["differs"]
    index: int
    digest: bytes


class Register(TypedDict):
    """Make this node a member. member: id, incarnation, Raft address, HTTP address. was: it says that it has been one.

    level: the highest feature level of its build; of no matter where a member is removed.
    """

    type: Literal["register", "remove"]
    request: int
    member: list[str]
    was: bool
    level: int


class ChangeReply(TypedDict):
    """What became of a change of the members that the receiver asked for."""

    type: Literal["change_reply"]
    request: int
    outcome: str
    detail: str


class Membership(TypedDict):
    """A member that hears no leader asks whether it is still one. first: index and term at which it became one."""

    type: Literal["membership"]
    first: list[int]


class NotMember(TypedDict):
    """The cluster goes on without the receiver, since the configuration at an index."""

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
