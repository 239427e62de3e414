"""Short ways to drive a machine in tests, and the checks that must hold after every entry."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from cacheflow.machine.language import commands as c
from cacheflow.machine.language.databases import DATABASES, database_of
from cacheflow.machine.machine import CacheMachine, Settled
from cacheflow.machine.state.condemnations import Condemnation
from cacheflow.machine.state.entries import entry_bytes


class Driver:
    """A machine, and the index and time of its next entry."""

    def __init__(self, machine: CacheMachine | None = None) -> None:
        self.machine = machine or CacheMachine()
        self.at_ms = self.machine.now_ms or 1

    def apply(self, payload: bytes) -> list[Settled]:
        return self.machine.apply(self.machine.applied_index + 1, payload)

    def entry(self, *blocks: bytes, at: int | None = None) -> list[Settled]:
        if at is not None:
            self.at_ms = at
        return self.apply(c.encode_entry(self.at_ms, blocks))

    def run(self, *commands: Any, at: int | None = None) -> list[c.Result]:
        """Apply ``commands`` in one entry outside any session."""
        return self.entry(c.encode_block(0, 0, 0, commands), at=at)[0][2]

    def one(self, command: Any, at: int | None = None) -> c.Result:
        return self.run(command, at=at)[0]

    def table(self, *member_ids: str) -> None:
        """Have a table of these members, each with the incarnation "1"."""
        self.one(c.members("cluster", [[member_id, "1", "h:1", "h:2", True, False] for member_id in member_ids]))

    def session(self, member_id: str = "a", start: int = 1) -> int:
        if member_id not in self.machine.members:
            self.table(*self.machine.members, member_id)
        number = self.one(c.open_session(member_id, "1", start, f"start {start}"))[1]
        assert isinstance(number, int)
        return number

    def send(self, session: int, first: int, *commands: Any, lowest: int | None = None) -> list[c.Result]:
        block = c.encode_block(session, first, first if lowest is None else lowest, commands)
        return self.entry(block)[0][2]

    def put(self, *keys: str, data: bytes = b"x", ttl_ms: int = 0) -> None:
        for result in self.run(*(c.set_(key, data, 1, None, ttl_ms) for key in keys)):
            assert result[0] == c.OK

    def order(self) -> list[str]:
        return [key for key, _ in self.machine.contents.items.ordered()]

    def live(self) -> list[str]:
        """The keys of all databases that a reader finds, sorted."""
        machine = self.machine
        return [key for key in sorted(machine.contents.raw) if machine.lookup(key, machine.now_ms) is not None]

    def told(self) -> list[tuple[int, str]]:
        """(kind, key) of the effects of the latest entry."""
        return [(effect[0], effect[1]) for effect in self.machine.contents.effects]

    def removed(self, prefix: str) -> int:
        """Delete by ``prefix`` and return how many keys there were, after as many entries as that takes."""
        status, revision = self.one(c.delete_prefix(prefix))
        assert status == c.SWEEPING
        return self.count(revision)

    def count(self, revision: int) -> int:
        """The number of keys of a condemnation, after as many entries as that takes."""
        while self.machine.contents.condemned.is_counting(revision):
            self.run()
        return self.machine.contents.condemned.counts[revision]

    def work_off(self) -> int:
        """Apply entries without commands until nothing waits; return how many that took."""
        entries = 0
        while self.machine.next_due_ms() == 0:
            self.run()
            entries += 1
        return entries

    def copy(self) -> Driver:
        """A driver of a machine restored from a snapshot of this one."""
        return Driver(CacheMachine.restore(list(self.machine.snapshot())))


def sets(keys: Iterable[str], data: bytes = b"x", ttl_ms: int = 0) -> list[c.Command]:
    return [c.set_(key, data, 1, None, ttl_ms) for key in keys]


def assert_invariants(machine: CacheMachine) -> None:
    """What is true between any two entries, whatever came."""
    contents = machine.contents
    raw = contents.raw
    assert raw is contents.items.raw
    order = list(contents.items.ordered())
    assert sorted(raw) == sorted(key for key, _ in order)
    assert len(contents.items) == contents.items.currsize == len(raw) == len(machine.contents.raw)
    uses = [count for _, count in order]
    assert uses == sorted(uses)
    assert all(count >= 1 for count in uses)
    assert machine.contents.bytes_used == sum(entry_bytes(key, entry[0], entry[2]) for key, entry in raw.items())
    # What is over the limits or dead has its turns.
    assert contents.behind or len(raw) <= (machine.settings.max_items or len(raw))
    assert contents.behind or contents.bytes_used <= (machine.settings.max_bytes or contents.bytes_used)
    assert_condemned(machine)
    with_ttl = [entry for entry in raw.values() if entry[4]]
    assert contents.with_ttl == len(with_ttl)
    assert contents.expiries_ms == sum(entry[4] for entry in with_ttl)
    assert len(contents.due) == len(with_ttl)
    if not contents.behind:
        assert contents.due.next_ms() == min((entry[4] for entry in with_ttl), default=None)
    versions = [entry[3] for entry in raw.values()]
    assert len(set(versions)) == len(versions)
    assert all(0 < version <= machine.contents.revision for version in versions)
    told = contents.written + contents.deleted + contents.expired + contents.evicted + contents.condemnations
    # A restore raises the revision, too, and a recovery does at once.
    if machine.restoring is None:
        assert (contents.revision - told) % c.RECOVERY_RAISE == 0
    else:
        assert told < contents.revision
    for _, session in machine.sessions:
        assert len(session.kept) <= session.last
    assert machine.digest_at(machine.applied_index) == machine.digest


def assert_condemned(machine: CacheMachine) -> None:
    """What the counts and readers say of what is condemned is what a look at each item says."""
    contents = machine.contents
    condemned, raw = contents.condemned, contents.raw
    present = condemned.present
    revisions = [one.revision for one in present]
    assert revisions == sorted(set(revisions))
    assert 0 <= condemned.passing <= len(present)
    assert contents.items.passed() <= (len(raw) if condemned.passing else 0)

    def meets(one: Condemnation, key: str, version: int) -> bool:
        in_target = key.startswith(one.prefix) and not (one.only_database_0 and database_of(key))
        return in_target and version <= one.revision

    dead = {key for key, entry in raw.items() if any(meets(one, key, entry[3]) for one in present)}
    assert {key for key, entry in raw.items() if contents.get(key) is not entry} == dead
    assert all(contents.get(key) is None for key in dead)
    assert contents.has_dead or not dead
    if not present:
        assert contents.get == raw.get
    whole = [one for one in present if one.is_whole]
    counted = [key for key, entry in raw.items() if not any(meets(one, key, entry[3]) for one in whole)]
    assert contents.census.dead.keys == len(raw) - len(counted)
    assert contents.count_of(None) == len(counted)
    for number in range(DATABASES):
        theirs = [raw[key][4] for key in counted if database_of(key) == number]
        assert contents.count_of(number) == len(theirs)
        assert contents.expiring_of(number) == (len(theirs) - theirs.count(0), sum(theirs))
