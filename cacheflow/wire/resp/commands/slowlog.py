"""The command SLOWLOG: the node's latest slow requests, in the shape of Redis' replies.

In the place of a request's words stands what is kept of it: the command, the length of its key, its front and its outcome.
"""

from __future__ import annotations

import functools
from typing import Final

from cacheflow.measuring.slow_log import SlowRequest
from cacheflow.wire.resp.arguments import integer_of
from cacheflow.wire.resp.commands.clients import subcommand
from cacheflow.wire.resp.replies import OK, CommandError, Status, encode, integer
from cacheflow.wire.resp.session import Arguments, Local, RespSession, Spec, wrong_arity

# The requests that SLOWLOG GET shows without a number.
_SHOWN: Final = 10
_BAD_COUNT: Final = "ERR count should be greater than or equal to -1"
_HELP: Final = (
    "SLOWLOG <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    "GET [<count>]",
    "    Return the newest <count> slow requests of this node (default: 10, -1: all), over all of its ports.",
    "LEN",
    "    Return how many are kept.",
    "RESET",
    "    Forget all of them.",
    "HELP",
    "    Print this help.",
)


def _get(session: RespSession, arguments: Arguments) -> bytes:
    if len(arguments) > 3:
        raise CommandError(wrong_arity("slowlog|get"))
    count = integer_of(arguments[2]) if len(arguments) == 3 else _SHOWN
    if count < -1:
        raise CommandError(_BAD_COUNT)
    latest = session.store.slow_log.latest(None if count == -1 else count)
    return encode(session.protocol, [_shown(each) for each in latest])


def _shown(each: SlowRequest) -> list[object]:
    words = [each.command]
    if each.key_bytes is not None:
        words.append(f"(key of {each.key_bytes} bytes)")
    if each.requests > 1:
        words.append(f"(one of {each.requests})")
    return [
        each.number,
        int(each.at_s),
        round(each.seconds * 1_000_000),
        [*words, each.front, each.outcome],
        each.client,
        "",
    ]


def _reset(session: RespSession, arguments: Arguments) -> bytes:
    session.store.slow_log.clear()
    return OK


_SLOWLOG: Final[dict[bytes, tuple[int, Local]]] = {
    b"GET": (-2, _get),
    b"HELP": (2, lambda session, _: encode(session.protocol, list(map(Status, _HELP)))),
    b"LEN": (2, lambda session, _: integer(len(session.store.slow_log))),
    b"RESET": (2, _reset),
}

SPECS: Final = (
    Spec(
        "slowlog",
        -2,
        "Shows the requests that took long lately.",
        group="server",
        flags=("admin", "noscript", "loading", "stale"),
        local=functools.partial(subcommand, _SLOWLOG),
    ),
)
