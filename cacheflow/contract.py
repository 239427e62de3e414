"""The contract of a store: the types of its answers, and what each layer above calls on it.

1. The fronts name the protocols here, never the store: tests hand them a fake.
2. A *done* is called once, on the node's loop, and must not block. The call that it returns is made when the loop's turn
   has sent what it had to send, and wakes whoever waits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, BinaryIO, Final, Literal, Protocol, TypeAlias

from cacheflow.errors import ReplicationError
from cacheflow.files.backup import BackupMeta
from cacheflow.machine.effects import Effect
from cacheflow.machine.language.commands import Command, Result
from cacheflow.machine.state.entries import DATA, EXPIRES_AT_MS, KIND, META, VERSION, Entry, entry_bytes
from cacheflow.measuring.metrics import Metrics
from cacheflow.measuring.slow_log import SlowLog
from cacheflow.results import Change, ClusterSettings, Digest, Event, Item, RaftPosition

__all__ = [
    "CHANNEL",
    "DATA",
    "EXPIRES_AT_MS",
    "INVALIDATIONS",
    "KIND",
    "META",
    "PATTERN",
    "SHARD",
    "VERSION",
    "Channels",
    "Check",
    "Done",
    "Entry",
    "Feed",
    "Follower",
    "Invalidated",
    "KeysCopy",
    "Outcome",
    "Published",
    "Reader",
    "RestStore",
    "Space",
    "Subscriber",
    "Told",
    "Tracking",
    "WireStore",
    "Written",
    "entry_bytes",
]

# The outcome of a proposal: one raw result a command, or the error that says why there is none.
Outcome: TypeAlias = list[Result] | ReplicationError
# A function that takes an outcome (see rule 2).
Done: TypeAlias = Callable[[Outcome], Callable[[], None]]
# (name, whether it passed, detail for people) of one liveness or readiness check.
Check: TypeAlias = tuple[str, bool, str]


# What a subscription names: a channel, a pattern of channels, or one of Redis' shard channels, which have names of their own.
Space: TypeAlias = Literal["channel", "pattern", "shard"]
CHANNEL: Final = "channel"
PATTERN: Final = "pattern"
SHARD: Final = "shard"


class Published:
    """A message that was published on a channel, as all its subscribers on this node share it.

    rendered: the message's bytes in each wire protocol that a subscriber speaks, made once for all of these.
    holders: how many times the message stands in subscribers' queues.
    """

    __slots__ = ("channel", "data", "holders", "rendered", "shard")

    def __init__(self, channel: bytes, data: bytes, shard: bool) -> None:
        self.channel = channel
        self.data = data
        self.shard = shard
        self.rendered: dict[Any, bytes] = {}
        self.holders = 0


# The channel on which clients of RESP2 are told which keys have changed.
INVALIDATIONS: Final = b"__redis__:invalidate"


class Invalidated(Published):
    """The message to clients that some keys which they may have read and keep have changed.

    keys: these keys, as the clients know them; None: all keys.
    """

    __slots__ = ("keys",)

    def __init__(self, keys: list[bytes] | None) -> None:
        super().__init__(INVALIDATIONS, b"".join(keys or ()), False)
        self.keys = keys


class Reader(Protocol):
    """Interface: a client's connection that is told which keys have changed that it may keep. Called on the event loop only."""

    def invalidate(self, message: Invalidated) -> None:
        """Queue ``message``, the names of changed keys, for this client; ``write`` sends it."""

    def write(self) -> None:
        """Send the queued messages to this client, as many as its connection takes now."""


# What a client has written: (key as the machine has it, version of the change, version that the key has by it, 0 for none).
Written = tuple[str, int, int]


class Tracking(Protocol):
    """Interface: the keys that clients of a node have read and keep: see node/tracking.py. Called on the event loop only."""

    def begin(self, reader: Reader, notes: bool) -> int: ...
    def follow(self, number: int, prefix: str) -> None: ...
    def end(self, number: int, prefixes: Iterable[str]) -> None: ...
    def note(self, number: int, keys: Iterable[str]) -> None: ...
    def note_seen(self, number: int, seen: Iterable[tuple[str, int, int | None]]) -> None: ...
    def wrote(self, number: int, written: Iterable[Written]) -> None: ...


class Subscriber(Protocol):
    """Interface: a client's connection that has subscribed to channels. Called on the event loop only."""

    @property
    def unread_bytes(self) -> int:
        """The number of bytes that wait to be sent to this subscriber."""

    def take(self, published: Published, pattern: bytes | None) -> None:
        """Queue a message that was published on a channel for this subscriber; ``write`` sends it. Changes no subscription.

        pattern: the subscribed pattern that matches the channel; None if the channel itself is subscribed to.
        """

    def write(self) -> None:
        """Send the queued messages to this subscriber, as many as its connection takes now."""

    def end_as_slow(self) -> None:
        """Close this subscriber's connection and drop its queued messages, because its client reads them too slowly."""


