"""Calls that are large beside the limits, which are small in a simulation: their answers stay bounded."""

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


class Bulk:
    """Batches that read one value many times."""

    def __init__(self, workload: Workload) -> None:
        self._cluster = workload.cluster

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
