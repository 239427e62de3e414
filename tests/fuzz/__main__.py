"""``python -m tests.fuzz --inputs 100000 --seed 1``: hostile clients of every port of three real nodes.

Inputs come from a grammar, and from mutations of what it makes, many on a connection. Behind each valid one, and behind the
mutated ones that the node survives, a known request must get its known answer, in order. At the end: nothing in the logs but
what a node says of hostile clients, memory flat, the same leader able to write, equal digests. Exit code 1 when one is not so.
With ``--tls`` every port speaks TLS, and records and handshakes are mutated, too.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import re
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from fakes.certificates import Authority  # noqa: E402 - the path comes first
from fuzz.http_api import Http  # noqa: E402
from fuzz.memcached import Memcached  # noqa: E402
from fuzz.peers import Peers  # noqa: E402
from fuzz.resp import Resp  # noqa: E402
from fuzz.running import Port, Tally, fuzz  # noqa: E402

from cacheflow.cli.launcher import LocalCluster, ask, terminable  # noqa: E402
from cacheflow.client.client import CacheClient  # noqa: E402
from cacheflow.config import read_secret  # noqa: E402
from cacheflow.errors import CacheFlowError  # noqa: E402

PORTS = ("http", "resp", "memcached", "peers")
# Small, so that memory is full early and stays so.
FLAGS = ("--max-items", "1000", "--max-bytes", "4194304", "--resp-port", "0", "--memcached-port", "0")
# The log stays in memory until the journal has 64 MiB and a snapshot is built. So a client beside the hostile ones writes 1 MiB
# for so many inputs, and what counts is the least memory of each fifth of the inputs: in a long run, that behind a snapshot.
# In the first fifth memory is filled.
INPUTS_PER_BALLAST = 1500
# MiB that memory may grow from the second fifth to the last: on the node that has the hostile clients, beside the others, and
# on any.
BESIDE_MIB_MAX = 16.0
GROWTH_MIB_MAX = 64.0
SAMPLE_S = 1.0
BAD_LINE = re.compile(r"Traceback|\bERROR\b|\bCRITICAL\b|Exception|never awaited|never retrieved")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what ``arguments``, by default the command line, ask for; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--inputs", type=int, default=100_000, help="on each port")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--ports", nargs="*", choices=PORTS, default=list(PORTS))
    parser.add_argument(
        "--tls", action="store_true", help="every port speaks TLS: records and handshakes are hostile, too"
    )
    parser.add_argument("--log", type=Path, help="where to keep what the nodes have logged")
    parser.add_argument("flags", nargs="*", help="further flags of the nodes, behind --")
    given = parser.parse_args(arguments)
    lines: list[str] = []
    failed = False
    with terminable(), tempfile.TemporaryDirectory(prefix="cacheflow-fuzz-") as folder:
        authority = Authority(Path(folder) / "ca") if given.tls else None
        flags = [*FLAGS, *given.flags]
        if authority is not None:
            flags += authority.flags("node", "--peer-tls", "require")
        with LocalCluster(3, Path(folder), flags=flags, say=lines.append) as cluster:
            cluster.start()
            cluster.wait_ready()
            for name in given.ports:
                failed |= not run_port(name, cluster, given.inputs, given.seed, authority)
            failed |= not is_well(cluster)
    if given.log is not None:
        given.log.write_text("\n".join(lines))
    bad = [line for line in lines if BAD_LINE.search(line)]
    for line in bad[:40]:
        print(f"log: {line}")
    print(f"{len(lines)} lines in the logs, {len(bad)} of them bad")
    return int(failed or bool(bad))


def run_port(name: str, cluster: LocalCluster, inputs: int, seed: int, authority: Authority | None) -> bool:
    """Send ``inputs`` to one port of node 2, over TLS where there is an ``authority``; print and return whether all was well."""
    tls = None if authority is None else authority.trusted()
    node = cluster.children[1]
    host, http_port = "127.0.0.1", int(node.url.rpartition(":")[2])
    tally = Tally(inputs)
    if name == "peers":
        status = ask(node.url, "/cluster/status", ca=cluster.ca)[1]
        secret = read_secret(cluster.secret_file, "cluster-secret-file") or b""
        raft_port = int(node.arguments[node.arguments.index("--raft-port") + 1])
        # To another node a stranger with a certificate of the CA is as good as a member.
        dialing = None if authority is None else authority.certificates("fuzz").in_force.dialing
        peers = Peers(secret, status["cluster_id"], certified=authority is not None)
        run = fuzz(Port(host, raft_port, dialing), peers, tally, seed)
    elif name == "http":
        run = fuzz(Port(host, http_port, tls), Http(), tally, seed)
    elif name == "resp":
        run = fuzz(Port(host, node.wire_ports["--resp-port"], tls), Resp(), tally, seed)
    else:
        run = fuzz(Port(host, node.wire_ports["--memcached-port"], tls), Memcached(), tally, seed)
    began = time.monotonic()
    pids = [child.process.pid for child in cluster.children if child.process is not None]
    samples: list[tuple[int, list[float]]] = []

    async def all_of_it() -> None:
        beside = [
            asyncio.ensure_future(_sample(pids, samples, lambda: tally.inputs)),
            asyncio.ensure_future(_write_ballast(cluster, lambda: tally.inputs)),
        ]
        try:
            await run
        finally:
            for task in beside:
                task.cancel()

    asyncio.run(all_of_it())
    took = time.monotonic() - began
    samples.append((tally.inputs, _memory_mib(pids)))
    course = _least_of_fifths(samples)
    grown = [last - early for early, last in zip(course[min(1, len(course) - 1)], course[-1], strict=True)]
    is_flat = grown[1] - max(grown[0], grown[2]) <= BESIDE_MIB_MAX and max(grown) <= GROWTH_MIB_MAX
    if not is_flat:
        tally.failures.append("memory is not flat")
    for failure in tally.failures:
        print(f"{name}: {failure}")
    print(
        f"{name}: {tally.inputs} inputs on {tally.connections} connections in {took:.0f} s ({tally.inputs / took:.0f}/s), "
        f"{tally.known} known answers, connections ended {dict(tally.ends)}, {len(tally.failures)} failures, "
        f"memory {' -> '.join('/'.join(f'{each:.0f}' for each in memory) for memory in course)} MiB",
        flush=True,
    )
    return not tally.failures and all(child.alive for child in cluster.children)


async def _sample(pids: list[int], samples: list[tuple[int, list[float]]], inputs: Callable[[], int]) -> None:
    while True:
        samples.append((inputs(), _memory_mib(pids)))
        await asyncio.sleep(SAMPLE_S)


async def _write_ballast(cluster: LocalCluster, inputs: Callable[[], int]) -> None:
    with CacheClient(cluster.urls, ca=cluster.ca) as client:
        written = 0
        while True:
            await asyncio.sleep(SAMPLE_S / 10)
            if inputs() // INPUTS_PER_BALLAST > written:
                written += 1
                with contextlib.suppress(CacheFlowError):  # hostile clients move the leadership, too
                    await asyncio.to_thread(client.set, "ballast", bytes(2**20 - 1024))


def _least_of_fifths(samples: list[tuple[int, list[float]]]) -> list[list[float]]:
    """Return the least memory of each process in each fifth of the inputs; ``samples`` have them in order, the last one all."""
    last = samples[-1][0]
    fifths = [
        [memory for count, memory in samples if last * fifth <= count * 5 <= last * (fifth + 1)] for fifth in range(5)
    ]
    return [[min(values) for values in zip(*fifth, strict=True)] for fifth in fifths if fifth]


def _memory_mib(pids: list[int]) -> list[float]:
    page = os.sysconf("SC_PAGE_SIZE")
    return [int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * page / 2**20 for pid in pids]


def is_well(cluster: LocalCluster) -> bool:
    """Print and return whether the cluster still writes, is ready on all nodes, and holds the same everywhere."""
    with CacheClient(cluster.urls, ca=cluster.ca) as client:
        client.set("fuzz", "over")
    deadline = time.monotonic() + 30
    digests: set[str] = set()
    while time.monotonic() < deadline:
        found = [ask(url, "/cluster/digest", ca=cluster.ca)[1] or {} for url in cluster.urls]
        digests = {f"{each.get('index')} {each.get('digest')}" for each in found}
        if len(digests) == 1 and all(ask(url, "/readyz", ca=cluster.ca)[0] == 200 for url in cluster.urls):
            print("the cluster is well: it writes, and its digests are equal")
            return True
        time.sleep(0.2)
    print(f"the cluster is not well: {digests}")
    return False


if __name__ == "__main__":
    sys.exit(main())
