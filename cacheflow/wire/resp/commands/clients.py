"""The command CLIENT: it names and lists connections, and chooses whether a connection's reads are linearizable."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Final

from cacheflow.wire.resp.arguments import SYNTAX, integer_of
from cacheflow.wire.resp.replies import OK, CommandError, bulk, integer, text
from cacheflow.wire.resp.session import Arguments, Local, RespSession, Spec, wrong_arity
from cacheflow.wire.streams import Reply, Stream

_NAME_CHARS = frozenset(range(ord("!"), ord("~") + 1))
_LEVELS: Final = {b"LOCAL": False, b"LINEARIZABLE": True}


def set_name(session: RespSession, name: bytes) -> None:
    """Give this Redis client's connection the name ``name``, which CLIENT LIST shows.

    Raises CommandError for a name with forbidden bytes.
    """
    if not _NAME_CHARS.issuperset(name):
        raise CommandError("ERR Client names cannot contain spaces, newlines or special characters.")
    session.name = name.decode()


def _setname(session: RespSession, arguments: Arguments) -> bytes:
    set_name(session, arguments[2])
    return OK


def _setinfo(session: RespSession, arguments: Arguments) -> bytes:
    option = arguments[2].lower()
    if option not in (b"lib-name", b"lib-ver"):
        raise CommandError(b"ERR Unrecognized option '%b'" % arguments[2])
    if not _NAME_CHARS.issuperset(arguments[3]):
        raise CommandError(f"ERR {option.decode()} cannot contain spaces, newlines or special characters.")
    session.library[option.decode()] = arguments[3].decode()
    return OK


def _list(session: RespSession, arguments: Arguments) -> Reply:
    chosen = list(session.service.connections.values())
    options = arguments[2:]
    if len(options) > 1 and options[0].upper() == b"ID":
        ids = {integer_of(raw, "ERR Invalid client ID") for raw in options[1:]}
        chosen = [each for each in chosen if each.id in ids]
    elif len(options) == 2 and options[0].upper() == b"TYPE":
        kind = options[1].lower()
        if kind not in (b"normal", b"master", b"replica", b"slave", b"pubsub"):
            raise CommandError(b"ERR Unknown client type '%b'" % options[1])
        chosen = chosen if kind == b"normal" else []
    elif options:
        raise CommandError(SYNTAX)

    def listed() -> Iterator[bytes]:
        lines = []
        for each in chosen:
            lines.append(f"{each.describe()}\n")
            yield b""
        yield text(session.protocol, "".join(lines))

    return Stream(listed())


def _switch(session: RespSession, arguments: Arguments) -> bytes:
    """Answer CLIENT NO-EVICT and NO-TOUCH, without effect: connections are not evicted, and their reads count as uses."""
    if arguments[2].lower() not in (b"on", b"off"):
        raise CommandError(SYNTAX)
    return OK


def _consistency(session: RespSession, arguments: Arguments) -> bytes:
    level = arguments[2].upper()
    if level not in _LEVELS:
        raise CommandError("ERR CLIENT CONSISTENCY is LOCAL or LINEARIZABLE")
    session.linearizable = _LEVELS[level]
    return OK


_SUBCOMMANDS: Final[dict[bytes, tuple[int, Local]]] = {
    b"CONSISTENCY": (3, _consistency),
    b"GETNAME": (2, lambda session, _: bulk(session.name.encode()) if session.name else session.null),
    b"ID": (2, lambda session, _: integer(session.id)),
    b"INFO": (2, lambda session, _: text(session.protocol, f"{session.describe()}\n")),
    b"LIST": (-2, _list),
    b"NO-EVICT": (3, _switch),
    b"NO-TOUCH": (3, _switch),
    b"SETINFO": (4, _setinfo),
    b"SETNAME": (3, _setname),
}


def subcommand(
    subcommands: dict[bytes, tuple[int, Local]],
    session: RespSession,
    arguments: Arguments,
) -> Reply:
    """Return the reply of the subcommand that a RESP request names, such as CLIENT LIST.

    Raises CommandError when it is unknown or has a wrong number of words.
    subcommands: by name, the number of words (negative: at least so many) and the function that makes the reply.
    """
    name, chosen = arguments[0], arguments[1]
    arity, answer = subcommands.get(chosen.upper(), (0, None))
    if answer is None:
        raise CommandError(b"ERR unknown subcommand '%b'. Try %b HELP." % (chosen[:128], name.upper()))
    if len(arguments) != arity if arity > 0 else len(arguments) < -arity:
        raise CommandError(wrong_arity(f"{name.decode().lower()}|{chosen.decode().lower()}"))
    return answer(session, arguments)


def _reads(linearizable: bool) -> Local:
    def answer(session: RespSession, arguments: Arguments) -> bytes:
        session.linearizable = linearizable
        return OK

    return answer


_spec = functools.partial(Spec, group="connection", flags=("loading", "stale", "fast"))

SPECS: Final = (
    _spec(
        "client",
        -2,
        "Names connections, lists them, and sets how their reads look.",
        local=functools.partial(subcommand, _SUBCOMMANDS),
    ),
    _spec("readonly", 1, "Reads of this connection come from this node's memory.", local=_reads(linearizable=False)),
    _spec(
        "readwrite",
        1,
        "Reads of this connection see everything acknowledged before them.",
        local=_reads(linearizable=True),
    ),
)
