"""Channels: who on this node has subscribed to which channels, and the messages that are published, here or on other nodes.

1. A message is in no log and on no disk. A node sends it to all members once; each gives it to those who have subscribed
   there, at most once, and in the order in which the messages of one node were published. What a link has no room for is lost.
2. A message travels in parts of a frame each, which are numbered. A number that is not above the last one is late or comes a
   second time, and a part without those before it is of no use: both are dropped.
3. The loop is held up for a slice at a time, however many have subscribed (net/slices.py): what is too much for a turn waits in
   a queue, which is bounded for what other nodes send, and local publishers wait meanwhile for their answers.
4. What subscribers have not taken counts among the unread answers of all clients (net/unsent.py). Who takes nothing is ended for
   it like any client; and since who takes a little is sent more all the same, those for whom most waits are ended at once
   when the subscribers' part alone is more than the budget.

Not safe for concurrent use: the event loop owns it. Any thread may call ``metrics``.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final, Literal, TypedDict

from cacheflow.contract import CHANNEL, PATTERN, SHARD, Published, Space, Subscriber
from cacheflow.errors import InvalidRequest
from cacheflow.net.slices import Slices
from cacheflow.net.unsent import Unsent
from cacheflow.raft.transport.log_throttle import COMPLAINTS_EVERY_S, LogThrottle
from cacheflow.raft.transport.network import Message, Network, Peer

logger = logging.getLogger(__name__)

# The longest name of a channel, and the longest message: a fraction of a second on a narrow link.
NAME_BYTES_MAX: Final = 1024
# The longest name to which one can subscribe: of the channel on which the longest key's changes are told.
SUBSCRIBED_BYTES_MAX: Final = NAME_BYTES_MAX + len("__keyspace@15__:")
MESSAGE_BYTES_MAX: Final = 1024 * 1024
# The subscriptions of all subscribers of a node: with names of the largest length they take 64 MiB.
SUBSCRIPTIONS_MAX: Final = 65_536
# The patterns of all subscribers of a node: every message is compared with each, in some 0.3 us.
PATTERNS_MAX: Final = 1000
# The bytes of a message in one frame, which with the longest name stays below a piece (``frames.PIECE_BYTES``).
PART_BYTES = 30 * 1024
# What may be handed out before the turn ends, counted in subscribers, with which patterns and bytes are put on a level: about
# a slice. And what a transaction may publish, which cannot wait.
HANDED_OUT_MAX = 2000
OVERRUN: Final = 10 * HANDED_OUT_MAX
# Bytes of other nodes' messages that wait to be handed out; what comes then is lost.
WAITING_BYTES_MAX: Final = 16 * 1024 * 1024
# What a message costs beside its bytes, and what a place in a subscriber's queue costs.
MESSAGE_COST: Final = 256
PLACE_COST: Final = 128


class Publish(TypedDict):
    """Message to all members: one part of a message that a client has published on the node that sends this.

    number: the part's number; each node counts the parts that it sends.  first: whether the part begins a published message.
    left: the bytes of that published message that are still to come.
    """

    type: Literal["publish"]
    number: int
    channel: bytes
    shard: bool
    data: bytes
    first: bool
    left: int


# The messages between nodes that are about no log, and the feature level that brought each.
MESSAGES: Final[dict[str, type]] = {"publish": Publish}
LEVELS: Final[dict[str, int]] = dict.fromkeys(MESSAGES, 1)


class _Source:
    """Puts the messages that clients publish on one other node together from the parts which that node sends.

    A new start of that node needs a new object.
    """

    __slots__ = ("channel", "incarnation", "left", "number", "parts", "shard", "start")

    def __init__(self, peer: Peer) -> None:
        self.incarnation = peer.incarnation
        self.start = peer.start
        # The number of the last part, and what is there of the message that is not complete.
        self.number = 0
        self.parts: list[bytes] = []
        self.left = 0
        self.channel = b""
        self.shard = False

    def add(self, message: Publish) -> bytes | None:
        """Take the next part of a published message; return the whole message if the part was its last, else None."""
        number, data = message["number"], message["data"]
        if number <= self.number:
            return None
        follows = number == self.number + 1
        self.number = number
        if message["first"]:
            self.parts = [data]
        elif (
            follows
            and self.parts
            and self.left == len(data) + message["left"]
            and (self.channel, self.shard) == (message["channel"], message["shard"])
        ):
            self.parts.append(data)
        else:
            self.parts = []
            return None
        self.left, self.channel, self.shard = message["left"], message["channel"], message["shard"]
        if self.left:
            return None
        whole, self.parts = b"".join(self.parts), []
        return whole


class Channels:
    """The publish/subscribe channels of a node: its clients' subscriptions, and published messages on their way to clients.

    is_member: tells whether a peer is a member of the cluster; what other nodes publish is dropped.
    slices: does long work a part at a time.  unsent: the fronts' common limit on bytes that clients have not taken yet.
    unsent_bytes: what subscribers have not taken, as ``unsent`` knows it; a message that several wait for counts once.
    """

    def __init__(self, slices: Slices, unsent: Unsent, network: Network, is_member: Callable[[Peer], bool]) -> None:
        self.subscribed: dict[Space, dict[bytes, dict[Subscriber, None]]] = {CHANNEL: {}, PATTERN: {}, SHARD: {}}
        # Messages for other nodes of a type that is not known here.
        self.unknown = 0
        self.unsent_bytes = 0
        self._slices = slices
        self._budget = unsent
        self._network = network
        self._is_member = is_member
        self._throttle = LogThrottle(COMPLAINTS_EVERY_S, time.monotonic)
        self._subscriptions = 0
        # For each pattern the function that tells whether it matches a channel.
        self._matchers: dict[bytes, Callable[[bytes], object]] = {}
        # The number of the last part that was sent to the other nodes.
        self._number = 0
        self._sources: dict[str, _Source] = {}
        # What is to be done in the next slices: subscribers with something to write, messages to be handed out, and the calls
        # of those who wait for their turn.
        self._to_write: deque[Subscriber] = deque()
        self._to_hand_out: deque[Published] = deque()
        self._to_call: deque[Callable[[], None]] = deque()
        self._waiting_bytes = 0
        self._handed_out = 0
        self._scheduled = False
        # The subscribers for whom something waits, and the bytes that wait for all of them.
        self._behind: dict[Subscriber, None] = {}
        self._unread_bytes = 0
        self._published = self._unsent = self._lost = self._ended = 0

    # Subscriptions ----------------------------------------------------------------------------------------------------

    def subscribe(
        self,
        subscriber: Subscriber,
        space: Space,
        name: bytes,
        matches: Callable[[bytes], object] | None = None,
    ) -> None:
        """Subscribe ``subscriber`` to the channel ``name``, or to all channels that the pattern ``name`` matches.

        space: the kind of ``name``: a channel, a pattern or a shard channel.  matches: tells whether the pattern matches a
        channel; only for a pattern. Raises InvalidRequest for a name that is too long, and for too many subscriptions on this
        node.
        """
        names = self.subscribed[space]
        if len(name) > SUBSCRIBED_BYTES_MAX:
            raise InvalidRequest(f"a channel's name has at most {SUBSCRIBED_BYTES_MAX} bytes")
        subscribers = names.get(name, {})
        if subscriber in subscribers:
            return
        if self._subscriptions >= SUBSCRIPTIONS_MAX:
            raise InvalidRequest(f"a node has at most {SUBSCRIPTIONS_MAX} subscriptions")
        if matches is not None and name not in names:
            if len(names) >= PATTERNS_MAX:
                raise InvalidRequest(f"a node has at most {PATTERNS_MAX} patterns of subscribers")
            self._matchers[name] = matches
        names[name] = subscribers
        subscribers[subscriber] = None
        self._subscriptions += 1

    def unsubscribe(self, subscriber: Subscriber, space: Space, name: bytes) -> None:
        """End the subscription of ``subscriber`` to ``name``, if there is one.

        space: the kind of ``name``: a channel, a pattern or a shard channel.
        """
        names = self.subscribed[space]
        subscribers = names.get(name)
        if subscribers is None or subscriber not in subscribers:
            return
        del subscribers[subscriber]
        self._subscriptions -= 1
        if not subscribers:
            del names[name]
            if space == PATTERN:
                del self._matchers[name]

    # Publishing -------------------------------------------------------------------------------------------------------

    def publish(self, channel: bytes, data: bytes, shard: bool = False) -> int:
        """Publish ``data`` on ``channel``, on all nodes; return how many subscriptions on this node match the channel.

        shard: the channel is one of Redis' shard channels, which have their own names and subscribers. Raises InvalidRequest.
        """
        if len(channel) > NAME_BYTES_MAX:
            raise InvalidRequest(f"a channel's name has at most {NAME_BYTES_MAX} bytes")
        if len(data) > MESSAGE_BYTES_MAX:
            raise InvalidRequest(f"a message has at most {MESSAGE_BYTES_MAX} bytes")
        self._published += 1
        self._send(channel, data, shard)
        return self.deliver(Published(channel, data, shard))

    def _send(self, channel: bytes, data: bytes, shard: bool) -> None:
        end = 0
        while True:
            begin, end = end, min(len(data), end + PART_BYTES)
            self._number += 1
            part: Publish = {
                "type": "publish",
                "number": self._number,
                "channel": channel,
                "shard": shard,
                "data": data[begin:end],
                "first": begin == 0,
                "left": len(data) - end,
            }
            self._unsent += self._network.broadcast(part)
            if end == len(data):
                return

    def receive(self, peer: Peer, message: Message) -> None:
        """Take ``message``, a part of a published message, from ``peer``; after the last part, give all to the subscribers.

        Parts that are wrong, that follow a lost part, or that come from a node that is no member are dropped.
        """
        if message["type"] not in MESSAGES:
            self.unknown += 1
            return
        if not self._is_member(peer):
            return
        wrong = _wrong_in(message)
        if wrong:
            if self._throttle.allows((peer.node_id, wrong)):
                logger.warning("dropped a message of %s: its %s is wrong", peer.node_id, wrong)
            return
        source = self._sources.get(peer.node_id)
        if source is None or source.incarnation != peer.incarnation or source.start < peer.start:
            source = self._sources[peer.node_id] = _Source(peer)
        elif source.start > peer.start:
            return
        whole = source.add(message)  # type: ignore[arg-type]  # it was checked
        if whole is None:
            return
        published = Published(message["channel"], whole, message["shard"])
        if not self.is_behind:
            self.deliver(published)
        elif self._waiting_bytes + len(whole) <= WAITING_BYTES_MAX:
            self._queue(published)
        else:
            self._lost += 1

    def deliver(self, published: Published) -> int:
        """Give the message ``published`` to this node's subscribers, now or soon; return how many subscriptions match it."""
        if not self.is_behind:
            self._schedule()
            return self._hand_out(published)
        self._queue(published)
        self._handed_out += self._cost(published)
        return sum([len(subscribers) for _, subscribers in self._found(published)])

    def _queue(self, published: Published) -> None:
        self._to_hand_out.append(published)
        self._waiting_bytes += len(published.data) + MESSAGE_COST
        self._schedule()

    def _cost(self, published: Published) -> int:
        """Return what it costs to find the subscribers of the message ``published`` and to copy its text.

        The unit is the cost of giving one message to one subscriber.
        """
        return 1 + len(self._matchers) + len(published.data) // 4096

    def _found(self, published: Published) -> list[tuple[bytes | None, dict[Subscriber, None]]]:
        """Return (pattern, subscribers) for each pattern that matches the channel of the message ``published``.

        For the subscribers of the channel itself the pattern is None.
        """
        channel = published.channel
        subscribers = self.subscribed[SHARD if published.shard else CHANNEL].get(channel)
        found: list[tuple[bytes | None, dict[Subscriber, None]]] = [(None, subscribers)] if subscribers else []
        if self._matchers and not published.shard:
            patterns = self.subscribed[PATTERN]
            found += [(pattern, patterns[pattern]) for pattern, matches in self._matchers.items() if matches(channel)]
        return found

    def _hand_out(self, published: Published) -> int:
        count = 0
        for pattern, subscribers in self._found(published):
            count += len(subscribers)
            for subscriber in subscribers:
                subscriber.take(published, pattern)
        self._handed_out += count + self._cost(published)
        if self._unread_bytes > self._budget.bytes_max:
            self._end_the_slowest()
        return count

    # Slices -----------------------------------------------------------------------------------------------------------

    @property
    def is_behind(self) -> bool:
        """True if publishers should wait: this turn has handed out as many messages as it may, or published messages wait."""
        return self._handed_out >= HANDED_OUT_MAX or bool(self._to_hand_out)

    @property
    def is_overrun(self) -> bool:
        """True if so many messages were published in this turn that the node should refuse another one."""
        return self._handed_out >= OVERRUN

    def soon(self, call: Callable[[], None]) -> None:
        """Have the function ``call`` called soon, in a slice of the event loop's time.

        Functions given so and published messages that wait take turns.
        """
        self._to_call.append(call)
        self._schedule()

    def wake(self, subscriber: Subscriber) -> None:
        """Have the ``write`` method of ``subscriber``, for which messages wait, called soon, in a slice of the loop's time."""
        self._to_write.append(subscriber)
        self._schedule()

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._slices.put(self._work)

    def _work(self) -> None:
        self._handed_out = 0
        try:
            self._work_for_a_slice()
        finally:
            self._scheduled = False
            self._budget.tell(self, self._unread_bytes)
        if self._to_write or self._to_hand_out or self._to_call:
            self._schedule()

    def _work_for_a_slice(self) -> None:
        over = self._slices.over
        while True:
            if self._to_write:
                self._to_write.popleft().write()
            elif self._to_hand_out or self._to_call:
                if self._to_hand_out:
                    published = self._to_hand_out.popleft()
                    self._waiting_bytes -= len(published.data) + MESSAGE_COST
                    self._hand_out(published)
                if self._to_call:
                    self._to_call.popleft()()
            else:
                self._handed_out = 0
                return
            if over():
                return

    # What subscribers have not taken ----------------------------------------------------------------------------------

    def hold(self, subscriber: Subscriber, published: Published) -> None:
        """Count the message ``published`` as not yet taken by ``subscriber``, until ``let_go`` is called for the two."""
        self._behind[subscriber] = None
        if not published.holders:
            self._unread_bytes += len(published.data)
        published.holders += 1
        self._unread_bytes += PLACE_COST

    def let_go(self, subscriber: Subscriber, published: Published, is_last: bool) -> None:
        """Stop counting the message ``published`` as not yet taken by ``subscriber``.

        is_last: whether no other message waits for this subscriber.
        """
        published.holders -= 1
        self._unread_bytes -= PLACE_COST
        if not published.holders:
            self._unread_bytes -= len(published.data)
        if is_last:
            del self._behind[subscriber]
            self._schedule()

    def has_ended(self) -> None:
        """Count, for the metrics, a subscriber that was ended because its client did not take what was published."""
        self._ended += 1

    def _end_the_slowest(self) -> None:
        """End the subscribers for whom the most bytes wait, until what waits for all subscribers is within the limit."""
        for subscriber in sorted(self._behind, key=lambda each: each.unread_bytes, reverse=True):
            if self._unread_bytes <= self._budget.bytes_max:
                break
            subscriber.end_as_slow()

    def metrics(self) -> dict[str, float]:
        """Return how many publish/subscribe channels and subscribers this node has, by metrics' names. Any thread may call it."""
        return {
            "channels": len(self.subscribed[CHANNEL]) + len(self.subscribed[SHARD]),
            "channel_patterns": len(self.subscribed[PATTERN]),
            "subscriptions": self._subscriptions,
            "subscribers_unread_bytes": self._unread_bytes,
            "subscribers_ended_total": self._ended,
            "published_total": self._published,
            "published_unsent_total": self._unsent,
            "published_lost_total": self._lost,
        }


def _wrong_in(message: dict[str, Any]) -> str:
    """Return the name of a field that is missing or wrong in ``message``, a part of a published message from a peer; or ""."""
    number, left, data, channel = (message.get(name) for name in ("number", "left", "data", "channel"))
    first, shard = message.get("first"), message.get("shard")
    if type(number) is not int or number < 1:
        return "number"
    if type(channel) is not bytes or len(channel) > NAME_BYTES_MAX:
        return "channel"
    if type(first) is not bool:
        return "first"
    if type(shard) is not bool:
        return "shard"
    if type(data) is not bytes or not (data or (first and left == 0)):
        return "data"
    if type(left) is not int or left < 0 or left + len(data) > MESSAGE_BYTES_MAX:
        return "left"
    return ""
