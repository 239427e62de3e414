"""RaftNode: one member, driven by the event loop.

A message, a proposal or a finished flush makes the node *advance* once a turn: commit, apply, append what is queued as
one entry (group commit), replicate. The timer, and whatever may change a role, the route or the membership, *wakes* it
for a whole tick, which looks at everything else too. Nothing here waits: the disk's work is done elsewhere, and what
must not leave before a flush is held until it is durable (dissertation 10.2.1).

Seams for the simulation: ``loop`` (call_soon, call_later, time), the network, the journal's disk and writer, randomness.
Not safe for concurrent use: the event loop owns it.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cacheflow.machine.language import commands
from cacheflow.machine.machine import CacheMachine
from cacheflow.machine.state.settings import Member
from cacheflow.raft import guards
from cacheflow.raft.core import ROLE_NAMES, Core
from cacheflow.raft.log.journal import Journal
from cacheflow.raft.membership.changes import Reconfiguration
from cacheflow.raft.membership.configuration import CONFIGURATION, NOBODY, Configuration, Configurations
from cacheflow.raft.membership.removed import Removal
from cacheflow.raft.roles.elections import Elections
from cacheflow.raft.roles.follower import Following
from cacheflow.raft.roles.leader import NO_OP, Leading
from cacheflow.raft.seams import Clock, Events, Loop
from cacheflow.raft.snapshots.schedule import SnapshotStorage, Snapshotting
from cacheflow.raft.transport.network import Network, Peer
from cacheflow.raft.turn import Turn

logger = logging.getLogger(__name__)

# A node that has much to apply goes on answering: this long at a time.
APPLY_SLICE_S = 0.010
# Messages that come with every entry. Where one changes more than the log, that shows in the core's position.
OF_LOAD = frozenset(("append_entries", "commit", "propose"))


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds. A follower campaigns after one to two election timeouts without its leader."""

    election_timeout_s: float = 1.0
    heartbeat_s: float = 0.1


@dataclass(frozen=True, slots=True)
class Route:
    """Where proposals go: pending ones are sent again exactly when this changes."""

    leader_id: str
    term: int
    connection: int