class Channels(Protocol):
    """Interface: the publish/subscribe channels of a node, for fronts: see node/channels.py. Called on the event loop only."""

    @property
    def subscribed(self) -> Mapping[Space, Mapping[bytes, Mapping[Subscriber, None]]]:
        """For each space (channels, patterns, shard channels): the subscribers, by the name to which they have subscribed."""

    @property
    def is_behind(self) -> bool: ...

    @property
    def is_overrun(self) -> bool: ...

    def subscribe(
        self, subscriber: Subscriber, space: Space, name: bytes, matches: Callable[[bytes], object] | None = None
    ) -> None: ...
    def unsubscribe(self, subscriber: Subscriber, space: Space, name: bytes) -> None: ...
    def publish(self, channel: bytes, data: bytes, shard: bool = False) -> int: ...
    def deliver(self, published: Published) -> int: ...
    def soon(self, call: Callable[[], None]) -> None: ...
    def wake(self, subscriber: Subscriber) -> None: ...
    def hold(self, subscriber: Subscriber, published: Published) -> None: ...
    def let_go(self, subscriber: Subscriber, published: Published, is_last: bool) -> None: ...
    def has_ended(self) -> None: ...


class Told:
    """One change of a node's contents; all clients that are told it share this object.

    effect: the same change as the machine has recorded it, without a value.
    rendered: the change as the bytes that clients get, once a front has made them.
    """

    __slots__ = ("change", "effect", "rendered")

    def __init__(self, change: Change, effect: Effect) -> None:
        self.change = change
        self.effect = effect
        self.rendered = b""


class Follower(Protocol):
    """Interface: somebody who is told the changes of a node's contents. Called on the event loop only."""

    @property
    def prefix(self) -> str | None:
        """The beginning of the keys of database 0 whose changes this follower is told; None for all keys of all databases."""

    def take(self, changes: list[Told]) -> bool:
        """Take the next ``changes``, in order; return False if no more may come until this follower calls ``Feed.go_on``."""

    def missed(self) -> None:
        """Called when this follower has missed changes: note that; nothing more is told."""


class Feed(Protocol):
    """Interface: keeps the latest changes of a node's contents and tells followers: see node/feed.py. For the loop only."""

    def follow(self, follower: Follower, since: str | None) -> str: ...
    def unfollow(self, follower: Follower) -> None: ...
    def go_on(self, follower: Follower) -> None: ...
    def look(self) -> None: ...
    def told_position(self, follower: Follower) -> str | None: ...
    def oldest(self) -> str: ...


class Watching(Protocol):
    """Interface: what fronts need to let clients follow the changes of a node's contents: see node/watching.py."""

    def position(self) -> str: ...
    def check(self) -> None: ...
    def is_behind(self, since: str) -> bool: ...
    def check_since(self, since: str) -> None: ...
    def on_loop(self, call: Callable[[], None]) -> None: ...
    def adopt(self, sock: Any, make: Callable[[], asyncio.Protocol]) -> None: ...

    # For the event loop alone.
    @property
    def feed(self) -> Feed: ...
    @property
    def slices(self) -> Slices: ...


class Slices(Protocol):
    """Interface: does long work for clients on the event loop, a short slice of it in each turn: see net/slices.py."""

    def over(self) -> bool: ...
    def put(self, call: Callable[[], object]) -> None: ...


class Backups(Protocol):
    """Interface: backups of a node's contents, and restores of the cluster's: see node/backups.py. Any thread may call it."""

    def new_file(self) -> BinaryIO: ...
    def room(self) -> int: ...
    def take(self) -> tuple[BinaryIO, BackupMeta]: ...
    def restore(self, file: BinaryIO, *, online: bool = False) -> tuple[BackupMeta, int]: ...
    def give_up(self) -> bool: ...


