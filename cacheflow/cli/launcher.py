"""LocalCluster: several nodes on this machine, as child processes.

1. No orphans: children are ended by pid and waited for; if the launcher itself is killed, the kernel ends them (Linux).
2. Node 1 founds the cluster when no node has data; every other node joins through all the others.
3. A child that dies is told with its last lines; the others go on.
4. Where the nodes have certificates they are asked over HTTPS, by the CA that they are told, else by the system's.
5. The nodes share a secret, so that no other process on this machine can speak as one of them: the one they are told, or one
   that is made in the cluster's data directory and kept over restarts.
"""

from __future__ import annotations

import contextlib
import ctypes
import http.client
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from cacheflow.cli import settings
from cacheflow.cli.secret_file import make_secret
from cacheflow.config import RAFT_PORT_OFFSET
from cacheflow.errors import ConfigError, NotReady
from cacheflow.net.tls.trust import trusting

HOST: Final = "127.0.0.1"
# The flags of ports that are counted up from node to node.
WIRE_FLAGS: Final = ("--memcached-port", "--resp-port")
# Seconds until all nodes must be ready: a first start opens disks and elects; a restart may read a long log.
READY_TIMEOUT_S: Final = 60.0
# Seconds after SIGTERM until a node is killed: it answers what is under way, and hangs when it takes longer.
STOP_TIMEOUT_S: Final = 15.0
# Seconds between two looks at the nodes while they start.
POLL_S: Final = 0.05
# The last lines of a node that are shown when it ends.
TAIL_LINES: Final = 20
# The file of the secret that is made, in the cluster's data directory.
SECRET_FILE: Final = "cluster-secret"
COMMAND: Sequence[str] = (sys.executable, "-m", "cacheflow", "serve")

# Linux' prctl option: the signal that a process gets when the thread that started it ends.
_PR_SET_PDEATHSIG: Final = 1
# Loaded here, because nothing may be loaded between fork and exec.
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


@dataclass
class Child:
    """One node of a cluster on this machine: the node's command line, and its process once that is started."""

    node_id: str
    url: str
    data_dir: Path
    arguments: list[str]
    # The ports of the wire protocols, by flag.
    wire_ports: dict[str, int]
    process: subprocess.Popen[bytes] | None = None
    tail: deque[str] = field(default_factory=lambda: deque(maxlen=TAIL_LINES))
    printer: threading.Thread | None = None
    death_told: bool = False

    @property
    def alive(self) -> bool:
        """True if this node's process is running."""
        return self.process is not None and self.process.poll() is None


