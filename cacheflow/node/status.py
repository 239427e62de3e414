"""What a node reports of itself and of its cluster: members, health, figures.

``nodes``, ``cluster`` and ``digest`` run on the loop; the others may be called by any thread.
"""

from __future__ import annotations

import asyncio
from typing import Any

from cacheflow.config import build_version
from cacheflow.errors import ConfigError, InvalidRequest, NoLeader, NotReady, OutcomeUnknown
from cacheflow.machine.state.settings import Member
from cacheflow.node.assembly import LocalNode
from cacheflow.node.engine import Engine
from cacheflow.raft.membership.votes import UnderWay
from cacheflow.results import Digest

# Seconds between two looks while something is waited for.
WAIT_STEP_S = 0.01
# Seconds within which what is applied here is on this node's disk, unless that hangs.
DURABLE_WITHIN_S = 5.0
# What is said of a new cluster's contents before its first leader has written the settings.
NO_SETTINGS = "have no limits yet: the first leader is about to set them"


def nodes(engine: Engine) -> list[dict[str, Any]]:
    """Return the members of the cluster as this node sees them, one dictionary each."""
    node = engine.local.node
    down = node.peers.down_ids()
    under_way = node.reconfiguration.votes.under_way()
    known = node.configurations
    # A member that is being removed is missing in the latest table; it is one until that table is committed.
    going = [member for member_id, member in known.settled.members.items() if member_id not in known.latest.members]
    rows = []
    for member in [*node.members(), *going]:
        seen_ms = 0 if member.id == node.node_id else node.peers.last_seen_ms(member.id)
        rows.append(
            {
                "id": member.id,
                "address": member.address,
                "status": "down" if member.id in down else "up",
                "role": "leader" if member.id == node.leader_id else "follower",
                "raft_address": member.raft_address,
                "voter": member.voter,
                "observer": member.observer,
                "change": _change_of(engine, member, under_way),
                "build": _build_of(engine, member.id),
                "level": engine.local.machine.level_told(member.id) or None,
                "last_seen": None if seen_ms is None else seen_ms / 1000,
            }
        )
    return rows


def _change_of(engine: Engine, member: Member, under_way: dict[str, UnderWay]) -> dict[str, Any] | None:
    """Return which change of ``member`` is under way, with times in seconds, as far as this node knows; None if no change is.

    under_way: {member id: change of its vote}, which only the leader knows.
    """
    node = engine.local.node
    known = node.configurations
    since_ms = node.hand_over.since_ms(member.id)
    if member.id not in known.latest.members or node.reconfiguration.is_to_go(member):
        return {"what": "leaves", "since": None, "due": None}
    if since_ms is not None:
        return {"what": "hand-over", "since": since_ms / 1000, "due": None}
    # A node that has just started and hears no leader does not know yet which of its members are settled.
    if known.settled.members and not known.settled.lists(member.id, member.incarnation):
        return {"what": "joins", "since": None, "due": None}
    change = under_way.get(member.id)
    if change is None:
        return None
    due_ms = change.due_ms
    return {"what": change.what, "since": change.since_ms / 1000, "due": None if due_ms is None else due_ms / 1000}


def _build_of(engine: Engine, member_id: str) -> str | None:
    """Return the CacheFlow version that the member ``member_id`` told this node when they last met; None if they have not."""
    if member_id == engine.local.node.node_id:
        return build_version()
    met = engine.local.network.met(member_id)
    return None if met is None else met.build


def cluster(engine: Engine) -> dict[str, Any]:
    """Return this node's view of the cluster: its place in the log, settings, members and, if it leads, their lag."""
    node, machine = engine.local.node, engine.local.machine
    staleness_ms = node.freshness.staleness_ms()
    return {
        "node_id": node.node_id,
        "cluster_id": machine.cluster_id,
        "role": node.role,
        "leader": node.leader_id,
        "term": node.term,
        "commit_index": node.commit_index,
        "applied_index": node.last_applied,
        "revision": machine.contents.revision,
        "level": machine.level,
        "build": {"version": build_version(), "level": machine.build_level},
        "staleness": None if staleness_ms is None else staleness_ms / 1000,
        "failure": node.replica.failure,
        "restore": restoring(engine),
        "members": [
            {**row, "lag": node.lag_of(row["id"]), "connected": _is_connected(engine, row["id"])}
            for row in nodes(engine)
        ],
        "configuration": {
            "eviction": machine.settings.policy,
            "max_items": machine.settings.max_items,
            "max_bytes": machine.settings.max_bytes,
            "replicas": machine.settings.replicas,
            "max_value_bytes": machine.settings.max_value_bytes,
            "version": machine.settings.version,
        },
    }


