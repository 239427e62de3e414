"""Scenes: the real nodes on which faults are made, each kind started once when it is first needed."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cluster.disk_shim import SOURCE, let_it_hang
from cluster.processes import HOST, NodeProcess, Nodes
from fakes.certificates import Authority
from monitoring.sabotage import may_be_sabotaged

from cacheflow.access.roles import Role
from cacheflow.access.users_file import line_of, new_token
from cacheflow.cli.launcher import free_ports
from scripts.bench.clock_shim import build_shim

MAX_ITEMS = 500
SMALL_DISK_MIB = 352


class Unavailable(Exception):
    """Raised when a scene cannot be made here; the message says why."""


@dataclass(slots=True)
class Scene:
    """Nodes of one cluster. resp: the RESP port of each."""

    nodes: Nodes
    folder: Path
    resp: dict[str, int] = field(default_factory=dict)
    users_file: Path | None = None

    @property
    def all(self) -> Sequence[NodeProcess]:
        """The nodes that Prometheus is told of."""
        return self.nodes.all

    def follower(self) -> NodeProcess:
        """Return a node that does not lead."""
        return self.nodes.others(self.nodes.leader())[0]

    def speak_resp(self, node: NodeProcess) -> socket.socket:
        """Return a new connection to a node's RESP port."""
        return socket.create_connection((HOST, self.resp[node.node_id]), 10)


@contextlib.contextmanager
def trio(folder: Path) -> Iterator[Scene]:
    """Three nodes that can be told to go wrong, whose disks can hang, with room for few items."""
    with Nodes(3, folder, ["--max-items", str(MAX_ITEMS)]) as nodes:
        scene = Scene(nodes, folder)
        for node in nodes.all:
            may_be_sabotaged(node)
            let_it_hang(node, _shim(folder))
            (scene.resp[node.node_id],) = free_ports(1)
            node.flags += ["--resp-port", str(scene.resp[node.node_id])]
        nodes.start()
        yield scene


@contextlib.contextmanager
def lone(folder: Path) -> Iterator[Scene]:
    """One node, which can be told to go wrong."""
    with Nodes(1, folder, ["--fsync", "never"]) as nodes:
        (port,) = free_ports(1)
        may_be_sabotaged(nodes[0]).flags += ["--resp-port", str(port)]
        nodes.start()
        yield Scene(nodes, folder, {nodes[0].node_id: port})


@contextlib.contextmanager
def secured(folder: Path) -> Iterator[Scene]:
    """One node with users, and with a certificate that ends in ten days."""
    authority = Authority(folder / "ca")
    cert, key = authority.node("node", days=10)
    users_file = folder / "users"
    token = new_token()
    users_file.write_text(line_of("prometheus", Role.READ, token) + "\n")
    users_file.chmod(0o600)
    secret = folder / "secret"
    secret.write_text("of one node alone")
    secret.chmod(0o600)
    flags = [
        "--cluster-secret-file",
        str(secret),
        "--tls-cert",
        str(cert),
        "--tls-key",
        str(key),
        "--tls-ca",
        str(authority.crt),
    ]
    with Nodes(1, folder, [*flags, "--users-file", str(users_file)]) as nodes:
        nodes[0].ca, nodes[0].token = authority.crt, token
        nodes.start()
        yield Scene(nodes, folder, users_file=users_file)


@contextlib.contextmanager
def two_builds(folder: Path) -> Iterator[Scene]:
    """Two nodes, to which a third of a newer build may be added."""
    with Nodes(2, folder, ["--replicas", "1"]) as nodes:
        nodes.start()
        yield Scene(nodes, folder)


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[Scene]:
    """One node on a small file system of its own. Raises Unavailable."""
    place = folder / "small"
    place.mkdir()
    mount = shutil.which("mount")
    options = ["-t", "tmpfs", "-o", f"size={SMALL_DISK_MIB}m", "tmpfs", str(place)]
    if mount is None or subprocess.run([mount, *options], capture_output=True).returncode:
        raise Unavailable("only root may mount a small file system here")
    try:
        with Nodes(1, folder, ["--request-timeout", "1"]) as nodes:
            nodes[0].data_dir = place / "node-1"
            nodes.start()
            yield Scene(nodes, folder)
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def _shim(folder: Path) -> str:
    try:
        return build_shim(folder, SOURCE)
    except OSError as error:
        raise Unavailable(str(error)) from None
