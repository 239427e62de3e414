"""The commands on channels: SUBSCRIBE, UNSUBSCRIBE and their kin, PUBLISH, SPUBLISH and PUBSUB."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Final

from cacheflow.contract import CHANNEL, PATTERN, SHARD, Space
from cacheflow.errors import InvalidRequest
from cacheflow.wire.connection import End
from cacheflow.wire.resp.commands.clients import subcommand
from cacheflow.wire.resp.glob import PATTERN_BYTES_MAX, matcher
from cacheflow.wire.resp.mailbox import Mailbox, push
from cacheflow.wire.resp.replies import CommandError, Status, array, bulk, encode, error, integer
from cacheflow.wire.resp.session import Arguments, Local, RespSession, Spec
from cacheflow.wire.streams import whole

# The subscriptions of one client: each costs its name, and what its end takes holds up the loop.
SUBSCRIPTIONS_MAX: Final = 10_000
# How a subscription and its end are called in replies, by what is subscribed to.
VERBS: Final[dict[Space, bytes]] = {CHANNEL: b"subscribe", PATTERN: b"psubscribe", SHARD: b"ssubscribe"}
UNVERBS: Final[dict[Space, bytes]] = {CHANNEL: b"unsubscribe", PATTERN: b"punsubscribe", SHARD: b"sunsubscribe"}


class _InSlices:
    """A RESP request about many channels, done in slices of time, between which the event loop does its other work.

    step: takes a channel's name and returns a part of the reply, or None.
    end: the function to be called with the reply to the request.
    done: called with all parts; makes the reply of them and calls ``end``.
    An InvalidRequest that ``step`` raises becomes the last part.
    """

    # A class and no function inside of another one: that would be in a cycle with itself, and keep the connection.

    def __init__(
        self,
        connection: RespSession,
        names: Iterable[bytes],
        step: Callable[[bytes], bytes | None],
        end: End,
        done: Callable[[list[bytes]], None],
    ) -> None:
        self._connection = connection
        self._left = iter(names)
        self._step = step
        self._end = end
        self._done = done
        self._parts: list[bytes] = []

    def work(self) -> None:
        """Go on with a RESP request about many channels, until the time of a slice is used up; a later turn does the rest."""
        connection, slices = self._connection, self._connection.service.slices
        try:
            for name in self._left:
                part = self._step(name)
                if part is not None:
                    self._parts.append(part)
                if slices.over():
                    slices.put(functools.partial(connection.contained, self._end, self.work))
                    return
        except InvalidRequest as refused:
            self._parts.append(error(f"ERR {refused}"))
        self._done(self._parts)


# Subscriptions --------------------------------------------------------------------------------------------------------


def _subscribe(space: Space) -> Callable[[RespSession, Arguments], None]:
    return lambda connection, arguments: connection.exclusive(
        lambda end: _begin_to_subscribe(connection, space, arguments[1:], end)
    )


def _begin_to_subscribe(connection: RespSession, space: Space, names: list[bytes], end: End) -> None:
    mailbox = connection.open_mailbox()
    if mailbox.subscriptions + len(names) > SUBSCRIPTIONS_MAX:
        new = {name for name in names if name not in mailbox.names[space]}
        if mailbox.subscriptions + len(new) > SUBSCRIPTIONS_MAX:
            end(error(f"ERR a client has at most {SUBSCRIPTIONS_MAX} subscriptions"))
            return

    def subscribe(name: bytes) -> bytes:
        if space == PATTERN and len(name) > PATTERN_BYTES_MAX:
            raise InvalidRequest(f"a pattern has at most {PATTERN_BYTES_MAX} bytes")
        mailbox.subscribe(space, name, matcher(name) if space == PATTERN else None)
        return push(connection.protocol, bulk(VERBS[space]), bulk(name), _count(mailbox, space))

    def subscribed(replies: list[bytes]) -> None:
        connection.confine()
        end(b"".join(replies))
        mailbox.release()

    mailbox.hold()
    _InSlices(connection, names, subscribe, end, subscribed).work()


def _unsubscribe(space: Space) -> Callable[[RespSession, Arguments], None]:
    return lambda connection, arguments: connection.exclusive(
        lambda end: _begin_to_unsubscribe(connection, space, arguments[1:], end)
    )


def _begin_to_unsubscribe(connection: RespSession, space: Space, names: list[bytes], end: End) -> None:
    mailbox = connection.open_mailbox()

    def unsubscribe(name: bytes) -> bytes:
        mailbox.unsubscribe(space, name)
        return push(connection.protocol, bulk(UNVERBS[space]), bulk(name), _count(mailbox, space))

    def unsubscribed(replies: list[bytes]) -> None:
        if not replies:
            replies = [push(connection.protocol, bulk(UNVERBS[space]), connection.null, _count(mailbox, space))]
        connection.confine()
        # A client of RESP2 that has no subscription left would take a message for the reply to something else.
        end(mailbox.taken() + b"".join(replies))
        mailbox.release()

    mailbox.hold()
    _InSlices(connection, names or list(mailbox.names[space]), unsubscribe, end, unsubscribed).work()


def _count(mailbox: Mailbox, space: Space) -> bytes:
    """Return how many subscriptions a client has, as replies such as SUBSCRIBE's show it.

    Subscriptions to shard channels are counted apart from those to channels and patterns.
    """
    names = mailbox.names
    return integer(len(names[SHARD]) if space == SHARD else len(names[CHANNEL]) + len(names[PATTERN]))


# Publishing -----------------------------------------------------------------------------------------------------------


def _publish(shard: bool, session: RespSession, arguments: Arguments) -> bytes:
    try:
        return integer(session.store.channels.publish(arguments[1], arguments[2], shard))
    except InvalidRequest as refused:
        raise CommandError(f"ERR {refused}") from None


def _publish_at_once(shard: bool, session: RespSession, arguments: Arguments) -> bytes:
    """Publish the message of a PUBLISH in a transaction and return the reply.

    Raises CommandError while too many messages wait to be sent to subscribers.
    """
    if session.store.channels.is_overrun:
        raise CommandError("TRYAGAIN not published: this transaction publishes more at once than this node hands out")
    return _publish(shard, session, arguments)


def _publish_in_turn(shard: bool, connection: RespSession, arguments: Arguments) -> None:
    """Publish the message of a client's PUBLISH once that client's earlier requests are answered.

    The reply is delayed while published messages still wait to be sent to their subscribers.
    """
    answer = functools.partial(_publish, shard, connection, arguments)
    channels = connection.store.channels
    if not channels.is_behind:
        connection.in_turn(answer)
        return

    def begin(end: End) -> None:
        reply = connection.said(answer)
        channels.soon(functools.partial(connection.contained, end, end, reply))

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
    b"HELP": (2, lambda session, _: encode(session.protocol, [Status(line) for line in HELP])),
    b"NUMPAT": (2, lambda session, _: integer(len(session.store.channels.subscribed[PATTERN]))),
    b"NUMSUB": (-2, functools.partial(_counts, CHANNEL)),
    b"SHARDNUMSUB": (-2, functools.partial(_counts, SHARD)),
}
_LISTED: Final[dict[bytes, Space]] = {b"CHANNELS": CHANNEL, b"SHARDCHANNELS": SHARD}


def _pubsub(connection: RespSession, arguments: Arguments) -> None:
    space = _LISTED.get(arguments[1].upper())
    if space is None:
        connection.in_turn(lambda: whole(subcommand(_PUBSUB, connection, arguments)))
    else:
        _names_in_slices(space, connection, arguments)


def _names_in_slices(space: Space, connection: RespSession, arguments: Arguments) -> None:
    """Answer PUBSUB CHANNELS and PUBSUB SHARDCHANNELS with the names that match, in slices of the event loop's time."""
    matches = _matches(arguments)

    def begin(end: End) -> None:
        names = list(connection.store.channels.subscribed[space])
        _InSlices(
            connection,
            names,
            lambda name: bulk(name) if matches is None or matches(name) else None,
            end,
            lambda found: end(array(found)),
        ).work()

    connection.exclusive(begin)


