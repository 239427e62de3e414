"""The commands on the node: PING, TIME, WAIT, FLUSHALL and the like."""

from __future__ import annotations

import functools
from typing import Final

from cacheflow.machine.language import commands as c
from cacheflow.wire.resp.arguments import SYNTAX, database_in, integer_of
from cacheflow.wire.resp.commands.strings import if_all_succeed
from cacheflow.wire.resp.replies import OK, CommandError, bulk, bulks, integer
from cacheflow.wire.resp.session import Arguments, Find, Plan, RespSession, Spec, wrong_arity


def ping(session: RespSession, arguments: Arguments) -> bytes:
    if len(arguments) > 2:
        raise CommandError(wrong_arity("ping"))
    return bulk(arguments[1]) if len(arguments) == 2 else b"+PONG\r\n"


def time_(session: RespSession, arguments: Arguments) -> bytes:
    microseconds = int(session.service.wall() * 1_000_000)
    return bulks([b"%d" % (microseconds // 1_000_000), b"%d" % (microseconds % 1_000_000)])


def wait(session: RespSession, find: Find, arguments: Arguments) -> bytes:
    """Answer the Redis command WAIT with half the number of voters, rounded down.

    A write that was answered is in the log of at least so many nodes beside the leader.
    """
    integer_of(arguments[1])
    if integer_of(arguments[2], "ERR timeout is not an integer or out of range") < 0:
        raise CommandError("ERR timeout is negative")
    return integer(int(session.service.store.metrics().get("voters", 1)) // 2)


def flushall(session: RespSession, find: Find, arguments: Arguments) -> Plan:
    _check_flush(arguments)
    return [c.clear_all()], if_all_succeed(OK)


def flushdb(session: RespSession, find: Find, arguments: Arguments) -> Plan:
    _check_flush(arguments)
    return [c.clear_database(database_in(arguments))], if_all_succeed(OK)


def _check_flush(arguments: Arguments) -> None:
    if len(arguments) > 2 or (len(arguments) == 2 and arguments[1].upper() not in (b"ASYNC", b"SYNC")):
        raise CommandError(SYNTAX)


_local = functools.partial(Spec, group="server", flags=("loading", "stale", "fast"))
_flush = functools.partial(Spec, group="server", flags=("write",))

SPECS: Final = (
    _local("ping", -1, "Answers PONG.", group="connection", local=ping),
    _local(
        "echo", 2, "Answers what it is given.", group="connection", local=lambda session, arguments: bulk(arguments[1])
    ),
    _local("time", 1, "Returns this node's wall clock.", local=time_),
    Spec(
        "wait",
        3,
        "Returns how many other nodes have what was written.",
        group="generic",
        flags=("noscript",),
        read=wait,
    ),
    _flush("flushdb", -1, "Removes all keys of the database.", plan=flushdb),
    _flush("flushall", -1, "Removes all keys of all databases.", plan=flushall),
)
