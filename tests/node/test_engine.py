"""The life of an embedded node: started twice, by several threads at once, in vain, forked, and with a loop that dies."""

from __future__ import annotations

import asyncio
import errno
import functools
import gc
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fakes.embedded import node_threads, wait_for

from cacheflow.cli.launcher import free_ports
from cacheflow.contract import Invalidated
from cacheflow.errors import ConfigError, NoLeader, NotReady, OutcomeUnknown
from cacheflow.machine.effects import WRITTEN
from cacheflow.machine.language import commands
from cacheflow.net.loop import NodeLoop
from cacheflow.node import engine as engine_module
from cacheflow.node import joining
from cacheflow.node.assembly import LocalNode
from cacheflow.node.disk_space import DiskSpace
from cacheflow.node.engine import Engine
from cacheflow.node.joining import Joining
from cacheflow.raft.membership.changes import Reconfiguration
from cacheflow.raft.node import RaftNode
from cacheflow.raft.transport.network import Peer
from cacheflow.raft.transport.peer_transport import PeerTransport
from cacheflow.store import ReplicatedStore

ROOT = Path(__file__).parents[2]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ReplicatedStore]:
    (port,) = free_ports(1)
    made = ReplicatedStore(node_id="a", raft_address=f"127.0.0.1:{port}", bootstrap=True, data_dir=tmp_path)
    yield made
    made.close()


def descriptors() -> int:
    gc.collect()
    return len(list(Path("/proc/self/fd").iterdir()))


def no_more_than(before: tuple[int, int]) -> bool:
    """Whether this process has no more descriptors and threads; clients of other tests may lose theirs meanwhile."""
    return descriptors() <= before[0] and threading.active_count() <= before[1]


def test_clients_are_told_what_has_changed_before_any_client_is_answered(store: ReplicatedStore) -> None:
    order: list[str] = []

    class Client:
        def invalidate(self, message: Invalidated) -> None:
            order.append("told")

        def write(self) -> None:
            order.append("written")

    with store.start():
        turn, tracking = store._engine._turn, store.tracking

        def work() -> None:
            tracking.note(tracking.begin(Client(), notes=True), ["a"])
            # As of an entry that was applied before, in the same turn.
            turn.defer_wake(lambda: order.append("answered"))
            tracking.applied([(WRITTEN, "a", 1, 0, 0)])

        store._engine._loop.call_soon_threadsafe(turn.run, work)
        wait_for(lambda: len(order) == 3)
    assert order == ["told", "written", "answered"]


def test_a_store_that_runs_goes_on_when_it_is_started_again(store: ReplicatedStore) -> None:
    with store.start() as started:
        assert started is store
        store["k"] = 1
        thread = store._engine._thread
        assert store.start() is store
        assert store["k"] == 1 and store._engine._thread is thread
        store["k"] = 2
    with pytest.raises(NotReady):
        store.get("k")


def test_threads_that_start_it_at_once_start_one_node(store: ReplicatedStore) -> None:
    failed: list[BaseException] = []

    def start() -> None:
        try:
            store.start()
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    store.wait_ready(10)
    store["k"] = 1
    assert not failed
    assert sum(thread.name == "cacheflow-loop" for thread in threading.enumerate()) == 1


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
def test_tries_in_vain_leave_nothing_and_harm_no_node_that_runs(store: ReplicatedStore, tmp_path: Path) -> None:
    store.start()
    store.wait_ready(10)
    address = f"127.0.0.1:{store.config.raft_listen_port}"
    before = descriptors(), threading.active_count()
    for number in range(10):
        other = ReplicatedStore(node_id="b", raft_address=address, data_dir=tmp_path / f"other-{number % 2}")
        with pytest.raises(ConfigError, match="is taken"):
            other.start()
        other.close()
        same = ReplicatedStore(node_id="a", raft_address="127.0.0.1:0", data_dir=tmp_path)
        with pytest.raises(ConfigError, match="in use by process"):
            same.start()
    wait_for(lambda: no_more_than(before))
    store["k"] = 1


