"""Commands on their way through Raft: numbered, sent, sent again, answered once.

1. A command gets its number when it is first sent; the machine applies only the next number of a session, so what is
   sent again is never applied twice.
2. Pending commands are sent again exactly when the route to the leader changes, from the lowest unanswered number.
3. The answer comes from this node's own machine: committed *and* visible here.
4. What no block can carry ends before it gets a number: a number that is never sent would hold up all that follow it.
5. At the deadline a command that was never sent is withdrawn (NoLeader: safe to retry); a sent one ends as
   OutcomeUnknown for its caller and keeps its number until the machine has answered, but is not sent again: a no-op takes
   its number. A block tells its last moment, some time after the last deadline in it. So what was told as unknown takes
   place within a bound, or never.

Not safe for concurrent use: the event loop owns it.
"""

from __future__ import annotations

import functools
import logging
import math
from bisect import insort
from collections import deque
from collections.abc import Callable
from typing import Protocol

from cacheflow.contract import Outcome
from cacheflow.errors import AnswerNotKept, NoLeader, NotCommitted, OutcomeUnknown, Overloaded, ReplicationError
from cacheflow.machine.language import commands
from cacheflow.machine.language.commands import Command, Result
from cacheflow.machine.machine import Settled
from cacheflow.machine.state.contents import Contents
from cacheflow.machine.state.entries import Entry
from cacheflow.node.growing import Growing
from cacheflow.node.large_calls import CALL_BYTES_MAX
from cacheflow.node.proposal import Proposal

logger = logging.getLogger(__name__)

# The most commands, and their bytes, that wait on one node; more are refused at once rather than kept until they time out. One
# of the largest calls fits, and many small ones.
PENDING_MAX = 100_000
PENDING_BYTES_MAX = 80 * 1024 * 1024
# The limits of one block, and of all blocks on their way together: one node sends only so much to a leader that stands still, and
# an entry has so much of each node at most. The machine applies it in one step of the loop, 2 to 6 us for each command, and each
# of those in a batch counts; one that takes longer, on a large hash, counts as so many more (``Proposal.weight``). One
# connection of a wire port sends as many at once.
BLOCK_COMMANDS_MAX = 1024
BLOCK_BYTES_MAX = 1024 * 1024
# The largest block that is sent: some small calls, and one as large as it may be. A frame takes it, with what the node sends in
# front of it.
SENT_BYTES_MAX = CALL_BYTES_MAX + BLOCK_BYTES_MAX + 1024
# After a block of so many callers the next one waits until as many are here again, GATHER_S seconds at most: those who were
# answered together will probably write again together, and the flushes and messages of an entry cost more than the commands
# in it (PostgreSQL's commit_siblings and commit_delay).
GATHER_FROM = 4
GATHER_S = 0.0005
# The results of commands that the machine has not run, because their session or their number was not the expected one, or that
# it ran before and cannot answer any more.
_REFUSALS = (commands.UNKNOWN_SESSION, commands.OUT_OF_ORDER, commands.NOT_KEPT)
# Seconds after which the opening of a session is sent again: it has no number, so it may get lost unnoticed.
OPEN_AGAIN_S = 1.0
# How long after the last deadline in a block its commands may still take place. Were it shorter than what this node's estimate
# of the cluster's time may lag behind its leader's (the time of a message, and of a pause), a fresh write could be too late.
LATE_MS = 1000
# Seconds without progress after which pending commands are sent again: when the network has lost the last message, and the
# connection still stands, nobody reports the gap. What is large takes longer: a second more for each so many bytes.
SEND_AGAIN_S = 1.0
SEND_AGAIN_BYTES_PER_S = 1024 * 1024
# Entries that may be committed meanwhile: those that the leader had before the block, and its own.
SEND_AGAIN_ENTRIES = 4


class Sender(Protocol):
    """Interface: the methods of a node's Raft part through which the node sends blocks of commands to the leader."""

    def propose(self, blocks: list[bytes], crowded: bool = False, again: bool = False) -> bool: ...

    def is_sending(self) -> bool: ...

    def log_progress(self) -> tuple[int, bool]: ...


