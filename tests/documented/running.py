"""A copy of this checkout as on a new machine, with a network of its own, in which documented commands run as written."""

from __future__ import annotations

import contextlib
import fnmatch
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from documented.reading import ROOT, Block

# The ports that the documents name, and those of the nodes' peers.
PORTS: Final = (8080, 8081, 8082, 9080, 9081, 9082, 9083, 6379, 11211, 11212, 11213)
# Generous: other tests may have the processors.
READY_TIMEOUT_S: Final = 90.0
RUN_TIMEOUT_S: Final = 150.0
STOP_TIMEOUT_S: Final = 45.0
# What a cluster says when all of its nodes are ready.
CLUSTER_READY: Final = "Ctrl-C ends the cluster."
# What pip says when it does not reach its index.
NO_INDEX: Final = ("NewConnectionError", "NameResolutionError", "ConnectTimeout", "ReadTimeout", "name resolution")
# An answer of 400 and more is a failure. A local read of another node may be some milliseconds behind: asked again.
CURLRC: Final = "fail\nsilent\nshow-error\nretry = 5\nretry-delay = 1\nretry-all-errors\n"

NEW_ENOUGH: Final = "import sys; sys.exit(sys.version_info < (3, 11))"

# This program makes a network of its own and keeps it until its input ends. Where that takes a user namespace, it is its root.
# By system calls alone: unshare(1) and nsenter(1) are missing on some machines.
HOLDER: Final = """
import ctypes, fcntl, os, pathlib, socket, struct, sys
CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000
SIOCSIFFLAGS, IFF_UP = 0x8914, 1
libc = ctypes.CDLL(None)
user, group = os.getuid(), os.getgid()
if libc.unshare(CLONE_NEWNET):
    if libc.unshare(CLONE_NEWUSER | CLONE_NEWNET):
        sys.exit(1)
    for name, text in (("setgroups", "deny"), ("uid_map", f"0 {user} 1"), ("gid_map", f"0 {group} 1")):
        pathlib.Path("/proc/self", name).write_text(text)
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
    fcntl.ioctl(control, SIOCSIFFLAGS, struct.pack("16sh22x", b"lo", IFF_UP))
print("up", flush=True)
sys.stdin.read()
"""

# This program becomes a command in the namespaces of the process whose id it gets first.
ENTER: Final = """
import ctypes, os, sys
process, *command = sys.argv[1:]
for kind in ("user", "net"):
    theirs = f"/proc/{process}/ns/{kind}"
    if os.readlink(theirs) != os.readlink(f"/proc/self/ns/{kind}"):
        descriptor = os.open(theirs, os.O_RDONLY)
        if ctypes.CDLL(None).setns(descriptor, 0):
            sys.exit(1)
        os.close(descriptor)
os.execvp(command[0], command)
"""

# This program ends once the node at the given address is ready.
PROBE: Final = """
import sys, time, urllib.request
while True:
    try:
        urllib.request.build_opener(urllib.request.ProxyHandler({})).open(sys.argv[1], timeout=5)
        break
    except OSError:
        time.sleep(0.05)
"""


class CannotRun(Exception):
    """This machine lacks what a command needs; the message says what."""


class Failed(AssertionError):
    """A command did not do what its document says."""


@dataclass
class Server:
    """One command that runs until Ctrl-C, in a process group of its own. command: as written."""

    command: str
    process: subprocess.Popen[bytes]
    log: Path

    def said(self) -> str:
        """What it has printed so far."""
        return self.log.read_text(errors="replace")