def _is_connected(engine: Engine, member_id: str) -> bool | None:
    """Return whether this node has a connection to the member ``member_id``; None if it is this node itself."""
    node = engine.local.node
    return None if member_id == node.node_id else node.links.is_connected(member_id)


def restoring(engine: Engine) -> dict[str, Any] | None:
    """Return how far the latest restore of a backup in this cluster is; None if there was no restore."""
    restore = engine.local.machine.restoring
    if restore is None:
        return None
    return {"items": restore.items, "done": restore.done, "online": restore.online, "ended": restore.ended}


def closed_by(local: LocalNode) -> str:
    """Return how far the restore is that keeps clients from being served, as text for people; "" if there is no such restore.

    Any thread may call it.
    """
    restore = local.machine.restoring
    if restore is None or not restore.closes:
        return ""
    return f"a restore is under way: {restore.done} of {restore.items} items; if it does not go on, repeat it or give it up"


def why_no_writes(local: LocalNode) -> str:
    """Return why the running node ``local`` can replicate no command of a client, as text for people.

    Any thread may call it.
    """
    leaving = "it is leaving the cluster" if local.leaving.has_begun else ""
    return closed_by(local) or local.node.replica.failure or leaving or f"its disk {local.node.disk.state}"


def why_no_reads(local: LocalNode) -> str:
    """Return why the running node ``local`` answers no reads, as text for people. Any thread may call it."""
    node = local.node
    if node.replica.stumbled or node.removal.removed_at is not None:
        return node.replica.stumbled or node.replica.failure or ""
    return closed_by(local) or "it has not caught up with the cluster since it started"


def digest(engine: Engine, index: int | None) -> Digest | None:
    """Return this node's digest over effects, now or at the log index ``index``; None when the digest there is not known."""
    machine = engine.local.machine
    if index is None:
        return Digest(machine.applied_index, machine.digest.hex())
    found = machine.digest_at(index)
    return None if found is None else Digest(index, found.hex())


async def full_digest(engine: Engine) -> Digest:
    """Return a new digest of this node's whole contents, at the last log entry that was applied when its making began.

    A helper process makes the digest from this node's files, as that takes seconds; callers that come meanwhile get the same
    digest. Raises NotReady.
    """
    if engine.full_digest is None or engine.full_digest.done():
        engine.full_digest = asyncio.get_running_loop().create_task(_full_digest(engine))
    return await asyncio.shield(engine.full_digest)


async def _full_digest(engine: Engine) -> Digest:
    node = engine.local.node
    index = node.last_applied
    try:
        async with asyncio.timeout(DURABLE_WITHIN_S):
            while node.durable_index < index:
                await asyncio.sleep(WAIT_STEP_S)
        return Digest(index, await engine.helper.digest(index))
    except (ConfigError, OSError, RuntimeError) as error:
        raise NotReady(f"no digest of the whole contents at {index}: {error or type(error).__name__}", 5.0) from None


def liveness(engine: Engine) -> list[tuple[str, bool, str]]:
    """Return (name, passed, text) of each health check of this node that only a restart could mend if it fails.

    No check fails because there is no leader.
    """
    if not engine.running:
        return [("loop", False, engine.stopped)]
    node, listening = engine.local.node, engine.local.network.healthy
    # A node that an operator has removed stays out when it is started again; one that has left by itself joins anew.
    is_out = node.removal.removed_at is not None and not node.removal.by_itself
    failure = None if is_out else node.replica.failure
    return [
        ("loop", True, "runs"),
        ("listener", listening, "accepts peers" if listening else "does not accept peers"),
        ("node", failure is None, failure or "takes part"),
    ]


