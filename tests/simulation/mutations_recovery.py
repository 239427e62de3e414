"""Rules of recovery taken away: what keeps the new cluster apart from the old one, and its versions from those of before."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from cacheflow.machine.state.contents import Contents
from cacheflow.node.assembly import LocalNode
from cacheflow.raft import recovering
from cacheflow.raft.membership import recovery
from cacheflow.raft.membership.membership import Membership
from cacheflow.raft.membership.recovery import Recovery
from cacheflow.raft.recovering import Found
from cacheflow.raft.roles.follower import Following
from cacheflow.raft.roles.leader import Leading
from cacheflow.raft.snapshots.receiving import Receiving


def leave_the_revision_as_it_is(patch: pytest.MonkeyPatch) -> None:
    """Begin a new cluster with the versions of the old one."""
    patch.setattr(Contents, "raise_versions", lambda self, by: None)


def raise_the_versions_of_what_comes_alone(patch: pytest.MonkeyPatch) -> None:
    """Raise the revision, and leave the items their versions: a log's end may have come to nothing in the old cluster."""

    def raise_versions(self: Contents, by: int) -> None:
        self.revision += by

    patch.setattr(Contents, "raise_versions", raise_versions)


def show_versions_before_they_are_raised(patch: pytest.MonkeyPatch) -> None:
    """Let clients read as soon as the new cluster's leader knows what is committed."""
    patch.setattr(Membership, "is_recovering", lambda self: False)


def write_before_the_versions_are_raised(patch: pytest.MonkeyPatch) -> None:
    """Let clients' writes into the log before the entry that raises all versions."""
    propose_queued = Leading.propose_queued

    def clients_first(self: Any) -> None:
        membership = self._membership
        if membership.recovery is not None and membership.is_unlogged and self.queue:
            with pytest.MonkeyPatch.context() as for_once:
                for_once.setattr(membership, "recovery", None)
                propose_queued(self)
            return
        propose_queued(self)

    patch.setattr(Leading, "propose_queued", clients_first)


def keep_the_id_of_the_cluster(patch: pytest.MonkeyPatch) -> None:
    """Give the new cluster the old one's id, as etcd's --force-new-cluster does."""
    decide = recovering._decision

    def _decision(found: Found, cluster_id: str, members: Any) -> Recovery:
        made = decide(found, cluster_id, members)
        return replace(made, cluster_id=found.cluster_id, table=replace(made.table, cluster_id=found.cluster_id))

    patch.setattr(recovering, "_decision", _decision)


def go_on_in_a_cluster_that_was_replaced(patch: pytest.MonkeyPatch) -> None:
    """Let a member of the old cluster go on after it was told of the new one."""
    patch.setattr(LocalNode, "_met_replacement", lambda self, peer: None)


def believe_the_tables_of_the_old_cluster(patch: pytest.MonkeyPatch) -> None:
    """Let a node that joins take the tables in the log for its own cluster's, though the log is older than that."""
    on_append, on_piece = Following._on_append, Receiving._on_piece
    patch.setattr(
        Following, "_on_append", lambda self, peer, message: on_append(self, replace(peer, cluster_id=""), message)
    )
    patch.setattr(
        Receiving, "_on_piece", lambda self, peer, message: on_piece(self, replace(peer, cluster_id=""), message)
    )


def stop_for_members_of_the_old_cluster(patch: pytest.MonkeyPatch) -> None:
    """Let a survivor that is alone believe that its cluster was founded by mistake, when a member of the old one dials it."""
    patch.setattr(Membership, "tell_replaced", lambda self: None)


def write_the_decision_in_place(patch: pytest.MonkeyPatch) -> None:
    """Write a decision over the one before, so that an interruption leaves half of it."""

    def write_document(disk: Any, path: Any, fields: dict[str, Any]) -> None:
        handle = disk.open(path, create=True)
        disk.write(handle, 0, repr(fields).encode())
        disk.sync(handle)
        disk.close(handle)

    patch.setattr(recovery, "write_document", write_document)
