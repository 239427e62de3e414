"""promtool, and what real nodes show in /metrics once everything in it has happened."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster.processes import HOST, NodeProcess, Nodes, wait_for
from conformance import fetching
from fakes.certificates import Authority
from prometheus_client.parser import text_string_to_metric_families

from cacheflow.access.roles import Role
from cacheflow.access.users_file import line_of, new_token
from cacheflow.cli.launcher import free_ports


@pytest.fixture(scope="session")
def promtool() -> str:
    """The path of Prometheus' own tool for its files."""
    try:
        return fetching.unpacked_program("promtool", "prometheus")
    except fetching.Unavailable as reason:
        pytest.skip(str(reason))


@pytest.fixture(scope="session")
def shown(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """Return the metrics of real nodes with TLS, users and all ports, which some clients have used: name -> its labels."""
    folder = tmp_path_factory.mktemp("shown")
    with _used(folder) as nodes:
        known: dict[str, set[str]] = {}
        for node in nodes.all:
            answer = node.ask("GET", "/metrics", headers={"Accept": "text/plain"})
            for family in text_string_to_metric_families(answer.body.decode()):
                for sample in family.samples:
                    known.setdefault(sample.name, set()).update(sample.labels)
    return known


@contextlib.contextmanager
def _used(folder: Path) -> Iterator[Nodes]:
    authority = Authority(folder / "ca")
    token = new_token()
    for name, text in (("users", line_of("prometheus", Role.ADMIN, token)), ("secret", "of these nodes alone")):
        (folder / name).write_text(f"{text}\n")
        (folder / name).chmod(0o600)
    flags = ["--users-file", str(folder / "users"), "--cluster-secret-file", str(folder / "secret")]
    with Nodes(2, folder, [*authority.flags("node"), *flags, "--max-items", "100", "--max-bytes", "100000"]) as nodes:
        resp = _secure(nodes, authority, token)
        nodes.start()
        assert nodes[0].put("key", 1).status == 201
        assert nodes[1].ask("GET", "/cache/key", headers={"authorization": "Bearer nobody's"}).status == 401
        context = authority.trusted()
        with (
            socket.create_connection((HOST, resp), 10) as raw,
            context.wrap_socket(raw, server_hostname=HOST) as client,
        ):
            client.sendall(f"AUTH {token}\r\nGET key\r\n".encode())
            said = b""
            while not said.endswith(b"$1\r\n1\r\n"):
                said += client.recv(64)
        # What is measured now and then is there a moment later.
        wait_for(lambda: any(_has_round_trip(node) for node in nodes.all), "the round trip was measured")
        yield nodes


def _has_round_trip(node: NodeProcess) -> bool:
    return any(name.startswith("peer_round_trip_seconds{") for name in node.try_get("/metrics?format=json").body)


def _secure(nodes: Nodes, authority: Authority, token: str) -> int:
    """Give the nodes their ports and tokens; return the RESP port of the first one."""
    ports = free_ports(2 * len(nodes.all))
    for number, node in enumerate(nodes.all):
        node.ca, node.token = authority.crt, token
        node.seeds = [other.url for other in nodes.all[:number]]
        resp, memcached = ports[2 * number : 2 * number + 2]
        node.flags += ["--resp-port", str(resp), "--memcached-port", str(memcached)]
    return ports[0]
