"""Promoting and demoting: a member is given a vote, or made an observer. Any node takes the request, the leader decides.

Both may be asked for again at any time: what is so already changes nothing. The answer is the member as this node then
lists it.
"""

from __future__ import annotations

import asyncio
from typing import Any

from cacheflow.errors import MemberUnknown
from cacheflow.node import status
from cacheflow.node.engine import Engine
from cacheflow.node.leaving import AGAIN_S, settle

# Seconds that this node waits for the log entry of a change that its leader has committed, before it answers all the same.
ENTRY_S = 1.0


async def promote(engine: Engine, node_id: str, timeout_s: float) -> dict[str, Any]:
    """Give the member ``node_id`` a vote; wait up to ``timeout_s`` until it has caught up; return its row of the member list.

    Runs on the node's event loop. Raises MemberUnknown, MemberConflict (as many vote as should), NoLeader, NotReady (the
    member has not caught up, or the node that was asked changes no membership), OutcomeUnknown.
    """
    node = engine.local.node
    await settle(node, node.reconfiguration.promote, node_id, "given a vote", timeout_s)
    return await _row(engine, node_id, True)


async def demote(engine: Engine, node_id: str, timeout_s: float) -> dict[str, Any]:
    """Make the member ``node_id`` an observer, which never votes until it is promoted; return its row of the member list.

    Runs on the node's event loop. Raises MemberUnknown, MemberConflict (its vote is needed), NoLeader, NotReady,
    OutcomeUnknown.
    """
    node = engine.local.node
    await settle(node, node.reconfiguration.demote, node_id, "demoted", timeout_s)
    return await _row(engine, node_id, False)


async def _row(engine: Engine, node_id: str, votes: bool) -> dict[str, Any]:
    """Return the row of the member ``node_id`` in the member list, once this node's log has the change of the member's vote.

    votes: whether the member votes after the change.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + ENTRY_S
    while loop.time() < deadline:
        member = engine.local.node.configurations.latest.members.get(node_id)
        if member is not None and (member.voter, member.observer) == (votes, not votes):
            break
        await asyncio.sleep(AGAIN_S)
    row = next((row for row in status.nodes(engine) if row["id"] == node_id), None)
    if row is None:
        raise MemberUnknown(f"no node {node_id!r} is a member of this cluster any more")
    return row
