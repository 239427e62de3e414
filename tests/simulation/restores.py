"""Restores: backups of one cluster are restored in another one, of another size and policy, while that is under faults.

``python -m tests.simulation --restores --seeds 1..100``. An operator sends the product's own steps through some node. Where that
node ends, or the operator loses patience, a restore is begun again through another one, perhaps of another backup. At last the
contents are those of the backup that was restored last, and nothing has a version that another value had in either cluster.
"""

from __future__ import annotations

import io
import time
import traceback
from collections.abc import Callable
from random import Random
from typing import Any

import pytest
from simulation.checks import Violation
from simulation.cluster import TIMEOUT_S, Cluster, Process, patched
from simulation.faults import Faults, draw
from simulation.runner import JOURNAL_BYTES, Outcome, describe
from simulation.storage import DIRECTORY

from cacheflow.contract import Outcome as Told
from cacheflow.errors import RestoreConflict
from cacheflow.files.backup import opened
from cacheflow.machine.language import commands
from cacheflow.machine.language.commands import Command
from cacheflow.machine.state.entries import EXPIRES_AT_MS, META, VERSION
from cacheflow.node import restoring
from cacheflow.raft.snapshots import helper

KINDS = dict.fromkeys(
    (
        "kill",
        "power",
        "isolate",
        "isolate_leader",
        "pause_leader",
        "snapshot",
        "reset",
        "doubling",
        "loss",
        "hand_over",
    ),
    1.0,
)
# Items of one step: so few that a restore takes many of them.
ITEMS_A_STEP = 3
KEYS = 40
SECONDS = 12.0
# Seconds after the last fault within which a restore is done.
DONE_WITHIN_S = 30.0
AGAIN_S = 0.2
# The most seconds between two steps: so many that faults strike in the middle.
PAUSE_S = 0.6
# Seconds between two looks of the operator, and the share of looks at which a restore is begun again: for no reason, and because
# no step was answered since the look before.
LOOK_EVERY_S = 0.7
IMPATIENCE = 0.04
IMPATIENCE_WITH_SILENCE = 0.4

# What a backup holds: (data, kind, meta, expires_at_ms) by key.
Contents = dict[str, tuple[Any, ...]]


def contents_of(process: Process) -> Contents:
    """Return what clients would find on a node."""
    machine = process.machine
    live = {key: entry for key in machine.contents.raw if (entry := machine.contents.find(key)) is not None}
    return {key: (*entry[: META + 1], entry[EXPIRES_AT_MS]) for key, entry in live.items()}


class Versions:
    """The values that each version of a key had, in one cluster; after a restore in both."""

    def __init__(self, *others: Versions) -> None:
        self._known: dict[tuple[str, int], tuple[Any, ...]] = {}
        self._others = others

    def look(self, process: Process) -> None:
        """Note the versions on a node; complain of one that has met another value."""
        for other in self._others:
            other.look(process)
        for key, entry in process.machine.contents.raw.items():
            value = entry[: META + 1]
            before = self._known.setdefault((key, entry[VERSION]), value)
            if before != value:
                process.cluster.checks.complain(
                    f"versions: {key} at version {entry[VERSION]} was {before[0]!r} and is {value[0]!r}"
                )


def ask(cluster: Cluster, process: Process, command: Command) -> None:
    """Replicate a command in a cluster without faults, and wait for it."""
    told: list[Told] = []

    def done(outcome: Told) -> Callable[[], None]:
        told.append(outcome)
        return lambda: None

    process.loop.do(process.inbox.submit, [command], done)
    if not cluster.run(5.0, lambda: bool(told)) or not isinstance(told[0], list) or told[0][0][0] > commands.MISSING:
        cluster.checks.complain(f"progress: {command} is answered by {told}")


def write(cluster: Cluster, random: Random, versions: Versions, count: int, prefix: str = "k") -> None:
    """Write and remove some keys, each value once, and note their versions."""
    for _ in range(count):
        key = f"{prefix}{random.randrange(KEYS)}"
        process = random.choice(cluster.processes)
        if random.random() < 0.1:
            ask(cluster, process, commands.delete(key))
        else:
            ttl_ms = random.choice((0, 0, 10**9 + random.randrange(1000)))
            ask(cluster, process, commands.set_(key, b"%x" % random.getrandbits(64), 1, None, ttl_ms))
        versions.look(process)


