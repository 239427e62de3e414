"""The demonstration for newcomers: a write on one node, a read from another, and the death of a leader."""

from __future__ import annotations

import time
from collections.abc import Callable

from cacheflow.cli.launcher import LocalCluster
from cacheflow.client.client import CacheClient
from cacheflow.errors import NotReady

KEY = "greeting"
VALUE = "hello from node 1"
FAILOVER_TIMEOUT_S = 30.0


def tour(cluster: LocalCluster, say: Callable[[str], None], token: str | None = None) -> None:
    """Show a write on the first node of the local ``cluster`` and a read from its last node; then print commands to try.

    say: a function that prints one line of text.
    """
    first, last = cluster.children[0], cluster.children[-1]
    header = "" if token is None else ' -H "Authorization: Bearer $TOKEN"'
    header += "" if cluster.ca is None else f" --cacert {cluster.ca}"
    _write_and_read(cluster, say, token)
    say("")
    say("Try it yourself:")
    say(f"  curl{header} -X PUT {first.url}/cache/{KEY} -H 'Content-Type: application/json' -d '{{\"value\": \"hi\"}}'")
    say(f"  curl{header} {last.url}/cache/{KEY}")
    say(f"  curl{header} {first.url}/nodes/list")
    say(f"Another node joins with --seed {first.url} --cluster-secret-file {cluster.secret_file}")
    say("")


def demo(cluster: LocalCluster, say: Callable[[str], None], token: str | None = None) -> None:
    """Show a write and a read on the local ``cluster``, kill its leader, write on another node, and tell how long that took.

    say: a function that prints one line of text. Raises NotReady without a leader and two other nodes.
    """
    _write_and_read(cluster, say, token)
    leader = cluster.leader()
    if leader is None or len(cluster.children) < 3:
        raise NotReady("the demonstration needs three nodes, one of them the leader")
    say(f"kill -9 {leader.node_id}, the leader")
    survivors = [child.url for child in cluster.children if child is not leader]
    started = time.perf_counter()
    cluster.kill(leader)
    with CacheClient(survivors, timeout_s=FAILOVER_TIMEOUT_S, token=token, ca=cluster.ca, discover=False) as client:
        client.set(KEY, "hello again")
        pause_s = time.perf_counter() - started
        say(f"write through a survivor: acknowledged; the change of leader was a pause of {pause_s * 1000:.0f} ms")
        new = cluster.leader()
        say(f"read: {client.get(KEY)!r}; the leader is now {new.node_id if new else 'unknown'}")


def _write_and_read(cluster: LocalCluster, say: Callable[[str], None], token: str | None) -> None:
    first, last = cluster.children[0], cluster.children[-1]
    with (
        CacheClient(first.url, token=token, ca=cluster.ca, discover=False) as writer,
        CacheClient(last.url, token=token, ca=cluster.ca, discover=False) as reader,
    ):
        started = time.perf_counter()
        written = writer.set(KEY, VALUE)
        took_ms = (time.perf_counter() - started) * 1000
        say(f"PUT {first.url}/cache/{KEY}: version {written.version}, on a majority's disks after {took_ms:.1f} ms")
        started = time.perf_counter()
        # Linearizable: a local read on another node may be a heartbeat behind.
        found = reader.get(KEY, consistency="linearizable")
        took_ms = (time.perf_counter() - started) * 1000
        say(f"GET {last.url}/cache/{KEY}: {found!r} after {took_ms:.1f} ms")
