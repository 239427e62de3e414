"""Faults: what each alert is for, made on real nodes.

A fault is a generator. It makes the fault and yields which alerts that must fire, as (alert, node id) with "" for the whole
cluster; it goes on once a minute, as long as the fault is to last, and mends what it can when it is closed. Who runs it decides
how long a minute is: ``test_faults.py`` scrapes at each, ``__main__.py`` has a real Prometheus do that.
"""

from __future__ import annotations

import contextlib
import resource
import signal
import socket
import ssl
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from cluster import newer_build
from cluster.connection import path_of
from cluster.disk_shim import hold_of
from cluster.processes import HOST, NodeProcess, wait_for
from monitoring import scenes
from monitoring.sabotage import sabotage
from monitoring.scenes import MAX_ITEMS, Scene

Alerts = set[tuple[str, str]]
Minutes = Generator[Alerts, None, None]

CLUSTER = ""
# Entries that a follower is to be behind, with some to spare.
BEHIND = 1100


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault. scene: makes its nodes, which faults of one scene share.  interval_s: how long a scrape counts."""

    name: str
    scene: Callable[[Path], AbstractContextManager[Scene]]
    alerts: frozenset[str]
    interval_s: int
    make: Callable[[Scene], Minutes]


FAULTS: list[Fault] = []


def fault(
    scene: Callable[[Path], AbstractContextManager[Scene]], *alerts: str, interval_s: int = 60
) -> Callable[[Callable[[Scene], Minutes]], Callable[[Scene], Minutes]]:
    """Register a fault. alerts: the names, without the prefix, of all alerts that it makes fire."""

    def register(make: Callable[[Scene], Minutes]) -> Callable[[Scene], Minutes]:
        name = make.__name__.replace("_", " ")
        FAULTS.append(Fault(name, scene, frozenset(alerts), interval_s, make))
        return make

    return register


def lasting(*fired: tuple[str, NodeProcess | str]) -> Minutes:
    """Go on for ever, with nothing more to do. fired: the alerts, each with its node or CLUSTER."""
    expected = {(alert, node if isinstance(node, str) else node.node_id) for alert, node in fired}
    while True:
        yield expected


# Three nodes ------------------------------------------------------------------------------------------------------------


@fault(scenes.trio, "NearLimit")
def the_cache_is_nearly_full(scene: Scene) -> Minutes:
    fill(scene.nodes[0], "near", MAX_ITEMS - 20)
    try:
        yield from lasting(("NearLimit", CLUSTER))
    finally:
        clear(scene.nodes[0])


@fault(scenes.trio, "TooSmall")
def the_cache_is_too_small_for_what_is_used(scene: Scene) -> Minutes:
    node, minute = scene.nodes[0], 0
    fill(node, "full", MAX_ITEMS)
    expected = {("TooSmall", CLUSTER)}
    try:
        while True:
            minute += 1
            fill(node, f"minute-{minute}", 300)
            with node.connect() as connection:
                for number in range(5):
                    connection.request("GET", path_of(f"full/{number}"))
            yield expected
    finally:
        clear(node)


@fault(scenes.trio, "LeaderChangesOften")
def leadership_moves_all_the_time(scene: Scene) -> Minutes:
    while True:
        before = scene.nodes.leader()
        scene.nodes[0].ask("POST", "/cluster/leader", {"id": scene.nodes.others(before)[0].node_id})
        wait_for(lambda: scene.nodes.leader() is not before, "another leads")  # noqa: B023 - called at once
        yield {("LeaderChangesOften", CLUSTER)}


@fault(scenes.trio, "RequestsRefused")
def a_port_has_too_few_connections(scene: Scene) -> Minutes:
    node = scene.follower()
    sabotage(node, "bound_connections", 1)
    try:
        with scene.speak_resp(node) as held:
            held.sendall(b"PING\r\n")
            assert held.recv(64) == b"+PONG\r\n"
            while True:
                with scene.speak_resp(node) as refused:
                    assert refused.recv(64).startswith(b"-ERR max number of clients")
                yield {("RequestsRefused", node.node_id)}
    finally:
        sabotage(node, "bound_connections", 100)


@fault(scenes.trio, "ClientsEnded")
def a_client_asks_and_does_not_read(scene: Scene) -> Minutes:
    node = scene.follower()
    sabotage(node, "bound_unsent", 1 << 20)
    scene.nodes[0].put("large", "x" * 1_000_000)
    wait_for(lambda: node.value("large"), "it is there")
    with contextlib.closing(socket.socket()) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
        client.connect((HOST, scene.resp[node.node_id]))
        client.sendall(b"GET large\r\n" * 40)
        wait_for(lambda: metric(node, "unsent_ended_total"), "it is ended")
    sabotage(node, "bound_unsent", 64 << 20)
    scene.nodes[0].ask("DELETE", path_of("large"))
    yield from lasting(("ClientsEnded", node))


@fault(scenes.trio, "FlushSlow", "CommitSlow")
def all_disks_are_slow(scene: Scene) -> Minutes:
    leader, minute = scene.nodes.leader(), 0
    expected = {("FlushSlow", node.node_id) for node in scene.all} | {("CommitSlow", leader.node_id)}
    while True:
        if minute % 2 == 0:
            with hung(*scene.all):
                thread = threading.Thread(target=leader.put, args=("slow", 1))
                thread.start()
                wait_for(lambda: all((metric(node, "disk_wait_seconds") or 0) > 0.6 for node in scene.all), "they wait")
            thread.join()
            # A majority's flushes answer the write: the third may not be counted yet.
            wait_for(lambda: not any(metric(node, "disk_wait_seconds") for node in scene.all), "all have flushed")
        minute += 1
        yield expected


@fault(scenes.trio, "LoopHeld")
def something_keeps_the_loop_now_and_then(scene: Scene) -> Minutes:
    node = scene.follower()
    while True:
        sabotage(node, "hold_loop", 0.3)
        yield {("LoopHeld", node.node_id)}


@fault(scenes.trio, "LoopHangs", "ReadsStale", interval_s=30)
def the_loop_stands_still(scene: Scene) -> Minutes:
    node = scene.follower()
    sabotage(node, "hang_loop")
    try:
        wait_for(lambda: (metric(node, "loop_turn_age_seconds") or 0) > 2.1, "it has stood for two seconds")
        yield from lasting(("LoopHangs", node), ("ReadsStale", node))
    finally:
        sabotage(node, "release_loop")
        scene.nodes.wait_whole()


@fault(scenes.trio, "DescriptorsLow")
def few_file_descriptors_are_left(scene: Scene) -> Minutes:
    node = scene.follower()
    assert node.process is not None
    pid = node.process.pid
    usual = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (len(list(Path(f"/proc/{pid}/fd").iterdir())) + 5, usual[1]))
    try:
        yield from lasting(("DescriptorsLow", node))
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, usual)


@fault(scenes.trio, "DiskHung", "NotReady", "FollowerBehind", "WritesFail")
def the_disk_of_a_follower_hangs(scene: Scene) -> Minutes:
    node, leader = scene.follower(), scene.nodes.leader()
    with hung(node):
        pipeline(scene, leader, BEHIND)
        wait_for(lambda: metric(node, "disk_hung"), "it says so")
        try:
            while True:
                # Its own clients are told to go elsewhere.
                assert node.put("through it", 1).status == 503
                yield {
                    ("DiskHung", node.node_id),
                    ("NotReady", node.node_id),
                    ("FollowerBehind", leader.node_id),
                    ("WritesFail", CLUSTER),
                }
        finally:
            hold_of(node).unlink()
            scene.nodes.wait_whole()
            clear(leader)


@fault(scenes.trio, "SeveralNotReady", "NotReady", "DiskHung")
def the_disks_of_two_hang(scene: Scene) -> Minutes:
    followers = scene.nodes.others(scene.nodes.leader())
    try:
        with hung(*followers):
            scene.nodes.leader().put("hangs", 1)
            wait_for(lambda: all(metric(node, "disk_hung") for node in followers), "they say so")
            yield from lasting(
                ("SeveralNotReady", CLUSTER),
                *[(alert, node) for alert in ("NotReady", "DiskHung") for node in followers],
            )
    finally:
        scene.nodes.wait_whole()


@fault(scenes.trio, "ContentsInDoubt", "ContentsDiffered", "NotReady", "SnapshotsFail")
def the_memory_of_a_follower_is_wrong_and_it_cannot_check_it(scene: Scene) -> Minutes:
    node, leader = scene.follower(), scene.nodes.leader()
    leader.ask("POST", path_of("counter") + "/incr", {"initial": 0})
    wait_for(lambda: node.value("counter"), "it is there")
    sabotage(node, "break_helper", 64 << 20)
    sabotage(node, "damage", "counter")
    leader.ask("POST", path_of("counter") + "/incr", {"initial": 0})
    wait_for(lambda: metric(node, "in_doubt"), "it doubts")
    wait_for(lambda: (metric(node, "snapshot_failures_total") or 0) > 5, "it has tried to check them")
    try:
        yield from lasting(
            ("ContentsInDoubt", node), ("ContentsDiffered", CLUSTER), ("NotReady", node), ("SnapshotsFail", node)
        )
    finally:
        restart(scene, node)


@fault(scenes.trio, "DiskFailed", "NotReady", "ReadsStale")
def the_disk_of_a_follower_fails(scene: Scene) -> Minutes:
    node = scene.follower()
    sabotage(node, "break_disk")
    scene.nodes.leader().put("fails", 1)
    wait_for(lambda: metric(node, "failed"), "it says so")
    wait_for(lambda: (metric(node, "staleness_seconds") or 0) > 2.1, "its reads are old")
    try:
        yield from lasting(("DiskFailed", node), ("NotReady", node), ("ReadsStale", node))
    finally:
        restart(scene, node)


@fault(scenes.trio, "MemberDown", "NoSpareVoter", "ScrapeDown")
def a_member_is_down(scene: Scene) -> Minutes:
    node = scene.follower()
    node.kill()
    others = scene.nodes.others(node)
    wait_for(lambda: all(metric(other, "members_down") == 1 for other in others), "the others have noticed")
    try:
        yield from lasting(("MemberDown", CLUSTER), ("NoSpareVoter", CLUSTER), ("ScrapeDown", node))
    finally:
        restart(scene, node)


@fault(scenes.trio, "NoLeader", "MajorityLost", "NotReady", "SeveralNotReady", "ReadsStale", "MemberDown", "ScrapeDown")
def two_of_three_are_down(scene: Scene) -> Minutes:
    leader = scene.nodes.leader()
    down, other = scene.nodes.others(leader)
    try:
        down.kill()
        leader.kill()
        wait_for(lambda: (metric(other, "staleness_seconds") or 0) > 2.1, "its reads are old")
        wait_for(lambda: metric(other, "has_leader") == 0 and metric(other, "members_down") == 2, "it has noticed")
        yield from lasting(
            ("NoLeader", CLUSTER),
            ("MajorityLost", CLUSTER),
            ("NotReady", other),
            # None of those that answer is.
            ("SeveralNotReady", CLUSTER),
            ("ReadsStale", other),
            ("MemberDown", CLUSTER),
            ("ScrapeDown", down),
            ("ScrapeDown", leader),
        )
    finally:
        for node in (leader, down):
            node.start()
        scene.nodes.wait_whole()


@fault(scenes.trio, "NoLeader", "MajorityLost", "NotReady", "SeveralNotReady", "ReadsStale", "MemberDown", "ScrapeDown")
def two_of_three_hang(scene: Scene) -> Minutes:
    """Their connections stand, and nobody answers on them."""
    leader = scene.nodes.leader()
    hung, other = scene.nodes.others(leader)
    try:
        for node in (hung, leader):
            node.signal(signal.SIGSTOP)
        wait_for(lambda: (metric(other, "staleness_seconds") or 0) > 2.1, "its reads are old")
        wait_for(lambda: metric(other, "has_leader") == 0 and metric(other, "members_down") == 2, "it has noticed")
        yield from lasting(
            ("NoLeader", CLUSTER),
            ("MajorityLost", CLUSTER),
            ("NotReady", other),
            ("SeveralNotReady", CLUSTER),
            ("ReadsStale", other),
            ("MemberDown", CLUSTER),
            ("ScrapeDown", hung),
            ("ScrapeDown", leader),
        )
    finally:
        for node in (leader, hung):
            node.signal(signal.SIGCONT)
        scene.nodes.wait_whole()
        wait_for(lambda: all((metric(node, "staleness_seconds") or 9) < 1 for node in scene.all), "reads are fresh")


@fault(scenes.trio, "RemovedNodeRuns", "NoSpareVoter")
def a_removed_node_goes_on_running(scene: Scene) -> Minutes:
    node = scene.follower()
    assert scene.nodes.leader().ask("DELETE", f"/nodes/{node.node_id}").status == 204
    wait_for(lambda: metric(node, "removed"), "it knows")
    # Two voters are left of the three that replicas asks for.
    yield from lasting(("RemovedNodeRuns", node), ("NoSpareVoter", CLUSTER))


@fault(scenes.trio, "Absent", "ScrapeDown")
def all_are_down(scene: Scene) -> Minutes:
    for node in scene.all:
        node.kill()
    yield from lasting(("Absent", CLUSTER), *[("ScrapeDown", node) for node in scene.all])


# Others -----------------------------------------------------------------------------------------------------------------


@fault(scenes.secured, "CertificateEndsSoon", "UsersOutdated", "AccessRefused", "TlsHandshakesFail")
def nobody_has_renewed_anything(scene: Scene) -> Minutes:
    """The certificate ends soon, the file of users is wrong, and two clients go on with what counts no more."""
    node = scene.nodes[0]
    assert scene.users_file is not None
    before = scene.users_file.read_text()
    scene.users_file.write_text(f"{before}nonsense\n")
    node.signal(signal.SIGHUP)
    wait_for(lambda: metric(node, "users_outdated"), "it has read the file")
    alerts = ("CertificateEndsSoon", "UsersOutdated", "AccessRefused", "TlsHandshakesFail")
    try:
        for expected in lasting(*[(alert, node) for alert in alerts]):
            for _ in range(4):
                with contextlib.suppress(ssl.SSLError), contextlib.closing(untrusting(node)) as client:
                    client.do_handshake()
            with node.connect() as connection:
                for _ in range(4):
                    assert (
                        connection.request("GET", "/cache/key", headers={"authorization": "Bearer old"}).status == 401
                    )
            yield expected
    finally:
        scene.users_file.write_text(before)
        node.signal(signal.SIGHUP)


@fault(scenes.secured, "CertificateEndsSoon", "TlsHandshakesFail")
def a_client_speaks_no_tls(scene: Scene) -> Minutes:
    node = scene.nodes[0]
    for expected in lasting(("CertificateEndsSoon", node), ("TlsHandshakesFail", node)):
        for _ in range(4):
            with socket.create_connection((HOST, node.port), 10) as plain:
                plain.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                while plain.recv(4096):
                    pass
        yield expected


@fault(scenes.lone, "TwoClusters")
def a_node_founds_a_second_cluster(scene: Scene) -> Minutes:
    node = scene.nodes.add()
    try:
        # It was told of no other.
        node.seeds = []
        node.start()
        wait_for(node.is_ready, "it leads its own")
        yield from lasting(("TwoClusters", CLUSTER))
    finally:
        node.kill()
        scene.nodes.all.remove(node)


@fault(scenes.lone, "SnapshotsFail", "SnapshotOverdue", "NotReady", "SeveralNotReady")
def snapshots_cannot_be_built(scene: Scene) -> Minutes:
    node = scene.nodes[0]
    sabotage(node, "break_helper", 1 << 20)
    large = b"*3\r\n$3\r\nSET\r\n$5\r\nlarge\r\n$1000000\r\n" + bytes(1_000_000) + b"\r\n"
    with scene.speak_resp(node) as client:
        for _ in range(210):
            client.sendall(large)
            assert client.recv(64) == b"+OK\r\n"
    wait_for(lambda: metric(node, "ready") == 0, "it has tried, and says that it cannot")
    yield from lasting(
        ("SnapshotsFail", node), ("SnapshotOverdue", node), ("NotReady", node), ("SeveralNotReady", CLUSTER)
    )


@fault(scenes.small_disk, "DiskNearlyFull", "DiskHung", "NotReady", "SeveralNotReady")
def a_disk_is_full(scene: Scene) -> Minutes:
    node = scene.nodes[0]
    filler = node.data_dir.parent / "filler"
    with filler.open("wb") as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(1 << 20))
            file.flush()
    # The journal has space reserved; these use it up.
    while node.put("large", "x" * 1_000_000).status in (200, 201):
        pass
    wait_for(lambda: metric(node, "disk_hung"), "it says so")
    wait_for(lambda: (metric(node, "disk_free_bytes") or 0) < 1 << 20, "it has looked how much is left")
    try:
        yield from lasting(
            ("DiskNearlyFull", node), ("DiskHung", node), ("NotReady", node), ("SeveralNotReady", CLUSTER)
        )
    finally:
        filler.unlink()


@fault(scenes.two_builds, "UpgradeUnfinished", interval_s=240)
def an_upgrade_is_not_finished(scene: Scene) -> Minutes:
    node = scene.nodes[1]
    node.signal(signal.SIGTERM)
    node.wait()
    node.program = newer_build.PROGRAM
    node.start()
    scene.nodes.wait_whole()
    yield from lasting(("UpgradeUnfinished", CLUSTER))


# What they do -----------------------------------------------------------------------------------------------------------


def metric(node: NodeProcess, name: str) -> float | None:
    """Return one value of a node's metrics; None if the node does not answer, or has none."""
    answer = node.try_get("/metrics?format=json")
    value = answer.body.get(name) if answer.status == 200 else None
    return None if value is None else float(value)