def taken(cluster: Cluster, random: Random) -> tuple[bytes, Contents]:
    """Return a backup as a node's helper makes it, and what the node has in its memory."""
    if not cluster.run(10.0, cluster.healthy):
        cluster.checks.complain(f"progress: not at rest: {describe(cluster)}")
    process = random.choice(cluster.processes)
    cluster.run(5.0, lambda: process.node.durable_index >= process.node.last_applied)
    data = bytearray()
    helper.write_backup(process.host.disk, DIRECTORY, process.node.last_applied, data.extend)
    return bytes(data), contents_of(process)


class Operator:
    """Restores backups, one after the other, until one is done."""

    def __init__(self, cluster: Cluster, random: Random, backups: list[tuple[bytes, Contents]]) -> None:
        self._cluster = cluster
        self._random = random
        self._backups = backups
        self._process: Process | None = None
        self._number = 0
        self._answered = False
        self.patient = False
        self.repeats = 0
        # What the restore that was done last has brought, and whether clients were served.
        self.done: Contents | None = None
        self.done_id = ""
        self.online = False
        cluster.scheduler.at(0.0, self._look)

    def _look(self) -> None:
        if self.done is not None:
            return
        cluster = self._cluster
        self._cluster.scheduler.at(LOOK_EVERY_S, self._look)
        is_gone = self._process is None or self._process not in cluster.processes
        impatience = 0.0 if self.patient else IMPATIENCE if self._answered else IMPATIENCE_WITH_SILENCE
        self._answered = False
        if cluster.processes and (is_gone or self._random.random() < impatience):
            self._begin()

    def _begin(self) -> None:
        cluster, random = self._cluster, self._random
        process = self._process = random.choice(cluster.processes)
        self.repeats += self._number > 0
        self._number += 1
        number, restore_id = self._number, f"restore {self._number}"
        data, brings = random.choice(self._backups)
        self.online = random.random() < 0.3
        online = self.online
        meta, items = opened(io.BytesIO(data))
        cluster.note(f"{process.name} restores {meta.items} items{' online' if online else ''}: {restore_id}")
        latest = process.machine.restoring
        going = restoring.steps(restore_id, latest.id if latest else "", meta, items, online)

        def send(command: Command) -> None:
            process.inbox.submit([command], lambda told: answered(command, told))

        def answered(command: Command, told: Told) -> Callable[[], None]:
            if not isinstance(told, list):
                process.loop.call_later(AGAIN_S, send, command)
                return lambda: None
            self._answered = True
            try:
                following = going.send(told[0])
            except StopIteration:
                cluster.note(f"{restore_id} is done")
                if number == self._number:
                    self.done, self.done_id = brings, restore_id
            except RestoreConflict as error:
                cluster.note(str(error))
                if number == 1 == self._number or not str(error).endswith(f"{[commands.PRECONDITION, -1]})"):
                    cluster.checks.complain(f"restore: no other one has begun, and {error}")
                other = process.machine.restoring
                if "ended after" in str(error) and other is not None and int(other.id.split()[1]) < number:
                    cluster.checks.complain(f"restore: the earlier {other.id} takes the place of {restore_id}")
                if number == self._number:
                    self._process = None
            else:
                process.loop.call_later(random.uniform(0.0, PAUSE_S), send, following)
            return lambda: None

        process.loop.do(send, next(going))

    def look_at(self, process: Process) -> None:
        """Check that clients are served only where they see no part of the contents."""
        restore = process.machine.restoring
        if restore is None or restore.online or restore.ended:
            return
        if process.may_read or process.takes_writes:
            process.cluster.checks.complain(
                f"restore: {process.name} serves clients with {restore.done} of {restore.items} items"
            )


