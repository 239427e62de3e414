"""A leader that is a list, and callers that propose through it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cacheflow.machine.language import commands
from cacheflow.machine.language.commands import Command, Result
from cacheflow.machine.machine import CacheMachine
from cacheflow.machine.state.entries import Entry
from cacheflow.node.proposal import Proposal
from cacheflow.node.proposals import Proposals

NONCE = "this start"


def table(*member_ids: str) -> Command:
    """The command for a table of these members."""
    return commands.members("c", [(member_id, "i", "h:1", "", True, False) for member_id in member_ids])


class Cluster:
    """A leader that keeps what it is sent until it is told to apply it, and the time."""

    def __init__(self) -> None:
        self.machine = CacheMachine()
        self.machine.apply(1, entry([(0, 0, 0, [table("me", "other")])]))
        self.index = 1
        self.sent: list[bytes] = []
        self.takes = True
        # Whether an entry is on its way to a majority, and how many were committed.
        self.waits = False
        self.sending = False
        self.committed = 0
        self.now = 100.0
        # The leader's time, which a node may lag behind.
        self.cluster_ms = self.leader_ms = 1000
        self.uses: list[tuple[str, int]] = []
        self.timers: list[Callable[[], None]] = []
        # What is in this node's memory.
        self.items: dict[str, Entry] = {}
        self.proposals = Proposals(
            self,
            opening=commands.open_session("me", "i", 1, NONCE),
            clock=lambda: self.now,
            cluster_ms=lambda: self.cluster_ms,
            uses=self.drain,
            later=lambda _, call: self.timers.append(call),
            peek=self.items.get,
            wake=lambda _: None,
        )

    def propose(self, blocks: list[bytes], crowded: bool = False, again: bool = False) -> bool:
        if self.takes and again:
            # What waits of this node is all sent again.
            self.sent.clear()
        if self.takes:
            self.sent += blocks
        return self.takes

    def is_sending(self) -> bool:
        return self.sending

    def log_progress(self) -> tuple[int, bool]:
        return self.committed, self.waits

    def drain(self) -> list[tuple[str, int]]:
        uses, self.uses = self.uses, []
        return uses

    def apply(self, *blocks: bytes) -> None:
        """Commit these blocks, by default everything that was sent, in one entry."""
        chosen = list(blocks) if blocks else self.sent
        if not blocks:
            self.sent = []
        self.index += 1
        self.proposals.applied(self.machine.apply(self.index, commands.encode_entry(self.leader_ms, chosen)))

    def open(self) -> Cluster:
        """With a route and a session."""
        self.proposals.route_changed(True)
        self.apply()
        return self

    def wait(self) -> None:
        """Let the timers run out."""
        timers, self.timers = self.timers, []
        for call in timers:
            call()

    def blocks(self) -> list[tuple[int, int, int, list[list[Any]]]]:
        blocks = map(commands.decode_block, self.sent)
        return [(session, first, lowest, body) for session, first, lowest, _, body in blocks]

    def lose_session(self) -> None:
        """Let the member leave the table and come again."""
        self.apply(commands.encode_block(0, 0, 0, [table("other"), table("me", "other")]))


def entry(blocks: list[tuple[int, int, int, list[Command]]]) -> bytes:
    return commands.encode_entry(1, [commands.encode_block(*block) for block in blocks])


class Call:
    """A caller that waits. outcomes: what it was told; never more than one."""

    def __init__(
        self,
        cluster: Cluster,
        *commands_: Command,
        timeout_s: float = 10.0,
        size: int = 64,
        flush: bool = True,
        work: int = 0,
        weight: int | None = None,
    ) -> None:
        self.outcomes: list[Any] = []
        if weight is None:
            weight = commands.measured(commands_)[1] + work
        cluster.proposals.add(Proposal(commands_, size, weight, cluster.now + timeout_s, self.told, 1, work))
        if flush:
            cluster.proposals.flush()

    def told(self, outcome: Any) -> Callable[[], None]:
        """Note ``outcome``; nobody is to be woken."""
        self.outcomes.append(outcome)
        return lambda: None

    @property
    def outcome(self) -> Any:
        assert len(self.outcomes) == 1
        return self.outcomes[0]


def count(key: str = "n") -> Command:
    return commands.incr(key, 1, 0)


def numbers(results: list[Result]) -> list[int]:
    assert all(result[0] == commands.OK for result in results)
    return [result[2] for result in results]