def start_in_vain(store: ReplicatedStore) -> BaseException:
    """Start a node that cannot start; return what says so, which must not take long."""
    told: list[BaseException] = []

    def start() -> None:
        with pytest.raises((ConfigError, OSError)) as caught:
            store.start()
        told.append(caught.value)

    thread = threading.Thread(target=start, daemon=True)
    thread.start()
    thread.join(20)
    assert told, "it waits for ever"
    return told[0]


def test_a_start_in_vain_is_told_although_the_disk_is_slow(
    store: ReplicatedStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = threading.Event()
    close, look = NodeLoop.close, DiskSpace._look

    def closing(loop: NodeLoop) -> None:
        close(loop)
        closed.set()

    def slow(space: DiskSpace) -> tuple[int, int] | None:
        # What it has found is told when the event loop is closed.
        closed.wait(10)
        return look(space)

    store.start()
    monkeypatch.setattr(NodeLoop, "close", closing)
    monkeypatch.setattr(DiskSpace, "_look", slow)
    address = f"127.0.0.1:{store.config.raft_listen_port}"
    other = ReplicatedStore(node_id="b", raft_address=address, data_dir=tmp_path / "other")
    assert "is taken" in str(start_in_vain(other))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_start_in_vain_is_told_although_closing_fails(
    store: ReplicatedStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Engine) -> None:
        raise ValueError("closing has failed, too")

    with store.start():
        other = ReplicatedStore(node_id="a", raft_address="127.0.0.1:0", data_dir=tmp_path)
        monkeypatch.setattr(other._engine, "_close_rest", functools.partial(fail, other._engine))
        assert "in use by process" in str(start_in_vain(other))


def test_a_start_in_vain_does_not_wait_for_a_disk_that_hangs(
    store: ReplicatedStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    goes_on = threading.Event()
    monkeypatch.setattr(DiskSpace, "_look", lambda space: goes_on.wait(60) and None)
    monkeypatch.setattr(engine_module, "CLOSED_WITHIN_S", 0.2)
    with store.start():
        address = f"127.0.0.1:{store.config.raft_listen_port}"
        other = ReplicatedStore(node_id="b", raft_address=address, data_dir=tmp_path / "other")
        assert "is taken" in str(start_in_vain(other))
        assert "waits for the disk" in str(start_in_vain(other))
        goes_on.set()
        wait_for(lambda: "is taken" in str(start_in_vain(other)))


def test_a_start_that_fails_behind_its_first_step_leaves_no_port_taken(
    store: ReplicatedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: RaftNode) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(RaftNode, "start", fail)
        assert "No space left" in str(start_in_vain(store))
    assert node_threads() == []
    with store.start():
        store.wait_ready(10)


def test_a_start_that_is_interrupted_with_its_last_step_leaves_no_node_running(
    store: ReplicatedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = Joining.found_at_once

    def interrupted(joining: Joining) -> None:
        found(joining)
        os.kill(os.getpid(), signal.SIGINT)
        # The thread that has called start() stops the loop in the turn in which the start ends.
        wait_for(lambda: store._engine._is_ending)
        time.sleep(0.05)

    # Whoever runs the tests may ignore the signal.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    with monkeypatch.context() as patched:
        patched.setattr(Joining, "found_at_once", interrupted)
        with pytest.raises(KeyboardInterrupt):
            store.start()
    signal.signal(signal.SIGINT, before)
    assert node_threads() == [] and not store._engine.running
    with store.start():
        store.wait_ready(10)


def test_a_start_without_an_event_loop_is_told(store: ReplicatedStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def full() -> NodeLoop:
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as patched:
        patched.setattr(engine_module, "NodeLoop", full)
        assert "Too many open files" in str(start_in_vain(store))
    with store.start():
        store.wait_ready(10)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
def test_a_node_whose_loop_died_can_be_closed_and_started_again(store: ReplicatedStore) -> None:
    before = descriptors(), threading.active_count()

    def die() -> None:
        raise SystemExit(1)

    for number in range(2):
        store.start()
        store.wait_ready(10)
        store[f"k{number}"] = number
        thread = store._engine._thread
        assert thread is not None
        store._engine._loop.call_soon_threadsafe(die)
        thread.join(10)
        with pytest.raises(NotReady, match="is stopped"):
            store.get("k")
        if number:
            store.close()
    assert no_more_than(before)
    with store:
        assert dict(store) == {"k0": 0, "k1": 1}


def test_it_collects_no_garbage_of_the_application_s(store: ReplicatedStore, monkeypatch: pytest.MonkeyPatch) -> None:
    collected: list[Any] = []
    monkeypatch.setattr(gc, "collect", lambda *given: collected.append(given))
    with store:
        store["k"] = 1
        wait_for(lambda: store._engine.local.node.last_applied >= 3)
        assert not threading.Event().wait(0.3)
    assert not collected


def test_the_collector_never_goes_through_the_items_of_a_server(store: ReplicatedStore) -> None:
    engine = store._engine
    engine.config = replace(engine.config, collect_garbage=True)

    def are_frozen() -> bool:
        raw = engine.local.machine.contents.raw
        return engine._frozen is raw and not any(each is raw for each in gc.get_objects())

    try:
        with store:
            store.freeze_what_is_there()
            wait_for(are_frozen)
            # A full pass forgets a dictionary of nothing but tuples of atoms that it looks at; the next item would bring it back.
            for number in range(3):
                store["k"] = number
                gc.collect()
            assert are_frozen() and gc.is_tracked(engine.local.machine.contents.raw)
            # As a snapshot does.
            engine.local.machine.contents.raw = dict(engine.local.machine.contents.raw)
            wait_for(are_frozen)
    finally:
        gc.unfreeze()


def test_a_change_of_the_members_that_nobody_answers_is_unknown(
    store: ReplicatedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    with store:
        peer = Peer("b", "0" * 16, "", "", "")
        monkeypatch.setattr(joining, "REGISTER_TIMEOUT_S", 0.05)
        monkeypatch.setattr(Reconfiguration, "register", lambda *given: None)
        monkeypatch.setattr(PeerTransport, "probe", lambda *given: asyncio.sleep(0, peer))
        with pytest.raises(OutcomeUnknown, match="'b' may have become a member"):
            store.register("b", "127.0.0.1:1", "127.0.0.1:2")
        with pytest.raises(OutcomeUnknown):
            store._engine.run(asyncio.sleep(5), timeout_s=0.05, changes=True)
        with pytest.raises(NoLeader):
            store._engine.run(asyncio.sleep(5), timeout_s=0.05)


# Prints what a child of a node's process can do, and what is left when its parent is killed.
FORKED = """
import json, os, signal, sys, time
from cacheflow import ReplicatedStore
from cacheflow.wire.resp.service import resp_port
raft_port, folder = int(sys.argv[1]), sys.argv[2]
store = ReplicatedStore(node_id="a", raft_address=f"127.0.0.1:{raft_port}", bootstrap=True, data_dir=folder).start()
store.wait_ready(20)
store["k"] = 1
port = store.serve(resp_port(store, value_bytes_max=1 << 20, access=None, connections_max=10), "127.0.0.1", 0)
# Stores that run no more keep no other from being let go of.
closed = ReplicatedStore(node_id="b", raft_address="127.0.0.1:0", bootstrap=True, data_dir=folder + "-b").start()
closed.close()
in_vain = ReplicatedStore(node_id="c", raft_address=f"127.0.0.1:{raft_port}", data_dir=folder + "-c")
try:
    in_vain.start()
except Exception as error:
    assert "is taken" in str(error), error
# A file of the application's under a number that was the lock's.
mine = open(sys.executable, "rb")
import socket
client = socket.create_connection(("127.0.0.1", port))
client.sendall(b"PING\\r\\n")
assert client.recv(100) == b"+PONG\\r\\n"
reading, writing = os.pipe()
# As if another thread were in the middle of a listing: in the child nobody ends that.
store._listing.acquire()
child = os.fork()
if child == 0:
    signal.alarm(20)
    os.close(reading)
    calls = {
        "get": lambda: store.get("k"), "item": lambda: store["k"], "set": lambda: store.set("k", 2), "len": lambda: len(store),
        "list": lambda: list(store), "page": store.keys_page,
        "nodes": store.nodes, "position": store.position, "metrics": store.metrics,
        "batch": lambda: store.get_item("k", consistency="linearizable"), "start": store.start,
        "ready": lambda: store.wait_ready(0),
    }
    said = {}
    for name, call in calls.items():
        try:
            said[name] = repr(call())
        except Exception as error:
            said[name] = str(error)
    store.close()
    assert mine.read(4) == b"\x7fELF" or sys.platform != "linux"
    os.write(writing, json.dumps(said).encode())
    os.close(writing)
    for number in (1, 2, client.detach()):
        os.close(number)
    signal.alarm(0)
    time.sleep(60)
    os._exit(0)
os.close(writing)
said = b""
while part := os.read(reading, 65536):
    said += part
# The parent is not disturbed.
store["k"] = 3
client.sendall(b"GET k\\r\\n")
assert client.recv(100) == b"$1\\r\\n3\\r\\n"
print(json.dumps({"child": child, "port": port, "said": json.loads(said)}), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_process_forked_from_a_node_s_is_refused_and_holds_nothing(tmp_path: Path) -> None:
    (raft_port,) = free_ports(1)
    parent = subprocess.run(
        [sys.executable, "-W", "error", "-c", FORKED, str(raft_port), str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert parent.returncode == -signal.SIGKILL, parent.stderr
    told = json.loads(parent.stdout)
    try:
        os.kill(told["child"], 0)
        for name, said in told["said"].items():
            assert "was forked from the one that runs this node" in said, (name, said)
            assert "make a store of its own" in said
        for port in (told["port"], raft_port):
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", port), timeout=5)
        # Its own child lives on, and the node starts again all the same.
        address = f"127.0.0.1:{raft_port}"
        with ReplicatedStore(node_id="a", raft_address=address, bootstrap=True, data_dir=tmp_path) as again:
            assert again["k"] == 3
        os.kill(told["child"], 0)
    finally:
        os.kill(told["child"], signal.SIGKILL)


def test_a_call_that_would_wait_for_itself_is_refused_at_once(store: ReplicatedStore) -> None:
    said: list[BaseException] = []
    answered = threading.Event()

    def call_in(outcome: object) -> Callable[[], None]:
        def call() -> None:
            for ask in (store.close, store.nodes):
                try:
                    ask()
                except RuntimeError as error:
                    said.append(error)
            answered.set()

        return call

    with store:
        store.submit([commands.set_("k", b"v", 1)], call_in)
        assert answered.wait(10)
        assert len(said) == 2 and all("from another thread" in str(error) for error in said)
        store["k"] = 2


@pytest.mark.parametrize("when", ["while it starts", "while it closes"])
def test_a_signal_handler_may_close_the_store(
    store: ReplicatedStore, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    closed: list[bool] = []
    previous = signal.signal(signal.SIGUSR1, lambda *_: closed.append(store.close()))

    def interrupt(*given: Any) -> Any:
        monkeypatch.setattr(Engine, "_shut_down", slow)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)
        return slow(*given)

    slow: Callable[..., Any]
    try:
        if when == "while it starts":
            slow = LocalNode.start

            async def start(self: LocalNode) -> None:
                await asyncio.sleep(0.1)
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)
                await asyncio.sleep(0.3)
                await slow(self)

            monkeypatch.setattr(LocalNode, "start", start)
            with pytest.raises((NotReady, RuntimeError)):
                store.start()
        else:
            store.start()
            slow = Engine._shut_down
            monkeypatch.setattr(Engine, "_shut_down", interrupt)
            assert store.close()
        assert closed == [True]
        assert not node_threads()
    finally:
        signal.signal(signal.SIGUSR1, previous)


def test_an_interrupted_start_leaves_no_node(store: ReplicatedStore, monkeypatch: pytest.MonkeyPatch) -> None:
    start = LocalNode.start

    async def slow(self: LocalNode) -> None:
        await asyncio.sleep(0.1)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        await asyncio.sleep(0.3)
        await start(self)

    monkeypatch.setattr(LocalNode, "start", slow)
    # A shell lets its background jobs ignore it.
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            store.start()
    finally:
        signal.signal(signal.SIGINT, previous)
    wait_for(lambda: not node_threads())
    monkeypatch.undo()
    with store:
        store["k"] = 1
