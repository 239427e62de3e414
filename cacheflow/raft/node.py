"""RaftNode: one member of a cluster, built of its roles and driven by the event loop.

A message, a proposal or a finished flush makes the node *advance* once a turn: commit, apply, append what is queued as
one entry (group commit), replicate. The timer, and whatever may change a role, the membership or the *route* (the way to
the leader), *wakes* it for a whole tick, which looks at everything else too. Nothing here waits: the disk's work is done
elsewhere, and what must not leave before a flush is held until it is durable (dissertation 10.2.1).

Seams for the simulation: ``loop`` (call_soon, call_later, time), the network, the journal's disk and writer,
randomness. Not safe for concurrent use: the event loop owns it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, cast

from cacheflow.errors import NewerCacheFlow
from cacheflow.machine.language import commands
from cacheflow.machine.machine import CacheMachine
from cacheflow.machine.state.settings import Member
from cacheflow.raft import guards
from cacheflow.raft.core import ROLE_NAMES, Core
from cacheflow.raft.hung_disk import DiskWatch
from cacheflow.raft.links import Links, Route
from cacheflow.raft.log.journal import Journal
from cacheflow.raft.log.records import CONFIGURATION, ENTRY_KINDS
from cacheflow.raft.membership.changes import Reconfiguration
from cacheflow.raft.membership.configuration import Configuration
from cacheflow.raft.membership.hand_over import HandOver
from cacheflow.raft.membership.level_raising import LevelRaising
from cacheflow.raft.membership.membership import Membership, configurations_of
from cacheflow.raft.membership.recovery import Recovery
from cacheflow.raft.membership.removed import Removal
from cacheflow.raft.message_types import Propose, RequestVote, ResponseVote, TimeoutNow
from cacheflow.raft.peers import Peers
from cacheflow.raft.replica import Replica
from cacheflow.raft.roles.elections import Elections
from cacheflow.raft.roles.follower import Following
from cacheflow.raft.roles.freshness import Freshness
from cacheflow.raft.roles.headers import Headers
from cacheflow.raft.roles.leader import Leading
from cacheflow.raft.roles.replication import Replicator
from cacheflow.raft.roles.voters_time import VotersTime
from cacheflow.raft.seams import Clock, Events, Loop, Timing
from cacheflow.raft.snapshots.building import Building
from cacheflow.raft.snapshots.divergence import Divergence
from cacheflow.raft.snapshots.receiving import Receiving
from cacheflow.raft.snapshots.sending import Sending
from cacheflow.raft.snapshots.storage import SnapshotStorage
from cacheflow.raft.ticks import Ticks
from cacheflow.raft.timings import Timings
from cacheflow.raft.transport.log_throttle import COMPLAINTS_EVERY_S, LogThrottle
from cacheflow.raft.transport.network import Network, Peer
from cacheflow.raft.turn import Turn
from cacheflow.results import RaftPosition

logger = logging.getLogger(__name__)

# The messages that come with every entry and need no whole tick: if one changes a role, the core's position shows it.
OF_LOAD = frozenset(("append_entries", "commit", "propose"))


class RaftNode:
    """One Raft node of a cluster, driven by the event loop.

    ``start`` and ``stop`` begin and end the node's work; whoever built the node closes its journal and network.
    """

    def __init__(
        self,
        *,
        loop: Loop,
        passed: Callable[[], float],
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
        recovery: Recovery | None = None,
    ) -> None:
        self.node_id = node_id
        self.incarnation = incarnation
        # Messages that were dropped because their type is not known here.
        self.unknown_messages = 0
        self._loop = loop
        self._turn = turn
        self._journal = journal
        self._network = network
        self._clock = clock
        self._events = events
        self._timing = timing
        # What the roles share. What needs another part is built behind it, so imports and calls point one way.
        core = self._core = Core(
            node_id,
            journal,
            self,
            election_timeout_s=timing.election_timeout_s,
            heartbeat_s=timing.heartbeat_s,
            random=random,
        )
        ticks = self.ticks = Ticks(loop, turn, self._tick)
        timings = self.timings = Timings(loop.time)
        links = self.links = Links(passed, network, journal)
        # The core holds back what promises something, too.
        self.hold = links.hold
        configurations = self.configurations = configurations_of(machine, journal, recovery)
        peers = self.peers = Peers(node_id, configurations, links)
        self._throttle = LogThrottle(COMPLAINTS_EVERY_S, passed)
        replica = self.replica = Replica(machine, core, ticks)
        disk = self.disk = DiskWatch(
            core, journal, heartbeat_s=timing.heartbeat_s, patience_s=timing.election_timeout_s
        )
        headers = Headers(core, links, clock, peers, replica)
        self.replicator = Replicator(
            journal,
            send=links.send,
            backlog=network.backlog,
            header=headers.common,
            message_for=headers.message_for,
            leader=core,
            peers=peers,
        )
        membership = self.membership = Membership(
            node_id,
            incarnation,
            configurations,
            core=core,
            journal=journal,
            network=network,
            replicator=self.replicator,
            replica=replica,
            disk=disk,
            ticks=ticks,
            recovery=recovery,
        )
        freshness = self.freshness = Freshness(core, links, peers, membership.is_recovering if recovery else None)
        divergence = self.divergence = Divergence(core, links, ticks, replica, membership)
        self.voters_time = VotersTime(clock, links.now_ms)
        self.elections = Elections(
            core, journal, self.voters_time, links=links, ticks=ticks, peers=peers, membership=membership, disk=disk
        )
        self.following = Following(
            core,
            journal,
            clock,
            random,
            links=links,
            peers=peers,
            membership=membership,
            elections=self.elections,
            freshness=freshness,
            divergence=divergence,
            disk=disk,
            build_level=machine.build_level,
        )
        self.hand_over = HandOver(core, links, ticks, peers)
        self.leading = Leading(
            core,
            journal,
            clock,
            initial_settings,
            links=links,
            ticks=ticks,
            peers=peers,
            replica=replica,
            membership=membership,
            replicator=self.replicator,
            hand_over=self.hand_over,
            freshness=freshness,
            timings=timings,
        )
        self.level_raising = LevelRaising(core, links=links, replica=replica, leading=self.leading)
        self.reconfiguration = Reconfiguration(
            core,
            links=links,
            ticks=ticks,
            peers=peers,
            replica=replica,
            membership=membership,
            leading=self.leading,
            hand_over=self.hand_over,
            timing=timing,
        )
        self.removal = Removal(
            core, journal, network, links=links, membership=membership, replica=replica, elections=self.elections
        )
        building = self.building = Building(
            core,
            journal,
            snapshots,
            links=links,
            peers=peers,
            replica=replica,
            divergence=divergence,
            restart_from=self._restart_from,
        )
        self.sending = Sending(
            core, journal, snapshots, links=links, peers=peers, membership=membership, building=building
        )
        self.receiving = Receiving(
            core,
            journal,
            snapshots,
            links=links,
            replica=replica,
            divergence=divergence,
            following=self.following,
            building=building,
            restart_from=self._restart_from,
        )
        # The core calls these: once a turn after applying, when a heartbeat is due, and before and for an election.
        self.propose_queued = self.leading.propose_queued
        self.replicate = self.leading.replicate
        self.may_campaign = membership.may_campaign
        self.start_pre_vote = self.elections.start_pre_vote
        # The core calls this for a leader that was silent for an election timeout: a leader owes its followers messages.
        self.leader_silent = peers.asked
        self._handlers: dict[str, Callable[[Peer, dict[str, Any]], None]] = {
            **self.leading.handlers,
            **self.following.handlers,
            **self.elections.handlers,
            **self.reconfiguration.handlers,
            **self.hand_over.handlers,
            **self.removal.handlers,
            **divergence.handlers,
            **self.sending.handlers,
            **self.receiving.handlers,
        }
        # When the turn of the loop should have ended in which an entry was applied last.
        self._applied_in = 0.0
        self._position_seen: tuple[Any, ...] = ()
        self._clock_noted_ms = 0
        self._clock_noted_position = journal.position

    # Life -----------------------------------------------------------------------------------------------------------

    def found_cluster(self, cluster_id: str, member: Member) -> None:
        """Begin a new cluster with this node as its only voter: write the first member table into the log, and campaign.

        member: this node's row of the table.
        """
        table = Configuration(0, cluster_id, {member.id: member})
        block = commands.encode_block(0, 0, 0, [table.command()])
        entry = CONFIGURATION + commands.encode_entry(0, [block])
        self._core.adopt_term(1)
        self._journal.setCurrentTerm(1, self.node_id)
        self._journal.enter_cluster(cluster_id)
        self.membership.append(entry)
        # No other voter could be heard first: campaign at once.
        self._core.expect_election(0.0)

    def start(self) -> None:
        """Start this node: connect to the members and start the timer for heartbeats."""
        self.membership.adopt()
        self._core.postpone_election()
        if self.configurations.latest.voters == [self.node_id]:
            self._core.expect_election(0.0)
        self._on_timer()

    def stop(self) -> None:
        """Stop this node: it takes no further part in the cluster. Its term, vote and log stay in its journal."""
        self.ticks.stop()

    def _tick(self) -> None:
        core, ticks = self._core, self.ticks
        if ticks.whole or core.position != self._position_seen or self.reconfiguration.is_pending:
            ticks.whole = False
            core.tick()
            self.freshness.note_progress()
            self._position_seen = core.position
            self._follow_route()
            self.reconfiguration.proceed()
        else:
            core.advance()
            self.freshness.note_progress()
        if self.leading.queue and self.leading.may_append():
            ticks.nudge()

    def _follow_route(self) -> None:
        route = self._find_route()
        if route != self.links.route:
            self.links.follow(route)
            self.reconfiguration.route_changed()
            self._events.route_changed()

    def _on_timer(self) -> None:
        if self.ticks.stopped:
            return
        self._loop.call_later(self._timing.heartbeat_s, self._on_timer)
        self._note_clock()
        if self.replica.failure is None:
            self.disk.look()
        if self._core.is_leader:
            if self.disk.outrun:
                self.hand_over.step_aside()
            else:
                self.leading.keep_house()
                self.reconfiguration.votes.look()
                if self.replica.machine.level < self.replica.machine.build_level:
                    self.level_raising.consider()
        self.receiving.consider()
        self.building.consider()
        self.sending.consider()
        if self.replica.failure is None:
            self.removal.consider()
        self.ticks.wake()

    def _note_clock(self) -> None:
        """Write (cluster time, wall clock) into the journal, at most once a second.

        Nothing is written unless the journal has got other records since the last such pair.
        """
        now_ms = self.links.now_ms()
        if self._clock.heard and self._journal.position != self._clock_noted_position and self.replica.failure is None:
            if now_ms - self._clock_noted_ms >= 1000:
                self._clock_noted_ms = now_ms
                self._journal.note_clock(self._clock.now_ms(), self._clock.wall_ms())
                self._clock_noted_position = self._journal.position

    # What the store asks ---------------------------------------------------------------------------------------------

    def propose(self, blocks: list[bytes], crowded: bool = False, again: bool = False) -> bool:
        """Send blocks of commands to the leader; return False if no leader is connected or its connection takes no more now.

        crowded: whether many callers wait for these blocks and will send their next commands together.
        again: whether all unanswered blocks are sent again, beginning with these; the leader then drops those it has queued.
        """
        route = self.links.route
        if route is None:
            return False
        if route.leader_id == self.node_id:
            self.leading.enqueue(blocks, crowded, again)
            if not self.ticks.is_running:
                self.ticks.nudge()
            return True
        message: Propose = {"type": "propose", "blocks": blocks, "crowded": crowded}
        if again:
            message["again"] = True
        return self._network.send(route.leader_id, message)

    def log_progress(self) -> tuple[int, bool]:
        """Return (commit index, whether a later entry is still on its way to a majority, which takes long on slow links)."""
        commit_index = self._core.commit_index
        return commit_index, max(self._journal.last_index, self.following.under_way) > commit_index

    def is_sending(self) -> bool:
        """Return whether messages for the leader still wait in this process to be sent."""
        route = self.links.route
        return route is not None and self._network.backlog(route.leader_id) > 0

    def position(self) -> RaftPosition:
        """Return this node's position: applied index, term, its own id and its leader's."""
        core = self._core
        return RaftPosition(core.last_applied, core.term, self.node_id, core.leader_id)

    @property
    def is_leader(self) -> bool:
        """True if this node leads, or believes that it does."""
        return self._core.is_leader

    @property
    def term(self) -> int:
        """The node's current Raft term."""
        return self._core.term

    @property
    def leader_id(self) -> str | None:
        """The id of the leader that this node follows, its own if it leads; None when it knows no leader."""
        return self._core.leader_id

    @property
    def role(self) -> str:
        """This node's Raft role as a word: leader, follower or candidate."""
        return ROLE_NAMES[self._core.role]

    @property
    def commit_index(self) -> int:
        """The highest log index that this node knows to be committed."""
        return self._core.commit_index

    @property
    def durable_index(self) -> int:
        """The highest log index that is durable on this node's disk."""
        return self._journal.durable_index

    @property
    def log_entries(self) -> int:
        """The number of entries in this node's log, without the placeholder that every log begins with."""
        return len(self._journal) - 1

    @property
    def journal_bytes(self) -> int:
        """The number of bytes that the journal takes on this node's disk."""
        return self._journal.disk_bytes

    @property
    def last_applied(self) -> int:
        """The highest index of a log entry that this node's state machine has applied."""
        return self._core.last_applied

    @property
    def may_read(self) -> bool:
        """True if this node may answer local reads.

        Since its start it must lead and have applied its no-op, or have applied what its leader had committed in its own
        term, and nearly all that has come meanwhile. That stays true, for local reads never go back in time. But a removed
        node's contents would grow old for ever, and a node whose state machine has failed or differs from the leader's may
        be wrong: neither answers reads.
        """
        return (
            self.freshness.caught_up
            and self.replica.stumbled is None
            and self.replica.doubt is None
            and self.removal.removed_at is None
        )

    def members(self) -> list[Member]:
        """Return the members by the latest member table in the log, in the order of their ids."""
        return [member for _, member in sorted(self.configurations.latest.members.items())]

    def lag_of(self, node_id: str) -> int | None:
        """Return how many log entries the member ``node_id`` lacks; None if unknown: of others only the leader knows that."""
        if node_id == self.node_id:
            return max(0, self._core.commit_index - self._core.last_applied)
        progress = self.peers.progress.get(node_id) if self._core.is_leader else None
        if progress is None or not progress.acked_at_ms:
            # A new leader does not know how far a follower is before that one's first answer.
            return None
        return max(0, self._journal.last_index - progress.match_index)

    # The core calls ---------------------------------------------------------------------------------------------------

    def apply_committed(self) -> None:
        """Apply committed log entries to the state machine, and report their results.

        One entry is applied in any turn of the event loop, and more as long as the turn has time; the others in later turns.
        """
        core, replica, journal = self._core, self.replica, self._journal
        machine = replica.machine
        index, commit_index = core.last_applied, core.commit_index
        if index >= commit_index or replica.stumbled is not None or replica.doubt is not None:
            return
        clock, turn_ends, timings = self._loop.time, self._loop.budget.ends, self.timings
        if 0 < timings.waits_for <= commit_index:
            timings.commits.note(clock() - timings.since_s)
            timings.waits_for = 0
        if self._applied_in == turn_ends and clock() > turn_ends:
            # Several messages of a turn may each commit something.
            self.ticks.nudge()
            return
        self._applied_in = turn_ends
        first_index = journal.first_index
        if index < first_index:
            replica.stumble(
                f"entry {index + 1} is not applied and not in the journal, which begins behind {first_index}"
            )
            return
        while index < commit_index:
            index += 1
            command = journal[index - first_index][0]
            began = clock()
            try:
                settled = machine.apply(index, command[1:] if command[:1] in ENTRY_KINDS else b"")
            except NewerCacheFlow as error:
                replica.outdated(error)
                return
            except Exception:
                replica.stumble(f"entry {index} could not be applied to the end")
                raise
            timings.applies.note(clock() - began)
            core.last_applied = index
            self._events.applied(settled)
            if index < commit_index and clock() > turn_ends:
                self.ticks.nudge()
                break
        if machine.level > machine.build_level:
            entry = f"entry {index} of the log, or one before it,"
            replica.outdated(NewerCacheFlow.wrote(entry, machine.level, machine.build_level))
        over = self.configurations.committed(index)
        self.reconfiguration.applied(index)
        for table in over:
            self.membership.tell_replaced()
            self.ticks.wake()
            self.removal.tell_removed(table)

    def before_leading(self) -> None:
        """Begin this node's work as leader, because it was elected, with the cluster's time as the voters estimate it."""
        self.leading.begin(self.voters_time.estimate_ms())

    def role_changed(self) -> None:
        """Report a change of this node's Raft role in a log message, and end its work as leader if it leads no more."""
        if not self._core.is_leader:
            self.leading.end()
            self.reconfiguration.deposed()
        logger.info("%s in term %d", self.role, self._core.term)
        self.ticks.wake()

    def send_vote_message(self, node_id: str, message: dict[str, Any]) -> None:
        """Send a vote or vote request that PySyncObj, the Raft library, has made, once the journal is durable.

        Votes and requests are promises; a timeout_now message promises nothing and is sent at once.
        """
        if message["type"] == "timeout_now":
            # timeout_now promises nothing, and a leader whose disk hangs gives way by it.
            self.links.send(node_id, cast(TimeoutNow, message))
            return
        self.elections.complete(message)
        held = cast(RequestVote | ResponseVote, message)
        # The disk may take long, and an answer tells the time.
        self.links.hold_message(node_id, held, lambda: self.elections.date(message))

    # Messages -------------------------------------------------------------------------------------------------------

    def receive(self, peer: Peer, message: dict[str, Any]) -> None:
        """Check a peer's ``message`` and pass it to the part of this node that handles its type; drop it if it is bad."""
        if self.ticks.stopped or self.replica.failure is not None:
            return
        handler = self._handlers.get(message["type"])
        if handler is None:
            # A newer build may send what this one does not know.
            self.unknown_messages += 1
            if self._throttle.allows((peer.node_id, "unknown")):
                logger.warning("dropped a message of unknown type %.40r of %s", message["type"], peer.node_id)
            return
        self.peers.heard(peer.node_id)
        if message["type"] == "append_ack" and not self.reconfiguration.is_pending:
            # The handler nudges the node itself, when the acknowledgement makes a difference.
            self._turn.run(lambda: self._handle(handler, peer, message))
            return
        if message["type"] not in OF_LOAD:
            self.ticks.whole = True
        self.ticks.run(lambda: self._handle(handler, peer, message))

    def _handle(self, handler: Callable[[Peer, dict[str, Any]], None], peer: Peer, message: dict[str, Any]) -> None:
        is_member = self.membership.is_member(peer)
        try:
            if self.configurations.latest.members:
                guards.check_sender(message, is_member, self._core.term)
            handler(peer, message)
            # The sender may have become one by what it has just sent.
            if not is_member and not self.membership.is_member(peer):
                self.removal.answer_stranger(peer, message["type"])
        except NewerCacheFlow as error:
            self.replica.outdated(error)
        except guards.BadMessage as error:
            if self._throttle.allows((peer.node_id, "bad")):
                logger.warning("dropped a message of %s: %s", peer.node_id, error)
        except guards.SafetyViolation as error:
            self.replica.fail(f"{error}. Stop this node, remove its data directory and start it with --seed to rejoin")

    def connected(self, node_id: str) -> None:
        """Use a new connection to the member ``node_id``: messages on its old connection may be lost and are sent again."""
        self.links.connections[node_id] = self.links.connections.get(node_id, 0) + 1
        self._core.set_connected(node_id, True)
        self.peers.heard(node_id)
        self.replicator.reconnected(node_id)
        self.ticks.wake()

    def disconnected(self, node_id: str) -> None:
        """Note the end of a connection to or from the member ``node_id``; if that member leads, prepare for an election."""
        self._core.set_connected(node_id, self._network.is_connected(node_id))
        if node_id == self._core.leader_id and not self._core.is_leader:
            self.elections.leader_lost()
        self.ticks.wake()

    def flushed(self) -> None:
        """Make the calls (such as sending a vote) that waited for those journal records which are durable now."""
        self._turn.run(self._release)

    def _release(self) -> None:
        if self._core.is_leader:
            # The leader's own flush may complete a majority.
            self.ticks.nudge()
        if self.links.held:
            self.links.release()

    def _restart_from(self, machine: CacheMachine) -> None:
        """Use ``machine``, which was loaded from a snapshot, in place of this node's present state machine.

        The journal begins at the snapshot's index or before it.
        """
        if machine.applied_index < self._core.last_applied:
            self.freshness.goes_back()
        self.replica.machine = machine
        self._events.machine_replaced(machine)
        self._core.restart_at(machine.applied_index)
        self.membership.restart_from(machine)

    def _find_route(self) -> Route | None:
        leader_id = self._core.leader_id
        if leader_id is None or self.replica.failure is not None:
            return None
        if leader_id == self.node_id:
            return Route(leader_id, self._core.term, 0) if self._core.is_leader else None
        if not self._network.is_connected(leader_id):
            return None
        return Route(leader_id, self._core.term, self.links.connections.get(leader_id, 0))