class LocalCluster:
    """Starts and ends a cluster of ``size`` nodes on this machine, with their data below ``data_dir``. For one thread only.

    base_port: node 1's HTTP port; each further node has the next one, and peer ports are RAFT_PORT_OFFSET higher.
    None: the system chooses free ports.
    flags: passed to every node. A port for memcached or Redis in them is node 1's; each further node has the next one. For 0
    the system chooses free ports.
    token: the content of the nodes' --api-token-file.  say: a function that prints one line of text.
    Used as a context manager, this object ends all nodes at the end. Call ``start`` in the main thread, because the kernel
    ends the nodes' processes when the thread that started them ends.
    """

    def __init__(
        self,
        size: int,
        data_dir: Path,
        *,
        base_port: int | None = None,
        flags: Sequence[str] = (),
        token: str | None = None,
        say: Callable[[str], None] = print,
        command: Sequence[str] | None = None,
    ) -> None:
        if not 1 <= size <= 16:
            raise ConfigError(f"--nodes = {size}: must be 1 to 16")
        if base_port is not None and not 1 <= base_port <= 65535 - RAFT_PORT_OFFSET - size:
            raise ConfigError(
                f"--base-port = {base_port}: must leave room for {size} ports and their peers' {RAFT_PORT_OFFSET} above"
            )
        self._say = say
        self._token = token
        self._command = COMMAND if command is None else command
        if base_port is None:
            ports = free_ports(2 * size)
            pairs = list(zip(ports[:size], ports[size:], strict=True))
        else:
            pairs = [(base_port + number, base_port + number + RAFT_PORT_OFFSET) for number in range(size)]
            _check_free([port for pair in pairs for port in pair])
        flags, wires = _wire_ports(flags, size)
        scheme = "https" if _told(flags, "--tls-cert") else "http"
        urls = [f"{scheme}://{HOST}:{port}" for port, _ in pairs]
        ca = _told(flags, "--tls-ca")
        # The CA of the nodes' certificates; None where there is none, or the system's.
        self.ca = Path(ca) if ca else None
        ids = [f"node-{number + 1}" for number in range(size)]
        folders = [data_dir / node_id for node_id in ids]
        persistent = (_told(flags, "--persistence") or "true").lower() != "false"
        # Lines of JSON name their node, and would be none behind its name.
        self._is_json = _told(flags, "--log-format") == "json"
        told = _told(flags, "--cluster-secret-file")
        # The file of the secret that the nodes share; whether it is this launcher's to make.
        self.secret_file = settings.named_path(told, "--cluster-secret-file") if told else data_dir / SECRET_FILE
        self._makes_secret = not told
        if self._makes_secret:
            flags = ["--cluster-secret-file", str(self.secret_file), *flags]
        self.children: list[Child] = []
        for number, (port, raft_port) in enumerate(pairs):
            arguments = ["--node-id", ids[number], "--host", HOST, "--port", str(port), "--raft-port", str(raft_port)]
            arguments += ["--data-dir", str(folders[number])]
            wire_ports = {flag: ports[number] for flag, ports in wires.items()}
            arguments += [part for flag, port in wire_ports.items() for part in (flag, str(port))]
            # Node 1 without data founds the cluster, unless others have data: then it has lost its disk, and joins again.
            rejoins = persistent and not _has_data(folders[0]) and any(map(_has_data, folders[1:]))
            if number > 0 or rejoins:
                arguments += [part for url in urls if url != urls[number] for part in ("--seed", url)]
            else:
                arguments.append("--bootstrap")
            child = Child(ids[number], urls[number], folders[number], [*arguments, *flags], wire_ports)
            self.children.append(child)

    @property
    def urls(self) -> list[str]:
        """The HTTP addresses of all nodes of this local cluster, node 1 first."""
        return [child.url for child in self.children]

    def __enter__(self) -> LocalCluster:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start the processes of all nodes, without waiting until they are ready.

        Raises ConfigError when a file with the cluster's secret is needed and cannot be made.
        """
        if self._makes_secret:
            make_secret(self.secret_file)
        # This very package, wherever the launcher was called from.
        package_root = str(Path(__file__).resolve().parents[2])
        paths = [package_root, *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1"}
        # Who founds and who joins is decided here.
        for name in ("CACHEFLOW_SEED", "CACHEFLOW_BOOTSTRAP", "CACHEFLOW_BOOTSTRAP_EXPECT"):
            environment.pop(name, None)
        parent = os.getpid()
        for child in self.children:
            child.data_dir.mkdir(parents=True, exist_ok=True)
            child.process = subprocess.Popen(
                [*self._command, *child.arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=environment,
                # A group of its own: Ctrl-C is for the launcher, which then ends the nodes in order.
                process_group=0,
                preexec_fn=lambda: _die_with(parent),
            )
        # Only now threads: none may run while processes are forked.
        for child in self.children:
            child.printer = threading.Thread(target=self._print_lines, args=(child,), daemon=True)
            child.printer.start()

    def wait_ready(self, timeout_s: float = READY_TIMEOUT_S) -> list[dict[str, Any]]:
        """Wait until every node is ready and sees all others as members; return the list of members.

        Raises ConfigError when a node ends, NotReady after ``timeout_s``.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            for child in self.children:
                if not child.alive:
                    raise ConfigError(_how_it_ended(child))
            waits_for = next(filter(None, map(self._missing_at, self.children)), None)
            if waits_for is None:
                return self.nodes()
            if time.monotonic() >= deadline:
                raise NotReady(f"after {timeout_s:g} s {waits_for}")
            time.sleep(POLL_S)

    def nodes(self) -> list[dict[str, Any]]:
        """Return the list of members from the first node that answers; an empty list when none does."""
        for child in self.children:
            status, found = self._ask(child, "/nodes/list") if child.alive else (0, None)
            if status == 200 and isinstance(found, list):
                return found
        return []

    def leader(self) -> Child | None:
        """Return the running node that the list of members shows as the leader; None when there is none."""
        leaders = {node.get("id") for node in self.nodes() if node.get("role") == "leader"}
        return next((child for child in self.children if child.alive and child.node_id in leaders), None)

    def kill(self, child: Child) -> None:
        """Kill one node's process with SIGKILL and wait for its end; what is on its disk stays as after a crash."""
        assert child.process is not None
        child.death_told = True
        child.process.kill()
        child.process.wait()

    def supervise(self) -> None:
        """Report each node's end, until no node runs any more, then return. Ctrl-C raises KeyboardInterrupt as usual."""
        while any(child.alive for child in self.children):
            self.tell_deaths()
            time.sleep(4 * POLL_S)
        self.tell_deaths()

    def tell_deaths(self) -> None:
        """Report every node that has ended since the last report, with the last lines of its output."""
        for child in self.children:
            if not child.alive and not child.death_told:
                child.death_told = True
                self._say(_how_it_ended(child))

    def stop(self) -> None:
        """End all nodes: SIGTERM, and SIGKILL after STOP_TIMEOUT_S. Returns when all have ended."""
        for child in self.children:
            if child.alive and child.process is not None:
                child.process.terminate()
        deadline = time.monotonic() + STOP_TIMEOUT_S
        for child in self.children:
            if child.process is None:
                continue
            try:
                child.process.wait(max(deadline - time.monotonic(), 0.1))
            except subprocess.TimeoutExpired:
                self._say(f"{child.node_id} does not end: killed")
                child.process.kill()
                child.process.wait()
            if child.printer is not None:
                child.printer.join(1)

    def _print_lines(self, child: Child) -> None:
        assert child.process is not None and child.process.stdout is not None
        with child.process.stdout as lines:
            for line in lines:
                text = line.decode(errors="replace").rstrip()
                child.tail.append(text)
                self._say(text if self._is_json else f"[{child.node_id}] {text}")

    def _ask(self, child: Child, path: str) -> tuple[int, Any]:
        return ask(child.url, path, self._token, ca=self.ca)

    def _missing_at(self, child: Child) -> str | None:
        """Return as text why ``child``, a node, is not ready yet or does not see all other nodes; None if it is and does."""
        status, _ = self._ask(child, "/readyz")
        if status != 200:
            return f"{child.node_id} ({child.url}) is not ready"
        status, found = self._ask(child, "/nodes/list")
        if status == 401 and self._token is None:
            return None  # the nodes have users, and none of them is this launcher's: that they are ready has to do
        if status != 200 or not isinstance(found, list):
            return f"{child.node_id} ({child.url}) does not list its members: HTTP {status}"
        up = {node.get("id") for node in found if node.get("status") == "up"}
        absent = [other.node_id for other in self.children if other.node_id not in up]
        if absent:
            return f"{child.node_id} does not see {', '.join(absent)}"
        if not any(node.get("role") == "leader" for node in found):
            return f"{child.node_id} knows no leader"
        return None


