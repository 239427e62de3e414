"""Roles: who may vote, who does, and whose vote goes to another; operators who change it, and what must hold meanwhile.

An observer never votes until somebody asks for it, a voter that is demoted neither; a leader has a vote; a vote is taken from
nobody whom the leader has just heard, and never so that those who are left are for the most part dead.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING

from cacheflow.machine.language import commands
from cacheflow.raft.membership.changes import CHANGED, CONFLICT, KNOWN, UNKNOWN
from cacheflow.raft.membership.configuration import Configuration

if TYPE_CHECKING:
    from simulation.cluster import Cluster, Host, Process
    from simulation.faults import Faults

    from cacheflow.contract import Outcome

ATTEMPT_S = 4.0
AGAIN_S = 0.3
# Seconds for which an attempt without an answer may still be carried out.
LATE_S = 20.0
# Seconds after which a leader certainly knows that a process is dead.
KNOWN_DEAD_S = 3.0
# Seconds within which a vote is given to another node, once it may be.
REPLACED_WITHIN_S = 6.0


class Roles:
    """What the observer of a run knows of the members' roles.

    observers: ids of the nodes whose command says so.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self.observers: frozenset[str] = frozenset()
        self.replace_after_s = 300.0
        # Incarnations that were asked to vote, and those that were certainly demoted since.
        self.promoted: set[str] = set()
        self.demoted: set[str] = set()
        # {incarnation: until when an attempt to promote it may still be carried out}.
        self.late: dict[str, float] = {}
        # When a process died, by node id, and when a process was elected, by its name.
        self.died_at: dict[str, float] = {}
        self._elected_at: dict[str, float] = {}

    def choose(self, random: Random, nodes: int) -> None:
        """Choose the observers of a run, and after which time a voter is replaced."""
        self.replace_after_s = random.choice((300.0, 2.0, 4.0))
        most = (nodes - 1) // 2
        chosen = random.sample([host.node_id for host in self._cluster.hosts[1:]], most)
        self.observers = frozenset(chosen[: random.choice((0, 0, 1, most))])

    def must_not_vote(self, node_id: str, incarnation: str) -> bool:
        """Return whether nobody may have given this member a vote."""
        if incarnation in self.demoted:
            return True
        return node_id in self.observers and incarnation not in self.promoted

    def elected(self, process: Process) -> None:
        """Check a process that has just been elected."""
        self._elected_at[process.name] = self._cluster.scheduler.now
        if self.must_not_vote(process.node_id, process.node.incarnation):
            self._cluster.checks.complain(f"membership: {process.name} is an observer and leads")

    def changed(self, process: Process, before: Configuration, after: Configuration) -> None:
        """Check a member table that a leader has just appended, against the one before."""
        complain = self._cluster.checks.complain
        for node_id in after.voters:
            if self.must_not_vote(node_id, after.members[node_id].incarnation):
                complain(f"membership: {process.name} gives the observer {node_id} a vote")
        if process.node_id not in after.voters:
            complain(f"membership: {process.name} leads and takes its own vote")
        for node_id in before.voters:
            member = after.members.get(node_id)
            if member is None or member.voter or member.incarnation != before.members[node_id].incarnation:
                continue
            self._taken(process, node_id, before, after)

    def _taken(self, process: Process, node_id: str, before: Configuration, after: Configuration) -> None:
        """Check that the vote of the member ``node_id`` was taken rightly."""
        cluster, now, node = self._cluster, self._cluster.scheduler.now, process.node
        dead = [
            other
            for other in after.voters
            if self._process(other) is None
            and now - max(self.died_at.get(other, now), self._elected_at[process.name]) > KNOWN_DEAD_S
        ]
        if 2 * len(dead) >= len(after.voters):
            cluster.checks.complain(
                f"membership: {process.name} takes the vote of {node_id}, and of {after.voters} {dead} are dead"
            )
        replicas = process.machine.settings.replicas
        if after.members[node_id].observer or replicas is None or len(before.voters) > replicas + 1:
            return
        silent_ms = node.links.now_ms() - node.peers.progress[node_id].acked_at_ms
        if silent_ms < 1000 * self.replace_after_s:
            cluster.checks.complain(
                f"membership: {process.name} takes the vote of {node_id}, silent for {silent_ms} ms"
            )

    def _process(self, node_id: str) -> Process | None:
        return next(host.process for host in self._cluster.hosts if host.node_id == node_id)


