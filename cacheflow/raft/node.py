"""RaftNode: one member, driven by the event loop.

A message, a proposal, a finished flush or the timer *wakes* the node; one turn of the loop later it ticks once:
elect, commit, apply, append what is queued as one entry (group commit), replicate. Nothing here waits: the disk's work
is done elsewhere, and what must not leave before a flush is held until it is durable (dissertation 10.2.1).

Seams for the simulation: ``loop`` (call_soon, call_later, time), the network, the journal's disk and writer, randomness.
Not safe for concurrent use: the event loop owns it.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from cacheflow.machine import commands
from cacheflow.machine.machine import CacheMachine, Settled
from cacheflow.machine.settings import Member
from cacheflow.raft import guards
from cacheflow.raft.core import ROLE_NAMES, Core
from cacheflow.raft.elections import Elections
from cacheflow.raft.journal import Journal
from cacheflow.raft.membership import CONFIGURATION, NOBODY, Configuration, Configurations
from cacheflow.raft.network import Network, Peer
from cacheflow.raft.reconfiguration import Reconfiguration
from cacheflow.raft.replication import Progress, Replicator
from cacheflow.raft.snapshotting import Snapshotting

logger = logging.getLogger(__name__)

REGULAR = b"\x00"
NO_OP = b"\x01"
# A node that has much to apply goes on answering: this long at a time.
APPLY_SLICE_S = 0.010
# One entry: as large as a batch of large values, far below the frame cap.
ENTRY_BYTES_MAX = 1024 * 1024
# Entries on their way to a majority at once. While one is, everything else gathers for the next: under load fewer and
# larger entries, hence fewer flushes and messages for the same commands, and each entry carries the commit of the last.
ENTRIES_AHEAD_MAX = 1
# A member whose answers are older than this is shown as down.
DOWN_AFTER_MS = 1500
# The same when it can't be reached either: time enough for a link to be opened again.
BROKEN_AFTER_MS = 300


class Loop(Protocol):
    """What the node asks of its event loop; asyncio's has it."""

    def call_soon(self, callback: Callable[..., Any], *args: Any) -> Any: ...
    def call_later(self, delay: float, callback: Callable[..., Any], *args: Any) -> Any: ...
    def time(self) -> float: ...


class Clock(Protocol):
    """ClusterClock, as the node sees it."""

    def hear(self, cluster_ms: int) -> None: ...
    def lead(self, latest_ms: int) -> None: ...
    def now_ms(self) -> int: ...
    def wall_ms(self) -> int: ...

    @property
    def heard(self) -> bool: ...

    @property
    def known(self) -> bool: ...


