"""Calls that are large beside the limits, which are small in a simulation: their answers stay bounded, and all are answered."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cacheflow.machine.deciding import batches
from cacheflow.machine.language import commands
from cacheflow.machine.language.commands import Result
from cacheflow.values import BYTES

if TYPE_CHECKING:
    from simulation.clients import Client, Workload
    from simulation.cluster import Process

KEY = "bulk"
VALUE = bytes(400)
READS = 20
# The limits in a simulation: of what a batch reads, and of a snapshot's record.
READ_BYTES_MAX = 1000
RECORD_BYTES_MAX = 4000
# Those of what travels: of a call, of a block and an entry of several calls, of what catches up, and of a frame.
CALL_BYTES_MAX = 12 * 1024
BLOCK_BYTES_MAX = 4 * 1024
SENT_BYTES_MAX = CALL_BYTES_MAX + BLOCK_BYTES_MAX + 1024
BATCH_BYTES = PIECE_BYTES = 8 * 1024
FRAME_BYTES_MAX = 40 * 1024
SEND_AGAIN_BYTES_PER_S = 8 * 1024
# Those of a connection: of a piece, of what waits for a peer, and of what peers have sent in part.
PEER_PIECE_BYTES = 512
PEER_BACKLOG_BYTES_MAX = 8 * 1024
UNFINISHED_BYTES_MAX = 2 * FRAME_BYTES_MAX
# A batch that no frame takes, most of whose bytes are keys.
LONG_KEYS = [f"bulk{number:0996}" for number in range(45)]


class Bulk:
    """Batches that read one value many times, and batches that are larger than a frame."""

    def __init__(self, workload: Workload) -> None:
        self._cluster = workload.cluster
        self._random = workload.random

    def write(self, client: Client, process: Process) -> None:
        """Delete many keys that are not there: a plain batch is cut and answered, an atomic one is too large."""
        atomic = self._random.random() < 0.5
        batch = commands.batch([commands.delete(key) for key in LONG_KEYS], atomic=atomic)

        def told(results: list[Result]) -> None:
            if not atomic and results != [[commands.OK, [[commands.MISSING]] * len(LONG_KEYS)]]:
                self._cluster.checks.complain(f"large calls: a batch of absent keys is answered with {results}")

        statuses = (commands.TOO_LARGE,) if atomic else (commands.OK,)
        client.call(process, [batch], "deletes in bulk", told, statuses=statuses)

    def read(self, client: Client, process: Process) -> None:
        """Write a value and read it many times in one batch: the first reads are answered, the others are too large."""
        reads = [commands.get(KEY)] * READS

        def told(results: list[Result]) -> None:
            (_, (written, *read)) = results[0]
            if written[0] != commands.OK:
                return  # larger than the whole cache may be
            answered = sum(len(result[1]) for result in read if result[0] == commands.OK)
            if not 0 < answered <= batches.READ_PER_BATCH_BYTES_MAX:
                self._cluster.checks.complain(f"bounded answers: a batch has read {answered} bytes")

        client.call(process, [commands.batch([commands.set_(KEY, VALUE, BYTES), *reads])], "reads in bulk", told)
