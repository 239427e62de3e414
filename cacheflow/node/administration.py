"""Administration: how a cluster is asked about its nodes, and how its members and its leader are changed.

The part of ReplicatedStore that needs none of its verbs: each method goes through this process' node.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from cacheflow.arguments import check_digest, check_node_id
from cacheflow.config import OBSERVER, VOTER, NodeConfig
from cacheflow.errors import MemberConflict, NoLeader, NotReady, OutcomeUnknown
from cacheflow.measuring.metrics import Metrics
from cacheflow.measuring.slow_log import SlowLog
from cacheflow.node import leaving, promoting, status
from cacheflow.node.assembly import LocalNode
from cacheflow.node.engine import Engine
from cacheflow.node.metrics import metrics
from cacheflow.raft.membership.changes import CONFLICT, JOINED, KNOWN, UNSURE
from cacheflow.results import Digest, Event, RaftPosition


class Administration:
    """The methods by which the cluster of one node in this process is watched and changed. Any thread may call them."""

    def __init__(self, config: NodeConfig) -> None:
        self.config = config
        self._engine = Engine(config)
        # The requests that took long lately, over all fronts of this node.
        self.slow_log = SlowLog(config.slow_ms)
        # The node, once it has been started.
        self._local: LocalNode | None = None

    def position(self) -> RaftPosition:
        """Return this node's place in the cluster: applied index, term, its own id and the id of its leader."""
        local = self._local
        return (local or self._started()).node.position()

    def nodes(self) -> list[dict[str, Any]]:
        """Return the members of the cluster, one dictionary each, as ``GET /nodes/list`` shows them."""
        return self._engine.call(lambda: status.nodes(self._engine))

    def status(self) -> dict[str, Any]:
        """Return this node's view of the cluster, as ``GET /cluster/status`` shows it: leader, term, lag and settings."""
        return self._engine.call(lambda: status.cluster(self._engine))

    def digest(self, *, index: int | None = None, full: bool = False) -> Digest | None:
        """Return this node's digest over effects, now or at the log's ``index``; None when the node does not know that digest.

        full: whether to return the digest of the whole contents instead, as they are now, which takes long: another process
        makes it from the node's files.
        """
        check_digest(index, full)
        if full:
            self._started()
            return self._engine.run(status.full_digest(self._engine), timeout_s=65.0)
        return self._engine.call(lambda: status.digest(self._engine, index))

    def metrics(self) -> Metrics:
        """Return counters, gauges and histograms by name. Raises NotReady if the node was never started."""
        self._started()
        return metrics(self._engine)

    def liveness(self) -> list[tuple[str, bool, str]]:
        """Return (name, passed, detail) of each health check of this node whose failure only a restart could mend."""
        return status.liveness(self._engine)

    def readiness(self) -> list[tuple[str, bool, str]]:
        """Return (name, passed, detail) of each health check that must pass before clients should use this node."""
        return status.readiness(self._engine)

    def events(self) -> tuple[Event, ...]:
        """Return what has lately happened to this node and its cluster, oldest first. Raises NotReady before the first start."""
        return self._started().events.latest()

    def register(
        self, node_id: str, address: str, raft_address: str, was_member: bool = False, role: str = VOTER
    ) -> bool:
        """Make the node at ``raft_address`` a member of the cluster; return False if the node is a member already.

        was_member: that node says that it has been a member; if it is none now, it was removed, and is refused.
        role: "voter", or "observer", which never votes unless it is promoted. A node that is a member keeps its role.
        Raises MemberConflict, InvalidRequest, NotCommitted, OutcomeUnknown.
        """
        outcome, detail = self._engine.run(
            self._started().joining.register(node_id, address, raft_address, was_member, role == OBSERVER),
            timeout_s=12.0,
            changes=True,
        )
        if outcome == CONFLICT:
            raise MemberConflict(detail)
        if outcome == UNSURE:
            raise OutcomeUnknown(f"{node_id!r} may have become a member: {detail}")
        if outcome not in (JOINED, KNOWN):
            raise NoLeader(f"the registration was not committed: {detail}")
        return outcome == JOINED

    def remove_node(self, node_id: str) -> None:
        """Remove a member from the cluster and return once that is committed. A member that leads hands leadership over first.

        Raises MemberUnknown, MemberConflict (a majority could not be reached without it), NotCommitted, OutcomeUnknown.
        """
        check_node_id(node_id)
        timeout_s = self.config.request_timeout_s
        self._engine.run(
            leaving.remove(self._started().node, node_id, timeout_s), timeout_s=timeout_s + 5.0, changes=True
        )

    def promote_node(self, node_id: str) -> dict[str, Any]:
        """Give a member a vote, once it has caught up, and return its row in the list of members; a voter stays as it is.

        Raises MemberUnknown, MemberConflict (replicas + 1 vote already), NotCommitted (also when it does not catch up in
        time), OutcomeUnknown.
        """
        return self._change_vote(promoting.promote, node_id)

    def demote_node(self, node_id: str) -> dict[str, Any]:
        """Make a member an observer, which votes no more until it is promoted; return its row in the list of members.

        A member that leads hands leadership over first. Raises MemberUnknown, MemberConflict (a majority could not be reached
        without its vote), NotCommitted, OutcomeUnknown.
        """
        return self._change_vote(promoting.demote, node_id)

    def _change_vote(
        self, change: Callable[[Engine, str, float], Coroutine[Any, Any, dict[str, Any]]], node_id: str
    ) -> dict[str, Any]:
        check_node_id(node_id)
        self._started()
        timeout_s = self.config.request_timeout_s
        return self._engine.run(change(self._engine, node_id, timeout_s), timeout_s=timeout_s + 5.0, changes=True)

    def transfer_leadership(self, node_id: str | None = None) -> str:
        """Hand leadership to the voter ``node_id``, if that is None to the most complete voter; return the new leader's id.

        Raises InvalidRequest (no such voter), NotCommitted, OutcomeUnknown.
        """
        if node_id is not None:
            check_node_id(node_id)
        return self._engine.run(status.hand_over(self._engine, node_id), timeout_s=5.0, changes=True)

    def _tell_of_checks(self, local: LocalNode) -> None:
        """Have the started node ``local`` note as events which of its readiness checks begin to fail, and end."""
        local.events.checks = self.readiness

    def _started(self) -> LocalNode:
        """Return the running or stopped node of this process. Raises NotReady if the node was never started."""
        if self._local is None:
            raise NotReady(self._engine.stopped)
        return self._local