class Events(Protocol):
    """What the node tells the store."""

    def applied(self, settled: list[Settled]) -> None: ...
    def route_changed(self) -> None: ...
    def machine_replaced(self, machine: CacheMachine) -> None: ...


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
        snapshotting: Snapshotting,
        events: Events,
        timing: Timing,
        initial_settings: dict[str, Any],
        random: Callable[[], float],
    ) -> None:
        self.node_id = node_id
        self.incarnation = incarnation
        self.machine = machine
        self.failure: str | None = None
        self.route: Route | None = None
        self.leader_changes = 0
        self._last_leader_id: str | None = None
        self._loop = loop
        self._journal = journal
        self._network = network
        self._clock = clock
        self._events = events
        self._timing = timing
        self._initial_settings = initial_settings
        self._core = Core(
            node_id,
            journal,
            self,
            election_timeout_s=timing.election_timeout_s,
            heartbeat_s=timing.heartbeat_s,
            random=random,
        )
        self.configurations = Configurations(_applied_configuration(machine, journal), journal.entries(0, None))
        self.replicator = Replicator(journal, send=network.send, header=self._header)
        self.elections = Elections(self, self._core, journal, clock)
        self.reconfiguration = Reconfiguration(self, self._core)
        self.snapshotting = snapshotting
        snapshotting.attach(self, self._core)
        self._handlers: dict[str, Callable[[Peer, dict[str, Any]], None]] = {
            "append_entries": self._on_append,
            "append_ack": self._on_append_ack,
            "propose": self._on_propose,
            "term": self._on_term,
            **self.elections.handlers,
            **self.reconfiguration.handlers,
            **snapshotting.handlers,
        }
        self._woken = False
        self._stopped = False
        self._queue: deque[bytes] = deque()
        self._held: deque[tuple[int, Callable[[], None]]] = deque()
        self._connections: dict[str, int] = {}
        self._last_stamp_ms = 0
        self._announced_commit = 0
        self._tick_index = 0
        self._configured_term = 0
        self._down: list[str] = []
        self._watched_since_ms: dict[str, int] = {}
        self._heard_ms: dict[str, int] = {}
        self._fresh_marks: deque[tuple[int, int]] = deque(maxlen=64)
        self._fresh_at_ms = 0
        self._catch_up_to: int | None = None
        self._caught_up = False
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
        self._append(entry)
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
        """Tick in this turn of the loop."""
        if not self._woken and not self._stopped:
            self._woken = True
            self._loop.call_soon(self._turn)

    def wake_after(self, seconds: float) -> None:
        """Tick then; the timer's grid is a heartbeat wide."""
        self._loop.call_later(seconds, self.wake)

    def fail(self, reason: str) -> None:
        """The disk failed, or safety was violated: lead no more, promise no more, go on serving reads."""
        if self.failure is None:
            self.failure = reason
            logger.error("this node takes no further part in the cluster: %s", reason)
            self._core.step_down()
            self.wake()

    def _turn(self) -> None:
        self._woken = False
        if self._stopped:
            return
        self._core.tick()
        self._note_progress()
        self.reconfiguration.proceed()
        route = self._find_route()
        if route != self.route:
            if route is not None and route.leader_id != self._last_leader_id:
                self._last_leader_id = route.leader_id
                self.leader_changes += 1
            self.route = route
            self._events.route_changed()
        if self._may_append():
            self.wake()

    def _note_progress(self) -> None:
        """What reads need to know: whether the contents have caught up since the start, and how old they may be."""
        core = self._core
        applied = core.last_applied
        if core.has_settled:
            self._caught_up = True
            self._fresh_at_ms = self.replicator.quorum_at_ms(core.voter_ids, self.now_ms())
            return
        if not self._caught_up and self._catch_up_to is not None:
            self._caught_up = applied >= self._catch_up_to
        while self._fresh_marks and self._fresh_marks[0][0] <= applied:
            self._fresh_at_ms = max(self._fresh_at_ms, self._fresh_marks.popleft()[1])

    def _on_timer(self) -> None:
        if self._stopped:
            return
        self._loop.call_later(self._timing.heartbeat_s, self._on_timer)
        self._note_clock()
        if self._core.is_leader:
            self._keep_house()
        self.snapshotting.consider()
        self.wake()

    def _keep_house(self) -> None:
        """The leader's regular duties: due keys, who is down."""
        now_ms = self.now_ms()
        down = []
        for node_id, progress in self.replicator.progress.items():
            connected = self._network.is_connected(node_id)
            # A new leader listens for a while before it calls somebody down whose connection stands.
            since_ms = self._watched_since_ms.setdefault(node_id, now_ms if connected else 0)
            silent_ms = now_ms - max(progress.acked_at_ms, since_ms)
            if silent_ms > (DOWN_AFTER_MS if connected else BROKEN_AFTER_MS):
                down.append(node_id)
        self._down = down
        if not self._core.has_settled:
            return
        due_ms = self.machine.next_due_ms()
        if due_ms is not None and due_ms <= self._clock.now_ms() and self._tick_index <= self._core.last_applied:
            self._tick_index = self._journal.last_index + 1
            self._queue.append(commands.encode_block(0, 0, 0, [commands.noop()]))

    def _note_clock(self) -> None:
        """Keep a pair (cluster time, wall clock) in the journal, at most once a second and never while nothing happens."""
        now_ms = self.now_ms()
        if self._clock.heard and self._journal.position != self._clock_noted_position and self.failure is None:
            if now_ms - self._clock_noted_ms >= 1000:
                self._clock_noted_ms = now_ms
                self._journal.note_clock(self._clock.now_ms(), self._clock.wall_ms())
                self._clock_noted_position = self._journal.position

    # What the store asks ---------------------------------------------------------------------------------------------

    def propose(self, block: bytes) -> bool:
        """Send a block to the leader. False: there is no route, or its link is full; it will change."""
        route = self.route
        if route is None:
            return False
        if route.leader_id == self.node_id:
            self._queue.append(block)
            self.wake()
            return True
        return self._network.send(route.leader_id, {"type": "propose", "blocks": [block]})

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
        had committed in its own term. Once true it stays so, for local reads never go back in time."""
        return self._caught_up and not self.snapshotting.diverged

    def staleness_ms(self) -> int | None:
        """How old the contents may be: None when nothing is known. Any thread."""
        fresh_at_ms = self._fresh_at_ms
        return max(0, self.now_ms() - fresh_at_ms) if fresh_at_ms else None

    def down_ids(self) -> set[str]:
        """Members that do not answer: the leader's view, else this node's own links."""
        if self.route is not None:
            return set(self._down) - {self.node_id}
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
        progress = self.replicator.progress.get(node_id) if self._core.is_leader else None
        return None if progress is None else max(0, self._journal.last_index - progress.match_index)

    def last_seen_ms(self, node_id: str) -> int | None:
        """Milliseconds since a message of that member arrived here; None when none has."""
        heard_ms = self._heard_ms.get(node_id)
        return None if heard_ms is None else self.now_ms() - heard_ms

    def now_ms(self) -> int:
        """This process's monotonic clock."""
        return int(self._loop.time() * 1000)

    # The core calls ---------------------------------------------------------------------------------------------------

    def apply_committed(self) -> None:
        """Apply what is committed, for at most one slice of time."""
        core, machine, journal = self._core, self.machine, self._journal
        index, commit_index = core.last_applied, core.commit_index
        if index >= commit_index:
            return
        clock = self._loop.time
        deadline = clock() + APPLY_SLICE_S
        first_index = journal.first_index
        while index < commit_index:
            index += 1
            command = journal[index - first_index][0]
            settled = machine.apply(index, b"" if command[:1] == NO_OP else command[1:])
            core.last_applied = index
            if settled:
                self._events.applied(settled)
            if clock() > deadline and index < commit_index:
                self.wake()
                break
        self.configurations.committed(index)
        self.reconfiguration.applied(index)

    def propose_queued(self) -> None:
        """Group commit: everything that is queued, one entry."""
        core = self._core
        if not core.is_leader:
            self._queue.clear()
            return
        if not self.machine.configured and self._configured_term != core.term:
            # Before anything else: until then there are no limits.
            self._configured_term = core.term
            self._queue.appendleft(
                commands.encode_block(0, 0, 0, [commands.configure(self._initial_settings, only_if_unset=True)])
            )
        if self._may_append():
            blocks = [self._queue.popleft()]
            size = len(blocks[0])
            while self._queue and size + len(self._queue[0]) <= ENTRY_BYTES_MAX:
                blocks.append(self._queue.popleft())
                size += len(blocks[-1])
            self._append(REGULAR + commands.encode_entry(self._stamp(), blocks))
            self.replicate()
        elif core.commit_index > self._announced_commit:
            # Followers wait for it, and so do those who read there.
            self.replicate(quiet=True)

    def _may_append(self) -> bool:
        core = self._core
        return (
            bool(self._queue)
            and core.is_leader
            and not self.reconfiguration.handing_over
            and self._journal.last_index - core.commit_index < ENTRIES_AHEAD_MAX
        )

    def replicate(self, quiet: bool = False) -> None:
        """Send entries or heartbeats to every member. quiet: heartbeats need no answer."""
        if self.failure is None:
            self._announced_commit = self._core.commit_index
            self.replicator.replicate(self.replicator.progress, quiet)

    def start_pre_vote(self) -> None:
        """The election timeout passed."""
        self.elections.start_pre_vote()

    def may_campaign(self) -> bool:
        """Only a voter of the latest configuration in its own log, whose disk works (dissertation 4.2.1)."""
        member = self.configurations.latest.members.get(self.node_id)
        return self.failure is None and member is not None and member.voter and member.incarnation == self.incarnation

    def before_leading(self) -> None:
        """Elected: time goes on from the latest estimate, and nothing is known of the followers."""
        self.replicator.begin(self._others())
        self._watched_since_ms = {}
        latest_ms = max(self.machine.now_ms, self.elections.latest_voter_ms)
        for command, _, _ in self._journal.entries(self._core.last_applied + 1, None):
            latest_ms = max(latest_ms, _stamp_of(command))
        self._clock.lead(latest_ms)
        self._last_stamp_ms = latest_ms
        self._tick_index = 0
        self._announced_commit = 0

    def role_changed(self) -> None:
        """Leadership was won or lost."""
        if not self._core.is_leader:
            self._queue.clear()
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
        try:
            handler(peer, message)
        except guards.BadMessage as error:
            logger.warning("dropped a message of %s: %s", peer.node_id, error)
        except guards.SafetyViolation as error:
            self.fail(f"{error}. Stop this node, remove its data directory and start it with --seed to rejoin")
        self.wake()

    def connected(self, node_id: str) -> None:
        """Our connection to a member is open."""
        self._connections[node_id] = self._connections.get(node_id, 0) + 1
        self._core.set_connected(node_id, True)
        self.replicator.reconnected(node_id)
        self.wake()

    def disconnected(self, node_id: str) -> None:
        """A member's connection is gone: when it was the leader, it is probably dead."""
        self._core.set_connected(node_id, False)
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
        member = self.configurations.latest.members.get(peer.node_id)
        return member is not None and member.incarnation == peer.incarnation

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
        durable = self._journal.durable_position
        while self._held and self._held[0][0] <= durable:
            self._held.popleft()[1]()
        self.wake()

    def _on_append(self, peer: Peer, message: dict[str, Any]) -> None:
        core = self._core
        term = guards.natural(message, "term")
        if term < core.term:
            self._network.send(peer.node_id, {"type": "term", "term": core.term})
            return
        if core.is_leader and term == core.term:
            raise guards.SafetyViolation(f"{peer.node_id} leads term {term} too")
        reply: dict[str, Any] = {"type": "append_ack", "at": guards.natural(message, "at"), "clock": self.now_ms()}
        verdict = guards.check_append(self._journal, core.commit_index, message)
        if isinstance(verdict, guards.Reject):
            self.hear_leader(peer, message)
            reply |= {
                "term": core.term,
                "ok": False,
                "prev": message["prevLogIdx"],
                "last": verdict.last_index,
                "conflict_term": verdict.conflict_term,
                "conflict_index": verdict.conflict_index,
            }
            self._network.send(peer.node_id, reply)
            return
        core.receive(
            peer.node_id,
            {
                "type": "append_entries",
                "term": term,
                "commit_index": verdict.commit_index,
                "prevLogIdx": verdict.prev_index,
                "prevLogTerm": verdict.prev_term,
                "entries": verdict.entries,
            },
        )
        self.elections.leader_heard()
        self._hear_header(message)
        self._follow_configuration(verdict)
        if self._catch_up_to is None and self._journal.term_at(message["commit_index"]) == term:
            # Only a leader that has committed in its own term knows what is committed (dissertation 6.4).
            self._catch_up_to = message["commit_index"]
        if message.get("quiet") is not True:
            reply |= {"term": core.term, "ok": True, "match": verdict.verified}
            node_id = peer.node_id
            self.hold(lambda: self._network.send(node_id, reply))

    def hear_leader(self, peer: Peer, message: dict[str, Any]) -> None:
        """Follow the sender of a leader's message; PySyncObj takes the term from it and leaves the log alone."""
        self._core.receive(
            peer.node_id,
            {
                "type": "append_entries",
                "term": message["term"],
                "commit_index": 0,
                "prevLogIdx": self._journal.last_index,
                "prevLogTerm": self._journal.last_term,
                "entries": [],
            },
        )
        self.elections.leader_heard()

    def _follow_configuration(self, verdict: guards.Append) -> None:
        changed = verdict.truncates and self.configurations.drop_from(verdict.prev_index + 1)
        for command, index, _ in verdict.entries:
            changed = self.configurations.note(command, index) or changed
        if changed:
            self._adopt_configuration()

    def _on_append_ack(self, peer: Peer, message: dict[str, Any]) -> None:
        term = guards.natural(message, "term")
        if term > self._core.term:
            self._core.adopt_term(term)
            return
        progress = self.replicator.progress.get(peer.node_id)
        if not self._core.is_leader or term < self._core.term or progress is None or not self.is_member(peer):
            return
        progress.peer_clock_ms = guards.natural(message, "clock")
        progress.peer_clock_at_ms = self.now_ms()
        match_index = self.replicator.acknowledged(peer.node_id, message)
        self._core.acknowledge(peer.node_id, match_index)
        if match_index is not None:
            self.replicator.push(peer.node_id)

    def _on_propose(self, peer: Peer, message: dict[str, Any]) -> None:
        blocks = message.get("blocks")
        if type(blocks) is not list or any(type(block) is not bytes for block in blocks):
            raise guards.BadMessage("propose: no blocks")
        if self._core.is_leader:
            self._queue.extend(blocks)

    def _on_term(self, peer: Peer, message: dict[str, Any]) -> None:
        self._core.adopt_term(guards.natural(message, "term"))

    # What travels with each append message -----------------------------------------------------------------------------

    def _header(self, progress: Progress) -> dict[str, Any]:
        now_ms = self.now_ms()
        return {
            "type": "append_entries",
            "term": self._core.term,
            "commit_index": self._core.commit_index,
            "time": self._clock.now_ms(),
            "at": now_ms,
            # What lets the follower bound how old its contents are, by its own clock alone.
            "age": now_ms - self.replicator.quorum_at_ms(self._core.voter_ids, now_ms),
            "clock": progress.peer_clock_ms,
            "hold": now_ms - progress.peer_clock_at_ms,
            "down": self._down,
            "digest": [self.machine.applied_index, self.machine.digest],
        }

    def _hear_header(self, message: dict[str, Any]) -> None:
        self._clock.hear(guards.natural(message, "time"))
        clock_ms = guards.natural(message, "clock")
        if clock_ms:
            mark = clock_ms + guards.natural(message, "hold") - guards.natural(message, "age")
            self._fresh_marks.append((message["commit_index"], mark))
        down = message.get("down")
        if type(down) is list:
            self._down = [node_id for node_id in down if type(node_id) is str]
        self.snapshotting.compare_digest(message.get("digest"))

    # Configuration and log ----------------------------------------------------------------------------------------------

    def append_configuration(self, configuration: Configuration) -> int:
        """The leader appends a member table; returns its index."""
        block = commands.encode_block(0, 0, 0, [configuration.command()])
        self._append(CONFIGURATION + commands.encode_entry(self._stamp(), [block]))
        self.replicate()
        return self._journal.last_index

    def restarted_from(self, machine: CacheMachine) -> None:
        """A snapshot took the place of the machine; the journal begins at it."""
        self.machine = machine
        self._events.machine_replaced(machine)
        self._core.restart_at(machine.applied_index)
        self.configurations.restart_from(_applied_configuration(machine, self._journal), self._journal.entries(0, None))
        self._adopt_configuration()

    def _append(self, command: bytes) -> None:
        index = self._journal.last_index + 1
        self._journal.add(command, index, self._core.term)
        if self.configurations.note(command, index):
            self._adopt_configuration()

    def _adopt_configuration(self) -> None:
        """The latest configuration of the log is in force, committed or not (dissertation 4.1)."""
        latest = self.configurations.latest
        others = self._others()
        self._core.set_voters([node_id for node_id in latest.voters if node_id != self.node_id])
        self._network.cluster_id = latest.cluster_id
        self._network.set_peers({node_id: latest.members[node_id].raft_address for node_id in others})
        self.replicator.set_followers(others)
        if self.may_campaign():
            self._core.postpone_election()

    def _others(self) -> dict[str, str]:
        """The other members' ids, in order, and their incarnations."""
        members = sorted(self.configurations.latest.members.items())
        return {node_id: member.incarnation for node_id, member in members if node_id != self.node_id}

    def _stamp(self) -> int:
        self._last_stamp_ms = max(self._clock.now_ms(), self._last_stamp_ms)
        return self._last_stamp_ms

    def _find_route(self) -> Route | None:
        leader_id = self._core.leader_id
        if leader_id is None or self.failure is not None:
            return None
        if leader_id == self.node_id:
            return Route(leader_id, self._core.term, 0) if self._core.is_leader else None
        if not self._network.is_connected(leader_id):
            return None
        return Route(leader_id, self._core.term, self._connections.get(leader_id, 0))


def _stamp_of(command: bytes) -> int:
    if command[:1] == NO_OP:
        return 0
    try:
        return commands.decode_entry(command[1:])[0]
    except commands.CodecError:
        return 0


def _applied_configuration(machine: CacheMachine, journal: Journal) -> Configuration:
    if not machine.members:
        return NOBODY
    return Configuration(journal.first_index, machine.cluster_id, dict(machine.members))