def run(seed: int, nodes: int = 3, *, trace: bool = False) -> Outcome:
    """Make backups of a cluster, and restore them in another one of ``nodes`` nodes under faults."""
    outcome = Outcome(seed)
    began = time.perf_counter()
    random = Random(f"restore {seed} {nodes}")
    versions = Versions()
    own = Versions()
    policies = random.sample(("lru", "lfu"), 2)
    clusters = [
        Cluster(random.getrandbits(64), count, settings=settings_of(policy, count), wall_skew_s=0.0, trace=trace)
        for policy, count in zip(policies, (random.choice((1, 3)), nodes), strict=True)
    ]
    of, cluster = clusters
    if random.random() < 0.3:
        cluster.settings["max_items"] = random.choice((5, 15))
    try:
        with patched(of):
            found(of)
            write(of, random, versions, 60)
            backups = [taken(of, random)]
            write(of, random, versions, 30)
            backups.append(taken(of, random))
            write(of, random, versions, 30)
        with (
            patched(cluster, journal_bytes=random.choice((None, JOURNAL_BYTES // 5))),
            pytest.MonkeyPatch.context() as patch,
        ):
            patch.setattr(restoring, "ITEMS_A_STEP", ITEMS_A_STEP)
            found(cluster)
            write(cluster, random, own, random.choice((0, 30)))
            operator = Operator(cluster, random, backups)
            faults = Faults(cluster, draw(random, KINDS, random.choice((0.3, 1.0)), SECONDS))
            outcome.faults = faults.counts
            until = cluster.scheduler.now + SECONDS
            while cluster.scheduler.now < until and operator.done is None:
                cluster.run(0.02)
                for process in cluster.processes:
                    operator.look_at(process)
            faults.stop()
            operator.patient = True
            if not cluster.run(DONE_WITHIN_S, lambda: operator.done is not None):
                cluster.checks.complain(f"progress: the restore is not done: {describe(cluster)}")
            if not cluster.run(20.0, cluster.healthy):
                cluster.checks.complain(f"progress: not at rest: {describe(cluster)}")
            check(cluster, operator, Versions(versions, own))
            write(cluster, random, Versions(versions, own), 30)
            cluster.run(TIMEOUT_S + 2.0)
            for process in cluster.processes:
                restore = process.machine.restoring
                if restore is None or restore.id != operator.done_id or not restore.ended:
                    cluster.checks.complain(f"restore: {operator.done_id} was done last, and now there is {restore}")
            if not cluster.run(10.0, cluster.checks.nothing_left):
                cluster.checks.complain("progress: something is left over")
            cluster.checks.at_the_end(None)
            outcome.acknowledged = operator.repeats
    except Violation as violation:
        outcome.violation = str(violation)
    except Exception as error:
        outcome.violation = f"at {cluster.scheduler.now - 1000:.6f}: exception: {type(error).__name__}: {error}"
        cluster.transcript.append(traceback.format_exc())
    outcome.transcript = cluster.transcript
    outcome.fingerprint = cluster.fingerprint
    outcome.simulated_s = sum(each.scheduler.now - 1000 for each in clusters)
    outcome.elections = len(cluster.checks.leaders)
    outcome.real_s = time.perf_counter() - began
    return outcome


def settings_of(policy: str, nodes: int) -> dict[str, Any]:
    """Return the replicated settings of a cluster of ``nodes`` nodes."""
    return {"policy": policy, "max_items": None, "max_bytes": None, "replicas": nodes - 1}


def found(cluster: Cluster) -> None:
    """Start all nodes, and wait until they are one cluster."""
    for host in cluster.hosts:
        cluster.start(host)
    if not cluster.run(15.0, cluster.healthy):
        cluster.checks.complain(f"progress: the cluster is not founded: {describe(cluster)}")


def check(cluster: Cluster, operator: Operator, versions: Versions) -> None:
    """Check that every node has what was restored, as far as it has room, and nothing else."""
    brought = operator.done or {}
    room = cluster.settings["max_items"] or len(brought)
    for process in cluster.processes:
        restore = process.machine.restoring
        if restore is None or not restore.ended or restore.done != restore.items or process.machine.is_closed:
            cluster.checks.complain(f"restore: {process.name} says that the restore is {restore}")
        has = contents_of(process)
        if len(has) != min(room, len(brought)) or any(brought.get(key) != entry for key, entry in has.items()):
            wrong = sorted(key for key in has.keys() | brought.keys() if has.get(key) != brought.get(key))
            cluster.checks.complain(
                f"restore: {process.name} has {len(has)} items of {len(brought)}; wrong: {wrong[:10]}"
            )
        versions.look(process)
