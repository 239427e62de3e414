"""Leaving: how a member is removed. Any node takes the request, the leader decides, the answer says what is certain.

The removal, as any other change of a member, is asked for again when the leader changes meanwhile, always of the same
incarnation. So an attempt whose answer was lost does not turn into "there is no such node", and one that comes late cannot
hit a newcomer.

A node that leaves by itself (``Leaving``) asks for its own removal, and notes before that on its disk that this is its own wish
(``raft/log/departure.py``).
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Callable
from pathlib import Path

from cacheflow.errors import CacheFlowError, MemberConflict, MemberUnknown, NoLeader, NotReady, OutcomeUnknown
from cacheflow.raft.log.departure import (
    Departure,
    forget_departure,
    read_departure,
    remove_unfinished,
    write_departure,
)
from cacheflow.raft.log.disk import Disk
from cacheflow.raft.log.journal import Submit
from cacheflow.raft.membership.changes import (
    BEHIND,
    CHANGED,
    CONFLICT,
    KNOWN,
    NO_LEADER,
    REMOVED,
    UNKNOWN,
    UNSURE,
    WAITING_MS,
    ChangeDone,
)
from cacheflow.raft.node import RaftNode

logger = logging.getLogger(__name__)

# Seconds for which one attempt waits for the leader's answer.
ATTEMPT_S = 4.0
# Seconds between two attempts.
AGAIN_S = 0.05


async def remove(node: RaftNode, node_id: str, timeout_s: float) -> None:
    """Remove the member ``node_id`` from the cluster, by a request to the leader, and return once that is committed.

    node: the Raft part of the node that asks. Runs on that node's event loop. Raises MemberUnknown, MemberConflict (the
    cluster cannot do without the member now), NoLeader, NotReady (the node that asks is out of the cluster itself),
    OutcomeUnknown.
    """
    was_known = node_id in node.configurations.latest.members
    try:
        await settle(node, node.reconfiguration.remove, node_id, "removed", timeout_s)
    except MemberUnknown:
        if not was_known:
            raise
    except NotReady:
        if node_id != node.node_id or node.removal.removed_at is None:
            raise


async def settle(
    node: RaftNode, ask: Callable[[str, str, ChangeDone], None], node_id: str, changed: str, timeout_s: float
) -> None:
    """Have the leader change the member ``node_id`` in the way that ``ask`` requests, and return once that is committed.

    node: the Raft part of the node that asks.  ask: a function that sends the request and passes its outcome to a function.
    changed: what is done to the member, in a past participle, for people.
    Raises MemberUnknown, MemberConflict (the leader refuses), NoLeader, NotReady (the member lacks something that it will
    have soon, or the node that asks changes no membership), OutcomeUnknown.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_s
    known = node.configurations.latest.members.get(node_id)
    incarnation = known.incarnation if known is not None else ""
    unsure = False
    while True:
        if node.replica.failure is not None:
            raise NotReady(f"this node changes no membership: {node.replica.failure}")
        answer: asyncio.Future[tuple[str, str]] = loop.create_future()

        def done(outcome: str, detail: str, answer: asyncio.Future[tuple[str, str]] = answer) -> None:
            if not answer.done():
                answer.set_result((outcome, detail))

        ask(node_id, incarnation, done)
        try:
            outcome, detail = await asyncio.wait_for(answer, max(AGAIN_S, min(ATTEMPT_S, deadline - loop.time())))
        except TimeoutError:
            outcome, detail = UNSURE, "the leader did not answer in time"
        if outcome in (REMOVED, CHANGED, KNOWN):
            return
        if outcome == UNKNOWN:
            raise MemberUnknown(detail)
        if outcome == CONFLICT:
            raise MemberConflict(detail)
        unsure = unsure or outcome not in (NO_LEADER, BEHIND)
        if loop.time() >= deadline:
            if unsure:
                raise OutcomeUnknown(f"{node_id!r} may have been {changed}: {detail}")
            if outcome == BEHIND:
                raise NotReady(detail)
            raise NoLeader(f"{node_id!r} was not {changed}: {detail}")
        await asyncio.sleep(AGAIN_S)


# Seconds for all of a node's leaving: supervisors kill after 10 to 30, and what comes behind it takes some, too.
LEAVE_WITHIN_S = 8.0
# The seconds of LEAVE_WITHIN_S in which writes that are under way may end.
SETTLE_S = 2.0
# Seconds between two looks.
LOOK_S = 0.02
# Seconds after a start for which a wish of the start before counts: a leader may have kept the request for WAITING_MS.
WISH_COUNTS_S = WAITING_MS / 1000 + 2.0
# Seconds between two looks whether a departure is over: whether this node is a member, after all or again.
MEMBER_LOOK_S = 1.0


