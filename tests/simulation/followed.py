"""Those who follow the feed: each is told every change of its keys once and in order, or is told that it missed some.

Whatever happens to nodes, disks and links: a follower whose node dies goes on at another one, from the position that it has.
The draws are this file's own, so that a run without it goes as it went before.
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import TYPE_CHECKING

from cacheflow.contract import Told
from cacheflow.errors import PositionGone
from cacheflow.machine.effects import CONDEMNED, Effect
from cacheflow.net.slices import Call, Slices
from cacheflow.node import positions
from cacheflow.node.feed import WHAT
from cacheflow.node.positions import ALL, Position

if TYPE_CHECKING:
    from simulation.cluster import Cluster, Process

# The limits in a simulation: so few effects that who is away for some seconds misses some.
EFFECTS_MAX = 120
BYTES_MAX = 12_000
AT_ONCE = 2
FOUND_AT_ONCE = 3
LOOKED_MAX = 5
FOUND_MAX = 6
HANDED_AT_ONCE = 1
UNPACKED_MAX = 10
# The part of the runs in which somebody follows; mean seconds between two acts.
HOW_OFTEN = 0.6
PAUSE_S = 0.15
PREFIXES = ("", "", "c", "r", "gone")
# Seconds in which a follower that keeps up is told what was applied on its node.
TOLD_WITHIN_S = 0.5
# For how many ms a node may have heard no leader and still tells changes; so much later at most, in seconds, who follows it knows
# all or is gone: clocks may run at different rates, and what is applied is told in slices.
STALE_MS_MAX = 1000
KNOWN_WITHIN_S = STALE_MS_MAX / 1000 * 1.5 + TOLD_WITHIN_S


class HastySlices:
    """The slices of a loop, of which some are over before anything is done: in a simulation no time passes while a node works."""

    def __init__(self, slices: Slices, random: Random) -> None:
        self._slices = slices
        self._random = random

    def put(self, call: Call) -> None:
        """Call in a later turn."""
        self._slices.put(call)

    def over(self) -> bool:
        """Return whether the slice is over."""
        return self._random.random() < 0.3


class SimFollower:
    """One who follows the changes under a prefix, at one process after the other."""

    def __init__(self, following: Following, prefix: str) -> None:
        self.prefix = prefix
        self.process: Process | None = None
        # Up to where it was told everything; None before the first time, and once it knows that it missed something.
        self.position: Position | None = None
        self._following = following
        self._is_slow = False
        # Since when it follows its process, or takes what that tells.
        self._since = 0.0
        # The position is of the cluster that a recovery has replaced: no node may go on from it.
        self.is_of_before = False
        # Since when it may be behind what its node has applied.
        self._waits = 0

    def act(self) -> None:
        """Go on at another process if this one is gone; be slow for a while; leave; or take a heartbeat's position."""
        following = self._following
        random = following.random
        process = self.process
        if process is None or not process.loop.alive:
            self.process = None
            candidates = [
                each for each in following.cluster.processes if following.is_right(each) and each.node.may_read
            ]
            if candidates:
                self.process = random.choice(candidates)
                self.process.loop.call_soon(self._attach, self.process)
            return
        chance = random.random()
        if chance < 0.1:
            self._is_slow = not self._is_slow
            if not self._is_slow:
                self._since = following.cluster.scheduler.now
                process.loop.call_soon(process.feed.go_on, self)
        elif chance < 0.15:
            process.loop.call_soon(self._leave, process)
        elif chance < 0.4:
            process.loop.call_soon(self.heartbeat, process)
        elif chance < 0.5:
            process.loop.call_soon(process.feed.look)
        else:
            process.loop.call_soon(self._look, process)

    def _attach(self, process: Process) -> None:
        if self.process is not process or not process.is_in_touch:
            self.process = None
            return
        since = self.position
        if since is not None and since.entry > process.node.last_applied:
            # A barrier would let the node catch up.
            self.process = None
            return
        try:
            self._since = self._following.cluster.scheduler.now
            self.position = positions.parse(process.feed.follow(self, since and positions.text_of(*since)))
            if self.is_of_before and since is not None and self._following.is_right(process):
                self._complain(process, "that it goes on, from a position of before the recovery")
        except PositionGone:
            self.process = self.position = None
            self._following.missed += 1
        self.is_of_before = False

    def _leave(self, process: Process) -> None:
        if self.process is process:
            process.feed.unfollow(self)
            self.process = None

    def _look(self, process: Process, again: bool = True) -> None:
        """Leave a node that is out of touch, as those do who serve watches; of any other node nothing old may be missing."""
        following = self._following
        if self.process is not process:
            return
        if not process.is_in_touch:
            self._leave(process)
            return
        now = following.cluster.scheduler.now
        if (
            self._is_slow
            or self.position is None
            or now - self._since < KNOWN_WITHIN_S
            or not following.is_right(process)
        ):
            return
        for where, effect in following.behind(self.position, self.prefix):
            if following.is_old(where[0], KNOWN_WITHIN_S):
                if again:
                    # A process that has slept has learnt it just now, and is telling it.
                    process.loop.call_later(TOLD_WITHIN_S, self._look, process, False)
                else:
                    self._complain(process, f"nothing of {effect} at {where}, for {KNOWN_WITHIN_S} s")
                return

    def heartbeat(self, process: Process) -> None:
        """Take the position that a heartbeat tells, behind which nothing may be missing."""
        told = process.feed.told_position(self) if self.process is process else None
        if told is not None and self.position is not None and self._following.is_right(process):
            position = positions.parse(told)
            for where, effect in self._following.behind(self.position, self.prefix):
                if where <= position[:2]:
                    self._complain(process, f"a heartbeat behind {effect} at {where}, which it was not told")
            if position[:2] >= self.position[:2]:
                self.position = position

    def take(self, changes: list[Told]) -> bool:
        """Check what this follower is told."""
        process = self.process
        assert process is not None
        for told in changes:
            self._following.told += 1
            change = told.change
            position = positions.parse(change.position)
            if not self._following.is_right(process):
                # What a damaged node says means nothing.
                self.position = None
            if self.position is None:
                continue
            expected = next(self._following.behind(self.position, self.prefix), None)
            if expected is None:
                self._complain(process, f"{change}, which has not happened")
                continue
            where, effect = expected
            said = (change.what, change.prefix if change.key is None else change.key, change.version)
            if where != position[:2] or said != _told_as(effect):
                self._complain(process, f"{change} at {position[:2]} and not {effect} at {where}")
            self.position = position
        if self._following.random.random() < 0.1:
            # What is told to many takes several slices: others' heartbeats may come in between.
            self._following.beat_others(self, process)
        return not self._is_slow

    def missed(self) -> None:
        """Begin anew: some changes were missed."""
        self._following.missed += 1
        self.process = self.position = None

    def check(self) -> None:
        """Check that nothing is left to be told but what has happened just now, as an expiry may."""
        process = self.process
        if process is None or not process.loop.alive or self._is_slow or self.position is None:
            return
        for where, effect in self._following.behind(self.position, self.prefix):
            if self._following.is_old(where[0]):
                self._complain(process, f"nothing of {effect} at {where}")

    def _complain(self, process: Process, what: str) -> None:
        self._following.cluster.checks.complain(
            f"followed: {process.name} has told a follower of {self.prefix!r}, at {self.position}, {what}"
        )