@contextlib.contextmanager
def terminable() -> Iterator[None]:
    """A context manager: SIGTERM and SIGINT raise KeyboardInterrupt inside its block, so that the block can clean up.

    For the main thread only. SIGINT gets a handler, too, because a shell starts background jobs with SIGINT ignored.
    """
    before = [(number, signal.signal(number, signal.default_int_handler)) for number in (signal.SIGTERM, signal.SIGINT)]
    try:
        yield
    finally:
        for number, handler in before:
            signal.signal(number, handler)


def ask(
    url: str, path: str, token: str | None = None, timeout_s: float = 2.0, ca: Path | None = None
) -> tuple[int, Any]:
    """Send an HTTP GET for ``path`` to the node at ``url``; return (status, 0 without an answer; the body's JSON or None).

    ca: a file with the CA of the nodes' certificates, for a URL that begins with https; None for those that the system trusts.
    """
    parts = urlsplit(url)
    host = parts.hostname or HOST
    if parts.scheme == "https":
        context = trusting(ca)
        connection: http.client.HTTPConnection = http.client.HTTPSConnection(
            host, parts.port, timeout=timeout_s, context=context
        )
    else:
        connection = http.client.HTTPConnection(host, parts.port, timeout=timeout_s)
    try:
        connection.request("GET", path, headers={} if token is None else {"Authorization": f"Bearer {token}"})
        response = connection.getresponse()
        body = response.read()
    except (OSError, http.client.HTTPException):
        return 0, None
    finally:
        connection.close()
    try:
        return response.status, json.loads(body)
    except ValueError:
        return response.status, None


