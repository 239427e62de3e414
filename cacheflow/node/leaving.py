"""Leaving: how a member is removed. Any node takes the request, the leader decides, the answer says what is certain.

The removal, as any other change of a member, is asked for again when the leader changes meanwhile, always of the same
incarnation. So an attempt whose answer was lost does not turn into "there is no such node", and one that comes late cannot
hit a newcomer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from cacheflow.errors import MemberConflict, MemberUnknown, NoLeader, NotReady, OutcomeUnknown
from cacheflow.raft.membership.changes import (
    BEHIND,
    CHANGED,
    CONFLICT,
    KNOWN,
    NO_LEADER,
    REMOVED,
    UNKNOWN,
    UNSURE,
    ChangeDone,
)
from cacheflow.raft.node import RaftNode

# Seconds for which one attempt waits for the leader's answer.
ATTEMPT_S = 4.0
# Seconds between two attempts.
AGAIN_S = 0.05


async def remove(node: RaftNode, node_id: str, timeout_s: float) -> None:
    """Remove the member ``node_id`` from the cluster, asking through ``node``, and return once that is committed.

    Runs on the node's event loop. Raises MemberUnknown, MemberConflict (the cluster cannot do without the member now),
    NoLeader, NotReady (the node that was asked is out of the cluster itself), OutcomeUnknown.
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
    """Have the leader change the member ``node_id``, asking through ``node`` by ``ask``, and return once that is committed.

    changed: what is done to the member, in a past participle, for people.
    Raises MemberUnknown, MemberConflict (the leader refuses), NoLeader, NotReady (the member lacks something that it will
    have soon, or the node that was asked changes no membership), OutcomeUnknown.
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
