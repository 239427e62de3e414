"""A network of real nodes with a network namespace for each; blackhole routes lose packets in silence. Needs root."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from cluster.partitions import Cut
from cluster.processes import Place

FOLDER = Path("/run/netns")


def missing() -> str:
    """Return why there can be no namespaces here; "" when there can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "network namespaces need Linux and root"
    if shutil.which("ip") is None or shutil.which("nsenter") is None:
        return "network namespaces need ip (iproute2) and nsenter (util-linux)"
    name = f"cf{os.getpid()}try"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True)
    if made.returncode:
        return f"network namespaces cannot be made: {made.stderr.strip()}"
    subprocess.run(["ip", "netns", "delete", name], check=True)
    return ""


class NamespaceNetwork:
    """A ``Network``: one bridge, one namespace and one address for each node; this process is beside the bridge."""

    kind = "network namespaces"

    def __init__(self, folder: Path) -> None:
        self._name = f"cf{os.getpid() % 100_000}"
        self._subnet = f"10.213.{os.getpid() % 250}"
        self._hosts: dict[str, int] = {}
        self._cut: Cut = set()
        # A node that listens beyond loopback must have both.
        self.token = "a token for all clients"
        self.secret_file, self.token_file = folder / "secret", folder / "token"
        self.secret_file.write_text("a secret of all nodes")
        self.token_file.write_text(self.token)
        _ip(f"link add {self._name} type bridge")
        _ip(f"addr add {self._subnet}.254/24 dev {self._name}")
        _ip(f"link set {self._name} up")

    def place(self, node_id: str) -> Place:
        """Make the namespace of a node, and return its place."""
        number = self._hosts.setdefault(node_id, len(self._hosts) + 1)
        name, outside, host = f"{self._name}-{number}", f"{self._name}v{number}", self._host(node_id)
        _ip(f"netns add {name}")
        _ip(f"link add {outside} type veth peer name eth0 netns {name}")
        _ip(f"link set {outside} master {self._name} up")
        for order in (f"addr add {host}/24 dev eth0", "link set eth0 up", "link set lo up"):
            _ip(f"-n {name} {order}")
        flags = ("--cluster-secret-file", str(self.secret_file), "--api-token-file", str(self.token_file))
        return Place(host, None, ("nsenter", f"--net={FOLDER / name}"), flags, self.token)

    def attach(self, node_id: str, raft_port: int) -> None:
        """Do nothing, because every port passes."""

    def namespace(self, node_id: str) -> str | None:
        """Return the file at which a node's namespace is mounted."""
        return str(FOLDER / f"{self._name}-{self._hosts[node_id]}")

    def cut(self, pairs: Cut) -> None:
        """See ``Network``. The route stands with the sender, so that what comes the other way still arrives."""
        for order, chosen in (("delete", self._cut - pairs), ("add", pairs - self._cut)):
            for source, target in sorted(chosen):
                _ip(f"-n {self._name}-{self._hosts[source]} route {order} blackhole {self._host(target)}/32")
        self._cut = set(pairs)

    def close(self) -> None:
        """Remove namespaces and bridge. The kernel takes a moment to free what processes there have just left."""
        for number in self._hosts.values():
            _remove(f"netns delete {self._name}-{number}")
        _remove(f"link delete {self._name}")

    def _host(self, node_id: str) -> str:
        return f"{self._subnet}.{self._hosts[node_id]}"


def _ip(arguments: str) -> None:
    subprocess.run(["ip", *arguments.split()], check=True, capture_output=True)


def _remove(arguments: str) -> None:
    deadline = time.monotonic() + 5
    while True:
        with contextlib.suppress(subprocess.CalledProcessError):
            _ip(arguments)
            return
        if time.monotonic() > deadline:
            return  # what is left is a name, and must not hide what the run found
        time.sleep(0.05)
