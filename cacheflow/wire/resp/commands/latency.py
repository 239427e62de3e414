"""The command LATENCY: how long the answers to each command took, as Redis' tools read it. Redis' events are not recorded."""

from __future__ import annotations

import functools
from typing import Any, Final

from cacheflow.wire.resp.command_stats import CommandStats, command_stats
from cacheflow.wire.resp.commands.clients import subcommand
from cacheflow.wire.resp.replies import Status, encode
from cacheflow.wire.resp.session import Arguments, Local, RespSession, Spec

_HELP: Final = (
    "LATENCY <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    "HISTOGRAM [<command> ...]",
    "    Return how many calls of each command were answered within so many microseconds.",
    "HELP",
    "    Print this help.",
)


def _histogram(session: RespSession, arguments: Arguments) -> bytes:
    stats = command_stats(session.service.times, session.service.commands_before)
    names = [name.decode("utf-8", "replace").lower() for name in arguments[2:]] or list(stats)
    return encode(session.protocol, {name: _shown(stats[name]) for name in names if name in stats})


def _shown(stats: CommandStats) -> dict[str, Any]:
    """Return one command's calls by the bounds of their durations in microseconds, each with all shorter ones."""
    within: dict[Any, int] = {}
    calls = 0
    for exponent, count in enumerate(stats.counts):
        calls += count
        if count:
            within[1 << exponent] = calls
    return {"calls": calls, "histogram_usec": within}


_LATENCY: Final[dict[bytes, tuple[int, Local]]] = {
    b"HELP": (2, lambda session, _: encode(session.protocol, list(map(Status, _HELP)))),
    b"HISTOGRAM": (-2, _histogram),
}

SPECS: Final = (
    Spec(
        "latency",
        -2,
        "Shows how long the answers to commands took.",
        group="server",
        flags=("admin", "noscript", "loading", "stale"),
        local=functools.partial(subcommand, _LATENCY),
    ),
)