@dataclass
class Machine:
    """A copy of the checkout in ``folder``, and the servers that run in it.

    logs: where their output is kept, and curl's settings.  network: what a command line begins with to be in the
    network of its own.

    Not safe for concurrent use.
    """

    folder: Path
    logs: Path
    network: list[str] = field(default_factory=list)
    _serving: Block | None = None
    _servers: list[Server] = field(default_factory=list)

    def environment(self) -> dict[str, str]:
        """The environment of all commands: the caller's without what belongs to the tests."""
        ours = ("VIRTUAL_ENV", "PYTHONPATH", "PYTHONHOME", "CURL_HOME")
        kept = {k: v for k, v in os.environ.items() if k not in ours and not k.startswith(("CACHEFLOW_", "PYTEST_"))}
        return kept | {"CURL_HOME": str(self.logs), "no_proxy": "localhost,127.0.0.1"}

    def missing(self, block: Block) -> str:
        """The program that a block needs and this machine does not have; "" when there is all."""
        path = f"{os.environ.get('PATH', os.defpath)}{os.pathsep}{self.folder / '.venv' / 'bin'}"
        for program in (words[0] for words in block.commands if "/" not in words[0]):
            if program not in ("cd", "source") and shutil.which(program, path=path) is None:
                return program
            if program == "python3" and subprocess.run([program, "-c", NEW_ENOUGH], env=self.environment()).returncode:
                return "a python3 of 3.11 or later"
        return ""

    def run(self, command: list[str], *, text: str = "", isolated: bool = True) -> str:
        """What a command prints. isolated: in the network of its own. Raises Failed, CannotRun."""
        process = subprocess.Popen(
            [*(self.network if isolated else []), *command],
            cwd=self.folder,
            env=self.environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            out, _ = process.communicate(text, timeout=RUN_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            out, _ = process.communicate()
            raise Failed(f"{command}\nhas not ended after {RUN_TIMEOUT_S:g} s\n{out}") from None
        if process.returncode != 0:
            if any(sign in out for sign in NO_INDEX):
                raise CannotRun(f"pip does not reach its index: {out[-300:]}")
            raise Failed(f"{command}\nended with exit code {process.returncode}\n{out}")
        return out

    def serve(self, block: Block) -> None:
        """Have the servers of this block running, and no others. Raises Failed."""
        if self._serving == block and all(server.process.poll() is None for server in self._servers):
            return
        self.stop()
        self._serving = block
        for line in block.text.replace("\\\n", " ").splitlines():
            if line.partition("#")[0].strip():
                self._start(line)

    def stop(self) -> None:
        """Press Ctrl-C at each server; all of its processes must end, it with exit code 0. Raises Failed."""
        complaints = [self._stop(server) for server in reversed(self._servers)]
        self._serving, self._servers = None, []
        if any(complaints):
            raise Failed("\n".join(filter(None, complaints)))

    def _start(self, command: str) -> None:
        log = self.logs / f"server-{time.monotonic_ns()}"
        with log.open("wb") as out:
            process = subprocess.Popen(
                [*self.network, "bash", "-c", command],
                cwd=self.folder,
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        server = Server(command, process, log)
        self._servers.append(server)
        deadline = time.monotonic() + READY_TIMEOUT_S
        probe = None if "serve" not in command.split() else self._probe(command)
        try:
            while (probe.poll() is None) if probe else (CLUSTER_READY not in server.said()):
                if process.poll() is not None or time.monotonic() > deadline:
                    raise Failed(f"{command}\nis not ready, exit code {process.poll()}\n{server.said()}")
                time.sleep(0.05)
        finally:
            if probe:
                probe.kill()
                probe.wait()

    def _probe(self, command: str) -> subprocess.Popen[bytes]:
        words = command.split()
        port = words[words.index("--port") + 1] if "--port" in words else "8080"
        url = f"http://127.0.0.1:{port}/readyz"
        return subprocess.Popen([*self.network, sys.executable, "-c", PROBE, url])

    def _stop(self, server: Server) -> str:
        """What is wrong with how a server ended; "" when nothing is."""
        # As a terminal does: everything that the command has started gets it.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.process.pid, signal.SIGINT)
        complaint = ""
        try:
            code = server.process.wait(STOP_TIMEOUT_S)
            if code != 0:
                complaint = f"ended with exit code {code}"
        except subprocess.TimeoutExpired:
            complaint = f"has not ended {STOP_TIMEOUT_S:g} s after Ctrl-C"
        deadline = time.monotonic() + 5
        while not complaint and _has_processes(server.process.pid):
            if time.monotonic() > deadline:
                complaint = "has left processes behind"
            time.sleep(0.02)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.process.pid, signal.SIGKILL)
        server.process.wait()
        return f"{server.command}\n{complaint}\n{server.said()}" if complaint else ""


@contextlib.contextmanager
def new_machine(place: Path) -> Iterator[Machine]:
    """A copy of the checkout under ``place``, with its environment. Raises Failed, CannotRun."""
    machine = Machine(place / "cacheflow", place / "logs")
    machine.logs.mkdir()
    (machine.logs / ".curlrc").write_text(CURLRC)
    copy_checkout(machine.folder)
    # The index is out there: before the network is closed. Two at once, as two terminals would.
    first = subprocess.Popen(
        ["./scripts/launch_cluster.py", "--help"],
        cwd=machine.folder,
        env=machine.environment(),
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        machine.run(["./scripts/launch_cluster.py", "--help"], isolated=False)
        if first.wait(RUN_TIMEOUT_S) != 0:
            raise Failed(f"the first of two that prepared at once ended with exit code {first.returncode}")
    finally:
        if first.poll() is None:
            os.killpg(first.pid, signal.SIGKILL)
            first.wait()
    with own_network() as network:
        machine.network = network
        try:
            yield machine
        finally:
            machine.stop()


def copy_checkout(target: Path) -> None:
    """Copy what a clone would have: everything that .gitignore does not name. Without git, which may be missing."""
    patterns = [".git", *(line.rstrip("/") for line in (ROOT / ".gitignore").read_text().splitlines())]

    def ignored(folder: str, names: list[str]) -> list[str]:
        at_root = Path(folder) == ROOT
        wanted = [pattern.lstrip("/") for pattern in patterns if at_root or not pattern.startswith("/")]
        return [name for name in names if any(fnmatch.fnmatch(name, pattern) for pattern in wanted)]

    shutil.copytree(ROOT, target, ignore=ignored, symlinks=True)


@contextlib.contextmanager
def own_network() -> Iterator[list[str]]:
    """What a command line begins with to be in a network where all ports are free. Raises CannotRun."""
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    with holder:
        assert holder.stdout is not None
        if holder.stdout.readline() == b"up\n":
            enter = [sys.executable, "-c", ENTER, str(holder.pid)]
            if subprocess.run([*enter, "true"], capture_output=True).returncode == 0:
                # Leaving the block closes its input, and it ends.
                yield enter
                return
    taken = [port for port in PORTS if not _is_free(port)]
    if taken:
        raise CannotRun(f"there is no network namespace to be had, and port {taken[0]} of the documents is taken")
    yield []


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _has_processes(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
