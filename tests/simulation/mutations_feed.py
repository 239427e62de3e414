"""What is promised to those who follow the feed, taken away: everything once, in order, or the word that something is missing."""

from __future__ import annotations

from typing import Any

import pytest

from cacheflow.machine import effects
from cacheflow.machine.effects import CONDEMNED
from cacheflow.node import feed
from cacheflow.node.assembly import LocalNode
from cacheflow.node.feed import Feed
from cacheflow.node.positions import ALL, text_of


def begin_an_entry_again(patch: pytest.MonkeyPatch) -> None:
    """Go on from the beginning of the entry in the middle of which a position is."""
    find = Feed.find

    def _find(self: Any, since: Any) -> tuple[int, int]:
        number, seen = find(self, since)
        return (number, 0) if seen else (number, seen)

    patch.setattr(Feed, "find", _find)


def join_before_all_is_told(patch: pytest.MonkeyPatch) -> None:
    """Count a follower among those who keep up before it has been told what they have."""
    follow = Feed.follow

    def _follow(self: Any, follower: Any, since: Any) -> None:
        follow(self, follower, since)
        self._join(follower)

    patch.setattr(Feed, "follow", _follow)


def skip_what_is_forgotten(patch: pytest.MonkeyPatch) -> None:
    """Let who was away for too long go on with the oldest that is kept."""
    tell = Feed._tell_next

    def _tell(self: Any) -> None:
        for follower, (number, _) in self._places.items():
            if number < self._first:
                self._places[follower] = (self._first, 0)
        tell(self)

    patch.setattr(Feed, "_tell_next", _tell)


def tell_on_out_of_touch(patch: pytest.MonkeyPatch) -> None:
    """Let a node that hears no leader keep those who follow it."""
    patch.setattr(LocalNode, "is_in_touch", property(lambda self: self.may_read))


def go_on_over_a_snapshot(patch: pytest.MonkeyPatch) -> None:
    """Keep the feed as it is when a snapshot takes the place of entries."""
    replaced = LocalNode.machine_replaced

    def _replaced(self: Any, machine: Any) -> None:
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(self.feed, "begin_at", lambda index, digest: None)
            replaced(self, machine)

    patch.setattr(LocalNode, "machine_replaced", _replaced)


def forget_what_the_slow_lack(patch: pytest.MonkeyPatch) -> None:
    """Let who takes no more go on with what is new when it takes something again."""
    go_on = Feed.go_on

    def _go_on(self: Any, follower: Any) -> None:
        if follower in self._places:
            self._places[follower] = max(self._places[follower], self._told)
        go_on(self, follower)

    patch.setattr(Feed, "go_on", _go_on)


def tell_nobody_of_what_is_condemned(patch: pytest.MonkeyPatch) -> None:
    """Say nothing of a prefix whose keys are all removed."""
    concerns = feed.concerns
    patch.setattr(feed, "concerns", lambda prefix, effect: effect[0] != CONDEMNED and concerns(prefix, effect))


def tell_the_slow_nothing_of_what_is_condemned(patch: pytest.MonkeyPatch) -> None:
    """Pass over entries in which the prefix of one who lags behind does not stand, whatever else they hold."""
    patch.setattr(effects, "_CONDEMNATION", b"no effect begins like this")


def promise_what_is_not_handed_over(patch: pytest.MonkeyPatch) -> None:
    """Let a heartbeat tell the position up to which all is looked at, also to one who has not been given it yet."""
    position = Feed.told_position

    def _position(self: Any, follower: Any) -> str | None:
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(self, "_handing", {})
            return position(self, follower)

    patch.setattr(Feed, "told_position", _position)


def drop_what_is_not_handed_over(patch: pytest.MonkeyPatch) -> None:
    """Forget at the end of a slice what was to be handed to those who keep up."""
    work = Feed._work

    def _work(self: Any) -> None:
        self._handing.clear()
        work(self)

    patch.setattr(Feed, "_work", _work)


def tell_those_of_no_prefix_alone(patch: pytest.MonkeyPatch) -> None:
    """Tell those who follow a prefix nothing of its keys."""
    concerned = Feed._concerned

    def _concerned(self: Any, effect: Any) -> Any:
        return [follower for follower in concerned(self, effect) if not follower.prefix]

    patch.setattr(Feed, "_concerned", _concerned)


def promise_more_than_was_told(patch: pytest.MonkeyPatch) -> None:
    """Let a heartbeat tell the position of what is applied and not told yet."""

    def _position(self: Any, follower: Any) -> str | None:
        index, _, digest, _ = self.latest
        return text_of(index, ALL, digest)

    patch.setattr(Feed, "told_position", _position)
