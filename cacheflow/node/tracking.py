"""Tracking: which keys clients have read and keep in caches of their own, and who is told that one has changed.

1. A key that a client has read is noted, and told once when it changes: written, touched, deleted, expired or evicted. A client
   of *prefixes* is told of every key under them, and nothing is noted for it.
2. Changes are seen when an entry is applied, from its effects, and told at the end of that turn, before anybody is answered: who
   has the answer to a write finds no older value in a cache of this node's clients, but for what is on its way to them. What is
   too much for a turn goes on in slices of the next ones (net/slices.py).
3. A read that is answered later than it was made (a transaction, a script) is noted with what it saw: is that not there any
   more, the client is told behind the answer. So is one that leaves out its own writes, where something else is under a key by
   then: it keeps what it has written once that is answered, which may be long after it took place here. What comes behind an
   answer is told in a later turn.
4. Where it is not known what has changed, or it is too much to be told key by key, all clients are told to forget all that they
   keep: for a condemned prefix, a snapshot or restore that replaces the contents, and while this node may not be asked.
5. The table is bounded: what was noted first is told and forgotten first.

Not safe for concurrent use: the event loop owns it. Any thread may call ``metrics``.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from itertools import islice
from sys import getsizeof
from typing import Final, NamedTuple

from cacheflow.contract import Invalidated, Reader, Written
from cacheflow.errors import InvalidRequest
from cacheflow.machine.effects import CONDEMNED, Effect
from cacheflow.machine.language.databases import MARK, PREFIX_BYTES
from cacheflow.machine.state.entries import EXPIRES_AT_MS, VERSION, Entry
from cacheflow.net.slices import Slices
from cacheflow.node.feed import WHAT

# Bytes of the table: some 300,000 keys of 25 bytes that one client each has read, and more where several read the same.
NOTED_BYTES_MAX = 64 * 1024 * 1024
# What a key costs beside its text, what the second client that has read it does (they are a set then), and each further one.
KEY_COST: Final = 130
SECOND_COST: Final = 220
READER_COST: Final = 170
# The prefixes of all clients of a node, and how many different lengths these may have: each length is a look for every change.
PREFIXES_MAX = 10_000
LENGTHS_MAX = 32
# Keys that wait to be told; where there are more, clients are told to forget everything. To note as many is some 5 ms.
DUE_MAX = 10_000
# Names in one message to clients of prefixes.
NAMES_AT_ONCE = 500
# Clients to whom a slice writes by itself: each is a system call. All others are written to in slices of the channels.
WRITTEN_AT_ONCE = 64
# Keys of a table that is given up, freed between two looks at the time.
FREED_AT_ONCE: Final = 256

# (key as the machine has it, version of the change)
Change = tuple[str, int]
# The number of a client, or those of several.
Numbers = int | set[int]


class _Due(NamedTuple):
    """Something that is to be told to clients.

    message: what all of them are told.  changes: the keys that it names, with the versions of their changes.
    to: the numbers of the clients that were not told yet.
    is_noted: True if they had read the one key of ``changes``, which is noted no more.
    is_behind: True for what is told behind an answer of an earlier turn: nothing is left out of it.
    """

    message: Invalidated
    changes: Sequence[Change]
    to: Iterator[int]
    is_noted: bool = False
    is_behind: bool = False


class _Own(NamedTuple):
    """What a client has written itself: the versions of these changes, and the version that each key has by the last of them."""

    versions: set[int]
    left: dict[str, int]


class Tracking:
    """The keys that clients of a node have read and keep, and the messages that tell these clients what has changed.

    slices: does long work a part at a time.  tell: calls a function at the end of the present turn, before what answers clients.
    find: returns the live entry of a key, or None.
    A client is known by a number, which ``begin`` gives to it.
    """

    def __init__(
        self,
        slices: Slices,
        tell: Callable[[Callable[[], None]], object],
        find: Callable[[str], Entry | None],
    ) -> None:
        # The clients, by number; and the numbers of those whose reads are noted.
        self.readers: dict[int, Reader] = {}
        self._noting: dict[int, None] = {}
        self._slices = slices
        self._tell = tell
        self._find = find
        self._begun = 0
        # {key: the number of the client that has read it, or a set of numbers}, the oldest note first. Gone clients stay.
        self._table: OrderedDict[str, Numbers] = OrderedDict()
        # How many pairs of a key and a client these are, and their bytes.
        self._noted = 0
        self._noted_bytes = 0
        # By prefix: the numbers of the clients that are told of its keys. How many prefixes have each length.
        self._prefixes: dict[str, dict[int, None]] = {}
        self._lengths: dict[int, int] = {}
        # What is to be told: by prefix the names that have changed, with the versions; and all that has its place in the queue.
        self._changed: dict[str, dict[str, list[int]]] = {}
        self._due: deque[_Due] = deque()
        self._due_keys = 0
        # What is to be told in a later turn, behind the answers of this one.
        self._later: list[_Due] = []
        self._scheduled = False
        # What clients have written themselves and do not want to be told of, while something is due; and what of that clients
        # of prefixes are answered in this turn: (number, key, the version that the key has by it).
        self._own: dict[int, _Own] = {}
        self._answered: list[tuple[int, str, int]] = []
        # Tables of before, which are freed in slices.
        self._given_up: list[OrderedDict[str, Numbers]] = []
        self._told = self._evicted = self._forgotten = 0

    # Clients ----------------------------------------------------------------------------------------------------------

    def begin(self, reader: Reader, notes: bool) -> int:
        """Count ``reader``, a client's connection, among those that are told changes; return its number.

        notes: whether its reads are noted; else it has prefixes.
        """
        self._begun += 1
        self.readers[self._begun] = reader
        if notes:
            self._noting[self._begun] = None
        return self._begun

    def follow(self, number: int, prefix: str) -> None:
        """Tell the client ``number`` of every key, in any database, that begins with ``prefix`` and changes.

        Raises InvalidRequest if the node has no room for the prefix.
        """
        if prefix not in self._prefixes:
            if len(self._prefixes) >= PREFIXES_MAX:
                raise InvalidRequest(f"a node has at most {PREFIXES_MAX} prefixes of tracking clients")
            if len(prefix) not in self._lengths and len(self._lengths) >= LENGTHS_MAX:
                raise InvalidRequest(f"the prefixes of a node's tracking clients have at most {LENGTHS_MAX} lengths")
            self._prefixes[prefix] = {}
            self._lengths[len(prefix)] = self._lengths.get(len(prefix), 0) + 1
        self._prefixes[prefix][number] = None

    def end(self, number: int, prefixes: Iterable[str]) -> None:
        """Tell the client ``number``, which had ``prefixes``, no more changes."""
        self.readers.pop(number, None)
        self._noting.pop(number, None)
        self._own.pop(number, None)
        for prefix in prefixes:
            numbers = self._prefixes[prefix]
            del numbers[number]
            if not numbers:
                del self._prefixes[prefix]
                self._lengths[len(prefix)] -= 1
                if not self._lengths[len(prefix)]:
                    del self._lengths[len(prefix)]
        if not self._noting:
            self._give_up_table()

    # Reads ------------------------------------------------------------------------------------------------------------

    def note(self, number: int, keys: Iterable[str]) -> None:
        """Note that the client ``number`` has read ``keys``, as they are in memory now."""
        table = self._table
        for key in keys:
            numbers = table.get(key)
            if numbers is None:
                table[key] = number
                self._noted_bytes += getsizeof(key) + KEY_COST
            elif numbers == number:
                continue
            elif isinstance(numbers, int):
                table[key] = {numbers, number}
                self._noted_bytes += SECOND_COST
            elif number in numbers:
                continue
            else:
                numbers.add(number)
                self._noted_bytes += READER_COST
            self._noted += 1
        while self._noted_bytes > NOTED_BYTES_MAX:
            key, numbers = table.popitem(last=False)
            self._evicted += 1
            self._taken_out(key, numbers)
            self._put(key, 0, numbers)
        self._schedule()

    def note_seen(self, number: int, seen: Iterable[tuple[str, int, int | None]]) -> None:
        """Note that the client ``number`` has read keys some time ago; tell it, behind its answer, which have changed since then.

        Those count that its reads are noted of, or that are under its prefixes.
        seen: each key with the version and the expiry that it had, both 0 if it was absent; an expiry of None: any.
        """
        notes = number in self._noting
        for key, version, expires_at_ms in seen:
            entry = self._find(key)
            present, ends = (0, 0) if entry is None else (entry[VERSION], entry[EXPIRES_AT_MS])
            if present != version or expires_at_ms not in (ends, None):
                if notes or self._follows(number, key):
                    self._tell_later(number, Invalidated([_name(key)]))
            elif notes:
                self.note(number, (key,))

    def _follows(self, number: int, key: str) -> bool:
        """Return whether the client ``number`` is told of ``key`` because it has a prefix of it."""
        name = key[PREFIX_BYTES:] if key.startswith(MARK) else key
        return any(number in self._prefixes.get(name[:length], ()) for length in self._lengths)

    def wrote(self, number: int, written: Iterable[Written]) -> None:
        """Note what the client ``number`` has ``written`` itself, and is answered in this turn: of that it wants no message."""
        if number not in self.readers:
            return
        own = self._own.setdefault(number, _Own(set(), {}))
        for key, version, left in written:
            own.versions.add(version)
            own.left[key] = left
            if number not in self._noting:
                self._answered.append((number, key, left))
        self._tell(self._hand_out)

    def _version_of(self, key: str) -> int:
        entry = self._find(key)
        return 0 if entry is None else entry[VERSION]

    # Changes ----------------------------------------------------------------------------------------------------------

    def applied(self, effects: Iterable[Effect]) -> None:
        """Look for keys among ``effects``, the changes of an applied log entry, that clients are to be told of."""
        for effect in effects:
            kind = effect[0]
            if kind in WHAT:
                key, version = effect[1], effect[2]
                numbers = self._table.pop(key, None)
                if numbers is not None:
                    self._taken_out(key, numbers)
                    self._put(key, version, numbers)
                # Where too much is due, all are told to forget everything.
                if self._lengths and self._due_keys <= DUE_MAX:
                    self._note_for_prefixes(key, version)
            elif kind == CONDEMNED:
                self._condemned(effect[1])
        if self._due or self._changed:
            self._tell(self._hand_out)

    def _taken_out(self, key: str, numbers: Numbers) -> None:
        """Count ``key`` and the ``numbers`` of those who have read it, which were in the table, no more."""
        self._noted_bytes -= getsizeof(key) + KEY_COST
        if isinstance(numbers, int):
            self._noted -= 1
        else:
            self._noted -= len(numbers)
            self._noted_bytes -= SECOND_COST + READER_COST * (len(numbers) - 2)

    def _put(self, key: str, version: int, numbers: Numbers) -> None:
        """Have the change of ``key`` told to those who had read it, whose numbers are ``numbers``."""
        to: Collection[int] = (numbers,) if isinstance(numbers, int) else numbers
        self._due.append(_Due(Invalidated([_name(key)]), ((key, version),), iter(to), is_noted=True))
        self._due_keys += 1

    def _tell_later(self, number: int, message: Invalidated) -> None:
        """Have ``message`` told to the client ``number`` behind what it is answered in this turn."""
        self._later.append(_Due(message, (), iter((number,)), is_behind=True))
        self._schedule()

    def _note_for_prefixes(self, key: str, version: int) -> None:
        name = key[PREFIX_BYTES:] if key.startswith(MARK) else key
        for length in self._lengths:
            prefix = name[:length]
            if prefix in self._prefixes and len(prefix) == length:
                changed = self._changed.setdefault(prefix, {})
                if name not in changed:
                    self._due_keys += 1
                changed.setdefault(name, []).append(version)

    def _condemned(self, gone: str) -> None:
        """Have clients forget everything, because all keys that begin with ``gone`` were removed at once."""
        name = gone[PREFIX_BYTES:] if gone.startswith(MARK) else gone
        told = dict(self._noting)
        for prefix, numbers in self._prefixes.items():
            if prefix.startswith(name) or name.startswith(prefix):
                told |= numbers
        self._give_up_table()
        self._tell_to_forget(told)

    def forget(self) -> None:
        """Have all clients forget all that they keep: it is not known what has changed, or this node may not be asked."""
        self._forgotten += 1
        self._give_up_table()
        self._due.clear()
        self._changed.clear()
        self._due_keys = 0
        self._tell_to_forget(self.readers)

    def _tell_to_forget(self, numbers: Iterable[int]) -> None:
        self._due.append(_Due(Invalidated(None), (), iter(list(numbers))))
        self._schedule()

    def _give_up_table(self) -> None:
        if self._table:
            self._given_up.append(self._table)
            self._table = OrderedDict()
            self._noted = self._noted_bytes = 0
            if len(self._given_up) == 1:
                self._slices.put(self._free)

    def _free(self) -> None:
        """Free tables that were given up, for a slice of the event loop's time; go on in a later one if something is left."""
        while self._given_up:
            table = self._given_up[-1]
            for _ in range(min(FREED_AT_ONCE, len(table))):
                table.popitem()
            if not table:
                self._given_up.pop()
            if self._slices.over():
                break
        if self._given_up:
            self._slices.put(self._free)

    # Telling ----------------------------------------------------------------------------------------------------------

    def _schedule(self) -> None:
        """Have what is due told in a slice of a later turn."""
        if (self._due or self._changed or self._later) and not self._scheduled:
            self._scheduled = True
            self._slices.put(self._go_on)

    def _go_on(self) -> None:
        self._scheduled = False
        self._due += self._later
        self._due_keys += sum(len(each.message.keys or ()) for each in self._later)
        self._later.clear()
        self._hand_out()

    def _gather(self) -> None:
        """Make messages of the names that have changed under prefixes, for a slice of the event loop's time."""
        changed = self._changed
        while changed:
            prefix = next(iter(changed))
            names = changed.pop(prefix)
            numbers = self._prefixes.get(prefix)
            if numbers is None:
                self._due_keys -= len(names)
                continue
            left = iter(names.items())
            while some := list(islice(left, NAMES_AT_ONCE)):
                message = Invalidated([name.encode() for name, _ in some])
                # Told, unless all of its changes are the client's own.
                changes = [(name, version) for name, versions in some for version in versions]
                self._due.append(_Due(message, changes, iter(list(numbers))))
                if self._slices.over():
                    later = dict(left)
                    if later:
                        changed[prefix] = later
                    return

    def _hand_out(self) -> None:
        """Give clients what is due, for a slice of the event loop's time; go on in a later one if something is left."""
        if self._due_keys > DUE_MAX:
            self.forget()
        for number, key, left in self._answered:
            if self._version_of(key) != left and self._follows(number, key):
                self._tell_later(number, Invalidated([_name(key)]))
        self._answered.clear()
        self._gather()
        due, over = self._due, self._slices.over
        given: dict[Reader, None] = {}
        is_over = False
        while due and not is_over:
            first = due[0]
            for number in first.to:
                reader = self.readers.get(number)
                if reader is not None:
                    self._give(reader, number, first)
                    given[reader] = None
                if over():
                    is_over = True
                    break
            else:
                due.popleft()
                self._due_keys -= len(first.message.keys or ())
        for reader in islice(given, WRITTEN_AT_ONCE):
            reader.write()
        self._schedule()
        if not (due or self._changed):
            self._own.clear()

    def _give(self, reader: Reader, number: int, due: _Due) -> None:
        """Give ``reader``, the client with that ``number``, what is ``due``, without what it has written itself."""
        own = self._own.get(number) if self._own and not due.is_behind else None
        message: Invalidated | None = due.message
        if own is not None and due.changes:
            message = self._without(own, number, due)
        elif own is not None:
            # Everything is to be forgotten, also what the client has written itself, which it keeps once that is answered.
            self._tell_later(number, due.message)
        if message is not None:
            self._told += 1
            reader.invalidate(message)

    def _without(self, own: _Own, number: int, due: _Due) -> Invalidated | None:
        """Return what the client ``number`` is told of what is ``due``, without what it has written itself; None for nothing.

        own: what it has written itself, and keeps once that is answered.
        """
        if not due.is_noted:
            others = dict.fromkeys(key for key, version in due.changes if version not in own.versions)
            return Invalidated([key.encode() for key in others]) if others else None
        ((key, version),) = due.changes
        if version not in own.versions or key not in own.left:
            return due.message
        if self._version_of(key) != own.left[key]:
            self._tell_later(number, due.message)
        elif number in self._noting:
            # The client keeps what it has written: noted anew, the key's next change is told.
            self.note(number, (key,))
        return None

    def metrics(self) -> dict[str, float]:
        """Return how many clients track keys, and how many keys, by metrics' names. Any thread may call it."""
        return {
            "tracking_clients": len(self.readers),
            "tracking_keys": len(self._table),
            "tracking_reads": self._noted,
            "tracking_bytes": self._noted_bytes,
            "tracking_prefixes": len(self._prefixes),
            "tracking_invalidations_total": self._told,
            "tracking_evicted_total": self._evicted,
            "tracking_forgotten_total": self._forgotten,
        }


def _name(key: str) -> bytes:
    """Return the bytes by which clients know ``key``, as the machine has it: without the mark of its database."""
    return (key[PREFIX_BYTES:] if key.startswith(MARK) else key).encode()
