"""What INFO and LATENCY tell of each Redis command: how often it was called since CONFIG RESETSTAT, and how long that took."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from cacheflow.measuring.request_times import ERROR, REFUSED, RequestTimes


class CommandStats(NamedTuple):
    """One command's calls at a node's RESP port.

    counts: the calls by how long their answers took, as in a Histogram.  seconds: all of them together.
    refused: the calls that were wrong.  failed: the calls that the node could not carry out.
    """

    counts: list[int]
    seconds: float
    refused: int
    failed: int

    @property
    def calls(self) -> int:
        """The number of all calls."""
        return sum(self.counts)


def command_stats(times: RequestTimes, before: Mapping[str, CommandStats]) -> dict[str, CommandStats]:
    """Return the statistics, by name, of all commands that were called since these were ``before``; empty: since the start."""
    found: dict[str, CommandStats] = {}
    for command, now in _since_start(times).items():
        earlier = before.get(command)
        stats = now if earlier is None else _difference(now, earlier)
        if stats.calls:
            found[command] = stats
    return found


def _since_start(times: RequestTimes) -> dict[str, CommandStats]:
    return {
        command: CommandStats(
            [sum(counts) for counts in zip(*[each.counts for each in outcomes.values()], strict=True)],
            sum([each.sum_s for each in outcomes.values()]),
            outcomes[REFUSED].count if REFUSED in outcomes else 0,
            outcomes[ERROR].count if ERROR in outcomes else 0,
        )
        for command, outcomes in times.by_command().items()
    }


def _difference(now: CommandStats, before: CommandStats) -> CommandStats:
    return CommandStats(
        [after - earlier for after, earlier in zip(now.counts, before.counts, strict=True)],
        now.seconds - before.seconds,
        now.refused - before.refused,
        now.failed - before.failed,
    )
