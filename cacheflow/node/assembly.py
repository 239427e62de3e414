"""LocalNode: one running node, put together the same way for a server, an embedded store and the simulation.

It is built on the ``Surroundings`` that it is given: a loop, a disk, a network, clocks, randomness
and ways to start helpers. ``engine.py`` hands in the real ones and runs the loop in a thread; the simulation hands in its
own. So whatever a node does between its start and its end is code that the simulation runs.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from cacheflow.config import NodeConfig
from cacheflow.machine.language.commands import open_session
from cacheflow.machine.machine import CacheMachine, Settled
from cacheflow.machine.state.settings import Settings
from cacheflow.net.slices import Slices
from cacheflow.net.unsent import Unsent
from cacheflow.node.channels import Channels
from cacheflow.node.clock import ClusterClock
from cacheflow.node.events import EventLog
from cacheflow.node.feed import Feed
from cacheflow.node.inbox import Inbox
from cacheflow.node.joining import Joining
from cacheflow.node.leaving import Leaving
from cacheflow.node.past import STEP_S, Past
from cacheflow.node.proposals import Proposals
from cacheflow.node.recency import RecencyBuffer
from cacheflow.node.registration import AskSeed
from cacheflow.node.supervisor import Supervisor
from cacheflow.node.tracking import Tracking
from cacheflow.raft.log.disk import Disk
from cacheflow.raft.log.journal import SEGMENT_BYTES, Journal, Submit
from cacheflow.raft.membership.recovery import enter, read_recovery
from cacheflow.raft.node import RaftNode
from cacheflow.raft.seams import Timing
from cacheflow.raft.snapshots import storage
from cacheflow.raft.snapshots.storage import Builder, SnapshotStorage
from cacheflow.raft.transport.network import Identity, Network, Peer
from cacheflow.raft.turn import Turn

logger = logging.getLogger(__name__)

# Seconds between two looks at the deadlines of calls: how late a call may learn that its time is over.
EXPIRE_EVERY_S = 0.1
# Milliseconds for which a node may have heard no leader and still tells changes to clients that could ask another node: longer
# than an election takes, and no longer than a person waits.
STALE_MS_MAX: Final = 10_000
# Seconds between two times that tracking clients are told to forget everything while this node is out of touch: so long they keep
# what they have read since.
FORGET_EVERY_S = 1.0
# Recency of a node that only reads travels alone this often, once the cache is nearly full.
USES_EVERY_S = 1.0
NEARLY_FULL = 0.9
# Below this part of its limits a cache evicts nothing soon: a use sent earlier costs every node more than it is worth.
HALF_FULL = 0.5


@dataclass(frozen=True, slots=True)
class Surroundings:
    """The event loop, threads, disk, network, clocks and randomness that a node runs on.

    loop: asyncio's event loop, or an object with the same methods.  loop_thread: the identifier of the loop's thread.
    turn: calls functions at the end of the loop's present turn.  directory: the folder on ``disk`` with the node's files.
    write_journal, write_snapshots: do disk work in other threads, each in the order in which it is given.
    build_snapshot: builds a snapshot in another process.  ask_seed: asks a member over HTTP to register this node.
    passed: returns monotonic seconds, which go on while the computer is suspended.  random: returns a number from 0 to 1.
    segment_bytes: size of each of the journal's files.
    machine_type: class of this build's state machine, which knows the highest feature level that the build can use.
    slices: does long work a part at a time.  unsent: the fronts' common limit on bytes that clients have not taken yet.
    """

    loop: Any
    loop_thread: int
    turn: Turn
    supervisor: Supervisor
    disk: Disk
    directory: Path
    write_journal: Submit
    write_snapshots: Submit
    build_snapshot: Builder
    network: Network
    passed: Callable[[], float]
    clock: ClusterClock
    ask_seed: AskSeed
    random: Callable[[], float]
    random_bytes: Callable[[int], bytes]
    slices: Slices
    unsent: Unsent
    segment_bytes: int = SEGMENT_BYTES
    machine_type: type[CacheMachine] = CacheMachine


class LocalNode:
    """A CacheFlow node in this process: its Raft part, its state machine, the waiting calls, and what makes it a member.

    http_address: host:port under which members show this node.
    note_removed: called once, on the journal's thread, with the reason why the node is no member any more; notes it on disk.

    The event loop owns this object. Any thread may read the state machine's memory, use the inbox and count cache hits.
    Raises CorruptSnapshot, CorruptJournal, NewerCacheFlow (a later build wrote the files), ConfigError, OSError.
    """

    def __init__(
        self,
        config: NodeConfig,
        identity: Identity,
        http_address: str,
        around: Surroundings,
        note_removed: Callable[[str], None],
    ) -> None:
        loop, turn = around.loop, around.turn
        self.uses = RecencyBuffer()
        self.clock = around.clock
        self.past = Past(around.passed)
        self.network = around.network
        self.supervisor = around.supervisor
        # Reads of this process; when two threads count at once some may be lost.
        self.hits = 0
        self.misses = 0
        # Calls that write and were refused at once, likewise.
        self.refused = 0
        # Callers are served from the end of ``start`` until the node is stopped.
        self.is_serving = False
        # Called on the loop with the replicated settings whenever they may have changed, before any call is answered.
        self.on_settings: Callable[[Settings], None] = lambda settings: None
        self._config = config
        # Whether it was looked at which of this node's settings the cluster overrules.
        self._compared = False
        self._loop = loop
        self._note_removed = note_removed
        self._write_journal = around.write_journal
        # When uses were last sent alone, and the index that was applied then.
        # When the log's index is to be noted next.
        self._past_due_s = 0.0
        self._uses_sent_at = 0.0
        self._uses_sent_index = 0
        newest, self.machine = storage.load_machine(around.disk, around.directory, around.machine_type)
        self.journal = Journal.open(
            around.disk,
            around.directory,
            submit=around.write_journal,
            fsync=config.fsync if config.persistence else "never",
            segment_bytes=around.segment_bytes,
            on_failure=lambda error: self.node.replica.fail(f"writing to {around.directory} failed: {error}"),
            # Followers begin with an entry as early as they can; their flush is further away than this node's own.
            defer=turn.defer_flush,
            later=loop.call_later,
            random_bytes=around.random_bytes,
            clock=loop.time,
        )
        self._settings = self.machine.settings
        storage.check_levels(self.journal, self.machine.build_level)
        storage.begin_journal_at(self.journal, newest, around.directory)
        recovery = read_recovery(around.disk, around.directory)
        if recovery is not None:
            enter(self.journal, recovery, around.directory)
            if recovery.cluster_id == self.machine.cluster_id:
                # The snapshot says it all.
                recovery = None
        if self.journal.clock_pair is not None:
            self.clock.restore(*self.journal.clock_pair)
        self.node = RaftNode(
            loop=loop,
            passed=around.passed,
            node_id=identity.node_id,
            incarnation=identity.incarnation,
            journal=self.journal,
            machine=self.machine,
            network=self.network,
            clock=self.clock,
            snapshots=SnapshotStorage(
                around.disk,
                around.directory,
                newest,
                run=around.write_snapshots,
                build=around.build_snapshot,
                machine_type=around.machine_type,
            ),
            events=self,
            timing=Timing(config.election_timeout_s, config.heartbeat_s, config.replace_after_s),
            initial_settings=_replicated(config),
            random=around.random,
            turn=turn,
            recovery=recovery,
        )
        self.events = EventLog(self.node, self.clock.wall_ms, around.passed)
        self.journal.on_durable = self.node.flushed
        self.node.removal.on_removed = self._removed
        self.network.on_message = self.node.receive
        self.network.on_connected = self.node.connected
        self.network.on_disconnected = self.node.disconnected
        self.network.on_peer_lost = self.node.disconnected
        self.network.on_other_cluster = self._met_other_cluster
        self.network.on_replaced = self._met_replacement
        self.channels = Channels(around.slices, around.unsent, self.network, self.node.membership.is_member)
        self.network.on_beside = self.channels.receive
        self.feed = Feed(around.slices, self.clock.now_ms, self.machine.applied_index, self.machine.digest)
        self.tracking = Tracking(
            around.slices, turn.defer_tell, lambda key: self.machine.lookup(key, self.clock.now_ms())
        )
        # When tracking clients are to be told next to forget everything, if this node may still not be asked then.
        self._forget_due_s = 0.0
        # How often the machine's contents were replaced, as far as the feed knows.
        self._breaks = self.machine.contents.breaks
        self.proposals = Proposals(
            self.node,
            opening=open_session(
                identity.node_id,
                identity.incarnation,
                identity.start,
                around.random_bytes(8).hex(),
                self.machine.build_level,
            ),
            clock=loop.time,
            cluster_ms=self.clock.now_ms,
            uses=self._uses_that_matter,
            later=loop.call_later,
            peek=lambda key: self.machine.contents.get(key),
            wake=turn.defer_wake,
            collect=lambda: self.inbox.take(),
        )
        self.inbox: Inbox = Inbox(
            self.proposals,
            turn,
            self.node.ticks.run,
            loop,
            timeout_s=config.request_timeout_s,
            loop_thread=around.loop_thread,
        )
        self.leaving = Leaving(
            self.node,
            around.disk,
            around.directory,
            submit=around.write_journal,
            pending=lambda: self.proposals.pending,
        )
        self.joining = Joining(
            self.node,
            self.network,
            config,
            http_address,
            came_from=self.leaving.came_from,
            ask_seed=around.ask_seed,
            random_bytes=around.random_bytes,
        )

    async def start(self) -> None:
        """Start the node: listen for peers, take part in Raft, and start the background task that makes the node a member.

        Raises ConfigError.
        """
        # Whoever dials this node is told from the first moment which cluster it has data of.
        self.network.cluster_id = self.journal.cluster_id or self.node.configurations.latest.cluster_id
        await self.network.start()
        try:
            self.joining.found_at_once()
            self.node.start()
            self.supervisor.start("joining the cluster", self.joining.keep)
            self.supervisor.start("coming back after leaving", self.leaving.keep)
            self._on_timer()
        except BaseException:
            # Else the Raft port would stay taken.
            await self.stop()
            raise
        self.is_serving = True

    async def stop(self) -> None:
        """Stop the node, its tasks and its network, and end all waiting calls; the journal stays open."""
        # First whatever could begin something new.
        self.node.stop()
        self.proposals.close()
        await self.supervisor.stop()
        await self.network.stop()

    # What callers ask -------------------------------------------------------------------------------------------------

    @property
    def level(self) -> int:
        """The cluster's feature level, as far as this node has applied the log; this node sends nothing of a later level.

        All members understand what is at this level, whatever becomes of this node and of the leader. Any thread may read it.
        """
        return self.machine.level

    @property
    def may_read(self) -> bool:
        """True if clients may read the cache's contents on this node now. Any thread may ask."""
        return self.is_serving and not self.machine.is_closed and self.node.may_read

    @property
    def is_in_touch(self) -> bool:
        """True if this node may be read, and knows how old its contents are: at most STALE_MS_MAX. Any thread may ask."""
        if not self.may_read:
            return False
        staleness_ms = self.node.freshness.staleness_ms()
        return staleness_ms is not None and staleness_ms <= STALE_MS_MAX

    @property
    def takes_writes(self) -> bool:
        """True if this node can replicate clients' commands and learn the results. Any thread may ask.

        It can if it runs, has not failed and is not leaving, no hanging disk holds it up, and no restore is under way during
        which clients are not served.
        """
        node = self.node
        return (
            self.is_serving
            and not self.machine.is_closed
            and node.replica.failure is None
            and not self.leaving.has_begun
            # Nothing that is sent would come back here while the others go on without this node.
            and not (node.disk.hung and (node.disk.outrun or node.links.route is None))
        )

    # What the Raft node tells -----------------------------------------------------------------------------------------

    def machine_replaced(self, machine: CacheMachine) -> None:
        """Use ``machine``, a state machine restored from a snapshot, from now on in place of this node's present one.

        Commands whose results this node has missed are sent again.
        """
        self.machine = machine
        self._take_settings()
        self._breaks = machine.contents.breaks
        self.feed.begin_at(machine.applied_index, machine.digest)
        self.tracking.forget()
        self.proposals.answers_missed()
        # Where nobody writes no entry follows that would tell them.
        self.proposals.tell_counts(machine.contents)

    def applied(self, settled: list[Settled]) -> None:
        """Pass on what an applied log entry did: its effects to those who follow the changes, its results to waiting calls.

        settled: for each block of the entry its session, the number of its first command, and the results of its commands.
        """
        machine = self.machine
        contents = machine.contents
        effects = len(contents.effects)
        if effects:
            if contents.breaks == self._breaks:
                self.feed.add(machine.applied_index, machine.packed_effects, machine.digest, effects)
                if self.tracking.readers:
                    # Before any answer is given, and so before the answers to these writes.
                    self.tracking.applied(contents.effects)
            else:
                self._breaks = contents.breaks
                self.feed.begin_at(machine.applied_index, machine.digest)
                self.tracking.forget()
        inbox, proposals = self.inbox, self.proposals
        if self.machine.settings is not self._settings:
            self._take_settings()
        if inbox.waiting or inbox.barriers:
            inbox.empty()
        proposals.applied(settled)
        if proposals.counting:
            proposals.tell_counts(self.machine.contents)
        if inbox.waiting or inbox.barriers:
            # Writes of threads that waited for the inbox while the answers above were given: they go on their way now.
            inbox.empty()
            proposals.flush()

    def _take_settings(self) -> None:
        self._settings = self.machine.settings
        self.events.look()
        self.on_settings(self._settings)

    def route_changed(self) -> None:
        """Have this node's pending commands sent again, because the leader or the connection to it has changed."""
        self.proposals.route_changed(self.node.links.route is not None)
        self.events.look()

    def _removed(self, reason: str, noted: Callable[[], None]) -> None:
        """End this node's part in the cluster, for ``reason``: the cluster has removed the node, or was replaced.

        Note the reason on disk; then refuse all peers, end the clients' waiting calls, and call the function ``noted``.
        """

        def done(outcome: BaseException | None) -> None:
            if outcome is not None:
                raise outcome
            if self.is_serving:
                self.node.ticks.run(end)

        def end() -> None:
            self.network.refuse(reason)
            self.proposals.close()
            noted()

        note = functools.partial(self._note_removed, reason)
        self._write_journal(functools.partial(self.leaving.note_removed, note), done)

    def _met_replacement(self, peer: Peer) -> None:
        """End this node's part in its cluster, which a recovery has replaced by the cluster of the node ``peer``."""
        logger.critical("%s belongs to cluster %s, which has replaced this node's", peer.node_id, peer.cluster_id)
        self.node.ticks.run(lambda: self.node.removal.replaced_by(peer.cluster_id))

    def _met_other_cluster(self, peer: Peer) -> None:
        """Stop this node if it is alone in its cluster and in the member table of ``peer``, a member of another cluster.

        In that case this node has founded its own cluster by mistake, without the data of the cluster of ``peer``.
        """
        node, replica, latest = self.node, self.node.replica, self.node.configurations.latest
        if latest.voters == [node.node_id] and replica.failure is None:
            replica.stumbled = (
                f"{peer.node_id} of cluster {peer.cluster_id} lists this node as a member, and in its own cluster "
                f"{latest.cluster_id} it is alone: it was founded without the data of the other one. Stop this node, remove "
                "its data directory, and start it again without --bootstrap: it joins the other one"
            )
            replica.fail(replica.stumbled)
            self.proposals.close()

    # Recency, and what is done by time --------------------------------------------------------------------------------

    def _on_timer(self) -> None:
        self._loop.call_later(EXPIRE_EVERY_S, self._on_timer)
        self.inbox.empty()
        self.proposals.expire()
        self.events.look()
        now = self._loop.time()
        if now >= self._past_due_s and self.node.may_read:
            self._past_due_s = now + STEP_S
            self.past.note(self.machine.applied_index)
        if not self._compared and self.node.may_read and self.machine.settings.replicas is not None:
            self._compared = True
            self._tell_overruled()
        if self.tracking.readers and now >= self._forget_due_s and not self.is_in_touch:
            # What they keep would outlive what this node would answer: nobody tells it of changes, and nothing expires.
            self._forget_due_s = now + FORGET_EVERY_S
            self.tracking.forget()
        applied = self.node.last_applied
        if (
            self.uses.noted
            and now - self._uses_sent_at >= USES_EVERY_S
            # Without progress since, the last ones still wait for it.
            and applied != self._uses_sent_index
            and self._fill() >= NEARLY_FULL
        ):
            self._uses_sent_at, self._uses_sent_index = now, applied
            self.proposals.send_uses(self.uses.drain())

    def _tell_overruled(self) -> None:
        """Log which of this node's own settings have no effect, because the cluster has other values for them."""
        counts = asdict(self.machine.settings)
        overruled = [
            f"{name.replace('policy', 'eviction')} {counts[name]}, not {told}"
            for name, told in _replicated(self._config).items()
            if told != counts[name]
        ]
        if overruled:
            logger.warning("the cluster's settings count, not this node's: %s", "; ".join(overruled))

    def _uses_that_matter(self) -> list[tuple[str, int]]:
        return self.uses.drain() if self.uses.noted and self._fill() >= HALF_FULL else []

    def _fill(self) -> float:
        machine, settings = self.machine, self.machine.settings
        items = machine.contents.count_of(None) / settings.max_items if settings.max_items else 0.0
        return max(items, machine.contents.bytes_used / settings.max_bytes if settings.max_bytes else 0.0)


def _replicated(config: NodeConfig) -> dict[str, Any]:
    """Return those settings in a node's ``config`` that a cluster's first node decides for all, {name in the log: value}."""
    return {
        "policy": config.eviction,
        "max_items": config.max_items,
        "max_bytes": config.max_bytes,
        "replicas": config.replicas,
        "max_value_bytes": config.max_value_bytes,
    }