class Proposals:
    """The commands of this process that have no result yet, and the session in which they are numbered.

    opening: the command that opens the session.  clock: returns monotonic seconds.  later: the event loop's ``call_later``.
    cluster_ms: returns the cluster's time as this node knows it.
    uses: returns (key, number of local reads) pairs since it was last called; they go with the next block.
    peek: returns the item of a key in this node's memory, None for an absent key.
    wake: called with the function that wakes whoever waits for a call, as the call's ``done`` has returned it.
    collect: fetches the calls that wait in the node's inbox and sends all; without it only calls fetched before are sent.
    """

    def __init__(
        self,
        sender: Sender,
        *,
        opening: Command,
        clock: Callable[[], float],
        cluster_ms: Callable[[], int],
        uses: Callable[[], list[tuple[str, int]]],
        later: Callable[[float, Callable[[], None]], object],
        peek: Callable[[str], Entry | None],
        wake: Callable[[Callable[[], None]], object],
        collect: Callable[[], None] | None = None,
    ) -> None:
        self._sender = sender
        self._opening = opening
        self._nonce = opening[4]
        self._clock = clock
        self._cluster_ms = cluster_ms
        self._uses = uses
        self._later = later
        self._growing = Growing(peek)
        self._wake = wake
        self._collect = collect or self.flush
        self._gathering = False
        # Callers that the entries applied last have answered; callers for whom the next block waits.
        self._answered_callers = 0
        self._expected = 0
        self._session = 0
        self._open_sent_at: float | None = None
        self._has_route = False
        self._next_number = 1
        self._unsent: deque[Proposal] = deque()
        self._unsent_callers = 0
        self._sent: deque[Proposal] = deque()
        # The weights and bytes of the proposals in ``_sent``.
        self._sent_weight = 0
        self._sent_bytes = 0
        # The number of commands of calls that are not answered yet, and their bytes.
        self.pending = 0
        self.pending_bytes = 0
        # The number of calls that were answered, and of those that have ended with an error, by its class.
        self.answered_total = 0
        self.errors_total: dict[type[ReplicationError], int] = {}
        self._resend_due = False
        # The machine has refused a block because one before it is missing.
        self._gap = False
        # The lowest unanswered number, since when it has been the same and nothing has waited here, and the commit index then.
        self._watched = 0
        self._watched_at = 0.0
        self._watched_index = 0
        self._closed = False
        # Proposals whose last command, a removal, has taken place, and whose keys are still being counted; in the order of their
        # removals, which is that in which the counts come. Their commands are pending until then.
        self.counting: list[Proposal] = []
        # No deadline of a proposal that waits is before this.
        self._next_deadline = math.inf

    def holds_back(self, callers: int) -> bool:
        """True if new commands would have to wait: many have no result yet, or the next block waits for those of more callers.

        callers: how many callers the new commands have. Any thread may ask.
        """
        return (
            self._sent_weight >= BLOCK_COMMANDS_MAX
            or self._sent_bytes >= BLOCK_BYTES_MAX
            or (self._gathering and callers + self._unsent_callers < self._expected)
        )

    def add(self, proposal: Proposal) -> None:
        """Queue ``proposal``, the commands of one call, for the next block to the leader.

        If this node has stopped or too many commands have no result yet, the call ends at once with an error.
        """
        if self._closed:
            self._finish(proposal, NoLeader("this node has stopped; the write was not sent"))
            return
        count = len(proposal.commands)
        if self.pending + count > PENDING_MAX or self.pending_bytes + proposal.size > PENDING_BYTES_MAX:
            self._finish(proposal, Overloaded("too many writes wait on this node"))
            return
        self.pending += count
        self.pending_bytes += proposal.size
        if proposal.deadline < self._next_deadline:
            self._next_deadline = proposal.deadline
        self._unsent.append(proposal)
        self._unsent_callers += proposal.callers

    def flush(self) -> None:
        """Send the queued commands to the leader as one block, if a leader is reached and the block need not wait for more."""
        if not self._has_route:
            return
        if not self._session:
            self._open_session()
            return
        if self._resend_due:
            self._resend()
        if self._resend_due or not self._unsent or self.holds_back(0):
            return
        self._gathering = False
        taken: list[Proposal] = []
        block: list[Command] = []
        size, weight = self._sent_bytes, self._sent_weight
        latest = 0.0
        callers = 0
        first = number = self._next_number
        unsent = self._unsent
        while unsent and size < BLOCK_BYTES_MAX:
            proposal = unsent[0]
            if proposal.fields:
                # By now there is more in these hashes, or on its way to them, than when the caller was told.
                work = max(proposal.work, self._growing.work_of(proposal.fields))
                proposal.weight, proposal.work = proposal.weight + work - proposal.work, work
            # What is heavier than any block may be goes alone.
            if weight and weight + proposal.weight > BLOCK_COMMANDS_MAX:
                break
            if proposal.fields:
                self._growing.sent(proposal.fields)
            taken.append(unsent.popleft())
            proposal.first = number
            number += len(proposal.commands)
            block.extend(proposal.commands)
            weight += proposal.weight
            size += proposal.size
            callers += proposal.callers
            if proposal.deadline > latest:
                latest = proposal.deadline
        if not taken:
            return
        try:
            packed = commands.encode_block(self._session, first, self._lowest(), block, self._last_moment_ms(latest))
        except Exception:  # msgpack raises several kinds
            packed = b""
        if not 0 < len(packed) <= SENT_BYTES_MAX:
            self._growing.ended([command for proposal in taken for command in proposal.fields])
            unsent.extendleft(reversed(taken))
            self._refuse_what_cannot_be_sent()
            self.flush()
            return
        self._next_number = number
        self._sent.extend(taken)
        self._sent_weight = weight
        self._sent_bytes = size
        self._unsent_callers -= callers
        # A block that the route has not taken is sent again when the route changes, or by the timer.
        uses = self._uses()
        # In one message and in front: alone they would pass for the block of this node that the leader waits for.
        before = [_block_of_uses(uses)] if uses else []
        self._resend_due = not self._sender.propose([*before, packed], callers >= GATHER_FROM)

    def _last_moment_ms(self, deadline: float) -> int:
        """Return the cluster's time in ms after which a command must not be applied any more.

        deadline: until when the command's caller waits, in seconds of this node's monotonic clock.
        """
        return self._cluster_ms() + int((deadline - self._clock()) * 1000) + LATE_MS

    def _refuse_what_cannot_be_sent(self) -> None:
        """End, with NotCommitted, the queued calls whose commands the log cannot carry, so that the other calls can be sent.

        The commands of each other call are packed to learn their exact size, so that no block of them becomes too large.
        """
        kept: deque[Proposal] = deque()
        for proposal in self._unsent:
            try:
                size = len(commands.encode_block(0, 0, 0, proposal.commands))
                if size > SENT_BYTES_MAX - BLOCK_BYTES_MAX:
                    raise ValueError(f"it takes {size} bytes")
                self.pending_bytes += size - proposal.size
                proposal.size = size
                kept.append(proposal)
            except Exception as error:
                logger.error("a command was let through that the log cannot carry, a defect of CacheFlow: %r", error)
                self._release(proposal)
                self._finish(proposal, NotCommitted(f"the log cannot carry this command; it was not sent: {error}"))
        self._unsent = kept
        self._unsent_callers = sum([proposal.callers for proposal in kept])

    def send_uses(self, uses: list[tuple[str, int]]) -> None:
        """Send ``uses``, pairs of a key and its number of local reads, to the leader in a block of their own."""
        self._sender.propose([_block_of_uses(uses)])

    def route_changed(self, has_route: bool) -> None:
        """Send all pending commands again, because the leader, its term or the connection to it has changed."""
        self._has_route = has_route
        self._open_sent_at = None
        self._resend_due = bool(self._sent)
        self.flush()

    def answers_missed(self) -> None:
        """Have the sent commands without a result sent again: a snapshot has replaced the log entries with the results.

        The state machine has kept these results and answers the repeated commands with them.
        """
        self._gap = bool(self._sent)

    def applied(self, settled: list[Settled]) -> None:
        """Answer this session's pending commands with the results of applied blocks, or note that the session was opened.

        settled: for each block its session, the number of its first command, and its results.
        """
        self._answered_callers = 0
        for session, first, results in settled:
            if session == 0:
                if not self._session:
                    self._look_for_session(results)
            elif session == self._session:
                if results and first == self._lowest() and results[0][0] not in _REFUSALS:
                    self._settle_in_order(results)
                else:
                    self._settle_one_by_one(first, results)
        if self._answered_callers >= GATHER_FROM and not self._gathering:
            self._gathering = True
            # The callers just answered will probably write again at once: wait for them, so that one block takes them all.
            self._expected = self._answered_callers + self._unsent_callers
            self._later(GATHER_S, functools.partial(self._end_gathering, self._next_number))
        if self._unsent:
            self.flush()

    def tell_counts(self, contents: Contents) -> None:
        """Answer the calls that removed many keys, once the state machine has counted the removed keys.

        contents: the state machine's items and its counts of removed keys.
        """
        condemned = contents.condemned
        counted = 0
        for proposal in self.counting:
            revision = _removed_at(proposal)
            # A machine that was restored from an older snapshot comes to the removal again.
            if condemned.is_counting(revision) or contents.revision < revision:
                break
            counted += 1
        if not counted:
            return
        told, self.counting = self.counting[:counted], self.counting[counted:]
        for proposal in told:
            self._release(proposal)
            revision = _removed_at(proposal)
            if revision in condemned.counts:
                proposal.results[-1] = [commands.OK, condemned.counts[revision]]
                self._finish(proposal, proposal.results)
            else:
                self._finish(proposal, AnswerNotKept("the keys are removed; how many there were is not known any more"))

    def _end_gathering(self, first: int) -> None:
        """Stop waiting for more callers and send the block that begins with command number ``first``, if it is not sent yet."""
        if self._gathering and first == self._next_number:
            self._gathering = False
            self._collect()

    def expire(self) -> None:
        """End the calls past their deadline; send pending commands again after a block was lost or when there is no progress.

        A timer calls this method.
        """
        now = self._clock()
        if self._next_deadline <= now:
            self._end_overdue(now)
        lowest = self._lowest()
        if not self._sent:
            self._watched = 0
        elif lowest != self._watched or self._sender.is_sending():
            self._watched, self._watched_at = lowest, now
            self._watched_index, _ = self._sender.log_progress()
        elif now - self._watched_at >= SEND_AGAIN_S + self._sent_bytes / SEND_AGAIN_BYTES_PER_S:
            self._watched_at = now
            index, waits = self._sender.log_progress()
            # While an entry is on its way, what was sent waits behind it or is in it: another copy would only follow.
            if not waits or index >= self._watched_index + SEND_AGAIN_ENTRIES:
                self._gap = True
                self._watched_index = index
        if self._gap:
            self._gap = False
            self._resend_due = True
        self.flush()

    def _end_overdue(self, now: float) -> None:
        kept: deque[Proposal] = deque()
        for proposal in self._unsent:
            if proposal.deadline > now:
                kept.append(proposal)
                continue
            self._release(proposal)
            self._finish(proposal, NoLeader("no leader took the write in time; it was not sent and is safe to retry"))
        self._unsent = kept
        self._unsent_callers = sum([proposal.callers for proposal in kept])
        for proposal in self._sent:
            if proposal.deadline <= now:
                self._finish(proposal, OutcomeUnknown("the write was sent and no answer came in time"))
        for proposal in self.counting:
            if proposal.deadline <= now:
                self._release(proposal)
                self._finish(proposal, OutcomeUnknown("the keys are removed; they were not counted in time"))
        self.counting = [proposal for proposal in self.counting if proposal.done is not None]
        waiting = [
            proposal.deadline for proposal in (*self._unsent, *self._sent, *self.counting) if proposal.done is not None
        ]
        self._next_deadline = min(waiting, default=math.inf)

    def close(self) -> None:
        """End all waiting calls, because the node stops: unsent ones with NoLeader, all others with OutcomeUnknown."""
        self._closed = True
        for proposal in self._unsent:
            self._finish(proposal, NoLeader("this node stops; the write was not sent"))
        for proposal in self._sent:
            self._finish(proposal, OutcomeUnknown("this node stopped before the answer came"))
        for proposal in self.counting:
            self._finish(proposal, OutcomeUnknown("the keys are removed; this node stopped before they were counted"))
        self.counting.clear()
        self._unsent.clear()
        self._unsent_callers = 0
        self._sent.clear()
        self._sent_weight = self._sent_bytes = 0
        self.pending = self.pending_bytes = 0

    # ----------------------------------------------------------------------------------------------------------------

    def _open_session(self) -> None:
        now = self._clock()
        if self._open_sent_at is None or now - self._open_sent_at >= OPEN_AGAIN_S:
            self._open_sent_at = now
            self._sender.propose([commands.encode_block(0, 0, 0, [self._opening])], again=True)

    def _look_for_session(self, results: list[Result]) -> None:
        for result in results:
            if len(result) == 3 and result[0] == commands.OK and result[2] == self._nonce:
                self._session = result[1]
                self._next_number = 1
                # A wait that has begun would end at a number of the session before, which never comes.
                self._gathering = False
                self.flush()
                return

    def _lowest(self) -> int:
        return self._sent[0].first + len(self._sent[0].results) if self._sent else self._next_number

    def _send(self, first: int, block: list[Command], deadline: float) -> bool:
        """Send again the commands in ``block``, numbered from ``first`` on; return False if the connection has not taken them.

        deadline: the latest time until which a caller of these commands waits; 0 if no caller does, and all are no-ops.
        """
        lowest = self._lowest()
        until_ms = self._last_moment_ms(deadline) if deadline else 0
        packed = commands.encode_block(self._session, first, lowest, block, until_ms)
        return self._sender.propose([packed], again=first == lowest)

    def _resend(self) -> None:
        self._resend_due = False
        block: list[Command] = []
        size = weight = 0
        latest = 0.0
        first = self._lowest()
        for proposal in self._sent:
            rest = proposal.commands[len(proposal.results) :]
            if proposal.done is None:
                # Told as unknown, and perhaps done again by the caller: it takes place now or never.
                block.extend([commands.noop()] * len(rest))
            else:
                block.extend(rest)
                size += proposal.size
                latest = max(latest, proposal.deadline)
            weight += proposal.weight
            if weight >= BLOCK_COMMANDS_MAX or size >= BLOCK_BYTES_MAX:
                if not self._send(first, block, latest):
                    self._resend_due = True
                    return
                first += len(block)
                block, size, weight, latest = [], 0, 0, 0.0
        if block and not self._send(first, block, latest):
            self._resend_due = True

    def _settle_in_order(self, results: list[Result]) -> None:
        """Give ``results``, those of one block, to the unanswered commands with the lowest numbers.

        The caller has checked that the block's first command was not refused for its number; then none of the block was.
        """
        sent = self._sent
        answered: list[Proposal] = []
        begin, count = 0, len(results)
        while begin < count and sent:
            proposal = sent[0]
            end = begin + len(proposal.commands) - len(proposal.results)
            proposal.results += results[begin:end]
            if end > count:
                break
            begin = end
            answered.append(sent.popleft())
        self._answer(answered)

    def _settle_one_by_one(self, first: int, results: list[Result]) -> None:
        for number, result in enumerate(results, first):
            lowest = self._lowest()
            if not self._sent or number < lowest:
                continue
            status = result[0]
            if status == commands.UNKNOWN_SESSION:
                self._session_lost()
                return
            if status == commands.OUT_OF_ORDER:
                # A block before this one did not arrive. Those behind it are refused likewise: the timer sends again, once.
                self._gap = True
                return
            if number > lowest:
                continue
            proposal = self._sent[0]
            if status == commands.NOT_KEPT:
                # No AnswerNotKept: it may have been refused, or too late. And a write that its client has numbered, or given a
                # key, is asked for again: scopes and keys keep their answers beside the session's.
                self._finish(proposal, OutcomeUnknown("the answer to the write was lost on its way to this node"))
            proposal.results.append(result)
            if len(proposal.results) == len(proposal.commands):
                self._answer([self._sent.popleft()])

    def _answer(self, answered: list[Proposal]) -> None:
        """End the calls ``answered`` with the results of their commands, which have all come; they count as sent no more."""
        weight = size = callers = count = 0
        for proposal in answered:
            weight += proposal.weight
            size += proposal.size
            callers += proposal.callers
            count += len(proposal.commands)
            if proposal.fields:
                self._growing.ended(proposal.fields)
        self._sent_weight -= weight
        self._sent_bytes -= size
        self._answered_callers += callers
        self.pending -= count
        self.pending_bytes -= size
        for proposal in answered:
            results = proposal.results
            # A block is too late as a whole, and a removal that is counted comes last: so the last result tells.
            status = results[-1][0] if results else commands.OK
            done = proposal.done
            if done is None:
                callers -= proposal.callers
            elif status == commands.TOO_LATE:
                callers -= proposal.callers
                self._finish(proposal, _too_late(results))
            elif status == commands.SWEEPING:
                callers -= proposal.callers
                self.pending += len(proposal.commands)
                self.pending_bytes += proposal.size
                insort(self.counting, proposal, key=_removed_at)
            else:
                self._wake(done(results))
        self.answered_total += callers

    def _session_lost(self) -> None:
        """End, with OutcomeUnknown, all calls that were sent, and open a new session: the cluster has closed the present one.

        Another start of this member has taken that session's place, or the member was removed.
        """
        self._session = 0
        self._open_sent_at = None
        lost, self._sent = self._sent, deque()
        self._sent_weight = self._sent_bytes = 0
        for proposal in lost:
            self._growing.ended(proposal.fields)
            self._release(proposal)
            self._finish(proposal, OutcomeUnknown("the session was closed before the answer came"))
        self.flush()

    def _release(self, proposal: Proposal) -> None:
        self.pending -= len(proposal.commands)
        self.pending_bytes -= proposal.size

    def _finish(self, proposal: Proposal, outcome: Outcome) -> None:
        done, proposal.done = proposal.done, None
        if done is not None:
            if isinstance(outcome, ReplicationError):
                self.errors_total[type(outcome)] = self.errors_total.get(type(outcome), 0) + proposal.callers
            else:
                self.answered_total += proposal.callers
            self._wake(done(outcome))


def _removed_at(proposal: Proposal) -> int:
    """Return the revision at which the last command of ``proposal``, a call, removed keys, which are still being counted."""
    revision: int = proposal.results[-1][1]
    return revision


def _too_late(results: list[Result]) -> ReplicationError:
    """Return the error for a call, given the ``results`` of its commands, the last of which came too late to take place.

    The error is NotCommitted if all commands were too late, else OutcomeUnknown.
    """
    if all(result[0] == commands.TOO_LATE for result in results):
        return NotCommitted("the write came too late to take place; it is safe to retry")
    return OutcomeUnknown("a part of this call took place, and the rest came too late")


def _block_of_uses(uses: list[tuple[str, int]]) -> bytes:
    """Return a packed block that reports ``uses``, pairs of a key and its number of local reads.

    The block belongs to no session, and is not sent again when it gets lost.
    """
    return commands.encode_block(0, 0, 0, [commands.recency(uses)])
