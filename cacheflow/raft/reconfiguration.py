"""Changing the membership and handing leadership over: the leader's slow decisions.

One change at a time, each proposed only when the one before is applied here and the leader's no-op is (dissertation
4.1 and its erratum). A learner becomes a voter once it has what is committed, while fewer than ``replicas`` + 1 vote.

Not safe for concurrent use: the event loop owns it.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from cacheflow.machine.settings import Member
from cacheflow.raft import guards
from cacheflow.raft.core import Core
from cacheflow.raft.membership import Configuration
from cacheflow.raft.network import Peer

if TYPE_CHECKING:
    from cacheflow.raft.node import RaftNode

logger = logging.getLogger(__name__)

# Outcomes of a registration, as they travel between nodes.
JOINED, KNOWN, CONFLICT, NO_LEADER = "joined", "known", "conflict", "no leader"
# A hand-over that takes longer is given up: proposals wait meanwhile.
HAND_OVER_MS = 2000
# Further registrations than this at once are refused.
WAITING_MAX = 100

Done = Callable[[str, str], None]


@dataclass(slots=True)
class _Change:
    member: Member
    done: Done
    index: int = 0
    term: int = 0


class Reconfiguration:
    """The leader's queue of membership changes."""

    def __init__(self, node: RaftNode, core: Core) -> None:
        self._node = node
        self._core = core
        self._waiting: deque[_Change] = deque()
        self._proposed: _Change | None = None
        self._requests: dict[int, Done] = {}
        self._next_request = 0
        self._heir: str | None = None
        self._heir_asked = False
        self._hand_over_until_ms = 0
        self.handlers: dict[str, Callable[[Peer, dict[str, Any]], None]] = {
            "register": self._on_register,
            "register_reply": self._on_register_reply,
            "hand_over": self._on_hand_over,
        }

    # Joining ---------------------------------------------------------------------------------------------------------

    def register(self, member: Member, done: Done) -> None:
        """Make ``member`` part of the cluster. done(outcome, detail) is called once, unless the leader vanishes."""
        node = self._node
        if self._core.is_leader:
            if len(self._waiting) >= WAITING_MAX:
                done(NO_LEADER, "too many nodes register at once; try again")
                return
            self._waiting.append(_Change(member, done))
            node.wake()
            return
        route = node.route
        if route is None:
            done(NO_LEADER, "no leader is known")
            return
        self._next_request += 1
        self._requests[self._next_request] = done
        fields = [member.id, member.incarnation, member.raft_address, member.address]
        node.send(route.leader_id, {"type": "register", "request": self._next_request, "member": fields})

    def _on_register(self, peer: Peer, message: dict[str, Any]) -> None:
        request = guards.natural(message, "request")
        fields = message.get("member")
        if type(fields) is not list or len(fields) != 4 or any(type(item) is not str for item in fields):
            raise guards.BadMessage("register: no member")
        node_id = peer.node_id
        self.register(
            Member(fields[0], fields[1], fields[2], fields[3], False),
            lambda outcome, detail: self._answer(node_id, request, outcome, detail),
        )

    def _answer(self, node_id: str, request: int, outcome: str, detail: str) -> None:
        self._node.send(node_id, {"type": "register_reply", "request": request, "outcome": outcome, "detail": detail})

    def _on_register_reply(self, peer: Peer, message: dict[str, Any]) -> None:
        done = self._requests.pop(guards.natural(message, "request"), None)
        if done is not None:
            done(str(message.get("outcome")), str(message.get("detail")))

    # One change at a time --------------------------------------------------------------------------------------------

    def proceed(self) -> None:
        """Once a turn: propose the next change when nothing stands in its way."""
        if not self._core.is_leader:
            return
        self._proceed_hand_over()
        latest = self._node.configurations.latest
        if not self._core.has_settled or latest.index > self._core.last_applied or self.handing_over:
            return
        while self._waiting:
            change = self._waiting.popleft()
            proposal = self._decide(latest, change)
            if proposal is not None:
                change.index = self._node.leading.append_configuration(proposal)
                change.term = self._core.term
                self._proposed = change
                return
        learner = self._ready_learner(latest)
        if learner is not None:
            self._node.leading.append_configuration(latest.with_member(replace(learner, voter=True)))

    def applied(self, index: int) -> None:
        """The machine has applied up to ``index``."""
        change = self._proposed
        if change is not None and change.index <= index:
            self._proposed = None
            change.done(JOINED, "")

    def deposed(self) -> None:
        """This node leads no more: who waits asks the new leader."""
        waiting = [*self._waiting, *([self._proposed] if self._proposed else [])]
        self._waiting.clear()
        self._proposed = None
        self._heir = None
        for change in waiting:
            change.done(NO_LEADER, "the leader changed meanwhile")

    def _decide(self, latest: Configuration, change: _Change) -> Configuration | None:
        """The table after the change; None when it was answered without one."""
        member = change.member
        known = latest.members.get(member.id)
        down = self._node.down_ids()
        if known is not None and known.incarnation == member.incarnation:
            if (known.raft_address, known.address) == (member.raft_address, member.address):
                change.done(KNOWN, "")
                return None
            return latest.with_member(replace(member, voter=known.voter))
        if known is not None and (known.id == self._node.node_id or known.id not in down):
            change.done(CONFLICT, f"node id {member.id!r} lives at {known.address or known.raft_address}")
            return None
        # An emptied disk under another id: the member that it was can't come back.
        for other in latest.members.values():
            if other.id != member.id and other.raft_address == member.raft_address:
                if other.id not in down:
                    change.done(CONFLICT, f"{member.raft_address} belongs to the living node {other.id!r}")
                    return None
                latest = latest.without(other.id)
                break
        return latest.with_member(replace(member, voter=False))

    def _ready_learner(self, latest: Configuration) -> Member | None:
        replicas = self._node.machine.settings.replicas
        if replicas is None or len(latest.voters) > replicas:
            return None
        down = self._node.down_ids()
        for _, member in sorted(latest.members.items()):
            progress = self._node.leading.replicator.progress.get(member.id)
            if not member.voter and progress is not None and member.id not in down:
                # Within one round of what is committed (4.2.1).
                if not progress.probing and progress.match_index >= self._core.commit_index:
                    return member
        return None

    # Handing leadership over (3.10) ----------------------------------------------------------------------------------

    @property
    def handing_over(self) -> bool:
        """Nothing is appended meanwhile, so that the heir can have everything."""
        return self._heir is not None

    def hand_over(self, node_id: str | None) -> str | None:
        """Begin to hand leadership to ``node_id``, or to the most complete voter. Returns its id, None if there is none."""
        candidates = [
            (self._match_of(voter_id), voter_id)
            for voter_id in self._core.voter_ids
            if self._node.is_connected(voter_id) and node_id in (None, voter_id)
        ]
        if not self._core.is_leader or not candidates:
            return None
        self._heir = max(candidates)[1]
        self._heir_asked = False
        self._hand_over_until_ms = self._node.now_ms() + HAND_OVER_MS
        self._node.wake()
        return self._heir

    def _on_hand_over(self, peer: Peer, message: dict[str, Any]) -> None:
        heir = message.get("heir")
        if type(heir) is not str:
            raise guards.BadMessage("hand_over: no heir")
        self.hand_over(heir or None)

    def _match_of(self, node_id: str) -> int:
        progress = self._node.leading.replicator.progress.get(node_id)
        return progress.match_index if progress is not None else 0

    def _proceed_hand_over(self) -> None:
        if self._heir is None:
            return
        if self._node.now_ms() > self._hand_over_until_ms:
            logger.warning("%s did not take over leadership in time", self._heir)
            self._heir = None
            self._node.wake()
        elif not self._heir_asked:
            self._heir_asked = self._core.ask_to_lead(self._heir)
