"""Faults of single machines: of disks, clocks, processors and addresses."""

from __future__ import annotations

from collections.abc import Callable
from errno import EMFILE
from itertools import islice
from random import Random
from typing import TYPE_CHECKING

from simulation.storage import DIRECTORY, vouched_bits

from cacheflow.contract import Outcome
from cacheflow.machine.language.commands import OK
from cacheflow.machine.machine import CacheMachine

if TYPE_CHECKING:
    from simulation.cluster import Host, Process
    from simulation.faults import Faults


# Disks.

# Seconds from the moment at which one disk hangs until writes through the others go on: the leader waits for its own disk for
# an election timeout, and for as long again should an election go wrong.
HUNG_DISK_S = 3.0


def slow_disk(faults: Faults) -> None:
    """Slow a disk down for a while, as a busy neighbour does."""
    host = faults.somebody()
    faults.cluster.note(f"{host.node_id}'s disk is slow")
    host.set_disk_latency((0.01, faults.random.choice((0.05, 0.5, 2.0))))
    faults.later(0.5, 5.0, lambda: host.set_disk_latency((0.0002, 0.002)))


def hung_disk(faults: Faults) -> None:
    """Let no work of a disk return for seconds, as a frozen file system or lost storage does; then all returns.

    If all is well otherwise, writes through every other node must go on soon.
    """
    host = faults.leading() if faults.random.random() < 0.7 else faults.somebody()
    process = host.process
    if process is None or process.writer.hung:
        return
    well = not faults.anything_wrong and faults.may_lose_one
    faults.cluster.note(f"{host.node_id}'s disk hangs")
    writers = (process.writer, process.background)
    for writer in writers:
        writer.hung = True

    def go_on() -> None:
        faults.cluster.note(f"{host.node_id}'s disk goes on")
        for writer in writers:
            if process.loop.alive:
                process.loop.call_soon(writer.go_on)

    faults.later(1.0, 6.0, go_on)
    if well:
        faults.quiet_for(HUNG_DISK_S)
        for other in faults.cluster.processes:
            if other is not process:
                _written_within(faults, other, HUNG_DISK_S)


def _written_within(faults: Faults, process: Process, seconds: float) -> None:
    """Check that a write that is asked for now is answered within so many seconds."""
    answered = False

    def done(outcome: Outcome) -> Callable[[], None]:
        nonlocal answered
        answered = not isinstance(outcome, Exception)
        return lambda: None

    def check() -> None:
        if process.loop.alive and not answered:
            faults.cluster.checks.complain(
                f"progress: no write through {process.name} in {seconds} s beside a hung disk"
            )

    process.loop.call_soon(process.inbox.barrier, done)
    faults.cluster.scheduler.at(seconds, check)


def broken_disk(faults: Faults) -> None:
    """Let one write or flush of a disk fail."""
    host = faults.somebody()
    if host.process is None:
        return
    faults.cluster.note(f"{host.node_id}'s disk fails")
    host.disk.fail(faults.random.choice(("write", "sync")), OSError("input/output error"))
    faults.later(0.5, 3.0, lambda: _replace(faults, host))


def _replace(faults: Faults, host: Host) -> None:
    """Start the process of a machine again, as its operator would."""
    if host.process is not None:
        faults.cluster.crash(host, power=faults.random.random() < 0.5)
    host.disk.forget_failures()
    faults.start(host)


def disk_full(faults: Faults) -> None:
    """Let a disk be full for a while. A node that was refused says so and is started again, the others go on."""
    host, cluster = faults.somebody(), faults.cluster
    disk = host.disk
    if disk.filled:
        return
    cluster.note(f"{host.node_id}'s disk is full")
    disk.filled = True

    def room() -> None:
        disk.filled = False
        cluster.note(f"{host.node_id}'s disk has room again")
        process = host.process
        if process is not None and process.node.replica.failure is not None:
            cluster.crash(host, power=faults.random.random() < 0.3)
        if host.disk is disk:
            faults.start(host)

    faults.later(0.5, 4.0, room)


def out_of_handles(faults: Faults) -> None:
    """Let the process of a machine open no more files for a while: it waits, and goes on by itself."""
    host, cluster = faults.somebody(), faults.cluster
    process, disk = host.process, host.disk
    if process is None or disk.out_of_handles:
        return
    cluster.note(f"{process.name} is out of file handles")
    disk.out_of_handles = True

    def over() -> None:
        disk.out_of_handles = False
        cluster.note(f"{process.name} may open files again")
        if isinstance(process.journal.failed, OSError) and process.journal.failed.errno == EMFILE:
            cluster.checks.complain(f"progress: {process.name} has failed instead of waiting: {process.journal.failed}")

    faults.later(0.5, 4.0, over)


def empty(faults: Faults) -> None:
    """Empty a machine's disk, only while no other is in trouble: a majority then keeps everything."""

    def strike() -> None:
        if faults.may_lose_one:
            host = faults.somebody()
            faults.cluster.crash(host, power=False)
            _come_back_empty(faults, host)

    faults.alone(strike)


