"""Real nodes with TLS on every port; a cluster that changes over under load; certificates renewed while all goes on."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster.processes import HOST, NodeProcess, Nodes, wait_for
from fakes.certificates import HERE, Authority, put_in_place

from cacheflow import CacheClient, ReplicatedStore
from cacheflow.cli.bench import run_load
from cacheflow.cli.launcher import LocalCluster, free_ports
from cacheflow.cli.main import main
from cacheflow.errors import NotCommitted
from cacheflow.net.tls.trust import trusting

RESP_PING = b"*1\r\n$4\r\nPING\r\n"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("cluster") / "ca")


class Secured:
    """Three nodes with certificates, RESP and memcached."""

    def __init__(self, folder: Path, authority: Authority, *flags: str) -> None:
        self.nodes = Nodes(3, folder, [*authority.flags("cluster"), *flags])
        self.resp: list[int] = []
        self.memcached: list[int] = []
        for node in self.nodes.all:
            node.ca = authority.crt
            resp, memcached = free_ports(2)
            node.flags += ["--resp-port", str(resp), "--memcached-port", str(memcached)]
            self.resp.append(resp)
            self.memcached.append(memcached)
        for number, node in enumerate(self.nodes.all):
            node.seeds = [other.url for other in self.nodes.all[:number]]


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[Secured]:
    found = Secured(tmp_path_factory.mktemp("secured"), authority, "--peer-tls", "require")
    with found.nodes:
        found.nodes.start()
        yield found


def talk(port: int, context: ssl.SSLContext, said: bytes, count: int) -> bytes:
    """What comes back over TLS, so many bytes of it."""
    with (
        socket.create_connection((HOST, port), 10) as raw,
        context.wrap_socket(raw, server_hostname=HOST) as client,
    ):
        client.sendall(said)
        answer = b""
        while len(answer) < count and (piece := client.recv(4096)):
            answer += piece
        return answer


def plainly(port: int, said: bytes) -> bytes:
    """What a port says to a client without TLS, until it hangs up."""
    with socket.create_connection((HOST, port), 10) as client:
        client.sendall(said)
        answer = b""
        with contextlib.suppress(ConnectionResetError):
            while piece := client.recv(4096):
                answer += piece
        return answer


def test_every_port_speaks_tls_and_all_see_the_same(secured: Secured, authority: Authority) -> None:
    nodes, context = secured.nodes, authority.trusted()
    assert nodes[0].put("k", "v").status == 201
    assert nodes[2].value("k") == "v"
    assert talk(secured.resp[1], context, b"*3\r\n$3\r\nSET\r\n$1\r\nr\r\n$1\r\n1\r\n", 5) == b"+OK\r\n"
    assert talk(secured.resp[1], context, b"*2\r\n$3\r\nGET\r\n$1\r\nr\r\n", 7) == b"$1\r\n1\r\n"
    assert talk(secured.memcached[0], context, b"set m 0 0 1\r\nx\r\n", 8) == b"STORED\r\n"
    assert talk(secured.memcached[0], context, b"get m\r\n", 21) == b"VALUE m 0 1\r\nx\r\nEND\r\n"
    assert {row["address"] for row in nodes[0].members().values()} == {node.url for node in nodes.all}
    metrics = nodes[0].try_get("/metrics?format=json").body
    assert metrics['tls_handshakes_total{port="raft"}'] >= 2 and metrics["tls_certificate_days_left"] > 80
    assert metrics['tls_plain_connections_total{port="raft"}'] == 0


def test_a_plain_client_is_told_at_every_port(secured: Secured) -> None:
    node = secured.nodes[0]
    assert plainly(node.port, b"GET / HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.1 400 ")
    assert plainly(secured.resp[0], RESP_PING).startswith(b"-ERR this port speaks TLS")
    assert plainly(secured.memcached[0], b"get k\r\n").startswith(b"SERVER_ERROR this port speaks TLS")
    assert plainly(node.raft_port, b"\x00\x00\x00\x05hello") == b""


def test_clients_and_commands_trust_the_ca_that_they_are_given(secured: Secured, authority: Authority) -> None:
    urls = [node.url for node in secured.nodes.all]
    with CacheClient(urls, ca=authority.crt) as client:
        client["c"] = "d"
        assert client["c"] == "d"
    with CacheClient(urls) as stranger, pytest.raises(NotCommitted, match="TLS: "):
        stranger["c"] = "e"


def test_redis_py_speaks_it(secured: Secured, authority: Authority) -> None:
    import redis

    with redis.Redis(host=HOST, port=secured.resp[0], ssl=True, ssl_ca_certs=str(authority.crt)) as client:
        large = os.urandom(900_000)
        assert client.set("large", large) and client.get("large") == large
        pipeline = client.pipeline(transaction=False)
        for number in range(2000):
            pipeline.set(f"p{number % 100}", number).get(f"p{number % 100}")
        assert [int(answer) for answer in pipeline.execute()[1::2]] == list(range(2000))


def test_curl_speaks_it(secured: Secured, authority: Authority) -> None:
    curl = shutil.which("curl")
    if curl is None:
        pytest.skip("no curl here")
    url = f"{secured.nodes[0].url}/livez"
    done = subprocess.run([curl, "-sS", "--cacert", authority.crt, url], capture_output=True, timeout=30)
    assert done.returncode == 0, done.stderr
    assert subprocess.run([curl, "-sS", url], capture_output=True, timeout=30).returncode == 60


def test_slow_handshakes_on_every_port_harm_nobody(secured: Secured, authority: Authority) -> None:
    node = secured.nodes[0]
    leader = secured.nodes.leader().node_id
    ports = [node.port, node.raft_port, secured.resp[0], secured.memcached[0]]
    with contextlib.ExitStack() as stack:
        hanging = [
            stack.enter_context(socket.create_connection((HOST, port), 30)) for port in ports for _ in range(150)
        ]
        for each in hanging[::2]:
            each.sendall(b"\x16\x03\x01\x01\x00\x01\x00")
        began = time.monotonic()
        for number in range(20):
            assert node.put("slow", number).status in (200, 201)
            assert talk(secured.resp[0], authority.trusted(), RESP_PING, 7) == b"+PONG\r\n"
        assert time.monotonic() - began < 5
        assert secured.nodes.leader().node_id == leader
        # Each of them ends, ten seconds after it began.
        for each in hanging:
            with contextlib.suppress(ConnectionResetError):
                assert each.recv(1) == b""
        assert time.monotonic() - began < 25


def test_the_launcher_and_the_load_generator_speak_it(folder: Path, authority: Authority) -> None:
    with LocalCluster(2, folder, flags=authority.flags("launched"), say=lambda _: None) as running:
        running.start()
        assert {node["status"] for node in running.wait_ready()} == {"up"}
        assert all(url.startswith("https://") for url in running.urls) and running.ca == authority.crt
        report = run_load(running.urls, 400, clients=4, ca=running.ca)
        assert report.first_error is None and sum(tally.ops for tally in report.tallies.values()) == 400
        assert main(["get", "nothing", "--url", running.urls[0], "--ca", str(authority.crt)]) == 1
        assert main(["get", "nothing", "--url", running.urls[0]]) == 3


def test_embedded_stores_talk_by_tls(folder: Path, authority: Authority) -> None:
    addresses = [f"{HOST}:{port}" for port in free_ports(2)]
    cert, key = authority.node("embedded")
    stores = [
        ReplicatedStore(
            node_id=f"store-{number}",
            raft_address=address,
            peers=addresses,
            data_dir=str(folder / str(number)),
            tls_cert=str(cert),
            tls_key=str(key),
            tls_ca=str(authority.crt),
            peer_tls="require",
        )
        for number, address in enumerate(addresses)
    ]
    try:
        for store in stores:
            store.start()
        for store in stores:
            store.wait_ready(30)
        stores[0]["k"] = "v"
        assert stores[1].get("k", consistency="linearizable") == "v"
        assert stores[0].metrics()['tls_handshakes_total{port="raft"}'] >= 1
        stores[0].close()
        stores[0].start()
        stores[0].wait_ready(30)
        assert stores[0].get("k", consistency="linearizable") == "v"
    finally:
        for store in stores:
            store.close()


class Load:
    """Writers over HTTP that never stop; every answer counts. Urls may change between http and https."""

    def __init__(self, nodes: Nodes, ca: Path) -> None:
        self._nodes, self._ca = nodes, ca
        self.failures: list[str] = []
        self.writes = [0, 0]
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._write, args=(number,)) for number in range(2)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def _write(self, number: int) -> None:
        key, urls = f"load{number}", [node.url for node in self._nodes.all]
        # A client names each node both ways, as long as a cluster changes over.
        both = [url for node in urls for url in (node.replace("https:", "http:"), node.replace("http:", "https:"))]
        with CacheClient(both, 30.0, ca=self._ca) as client:
            while not self._stopping.is_set():
                try:
                    total = client.incr(key, initial=0)
                except Exception as error:
                    self.failures.append(f"{type(error).__name__}: {error}")
                    continue
                self.writes[number] += 1
                if total != self.writes[number]:
                    self.failures.append(f"{key} is {total} after {self.writes[number]} writes")
                    return


def restart(nodes: Nodes, node: NodeProcess, flags: list[str], ca: Path | None) -> None:
    node.signal(signal.SIGTERM)
    assert node.wait() == 0
    node.flags, node.ca = flags, ca
    node.seeds = [other.url for other in nodes.all if other is not node]
    node.start()
    nodes.wait_whole()


def test_a_cluster_changes_over_under_load_and_no_write_fails(folder: Path, authority: Authority) -> None:
    flags = authority.flags("rolling")
    with Nodes(3, folder) as nodes:
        nodes.start()
        with Load(nodes, authority.crt) as load:
            for mode in ("prefer", "require"):
                for node in nodes.all:
                    restart(nodes, node, [*flags, "--peer-tls", mode], authority.crt)
            wait_for(lambda: min(load.writes) > 50, "writes go on")
        assert load.failures == []
        for node in nodes.all:
            metrics = node.try_get("/metrics?format=json").body
            assert metrics['tls_plain_connections_total{port="raft"}'] == 0
        assert [nodes[0].value(f"load{number}") for number in (0, 1)] == load.writes
        # And nobody comes in plainly any more.
        assert plainly(nodes[0].raft_port, b"\x00\x00\x00\x05hello") == b""


def test_sighup_renews_certificates_and_ends_no_connection(folder: Path, authority: Authority) -> None:
    files = folder / "n.crt", folder / "n.key"
    put_in_place(authority.node("old", HERE, 30), files)
    resp = free_ports(1)[0]
    flags = ["--tls-cert", str(files[0]), "--tls-key", str(files[1]), "--tls-ca", str(authority.crt)]
    node = NodeProcess(1, folder, [*flags, "--resp-port", str(resp)])
    node.ca = authority.crt

    def days_left() -> float:
        return float(node.try_get("/metrics?format=json").body["tls_certificate_days_left"])

    def serial(port: int) -> object:
        with (
            socket.create_connection((HOST, port), 10) as raw,
            trusting(authority.crt).wrap_socket(raw, server_hostname=HOST) as client,
        ):
            return (client.getpeercert() or {})["serialNumber"]

    node.start()
    try:
        wait_for(node.is_ready)
        raw = socket.create_connection((HOST, resp), 10)
        with node.connect() as http, trusting(authority.crt).wrap_socket(raw, server_hostname=HOST) as client:
            assert http.request("GET", "/livez").status == 200
            before = serial(resp)
            put_in_place(authority.node("new", HERE, 60), files)
            assert serial(resp) == before and days_left() < 31
            node.signal(signal.SIGHUP)
            wait_for(lambda: days_left() > 59, "the new certificate is in force")
            assert serial(resp) == serial(node.port) != before
            # A broken one is refused in one line, and the one before goes on.
            files[0].write_text("half a fi")
            node.signal(signal.SIGHUP)
            wait_for(lambda: "not reloaded" in node.output(), "it says so")
            assert days_left() > 59 and node.output().count("not reloaded") == 1
            # Who came with the first certificate has noticed nothing.
            client.sendall(RESP_PING)
            assert client.recv(7) == b"+PONG\r\n"
            assert http.request("GET", "/livez").status == 200
        node.signal(signal.SIGTERM)
        assert node.wait() == 0
    finally:
        if node.alive:
            node.kill()


@pytest.mark.parametrize("what", ["ended", "stranger"])
def test_a_node_with_a_wrong_certificate_does_not_start_and_says_why(
    folder: Path, authority: Authority, what: str
) -> None:
    cert, key = authority.node("wrong", HERE, 0 if what == "ended" else 30)
    ca = authority.crt if what == "ended" else Authority(folder / "other").crt
    node = NodeProcess(1, folder, ["--tls-cert", str(cert), "--tls-key", str(key), "--tls-ca", str(ca)])
    assert node.start().wait() == 2
    said = node.output()
    assert "Traceback" not in said and len(said.splitlines()) == 1
    assert {"ended": "give a valid one", "stranger": "must be signed by the CA"}[what] in said
