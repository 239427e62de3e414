"""Membership: the member table of this node's log in force, and the entries that change it.

A table counts from the moment its entry is appended, committed or not (dissertation 4.1): the core then counts its voters,
the network dials its members, and the leader replicates to them.

Not safe for concurrent use: the event loop owns it.
"""

from __future__ import annotations

from cacheflow.machine.machine import CacheMachine
from cacheflow.raft import guards
from cacheflow.raft.core import Core
from cacheflow.raft.hung_disk import DiskWatch
from cacheflow.raft.log.journal import Journal
from cacheflow.raft.membership.configuration import NOBODY, Configuration, Configurations
from cacheflow.raft.replica import Replica
from cacheflow.raft.roles.replication import Replicator
from cacheflow.raft.ticks import Ticks
from cacheflow.raft.transport.network import Network, Peer


def applied_configuration(machine: CacheMachine, journal: Journal) -> Configuration:
    """Return the configuration that the machine of a snapshot holds, at the index where the journal begins."""
    if not machine.members:
        return NOBODY
    return Configuration(journal.first_index, machine.cluster_id, dict(machine.members))


class Membership:
    """Knows who is a member and a voter, this node among them, and puts each new table in force."""

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
    ) -> None:
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
        """True if the latest configuration contains the peer, by its id and its incarnation."""
        return self.configurations.latest.lists(peer.node_id, peer.incarnation)

    def is_voter(self, peer: Peer) -> bool:
        """True if the peer is a voter of the latest configuration."""
        return self.is_member(peer) and self.configurations.latest.members[peer.node_id].voter

    def may_campaign(self) -> bool:
        """True if this node is a voter of the latest configuration in its own log and its disk and contents are right (4.2.1)."""
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
        """Return {id: incarnation} of the other members, in the order of their ids."""
        members = sorted(self.configurations.latest.members.items())
        return {node_id: member.incarnation for node_id, member in members if node_id != self.node_id}

    def append(self, command: bytes) -> None:
        """Append an entry of the current term; the table in it, if there is one, is in force at once."""
        index = self._journal.last_index + 1
        self._journal.add(command, index, self._core.term)
        if self.configurations.note(command, index):
            self.adopt()

    def follow(self, verdict: guards.Append) -> None:
        """Put the latest configuration in force after entries were dropped and appended as ``verdict`` says."""
        changed = verdict.truncates and self.configurations.drop_from(verdict.prev_index + 1)
        for command, index, _ in verdict.entries:
            changed = self.configurations.note(command, index) or changed
        if changed:
            self.adopt()

    def restart_from(self, machine: CacheMachine) -> None:
        """Take the tables of ``machine``, which a snapshot has put in place, and of the journal behind it."""
        self.configurations.restart_from(applied_configuration(machine, self._journal), self._journal.entries(0, None))
        self.adopt()

    def adopt(self) -> None:
        """Put the latest configuration of the log in force."""
        self._ticks.whole = True
        latest = self.configurations.latest
        others = self.others()
        self._core.set_voters([node_id for node_id in latest.voters if node_id != self.node_id])
        self._network.cluster_id = latest.cluster_id
        self._network.set_peers({node_id: latest.members[node_id].raft_address for node_id in others})
        self._replicator.set_followers(others)
        if self.may_campaign():
            self._core.postpone_election()