class RaftNode:
    """See the module. ``start`` begins, ``stop`` ends the timer; the journal and the network are their owner's."""

    def __init__(
        self,
        *,
        loop: Loop,
        node_id: str,
        incarnation: str,
        journal: Journal,
        machine: CacheMachine,
        network: Network,
        clock: Clock,
        snapshots: SnapshotStorage,
        events: Events,
        timing: Timing,
        initial_settings: dict[str, Any],
        random: Callable[[], float],
        turn: Turn,
    ) -> None:
        self.node_id = node_id
        self.incarnation = incarnation
        self.machine = machine
        self.failure: str | None = None
        # Why the machine goes on no more and may not be read.
        self.stumbled: str | None = None
        self.route: Route | None = None
        # Called once, with the index of the configuration that this node is not in any more.
        self.on_removed: Callable[[int], None] = lambda index: None
        self.leader_changes = 0
        self._last_leader_id: str | None = None
        self._loop = loop
        self._journal = journal
        self._network = network
        self._clock = clock
        self._events = events
        self._timing = timing
        self._core = Core(
            node_id,
            journal,
            self,
            election_timeout_s=timing.election_timeout_s,
            heartbeat_s=timing.heartbeat_s,
            random=random,
        )
        self.configurations = Configurations(_applied_configuration(machine, journal), journal.entries(0, None))
        self.leading = Leading(self, self._core, journal, network, clock, initial_settings)
        # What the core calls once a turn after applying, and when a heartbeat is due.
        self.propose_queued = self.leading.propose_queued
        self.replicate = self.leading.replicate
        self.following = Following(self, self._core, journal, network, clock, random)
        self.elections = Elections(self, self._core, journal, clock)
        self.reconfiguration = Reconfiguration(self, self._core)
        self.removal = Removal(self, self._core, journal)
        self.snapshotting = Snapshotting(self, self._core, journal, snapshots)
        self._handlers: dict[str, Callable[[Peer, dict[str, Any]], None]] = {
            **self.leading.handlers,
            **self.following.handlers,
            **self.elections.handlers,
            **self.reconfiguration.handlers,
            **self.removal.handlers,
            **self.snapshotting.handlers,
        }
        self._turn = turn
        # A turn is due; a whole tick is.
        self._woken = False
        self._whole = True
        self._position_seen: tuple[Any, ...] = ()
        # A tick follows in this turn; one is under way.
        self._tick_ahead = False
        self._ticking = False
        self._stopped = False
        self._held: deque[tuple[int, Callable[[], None]]] = deque()
        self._connections: dict[str, int] = {}
        self._heard_ms: dict[str, int] = {}
        self._clock_noted_ms = 0
        self._clock_noted_position = journal.position

    # Life -----------------------------------------------------------------------------------------------------------

    def found_cluster(self, cluster_id: str, member: Member) -> None:
        """Begin a new cluster with this node as its only voter: its first configuration is written, not voted on."""
        table = Configuration(0, cluster_id, {member.id: member})
        block = commands.encode_block(0, 0, 0, [table.command()])
        entry = CONFIGURATION + commands.encode_entry(0, [block])
        self._core.adopt_term(1)
        self._journal.setCurrentTerm(1, self.node_id)
        self.append(entry)
        # There is nobody to wait for.
        self._core.expect_election(0.0)

    def start(self) -> None:
        """Open connections to the members and begin to tick."""
        self._adopt_configuration()
        self._core.postpone_election()
        if self.configurations.latest.voters == [self.node_id]:
            self._core.expect_election(0.0)
        self._on_timer()

    def stop(self) -> None:
        """Take part no more. What was promised stays in the journal."""
        self._stopped = True

    def wake(self) -> None:
        """A whole tick soon: at the end of what ``run`` does, or in the next turn of the loop."""
        self._whole = True
        self.nudge()

    def nudge(self) -> None:
        """Advance soon, likewise."""
        if not self._woken and not self._stopped:
            self._woken = True
            if self._ticking:
                # Others of the loop come first.
                self._loop.call_soon(self._tick_if_due)
            elif not self._tick_ahead:
                self._turn.defer(self._tick_if_due)

    def run(self, work: Callable[[], None]) -> None:
        """Do ``work`` and advance, in one turn: what it appends and sends leaves at its end."""
        if self._turn.is_open:
            work()
            self.nudge()
        else:
            self._turn.run(lambda: self._work_and_tick(work))

    def _tick_if_due(self) -> None:
        if self._woken:
            self._turn.run(self._tick)

    def _work_and_tick(self, work: Callable[[], None]) -> None:
        self._tick_ahead = True
        try:
            work()
        finally:
            self._tick()

    def wake_after(self, seconds: float) -> None:
        """Tick then; the timer's grid is a heartbeat wide."""
        self._loop.call_later(seconds, self.wake)

    def nudge_after(self, seconds: float) -> None:
        """Advance then."""
        self._loop.call_later(seconds, self.nudge)

    def call_after(self, seconds: float, call: Callable[[], None]) -> None:
        """Call it then, in a turn of its own."""
        self._loop.call_later(seconds, self._turn.run, call)

    def fail(self, reason: str) -> None:
        """The disk failed, or safety was violated: lead no more, promise no more; reads go on while ``may_read``."""
        if self.failure is None:
            self.failure = reason
            logger.error("this node takes no further part in the cluster: %s", reason)
            self._core.step_down()
            self.wake()

    def removed(self, index: int) -> None:
        """The cluster goes on without this node, since the configuration at ``index``."""
        self.fail(
            f"it was removed from the cluster at index {index}; to use it again, stop it, remove its data directory "
            "and start it with --seed"
        )
        self._network.set_peers({})

    def _tick(self) -> None:
        self._tick_ahead = False
        if self._stopped:
            return
        self._woken = False
        self._ticking = True
        core = self._core
        try:
            if self._whole or core.position != self._position_seen or self.reconfiguration.is_pending:
                self._whole = False
                core.tick()
                self.following.note_progress()
                self._position_seen = core.position
                self._follow_route()
                self.reconfiguration.proceed()
            else:
                core.advance()
                self.following.note_progress()
            if self.leading.queue and self.leading.may_append():
                self.nudge()
        finally:
            self._ticking = False

    def _follow_route(self) -> None:
        route = self._find_route()
        if route != self.route:
            if route is not None and route.leader_id != self._last_leader_id:
                self._last_leader_id = route.leader_id
                self.leader_changes += 1
            self.route = route
            self.reconfiguration.route_changed()
            self._events.route_changed()

    def _on_timer(self) -> None:
        if self._stopped:
            return
        self._loop.call_later(self._timing.heartbeat_s, self._on_timer)
        self._note_clock()
        if self._core.is_leader:
            self.leading.keep_house()
        self.snapshotting.consider()
        if self.failure is None:
            self.removal.consider()
        self.wake()

    def _note_clock(self) -> None:
        """Keep a pair (cluster time, wall clock) in the journal, at most once a second and never while nothing happens."""
        now_ms = self.now_ms()
        if self._clock.heard and self._journal.position != self._clock_noted_position and self.failure is None:
            if now_ms - self._clock_noted_ms >= 1000:
                self._clock_noted_ms = now_ms
                self._journal.note_clock(self._clock.now_ms(), self._clock.wall_ms())
                self._clock_noted_position = self._journal.position

    # What the store asks ---------------------------------------------------------------------------------------------

    def propose(self, blocks: list[bytes], crowded: bool = False) -> bool:
        """Send blocks to the leader. False: there is no route, or its link is full; it will change.

        crowded: many wait for them, and will come again together.
        """
        route = self.route
        if route is None:
            return False
        if route.leader_id == self.node_id:
            self.leading.enqueue(blocks, crowded)
            if not self._ticking:
                self.nudge()
            return True
        return self._network.send(route.leader_id, {"type": "propose", "blocks": blocks, "crowded": crowded})

    @property
    def is_leader(self) -> bool:
        """This node leads, or believes so."""
        return self._core.is_leader

    @property
    def term(self) -> int:
        """The current term."""
        return self._core.term

    @property
    def leader_id(self) -> str | None:
        """The leader as this node knows it."""
        return self._core.leader_id

    @property
    def role(self) -> str:
        """leader, follower or candidate."""
        return ROLE_NAMES[self._core.role]

    @property
    def commit_index(self) -> int:
        """The highest index known to be committed."""
        return self._core.commit_index

    @property
    def durable_index(self) -> int:
        """The highest index that is durable here."""
        return self._journal.durable_index

    @property
    def log_entries(self) -> int:
        """Entries behind the sentinel."""
        return len(self._journal) - 1

    @property
    def journal_bytes(self) -> int:
        """Space that the journal takes on the disk."""
        return self._journal.disk_bytes

    @property
    def last_applied(self) -> int:
        """The highest index applied to the machine."""
        return self._core.last_applied

    @property
    def may_read(self) -> bool:
        """Whether reads may be answered: this process leads and has applied its no-op, or has applied what its leader
        had committed in its own term. Once true it stays so, for local reads never go back in time; but a node that was
        removed would grow old for ever, and one whose machine has stumbled may be wrong."""
        return (
            self.following.caught_up
            and self.stumbled is None
            and not self.snapshotting.diverged
            and self.removal.removed_at is None
        )

    def staleness_ms(self) -> int | None:
        """How old the contents may be: None when nothing is known. Any thread."""
        fresh_at_ms = self.following.fresh_at_ms
        return max(0, self.now_ms() - fresh_at_ms) if fresh_at_ms else None

    def down_ids(self) -> set[str]:
        """Members that do not answer: the leader's view, else this node's own links."""
        if self.route is not None:
            known = self.leading.down if self._core.is_leader else self.following.down
            return set(known) - {self.node_id}
        return {
            node_id
            for node_id in self.configurations.latest.members
            # Followers have nothing to say to each other: silence on an open link means nothing.
            if node_id != self.node_id and not self._network.is_connected(node_id)
        }

    def members(self) -> list[Member]:
        """The members of the latest configuration, in order."""
        return [member for _, member in sorted(self.configurations.latest.members.items())]

    def lag_of(self, node_id: str) -> int | None:
        """Entries that a member is known to lack; only the leader knows of others."""
        if node_id == self.node_id:
            return max(0, self._core.commit_index - self._core.last_applied)
        progress = self.leading.replicator.progress.get(node_id) if self._core.is_leader else None
        return None if progress is None else max(0, self._journal.last_index - progress.match_index)

    def last_seen_ms(self, node_id: str) -> int | None:
        """Milliseconds since that member was heard, here or by the leader; None when it was not."""
        heard_ms = max(self._heard_ms.get(node_id, 0), self.following.seen_at_ms.get(node_id, 0))
        return max(0, self.now_ms() - heard_ms) if heard_ms else None

    def now_ms(self) -> int:
        """This process's monotonic clock."""
        return int(self._loop.time() * 1000)

    # The core calls ---------------------------------------------------------------------------------------------------

    def apply_committed(self) -> None:
        """Apply what is committed, for at most one slice of time."""
        core, machine, journal = self._core, self.machine, self._journal
        index, commit_index = core.last_applied, core.commit_index
        if index >= commit_index or self.stumbled is not None:
            return
        clock = self._loop.time
        deadline = clock() + APPLY_SLICE_S
        first_index = journal.first_index
        if index < first_index:
            self._stumble(f"entry {index + 1} is not applied and not in the journal, which begins behind {first_index}")
            return
        while index < commit_index:
            index += 1
            command = journal[index - first_index][0]
            try:
                settled = machine.apply(index, b"" if command[:1] == NO_OP else command[1:])
            except Exception:
                self._stumble(f"entry {index} could not be applied to the end")
                raise
            core.last_applied = index
            if settled:
                self._events.applied(settled)
            if index < commit_index and clock() > deadline:
                self.nudge()
                break
        over = self.configurations.committed(index)
        self.reconfiguration.applied(index)
        for table in over:
            self.wake()
            self.removal.tell_removed(table)

    def _stumble(self, reason: str) -> None:
        """The machine cannot go on, nor be trusted: a part of an entry may be in it."""
        self.stumbled = f"{reason}, a defect of CacheFlow: keep the data directory for a report, and start it again"
        logger.critical("%s", self.stumbled)
        self.fail(self.stumbled)

    def start_pre_vote(self) -> None:
        """The election timeout passed."""
        self.elections.start_pre_vote()

    def may_campaign(self) -> bool:
        """Only a voter of the latest configuration in its own log, whose disk works (dissertation 4.2.1)."""
        member = self.configurations.latest.members.get(self.node_id)
        return self.failure is None and member is not None and member.voter and member.incarnation == self.incarnation

    def before_leading(self) -> None:
        """Elected."""
        self.leading.begin(*self.elections.latest_voter_ms)

    def role_changed(self) -> None:
        """Leadership was won or lost."""
        if not self._core.is_leader:
            self.leading.end()
            self.reconfiguration.deposed()
        logger.info("%s in term %d", self.role, self._core.term)
        self.wake()

    def send_vote_message(self, node_id: str, message: dict[str, Any]) -> None:
        """PySyncObj's own messages: votes and vote requests promise something, so they wait for the journal."""
        self.elections.complete(message)
        self.hold(lambda: self._network.send(node_id, message))

    # Messages -------------------------------------------------------------------------------------------------------

    def receive(self, peer: Peer, message: dict[str, Any]) -> None:
        """A message of an authenticated peer."""
        if self._stopped or self.failure is not None:
            return
        handler = self._handlers.get(message["type"])
        if handler is None:
            logger.warning("%s sent a message of unknown type %.40r", peer.node_id, message["type"])
            return
        self._heard_ms[peer.node_id] = self.now_ms()
        if message["type"] == "append_ack":
            # It asks for a tick itself, when it makes a difference.
            self._turn.run(lambda: self._handle(handler, peer, message))
            return
        if message["type"] not in OF_LOAD:
            self._whole = True
        self.run(lambda: self._handle(handler, peer, message))

    def _handle(self, handler: Callable[[Peer, dict[str, Any]], None], peer: Peer, message: dict[str, Any]) -> None:
        try:
            handler(peer, message)
            if not self.is_member(peer):
                self.removal.answer_stranger(peer, message["type"])
        except guards.BadMessage as error:
            logger.warning("dropped a message of %s: %s", peer.node_id, error)
        except guards.SafetyViolation as error:
            self.fail(f"{error}. Stop this node, remove its data directory and start it with --seed to rejoin")

    def connected(self, node_id: str) -> None:
        """Our connection to a member is open."""
        self._connections[node_id] = self._connections.get(node_id, 0) + 1
        self._core.set_connected(node_id, True)
        self.leading.replicator.reconnected(node_id)
        self.wake()

    def disconnected(self, node_id: str) -> None:
        """A member's connection to us is gone, or ours to it: when it was the leader, it is probably dead."""
        self._core.set_connected(node_id, self._network.is_connected(node_id))
        if node_id == self._core.leader_id and not self._core.is_leader:
            self.elections.leader_lost()
        self.wake()

    def send(self, node_id: str, message: dict[str, Any]) -> bool:
        """Send what promises nothing."""
        return self._network.send(node_id, message)

    def is_connected(self, node_id: str) -> bool:
        """Whether there is a link to that node."""
        return self._network.is_connected(node_id)

    def is_member(self, peer: Peer) -> bool:
        """The peer is the member that the configuration names: same id, same incarnation."""
        return self.configurations.latest.lists(peer.node_id, peer.incarnation)

    def is_voter(self, peer: Peer) -> bool:
        """A member that votes."""
        return self.is_member(peer) and self.configurations.latest.members[peer.node_id].voter

    def hold(self, send: Callable[[], Any]) -> None:
        """Do ``send`` once everything journalled so far is durable; in order."""
        if self._journal.durable_position >= self._journal.position and not self._held:
            send()
        else:
            self._held.append((self._journal.position, send))

    def flushed(self) -> None:
        """The journal's durable position moved."""
        self._turn.run(self._release)

    def _release(self) -> None:
        if self._core.is_leader:
            # More may be committed.
            self.nudge()
        durable = self._journal.durable_position
        while self._held and self._held[0][0] <= durable:
            self._held.popleft()[1]()

    def follow_configuration(self, verdict: guards.Append) -> None:
        """Entries were dropped and appended: the latest configuration may be another."""
        changed = verdict.truncates and self.configurations.drop_from(verdict.prev_index + 1)
        for command, index, _ in verdict.entries:
            changed = self.configurations.note(command, index) or changed
        if changed:
            self._adopt_configuration()

    # Configuration and log ----------------------------------------------------------------------------------------------

    def restarted_from(self, machine: CacheMachine) -> None:
        """A snapshot took the place of the machine; the journal begins at it."""
        if machine.applied_index < self._core.last_applied:
            self.following.goes_back()
        self.machine = machine
        self._events.machine_replaced(machine)
        self._core.restart_at(machine.applied_index)
        self.configurations.restart_from(_applied_configuration(machine, self._journal), self._journal.entries(0, None))
        self._adopt_configuration()

    def append(self, command: bytes) -> None:
        """Append an entry of the current term."""
        index = self._journal.last_index + 1
        self._journal.add(command, index, self._core.term)
        if self.configurations.note(command, index):
            self._adopt_configuration()

    def _adopt_configuration(self) -> None:
        """The latest configuration of the log is in force, committed or not (dissertation 4.1)."""
        self._whole = True
        latest = self.configurations.latest
        others = self.others()
        self._core.set_voters([node_id for node_id in latest.voters if node_id != self.node_id])
        self._network.cluster_id = latest.cluster_id
        self._network.set_peers({node_id: latest.members[node_id].raft_address for node_id in others})
        self.leading.replicator.set_followers(others)
        if self.may_campaign():
            self._core.postpone_election()

    def others(self) -> dict[str, str]:
        """The other members' ids, in order, and their incarnations."""
        members = sorted(self.configurations.latest.members.items())
        return {node_id: member.incarnation for node_id, member in members if node_id != self.node_id}

    def _find_route(self) -> Route | None:
        leader_id = self._core.leader_id
        if leader_id is None or self.failure is not None:
            return None
        if leader_id == self.node_id:
            return Route(leader_id, self._core.term, 0) if self._core.is_leader else None
        if not self._network.is_connected(leader_id):
            return None
        return Route(leader_id, self._core.term, self._connections.get(leader_id, 0))


def _applied_configuration(machine: CacheMachine, journal: Journal) -> Configuration:
    if not machine.members:
        return NOBODY
    return Configuration(journal.first_index, machine.cluster_id, dict(machine.members))
