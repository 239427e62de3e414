"""The launcher with processes that only pretend to be nodes."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fakes import http_node

import cacheflow
from cacheflow.cli import demo, launcher
from cacheflow.cli.launcher import LocalCluster, ask, free_ports
from cacheflow.errors import ConfigError, NotReady

FAKE = (sys.executable, http_node.__file__)
ROOT = Path(__file__).parents[2]
DEADLINE_S = 10.0


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def seeds(cluster: LocalCluster, number: int) -> list[str]:
    arguments = cluster.children[number].arguments
    return [arguments[at + 1] for at, part in enumerate(arguments) if part == "--seed"]


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def cluster(tmp_path: Path, said: list[str]) -> Iterator[LocalCluster]:
    with LocalCluster(3, tmp_path, flags=("--eviction", "lfu"), say=said.append, command=FAKE) as cluster:
        yield cluster


def test_the_nodes_import_this_very_package_wherever_the_launcher_was_called_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = tmp_path / "found"
    # As an uninstalled checkout: nothing but PYTHONPATH leads to it.
    program = f"import sys, cacheflow, pathlib; pathlib.Path({str(found)!r}).write_text(cacheflow.__file__)"
    command = [sys.executable, "-S", "-c", f"{program}  #"]
    with LocalCluster(1, tmp_path, say=lambda _: None, command=command) as cluster:
        cluster.start()
        wait_for(found.exists)
        wait_for(lambda: found.read_text() != "")
    assert found.read_text() == cacheflow.__file__


def test_a_free_port_is_kept_from_outgoing_connections() -> None:
    (port,) = free_ports(1)
    with socket.socket() as other, pytest.raises(OSError, match="in use"):
        other.bind((launcher.HOST, port))
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((launcher.HOST, port))


def test_all_nodes_come_up_and_go_down(cluster: LocalCluster, tmp_path: Path, said: list[str]) -> None:
    cluster.start()
    members = cluster.wait_ready(DEADLINE_S)
    assert [member["id"] for member in members] == ["node-1", "node-2", "node-3"]
    assert [member["address"] for member in members] == cluster.urls
    assert "--eviction\nlfu" in (tmp_path / "node-2" / "flags").read_text()
    leader = cluster.leader()
    assert leader is cluster.children[0]
    cluster.stop()
    assert not any(child.alive for child in cluster.children)
    assert any(line.startswith("[node-2] listening on") for line in said)


def test_the_first_start_has_one_founder_and_the_others_join_through_all(cluster: LocalCluster) -> None:
    one, two, three = cluster.urls
    assert [seeds(cluster, number) for number in range(3)] == [[], [one, three], [one, two]]
    assert ["--bootstrap" in child.arguments for child in cluster.children] == [True, False, False]


def port_before_a_free_one() -> int:
    """A free port whose next one is free too: others on this machine take ports meanwhile."""
    for port in free_ports(50):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind((launcher.HOST, port + 1))
            return port
    raise AssertionError("no two free ports side by side")


def test_a_wire_port_is_the_first_node_s_and_the_others_get_the_next_ones(tmp_path: Path) -> None:
    first = port_before_a_free_one()
    flags = ("--memcached-port", str(first), "--resp-port=0", "--fsync", "never")
    children = LocalCluster(2, tmp_path, flags=flags).children
    assert [child.wire_ports["--memcached-port"] for child in children] == [first, first + 1]
    for child in children:
        told = [child.arguments[at + 1] for at, part in enumerate(child.arguments) if part in child.wire_ports]
        assert told == [str(port) for port in child.wire_ports.values()]
        assert child.arguments[-2:] == ["--fsync", "never"] and "--resp-port=0" not in child.arguments
    assert len({child.wire_ports["--resp-port"] for child in children}) == 2


@pytest.mark.parametrize("text", ["x", "-1", "65535", ""])
def test_a_wire_port_that_leaves_no_room_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match=f"--resp-port = '{text}': must be 0, or a port that leaves room for 2"):
        LocalCluster(2, tmp_path, flags=("--resp-port", text))


def test_a_wire_port_that_is_taken_names_its_flag(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"port {port} cannot be used .*; --memcached-port chooses others"):
            LocalCluster(1, tmp_path, flags=("--memcached-port", str(port)))


def test_a_restart_has_no_second_founder_when_the_first_node_lost_its_disk(tmp_path: Path) -> None:
    (tmp_path / "node-2").mkdir()
    (tmp_path / "node-2" / "log").touch()
    cluster = LocalCluster(2, tmp_path)
    assert seeds(cluster, 0) == [cluster.urls[1]]
    (tmp_path / "node-1").mkdir()
    (tmp_path / "node-1" / "log").touch()
    assert seeds(LocalCluster(2, tmp_path), 0) == []


def test_a_cluster_without_persistence_is_always_founded_anew(tmp_path: Path) -> None:
    (tmp_path / "node-2").mkdir()
    (tmp_path / "node-2" / "lock").touch()
    for flags in (("--persistence", "false"), ("--persistence=false",)):
        assert seeds(LocalCluster(2, tmp_path, flags=flags), 0) == []


def test_a_dead_node_is_told_once_with_its_last_lines(cluster: LocalCluster, said: list[str]) -> None:
    cluster.start()
    cluster.wait_ready(DEADLINE_S)
    victim = cluster.children[1].process
    assert victim is not None
    os.kill(victim.pid, signal.SIGKILL)
    wait_for(lambda: not cluster.children[1].alive)
    cluster.tell_deaths()
    cluster.tell_deaths()
    told = [line for line in said if "SIGKILL" in line]
    assert len(told) == 1 and "node-2" in told[0] and "listening on" in told[0]
    assert cluster.children[0].alive and cluster.children[2].alive


def test_a_node_that_cannot_start_ends_the_wait_with_its_reason(tmp_path: Path) -> None:
    command = (sys.executable, "-c", "import sys; sys.exit('cacheflow: the data directory is locked')")
    with LocalCluster(1, tmp_path, say=lambda _: None, command=command) as cluster:
        cluster.start()
        with pytest.raises(ConfigError, match=r"(?s)node-1 .* ended with exit code 1.*data directory is locked"):
            cluster.wait_ready(DEADLINE_S)


def test_a_node_that_is_never_ready_is_named(tmp_path: Path) -> None:
    command = (sys.executable, "-c", "import signal; signal.pause()")
    with LocalCluster(1, tmp_path, say=lambda _: None, command=command) as cluster:
        cluster.start()
        with pytest.raises(NotReady, match=r"node-1 .* is not ready"):
            cluster.wait_ready(0.1)


def test_a_node_that_ignores_sigterm_is_killed(
    tmp_path: Path, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launcher, "STOP_TIMEOUT_S", 0.1)
    script = "import signal; signal.signal(15, signal.SIG_IGN); print('deaf', flush=True)\nwhile True: signal.pause()"
    with LocalCluster(1, tmp_path, say=said.append, command=(sys.executable, "-c", script)) as cluster:
        cluster.start()
        wait_for(lambda: "[node-1] deaf" in said)
    assert not cluster.children[0].alive
    assert "node-1 does not end: killed" in said


def test_a_taken_port_is_one_clear_line(tmp_path: Path) -> None:
    with http_node.FakeNode() as other:
        port = int(other.url.rpartition(":")[2])
        with pytest.raises(ConfigError, match=rf"port {port} cannot be used .*--base-port"):
            LocalCluster(1, tmp_path, base_port=port)


@pytest.mark.parametrize(("size", "base_port"), [(0, None), (17, None), (3, 65000), (3, 0)])
def test_impossible_clusters_are_refused(tmp_path: Path, size: int, base_port: int | None) -> None:
    with pytest.raises(ConfigError):
        LocalCluster(size, tmp_path, base_port=base_port)


def test_free_ports_are_different_ones() -> None:
    assert len(set(free_ports(20))) == 20


def test_nobody_there_is_status_0() -> None:
    assert ask(f"http://127.0.0.1:{free_ports(1)[0]}", "/readyz") == (0, None)


def test_the_demonstration_writes_reads_and_survives_its_leader(cluster: LocalCluster, said: list[str]) -> None:
    cluster.start()
    cluster.wait_ready(DEADLINE_S)
    demo.demo(cluster, said.append)
    told = "\n".join(said)
    assert "PUT" in told and "'hello from node 1'" in told
    assert "kill -9 node-1, the leader" in told
    assert "a pause of" in told and "the leader is now node-2" in told


def test_the_tour_prints_commands_to_try(cluster: LocalCluster, said: list[str]) -> None:
    cluster.start()
    cluster.wait_ready(DEADLINE_S)
    demo.tour(cluster, said.append)
    assert f"  curl {cluster.urls[2]}/cache/greeting" in said


PROGRAM = """
import sys
from pathlib import Path
from cacheflow.cli.launcher import LocalCluster, terminable
with terminable(), LocalCluster(2, Path(sys.argv[1]), command=sys.argv[2:]) as cluster:
    cluster.start()
    cluster.wait_ready()
    try:
        print(*(child.process.pid for child in cluster.children), file=sys.stderr, flush=True)
        cluster.supervise()
    except KeyboardInterrupt:
        print("ended", file=sys.stderr, flush=True)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc, and the kernel's parent death signal")
@pytest.mark.parametrize("signal_number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_no_node_outlives_its_launcher(tmp_path: Path, signal_number: signal.Signals) -> None:
    started = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(tmp_path), *FAKE],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        # As a shell starts background jobs.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
    )
    with started:
        assert started.stderr is not None
        pids = [int(word) for word in started.stderr.readline().split()]
        assert len(pids) == 2 and all(http_node._alive(pid) for pid in pids)
        started.send_signal(signal_number)
        started.wait(DEADLINE_S)
        rest = started.stderr.read()
    wait_for(lambda: not any(http_node._alive(pid) for pid in pids))
    assert ("ended" in rest) == (signal_number != signal.SIGKILL)
