"""Inbox: commands that threads give to the node's event loop, and how the loop is woken for them.

A call from another thread wakes the loop once per burst. While the next block gathers, or much is on its way, the loop
looks into the inbox by itself: then no system call is needed.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import threading
from collections import deque
from collections.abc import Callable, Sequence

from cacheflow.contract import Done, Outcome
from cacheflow.errors import NotReady
from cacheflow.machine.language import commands
from cacheflow.machine.language.commands import Command
from cacheflow.node import large_calls
from cacheflow.node.proposal import Proposal
from cacheflow.node.proposals import PENDING_MAX, Proposals
from cacheflow.raft.turn import Turn


class Inbox:
    """Commands on their way from any thread to the node's event loop. Any thread may call ``submit`` and ``barrier``.

    submit: replicates commands.  barrier: waits until this node has applied all writes acknowledged so far, on any node.
    turn: calls functions at the end of the loop's present turn.  run: calls a function within a turn of the node.
    timeout_s: seconds that a call waits for its outcome, unless the caller says how long.
    loop_thread: the identifier of the event loop's thread.
    """

    def __init__(
        self,
        proposals: Proposals,
        turn: Turn,
        run: Callable[[Callable[[], None]], None],
        loop: asyncio.AbstractEventLoop,
        *,
        timeout_s: float,
        loop_thread: int,
    ) -> None:
        self._proposals = proposals
        self._turn = turn
        self._run = run
        self._loop = loop
        self._timeout_s = timeout_s
        self._loop_thread = loop_thread
        # What was asked for since the loop looked last.
        self.waiting: deque[Proposal] = deque()
        self.barriers: deque[Done] = deque()
        self._woken = False

    def submit(self, commands_: Sequence[Command], done: Done, timeout_s: float | None = None, work: int = 0) -> None:
        """Replicate ``commands_`` in order; call the function ``done`` once, on the event loop, with the results or an error.

        The error is a ReplicationError. timeout_s: the most seconds to wait for the results; None: this inbox's default.
        work: what the commands cost the state machine beyond their number, counted in plain commands. Any thread may call it.
        """
        size, number = commands.measured(commands_)
        deadline = self._loop.time() + (self._timeout_s if timeout_s is None else timeout_s)
        if size > large_calls.CALL_BYTES_MAX or len(commands_) > PENDING_MAX:
            large_calls.LargeCall(commands_, functools.partial(self._add, deadline), done).go_on()()
        else:
            self._add(deadline, commands_, size, number, done, work)

    def _add(
        self, deadline: float, commands_: Sequence[Command], size: int, number: int, done: Done, work: int = 0
    ) -> None:
        self.waiting.append(Proposal(commands_, size, number + work, deadline, done, 1, work))
        if not self._proposals.holds_back(len(self.waiting) + len(self.barriers)):
            self._wake()

    def barrier(self, done: Done) -> None:
        """Call the function ``done`` once this node has applied every write that any node acknowledged before this call.

        Calls in the same turn share one log entry. Any thread may call it.
        """
        self.barriers.append(done)
        if not self._proposals.holds_back(len(self.waiting) + len(self.barriers)):
            self._wake()

    def take(self) -> None:
        """Move the calls that wait in this inbox to the node's queue of commands for the leader, and send that queue.

        Called on the node's event loop.
        """
        self._woken = False
        self.empty()
        self._run(self._proposals.flush)

    def empty(self) -> None:
        """Move the calls that wait in this inbox to the node's queue of commands for the leader, without sending that queue.

        Called on the node's event loop.
        """
        if self.barriers:
            # One by one: a thread may be adding another.
            waiting = [self.barriers.popleft() for _ in range(len(self.barriers))]

            def passed(outcome: Outcome) -> Callable[[], None]:
                for done in waiting[1:]:
                    self._turn.defer_wake(done(outcome))
                return waiting[0](outcome)

            deadline = self._loop.time() + self._timeout_s
            self._proposals.add(Proposal([commands.noop()], 0, 1, deadline, passed, len(waiting)))
        inbox = self.waiting
        while inbox:
            self._proposals.add(inbox.popleft())

    def refuse(self) -> None:
        """Answer every call that waits in this inbox with NotReady, because the node's event loop has ended.

        Any thread may call this."""
        self._woken = False
        with contextlib.suppress(IndexError):  # somebody else takes them too
            while True:
                self._turn.defer_wake(self.barriers.popleft()(NotReady("this node is stopped")))
        with contextlib.suppress(IndexError):
            while True:
                proposal = self.waiting.popleft()
                if proposal.done is not None:
                    self._turn.defer_wake(proposal.done(NotReady("this node is stopped")))

    def _wake(self) -> None:
        if not self._woken:
            self._woken = True
            if threading.get_ident() == self._loop_thread:
                # No system call to wake a loop that runs.
                self._turn.defer_send(self.take)
                return
            try:
                self._loop.call_soon_threadsafe(self.take)
            except RuntimeError:  # the loop was closed meanwhile
                self.refuse()
