"""Snapshotting: when a node builds a snapshot, how one travels to a follower, and what happens with it there.

1. Building never stops the loop: a helper process replays the journal onto the last snapshot and writes the next one.
   Its digest must be the one that this node's machine had at the same index, or it is thrown away.
2. The log is trimmed only behind a snapshot that is durable here, and not from under a follower that is streaming.
3. A follower gets a snapshot in acknowledged pieces, checks it whole, and never lets an older one replace newer state
   (dissertation 5.1); unless its own state differs from its leader's, which is worse than old.

Not safe for concurrent use: the event loop owns it.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from cacheflow.machine.machine import CacheMachine
from cacheflow.raft import guards
from cacheflow.raft.core import Core
from cacheflow.raft.links import Links
from cacheflow.raft.log.disk import Disk
from cacheflow.raft.log.journal import CorruptJournal, Journal, Submit
from cacheflow.raft.membership.membership import Membership
from cacheflow.raft.message_types import SnapshotAck, SnapshotPiece
from cacheflow.raft.peers import REPLICATE, SNAPSHOT, Peers
from cacheflow.raft.replica import Replica
from cacheflow.raft.roles.follower import Following
from cacheflow.raft.seams import Tasks
from cacheflow.raft.snapshots import files
from cacheflow.raft.snapshots.divergence import Divergence
from cacheflow.raft.snapshots.files import SnapshotMeta, SnapshotReceiver
from cacheflow.raft.transport.network import Peer

logger = logging.getLogger(__name__)

# A snapshot is built when the journal has gathered this many bytes since the last one, and as many as that one has. A
# restart replays them, about three times as slowly for a byte as it loads a snapshot: some two seconds. With less, the
# helper would load and write unchanged items more often than anybody restarts.
JOURNAL_BYTES_MIN = 64 * 1024 * 1024
JOURNAL_PER_SNAPSHOT = 1
# A snapshot travels in pieces of this size, so many of them ahead of their acknowledgement: heartbeats go between them.
PIECE_BYTES = 256 * 1024
PIECES_AHEAD = 8
# Pieces are sent again after so long without an acknowledgement: they were lost with their connection.
AGAIN_MS = 1000
# The same when the follower says that a piece is missing: longer than the pieces on their way take to arrive.
LOST_MS = 200
# A transfer without progress for this long is begun again, with the newest snapshot.
STALLED_MS = 5000
# The pause after a build that failed: a helper that cannot work must not be started ten times a second.
BUILD_AGAIN_MS = 1000


class Builder(Protocol):
    """Builds the snapshot at an index and calls ``done``: in a helper process, or at once in a simulation."""

    def __call__(self, index: int, done: Callable[[SnapshotMeta | BaseException], None]) -> None: ...


@dataclass(slots=True)
class _Transfer:
    """One snapshot on its way to one follower."""

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
        """Go back to the first unacknowledged byte, if it is time to send it again."""
        silent_ms = now_ms - max(self.moved_at_ms, self.again_at_ms)
        # The pieces on their way are refused, too, and must not all be sent again for each of these refusals.
        if silent_ms > AGAIN_MS or (self.refused and now_ms - self.again_at_ms > LOST_MS):
            self.sent = self.acknowledged
            self.again_at_ms = now_ms
            self.refused = False


@dataclass(frozen=True, slots=True)
class SnapshotStorage:
    """The place of a node's snapshots, and the workers that read and write them.

    newest: the newest complete snapshot, None without one.  run: does disk work away from the loop, in order.
    build: builds another snapshot.
    """

    disk: Disk
    directory: Path
    newest: SnapshotMeta | None
    run: Submit
    build: Builder


def load_machine(disk: Disk, directory: Path) -> tuple[SnapshotMeta | None, CacheMachine]:
    """Return a node's newest snapshot and the machine in it; (None, an empty machine) without one. For a node's start.

    Raises CorruptSnapshot.
    """
    found = files.load_newest(disk, directory)
    if found is None:
        return None, CacheMachine()
    newest, chunks = found
    return newest, CacheMachine.restore(chunks)


def begin_journal_at(journal: Journal, newest: SnapshotMeta | None, directory: Path) -> None:
    """Let the journal begin at the newest snapshot. Raises CorruptJournal when there is a hole between them."""
    index = newest.index if newest is not None else 1
    if journal.first_index > index:
        raise CorruptJournal(
            directory, 0, f"it begins behind entry {journal.first_index}, the newest snapshot ends at {index}"
        )
    if newest is not None and journal.first_index < index:
        journal.install(index, newest.term)


class Snapshotting:
    """A node's snapshots: builds them, sends them to followers and takes them from a leader.

    restart_from: lets the node go on with the machine of a snapshot. Not safe for concurrent use: the event loop owns it.
    """

    def __init__(
        self,
        core: Core,
        journal: Journal,
        storage: SnapshotStorage,
        *,
        links: Links,
        peers: Peers,
        membership: Membership,
        replica: Replica,
        divergence: Divergence,
        following: Following,
        restart_from: Callable[[CacheMachine], None],
    ) -> None:
        self._links = links
        self._peers = peers
        self._membership = membership
        self._replica = replica
        self._divergence = divergence
        self._following = following
        self._restart_from = restart_from
        self._core = core
        self._journal = journal
        self._disk = storage.disk
        self._directory = storage.directory
        self._run = storage.run
        self._build = storage.build
        self._newest = storage.newest
        # Bytes of the entries in the journal that the newest snapshot covers and a follower still needs.
        self._held_back_bytes = 0
        self._building = False
        # Whether the contents were replaced after the present build began: then its result is thrown away.
        self._build_is_void = False
        # A build that failed is not begun again before this moment of the node's clock.
        self._next_build_ms = 0
        self._transfers: dict[str, _Transfer] = {}
        self._receiver: SnapshotReceiver | None = None
        # Whether all pieces have come and the machine is being loaded from them.
        self._loading = False
        self.handlers: dict[str, Callable[[Peer, dict[str, Any]], None]] = {
            "snapshot": self._on_piece,
            "snapshot_ack": self._on_piece_ack,
            "want_snapshot": self._on_want,
        }

    # Building ---------------------------------------------------------------------------------------------------------

    def consider(self) -> None:
        """Build a snapshot if the journal has grown enough, and keep transfers going; called once a heartbeat."""
        receiver = self._receiver
        if (
            receiver is not None
            and not (self._loading or self._divergence.diverged)
            and receiver.index <= self._core.commit_index
        ):
            # The entries that the snapshot covers have come meanwhile, from another leader.
            self._abandon()
        size = self._newest.bytes if self._newest is not None else 0
        if self._journal.log_bytes - self._held_back_bytes > max(JOURNAL_BYTES_MIN, JOURNAL_PER_SNAPSHOT * size):
            self.build()
        if not self._core.is_leader:
            self._transfers.clear()
            return
        for node_id, progress in self._peers.progress.items():
            if progress.state == SNAPSHOT:
                self._serve(node_id, progress.snapshot_from)
            else:
                self._transfers.pop(node_id, None)

    def build(self) -> None:
        """Begin to build a snapshot at the applied index, unless a build is under way or nothing is new."""
        index = min(self._core.last_applied, self._journal.durable_index)
        newest = self._newest.index if self._newest is not None else 1
        if self._building or self._replica.failure is not None or self._divergence.diverged or index <= newest:
            return
        if self._links.now_ms() < self._next_build_ms:
            return
        self._building = True
        digest = self._replica.machine.digest_at(index)
        self._build(index, lambda outcome: self._built(index, outcome, digest))

    def _built(self, index: int, outcome: SnapshotMeta | BaseException, own: bytes | None) -> None:
        self._building = False
        void, self._build_is_void = self._build_is_void, False
        if isinstance(outcome, BaseException):
            if not void:
                self._next_build_ms = self._links.now_ms() + BUILD_AGAIN_MS
                logger.error("no snapshot could be built: %s", outcome)
            return
        if void:
            # The contents that it began with may have been wrong, and this node may need the entries before it again.
            if self._newest is None or outcome.index != self._newest.index:
                files.discard(self._disk, self._directory, outcome)
            return
        if own is not None and own != outcome.digest:
            logger.error("the snapshot at %d differs from this node's contents and is not used", outcome.index)
            files.discard(self._disk, self._directory, outcome)
            return
        self._newest = outcome
        keep_from = outcome.index
        if self._core.is_leader:
            # The log is not kept for a follower that is down, perhaps for ever: it gets the snapshot.
            down = self._peers.down_ids()
            streaming = [
                progress.match_index
                for node_id, progress in self._peers.progress.items()
                if progress.state == REPLICATE and node_id not in down
            ]
            keep_from = min([keep_from, *streaming])
        self._journal.trim(max(keep_from, self._journal.first_index))
        self._held_back_bytes = self._journal.bytes_up_to(outcome.index)
        self._remove_older()
        logger.info("snapshot at %d: %d bytes", outcome.index, outcome.bytes)

    def _remove_older(self) -> None:
        assert self._newest is not None
        index = self._newest.index
        sending = [transfer.meta.index for transfer in self._transfers.values()]
        self._run(
            lambda: files.remove_older(self._disk, self._directory, index, sending),
            lambda outcome: logger.warning("old snapshots stay: %s", outcome) if outcome is not None else None,
        )

    # Sending ----------------------------------------------------------------------------------------------------------

    def _serve(self, node_id: str, least_index: int) -> None:
        newest = self._newest
        transfer = self._transfers.get(node_id)
        now_ms = self._links.now_ms()
        if transfer is not None and (transfer.moved_at_ms + STALLED_MS < now_ms or transfer.meta.index < least_index):
            del self._transfers[node_id]
            transfer = None
        if transfer is None:
            if newest is None or newest.index < max(least_index, self._journal.first_index):
                self.build()
                return
            transfer = self._transfers[node_id] = _Transfer(newest, moved_at_ms=now_ms)
        transfer.go_back(now_ms)
        self._send_pieces(node_id, transfer)

    def _send_pieces(self, node_id: str, transfer: _Transfer) -> None:
        """Send the next pieces: one at a time is read away from the loop, a few travel ahead of their acknowledgement."""
        ahead = transfer.sent - transfer.acknowledged
        if transfer.reading or transfer.sent >= transfer.meta.bytes or ahead >= PIECES_AHEAD * PIECE_BYTES:
            return
        transfer.reading = True
        meta, offset = transfer.meta, transfer.sent

        def read() -> bytes:
            return files.read_piece(self._disk, self._directory, meta, offset, PIECE_BYTES)

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

        self._run(read, done)

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
        transfer.go_back(now_ms)
        self._send_pieces(peer.node_id, transfer)

    def _on_want(self, peer: Peer, message: dict[str, Any]) -> None:
        """Give a follower the snapshot that it asks for because its contents differ from the leader's."""
        progress = self._peers.progress.get(peer.node_id)
        if self._core.is_leader and progress is not None and self._membership.is_member(peer):
            progress.need_snapshot(max(1, guards.natural(message, "from")))

    # Receiving --------------------------------------------------------------------------------------------------------

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
        if index <= core.commit_index and not self._divergence.diverged:
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
            try:
                receiver = self._receiver = SnapshotReceiver(self._disk, self._directory, index, snapshot_term, size)
            except OSError as error:
                logger.error("there is no room for the leader's snapshot: %s", error)
                return
        if offset != receiver.received:
            self._acknowledge(node_id, index, receiver.received, refused=True)
            return
        receiver.received = offset + len(data)
        self._loading = receiver.received >= receiver.total_bytes
        self._receive(node_id, receiver, offset, data)

    def _abandon(self) -> None:
        receiver, self._receiver = self._receiver, None
        if receiver is not None:
            self._run(receiver.abandon, lambda _: None)

    def _receive(self, node_id: str, receiver: SnapshotReceiver, offset: int, data: bytes) -> None:
        end = offset + len(data)

        def work() -> tuple[SnapshotMeta, CacheMachine] | None:
            receiver.write(offset, data)
            if end < receiver.total_bytes:
                return None
            meta = receiver.finish()
            return meta, CacheMachine.restore(files.chunks_of(self._disk, self._directory, meta))

        def done(outcome: tuple[SnapshotMeta, CacheMachine] | BaseException | None) -> None:
            if isinstance(outcome, BaseException):
                logger.error("the leader's snapshot at %d is not taken: %s", receiver.index, outcome)
                self._loading = False
                if self._receiver is receiver:
                    self._abandon()
                return
            installed = False
            if outcome is not None:
                self._receiver = None
                self._loading = False
                installed = self._install(*outcome)
            self._acknowledge(node_id, receiver.index, end, done=installed)

        self._run(work, done)

    def _install(self, meta: SnapshotMeta, machine: CacheMachine) -> bool:
        """Put a snapshot's machine in place; return True if all entries that the snapshot covers are here afterwards."""
        if meta.index <= self._core.last_applied and not self._divergence.diverged:
            return True
        if meta.index < self._journal.first_index:
            return False
        self._journal.install(meta.index, meta.term)
        self._newest = meta
        self._held_back_bytes = 0
        self._build_is_void = self._building
        self._restart_from(machine)
        self._divergence.end()
        self._remove_older()
        logger.info("took over the leader's snapshot at %d", meta.index)
        return True

    def _acknowledge(self, node_id: str, index: int, offset: int, *, done: bool = False, refused: bool = False) -> None:
        """Acknowledge a piece once the journal is durable.

        offset: how many bytes of the snapshot are here.  refused: the piece that came does not follow them.
        """
        message: SnapshotAck = {
            "type": "snapshot_ack",
            "term": self._core.term,
            "index": index,
            "offset": offset,
            "done": done,
            "refused": refused,
        }
        self._links.hold(lambda: self._links.send(node_id, message))


