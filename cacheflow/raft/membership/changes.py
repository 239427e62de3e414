"""Reconfiguration: how the leader changes the membership of the cluster.

One change is made at a time, each proposed only when the one before and the leader's no-op are applied here
(dissertation 4.1 and its erratum). What was asked for comes first, then what ``votes.py`` says. A leader that is to be
removed or to give its vote back hands leadership over first (``hand_over.py``).

Not safe for concurrent use: the event loop owns it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, cast

from cacheflow.machine.language.levels import BUILD_LEVEL
from cacheflow.machine.state.settings import MEMBERS_MAX, Member, member_of
from cacheflow.raft import guards
from cacheflow.raft.core import Core
from cacheflow.raft.links import Links
from cacheflow.raft.membership.configuration import Configuration
from cacheflow.raft.membership.hand_over import HandOver
from cacheflow.raft.membership.membership import Membership
from cacheflow.raft.membership.votes import Votes
from cacheflow.raft.message_types import Register
from cacheflow.raft.peers import Peers
from cacheflow.raft.replica import Replica
from cacheflow.raft.roles.leader import Leading
from cacheflow.raft.seams import Timing
from cacheflow.raft.ticks import Ticks
from cacheflow.raft.transport.network import Peer

# Outcomes of a change, as they travel between nodes. UNSURE: it was proposed, and its leader has lost leadership since.
JOINED, REMOVED, KNOWN, UNKNOWN, CONFLICT = "joined", "removed", "known", "unknown", "conflict"
NO_LEADER, UNSURE = "no leader", "unsure"
# Outcomes of a change of a vote: it is done, or the member lacks something that it will soon have.
CHANGED, BEHIND = "changed", "behind"
# The kinds of changes, as the types of the messages that ask for them.
REGISTER, REMOVE, PROMOTE, DEMOTE = "register", "remove", "promote", "demote"
_DONE = {REGISTER: JOINED, REMOVE: REMOVED, PROMOTE: CHANGED, DEMOTE: CHANGED}
# Changes that may wait at once, more are refused; and how long one may wait, when its asker has given up.
WAITING_MAX = 100
WAITING_MS = 8000
# Characters of a member's refusal that are kept for people.
REFUSAL_CHARS_MAX = 300

# Called once with (outcome, detail) when a change of members has ended.
ChangeDone = Callable[[str, str], None]


@dataclass(slots=True)
class _Change:
    """A requested change of the cluster's members: ``member`` is to be added, removed, or given or denied a vote.

    kind: REGISTER, REMOVE, PROMOTE or DEMOTE.
    member: if it is a member already, its incarnation may be empty, which stands for any incarnation.
    """

    kind: str
    member: Member
    # The highest feature level that a newcomer's build knows; 0 for other changes.
    level: int
    # The node says that it has been a member: if it is none now, it was removed.
    was_member: bool
    # The change is refused if it still waits then.
    until_ms: int
    done: ChangeDone
    # The index of the entry that proposes it; 0 before.
    index: int = 0


class Reconfiguration:
    """The membership changes that a leader has still to make; on a follower, those that it has asked its leader for."""

    def __init__(
        self,
        core: Core,
        *,
        links: Links,
        ticks: Ticks,
        peers: Peers,
        replica: Replica,
        membership: Membership,
        leading: Leading,
        hand_over: HandOver,
        timing: Timing,
    ) -> None:
        self._core = core
        self._links = links
        self._ticks = ticks
        self._peers = peers
        self._replica = replica
        self._membership = membership
        self._leading = leading
        self._hand_over = hand_over
        self.votes = Votes(
            core,
            links=links,
            peers=peers,
            replica=replica,
            membership=membership,
            leading=leading,
            timing=timing,
        )
        self._waiting: deque[_Change] = deque()
        self._proposed: _Change | None = None
        # This node's own removal or demotion, which the next leader is asked for.
        self._own: deque[_Change] = deque()
        # {number: callback} of the changes that the leader was asked for.
        self._requests: dict[int, ChangeDone] = {}
        # Why a member has refused to register this node, which asks without waiting (request 0); "" if none has.
        self.refusal = ""
        self._next_request = 0
        # Whether any turn may bring a change on: one waits, more or fewer members are to vote, or a hand-over is under way. A
        # plain value, because each turn asks; whoever begins one of these wakes the node.
        self.is_pending = False
        self._deciders: dict[str, Callable[[Configuration, _Change], Configuration | None]] = {
            REGISTER: self._decide,
            REMOVE: self._decide_removal,
            PROMOTE: self._decide_promotion,
            DEMOTE: self._decide_demotion,
        }
        self.handlers: dict[str, Callable[[Peer, dict[str, Any]], None]] = {
            **dict.fromkeys(_DONE, self._on_change),
            "change_reply": self._on_change_reply,
        }

    # Asking for a change ----------------------------------------------------------------------------------------------

    def register(self, member: Member, done: ChangeDone, was_member: bool = False, level: int = BUILD_LEVEL) -> None:
        """Make ``member`` part of the cluster; on a follower, by asking the leader for it.

        done: called once with (outcome, detail), two texts, unless the leader vanishes.
        level: the highest feature level that the member's build knows; the member is refused if the cluster's level is
        higher.
        was_member: by its own log the node has been a member; if it is no member now, it was removed, and is refused.
        """
        self._ask(REGISTER, member, level, was_member, done)

    def remove(self, node_id: str, incarnation: str, done: ChangeDone) -> None:
        """Remove the member ``node_id`` from the cluster; on a follower, by asking the leader for it.

        incarnation: that of the member to remove; empty for any.
        done: called once with (outcome, detail), two texts, unless the leader vanishes.
        """
        self._ask(REMOVE, Member(node_id, incarnation, "", "", False), 0, False, done)

    def is_to_go(self, member: Member) -> bool:
        """True if ``member``'s removal was asked for and is not over; nodes other than the leader may not know of that."""
        return any(
            change.kind == REMOVE
            and change.member.id == member.id
            and change.member.incarnation in ("", member.incarnation)
            for change in (*self._waiting, *self._own, *([self._proposed] if self._proposed is not None else []))
        )

    def promote(self, node_id: str, incarnation: str, done: ChangeDone) -> None:
        """Give the member ``node_id`` a vote; on a follower, by asking the leader for it.

        incarnation: that of the member; empty for any.
        done: called once with (outcome, detail), two texts, unless the leader vanishes.
        """
        self._ask(PROMOTE, Member(node_id, incarnation, "", "", False), 0, False, done)

    def demote(self, node_id: str, incarnation: str, done: ChangeDone) -> None:
        """Make the member ``node_id`` an observer, without a vote; on a follower, by asking the leader for it.

        incarnation: that of the member; empty for any.
        done: called once with (outcome, detail), two texts, unless the leader vanishes.
        """
        self._ask(DEMOTE, Member(node_id, incarnation, "", "", False), 0, False, done)

    def _ask(self, kind: str, member: Member, level: int, was_member: bool, done: ChangeDone) -> None:
        if self._core.is_leader:
            if len(self._waiting) >= WAITING_MAX:
                done(NO_LEADER, "too many nodes come and go at once; try again")
                return
            self._waiting.append(_Change(kind, member, level, was_member, self._links.now_ms() + WAITING_MS, done))
            self._ticks.wake()
            return
        route = self._links.route
        if route is None:
            done(NO_LEADER, "no leader is known")
            return
        while len(self._requests) >= WAITING_MAX:
            # The network may lose a request in silence, and nobody would take it out.
            del self._requests[next(iter(self._requests))]
        self._next_request += 1
        self._requests[self._next_request] = done
        fields = [member.id, member.incarnation, member.raft_address, member.address]
        message: Register = {
            "type": cast(Any, kind),
            "request": self._next_request,
            "member": fields,
            "observer": member.observer,
            "was": was_member,
            "level": level,
        }
        if not self._links.send(route.leader_id, message):
            del self._requests[self._next_request]
            done(NO_LEADER, "the leader cannot be reached")

    def _on_change(self, peer: Peer, message: dict[str, Any]) -> None:
        request = guards.natural(message, "request")
        fields = message.get("member")
        try:
            member = member_of([*fields, False, message.get("observer")] if type(fields) is list else None)
        except ValueError as error:
            raise guards.BadMessage(f"{message['type']}: {error}") from None
        kind = message["type"]
        if kind != REGISTER and not self._membership.is_member(peer):
            return
        node_id = peer.node_id
        self._ask(
            kind,
            member,
            guards.natural(message, "level"),
            message.get("was") is True,
            lambda outcome, detail: self._answer(node_id, request, outcome, detail),
        )

    def _answer(self, node_id: str, request: int, outcome: str, detail: str) -> None:
        self._links.send(node_id, {"type": "change_reply", "request": request, "outcome": outcome, "detail": detail})

    def _on_change_reply(self, peer: Peer, message: dict[str, Any]) -> None:
        request = guards.natural(message, "request")
        done = self._requests.pop(request, None)
        if done is not None:
            done(str(message.get("outcome")), str(message.get("detail")))
        elif request == 0 and message.get("outcome") == CONFLICT:
            # The text goes into the log and the health check.
            told = str(message.get("detail"))[:REFUSAL_CHARS_MAX]
            self.refusal = "".join(char if char.isprintable() else "?" for char in told)

    def route_changed(self) -> None:
        """Tell callers who asked the old leader for membership changes that the outcome is UNSURE: answers may be lost."""
        requests, self._requests = self._requests, {}
        for done in requests.values():
            done(UNSURE, "the leader changed meanwhile")

    # One change at a time --------------------------------------------------------------------------------------------

    def proceed(self) -> None:
        """As leader, propose the next requested membership change, unless an earlier change or hand-over is still under way.

        As follower, ask the leader for this node's own removal or demotion, if that was requested. Called in every turn in which
        the leader or the membership may have changed.
        """
        if not self._core.is_leader:
            self.is_pending = False
            self._pass_on()
            return
        self._hand_over.proceed()
        latest = self._membership.configurations.latest
        is_wanted = self.votes.is_wanted(latest)
        if self._core.has_settled and latest.index <= self._core.last_applied and not self._membership.is_unlogged:
            proposed = bool(self._waiting) and self._proposes_what_was_asked(latest)
            if not proposed and self._hand_over.heir is None and (is_wanted or self.votes.silent_ms):
                table = self.votes.next_table(latest)
                if table is not None:
                    self._leading.append_configuration(table)
        self.is_pending = is_wanted or self._hand_over.heir is not None or bool(self._waiting)

    def _proposes_what_was_asked(self, latest: Configuration) -> bool:
        """As leader, answer or propose the waiting membership changes, up to the first that needs a new member table.

        latest: the member table in force. Returns True if a change was proposed.
        """
        while self._waiting and self._hand_over.heir is None:
            change = self._waiting.popleft()
            if change.until_ms < self._links.now_ms():
                change.done(NO_LEADER, "it could not be done in time")
                continue
            proposal = self._deciders[change.kind](latest, change)
            if proposal is not None:
                change.index = self._leading.append_configuration(proposal)
                if not (self._waiting and self._waiting[0] is change):
                    self._proposed = change
                return True
        return False

    def _pass_on(self) -> None:
        """Ask the new leader to remove or demote this node, if that was requested while this node led.

        The new leader is asked at once: otherwise two nodes that are both to go would hand leadership to each other for
        ever.
        """
        while self._own and (self._links.route is not None or self._own[0].until_ms < self._links.now_ms()):
            change = self._own.popleft()
            self._ask(change.kind, change.member, 0, False, change.done)

    def applied(self, index: int) -> None:
        """Report the proposed membership change as done if its log entry is applied. index: that of the last applied entry."""
        change = self._proposed
        if change is not None and change.index <= index:
            self._proposed = None
            change.done(_DONE[change.kind], "")

    def deposed(self) -> None:
        """Report to all callers that wait for a membership change that this node leads no more: they may ask the new leader.

        A request to remove or demote this node itself is kept, and passed on to the new leader.
        """
        waiting, proposed = [*self._waiting], self._proposed
        self._waiting.clear()
        self._proposed = None
        self._hand_over.heir = None
        for change in waiting:
            if change.kind in (REMOVE, DEMOTE) and change.member.id == self._membership.node_id:
                self._own.append(change)
            else:
                change.done(NO_LEADER, "the leader changed meanwhile")
        if proposed is not None:
            proposed.done(UNSURE, "the leader changed meanwhile")

    def _decide(self, latest: Configuration, change: _Change) -> Configuration | None:
        """Return the next member table for ``change``, a node's request to join the cluster; None if no new table is needed.

        That is so if the request was refused, which was reported, or if the node is a member already.
        latest: the member table in force.
        """
        member = change.member
        known = latest.members.get(member.id)
        down = self._peers.down_ids()
        in_force = self._replica.machine.level
        if change.level < in_force:
            change.done(
                CONFLICT,
                f"the CacheFlow on node {member.id!r} knows level {change.level} and this cluster works at level {in_force}: "
                "install a newer one there",
            )
            return None
        if known is not None and known.incarnation == member.incarnation:
            if (known.raft_address, known.address) == (member.raft_address, member.address):
                change.done(KNOWN, "")
                return None
            return latest.with_member(replace(member, voter=known.voter, observer=known.observer))
        if change.was_member or (member.id, member.incarnation) in self._replica.machine.removed:
            change.done(
                CONFLICT,
                f"node {member.id!r} was removed from the cluster; to use it again, stop it, remove its data directory "
                "and start it with --seed",
            )
            return None
        if known is not None and (known.id == self._membership.node_id or known.id not in down):
            change.done(CONFLICT, f"node id {member.id!r} lives at {known.address or known.raft_address}")
            return None
        if known is None and len(latest.members) >= MEMBERS_MAX:
            change.done(CONFLICT, f"the cluster has {MEMBERS_MAX} members, which is the most")
            return None
        # A node with an emptied disk and another id at the same address: the member that it was can't come back.
        for other in latest.members.values():
            if other.id != member.id and other.raft_address == member.raft_address:
                if other.id not in down:
                    change.done(CONFLICT, f"{member.raft_address} belongs to the living node {other.id!r}")
                    return None
                latest = latest.without(other.id)
                if known is not None and known.voter and other.voter:
                    # Two voters changed at once could make two majorities without a common node (4.1): the rest waits.
                    self._waiting.appendleft(change)
                    return latest
                break
        return latest.with_member(replace(member, voter=False))

    def _decide_removal(self, latest: Configuration, change: _Change) -> Configuration | None:
        """Return the member table without the member that the request ``change`` removes.

        Returns None if the request is refused, or waits for another leader. latest: the member table in force.
        """
        known = self._known(latest, change)
        return None if known is None else self._without_vote(latest, latest.without(known.id), change)

    def _decide_demotion(self, latest: Configuration, change: _Change) -> Configuration | None:
        """Return the member table in which the member that the request ``change`` names is an observer, without a vote.

        Returns None if the request is refused, done already, or waits for another leader. latest: the member table in force.
        """
        known = self._known(latest, change)
        if known is None:
            return None
        if known.observer:
            change.done(KNOWN, "")
            return None
        after = latest.with_member(replace(known, voter=False, observer=True))
        return self._without_vote(latest, after, change)

    def _decide_promotion(self, latest: Configuration, change: _Change) -> Configuration | None:
        """Return the member table in which the member that the request ``change`` names votes; None if refused or done.

        latest: the member table in force.
        """
        known = self._known(latest, change)
        if known is None:
            return None
        if known.voter:
            change.done(KNOWN, "")
            return None
        replicas = self.votes.replicas()
        lack = self.votes.lack_of(known.id)
        if replicas is None:
            change.done(NO_LEADER, "the cluster has just begun; try again")
        elif len(latest.voters) > replicas:
            change.done(
                CONFLICT,
                f"{len(latest.voters)} nodes vote, which are all that replicas = {replicas} allows: raise replicas, or "
                "demote another node first",
            )
        elif lack:
            change.done(BEHIND, f"{known.id!r} cannot vote yet: {lack}")
        else:
            return latest.with_member(replace(known, voter=True, observer=False))
        return None

    def _known(self, latest: Configuration, change: _Change) -> Member | None:
        """Return the row of ``latest``, the member table in force, for the member that the request ``change`` names.

        Returns None if no such member is in it, and reports that to the caller that waits for the change.
        """
        node_id, incarnation = change.member.id, change.member.incarnation
        known = latest.members.get(node_id)
        if known is None or incarnation not in ("", known.incarnation):
            change.done(UNKNOWN, f"no node {node_id!r} is a member of this cluster")
            return None
        return known

    def _without_vote(self, latest: Configuration, after: Configuration, change: _Change) -> Configuration | None:
        """Return ``after``, a member table in which the member that the request ``change`` names has no vote, if allowed.

        Returns None if the cluster cannot spare that vote, or if that member still leads and must hand over leadership first.
        latest: the member table in force.
        """
        node_id = change.member.id
        if latest.members[node_id].voter:
            down = self._peers.down_ids()
            voters = after.voters
            there = [voter_id for voter_id in voters if voter_id not in down]
            if not voters:
                change.done(CONFLICT, f"{node_id!r} is the only node that votes: without it there is no cluster")
                return None
            if len(there) <= len(voters) // 2:
                change.done(
                    CONFLICT,
                    f"without {node_id!r} only {len(there)} of {len(voters)} voters can be reached, which is no majority: "
                    "bring the others back first, or remove those that are down",
                )
                return None
        if node_id == self._membership.node_id:
            # The next leader removes or demotes this node as any other.
            self._waiting.appendleft(change)
            if self._hand_over.begin(None) is None:
                self._waiting.popleft()
                change.done(NO_LEADER, "nobody can take over leadership from that node")
            return None
        return after