class _Change:
    """A promotion or demotion of one member that an operator asks for, until it is certain or given up."""

    def __init__(self, faults: Faults, host: Host, promotes: bool) -> None:
        self._faults = faults
        self._cluster = faults.cluster
        self._host = host
        self._incarnation = host.incarnation
        self._promotes = promotes
        self._attempt = 0
        self._unsure = False
        self._over = False
        roles = self._cluster.roles
        self._cluster.leaving.add(host.node_id)
        self._what = f"{'promote' if promotes else 'demote'} {host.node_id}"
        self._cluster.note(f"operator: {self._what}")
        if promotes:
            roles.promoted.add(self._incarnation)
            roles.demoted.discard(self._incarnation)
        self._ask()

    def _ask(self) -> None:
        cluster = self._cluster
        if self._over:
            return
        if self._attempt == 3:
            self._end()
            return
        self._attempt += 1
        attempt = self._attempt
        cluster.scheduler.at(ATTEMPT_S, self._silent, attempt)
        processes = [process for process in cluster.processes if not process.loop.paused]
        if processes:
            asked = self._faults.random.choice(processes)
            changes = asked.node.reconfiguration
            cluster.scheduler.at(
                cluster.wire.delay(),
                changes.promote if self._promotes else changes.demote,
                self._host.node_id,
                self._incarnation,
                lambda outcome, detail: self._answered(attempt, outcome, detail),
                owner=asked.loop,
            )

    def _silent(self, attempt: int) -> None:
        if attempt == self._attempt and not self._over:
            self._unsure = True
            self._ask()

    def _answered(self, attempt: int, outcome: str, detail: str) -> None:
        if self._over or attempt != self._attempt:
            return
        self._cluster.note(f"operator: {self._what}: {outcome} {detail}")
        if outcome in (CHANGED, KNOWN, CONFLICT, UNKNOWN):
            roles = self._cluster.roles
            certain = self._cluster.scheduler.now > roles.late.get(self._incarnation, 0.0)
            if outcome in (CHANGED, KNOWN) and not self._promotes and certain:
                roles.demoted.add(self._incarnation)
            self._end()
            return
        self._unsure = True
        self._cluster.scheduler.at(AGAIN_S, self._ask)

    def _end(self) -> None:
        self._over = True
        self._cluster.leaving.discard(self._host.node_id)
        if self._promotes and self._unsure:
            self._cluster.roles.late[self._incarnation] = self._cluster.scheduler.now + LATE_S


def _change(faults: Faults, host: Host, promotes: bool) -> None:
    if host.node_id not in faults.cluster.leaving:
        _Change(faults, host, promotes)


def _promote(faults: Faults) -> None:
    _change(faults, faults.somebody(), True)


def _demote(faults: Faults) -> None:
    _change(faults, faults.somebody(), False)


def _demote_leader(faults: Faults) -> None:
    _change(faults, faults.leading(), False)


def _replicas(faults: Faults) -> None:
    """Let an operator change how many members vote."""
    cluster = faults.cluster
    processes = [process for process in cluster.processes if not process.loop.paused]
    if processes:
        replicas = faults.random.choice((1, *range(1, len(cluster.hosts))))
        cluster.note(f"operator: replicas {replicas}")
        process = faults.random.choice(processes)
        process.loop.call_soon(process.send_unchecked, [commands.configure({"replicas": replicas})], _nobody_waits)


def _nobody_waits(outcome: Outcome) -> Callable[[], None]:
    return lambda: None


def _outage(faults: Faults) -> None:
    """Let a voter be down for longer than it is waited for, in an otherwise healthy cluster: a spare takes its place."""
    faults.alone(lambda: _go_out(faults))


def _go_out(faults: Faults) -> None:
    cluster, after_s = faults.cluster, faults.cluster.roles.replace_after_s
    leader = cluster.leader
    if leader is None or after_s > 60:
        return
    table, replicas = leader.node.configurations.latest, leader.machine.settings.replicas
    voters = [host for host in cluster.hosts if host.node_id in table.voters]
    if len(voters) < 3 or not table.spares or replicas is None:
        return
    host = faults.random.choice(voters)
    cluster.crash(host, power=faults.random.random() < 0.5)
    cluster.note(f"{host.node_id} is out for long")
    down_s = after_s + REPLACED_WITHIN_S

    def check() -> None:
        now = cluster.leader
        if now is None or host.process is not None or now.machine.settings.replicas != replicas:
            return
        found = now.node.configurations.settled
        eligible = [member.id for member in found.members.values() if not member.observer and member.id != host.node_id]
        if host.node_id in found.voters or len(found.voters) < min(replicas + 1, len(eligible)):
            cluster.checks.complain(
                f"progress: {host.node_id} was down for {down_s} s, and of {eligible} only {found.voters} vote"
            )

    cluster.scheduler.at(down_s, check)
    faults.later(down_s + 0.1, down_s + 2.0, lambda: faults.start(host))
    faults.quiet_for(down_s + 4.0)


# name -> (how often, compared with the others; what it does)
ROLE_FAULTS: dict[str, tuple[float, Callable[[Faults], None]]] = {
    "promote": (1, _promote),
    "demote": (0.7, _demote),
    "demote_leader": (0.3, _demote_leader),
    "replicas": (0.7, _replicas),
    "outage": (0.7, _outage),
}