def _come_back_empty(faults: Faults, host: Host) -> None:
    cluster = faults.cluster
    cluster.note(f"{host.node_id}'s disk is emptied")
    host.empty(faults.random)
    faults.later(3.0, 4.0, lambda: faults.start(host))
    faults.quiet_for(10.0)


def bit_flip(faults: Faults) -> None:
    """Flip one bit of what a disk has promised. The node must refuse and name the file; then it is emptied."""
    faults.alone(lambda: _flip(faults) if faults.may_lose_one else None)


def _flip(faults: Faults) -> None:
    host, cluster, random = faults.somebody(), faults.cluster, faults.random
    cluster.crash(host, power=False)
    path, length = random.choice(vouched_bits(host.disk, DIRECTORY))
    position, bit = random.randrange(length), random.randrange(8)
    host.disk.contents(path)[position] ^= 1 << bit
    cluster.note(f"bit {bit} of byte {position} of {host.node_id}'s {path.name} flips")
    refusal = cluster.start(host, damaged=True)
    if refusal is None or path.name not in refusal:
        cluster.checks.complain(f"corruption: {host.node_id} says {refusal!r} to a changed bit in {path.name}")
    _come_back_empty(faults, host)


def damage(faults: Faults) -> None:
    """Change a node's memory: it must notice by the others' digests, or its own disk's, and load its contents anew."""
    faults.alone(lambda: _damage(faults) if faults.may_lose_one else None)


def _damage(faults: Faults) -> None:
    cluster = faults.cluster
    process = faults.random.choice(cluster.processes)
    kind = faults.random.choice(("revision", *_SILENT))
    cluster.note(f"the contents of {process.name} are damaged: {kind}")
    cluster.checks.damaged[process.name] = process.machine
    if kind == "revision":
        process.machine.contents.revision += 1000
        return
    _SILENT[kind](process.machine)
    faults.quiet_for(SILENT_DAMAGE_S)
    _found_by_a_snapshot(faults, process, cluster.scheduler.now + SILENT_DAMAGE_S)


def _found_by_a_snapshot(faults: Faults, process: Process, until: float) -> None:
    """Let snapshots be built until one has found the damage that no effect tells of, and check that one does."""
    cluster, machine = faults.cluster, process.machine
    if process.host.process is not process or cluster.checks.damaged.get(process.name) is not machine:
        return
    if cluster.scheduler.now < until:
        process.loop.call_soon(process.node.building.build)
        cluster.scheduler.at(0.5, _found_by_a_snapshot, faults, process, until)
        return
    others = [other.machine for other in cluster.processes if other.machine.applied_index == machine.applied_index]
    if len(others) == 1:
        cluster.scheduler.at(0.05, _found_by_a_snapshot, faults, process, until)
    elif all(other.outlook() == machine.outlook() for other in others):
        # The difference has passed by itself: what was next is gone, an answer is not kept any more.
        del cluster.checks.damaged[process.name]
    else:
        cluster.checks.complain(f"progress: the contents of {process.name} are damaged, and it has not noticed")


def _use_the_next_victim(machine: CacheMachine) -> None:
    for key, _ in islice(machine.contents.items.ordered(), 1):
        machine.contents.use(key, 5)


def _forget_a_kept_answer(machine: CacheMachine) -> None:
    if machine.idempotency.kept:
        machine.idempotency._drop_oldest()
    else:
        _use_the_next_victim(machine)


def _change_an_answer(machine: CacheMachine) -> None:
    for _, session in machine.sessions:
        if session.kept:
            session.kept[-1] = [OK, 1 << 40]


# Damage that no effect tells of.
_SILENT: dict[str, Callable[[CacheMachine], None]] = {
    "order of use": _use_the_next_victim,
    "a kept answer": _forget_a_kept_answer,
    "a session's answer": _change_an_answer,
}
# Seconds until some snapshot has been built and has been loaded in the place of damaged contents.
SILENT_DAMAGE_S = 10.0


def helper(faults: Faults) -> None:
    """Let a machine's snapshot helper not start for a while, or write what nobody can load."""
    host = faults.somebody()
    host.helper = faults.random.choice(("fails", "garbles"))
    faults.cluster.note(f"{host.node_id}'s snapshot helper {host.helper}")

    def undo() -> None:
        host.helper = ""

    # No longer, for each failure makes the next pause longer.
    faults.later(0.5, 3.0, undo)


# Clocks and processors.


