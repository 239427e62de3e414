"""RaftNode: one member, driven by the event loop.

A message, a proposal or a finished flush makes the node *advance* once a turn: commit, apply, append what is queued as
one entry (group commit), replicate. The timer, and whatever may change a role, the route or the membership, *wakes* it
for a whole tick, which looks at everything else too. Nothing here waits: the disk's work is done elsewhere, and what
must not leave before a flush is held until it is durable (dissertation 10.2.1).

Seams for the simulation: ``loop`` (call_soon, call_later, time), the network, the journal's disk and writer,
randomness. Not safe for concurrent use: the event loop owns it.
"""

from __future__ import annotations

import functools
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
from cacheflow.results import RaftPosition

logger = logging.getLogger(__name__)

# A node applies entries for this long at a time, so that it goes on answering when it has many to apply.
APPLY_SLICE_S = 0.010
# The messages that come with every entry and need no whole tick: if one changes a role, the core's position shows it.
OF_LOAD = frozenset(("append_entries", "commit", "propose"))


@dataclass(frozen=True, slots=True)
class Timing:
    """The node's intervals in seconds. A follower campaigns after one to two election timeouts without its leader."""

    election_timeout_s: float = 1.0
    heartbeat_s: float = 0.1


@dataclass(frozen=True, slots=True)
class Route:
    """The way that proposals take to the leader; pending ones are sent again exactly when it changes."""

    leader_id: str
    term: int
    connection: int