class HelperProcess:
    """A Builder that starts a process for each snapshot, so that building costs the node neither time nor memory."""

    def __init__(self, directory: Path, supervisor: Tasks) -> None:
        self._directory = directory
        self._supervisor = supervisor

    def __call__(self, index: int, done: Callable[[SnapshotMeta | BaseException], None]) -> None:
        """Start the helper; ``done`` is called on the loop, once, whatever becomes of it."""
        self._supervisor.start("the snapshot helper", lambda: self._run(index, done))

    async def _run(self, index: int, done: Callable[[SnapshotMeta | BaseException], None]) -> None:
        try:
            outcome: SnapshotMeta | BaseException = await self._build(index)
        except Exception as error:
            outcome = error
        try:
            done(outcome)
        except Exception:  # it must not start the helper again
            logger.exception("what the snapshot helper has built could not be taken")

    async def _build(self, index: int) -> SnapshotMeta:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "cacheflow.raft.snapshots.files",
            str(self._directory),
            str(index),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            output, complaint = await process.communicate()
        except asyncio.CancelledError:
            process.kill()
            await process.wait()
            raise
        if process.returncode:
            lines = complaint.decode(errors="replace").strip().splitlines()
            raise RuntimeError(lines[-1] if lines else f"the helper ended with {process.returncode}")
        return SnapshotMeta.of(json.loads(output))