class Leaving:
    """Takes this node out of its cluster by its own wish, and keeps a note of that wish, the departure, on its disk.

    disk, directory: where the node keeps its files.  submit: does disk work in another thread.
    pending: returns how many commands of this node's clients wait for their results.
    Only the event loop uses this object.
    """

    def __init__(
        self, node: RaftNode, disk: Disk, directory: Path, *, submit: Submit, pending: Callable[[], int]
    ) -> None:
        # Once true, this node takes no more writes of its clients. Any thread may read it.
        self.has_begun = False
        self._node = node
        self._disk = disk
        self._directory = directory
        self._submit = submit
        self._pending = pending
        remove_unfinished(disk, directory)
        # What the disk says; None when nothing.
        self._departure = read_departure(disk, directory)
        node.removal.by_itself = self._departure is not None and self._departure.incarnation == node.incarnation

    @property
    def came_from(self) -> tuple[str, ...]:
        """The Raft addresses of the members of the cluster that this node had left; empty once it is a member again."""
        departure = self._departure
        if departure is None or departure.incarnation == self._node.incarnation:
            return ()
        return departure.members

    async def leave(self, timeout_s: float) -> str:
        """Have this node removed from its cluster; return "" once it is out and its disk says so, else why not, for people.

        The node takes no more writes meanwhile, and those that are under way end first. Whatever is returned, the caller then
        stops the node.
        """
        node, loop = self._node, asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        if node.removal.is_believed:
            # An operator's removal stays one: this node must not come back by itself.
            return "it is out already"
        if not node.configurations.latest.lists(node.node_id, node.incarnation):
            return "it is no member"
        self.has_begun = True
        await self._wait(lambda: self._pending() == 0, min(SETTLE_S, timeout_s / 4))
        others = tuple(
            member.raft_address for member in node.configurations.latest.members.values() if member.id != node.node_id
        )
        if not others:
            return "it is the only member"
        try:
            async with asyncio.timeout_at(deadline):
                await self._note(Departure(node.incarnation, others))
                # From here on the next start settles what does not end here.
                node.removal.by_itself = True
                await remove(node, node.node_id, max(AGAIN_S, deadline - loop.time()))
        except TimeoutError:
            return (
                "the cluster, or the disk of this node, did not answer in time; its next start shows whether it is out"
            )
        except (CacheFlowError, OSError) as error:
            return str(error)
        await self._wait(lambda: node.removal.removed_at is not None, deadline - loop.time())
        return "" if node.removal.removed_at is not None else "it was removed, and not told so in time"

    async def keep(self) -> None:
        """Once this node is a member, remove the note on its disk that it wished to leave its cluster; return then.

        Such a note remains if the node was not removed after all, or has come back.
        """
        node = self._node
        if node.removal.by_itself:
            await asyncio.sleep(WISH_COUNTS_S)
        while self._departure is not None and not self.has_begun:
            if node.may_read and node.configurations.settled.lists(node.node_id, node.incarnation):
                try:
                    await self._do(functools.partial(forget_departure, self._disk, self._directory))
                except OSError as error:
                    # A disk without room or handles has them again later; until then this node's next start would ask again.
                    logger.warning("the departure in %s cannot be removed yet: %s", self._directory, error)
                else:
                    self._departure = None
                    node.removal.by_itself = False
                    return
            await asyncio.sleep(MEMBER_LOOK_S)

    def note_removed(self, note: Callable[[], None]) -> None:
        """Note on the disk, with the function ``note``, that the cluster has removed this node. Runs on the journal's thread.

        If the node has not left by its own wish, an earlier note of such a wish is removed before.
        """
        if self._departure is not None and not self._node.removal.by_itself:
            try:
                forget_departure(self._disk, self._directory)
            except OSError as error:
                # Both together would say that it had left by itself. Its next start is told again.
                logger.warning("the removal cannot be noted in %s: %s", self._directory, error)
                return
        note()

    async def _note(self, departure: Departure) -> None:
        await self._do(functools.partial(write_departure, self._disk, self._directory, departure))
        self._departure = departure

    async def _do(self, work: Callable[[], None]) -> None:
        """Call the function ``work`` in the thread for disk work and return when it has returned. Raises OSError."""
        outcome: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def attempt() -> OSError | None:
            try:
                work()
            except OSError as error:
                # Not raised here: the journal has lost nothing by that.
                return error
            return None

        def done(result: BaseException | None) -> None:
            if outcome.done():
                return
            if isinstance(result, BaseException):
                outcome.set_exception(result)
            else:
                outcome.set_result(None)

        self._submit(attempt, done)
        await outcome

    async def _wait(self, over: Callable[[], bool], seconds: float) -> None:
        """Return once the function ``over`` returns true, or after ``seconds``."""
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        while not over() and loop.time() < until:
            await asyncio.sleep(LOOK_S)
