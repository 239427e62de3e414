"""The command CLIENT: it names and lists connections, and chooses whether a connection's reads are linearizable."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Final, TypeVar

from cacheflow.access.roles import DEFAULT_NAME, Role
from cacheflow.wire.resp.arguments import SYNTAX, integer_of
from cacheflow.wire.resp.commands import tracking
from cacheflow.wire.resp.replies import OK, CommandError, bulk, integer, said_in_pieces, text
from cacheflow.wire.resp.session import Arguments, Local, RespSession, Spec, no_permission, wrong_arity
from cacheflow.wire.streams import Reply, Stream

_NO_CLIENT_ID: Final = "ERR client-id should be greater than 0"
Answer = TypeVar("Answer")
# A function that says whether a client's connection is one that is asked for.
Test = Callable[[RespSession], bool]

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
        chosen = list(filter(_is_of_type(options[1]), chosen))
    elif options:
        raise CommandError(SYNTAX)

    def listed() -> Iterator[bytes]:
        lines = []
        for each in chosen:
            lines.append(f"{each.describe()}\n")
            yield b""
        yield text(session.protocol, "".join(lines))

    return Stream(listed())


def _kill(session: RespSession, arguments: Arguments) -> Reply:
    options = arguments[2:]
    if len(options) == 1:
        address = _text(options[0])
        return _ended(session, [lambda each: each.address == address], "ERR No such client")
    if len(options) % 2:
        raise CommandError(SYNTAX)
    tests: list[Test] = []
    spares_itself = True
    for raw, value in zip(options[::2], options[1::2], strict=True):
        option, word = raw.upper(), _text(value)
        if option == b"ID":
            number = integer_of(value, _NO_CLIENT_ID)
            if number < 1:
                raise CommandError(_NO_CLIENT_ID)
            tests.append(lambda each, number=number: each.id == number)  # type: ignore[misc]
        elif option == b"ADDR":
            tests.append(lambda each, word=word: each.address == word)  # type: ignore[misc]
        elif option == b"LADDR":
            tests.append(lambda each, word=word: each.own_address == word)  # type: ignore[misc]
        elif option == b"TYPE":
            tests.append(_is_of_type(value))
        elif option == b"USER":
            access = session.service.access
            if word != DEFAULT_NAME and (access is None or not access.has_user(word)):
                raise CommandError(b"ERR No such user '%b'" % value[:128])
            tests.append(lambda each, word=word: each.user_name == word)  # type: ignore[misc]
        elif option == b"SKIPME" and word.lower() in ("yes", "no"):
            spares_itself = word.lower() == "yes"
        else:
            raise CommandError(SYNTAX)
    if spares_itself:
        tests.append(lambda each: each is not session)
    return _ended(session, tests)


def _ended(session: RespSession, tests: list[Test], if_none: str | None = None) -> Reply:
    """Return a reply to CLIENT KILL that, while it is sent, closes all connections that pass ``tests``, and tells how many.

    tests: functions of a connection; it passes if all return true.
    if_none: the error to reply if no connection passes; where it is given, success is answered with OK and no number.
    The connection of the client who asks is closed only when that client has the answer.
    """

    itself = all(test(session) for test in tests)
    if itself:
        session.close()

    def pieces() -> Iterator[bytes]:
        count = int(itself)
        for each in list(session.service.connections.values()):
            if each is not session and all(test(each) for test in tests):
                count += 1
                each.abort()
            yield b""
        if if_none is not None and not count:
            raise CommandError(if_none)
        yield integer(count) if if_none is None else OK

    return Stream(said_in_pieces(pieces()))


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")


def _is_of_type(kind: bytes) -> Test:
    """Return a function that says whether a client is of the type ``kind``, as in CLIENT KILL TYPE.

    The type ``pubsub`` has subscriptions, ``normal`` has none. Raises CommandError if Redis has no such type.
    """
    if kind.lower() not in (b"normal", b"master", b"replica", b"slave", b"pubsub"):
        raise CommandError(b"ERR Unknown client type '%b'" % kind[:128])
    has_subscribed = {b"normal": False, b"pubsub": True}.get(kind.lower())
    return lambda each: each.has_subscribed is has_subscribed


def _switch(session: RespSession, arguments: Arguments) -> bytes:
    """Answer CLIENT NO-EVICT and NO-TOUCH without any effect: no connection is ever evicted, all reads count as uses."""
    if arguments[2].lower() not in (b"on", b"off"):
        raise CommandError(SYNTAX)
    return OK


def _consistency(session: RespSession, arguments: Arguments) -> bytes:
    level = arguments[2].upper()
    if level not in _LEVELS:
        raise CommandError("ERR CLIENT CONSISTENCY is LOCAL or LINEARIZABLE")
    session.linearizable = _LEVELS[level]
    return OK


def for_admins(name: str, answer: Local) -> Local:
    """Return a function that answers a Redis subcommand by calling ``answer`` for admins, and refuses all other clients.

    name: the subcommand's name, for the text of the refusal.
    """

    def checked(session: RespSession, arguments: Arguments) -> Reply:
        if session.role < Role.ADMIN:
            raise no_permission(session, name, Role.ADMIN)
        return answer(session, arguments)

    return checked


_SUBCOMMANDS: Final[dict[bytes, tuple[int, Local]]] = {
    b"CACHING": (3, tracking.caching),
    b"CONSISTENCY": (3, _consistency),
    b"GETNAME": (2, lambda session, _: bulk(session.name.encode()) if session.name else session.null),
    b"GETREDIR": (2, tracking.get_redirect),
    b"ID": (2, lambda session, _: integer(session.id)),
    b"INFO": (2, lambda session, _: text(session.protocol, f"{session.describe()}\n")),
    b"KILL": (-3, for_admins("client|kill", _kill)),
    b"LIST": (-2, for_admins("client|list", _list)),
    b"NO-EVICT": (3, _switch),
    b"NO-TOUCH": (3, _switch),
    b"SETINFO": (4, _setinfo),
    b"SETNAME": (3, _setname),
    b"TRACKING": (-3, tracking.tracking),
    b"TRACKINGINFO": (2, tracking.tracking_info),
}


def chosen(subcommands: dict[bytes, tuple[int, Answer]], session: RespSession, arguments: Arguments) -> Answer:
    """Return the function that answers the subcommand that a RESP request names, such as CLIENT LIST.

    Raises CommandError when the subcommand is unknown or the request has a wrong number of words.
    subcommands: name -> (the number of words that a request has, negative for a minimum; the function that answers).
    """
    name, word = arguments[0], arguments[1]
    arity, answer = subcommands.get(word.upper(), (0, None))
    if answer is None:
        raise CommandError(b"ERR unknown subcommand '%b'. Try %b HELP." % (word[:128], name.upper()))
    if len(arguments) != arity if arity > 0 else len(arguments) < -arity:
        raise CommandError(wrong_arity(f"{name.decode().lower()}|{word.decode().lower()}"))
    session.called = b"%b|%b" % (name, word)
    return answer


def subcommand(subcommands: dict[bytes, tuple[int, Local]], session: RespSession, arguments: Arguments) -> Reply:
    """Return the reply to a request for a Redis subcommand, such as CLIENT ID, by the function in ``subcommands``.

    subcommands: name -> (the number of words that a request has, negative for a minimum; the function that answers).
    """
    return chosen(subcommands, session, arguments)(session, arguments)


def _reads(linearizable: bool) -> Local:
    def answer(session: RespSession, arguments: Arguments) -> bytes:
        session.linearizable = linearizable
        return OK

    return answer


_spec = functools.partial(Spec, group="connection", flags=("noscript", "loading", "stale", "fast"))

SPECS: Final = (
    _spec(
        "client",
        -2,
        "Names connections, lists and ends them, and sets how their reads look.",
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
