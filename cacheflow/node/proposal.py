"""Proposal: one call's commands on their way through Raft, and what they cost the state machine."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from cacheflow.contract import Outcome
from cacheflow.machine.language import commands
from cacheflow.machine.language.commands import Command, Result
from cacheflow.node.growing import HEAVY, on_fields

# A function that is called once, on the loop, with the outcome of a proposal.
Settle = Callable[[Outcome], None]


class Proposal:
    """One call: its commands, and those of their results that have arrived.

    done: called once, on the event loop, with the outcome of the call.  callers: how many callers wait for that.
    first: the number of the call's first command in the session; 0 before the commands are sent.  work: what the commands cost
    the state machine beyond their number, counted in plain commands.  weight: the number of the commands, those in batches
    counted singly, plus ``work``.  fields: those of the commands that are on fields of a hash or set.
    """

    __slots__ = ("callers", "commands", "deadline", "done", "fields", "first", "results", "size", "weight", "work")

    def __init__(
        self,
        commands_: Sequence[Command],
        size: int,
        deadline: float,
        done: Settle | None,
        callers: int = 1,
        work: int = 0,
    ) -> None:
        self.commands = commands_
        # One command, most often: without the call.
        is_one = len(commands_) == 1 and commands_[0][0] not in HEAVY
        self.weight = (1 if is_one else commands.weight_of(commands_)) + work
        self.work = work
        self.fields: Sequence[Command] = () if is_one else on_fields(commands_)
        self.size = size
        self.deadline = deadline
        self.done = done
        self.callers = callers
        self.first = 0
        self.results: list[Result] = []
