"""The command COMMAND: it tells clients which commands there are and which of their words are keys."""

from __future__ import annotations

import functools
from typing import Any, Final

from cacheflow.wire.resp.arguments import SYNTAX
from cacheflow.wire.resp.commands.clients import subcommand
from cacheflow.wire.resp.glob import PATTERN_BYTES_MAX, matcher
from cacheflow.wire.resp.replies import CommandError, Status, array, bulks, encode, integer
from cacheflow.wire.resp.session import Arguments, Local, RespSession, Spec
from cacheflow.wire.streams import Reply

# The category of Redis' ACL for each group of commands.
_CATEGORIES: Final = {
    "string": "@string",
    "hash": "@hash",
    "set": "@set",
    "generic": "@keyspace",
    "connection": "@connection",
    "transactions": "@transaction",
    "pubsub": "@pubsub",
}
_DANGEROUS: Final = frozenset(("config", "flushall", "flushdb", "info", "keys"))


def _categories(spec: Spec) -> set[str]:
    """Return the categories of Redis' ACL to which a command belongs, such as ``@read``."""
    found = {"@fast" if "fast" in spec.flags else "@slow"}
    found |= {category for flag, category in (("readonly", "@read"), ("write", "@write")) if flag in spec.flags}
    if spec.name in _DANGEROUS:
        found.add("@dangerous")
    if spec.group in _CATEGORIES:
        found.add(_CATEGORIES[spec.group])
    elif spec.reads_keys:
        found.add("@keyspace")
    return found


def _details(spec: Spec) -> list[Any]:
    # Where they are counted their positions are only known of a request.
    first, last, step = (0, 0, 0) if spec.counted else spec.keys
    flags = {Status(flag) for flag in (*spec.flags, *(("movablekeys",) if spec.counted else ()))}
    categories = {Status(category) for category in _categories(spec)}
    return [spec.name, spec.arity, flags, first, last, step, categories, [], [], []]


def _info(session: RespSession, arguments: Arguments) -> bytes:
    table = session.service.table
    names = arguments[2:] or list(table)
    found = [table.get(name.lower()) for name in names]
    return array(
        [
            session.null_array if spec is None else encode(session.protocol, _details(spec))
            for spec in found
        ]
    )  # fmt: skip


def _docs(session: RespSession, arguments: Arguments) -> bytes:
    table = session.service.table
    names = [name.lower() for name in arguments[2:]] or list(table)
    docs = {
        spec.name: {"summary": spec.summary, "since": "0.1.0", "group": spec.group}
        for name in names
        if (spec := table.get(name)) is not None
    }
    return encode(session.protocol, docs)


def _list(session: RespSession, arguments: Arguments) -> bytes:
    table = session.service.table
    options = arguments[2:]
    if not options:
        return bulks(list(table))
    if len(options) != 3 or options[0].upper() != b"FILTERBY":
        raise CommandError(SYNTAX)
    kind, value = options[1].upper(), options[2]
    if kind == b"PATTERN":
        if len(value) > PATTERN_BYTES_MAX:
            raise CommandError(f"ERR a pattern has at most {PATTERN_BYTES_MAX} bytes")
        matches = matcher(value.lower())
        return bulks([name for name in table if matches(name)])
    if kind == b"ACLCAT":
        category = "@" + value.decode("utf-8", "replace").lower()
        return bulks([name for name, spec in table.items() if category in _categories(spec)])
    if kind == b"MODULE":
        return bulks([])
    raise CommandError(SYNTAX)


def _get_keys(session: RespSession, arguments: Arguments) -> bytes:
    words = arguments[2:]
    spec = session.service.table.get(words[0].lower())
    if spec is None:
        raise CommandError("ERR Invalid command specified")
    if not spec.keys[0]:
        raise CommandError("ERR The command has no key arguments")
    if not spec.takes(len(words)):
        raise CommandError("ERR Invalid number of arguments specified for command")
    found = spec.keys_in(words)
    if not found:
        raise CommandError("ERR Invalid arguments specified for command")
    return bulks(found)


_COMMAND: Final[dict[bytes, tuple[int, Local]]] = {
    b"COUNT": (2, lambda session, _: integer(len(session.service.table))),
    b"DOCS": (-2, _docs),
    b"GETKEYS": (-4, _get_keys),
    b"INFO": (-2, _info),
    b"LIST": (-2, _list),
}


def command(session: RespSession, arguments: Arguments) -> Reply:
    return subcommand(_COMMAND, session, arguments) if len(arguments) > 1 else _info(session, arguments)


_local = functools.partial(Spec, group="server", flags=("loading", "stale"))

SPECS: Final = (_local("command", -1, "Tells about the commands.", local=command),)