_FLAGS: Final = ("pubsub", "loading", "stale")
_spec = functools.partial(Spec, group="pubsub", flags=("pubsub", "noscript", "loading", "stale"))
_fast = functools.partial(Spec, group="pubsub", flags=(*_FLAGS, "fast"))

SPECS: Final = (
    _spec("subscribe", -2, "Sends what is published on channels.", control=_subscribe(CHANNEL), names=1),
    _spec("unsubscribe", -1, "Sends it no more.", control=_unsubscribe(CHANNEL), names=1),
    _spec(
        "psubscribe",
        -2,
        "Sends what is published on channels that match patterns.",
        control=_subscribe(PATTERN),
        names=1,
    ),
    _spec("punsubscribe", -1, "Sends it no more.", control=_unsubscribe(PATTERN), names=1),
    _spec("ssubscribe", -2, "Sends what is published on shard channels.", control=_subscribe(SHARD), names=1),
    _spec("sunsubscribe", -1, "Sends it no more.", control=_unsubscribe(SHARD), names=1),
    _fast(
        "publish",
        3,
        "Publishes a message on a channel.",
        publishes=True,
        local=functools.partial(_publish_at_once, False),
        control=functools.partial(_publish_in_turn, False),
    ),
    _fast(
        "spublish",
        3,
        "Publishes a message on a shard channel.",
        publishes=True,
        local=functools.partial(_publish_at_once, True),
        control=functools.partial(_publish_in_turn, True),
    ),
    Spec(
        "pubsub",
        -2,
        "Tells about channels.",
        group="pubsub",
        flags=_FLAGS,
        control=_pubsub,
        names=2,
    ),
)
