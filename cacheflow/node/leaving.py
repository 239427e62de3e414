"""Leaving: how a member is removed. Any node takes the request, the leader decides, the answer says what is certain.

The removal is asked for again when the leader changes meanwhile, always of the same incarnation. So an attempt whose
answer was lost does not turn into "there is no such node", and one that comes late cannot hit a newcomer.
"""

from __future__ import annotations

import asyncio

from cacheflow.errors import MemberConflict, MemberUnknown, NoLeader, NotReady, OutcomeUnknown
from cacheflow.raft.membership.changes import CONFLICT, NO_LEADER, REMOVED, UNKNOWN, UNSURE
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
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_s
    known = node.configurations.latest.members.get(node_id)
    incarnation = known.incarnation if known is not None else ""
    unsure = False
    while True:
        if node.replica.failure is not None:
            if node_id == node.node_id and node.removal.removed_at is not None:
                return
            raise NotReady(f"this node changes no membership: {node.replica.failure}")
        answer: asyncio.Future[tuple[str, str]] = loop.create_future()

        def done(outcome: str, detail: str, answer: asyncio.Future[tuple[str, str]] = answer) -> None:
            if not answer.done():
                answer.set_result((outcome, detail))

        node.reconfiguration.remove(node_id, incarnation, done)
        try:
            outcome, detail = await asyncio.wait_for(answer, max(AGAIN_S, min(ATTEMPT_S, deadline - loop.time())))
        except TimeoutError:
            outcome, detail = UNSURE, "the leader did not answer in time"
        if outcome == REMOVED or (outcome == UNKNOWN and known is not None):
            return
        if outcome == UNKNOWN:
            raise MemberUnknown(detail)
        if outcome == CONFLICT:
            raise MemberConflict(detail)
        unsure = unsure or outcome != NO_LEADER
        if loop.time() >= deadline:
            if unsure:
                raise OutcomeUnknown(f"{node_id!r} may have been removed: {detail}")
            raise NoLeader(f"{node_id!r} was not removed: {detail}")
        await asyncio.sleep(AGAIN_S)