class RaftNode:
    """One member of the cluster, driven by the event loop.

    ``start`` begins and ``stop`` ends its timer; whoever built it closes the journal and the network.
    """

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
        # Why this node takes no further part in the cluster; None while it does.
        self.failure: str | None = None
        # Why the machine applies no more and may not be read; None while it works.
        self.stumbled: str | None = None
        self.route: Route | None = None
        # Called once, with the index of the configuration that no longer contains this node.
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
        # The core calls these two: once a turn after applying, and when a heartbeat is due.
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
        # Whether a turn is due, and whether it must be a whole tick.
        self._woken = False
        self._whole = True
        self._position_seen: tuple[Any, ...] = ()
        # Whether a tick follows in the present turn, and whether one is under way.
        self._tick_ahead = False
        self._ticking = False
        self._stopped = False
        # (journal position, call): calls that wait until the journal is durable up to that position.
        self._held: deque[tuple[int, Callable[[], None]]] = deque()
        # {node id: how often the connection to it has been opened}: another connection is another route.
        self._connections: dict[str, int] = {}
        self._heard_ms: dict[str, int] = {}
        self._clock_noted_ms = 0
        self._clock_noted_position = journal.position

    # Life -----------------------------------------------------------------------------------------------------------

    def found_cluster(self, cluster_id: str, member: Member) -> None:
        """Begin a new cluster with this node as its only voter. The first configuration is written, not voted on."""
        table = Configuration(0, cluster_id, {member.id: member})
        block = commands.encode_block(0, 0, 0, [table.command()])
        entry = CONFIGURATION + commands.encode_entry(0, [block])
        self._core.adopt_term(1)
        self._journal.setCurrentTerm(1, self.node_id)
        self.append(entry)
        # No other voter could be heard first: campaign at once.
        self._core.expect_election(0.0)

    def start(self) -> None:
        """Open connections to the members and start the timer."""
        self._adopt_configuration()
        self._core.postpone_election()
        if self.configurations.latest.voters == [self.node_id]:
            self._core.expect_election(0.0)
        self._on_timer()

    def stop(self) -> None:
        """Take no further part in the cluster. What was promised stays in the journal."""
        self._stopped = True

    def wake(self) -> None:
        """Let a whole tick happen soon: at the end of the present turn, or in the next one."""
        self._whole = True
        self.nudge()

    def nudge(self) -> None:
        """Let the node advance soon: at the end of the present turn, or in the next one."""
        if not self._woken and not self._stopped:
            self._woken = True
            if self._ticking:
                # Other callbacks of the loop come first.
                self._loop.call_soon(self._tick_if_due)
            elif not self._tick_ahead:
                self._turn.defer(self._tick_if_due)

    def run(self, work: Callable[[], None]) -> None:
        """Do ``work`` and advance, in one turn, at whose end all that was appended and sent leaves."""
        if self._turn.is_open:
            work()
            self.nudge()
        else:
            self._turn.run(functools.partial(self._work_and_tick, work))

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
        """Do a whole tick after ``seconds``, for what cannot wait for the timer: that comes once a heartbeat."""
        self._loop.call_later(seconds, self.wake)

    def nudge_after(self, seconds: float) -> None:
        """Advance after ``seconds``."""
        self._loop.call_later(seconds, self.nudge)

    def call_after(self, seconds: float, call: Callable[[], None]) -> None:
        """Make ``call`` after ``seconds``, in a turn of its own."""
        self._loop.call_later(seconds, self._turn.run, call)

    def fail(self, reason: str) -> None:
        """Stop leading and promising for ``reason``: the disk failed, or safety was violated. Reads go on while ``may_read``."""
        if self.failure is None:
            self.failure = reason
            logger.error("this node takes no further part in the cluster: %s", reason)
            self._core.step_down()
            self.wake()

    def removed(self, index: int) -> None:
        """Take no further part, because the configuration at ``index`` no longer contains this node."""
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
        """Note a pair (cluster time, wall clock) in the journal, once a second at most, if something else was written since."""
        now_ms = self.now_ms()
        if self._clock.heard and self._journal.position != self._clock_noted_position and self.failure is None:
            if now_ms - self._clock_noted_ms >= 1000:
                self._clock_noted_ms = now_ms
                self._journal.note_clock(self._clock.now_ms(), self._clock.wall_ms())
                self._clock_noted_position = self._journal.position

    # What the store asks ---------------------------------------------------------------------------------------------

    def propose(self, blocks: list[bytes], crowded: bool = False) -> bool:
        """Send blocks to the leader. Returns False when there is no route or its link is full, which will pass.

        crowded: many callers wait for these blocks and will send their next commands together.
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

    def position(self) -> RaftPosition:
        """Where this node stands: applied index, term, its own id and its leader's."""
        core = self._core
        return RaftPosition(core.last_applied, core.term, self.node_id, core.leader_id)

    @property
    def is_leader(self) -> bool:
        """True if this node leads, or believes so."""
        return self._core.is_leader

    @property
    def term(self) -> int:
        """The current term."""
        return self._core.term

    @property
    def leader_id(self) -> str | None:
        """The id of the leader that this node follows or is; None when it knows none."""
        return self._core.leader_id

    @property
    def role(self) -> str:
        """This node's role as a word: leader, follower or candidate."""
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
        """The number of entries in the log, without the sentinel."""
        return len(self._journal) - 1

    @property
    def journal_bytes(self) -> int:
        """Bytes that the journal takes on the disk."""
        return self._journal.disk_bytes

    @property
    def last_applied(self) -> int:
        """The highest index applied to the machine."""
        return self._core.last_applied

    @property
    def may_read(self) -> bool:
        """True if local reads may be answered.

        This process must lead and have applied its no-op, or have applied what its leader had committed in its own
        term. That stays true, for local reads never go back in time. But a removed node would grow old for ever, and a
        node whose machine has failed or differs from the leader's may be wrong: neither answers reads.
        """
        return (
            self.following.caught_up
            and self.stumbled is None
            and not self.snapshotting.diverged
            and self.removal.removed_at is None
        )

    def staleness_ms(self) -> int | None:
        """Return how old the contents may be; None when nothing is known. Any thread may call it."""
        fresh_at_ms = self.following.fresh_at_ms
        return max(0, self.now_ms() - fresh_at_ms) if fresh_at_ms else None

    def down_ids(self) -> set[str]:
        """Return the ids of the members that do not answer: in the leader's view, or without a leader by this node's links."""
        if self.route is not None:
            known = self.leading.down if self._core.is_leader else self.following.down
            return set(known) - {self.node_id}
        return {
            node_id
            for node_id in self.configurations.latest.members
            # Followers send each other nothing, so silence on an open link means nothing.
            if node_id != self.node_id and not self._network.is_connected(node_id)
        }

    def members(self) -> list[Member]:
        """Return the members of the latest configuration, in the order of their ids."""
        return [member for _, member in sorted(self.configurations.latest.members.items())]

    def lag_of(self, node_id: str) -> int | None:
        """Return how many entries a member lacks; None when unknown, for only the leader knows of other members."""
        if node_id == self.node_id:
            return max(0, self._core.commit_index - self._core.last_applied)
        progress = self.leading.replicator.progress.get(node_id) if self._core.is_leader else None
        return None if progress is None else max(0, self._journal.last_index - progress.match_index)

    def last_seen_ms(self, node_id: str) -> int | None:
        """Return the milliseconds since a member was heard, here or by the leader; None when it was not."""
        heard_ms = max(self._heard_ms.get(node_id, 0), self.following.seen_at_ms.get(node_id, 0))
        return max(0, self.now_ms() - heard_ms) if heard_ms else None

    def now_ms(self) -> int:
        """Return the time of this process's monotonic clock, in milliseconds."""
        return int(self._loop.time() * 1000)

    # The core calls ---------------------------------------------------------------------------------------------------

    def apply_committed(self) -> None:
        """Apply committed entries to the machine, for one slice of time at most, and report their results."""
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
        """Stop the machine for good: it cannot go on nor be trusted, for it may hold a part of an entry."""
        self.stumbled = f"{reason}, a defect of CacheFlow: keep the data directory for a report, and start it again"
        logger.critical("%s", self.stumbled)
        self.fail(self.stumbled)

    def start_pre_vote(self) -> None:
        """Ask for pre-votes, because the election timeout has passed."""
        self.elections.start_pre_vote()

    def may_campaign(self) -> bool:
        """True if this node is a voter of the latest configuration in its own log and its disk works (dissertation 4.2.1)."""
        member = self.configurations.latest.members.get(self.node_id)
        return self.failure is None and member is not None and member.voter and member.incarnation == self.incarnation

    def before_leading(self) -> None:
        """Prepare for leading, because this node was elected."""
        self.leading.begin(*self.elections.latest_voter_ms)

    def role_changed(self) -> None:
        """React to a new role: leadership may have been won or lost."""
        if not self._core.is_leader:
            self.leading.end()
            self.reconfiguration.deposed()
        logger.info("%s in term %d", self.role, self._core.term)
        self.wake()

    def send_vote_message(self, node_id: str, message: dict[str, Any]) -> None:
        """Send a vote or a vote request of PySyncObj's once the journal is durable, for either is a promise."""
        self.elections.complete(message)
        self.hold(lambda: self._network.send(node_id, message))

    # Messages -------------------------------------------------------------------------------------------------------

    def receive(self, peer: Peer, message: dict[str, Any]) -> None:
        """Handle a message of a peer that has proved who it is."""
        if self._stopped or self.failure is not None:
            return
        handler = self._handlers.get(message["type"])
        if handler is None:
            logger.warning("%s sent a message of unknown type %.40r", peer.node_id, message["type"])
            return
        self._heard_ms[peer.node_id] = self.now_ms()
        if message["type"] == "append_ack":
            # The handler wakes the node itself, when the acknowledgement makes a difference.
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
        """React to a new connection to a member: what was in flight on the old one may be lost."""
        self._connections[node_id] = self._connections.get(node_id, 0) + 1
        self._core.set_connected(node_id, True)
        self.leading.replicator.reconnected(node_id)
        self.wake()

    def disconnected(self, node_id: str) -> None:
        """React to a connection that ended, to or from a member: if that is the leader, it is probably dead."""
        self._core.set_connected(node_id, self._network.is_connected(node_id))
        if node_id == self._core.leader_id and not self._core.is_leader:
            self.elections.leader_lost()
        self.wake()

    def send(self, node_id: str, message: dict[str, Any]) -> bool:
        """Send a message that promises nothing, at once. Returns False when the network does not take it."""
        return self._network.send(node_id, message)

    def is_connected(self, node_id: str) -> bool:
        """True if there is a connection on which messages can be sent to that node."""
        return self._network.is_connected(node_id)

    def is_member(self, peer: Peer) -> bool:
        """True if the latest configuration contains the peer, by its id and its incarnation."""
        return self.configurations.latest.lists(peer.node_id, peer.incarnation)

    def is_voter(self, peer: Peer) -> bool:
        """True if the peer is a voter of the latest configuration."""
        return self.is_member(peer) and self.configurations.latest.members[peer.node_id].voter

    def hold(self, send: Callable[[], Any]) -> None:
        """Call ``send`` once everything journalled so far is durable; such calls keep their order."""
        if self._journal.durable_position >= self._journal.position and not self._held:
            send()
        else:
            self._held.append((self._journal.position, send))

    def flushed(self) -> None:
        """Make the calls that waited for the journal's durable position, which has moved."""
        self._turn.run(self._release)

    def _release(self) -> None:
        if self._core.is_leader:
            # The leader's own flush may complete a majority.
            self.nudge()
        durable = self._journal.durable_position
        while self._held and self._held[0][0] <= durable:
            self._held.popleft()[1]()

    def follow_configuration(self, verdict: guards.Append) -> None:
        """Adopt the latest configuration after entries were dropped and appended as ``verdict`` says."""
        changed = verdict.truncates and self.configurations.drop_from(verdict.prev_index + 1)
        for command, index, _ in verdict.entries:
            changed = self.configurations.note(command, index) or changed
        if changed:
            self._adopt_configuration()

    # Configuration and log --------------------------------------------------------------------------------------------

    def restarted_from(self, machine: CacheMachine) -> None:
        """Go on with ``machine``, which a snapshot of the leader's has put in place; the journal begins at its index."""
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
        """Put the latest configuration of the log in force, committed or not (dissertation 4.1)."""
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
        """Return {id: incarnation} of the other members, in the order of their ids."""
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
