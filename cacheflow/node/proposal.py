"""Proposal: one call's commands on their way through Raft, and what they cost the state machine."""

from __future__ import annotations

from collections.abc import Sequence

from cacheflow.contract import Done
from cacheflow.machine.language.commands import Command, Result
from cacheflow.node.growing import HEAVY, on_fields


class Proposal:
    """One call: its commands, and those of their results that have arrived.

    done: called once, on the event loop, with the outcome of the call; None once it was called.
    callers: how many callers wait for the outcome.  first: the number of the call's first command in the session, once sent.
    work: what the commands cost the state machine beyond their number, counted in plain commands.  weight: the number of the
    commands, those in batches counted singly, plus ``work``.  fields: those commands that are on fields of a hash or set.
    """

    __slots__ = ("callers", "commands", "deadline", "done", "fields", "first", "results", "size", "weight", "work")

    def __init__(
        self,
        commands_: Sequence[Command],
        size: int,
        weight: int,
        deadline: float,
        done: Done | None,
        callers: int = 1,
        work: int = 0,
    ) -> None:
        self.commands = commands_
        self.size = size
        self.weight = weight
        self.work = work
        # One command, most often, and a plain one: without the call.
        is_plain = len(commands_) == 1 and commands_[0][0] not in HEAVY
        self.fields: Sequence[Command] = () if is_plain else on_fields(commands_)
        self.deadline = deadline
        self.done = done
        self.callers = callers
        self.first = 0
        self.results: list[Result] = []