class RestStore(Protocol):
    """Interface: what the REST layer needs of a store, the cache of a running node. Any thread may call it."""

    # Reads of single items as Python sees them. ``get_item`` may block when the level asks for it.
    def get_item(
        self,
        key: str,
        *,
        consistency: str = "local",
        max_staleness: float | None = None,
        peek: bool = False,
    ) -> Item | None: ...
    def read_applied(self, key: str, *, peek: bool = False) -> Item | None: ...
    def read_again(self, key: str, *, applied: bool, max_staleness: float | None) -> Item | None: ...

    # Entries of checked keys at one moment. It may wait for the end of a log entry.
    def read_many(
        self, keys: list[str], *, applied: bool, max_staleness: float | None, peek: bool = False, again: bool = False
    ) -> list[Entry | None]: ...
    def keys_page(
        self, prefix: str = "", limit: int = ..., cursor: str | None = None
    ) -> tuple[list[str], str | None]: ...
    def now_ms(self) -> int: ...
    def first_index(self, age_ms: int) -> int: ...

    # Commands on their way through the log: see WireStore; ``run`` and ``barrier`` block until the answer is there.
    def submit(self, commands: list[Command], done: Done) -> None: ...
    def submit_barrier(self, done: Done) -> None: ...
    def run(self, commands: list[Command]) -> list[Result]: ...
    def barrier(self) -> list[Result]: ...

    # The members and who leads them. These calls block.
    def position(self) -> RaftPosition: ...
    def nodes(self) -> list[dict[str, Any]]: ...
    def status(self) -> dict[str, Any]: ...
    def digest(self, *, index: int | None = None, full: bool = False) -> Digest | None: ...
    def register(
        self, node_id: str, address: str, raft_address: str, was_member: bool = False, role: str = ...
    ) -> bool: ...
    def promote_node(self, node_id: str) -> dict[str, Any]: ...
    def demote_node(self, node_id: str) -> dict[str, Any]: ...
    def remove_node(self, node_id: str) -> None: ...
    def transfer_leadership(self, node_id: str | None) -> str: ...
    def raise_level(self, level: Any) -> int: ...

    # The cluster's settings, and the largest value by these.
    def settings(self) -> ClusterSettings: ...
    @property
    def value_bytes_max(self) -> int: ...
    def on_value_limit(self, limit: Callable[[int], None]) -> None: ...

    @property
    def backups(self) -> Backups: ...

    @property
    def watching(self) -> Watching: ...

    # The requests that took long lately, over all fronts of the node.
    @property
    def slow_log(self) -> SlowLog: ...

    # Counters, gauges and histograms by name, the checks of liveness and readiness, and the latest events, oldest first.
    def metrics(self) -> Metrics: ...
    def readiness(self) -> Sequence[Check]: ...
    def liveness(self) -> Sequence[Check]: ...
    def events(self) -> Sequence[Event]: ...


class KeysCopy(Protocol):
    """Interface: a copy of all keys of a cache that is made slice by slice (see machine/listing.py)."""

    @property
    def slices(self) -> list[tuple[str, ...]]: ...
    @property
    def done(self) -> bool: ...
    @property
    def still_gathers(self) -> bool: ...
    @property
    def has_all(self) -> bool: ...
    def go_on(self) -> tuple[str, ...]: ...


class WireStore(Protocol):
    """Interface: what the Redis and memcached fronts need of a store. No method blocks. Called on the event loop.

    Lua scripts, which have a thread of their own, may call all methods but ``lookup_all`` and those that replicate.
    """

    def lookup(self, key: str, *, count: bool = True) -> Entry | None:
        """Return the live cache entry under ``key``, or None if there is none. Raises NotReady.

        count: whether this look-up counts as a use of the key.
        """

    def peek(self, key: str) -> Entry | None:
        """Return the cache entry under ``key``, perhaps past its expiry, or None.

        The look-up counts neither as a read nor as a use.
        """

    def lookup_all(self, keys: list[str], bytes_max: int) -> list[Entry | None] | None:
        """Return the live cache entries of all ``keys`` at one moment, in a list with None for each absent key.

        Returns None instead of the list when the values together have over ``bytes_max`` bytes. Raises NotReady.
        """

    @property
    def channels(self) -> Channels:
        """The channels of the node, on which its clients publish messages and to which they subscribe."""

    @property
    def feed(self) -> Feed:
        """The object that keeps the node's latest changes and tells them to followers."""

    @property
    def tracking(self) -> Tracking:
        """The object that notes which keys clients have read, and tells them which of these have changed."""

    def now_ms(self) -> int:
        """Return the cluster's time in milliseconds, by which entries expire."""

    def copy_keys(self, give_up: Callable[[list[tuple[str, ...]]], object]) -> KeysCopy:
        """Return an object that copies all keys of all databases, slice by slice, and has copied none yet. Raises NotReady.

        give_up: is called with the copied slices when nobody needs them any more, as freeing them at once takes long.
        """

    def live(self, keys: list[str]) -> list[str]:
        """Return those of ``keys`` that are present now; this does not count as a use of these keys. Raises NotReady."""

    def count_of(self, database: int) -> int:
        """Return how many keys the Redis database with the number ``database`` has. Raises NotReady."""

    def expiring_of(self, database: int) -> tuple[int, int]:
        """Return (how many keys of the Redis database ``database`` have an expiry, how many ms they have left on average).

        Raises NotReady.
        """

    def uses_of(self, key: str) -> int | None:
        """Return how many uses of ``key`` the eviction policy has counted, None if the policy counts none. Raises NotReady."""

    def submit(self, commands: list[Command], done: Done, work: int = 0) -> None:
        """Replicate ``commands`` in order, then call the function ``done`` with their results or an error.

        work: the extra time that these commands take the state machine, as a number of plain commands.
        """

    def submit_barrier(self, done: Done) -> None:
        """Call the function ``done`` once this node has applied all writes that any node acknowledged before this call."""

    def settings(self) -> ClusterSettings:
        """Return the settings that all nodes of the cluster have. Raises NotReady."""

    @property
    def slow_log(self) -> SlowLog:
        """The requests that took long lately, over all fronts of the node."""

    def metrics(self) -> Metrics: ...
