"""Receiving: how a follower receives its leader's snapshot, verifies it and replaces its contents by it.

An older snapshot never replaces newer state (dissertation 5.1).

Not safe for concurrent use: the event loop owns it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from cacheflow.errors import NewerCacheFlow
from cacheflow.machine.machine import CacheMachine
from cacheflow.raft import guards
from cacheflow.raft.core import Core
from cacheflow.raft.links import Links
from cacheflow.raft.log.journal import Journal
from cacheflow.raft.message_types import SnapshotAck
from cacheflow.raft.replica import Replica
from cacheflow.raft.roles.follower import Following
from cacheflow.raft.snapshots.building import Building
from cacheflow.raft.snapshots.divergence import Divergence
from cacheflow.raft.snapshots.files import SnapshotMeta
from cacheflow.raft.snapshots.receiver import SnapshotReceiver
from cacheflow.raft.snapshots.storage import SnapshotStorage
from cacheflow.raft.transport.network import Peer

logger = logging.getLogger(__name__)


class Receiving:
    """The part of a follower that receives snapshots from its leader and replaces the follower's contents by them.

    restart_from: lets the node go on with a state machine that was loaded from a snapshot.
    """

    def __init__(
        self,
        core: Core,
        journal: Journal,
        storage: SnapshotStorage,
        *,
        links: Links,
        replica: Replica,
        divergence: Divergence,
        following: Following,
        building: Building,
        restart_from: Callable[[CacheMachine], None],
    ) -> None:
        self._core = core
        self._journal = journal
        self._storage = storage
        self._links = links
        self._replica = replica
        self._divergence = divergence
        self._following = following
        self._building = building
        self._restart_from = restart_from
        self._receiver: SnapshotReceiver | None = None
        # The number of snapshots that were taken over, and of those that came and could not be.
        self.received_total = 0
        self.failures_total = 0
        # Whether all pieces have come and the machine is being loaded from them.
        self._loading = False
        self.handlers: dict[str, Callable[[Peer, dict[str, Any]], None]] = {"snapshot": self._on_piece}

    def consider(self) -> None:
        """Give up receiving a snapshot if the log entries that it covers have meanwhile come to this node and are committed.

        Called once a heartbeat.
        """
        receiver = self._receiver
        if receiver is not None and not self._loading and receiver.index <= self._core.commit_index:
            self._abandon()

    def _on_piece(self, peer: Peer, message: dict[str, Any]) -> None:
        core = self._core
        term = guards.natural(message, "term")
        if term < core.term:
            self._links.send(peer.node_id, {"type": "term", "term": core.term})
            return
        index, offset = guards.natural(message, "index"), guards.natural(message, "offset")
        snapshot_term, size = guards.natural(message, "snapshot_term"), guards.natural(message, "bytes")
        data = message.get("data")
        if type(data) is not bytes:
            raise guards.BadMessage("snapshot: no data")
        self._following.hear_leader(peer, message)
        node_id = peer.node_id
        if index <= core.commit_index:
            self._acknowledge(node_id, index, 0, done=True)
            return
        receiver = self._receiver
        if self._loading:
            if receiver is not None and receiver.index == index:
                self._acknowledge(
                    node_id, index, receiver.received
                )  # all pieces are here and are being loaded, which takes a while
            return
        if receiver is None or (receiver.index, receiver.term) != (index, snapshot_term):
            if offset != 0:
                self._acknowledge(node_id, index, 0, refused=True)
                return
            self._abandon()
            disk, directory = self._storage.disk, self._storage.directory
            receiver = self._receiver = SnapshotReceiver(
                disk, directory, index, snapshot_term, size, self._storage.machine_type
            )
        if offset != receiver.received:
            self._acknowledge(node_id, index, receiver.received, refused=True)
            return
        receiver.received = offset + len(data)
        self._loading = receiver.received >= receiver.total_bytes
        self._receive(peer, receiver, offset, data)

    def _abandon(self) -> None:
        receiver, self._receiver = self._receiver, None
        if receiver is not None:
            self._storage.run(receiver.abandon, lambda _: None)

    def _receive(self, peer: Peer, receiver: SnapshotReceiver, offset: int, data: bytes) -> None:
        node_id, cluster_id = peer.node_id, peer.cluster_id
        end = offset + len(data)

        def work() -> tuple[SnapshotMeta, CacheMachine] | None:
            receiver.write(offset, data)
            if end < receiver.total_bytes:
                return None
            return receiver.finish()

        def done(outcome: tuple[SnapshotMeta, CacheMachine] | BaseException | None) -> None:
            if isinstance(outcome, BaseException):
                logger.error("the leader's snapshot at %d is not taken: %s", receiver.index, outcome)
                self.failures_total += 1
                self._loading = False
                if self._receiver is receiver:
                    self._abandon()
                if isinstance(outcome, NewerCacheFlow):
                    self._replica.outdated(outcome)
                return
            installed = False
            if outcome is not None:
                if not self._journal.cluster_id:
                    self._journal.enter_cluster(cluster_id)
                self._receiver = None
                self._loading = False
                installed = self._install(*outcome)
            self._acknowledge(node_id, receiver.index, end, done=installed)

        self._storage.run(work, done)

    def _install(self, meta: SnapshotMeta, machine: CacheMachine) -> bool:
        """Replace this node's contents by a received snapshot if that covers more of the log than this node has applied.

        Returns whether all that the snapshot covers is applied now.
        """
        if meta.index <= self._core.last_applied:
            return True
        if meta.index < self._journal.first_index:
            return False
        self._journal.install(meta.index, meta.term)
        self._building.replaced()
        self._restart_from(machine)
        self._divergence.settle()
        self._storage.keep(meta)
        self.received_total += 1
        logger.info("took over the leader's snapshot at %d", meta.index)
        return True

    def _acknowledge(self, node_id: str, index: int, offset: int, *, done: bool = False, refused: bool = False) -> None:
        """Acknowledge a piece of the leader's snapshot at ``index``, as soon as this node's journal is durable.

        offset: the number of bytes received so far.  refused: whether the piece did not begin at that offset.  done: whether
        the snapshot is not needed any more.
        """
        message: SnapshotAck = {
            "type": "snapshot_ack",
            "term": self._core.term,
            "index": index,
            "offset": offset,
            "done": done,
            "refused": refused,
        }
        self._links.hold_message(node_id, message)
