"""The commands that change the connection itself: AUTH, HELLO, RESET, QUIT, and transactions (MULTI to UNWATCH)."""

from __future__ import annotations

import functools
from typing import Final

from cacheflow.access.roles import Role
from cacheflow.wire.resp.arguments import SYNTAX, database_named, integer_of, keys_of
from cacheflow.wire.resp.commands.clients import set_name
from cacheflow.wire.resp.commands.transaction import execute
from cacheflow.wire.resp.replies import OK, CommandError, encode
from cacheflow.wire.resp.session import Arguments, RespSession, Spec

# redis-py keeps a local cache only where HELLO tells of this release of Redis or a later one. The commands are those of
# the release in INFO.
HELLO_VERSION: Final = "7.4.0"
NO_PASSWORD: Final = (
    "ERR AUTH <password> called without any password configured for the default user. "
    "Are you sure your configuration is correct?"
)
WRONG_PASSWORD: Final = "WRONGPASS invalid username-password pair or user is disabled."
HELLO_FIRST: Final = (
    "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO <proto> AUTH <user> "
    "<pass> option can be used to authenticate the client and select the RESP protocol version at the same time"
)


def _let_in(connection: RespSession, user: bytes, password: bytes) -> None:
    service = connection.service
    found = None
    if service.access is None:
        # Redis' default user without a password takes any.
        if user != b"default":
            raise CommandError(WRONG_PASSWORD)
    elif (found := service.user_of(user, password)) is None:
        service.refused()
        # Nobody goes on as whoever was here before.
        connection.admit(None)
        raise CommandError(WRONG_PASSWORD)
    connection.admit(found)


def auth(connection: RespSession, arguments: Arguments) -> None:
    if len(arguments) > 3:
        raise CommandError(SYNTAX)
    if len(arguments) == 2 and connection.service.access is None:
        raise CommandError(NO_PASSWORD)
    _let_in(connection, arguments[1] if len(arguments) == 3 else b"default", arguments[-1])
    connection.reply(OK)


def hello(connection: RespSession, arguments: Arguments) -> None:
    connection.in_turn(lambda: _hello(connection, arguments))


def _hello(connection: RespSession, arguments: Arguments) -> bytes:
    protocol = connection.protocol
    if len(arguments) > 1:
        protocol = integer_of(arguments[1], "ERR Protocol version is not an integer or out of range")
        if protocol not in (2, 3):
            raise CommandError("NOPROTO unsupported protocol version")
    name = None
    options = iter(arguments[2:])
    for raw in options:
        option = raw.upper()
        if (
            option == b"AUTH"
            and (user := next(options, None)) is not None
            and (word := next(options, None)) is not None
        ):
            _let_in(connection, user, word)
        elif option == b"SETNAME" and (given := next(options, None)) is not None:
            name = given
        else:
            raise CommandError(b"ERR Syntax error in HELLO option '%b'" % raw)
    if connection.role == Role.NOBODY:
        connection.service.refused()
        raise CommandError(HELLO_FIRST)
    if name is not None:
        set_name(connection, name)
    # What waits for the client is in the protocol that it spoke so far.
    before = b"" if connection.mailbox is None else connection.mailbox.taken()
    connection.speak(protocol)
    about = {
        "server": "redis",
        "version": HELLO_VERSION,
        "proto": protocol,
        "id": connection.id,
        "mode": "standalone",
        "role": "master",
        "modules": [],
    }
    return before + encode(protocol, about)


def reset(connection: RespSession, arguments: Arguments) -> None:
    connection.forget_transaction()

    def answer() -> bytes:
        connection.forget_subscriptions()
        connection.speak(2)
        connection.name = ""
        connection.linearizable = False
        connection.use_database(0)
        connection.admit(None)
        return b"+RESET\r\n"

    connection.in_turn(answer)


def select(connection: RespSession, arguments: Arguments) -> None:
    # Earlier requests that are not answered yet know their database.
    connection.use_database(database_named(arguments[1]))
    connection.reply(OK)


# Transactions ---------------------------------------------------------------------------------------------------------


def multi(connection: RespSession, arguments: Arguments) -> None:
    if connection.queue is not None:
        raise CommandError("ERR MULTI calls can not be nested")
    connection.begin_transaction()
    connection.reply(OK)


def discard(connection: RespSession, arguments: Arguments) -> None:
    if connection.queue is None:
        raise CommandError("ERR DISCARD without MULTI")
    connection.forget_transaction()
    connection.reply(OK)


def exec_(connection: RespSession, arguments: Arguments) -> None:
    queue, watched, refused, selected = connection.queue, connection.watched, connection.refused, connection.selected
    if queue is None:
        raise CommandError("ERR EXEC without MULTI")
    connection.forget_transaction()
    if refused:
        raise CommandError("EXECABORT Transaction discarded because of previous errors.")
    execute(connection, queue, watched, selected)


def watch(connection: RespSession, arguments: Arguments) -> None:
    if connection.queue is not None:
        raise CommandError("ERR WATCH inside MULTI is not allowed")
    connection.watch(keys_of(arguments[1:]))


def unwatch(connection: RespSession, arguments: Arguments) -> None:
    connection.watched = {}
    connection.reply(OK)


_FLAGS: Final = ("noscript", "loading", "stale", "fast")
_connection = functools.partial(Spec, group="connection", flags=(*_FLAGS, "no_auth"))
_transaction = functools.partial(Spec, group="transactions", flags=_FLAGS)

SPECS: Final = (
    _connection("auth", -2, "Shows who the client is.", control=auth),
    _connection("hello", -1, "Chooses the protocol.", control=hello),
    _connection("reset", 1, "Makes the connection new.", control=reset),
    Spec(
        "select",
        2,
        "Chooses the database, 0 to 15.",
        group="connection",
        flags=("loading", "stale", "fast"),
        control=select,
        # In a transaction: what is queued behind it knows its database.
        read=lambda session, find, arguments: OK,
    ),
    _connection("quit", -1, "Closes the connection.", control=lambda connection, arguments: connection.close(OK)),
    _transaction("multi", 1, "Begins a transaction.", control=multi),
    _transaction("exec", 1, "Does what is queued.", control=exec_),
    _transaction("discard", 1, "Forgets what is queued.", control=discard),
    _transaction("watch", -2, "Lets EXEC do nothing if keys change.", keys=(1, -1, 1), control=watch),
    _transaction("unwatch", 1, "Watches no key.", control=unwatch),
)
