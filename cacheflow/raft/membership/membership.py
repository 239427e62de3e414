"""Membership: the member table that is in force on this node, and the entries that change it.

A table counts from the moment its entry is appended, committed or not (dissertation 4.1): the core then counts its voters,
the network dials its members, and the leader replicates to them.

Not safe for concurrent use: the event loop owns it.
"""

from __future__ import annotations

from cacheflow.machine.language.commands import REPLACED_MAX
from cacheflow.machine.machine import CacheMachine
from cacheflow.raft import guards
from cacheflow.raft.core import Core
from cacheflow.raft.hung_disk import DiskWatch
from cacheflow.raft.log.journal import Journal
from cacheflow.raft.membership.configuration import NOBODY, Configuration, Configurations
from cacheflow.raft.membership.recovery import Recovery
from cacheflow.raft.replica import Replica
from cacheflow.raft.roles.replication import Replicator
from cacheflow.raft.ticks import Ticks
from cacheflow.raft.transport.network import Network, Peer


def applied_configuration(machine: CacheMachine, journal: Journal, recovery: Recovery | None) -> Configuration:
    """Return the member table in ``machine``, a state machine loaded from a snapshot; the empty NOBODY if it has no members.

    The table's index is the snapshot's last, at which the journal begins. If the table is of another cluster than the log,
    returns the table of ``recovery`` instead, the decision by which this node has left that cluster.
    """
    if not machine.members or machine.cluster_id != (journal.cluster_id or machine.cluster_id):
        return NOBODY if recovery is None else recovery.table
    return Configuration(journal.first_index, machine.cluster_id, dict(machine.members))


def configurations_of(machine: CacheMachine, journal: Journal, recovery: Recovery | None) -> Configurations:
    """Return a starting node's member tables: the one in ``machine``, a snapshot's state machine, and those in the log."""
    base = applied_configuration(machine, journal, recovery)
    return Configurations(base, journal.entries(0, None), lambda: journal.cluster_id)


class Membership:
    """The members and voters of the cluster by one node's log. It puts each new member table in force on that node."""

    def __init__(
        self,
        node_id: str,
        incarnation: str,
        configurations: Configurations,
        *,
        core: Core,
        journal: Journal,
        network: Network,
        replicator: Replicator,
        replica: Replica,
        disk: DiskWatch,
        ticks: Ticks,
        recovery: Recovery | None = None,
    ) -> None:
        # The decision by which this node has left its old cluster, if the log did not say it all when this node started.
        self.recovery = recovery
        self.node_id = node_id
        self.incarnation = incarnation
        self.configurations = configurations
        self._core = core
        self._journal = journal
        self._network = network
        self._replicator = replicator
        self._replica = replica
        self._disk = disk
        self._ticks = ticks

    def is_member(self, peer: Peer) -> bool:
        """True if the member table in force lists the node ``peer``, with its id and its incarnation."""
        return self.configurations.latest.lists(peer.node_id, peer.incarnation)

    def is_voter(self, peer: Peer) -> bool:
        """True if the node ``peer`` is a voter by the member table in force."""
        return self.is_member(peer) and self.configurations.latest.members[peer.node_id].voter

    def may_campaign(self) -> bool:
        """True if this node may ask for votes: its log makes it a voter, its disk works, and its contents are not in doubt."""
        member = self.configurations.latest.members.get(self.node_id)
        return (
            self._replica.failure is None
            and self._replica.doubt is None
            and not self._disk.hung
            and member is not None
            and member.voter
            and member.incarnation == self.incarnation
        )

    def others(self) -> dict[str, str]:
        """Return {id: incarnation} of all members except this node, in the order of their ids."""
        members = sorted(self.configurations.latest.members.items())
        return {node_id: member.incarnation for node_id, member in members if node_id != self.node_id}

    def append(self, command: bytes) -> None:
        """Append ``command`` to this node's log as an entry of the current term; a member table in it is in force at once."""
        index = self._journal.last_index + 1
        self._journal.add(command, index, self._core.term)
        if self.configurations.note(command, index):
            self.adopt()

    def follow(self, verdict: guards.Append) -> None:
        """Put the latest member table in force after this node has changed its log as a leader's message says.

        verdict: which entries the message removed from the log, and which it appended.
        """
        changed = verdict.truncates and self.configurations.drop_from(verdict.prev_index + 1)
        for command, index, _ in verdict.entries:
            changed = self.configurations.note(command, index) or changed
        if changed:
            self.adopt()

    def restart_from(self, machine: CacheMachine) -> None:
        """Put the latest member table in force after a snapshot's ``machine``, a state machine, has replaced this node's.

        The latest table is the last one in the log behind the snapshot, or else the one in ``machine``.
        """
        base = applied_configuration(machine, self._journal, self.recovery)
        self.configurations.restart_from(base, self._journal.entries(0, None))
        self.adopt()

    @property
    def is_unlogged(self) -> bool:
        """True if the member table in force was decided in a recovery, and no entry of this node's log holds it yet."""
        return self.recovery is not None and self.configurations.latest is self.recovery.table

    def is_recovering(self) -> bool:
        """True while this node has not applied the log entry that begins its recovered cluster."""
        return self.recovery is not None and self._replica.machine.cluster_id != self.recovery.cluster_id

    def tell_replaced(self) -> None:
        """Have the network tell every node which clusters this node's cluster has replaced in recoveries."""
        replaced = [*self._replica.machine.replaced, *(() if self.recovery is None else self.recovery.replaced)]
        self._network.replaced = tuple(dict.fromkeys(replaced))[-REPLACED_MAX:]

    def adopt(self) -> None:
        """Put the latest member table of this node's log in force: for votes, connections and replication."""
        self._ticks.whole = True
        latest = self.configurations.latest
        others = self.others()
        self._core.set_voters([node_id for node_id in latest.voters if node_id != self.node_id])
        self._network.cluster_id = self._journal.cluster_id or latest.cluster_id
        self.tell_replaced()
        self._network.set_peers({node_id: latest.members[node_id].raft_address for node_id in others})
        self._replicator.set_followers(others)
        if self.may_campaign():
            self._core.postpone_election()