class Following:
    """Those who follow the feeds of a run's processes, and what has happened according to the log."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.random = Random(f"{cluster.seed} followers")
        self.missed = self.told = 0
        # The effects of each entry that has any, as the first process had them, in the order of the log.
        self._effects: dict[int, list[Effect]] = {}
        self._indexes: list[int] = []
        # {index: when an entry that has effects was applied first}
        self._applied_at: dict[int, float] = {}
        self.runs = self.random.random() < HOW_OFTEN
        self._followers = [SimFollower(self, prefix) for prefix in PREFIXES] if self.runs else []
        if self.runs:
            cluster.scheduler.at(self.random.expovariate(1 / PAUSE_S), self._go_on)

    def is_right(self, process: Process) -> bool:
        """Return whether what a process says is true."""
        return not process.is_stray and process.name not in self.cluster.checks.damaged

    def recovered(self) -> None:
        """Forget what happened in the cluster that another one has replaced in a recovery."""
        self._effects.clear()
        self._indexes.clear()
        for follower in self._followers:
            follower.is_of_before = follower.position is not None

    def applied(self, process: Process) -> None:
        """Note what the entry that a process has just applied has done."""
        if not self.runs or not self.is_right(process):
            return
        effects, index = process.machine.contents.effects, process.machine.applied_index
        if effects and index not in self._effects:
            self._effects[index] = effects
            self._applied_at[index] = self.cluster.scheduler.now
            self._indexes.append(index)
            if len(self._indexes) > 1 and self._indexes[-2] > index:
                self._indexes.sort()

    def is_old(self, index: int, than_s: float = TOLD_WITHIN_S) -> bool:
        """Return whether the entry ``index`` was applied somewhere more than some seconds ago."""
        return self.cluster.scheduler.now - self._applied_at[index] > than_s

    def behind(self, position: Position, prefix: str) -> Iterator[tuple[tuple[int, int], Effect]]:
        """Yield ((entry, number), effect) of what happened behind a position to keys under a prefix."""
        for index in reversed(self._indexes):
            if index < position.entry:
                first = self._indexes.index(index)
                break
        else:
            first = 0
        for index in self._indexes[first:]:
            effects = self._effects[index]
            for number, effect in enumerate(effects, 1):
                where = (index, ALL if number == len(effects) else number)
                if where > position[:2] and concerns(prefix, effect):
                    yield where, effect

    def _go_on(self) -> None:
        if not self.runs:
            return
        self.cluster.scheduler.at(self.random.expovariate(1 / PAUSE_S), self._go_on)
        self.random.choice(self._followers).act()

    def beat_others(self, follower: SimFollower, process: Process) -> None:
        """Have all followers of a process but this one take a heartbeat."""
        for other in self._followers:
            if other is not follower:
                other.heartbeat(process)

    def check(self) -> None:
        """Check, some time after the last change, that those who follow were told everything."""
        for follower in self._followers:
            follower.check()


def concerns(prefix: str, effect: Effect) -> bool:
    """Return whether an effect is on keys under a prefix, all of which are of database 0 here."""
    if effect[0] == CONDEMNED:
        return str(effect[1]).startswith(prefix) or prefix.startswith(effect[1])
    return effect[0] in WHAT and str(effect[1]).startswith(prefix)


def _told_as(effect: Effect) -> tuple[str, str, int]:
    if effect[0] == CONDEMNED:
        return "delete", effect[1], effect[2]
    return WHAT[effect[0]], effect[1], effect[2]
