"""``python -m tests.cluster.fuzzing --inputs 100000 --seed 1``: random inputs over TLS to every client port of one real node.

Inputs are requests with bytes changed, cut, doubled and strewn in, in records of random lengths; some are noise in the place of
a record. The node must go on answering right, print no traceback, and take no more memory for it.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import socket
import ssl
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# As a program it finds the tests' own modules by itself, as pytest does.
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from cluster.processes import HOST, NodeProcess, wait_for  # noqa: E402
from fakes.certificates import Authority  # noqa: E402

from cacheflow.cli.launcher import free_ports  # noqa: E402

# Inputs on one connection, if it lives so long.
ON_ONE_MAX = 60
CANARY_EVERY = 2000
# Memory that a node may take more at the end than after the first tenth: the rest of what its caches grow to.
GROWTH_BYTES_MAX = 48 * 1024 * 1024
SEEDS: dict[str, Sequence[bytes]] = {
    "http": (
        b"GET /cache/k HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"PUT /cache/k?ttl=5 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nabc",
        b"POST /cache/_batch HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 37\r\n\r\n"
        b'{"ops":[{"op":"get","key":"fuzzed"}]}',
        b"PUT /cache/k HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ),
    "resp": (
        b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1\r\nv\r\n",
        b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n",
        b"*1\r\n$5\r\nMULTI\r\n*2\r\n$4\r\nINCR\r\n$1\r\nn\r\n*1\r\n$4\r\nEXEC\r\n",
        b"PING\r\n",
        b"*5\r\n$4\r\nSCAN\r\n$1\r\n0\r\n$5\r\nMATCH\r\n$1\r\n*\r\n$5\r\nCOUNT\r\n",
        b"*2\r\n$5\r\nHELLO\r\n$1\r\n3\r\n",
    ),
    "memcached": (
        b"set k 0 0 3\r\nabc\r\n",
        b"get k a b c\r\n",
        b"mg k v t f c\r\n",
        b"ms k 3 T0\r\nabc\r\n",
        b"incr n 1\r\ndelete n\r\n",
        b"gat 10 k\r\n",
    ),
}


def changed(chance: random.Random, data: bytes) -> bytes:
    """A request with some of its bytes changed; now and then as it was."""
    found = bytearray(data)
    for _ in range(chance.choice((0, 1, 1, 2, 5))):
        at = chance.randrange(len(found) + 1)
        kind = chance.randrange(5)
        if kind == 0:
            found[at : at + 1] = chance.randbytes(1)
        elif kind == 1:
            del found[at : at + chance.randint(1, 8)]
        elif kind == 2:
            found[at:at] = chance.choice(
                (b"\r\n", b"\0", b"-1", b"99999999999", b"\xff\xfe", b" ", chance.randbytes(9))
            )
        elif kind == 3:
            found[at:at] = found[: chance.randint(0, 40)]
        elif found:
            found = found[:at] or found
    return bytes(found)


class Fuzzed:
    """One node with TLS on all its ports, and the client that misbehaves."""

    def __init__(self, folder: Path, seed: int) -> None:
        authority = Authority(folder / "ca")
        self.context = authority.trusted()
        resp, memcached = free_ports(2)
        flags = [*authority.flags(), "--resp-port", str(resp), "--memcached-port", str(memcached)]
        self.node = NodeProcess(1, folder, flags)
        self.node.ca = authority.crt
        self.ports = {"http": self.node.port, "resp": resp, "memcached": memcached}
        self.sent: Counter[str] = Counter()
        self.connections = 0
        self._chance = random.Random(seed)

    def memory_bytes(self) -> int:
        """What the node's process takes."""
        assert self.node.process is not None
        return int(Path(f"/proc/{self.node.process.pid}/statm").read_text().split()[1]) * 4096

    def run(self, inputs: int) -> None:
        """Send so many inputs. Raises AssertionError when the node does not bear them."""
        self.node.start()
        wait_for(self.node.is_ready)
        assert self.node.put("canary", "alive").status == 201
        early = 0
        checked = 0
        while (total := self.sent.total()) < inputs:
            self._misbehave(self._chance.choice(list(self.ports)))
            if total >= inputs // 10 and not early:
                early = self.memory_bytes()
            if total - checked >= CANARY_EVERY:
                checked = total
                self.check()
        self.check()
        grown = self.memory_bytes() - early
        assert grown < GROWTH_BYTES_MAX, f"{grown / 2**20:.0f} MiB more after {inputs} inputs"

    def check(self) -> None:
        """The node lives, answers right on every port and has printed no traceback."""
        assert self.node.alive and "Traceback" not in self.node.output(), self.node.output()[-4000:]
        # What is fuzzed may have deleted it.
        assert self.node.put("canary", "alive").status in (200, 201)
        assert self.node.value("canary") == "alive"
        asked = {
            "resp": (b"*2\r\n$3\r\nGET\r\n$6\r\ncanary\r\n", b"$5\r\nalive\r\n"),
            "memcached": (b"get canary\r\n", b"VALUE canary 0 5\r\nalive\r\nEND\r\n"),
        }
        for port, (request, answer) in asked.items():
            with self._connected(port) as client:
                client.sendall(request)
                said = b""
                while len(said) < len(answer):
                    piece = client.recv(4096)
                    assert piece, said
                    said += piece
                assert said == answer, (port, said)

    @contextlib.contextmanager
    def _connected(self, port: str):  # type: ignore[no-untyped-def]
        with (
            socket.create_connection((HOST, self.ports[port]), 10) as raw,
            self.context.wrap_socket(raw, server_hostname=HOST) as client,
        ):
            self.connections += 1
            yield client

    def _misbehave(self, port: str) -> None:
        chance = self._chance
        with contextlib.suppress(OSError), self._connected(port) as client:
            client.setblocking(False)
            for _ in range(chance.randint(1, ON_ONE_MAX)):
                data = changed(chance, chance.choice(SEEDS[port]))
                self.sent[port] += 1
                if chance.random() < 0.02:
                    # Past the session: what comes is no record, or one that nobody has encrypted.
                    raw = socket.socket(fileno=client.detach())
                    with contextlib.suppress(OSError), raw:
                        raw.send(chance.choice((b"", b"\x17\x03\x03\x00", b"\x16\x03\x03\x00\x04")) + data)
                    return
                while data:
                    cut = chance.choice((len(data), chance.randint(1, len(data))))
                    client.send(data[:cut])
                    data = data[cut:]
                with contextlib.suppress(ssl.SSLWantReadError):
                    if not client.recv(65536):
                        return


def main() -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="cacheflow-fuzz-") as folder:
        fuzzed = Fuzzed(Path(folder), options.seed)
        try:
            fuzzed.run(options.inputs)
        finally:
            if fuzzed.node.alive:
                print(f"memory at the end: {fuzzed.memory_bytes() / 2**20:.0f} MiB")
                fuzzed.node.kill()
        print(f"{fuzzed.sent.total()} inputs on {fuzzed.connections} connections: {dict(fuzzed.sent)}; nothing found")
    return 0


if __name__ == "__main__":
    sys.exit(main())