def readiness(engine: Engine) -> list[tuple[str, bool, str]]:
    """Return (name, passed, text) of each health check of what clients need of this node, such as that it knows a leader."""
    if not engine.running:
        return liveness(engine)
    node = engine.local.node
    if node.removal.removed_at is not None:
        return [*liveness(engine), ("member", False, node.replica.failure or "")]
    is_member = node.configurations.latest.lists(node.node_id, node.incarnation)
    leader_id = node.leader_id if node.links.route is not None else None
    problems = engine.local.supervisor.problems()
    unbuilt = node.building.problem
    others = engine.local.network.other_clusters
    retiring = engine.is_retiring
    return [
        *liveness(engine),
        ("stays", not retiring, "is about to stop" if retiring else "is not about to stop"),
        ("member", is_member, "is one" if is_member else engine.local.joining.waits_for or "is none yet"),
        ("leader", leader_id is not None, f"is {leader_id}" if leader_id else "is not known"),
        ("contents", *_contents(engine.local)),
        ("fresh", *freshness(engine.local)),
        ("restore", not closed_by(engine.local), closed_by(engine.local) or "none that clients would see"),
        ("disk", node.replica.failure is None and not node.disk.hung, node.replica.failure or node.disk.state),
        ("snapshots", not unbuilt, unbuilt or "can be built"),
        # No reason to send no traffic here: members of another cluster may knock at the door of one that is right.
        ("cluster", True, f"refused {', '.join(others)}" if others else "meets no other"),
        ("tasks", not problems, "; ".join(problems) or "run"),
    ]


def _contents(local: LocalNode) -> tuple[bool, str]:
    """Return (good, text): whether this node's contents may be read and have the cluster's limits, and if not, why."""
    node = local.node
    if not node.may_read:
        return False, node.replica.stumbled or node.replica.doubt or "have not caught up since the start"
    if not local.machine.settings.version:
        return False, NO_SETTINGS
    return True, "caught up"


def freshness(local: LocalNode) -> tuple[bool, str]:
    """Return (good, text): whether this node's contents are nearly the newest, as long as it may be read and knows a leader.

    A node that was cut off or stood still has much to apply when it is back, and answers old values meanwhile.
    """
    node = local.node
    if not node.may_read or node.links.route is None:
        return True, "is not looked at: other checks fail"
    staleness_ms = node.freshness.staleness_ms()
    if staleness_ms is None or staleness_ms > node.freshness.nearly_newest_ms:
        age = "of an unknown age" if staleness_ms is None else f"{staleness_ms / 1000:.1f} s old"
        return False, f"contents are {age}; what is missing is on its way, or waits to be applied"
    return True, f"contents are at most {node.freshness.nearly_newest_ms / 1000:g} s old"


async def hand_over(engine: Engine, node_id: str | None) -> str:
    """Hand leadership over, to the voter ``node_id`` or, if that is None, to any; return the new leader's id.

    Raises InvalidRequest, NoLeader, OutcomeUnknown.
    """
    node = engine.local.node
    if node_id is not None and node_id not in node.configurations.latest.voters:
        raise InvalidRequest(f"{node_id!r} is no voter of this cluster")
    if not node.is_leader:
        if node.links.route is None:
            raise NoLeader("no leader is known")
        if node_id == node.links.route.leader_id:
            return node_id
        node.links.send(node.links.route.leader_id, {"type": "hand_over", "heir": node_id or ""})
        before = node.links.route.term
    elif node_id == node.node_id:
        return node_id
    else:
        before = node.term
        if node.hand_over.begin(node_id) is None:
            raise InvalidRequest(
                f"{node_id!r} is no voter that is up" if node_id else "no other voter is up to take over"
            )
    deadline = asyncio.get_running_loop().time() + 4.0
    while asyncio.get_running_loop().time() < deadline:
        route = node.links.route
        if route is not None and route.term > before:
            return route.leader_id
        await asyncio.sleep(WAIT_STEP_S)
    raise OutcomeUnknown("leadership was not handed over in time; it may still be")
