"""Those who keep what they have read: no entry of theirs is older than what their node has applied, but for what is under way.

Whatever happens to nodes, disks and links. What a node sends to one of them comes in order and some time later; a client that
loses its node forgets everything. The draws are this file's own, so that a run without it goes as it went before.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING, Final, NamedTuple

from cacheflow.contract import Invalidated, Outcome
from cacheflow.errors import ReplicationError
from cacheflow.machine.language import commands
from cacheflow.machine.state.entries import VERSION, Entry
from cacheflow.wire.resp.tracking import written_in

if TYPE_CHECKING:
    from simulation.cluster import Cluster, Process

# The limits in a simulation: so low that what is noted first is forgotten, and that too much is due now and then.
NOTED_BYTES_MAX = 12 * 180
DUE_MAX = 12
NAMES_AT_ONCE = 2
WRITTEN_AT_ONCE = 1
# The part of the runs in which somebody keeps something; mean seconds between two acts.
HOW_OFTEN = 0.6
PAUSE_S = 0.05
READERS_MAX = 4
# The prefixes of clients that are told of all keys under some.
PREFIXES: Final = ((), (), (), ("",), ("c", "r"), ("own",))
# Of those who leave out their own writes (NOLOOP): how many do, how often one writes, and which keys, that several write at once.
NO_LOOP: Final = 0.4
WRITES: Final = 0.3
OWN_KEYS: Final = ("own/1", "own/2", "own/3")
WRITE_S: Final = 5.0

Seen = tuple[str, int]


class Own(NamedTuple):
    """A key that a client has written itself, with the version that it has given to it; 0 where it has removed it."""

    key: str
    version: int


class SimReader:
    """One who has read keys of a process and keeps them: key -> version, 0 for one that is absent."""

    def __init__(self, tracked: Tracked, process: Process, prefixes: tuple[str, ...]) -> None:
        self.kept: dict[str, int] = {}
        self.prefixes = prefixes
        self.no_loop = tracked.random.random() < NO_LOOP
        self._tracked = tracked
        self._process = process
        # What is under way: what was read, what it has written itself, or what has changed.
        self._line: deque[Seen | Own | Invalidated] = deque()
        # What was read and is not answered yet; and whether a write is not: what follows on a connection waits for it.
        self._seen: list[Seen] = []
        self.waits = False
        self._number = process.tracking.begin(self, not prefixes)
        for prefix in prefixes:
            process.tracking.follow(self._number, prefix)

    def leave(self) -> None:
        """Keep nothing any more."""
        self._process.tracking.end(self._number, self.prefixes)

    def read(self, later: bool) -> None:
        """Read some keys. later: they are answered some time later, as those of a transaction are."""
        found = [(key, _version(self._lookup(key))) for key in self._tracked.keys(self._process, self)]
        if later:
            self._seen += found
            return
        self._line += found
        if not self.prefixes:
            self._process.tracking.note(self._number, [key for key, _ in found])

    @property
    def owes(self) -> bool:
        """True if something was read and is not answered yet."""
        return bool(self._seen)

    def answer(self) -> None:
        """Answer what was read before."""
        seen, self._seen = self._seen, []
        self._line += seen
        self._process.tracking.note_seen(self._number, [(key, version, None) for key, version in seen])

    def write_own(self, key: str) -> None:
        """Write ``key``, having removed it now and then, and keep that once it is answered."""
        own = [commands.set_(key, b"own", 0)]
        if self._tracked.random.random() < 0.3:
            own.insert(0, commands.delete(key))
        self.waits = True

        def done(outcome: Outcome) -> Callable[[], None]:
            made = [] if isinstance(outcome, ReplicationError) else [*written_in(own, outcome)]
            self._process.tracking.wrote(self._number, made)

            def answered() -> None:
                self.waits = False
                self._line.extend(Own(key, left) for key, _, left in made)

            return answered

        self._process.inbox.submit(own, done, WRITE_S)

    def invalidate(self, message: Invalidated) -> None:
        """Take what the node tells."""
        self._line.append(message)
        self._tracked.told += 1

    def write(self) -> None:
        """Nothing waits for a reader."""

    def take(self, count: int) -> None:
        """Let some of what is under way come."""
        while self._line and count:
            count -= 1
            what = self._line.popleft()
            if isinstance(what, Own):
                # Of what it has not read, or was told of since, nothing is noted.
                if what.key in self.kept or what.key.startswith(self.prefixes):
                    self.kept[what.key] = what.version
            elif not isinstance(what, Invalidated):
                key, version = what
                self.kept[key] = version
            elif what.keys is None:
                self.kept.clear()
            else:
                for name in what.keys:
                    self.kept.pop(name.decode(), None)

    def check(self) -> None:
        """Check what is kept, if nothing is under way."""
        tracking = self._process.tracking
        if self._line or tracking._due or tracking._changed or tracking._later:
            return
        for key, version in self.kept.items():
            # What has expired, and is not removed yet, may be kept until it is.
            held = self._process.machine.contents.get(key)
            if version not in (_version(held), _version(self._lookup(key))):
                self._tracked.cluster.checks.complain(
                    f"tracked: a client of {self._process.name} keeps {key!r} at version {version}, and it has {held}"
                )

    def _lookup(self, key: str) -> Entry | None:
        return self._process.machine.lookup(key, self._process.clock.now_ms())


class Tracked:
    """Those who read from the processes of a run and keep what they have read."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.random = Random(f"{cluster.seed} readers")
        self.told = 0
        # Whether some write themselves: not where the contents, or the traffic, are to be somebody's alone.
        self.writes = False
        self.runs = self.random.random() < HOW_OFTEN
        self._readers: dict[Process, list[SimReader]] = {}
        if self.runs:
            cluster.scheduler.at(self.random.expovariate(1 / PAUSE_S), self._go_on)

    def keys(self, process: Process, reader: SimReader) -> list[str]:
        """Return some keys that a client reads: what is there, or what it has read before."""
        there, before = [*process.machine.contents.raw], [*reader.kept]
        found = [self.random.choice(there) for _ in range(self.random.choice((1, 2, 4))) if there]
        if before and self.random.random() < 0.4:
            found.append(self.random.choice(before))
        return [key for key in found if not reader.prefixes or key.startswith(reader.prefixes)]

    def _go_on(self) -> None:
        random = self.random
        self.cluster.scheduler.at(random.expovariate(1 / PAUSE_S), self._go_on)
        processes = [process for process in self.cluster.processes if self.cluster.following.is_right(process)]
        if processes:
            process = random.choice(processes)
            process.loop.call_soon(self._act, process)

    def _act(self, process: Process) -> None:
        random = self.random
        if not process.node.may_read:
            return
        readers = self._readers.setdefault(process, [])
        if len(readers) < READERS_MAX:
            readers.append(SimReader(self, process, random.choice(PREFIXES)))
        reader = random.choice(readers)
        if self.writes and reader.no_loop and not reader.waits and not reader.owes and random.random() < WRITES:
            self._write(reader, process)
        chance = random.random()
        if reader.waits:
            reader.take(random.choice((0, 1, 1000)))
        elif chance < 0.45:
            reader.read(later=random.random() < 0.4)
        elif chance < 0.6:
            reader.answer()
        elif chance < 0.95:
            reader.take(random.choice((1, 3, 1000)))
        elif chance < 0.97:
            readers.remove(reader)
            reader.leave()
        for each in readers:
            each.check()

    def _write(self, reader: SimReader, process: Process) -> None:
        """Have a client write a key, and others at the same moment."""
        key = self.random.choice(OWN_KEYS)
        if self.random.random() < 0.5:
            self._write_of_another(process, key)
        reader.write_own(key)
        for _ in range(self.random.choice((0, 1, 2))):
            self._write_of_another(process, key)

    def _write_of_another(self, process: Process, key: str) -> None:
        removes = self.random.random() < 0.3
        command = commands.delete(key) if removes else commands.set_(key, b"another's", 0)
        process.inbox.submit([command], lambda outcome: lambda: None, WRITE_S)

    def check(self) -> None:
        """Check, some time after the last change, that nobody keeps what has changed."""
        for process, readers in self._readers.items():
            if process.loop.alive and self.cluster.following.is_right(process):
                for reader in readers:
                    reader.take(1000)
                    reader.check()


def _version(entry: Entry | None) -> int:
    return 0 if entry is None else entry[VERSION]