def fill(node: NodeProcess, prefix: str, count: int) -> None:
    """Write so many keys."""
    ops = [{"op": "set", "key": f"{prefix}/{number}", "value": "x"} for number in range(count)]
    answer = node.ask("POST", "/cache/_batch", {"ops": ops})
    assert answer.status == 200, answer


def clear(node: NodeProcess) -> None:
    """Remove all keys."""
    assert node.ask("DELETE", "/cache?all=true").status == 200


def restart(scene: Scene, node: NodeProcess) -> None:
    """Start a node again, whatever state it is in, and wait until the cluster is whole."""
    if node.alive:
        node.kill()
    node.start()
    scene.nodes.wait_whole()


def pipeline(scene: Scene, node: NodeProcess, entries: int) -> None:
    """Make so many entries of the log: each write waits for the one before."""
    with scene.speak_resp(node) as client:
        for _ in range(entries):
            client.sendall(b"SET behind 1\r\n")
            assert client.recv(64) == b"+OK\r\n"


@contextlib.contextmanager
def hung(*nodes: NodeProcess) -> Iterator[None]:
    """Let the disks of some nodes hang."""
    for node in nodes:
        hold_of(node).touch()
    try:
        yield
    finally:
        for node in nodes:
            hold_of(node).unlink(missing_ok=True)


def untrusting(node: NodeProcess) -> ssl.SSLSocket:
    """Return a connection of a client that does not know the node's CA, before the handshake."""
    context = ssl.create_default_context()
    raw = socket.create_connection((HOST, node.port), 10)
    return context.wrap_socket(raw, server_hostname=HOST, do_handshake_on_connect=False)