def wall_jump(faults: Faults) -> None:
    """Set a machine's wall clock: in most runs one of a minority, so that a majority knows what time it is."""
    hosts = faults.cluster.hosts
    host = faults.random.choice(hosts[-((len(hosts) - 1) // 2) :] if _a_majority_knows(faults) else hosts)
    host.set_wall_clock(faults.random.uniform(-7200, 7200))
    faults.cluster.note(f"{host.node_id}'s wall clock jumps")


def _a_majority_knows(faults: Faults) -> bool:
    """Return whether this is one of the runs, most of them, in which a majority knows what time it is."""
    return Random(f"{faults.cluster.seed} clocks").random() < 0.8


def guessed_time(faults: Faults) -> None:
    """Start all machines but one anew with wall clocks that are fast, while that one, which knows the time, is cut off.

    For that one the cluster's time jumps when it hears of the others again.
    """
    if _a_majority_knows(faults):
        return
    knowing = faults.somebody()
    others = [host for host in faults.cluster.hosts if host is not knowing]
    faults._apart([knowing], f"{knowing.node_id} alone, and the others' wall clocks jump")
    for host in others:
        faults._crash(host, power=True)
        host.set_wall_clock(20.0)


def slow_processor(faults: Faults) -> None:
    """Let applying an entry take long on one machine: what is committed waits."""
    host = faults.leading() if faults.random.random() < 0.5 else faults.somebody()
    host.apply_s = faults.random.choice((0.003, 0.012, 0.04))
    faults.cluster.note(f"{host.node_id} needs {host.apply_s} s an entry")

    def undo() -> None:
        host.apply_s = 0.0

    faults.later(0.5, 4.0, undo)


def campaign(faults: Faults) -> None:
    """Let a follower campaign beside a leader, as one that was granted its pre-votes a moment before it was heard."""
    host = faults.somebody()
    process = host.process
    if process is None or process.node.is_leader or not process.node.membership.may_campaign():
        return
    faults.cluster.note(f"{host.node_id} campaigns beside its leader")

    def begin() -> None:
        if not process.node.is_leader and process.node.membership.may_campaign():
            process.node._core.campaign()
            process.node.ticks.wake()

    process.loop.call_soon(begin)


# Addresses.


def all_found(faults: Faults) -> bool:
    """Return whether all know all addresses: whoever moves next can find the others, or be found."""
    hosts, processes = faults.cluster.hosts, faults.cluster.processes
    tables = [process.node.configurations.latest.members for process in processes]
    everybody = len(processes) == len(hosts) and all(host.node_id in table for table in tables for host in hosts)
    return everybody and none_moved(faults)


def none_moved(faults: Faults) -> bool:
    """Return whether no member is known under an address that it has left."""
    return all(
        host.node_id not in members or members[host.node_id].raft_address == host.address
        for members in (process.node.configurations.latest.members for process in faults.cluster.processes)
        for host in faults.cluster.hosts
    )


def _restart_later(faults: Faults, host: Host) -> None:
    faults.later(0.05, 3.0, lambda: faults.start(host))


def move(faults: Faults) -> None:
    """Restart a machine under another address."""
    host = faults.somebody()
    if not all_found(faults) or faults.cluster.leaving:
        return
    faults.cluster.crash(host, power=faults.random.random() < 0.5)
    host.move()
    faults.cluster.note(f"{host.node_id} lives at {host.address} now")
    _restart_later(faults, host)


def move_all(faults: Faults) -> None:
    """Restart all machines under other addresses, where only their seeds and peers find them: each names the others."""
    hosts = faults.cluster.hosts
    if not all_found(faults) or faults.cluster.leaving:
        return
    for host in hosts:
        faults.cluster.crash(host, power=faults.random.random() < 0.5)
        host.move()
        host.rejoins = True
    faults.cluster.note("all have other addresses now")
    for host in hosts:
        _restart_later(faults, host)


def swap(faults: Faults) -> None:
    """Restart two machines under each other's address."""
    one, other = faults.random.sample(faults.cluster.hosts, 2)
    tables = [process.node.configurations.latest.members for process in faults.cluster.processes]
    # Somebody must stay whom both can find, and who may lead.
    third = any(
        all(table[host.node_id].voter for table in tables)
        for host in faults.cluster.hosts
        if host not in (one, other) and all(host.node_id in table for table in tables)
    )
    if not all_found(faults) or faults.cluster.leaving or not third:
        return
    for host in (one, other):
        faults.cluster.crash(host, power=faults.random.random() < 0.5)
    one.address, other.address = other.address, one.address
    faults.cluster.note(f"{one.node_id} and {other.node_id} exchange their addresses")
    for host in (one, other):
        _restart_later(faults, host)


# name -> how often, compared with the others; what it does.
MACHINE_FAULTS: dict[str, tuple[float, Callable[[Faults], None]]] = {
    "slow_disk": (1, slow_disk),
    "hung_disk": (1, hung_disk),
    "broken_disk": (0.5, broken_disk),
    "disk_full": (0.5, disk_full),
    "out_of_handles": (0.5, out_of_handles),
    "empty": (0.5, empty),
    "bit_flip": (0.5, bit_flip),
    "damage": (0.5, damage),
    "helper": (0.5, helper),
    "wall_jump": (1, wall_jump),
    "guessed_time": (0.5, guessed_time),
    "slow_processor": (1, slow_processor),
    "campaign": (0.5, campaign),
    "move": (0.5, move),
    "swap": (0.3, swap),
    "move_all": (0.3, move_all),
}
