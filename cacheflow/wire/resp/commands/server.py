"""The commands on the node: PING, INFO, COMMAND, CONFIG GET and the like."""

from __future__ import annotations

import functools
from typing import Any, Final

from cacheflow.machine.language import commands as c
from cacheflow.wire.resp.arguments import NOT_AN_INTEGER, SYNTAX, integer_of
from cacheflow.wire.resp.commands.clients import subcommand
from cacheflow.wire.resp.commands.strings import if_all_succeed
from cacheflow.wire.resp.glob import PATTERN_BYTES_MAX, matcher
from cacheflow.wire.resp.replies import OK, CommandError, Status, array, bulk, bulks, encode, integer, text
from cacheflow.wire.resp.session import Arguments, Find, Local, Plan, RespSession, Spec, wrong_arity
from cacheflow.wire.streams import Reply

# The release of Redis whose commands and answers these are.
REDIS_VERSION: Final = "7.0.15"


def ping(session: RespSession, arguments: Arguments) -> bytes:
    if len(arguments) > 2:
        raise CommandError(wrong_arity("ping"))
    return bulk(arguments[1]) if len(arguments) == 2 else b"+PONG\r\n"


def select(session: RespSession, arguments: Arguments) -> bytes:
    if integer_of(arguments[1], NOT_AN_INTEGER) != 0:
        raise CommandError("ERR DB index is out of range")
    return OK


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


def flush(session: RespSession, find: Find, arguments: Arguments) -> Plan:
    if len(arguments) > 2 or (len(arguments) == 2 and arguments[1].upper() not in (b"ASYNC", b"SYNC")):
        raise CommandError(SYNTAX)
    return [c.delete_prefix("")], if_all_succeed(OK)


# INFO ---------------------------------------------------------------------------------------------------------------


def _sections(session: RespSession) -> dict[str, dict[str, object]]:
    service = session.service
    metrics = service.store.metrics()

    def whole(name: str) -> int:
        return int(metrics.get(name, 0))

    uptime_s = int(service.wall() - service.started_at)
    return {
        "Server": {
            "redis_version": REDIS_VERSION,
            "redis_mode": "standalone",
            "server_name": "cacheflow",
            "run_id": service.run_id,
            "uptime_in_seconds": uptime_s,
            "uptime_in_days": uptime_s // 86400,
        },
        "Clients": {"connected_clients": len(service.connections)},
        "Memory": {"used_memory": whole("bytes"), "maxmemory": whole("max_bytes")},
        "Stats": {
            "total_connections_received": service.accepted,
            "expired_keys": whole("expired_total"),
            "evicted_keys": whole("evicted_total"),
            "keyspace_hits": whole("hits_total"),
            "keyspace_misses": whole("misses_total"),
        },
        # Every node is a master to clients: all take writes.
        "Replication": {
            "role": "master",
            "raft_role": "leader" if whole("is_leader") else "follower",
            "raft_has_leader": whole("has_leader"),
            "raft_term": whole("term"),
            "raft_applied_index": whole("applied_index"),
            "raft_members": whole("members"),
            "raft_voters": whole("voters"),
        },
        "Keyspace": {"db0": f"keys={whole('items')}"} if whole("items") else {},
    }


def info(session: RespSession, arguments: Arguments) -> bytes:
    wanted = {argument.decode("utf-8", "replace").lower() for argument in arguments[1:]}
    everything = not wanted or not wanted.isdisjoint({"all", "default", "everything"})
    shown = [
        "\r\n".join([f"# {title}", *[f"{name}:{value}" for name, value in lines.items()], ""])
        for title, lines in _sections(session).items()
        if everything or title.lower() in wanted
    ]
    return text(session.protocol, "\r\n".join(shown))


# CONFIG -------------------------------------------------------------------------------------------------------------


def _config_get(session: RespSession, arguments: Arguments) -> bytes:
    service = session.service
    settings = {
        "appendonly": "yes",
        "databases": "1",
        "maxmemory": str(int(service.store.metrics().get("max_bytes", 0))),
        "proto-max-bulk-len": str(service.value_bytes_max),
        "save": "",
        "timeout": "0",
    }
    chosen: dict[str, str] = {}
    for pattern in arguments[2:]:
        if len(pattern) <= PATTERN_BYTES_MAX:
            matches = matcher(pattern.lower())
            chosen.update({name: value for name, value in settings.items() if matches(name.encode())})
    return encode(session.protocol, chosen)


_CONFIG: Final[dict[bytes, tuple[int, Local]]] = {b"GET": (-3, _config_get)}


# COMMAND ------------------------------------------------------------------------------------------------------------


def _details(spec: Spec) -> list[Any]:
    first, last, step = spec.keys
    flags = {Status(flag) for flag in spec.flags}
    return [spec.name, spec.arity, flags, first, last, step, set(), [], [], []]


def _command_info(session: RespSession, arguments: Arguments) -> bytes:
    table = session.service.table
    names = arguments[2:] or list(table)
    found = [table.get(name.lower()) for name in names]
    return array(
        [
            session.null_array if spec is None else encode(session.protocol, _details(spec))
            for spec in found
        ]
    )  # fmt: skip


def _command_docs(session: RespSession, arguments: Arguments) -> bytes:
    table = session.service.table
    names = [name.lower() for name in arguments[2:]] or list(table)
    docs = {
        spec.name: {"summary": spec.summary, "since": "0.1.0", "group": spec.group}
        for name in names
        if (spec := table.get(name)) is not None
    }
    return encode(session.protocol, docs)


_COMMAND: Final[dict[bytes, tuple[int, Local]]] = {
    b"COUNT": (2, lambda session, _: integer(len(session.service.table))),
    b"DOCS": (-2, _command_docs),
    b"INFO": (-2, _command_info),
    b"LIST": (2, lambda session, _: bulks(list(session.service.table))),
}


def command(session: RespSession, arguments: Arguments) -> Reply:
    return subcommand(_COMMAND, session, arguments) if len(arguments) > 1 else _command_info(session, arguments)


_local = functools.partial(Spec, group="server", flags=("loading", "stale", "fast"))
_flush = functools.partial(Spec, group="server", flags=("write",), plan=flush)

SPECS: Final = (
    _local("ping", -1, "Answers PONG.", group="connection", local=ping),
    _local(
        "echo", 2, "Answers what it is given.", group="connection", local=lambda session, arguments: bulk(arguments[1])
    ),
    _local("select", 2, "Chooses database 0, the only one.", group="connection", local=select),
    _local("time", 1, "Returns this node's wall clock.", local=time_),
    _local("info", -1, "Tells about the node.", local=info),
    _local("config", -2, "Tells settings.", local=functools.partial(subcommand, _CONFIG)),
    _local("command", -1, "Tells about the commands.", local=command),
    Spec("wait", 3, "Returns how many other nodes have what was written.", group="generic", read=wait),
    _flush("flushdb", -1, "Removes all keys."),
    _flush("flushall", -1, "Removes all keys."),
)