def free_ports(count: int) -> list[int]:
    """Return ``count`` ports of this machine on which nobody listens now, chosen by the system.

    For a minute only a listener can get one of these ports, and no outgoing connection: each port has had a connection that
    this end closed first (RFC 9293, TIME-WAIT). Otherwise a connection might take a port before a node listens there.
    """
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server((HOST, 0), backlog=1)) for _ in range(count)]
        for each in sockets:
            with socket.create_connection(each.getsockname()):
                each.accept()[0].close()
        return [int(each.getsockname()[1]) for each in sockets]


def _wire_ports(flags: Sequence[str], size: int) -> tuple[list[str], dict[str, list[int]]]:
    """Take the ports of the wire protocols out of ``flags``, the command line for ``size`` nodes.

    Returns (the flags that all nodes get as they are, {flag of a wire protocol: the port of each node}).
    """
    rest: list[str] = []
    wires: dict[str, list[int]] = {}
    left = iter(flags)
    for told in left:
        flag, equals, text = told.partition("=")
        if flag not in WIRE_FLAGS:
            rest.append(told)
            continue
        text = text if equals else next(left, "")
        if not text.isdecimal() or not 0 <= int(text) <= 65536 - size:
            raise ConfigError(f"{flag} = {text!r}: must be 0, or a port that leaves room for {size}")
        wires[flag] = free_ports(size) if int(text) == 0 else [int(text) + number for number in range(size)]
        _check_free(wires[flag], flag)
    return rest, wires


def _check_free(ports: Sequence[int], flag: str = "--base-port") -> None:
    for port in ports:
        with socket.socket() as probe:
            # As the nodes do: connections that are still closing do not count.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError as error:
                raise ConfigError(f"port {port} cannot be used ({error.strerror}); {flag} chooses others") from None


def _die_with(parent: int) -> None:
    """Have the kernel kill this child process when its parent, the launcher, ends in any way (Linux).

    The node's data on disk survives such an end by design.
    """
    if _libc is not None:
        _libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)


def _has_data(folder: Path) -> bool:
    return folder.is_dir() and any(folder.iterdir())


def _told(flags: Sequence[str], flag: str) -> str:
    """Return the value of the nodes' setting ``flag``, from command line ``flags``, environment or file; "" without one."""
    told = ""
    for part, following in itertools.pairwise([*flags, ""]):
        name, equals, text = part.partition("=")
        if name == flag:
            told = text if equals else following
    name = flag.removeprefix("--")
    told = told or os.environ.get(settings.ENVIRONMENT_PREFIX + name.upper().replace("-", "_"), "")
    file = "" if told or flag == "--config" else _told(flags, "--config")
    return str(settings.read_file(settings.named_path(file, "--config")).get(name, "")) if file else told


def _how_it_ended(child: Child) -> str:
    if child.printer is not None:
        child.printer.join(1)
    code = None if child.process is None else child.process.poll()
    how = "was never started" if code is None else f"ended with exit code {code}"
    if code is not None and code < 0:
        how = f"was ended by {signal.Signals(-code).name}"
    return "\n".join([f"{child.node_id} ({child.url}) {how}", *(f"    {line}" for line in child.tail)])
