"""The commands on channels: SUBSCRIBE, UNSUBSCRIBE and their kin, PUBLISH, SPUBLISH and PUBSUB."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Callable
from itertools import islice
from typing import Final

from cacheflow.contract import CHANNEL, PATTERN, SHARD, Space
from cacheflow.errors import InvalidRequest
from cacheflow.wire.connection import End
from cacheflow.wire.resp.commands.clients import subcommand
from cacheflow.wire.resp.glob import PATTERN_BYTES_MAX, matcher
from cacheflow.wire.resp.mailbox import Mailbox, push
from cacheflow.wire.resp.replies import CommandError, Status, array, bulk, bulks, encode, integer
from cacheflow.wire.resp.session import Arguments, Local, RespSession, Spec

# The subscriptions of one client: each costs its name, and what its end takes holds up the loop.
SUBSCRIPTIONS_MAX: Final = 10_000
# The time that PUBSUB CHANNELS works before others get their turn, and the names between two looks at the clock.
SLICE_S: Final = 0.005
SLICE_NAMES: Final = 256
# How a subscription and its end are called in replies, by what is subscribed to.
VERBS: Final[dict[Space, bytes]] = {CHANNEL: b"subscribe", PATTERN: b"psubscribe", SHARD: b"ssubscribe"}
UNVERBS: Final[dict[Space, bytes]] = {CHANNEL: b"unsubscribe", PATTERN: b"punsubscribe", SHARD: b"sunsubscribe"}


# Subscriptions --------------------------------------------------------------------------------------------------------


def _subscribe(space: Space) -> Callable[[RespSession, Arguments], None]:
    def control(connection: RespSession, arguments: Arguments) -> None:
        connection.in_turn(lambda: _subscribed(connection, space, arguments[1:]))

    return control


def _subscribed(connection: RespSession, space: Space, names: list[bytes]) -> bytes:
    mailbox = connection.mailbox
    if mailbox is None:
        mailbox = connection.mailbox = Mailbox(connection, connection.store.channels)
    if mailbox.subscriptions + len(names) > SUBSCRIPTIONS_MAX:
        new = {name for name in names if name not in mailbox.names[space]}
        if mailbox.subscriptions + len(new) > SUBSCRIPTIONS_MAX:
            raise CommandError(f"ERR a client has at most {SUBSCRIPTIONS_MAX} subscriptions")
    replies = []
    try:
        for name in names:
            if space == PATTERN and len(name) > PATTERN_BYTES_MAX:
                raise CommandError(f"ERR a pattern has at most {PATTERN_BYTES_MAX} bytes")
            mailbox.subscribe(space, name, matcher(name) if space == PATTERN else None)
            replies.append(push(connection.protocol, bulk(VERBS[space]), bulk(name), _count(mailbox, space)))
    except InvalidRequest as refused:
        replies.append(CommandError(f"ERR {refused}").reply)
    except CommandError as refused:
        replies.append(refused.reply)
    connection.confine()
    return b"".join(replies)


def _unsubscribe(space: Space) -> Callable[[RespSession, Arguments], None]:
    def control(connection: RespSession, arguments: Arguments) -> None:
        connection.in_turn(lambda: _unsubscribed(connection, space, arguments[1:]))

    return control


def _unsubscribed(connection: RespSession, space: Space, names: list[bytes]) -> bytes:
    mailbox = connection.mailbox
    protocol, verb = connection.protocol, bulk(UNVERBS[space])
    if mailbox is None:
        named = map(bulk, names) if names else [connection.null]
        return b"".join([push(protocol, verb, name, integer(0)) for name in named])
    # A client of RESP2 that has none left takes no message any more for what it is.
    replies = [mailbox.taken()]
    for name in names or list(mailbox.names[space]):
        mailbox.unsubscribe(space, name)
        replies.append(push(protocol, verb, bulk(name), _count(mailbox, space)))
    if len(replies) == 1:
        replies.append(push(protocol, verb, connection.null, _count(mailbox, space)))
    connection.confine()
    return b"".join(replies)


def _count(mailbox: Mailbox, space: Space) -> bytes:
    """Return the number of subscriptions that Redis tells with each one: those to shard channels are counted apart."""
    names = mailbox.names
    return integer(len(names[SHARD]) if space == SHARD else len(names[CHANNEL]) + len(names[PATTERN]))


# Publishing -----------------------------------------------------------------------------------------------------------


def _publish(shard: bool, session: RespSession, arguments: Arguments) -> bytes:
    try:
        return integer(session.store.channels.publish(arguments[1], arguments[2], shard))
    except InvalidRequest as refused:
        raise CommandError(f"ERR {refused}") from None


def _publish_in_turn(shard: bool, connection: RespSession, arguments: Arguments) -> None:
    """Answer PUBLISH behind all earlier requests; who publishes faster than is handed out waits until that is done."""
    answer = functools.partial(_publish, shard, connection, arguments)
    channels = connection.store.channels
    if not channels.is_behind:
        connection.in_turn(answer)
        return

    def begin(end: End) -> None:
        reply = connection.said(answer)
        channels.when_caught_up(functools.partial(connection.contained, end, end, reply))

    connection.exclusive(begin)


# PUBSUB ---------------------------------------------------------------------------------------------------------------

HELP: Final = (
    "PUBSUB <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    "CHANNELS [<pattern>]",
    "    Return the currently active channels matching a <pattern> (default: '*').",
    "NUMPAT",
    "    Return number of subscriptions to patterns.",
    "NUMSUB [<channel> ...]",
    "    Return the number of subscribers for the specified channels, excluding",
    "    pattern subscriptions(default: no channels).",
    "SHARDCHANNELS [<pattern>]",
    "    Return the currently active shard level channels matching a <pattern> (default: '*').",
    "SHARDNUMSUB [<shardchannel> ...]",
    "    Return the number of subscribers for the specified shard level channel(s)",
    "HELP",
    "    Prints this help.",
)


def _names(space: Space, session: RespSession, arguments: Arguments) -> bytes:
    """Return the reply to PUBSUB CHANNELS inside a transaction, made without a pause."""
    matches = _matches(arguments)
    return bulks([name for name in session.store.channels.subscribed[space] if matches is None or matches(name)])


def _matches(arguments: Arguments) -> Callable[[bytes], object] | None:
    if len(arguments) > 3:
        raise CommandError(
            b"ERR unknown subcommand or wrong number of arguments for '%b'. Try PUBSUB HELP." % arguments[1][:128]
        )
    if len(arguments) < 3:
        return None
    if len(arguments[2]) > PATTERN_BYTES_MAX:
        raise CommandError(f"ERR a pattern has at most {PATTERN_BYTES_MAX} bytes")
    return matcher(arguments[2])


def _counts(space: Space, session: RespSession, arguments: Arguments) -> bytes:
    subscribed = session.store.channels.subscribed[space]
    return array([item for name in arguments[2:] for item in (bulk(name), integer(len(subscribed.get(name, ()))))])


_PUBSUB: Final[dict[bytes, tuple[int, Local]]] = {
    b"CHANNELS": (-2, functools.partial(_names, CHANNEL)),
    b"HELP": (2, lambda session, _: encode(session.protocol, [Status(line) for line in HELP])),
    b"NUMPAT": (2, lambda session, _: integer(len(session.store.channels.subscribed[PATTERN]))),
    b"NUMSUB": (-2, functools.partial(_counts, CHANNEL)),
    b"SHARDCHANNELS": (-2, functools.partial(_names, SHARD)),
    b"SHARDNUMSUB": (-2, functools.partial(_counts, SHARD)),
}
_LISTED: Final[dict[bytes, Space]] = {b"CHANNELS": CHANNEL, b"SHARDCHANNELS": SHARD}


def _pubsub(session: RespSession, arguments: Arguments) -> bytes:
    return subcommand(_PUBSUB, session, arguments)


def _pubsub_in_turn(connection: RespSession, arguments: Arguments) -> None:
    space = _LISTED.get(arguments[1].upper())
    if space is None:
        connection.in_turn(lambda: _pubsub(connection, arguments))
    else:
        _names_in_slices(space, connection, arguments)


def _names_in_slices(space: Space, connection: RespSession, arguments: Arguments) -> None:
    """Answer PUBSUB CHANNELS in slices of SLICE_S seconds, between which the event loop does its other work."""
    matches = _matches(arguments)

    def begin(end: End) -> None:
        found: list[bytes] = []
        names = iter(list(connection.store.channels.subscribed[space]))

        def work() -> None:
            until = time.monotonic() + SLICE_S
            while part := list(islice(names, SLICE_NAMES)):
                found.extend(part if matches is None else filter(matches, part))
                if time.monotonic() >= until:
                    asyncio.get_running_loop().call_soon(connection.contained, end, work)
                    return
            end(bulks(found))

        work()

    connection.exclusive(begin)


_FLAGS: Final = ("pubsub", "loading", "stale")
_spec = functools.partial(Spec, group="pubsub", flags=("pubsub", "noscript", "loading", "stale"))
_fast = functools.partial(Spec, group="pubsub", flags=(*_FLAGS, "fast"))

SPECS: Final = (
    _spec("subscribe", -2, "Sends what is published on channels.", control=_subscribe(CHANNEL)),
    _spec("unsubscribe", -1, "Sends it no more.", control=_unsubscribe(CHANNEL)),
    _spec("psubscribe", -2, "Sends what is published on channels that match patterns.", control=_subscribe(PATTERN)),
    _spec("punsubscribe", -1, "Sends it no more.", control=_unsubscribe(PATTERN)),
    _spec("ssubscribe", -2, "Sends what is published on shard channels.", control=_subscribe(SHARD)),
    _spec("sunsubscribe", -1, "Sends it no more.", control=_unsubscribe(SHARD)),
    _fast(
        "publish",
        3,
        "Publishes a message on a channel.",
        local=functools.partial(_publish, False),
        control=functools.partial(_publish_in_turn, False),
    ),
    _fast(
        "spublish",
        3,
        "Publishes a message on a shard channel.",
        local=functools.partial(_publish, True),
        control=functools.partial(_publish_in_turn, True),
    ),
    Spec(
        "pubsub",
        -2,
        "Tells about channels.",
        group="pubsub",
        flags=_FLAGS,
        local=_pubsub,
        control=_pubsub_in_turn,
    ),
)
