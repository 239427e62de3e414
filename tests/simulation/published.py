"""Messages on channels: each subscriber is given what it has asked for, at most once and in the order of one node's publishers.

Whatever happens to links and nodes; and once all is healed, every message reaches every node. The draws are this file's own,
so that a run without it goes as it went before.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING

from cacheflow.contract import CHANNEL, PATTERN, SHARD, Published, Space

if TYPE_CHECKING:
    from simulation.cluster import Cluster, Process

# The limits in a simulation: of a part of a message, and of what is handed out in one turn.
PART_BYTES = 300
HANDED_OUT_MAX = 3
# The part of the runs in which somebody publishes; mean seconds between two acts.
HOW_OFTEN = 0.5
PAUSE_S = 0.1
NAMES = [b"c0", b"c1", b"c2"]
# A pattern, and what it matches.
PATTERNS: dict[bytes, Callable[[bytes], bool]] = {
    b"c[01]": lambda channel: channel in NAMES[:2],
    b"*": lambda channel: True,
}
# The last messages of a run, which must reach everybody.
LAST = b"last"
LISTENERS_MAX = 4
# Seconds after which all nodes are connected once all is healed. They dial once a second; and who has moved is dialled when a new
# leader has written its address into the table of members.
CONNECTED_WITHIN_S = 5.0
LOOK_S = 0.25


class Listener:
    """One who has subscribed on one process."""

    unread_bytes = 0

    def __init__(self, publishing: Publishing, process: Process) -> None:
        self.names: dict[tuple[Space, bytes], None] = {}
        self.got_last: set[str] = set()
        self._publishing = publishing
        self._process = process
        # By pattern and process that has published: the number of the latest message.
        self._latest: dict[tuple[bytes | None, str], int] = {}

    def subscribe(self, space: Space, name: bytes) -> None:
        """Ask for what is published on a channel, or on those of a pattern."""
        self.names[space, name] = None
        self._process.channels.subscribe(self, space, name, PATTERNS[name] if space == PATTERN else None)

    def unsubscribe(self, space: Space, name: bytes) -> None:
        """Ask for it no more."""
        del self.names[space, name]
        self._process.channels.unsubscribe(self, space, name)

    def take(self, published: Published, pattern: bytes | None) -> None:
        """Check a message that is given to this listener."""
        complain = self._publishing.cluster.checks.complain
        channel = published.channel
        space: Space = PATTERN if pattern is not None else SHARD if published.shard else CHANNEL
        asked = (space, channel if pattern is None else pattern)
        if asked not in self.names or (pattern is not None and not PATTERNS[pattern](channel)):
            complain(f"channels: {self._process.name} was given a message on {asked} that it has not asked for")
        name, number = published.data.split()[:2]
        publisher = name.decode()
        if self._publishing.sent.get((publisher, int(number))) != (channel, published.data, published.shard):
            complain(f"channels: {self._process.name} was given what nobody has published: {published.data!r}")
        latest = self._latest.get((pattern, publisher), 0)
        if int(number) <= latest:
            complain(f"channels: {self._process.name} was given message {int(number)} of {publisher} behind {latest}")
        self._latest[pattern, publisher] = int(number)
        self._publishing.given += 1
        if channel == LAST:
            self.got_last.add(publisher)

    def write(self) -> None:
        """Nothing waits for a listener."""

    def end_as_slow(self) -> None:
        """Nor is one ever slow."""


class Publishing:
    """Those who publish and those who listen, on all processes of a run."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        # By process and number: the channel, the message, and whether it is a shard channel.
        self.sent: dict[tuple[str, int], tuple[bytes, bytes, bool]] = {}
        self.given = 0
        self._random = Random(f"{cluster.seed} channels")
        self._listeners: dict[str, list[Listener]] = {}
        self._numbers: dict[str, int] = {}
        self._running = self._random.random() < HOW_OFTEN
        self._ends_with: list[Process] = []
        if self._running:
            cluster.scheduler.at(self._random.expovariate(1 / PAUSE_S), self._go_on)

    def _go_on(self) -> None:
        if not self._running:
            return
        cluster, random = self.cluster, self._random
        cluster.scheduler.at(random.expovariate(1 / PAUSE_S), self._go_on)
        processes = cluster.processes
        if not processes:
            return
        process = random.choice(processes)
        if random.random() < 0.7:
            for _ in range(random.choice((1, 1, 1, 2, 8))):
                self._publish(process, random.choice(NAMES), random.random() < 0.2)
        else:
            process.loop.call_soon(self._change, process)

    def _publish(self, process: Process, channel: bytes, shard: bool = False) -> None:
        number = self._numbers[process.name] = self._numbers.get(process.name, 0) + 1
        padding = b"%d." % number * self._random.choice((0, 0, 3, 100, 400))
        data = b"%b %d %b" % (process.name.encode(), number, padding)
        self.sent[process.name, number] = (channel, data, shard)
        process.loop.call_soon(process.channels.publish, channel, data, shard)

    def _change(self, process: Process) -> None:
        """Let a listener come, subscribe to something else, or unsubscribe."""
        random = self._random
        listeners = self._listeners.setdefault(process.name, [])
        if len(listeners) < LISTENERS_MAX:
            listeners.append(Listener(self, process))
        listener = random.choice(listeners)
        if listener.names and random.random() < 0.4:
            listener.unsubscribe(*random.choice(list(listener.names)))
            return
        space: Space = random.choice((CHANNEL, CHANNEL, PATTERN, SHARD))
        listener.subscribe(space, random.choice(list(PATTERNS) if space == PATTERN else NAMES))

    def stop(self) -> None:
        """Publish nothing more but a last message on every process, which all of them must be given: all is healed."""
        if self._running:
            self._running = False
            self._end(self.cluster.scheduler.now + CONNECTED_WITHIN_S)

    def _end(self, deadline: float) -> None:
        processes = self.cluster.processes
        connected = all(
            one is other or one.node.links.is_connected(other.node_id) for one in processes for other in processes
        )
        if not connected and self.cluster.scheduler.now < deadline:
            self.cluster.scheduler.at(LOOK_S, self._end, deadline)
            return
        self._ends_with = processes
        for process in self._ends_with:
            listener = Listener(self, process)
            listener.subscribe(CHANNEL, LAST)
            self._listeners.setdefault(process.name, []).append(listener)
        for process in self._ends_with:
            self._publish(process, LAST)

    def check(self) -> None:
        """Check that the last messages have reached all processes."""
        names = {process.name for process in self._ends_with}
        for process in self._ends_with:
            got = self._listeners[process.name][-1].got_last
            if process.loop.alive and got != names:
                self.cluster.checks.complain(f"channels: {process.name} was not given the last of {names - got}")
