"""Sending: how the leader sends its snapshot to followers, in acknowledged pieces that leave room for heartbeats.

Not safe for concurrent use: the event loop owns it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cacheflow.raft import guards
from cacheflow.raft.core import Core
from cacheflow.raft.links import Links
from cacheflow.raft.log.journal import Journal
from cacheflow.raft.membership.membership import Membership
from cacheflow.raft.message_types import SnapshotPiece
from cacheflow.raft.peers import SNAPSHOT, Peers
from cacheflow.raft.snapshots import files
from cacheflow.raft.snapshots.building import Building
from cacheflow.raft.snapshots.files import SnapshotMeta
from cacheflow.raft.snapshots.storage import SnapshotStorage
from cacheflow.raft.transport.network import Peer

logger = logging.getLogger(__name__)

# A snapshot travels in pieces of this size, so many of them ahead of their acknowledgement: heartbeats go between them.
PIECE_BYTES = 256 * 1024
PIECES_AHEAD = 8
# Pieces are sent again after so long without an acknowledgement: they were lost with their connection.
AGAIN_MS = 1000
# When the follower says that a piece is missing, pieces are sent again after this: longer than those on their way take.
LOST_MS = 200
# A transfer without progress for this long is begun again, with the newest snapshot.
STALLED_MS = 5000


@dataclass(slots=True)
class _Transfer:
    """What a leader remembers while it sends one snapshot to one follower."""

    meta: SnapshotMeta
    # Bytes from the beginning of the file that were sent, and that the follower has.
    sent: int = 0
    acknowledged: int = 0
    # When the follower last had more than before, and when pieces were last sent again.
    moved_at_ms: int = 0
    again_at_ms: int = 0
    # Whether the follower misses a piece; it refuses all that follow.
    refused: bool = False
    # Whether a piece is being read from the disk.
    reading: bool = False

    def go_back(self, now_ms: int) -> None:
        """Begin to send a snapshot again from the first byte that the follower has not acknowledged, if bytes seem lost."""
        silent_ms = now_ms - max(self.moved_at_ms, self.again_at_ms)
        # The pieces on their way are refused, too, and must not all be sent again for each of these refusals.
        if silent_ms > AGAIN_MS or (self.refused and now_ms - self.again_at_ms > LOST_MS):
            self.sent = self.acknowledged
            self.again_at_ms = now_ms
            self.refused = False


class Sending:
    """The part of a leader that sends its snapshot to followers which need it, at most one to each follower at a time."""

    def __init__(
        self,
        core: Core,
        journal: Journal,
        storage: SnapshotStorage,
        *,
        links: Links,
        peers: Peers,
        membership: Membership,
        building: Building,
    ) -> None:
        self._core = core
        self._journal = journal
        self._storage = storage
        self._links = links
        self._peers = peers
        self._membership = membership
        self._building = building
        self._transfers: dict[str, _Transfer] = {}
        # The number of snapshots that followers have taken over, or do not need any more.
        self.sent_total = 0
        storage.sending = lambda: [transfer.meta.index for transfer in self._transfers.values()]
        self.handlers: dict[str, Callable[[Peer, dict[str, Any]], None]] = {
            "snapshot_ack": self._on_piece_ack,
        }

    def consider(self) -> None:
        """As leader, begin and continue to send this node's snapshot to followers that need one; called once a heartbeat."""
        if not self._core.is_leader:
            self._transfers.clear()
            return
        for node_id, progress in self._peers.progress.items():
            if progress.state == SNAPSHOT:
                self._serve(node_id)
            else:
                self._transfers.pop(node_id, None)

    def _serve(self, node_id: str) -> None:
        newest = self._storage.newest
        transfer = self._transfers.get(node_id)
        now_ms = self._links.now_ms()
        if transfer is not None and transfer.moved_at_ms + STALLED_MS < now_ms and not self._links.backlog(node_id):
            del self._transfers[node_id]
            transfer = None
        if transfer is None:
            if newest is None or newest.index < self._journal.first_index:
                self._building.build()
                return
            transfer = self._transfers[node_id] = _Transfer(newest, moved_at_ms=now_ms)
        self._go_back(node_id, transfer, now_ms)
        self._send_pieces(node_id, transfer)

    def _go_back(self, node_id: str, transfer: _Transfer, now_ms: int) -> None:
        """Begin to send a follower a snapshot again from the first byte not acknowledged, if bytes seem lost.

        Does nothing while pieces still wait on this node to be sent.
        """
        if not self._links.backlog(node_id):
            transfer.go_back(now_ms)

    def _send_pieces(self, node_id: str, transfer: _Transfer) -> None:
        """Send a follower the next pieces of the snapshot, with at most PIECES_AHEAD pieces not acknowledged yet.

        One piece at a time is read from the disk, away from the event loop.
        """
        ahead = transfer.sent - transfer.acknowledged
        if transfer.reading or transfer.sent >= transfer.meta.bytes or ahead >= PIECES_AHEAD * PIECE_BYTES:
            return
        transfer.reading = True
        meta, offset = transfer.meta, transfer.sent

        def read() -> bytes:
            return files.read_piece(self._storage.disk, self._storage.directory, meta, offset, PIECE_BYTES)

        def done(outcome: bytes | BaseException) -> None:
            transfer.reading = False
            if self._transfers.get(node_id) is not transfer or not self._core.is_leader:
                return
            if isinstance(outcome, BaseException):
                logger.warning("the snapshot at %d cannot be sent: %s", meta.index, outcome)
                self._transfers.pop(node_id)
                return
            if transfer.sent != offset:
                self._send_pieces(node_id, transfer)  # the transfer went back or on while this piece was read
                return
            message: SnapshotPiece = {
                "type": "snapshot",
                "term": self._core.term,
                "index": meta.index,
                "snapshot_term": meta.term,
                "bytes": meta.bytes,
                "offset": offset,
                "data": outcome,
            }
            if self._links.send(node_id, message):
                transfer.sent = offset + len(outcome)
                self._send_pieces(node_id, transfer)

        self._storage.run(read, done)

    def _on_piece_ack(self, peer: Peer, message: dict[str, Any]) -> None:
        term = guards.natural(message, "term")
        if term > self._core.term:
            self._core.adopt_term(term)
            return
        transfer = self._transfers.get(peer.node_id)
        index = guards.natural(message, "index")
        if not self._core.is_leader or transfer is None or transfer.meta.index != index or term < self._core.term:
            return
        if not self._membership.is_member(peer):
            return
        now_ms = self._links.now_ms()
        if message.get("done") is True:
            self._transfers.pop(peer.node_id)
            self.sent_total += 1
            self._peers.progress[peer.node_id].installed(index)
            self._core.acknowledge(peer.node_id, index)
            return
        offset = guards.natural(message, "offset")
        transfer.refused = message.get("refused") is True
        if offset > transfer.acknowledged:
            transfer.moved_at_ms = now_ms
        if offset > transfer.acknowledged or transfer.refused:
            transfer.acknowledged = offset
            # The follower may have more than was sent now, from an earlier transfer.
            transfer.sent = max(transfer.sent, offset)
        self._go_back(peer.node_id, transfer, now_ms)
        self._send_pieces(peer.node_id, transfer)
