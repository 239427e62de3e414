"""EventLog: what happens to a node and its cluster, in sentences for people: the latest are kept, and the log is told of each.

1. It finds events by comparing what is with what was: the node looks when its leader or the settings have changed, and ten times
   a second. So whatever code makes a change tells of it, and no path of a request or an entry pays for it.
2. What a starting node finds in its log is no news: until it has caught up, only its start and its leaders are events.
3. An event is a line of the log, at the level warning if somebody should look. It is none where the part of the node that
   it happens to has a line for it: ends of connections, this node's own roles, and most of what makes a check fail.
4. It keeps the latest EVENTS_MAX events and their texts are cut, so its memory is bounded whatever happens.
5. It has no clocks of its own.
6. Numbers grow across starts of the node, so that who asks for what is new after a restart misses nothing: each start counts
   from the ms of its moment, and no node has an event each ms.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Final

from cacheflow.config import build_version
from cacheflow.machine.state.settings import Member, Settings
from cacheflow.raft.node import RaftNode
from cacheflow.results import Event

logger = logging.getLogger(__name__)

EVENTS_MAX: Final = 200
# Characters of an event's text: ids and addresses have up to 256 each, and the details of checks may be long.
TEXT_CHARS_MAX: Final = 600
# Seconds between two looks at the readiness checks.
CHECKS_EVERY_S: Final = 1.0
# A node that looks ten times a second and has not for so many seconds was stopped or suspended, or its loop was kept.
STOOD_STILL_S: Final = 2.0
# Seconds without a leader after which nothing can be written for longer than elections take: they are over in a tenth of it.
NO_LEADER_S: Final = 5.0
# Seconds for which a member with a connection must count as down: one that has just connected has not answered yet.
SILENT_S: Final = 0.5
# The readiness checks of which the log is told by whatever makes them fail: the check is an event, and no second line.
LOGGED_ELSEWHERE: Final = frozenset(
    ("listener", "node", "stays", "member", "leader", "contents", "disk", "snapshots", "tasks")
)
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
        # The number of the latest event.
        self._number = wall_ms()
        # What was noted last.
        self._leader: tuple[str, int] | None = None
        # Since when no leader is known, in seconds; infinite once that was noted, None while there is one.
        self._without_s: float | None = None
        self._caught_up = False
        self._table = node.configurations.settled
        self._settings = Settings()
        self._level = 0
        self._restore: tuple[str, bool] | None = None
        self._reloads = 0
        # {id of a member that does not answer: whether the log was told}; and since when, in seconds, those with a connection do
        # not answer of whom that was not noted yet.
        self._down: dict[str, bool] = {}
        self._silent_s: dict[str, float] = {}
        # The names of the checks that failed when they were looked at last; None until all have passed once.
        self._failing: frozenset[str] | None = None
        self._checked_s = self._looked_s = passed()
        self._note("node", f"this node started, with CacheFlow {build_version()}", node.node_id, None)

    def latest(self) -> tuple[Event, ...]:
        """Return the latest events of this node, oldest first. Any thread may call it."""
        return self._latest

    def look(self) -> None:
        """Note as events what has changed since the last look. Called ten times a second, or more often."""
        now_s = self._passed()
        still_s, self._looked_s = now_s - self._looked_s, now_s
        if still_s > STOOD_STILL_S:
            self._note("node", f"this node stood still for {still_s:.1f} s", self._node.node_id, logging.WARNING)
        self._look_at_leader(now_s)
        if not self._caught_up:
            machine = self._node.replica.machine
            if not (self._node.may_read and machine.settings.version):
                return
            self._caught_up = True
            self._take_what_is()
        self._look_at_members()
        self._look_at_silence(now_s)
        self._look_at_contents()
        if now_s - self._checked_s >= CHECKS_EVERY_S:
            self._checked_s = now_s
            self._look_at_checks()

    def _note(self, what: str, text: str, about: str | None = None, level: int | None = logging.INFO) -> None:
        """Keep an event, and log it at ``level``; None if its line of the log is another part's."""
        text = text[:TEXT_CHARS_MAX]
        self._number += 1
        event = Event(self._number, self._wall_ms() / 1000, what, text, about)
        self._latest = (*self._latest[1 - EVENTS_MAX :], event)
        if level is not None:
            logger.log(level, "%s", text)

    def _take_what_is(self) -> None:
        node, machine = self._node, self._node.replica.machine
        self._table, self._settings, self._level = node.configurations.settled, machine.settings, machine.level
        self._restore, self._reloads = self._restore_now(), node.building.reloads_total
        self._down = dict.fromkeys(node.peers.down_ids(), False)

    def _look_at_leader(self, now_s: float) -> None:
        node, route = self._node, self._node.links.route
        leader = None if route is None else (route.leader_id, route.term)
        if leader != self._leader:
            self._leader = leader
            if leader is None:
                self._note("leader", f"no leader is known, in term {node.term}")
            else:
                leader_id, term = leader
                level = None if leader_id == node.node_id else logging.INFO
                self._note("leader", f"{leader_id} leads in term {term}", leader_id, level)
        if leader is not None or not node.configurations.latest.members or node.replica.failure is not None:
            self._without_s = None
        elif self._without_s is None:
            self._without_s = now_s
        elif now_s - self._without_s >= NO_LEADER_S:
            self._without_s = math.inf
            away = ", ".join(sorted(node.peers.down_ids()))
            why = f"no answer of {away}" if away else "this node hears none, although all are connected"
            text = f"no leader for {NO_LEADER_S:g} s, so nothing can be written: {why}"
            self._note("leader", text, level=logging.WARNING)

    def _look_at_members(self) -> None:
        table = self._node.configurations.settled
        # Contents that are loaded anew from this node's disk begin with an older table.
        if table.index > self._table.index:
            before, self._table = self._table, table
            for about, text in member_changes(before.members, table.members):
                self._note("member", text, about)

    def _look_at_silence(self, now_s: float) -> None:
        node, members, before, was_silent_s = self._node, self._table.members, self._down, self._silent_s
        down, is_connected = node.peers.down_ids(), node.links.is_connected
        # A new leader does not know yet who was down before it: only who is connected has come back.
        self._down = {
            node_id: told
            for node_id, told in before.items()
            if node_id in members and (node_id in down or not is_connected(node_id))
        }
        for node_id in sorted(before.keys() & members.keys() - self._down.keys()):
            self._note("member", f"{node_id} answers again", node_id, logging.INFO if before[node_id] else None)
        self._silent_s = {}
        for node_id in sorted(down & members.keys() - before.keys()):
            text = f"{node_id} does not answer"
            if not is_connected(node_id):
                self._down[node_id] = False
                self._note("member", text, node_id, None)
                continue
            since_s = self._silent_s[node_id] = was_silent_s.get(node_id, now_s)
            if now_s - since_s >= SILENT_S:
                # Followers send each other nothing: a follower knows it from its leader.
                text += (
                    ", although its connection stands: does its process hang, or its disk, or is its machine off?"
                    if node.is_leader
                    else " the leader"
                )
                self._down[node_id] = True
                self._note("member", text, node_id, logging.WARNING)

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
            self._note(
                "contents",
                "the contents were wrong and were loaded anew from this node's disk",
                node.node_id,
                logging.WARNING,
            )

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
                level = None if name in LOGGED_ELSEWHERE else logging.WARNING
                self._note("alarm", f"the check {name!r} fails: {detail}", self._node.node_id, level)
        for name in sorted(self._failing - failing.keys()):
            level = None if name in LOGGED_ELSEWHERE else logging.INFO
            self._note("alarm", f"the check {name!r} passes again", self._node.node_id, level)
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
