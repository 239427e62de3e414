"""Rules about votes taken away: who may have one, who loses it, and what must be left."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from cacheflow.machine.state.settings import Member
from cacheflow.raft.membership.changes import Reconfiguration
from cacheflow.raft.membership.configuration import Configuration
from cacheflow.raft.membership.votes import Votes


def give_observers_a_vote(patch: pytest.MonkeyPatch) -> None:
    """Take an observer for a spare, which is given a vote when one is missing."""

    def _ready_spare(self: Any, latest: Configuration) -> Member | None:
        ready = [member for member in latest.members.values() if not member.voter and not self.lack_of(member.id)]
        return replace(ready[0], observer=False) if ready else None

    patch.setattr(Votes, "_ready_spare", _ready_spare)


def give_a_demoted_voter_its_vote_again(patch: pytest.MonkeyPatch) -> None:
    """Let a demotion make a spare of a voter, so that it soon votes again."""
    decide = Reconfiguration._decide_demotion

    def _decide_demotion(self: Any, latest: Configuration, change: Any) -> Configuration | None:
        after = decide(self, latest, change)
        if after is None:
            return None
        return after.with_member(replace(after.members[change.member.id], observer=False))

    patch.setattr(Reconfiguration, "_decide_demotion", _decide_demotion)


def demote_whoever_is_left(patch: pytest.MonkeyPatch) -> None:
    """Take votes without a look at who is down among the others."""
    patch.setattr(Votes, "_stands", lambda self, table: True)
    without_vote = Reconfiguration._without_vote

    def _without_vote(self: Any, latest: Configuration, after: Configuration, change: Any) -> Configuration | None:
        if change.kind != "demote" or change.member.id == self._membership.node_id:
            return without_vote(self, latest, after, change)
        return after

    patch.setattr(Reconfiguration, "_without_vote", _without_vote)


def lead_on_without_a_vote(patch: pytest.MonkeyPatch) -> None:
    """Let a leader that is to be demoted take its own vote, and hand leadership over to nobody."""
    patch.setattr(Reconfiguration, "_without_vote", lambda self, latest, after, change: after)


def swap_two_votes_at_once(patch: pytest.MonkeyPatch) -> None:
    """Give the vote of a dead voter to a spare in one member table."""
    next_table = Votes.next_table

    def swapped(self: Any, latest: Configuration) -> Configuration | None:
        after = next_table(self, latest)
        if after is None or len(after.voters) >= len(latest.voters):
            return after
        ready = self._ready_spare(latest)
        return after if ready is None else after.with_member(replace(ready, voter=True))

    patch.setattr(Votes, "next_table", swapped)


def replace_whoever_is_silent(patch: pytest.MonkeyPatch) -> None:
    """Give away the vote of a voter as soon as it is down."""

    def _dead(self: Any, latest: Configuration) -> str | None:
        down = [node_id for node_id in latest.voters if node_id in self._peers.down]
        return down[0] if down and self._ready_spare(latest) is not None else None

    patch.setattr(Votes, "_dead", _dead)


def replace_nobody(patch: pytest.MonkeyPatch) -> None:
    """Leave a dead voter its vote for ever."""
    patch.setattr(Votes, "_dead", lambda self, latest: None)


def leave_everybody_a_vote(patch: pytest.MonkeyPatch) -> None:
    """Take no vote back when replicas is lowered."""
    next_table = Votes.next_table
    patch.setattr(
        Votes, "next_table", lambda self, latest: next_table(self, latest) if self._missing(latest) >= 0 else None
    )
