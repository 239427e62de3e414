"""EventLog: what has lately happened to a node and its cluster, in sentences for people.

1. It finds events by comparing what is with what was: the node looks when its leader or the settings have changed, and ten times
   a second. So whatever code makes a change tells of it, and no path of a request or an entry pays for it.
2. What a starting node finds in its log is no news: until it has caught up, only its start and its leaders are events.
3. It keeps the latest EVENTS_MAX events and their texts are cut, so its memory is bounded whatever happens.
4. It has no clocks of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Final

from cacheflow.config import build_version
from cacheflow.machine.state.settings import Member, Settings
from cacheflow.raft.node import RaftNode
from cacheflow.results import Event

EVENTS_MAX: Final = 200
# Characters of an event's text: ids and addresses have up to 256 each, and the details of checks may be long.
TEXT_CHARS_MAX: Final = 600
# Seconds between two looks at the readiness checks.
CHECKS_EVERY_S: Final = 1.0
# A node that looks ten times a second and has not for so many seconds was stopped or suspended, or its loop was kept.
STOOD_STILL_S: Final = 2.0
# What is no setting of the cache but tells of its last change.
_NO_SETTINGS: Final = ("version", "changed_by", "changed_at_ms")


class EventLog:
    """The latest events of the node ``node``, oldest first. The event loop owns it; any thread may call ``latest``.

    wall_ms: returns the time of the node's wall clock in ms.
    passed: returns monotonic seconds, which go on while the computer is suspended.
    """

    def __init__(self, node: RaftNode, wall_ms: Callable[[], int], passed: Callable[[], float]) -> None:
        # Returns the node's readiness checks: (name, whether it passed, detail for people) of each.
        self.checks: Callable[[], Sequence[tuple[str, bool, str]]] = tuple
        self._node = node
        self._wall_ms = wall_ms
        self._passed = passed
        # Replaced, never changed: other threads read it.
        self._latest: tuple[Event, ...] = ()
        self._number = 0
        # What was noted last.
        self._leader: tuple[str, int] | None = None
        self._caught_up = False
        self._table = node.configurations.settled
        self._settings = Settings()
        self._level = 0
        self._restore: tuple[str, bool] | None = None
        self._reloads = 0
        self._down: frozenset[str] = frozenset()
        # The names of the checks that failed when they were looked at last; None until all have passed once.
        self._failing: frozenset[str] | None = None
        self._checked_s = self._looked_s = passed()
        self._note("node", f"this node started, with CacheFlow {build_version()}", node.node_id)

    def latest(self) -> tuple[Event, ...]:
        """Return the latest events of this node, oldest first. Any thread may call it."""
        return self._latest

    def look(self) -> None:
        """Note as events what has changed since the last look. Called ten times a second, or more often."""
        now_s = self._passed()
        still_s, self._looked_s = now_s - self._looked_s, now_s
        if still_s > STOOD_STILL_S:
            self._note("node", f"this node stood still for {still_s:.1f} s", self._node.node_id)
        self._look_at_leader()
        if not self._caught_up:
            machine = self._node.replica.machine
            if not (self._node.may_read and machine.settings.version):
                return
            self._caught_up = True
            self._take_what_is()
        self._look_at_members()
        self._look_at_contents()
        if now_s - self._checked_s >= CHECKS_EVERY_S:
            self._checked_s = now_s
            self._look_at_checks()

    def _note(self, what: str, text: str, about: str | None = None) -> None:
        self._number += 1
        event = Event(self._number, self._wall_ms() / 1000, what, text[:TEXT_CHARS_MAX], about)
        self._latest = (*self._latest[1 - EVENTS_MAX :], event)

    def _take_what_is(self) -> None:
        node, machine = self._node, self._node.replica.machine
        self._table, self._settings, self._level = node.configurations.settled, machine.settings, machine.level
        self._restore, self._reloads = self._restore_now(), node.building.reloads_total
        self._down = frozenset(node.peers.down_ids())

    def _look_at_leader(self) -> None:
        route = self._node.links.route
        leader = None if route is None else (route.leader_id, route.term)
        if leader == self._leader:
            return
        self._leader = leader
        if leader is None:
            self._note("leader", f"no leader is known, in term {self._node.term}")
        else:
            self._note("leader", f"{leader[0]} leads, in term {leader[1]}", leader[0])

    def _look_at_members(self) -> None:
        node, table = self._node, self._node.configurations.settled
        if table is not self._table:
            before, self._table = self._table, table
            for about, text in member_changes(before.members, table.members):
                self._note("member", text, about)
        self._down &= table.members.keys()
        down = frozenset(node.peers.down_ids()) & table.members.keys()
        if down == self._down:
            return
        for node_id in sorted(down - self._down):
            self._note("member", f"{node_id} does not answer", node_id)
        # A new leader does not know yet who was down before it: only who is connected has come back.
        back = {node_id for node_id in self._down - down if node.links.is_connected(node_id)}
        for node_id in sorted(back):
            self._note("member", f"{node_id} answers again", node_id)
        self._down = (self._down | down) - back

    def _look_at_contents(self) -> None:
        node, machine = self._node, self._node.replica.machine
        if machine.settings is not self._settings:
            before, self._settings = self._settings, machine.settings
            if text := settings_change(before, machine.settings):
                self._note("settings", text)
        if machine.level != self._level:
            before_level, self._level = self._level, machine.level
            self._note("level", f"the cluster works at feature level {machine.level}, before at {before_level}")
        if (restore := self._restore_now()) != self._restore:
            self._restore = restore
            self._note_restore()
        if node.building.reloads_total != self._reloads:
            self._reloads = node.building.reloads_total
            self._note("contents", "the contents were wrong and were loaded anew from this node's disk", node.node_id)

    def _restore_now(self) -> tuple[str, bool] | None:
        restore = self._node.replica.machine.restoring
        return None if restore is None else (restore.id, restore.ended)

    def _note_restore(self) -> None:
        restore = self._node.replica.machine.restoring
        if restore is None:
            return
        if not restore.ended:
            self._note("restore", f"a restore of {restore.items} items has begun{' online' if restore.online else ''}")
        elif restore.done == restore.items:
            self._note("restore", f"a restore of {restore.items} items is done")
        else:
            self._note("restore", f"a restore was given up, with {restore.done} of {restore.items} items")

    def _look_at_checks(self) -> None:
        checks = self.checks()
        failing = {name: detail for name, passed, detail in checks if not passed}
        if self._failing is None:
            # A node that starts is not ready; that is no alarm.
            if checks and not failing:
                self._failing = frozenset()
            return
        for name, detail in failing.items():
            if name not in self._failing:
                self._note("alarm", f"the check {name!r} fails: {detail}", self._node.node_id)
        for name in sorted(self._failing - failing.keys()):
            self._note("alarm", f"the check {name!r} passes again", self._node.node_id)
        self._failing = frozenset(failing)


def member_changes(before: Mapping[str, Member], after: Mapping[str, Member]) -> list[tuple[str, str]]:
    """Return (member's id, sentence) for each change between two tables of members."""
    told = []
    for member_id in sorted(before.keys() | after.keys()):
        old, new = before.get(member_id), after.get(member_id)
        if new is None:
            told.append((member_id, f"{member_id} is no member any more"))
        elif old is None:
            told.append((member_id, f"{member_id} is a member now, {_kind(new)}, at {new.raft_address}"))
        elif old.incarnation != new.incarnation:
            told.append((member_id, f"{member_id} came back with an empty disk, {_kind(new)}, at {new.raft_address}"))
        else:
            if _kind(old) != _kind(new):
                told.append((member_id, f"{member_id} is {_kind(new)} now"))
            if old.raft_address != new.raft_address:
                told.append((member_id, f"{member_id} is at {new.raft_address} now"))
    return told


def _kind(member: Member) -> str:
    return "a voter" if member.voter else "an observer" if member.observer else "a spare"


def settings_change(before: Settings, after: Settings) -> str:
    """Return which settings of the cluster have changed and who has changed them, as text for people; "" if none has."""
    old, new = asdict(before), asdict(after)
    changes = [
        f"{name.replace('policy', 'eviction')} {_shown(new[name])}, before {_shown(old[name])}"
        for name in new
        if name not in _NO_SETTINGS and old[name] != new[name]
    ]
    by = f" (by {after.changed_by})" if after.changed_by else ""
    return f"settings changed{by}: {'; '.join(changes)}" if changes else ""


def _shown(value: object) -> object:
    return "none" if value is None else value
