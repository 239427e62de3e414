"""What systemd is told: when a node is ready, what it waits for, that its loop answers, and that it ends."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cluster.processes import NodeProcess, wait_for

from cacheflow.cli.notifying import SOCKET, WATCHDOG, WATCHDOG_PROCESS, Notifier


class FakeNode:
    """A node whose checks are said, and whose loop answers when it is told to."""

    def __init__(self) -> None:
        self.alive = True
        self.waits_for = ""
        self.asked: list[Callable[[], None]] = []

    def liveness(self) -> list[tuple[str, bool, str]]:
        return [("loop", self.alive, "")]

    def readiness(self) -> list[tuple[str, bool, str]]:
        return [("loop", self.alive, "runs"), ("leader", not self.waits_for, self.waits_for)]

    def on_loop(self, call: Callable[[], None]) -> None:
        self.asked.append(call)

    def turn(self) -> None:
        for call in self.asked:
            call()
        self.asked = []


class Systemd:
    """The receiving end. address: what stands in the environment."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self._socket.setblocking(False)

    def told(self) -> list[str]:
        """Return the lines of all messages since the last call."""
        lines: list[str] = []
        while True:
            try:
                lines += self._socket.recv(4096).decode().splitlines()
            except BlockingIOError:
                return lines

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(params=["path", "abstract"])
def systemd(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Systemd]:
    path = f"@{tmp_path.name}-{os.getpid()}" if request.param == "abstract" else str(tmp_path / "notify")
    systemd = Systemd(path)
    yield systemd
    systemd.close()


def test_it_says_what_it_waits_for_then_once_that_it_is_ready_and_that_it_ends(systemd: Systemd) -> None:
    node = FakeNode()
    notifier = Notifier.of(node, {SOCKET: systemd.address})
    node.waits_for = "is not known"
    notifier.look()
    notifier.look()
    assert systemd.told() == ["STATUS=not ready: leader: is not known"]
    node.waits_for = ""
    notifier.look()
    notifier.look()
    assert systemd.told() == ["READY=1", "STATUS=ready"]
    node.waits_for = "is not known"
    notifier.look()
    assert systemd.told() == ["STATUS=not ready: leader: is not known"], "that it was ready is not taken back"
    notifier.stopping()
    assert systemd.told() == ["STOPPING=1", "STATUS=stopping"]


def test_signs_of_life_come_only_while_the_loop_answers_and_the_node_is_alive(systemd: Systemd) -> None:
    node = FakeNode()
    notifier = Notifier.of(node, {SOCKET: systemd.address, WATCHDOG: "60000000", WATCHDOG_PROCESS: str(os.getpid())})

    def signs() -> int:
        notifier.look()
        return systemd.told().count("WATCHDOG=1")

    assert signs() == 0, "the loop has answered nothing yet"
    node.turn()
    assert signs() == 1
    assert signs() == 0, "the loop stands still"
    node.turn()
    node.alive = False
    assert signs() == 0, "only a restart could mend it"
    node.alive = True
    node.turn()
    assert signs() == 1


@pytest.mark.parametrize("usec", ["", "0", "-1", "1e6", "x" * 10_000, "9" * 10_000, "٣"])
def test_a_watchdog_that_is_no_time_is_none(usec: str, systemd: Systemd) -> None:
    node = FakeNode()
    Notifier.of(node, {SOCKET: systemd.address, WATCHDOG: usec}).look()
    assert node.asked == []


def test_the_watchdog_of_another_process_is_not_ours(systemd: Systemd) -> None:
    node = FakeNode()
    Notifier.of(node, {SOCKET: systemd.address, WATCHDOG: "60000000", WATCHDOG_PROCESS: "1"}).look()
    assert node.asked == []


@pytest.mark.parametrize(
    "path", ["relative", "vsock:2:1234", "/" + "x" * 200, "/nobody/listens/here", "@nobody-listens"]
)
def test_a_socket_that_is_none_ends_nothing(path: str) -> None:
    notifier = Notifier.of(FakeNode(), {SOCKET: path})
    notifier.look()
    notifier.stopping()


def test_what_cannot_be_sent_is_sent_again(tmp_path: Path) -> None:
    notifier = Notifier.of(FakeNode(), {SOCKET: str(tmp_path / "later")})
    notifier.look()
    systemd = Systemd(str(tmp_path / "later"))
    notifier.look()
    assert systemd.told() == ["READY=1", "STATUS=ready"]
    systemd.close()


def test_no_detail_can_begin_a_message_of_its_own(systemd: Systemd) -> None:
    node = FakeNode()
    node.waits_for = "node x\nMAINPID=1" + "y" * 5000
    Notifier.of(node, {SOCKET: systemd.address}).look()
    (line,) = systemd.told()
    assert line.startswith("STATUS=not ready: leader: node x MAINPID=1yyy") and len(line) < 300


def test_a_check_that_raises_ends_nothing(systemd: Systemd, caplog: pytest.LogCaptureFixture) -> None:
    node = FakeNode()
    node.readiness = lambda: 1 / 0  # type: ignore[assignment,method-assign,return-value]
    Notifier.of(node, {SOCKET: systemd.address}).look()
    assert "was not told" in caplog.text


def test_child_processes_do_not_inherit_the_socket(systemd: Systemd) -> None:
    environment = {SOCKET: systemd.address, WATCHDOG: "1000000", WATCHDOG_PROCESS: str(os.getpid()), "PATH": "/bin"}
    Notifier.of(FakeNode(), environment)
    assert environment == {"PATH": "/bin"}


def test_a_real_node_tells_all_of_it(tmp_path: Path) -> None:
    systemd = Systemd(str(tmp_path / "notify"))
    node = NodeProcess(1, tmp_path)
    node.environment = {SOCKET: systemd.address, WATCHDOG: "30000000"}
    told: list[str] = []

    def has_told(line: str) -> bool:
        told.extend(systemd.told())
        return line in told

    node.start()
    try:
        wait_for(lambda: has_told("READY=1"))
        assert node.is_ready()
        wait_for(lambda: has_told("WATCHDOG=1"))
        node.signal(signal.SIGTERM)
        assert node.wait() == 0
        assert has_told("STOPPING=1")
    finally:
        systemd.close()
        if node.alive:
            node.kill()
