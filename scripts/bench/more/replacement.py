"""Rolling replacement: three new nodes take the places of all three, one by one under load, the leader first.

The clients are CacheClients of the three old addresses, which learn the new ones as they go. Every client counts in a counter of
its own and sets a key of its own, so what is lost or done twice is seen. An old node goes as an operator has it go: by
``--leave``, or by ``cacheflow nodes remove``.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cacheflow.cli.launcher import HOST, Child, ask, free_ports
from cacheflow.client.client import CacheClient
from cacheflow.errors import CacheFlowError
from scripts.bench.harness import Cluster, Verdict, cluster, wait_until

MUST = "all three nodes replaced by new ones under load, the leader first: 0 failed, 0 lost or doubled, digests equal"
LIMIT_S = 600
WHAT = "all three nodes replaced by three new ones under load, the leader first"
CLIENTS = 6
# Answers that each client gets between two steps.
PROGRESS = 20
# Seconds for a step: a new node that is a member, an old one that is out, a client that gets on.
STEP_S = 60.0


@dataclass
class _Client:
    """A client in a thread of its own; a call that raised has failed."""

    number: int
    urls: list[str]
    counted: int = 0
    last_set: int = 0
    longest_s: float = 0.0
    failures: list[str] = field(default_factory=list)

    def work(self, stopping: threading.Event) -> None:
        with CacheClient(self.urls) as client:
            while not stopping.is_set():
                began = time.perf_counter()
                try:
                    client.incr(f"counter-{self.number}", initial=0)
                    self.counted += 1
                    client.set(f"key-{self.number}", self.counted)
                    self.last_set = self.counted
                    if client[f"key-{self.number}"] != self.counted:
                        self.failures.append(f"read another value than the {self.counted} that was written")
                except (CacheFlowError, KeyError) as error:
                    self.failures.append(f"{type(error).__name__}: {error}")
                self.longest_s = max(self.longest_s, time.perf_counter() - began)


def run(clients: int = CLIENTS) -> Verdict:
    """The first and the last leave by themselves, the second is removed."""
    with cluster("--leave") as nodes:
        old = [nodes.led_by(), *nodes.others(nodes.led_by())]
        load = [_Client(number, nodes.urls) for number in range(clients)]
        stopping = threading.Event()
        threads = [threading.Thread(target=client.work, args=(stopping,), daemon=True) for client in load]
        for thread in threads:
            thread.start()
        took_s = []
        try:
            _progress(load)
            for number, child in enumerate(old):
                began = time.monotonic()
                _replace(nodes, child, f"new-{number + 1}", removes=number == 1)
                _progress(load)
                took_s.append(time.monotonic() - began)
        finally:
            stopping.set()
            for thread in threads:
                thread.join(STEP_S)
        verdict = _judge(nodes, load, took_s)
        for child in nodes.children:
            # Not by SIGTERM: they would leave each other, one after the other.
            nodes.kill(child)
    return verdict


def _replace(nodes: Cluster, old: Child, node_id: str, *, removes: bool) -> None:
    """Let a new node take the place of ``old``: it is a member before the old one goes, and votes behind that."""
    members = {child.node_id for child in nodes.children}
    new = new_child(nodes, node_id)
    nodes.restart(new)
    nodes.children.append(new)
    nodes.wait_answer(new, "/readyz")
    wait_until(lambda: _members(nodes, old).keys() == {*members, node_id}, f"{node_id} is a member", STEP_S)
    nodes.children.remove(old)
    if removes:
        # An id may be given by its beginning.
        _command(nodes, "nodes", "remove", old.node_id, "--url", new.url)
    old.death_told = True
    os.kill(nodes.pid(old), signal.SIGTERM)
    assert old.process is not None
    if old.process.wait(STEP_S) != 0:
        raise RuntimeError(f"{old.node_id} ended: {' | '.join(list(old.tail)[-3:])}")
    wait_until(lambda: all(_is_whole(nodes, child) for child in nodes.children), "three vote again", STEP_S)


def new_child(nodes: Cluster, node_id: str) -> Child:
    """A node that is not started, on free ports and with an empty directory, with the present ones as its seeds."""
    port, raft_port = free_ports(2)
    folder = nodes.children[0].data_dir.parent / node_id
    arguments = ["--node-id", node_id, "--host", HOST, "--port", str(port), "--raft-port", str(raft_port), "--leave"]
    arguments += ["--data-dir", str(folder), "--cluster-secret-file", str(nodes.secret_file)]
    arguments += [part for url in nodes.urls for part in ("--seed", url)]
    return Child(node_id, f"http://{HOST}:{port}", folder, arguments, {})


def _members(nodes: Cluster, child: Child) -> dict[str, dict[str, Any]]:
    status, rows = ask(child.url, "/nodes/list")
    return {row["id"]: row for row in rows} if status == 200 else {}


def _is_whole(nodes: Cluster, child: Child) -> bool:
    rows = _members(nodes, child)
    return (
        rows.keys() == {each.node_id for each in nodes.children}
        and all(row["voter"] and row["status"] == "up" for row in rows.values())
        and ask(child.url, "/readyz")[0] == 200
    )


def _command(nodes: Cluster, *arguments: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "cacheflow", *arguments],
        cwd=Path(__file__).resolve().parents[3],
        capture_output=True,
        text=True,
        timeout=STEP_S,
    )
    if ended.returncode != 0:
        raise RuntimeError(f"{' '.join(arguments)}: {ended.returncode}: {ended.stderr}")


def _progress(load: list[_Client]) -> None:
    """Every client gets on."""
    before = [client.counted for client in load]
    wait_until(
        lambda: all(client.counted >= was + PROGRESS for client, was in zip(load, before, strict=True)),
        f"all clients get on: {[client.failures[-1:] for client in load]}",
        STEP_S,
    )


def _judge(nodes: Cluster, load: list[_Client], took_s: list[float]) -> Verdict:
    failures = [failure for client in load for failure in client.failures]
    wrong = []
    with CacheClient(nodes.urls, discover=False) as client:
        for each in load:
            for key, want in ((f"counter-{each.number}", each.counted), (f"key-{each.number}", each.last_set)):
                item = client.get_item(key, consistency="linearizable")
                if item is None or item.value != want:
                    wrong.append(f"{key} is {item and item.value}, not {want}")
    digests: set[tuple[int, str]] = set()

    def are_level() -> bool:
        digests.clear()
        digests.update(tuple(ask(child.url, "/cluster/digest")[1].values()) for child in nodes.children)
        return len({index for index, _ in digests}) == 1

    wait_until(are_level, "all have applied the same", STEP_S)
    figures = {
        "calls": sum(3 * client.counted for client in load),
        "failures": len(failures),
        "wrong": len(wrong),
        "digests": len(digests),
        "longest_s": round(max(client.longest_s for client in load), 3),
        "slowest_step_s": round(max(took_s), 1),
    }
    good = not failures and not wrong and len(digests) == 1
    return Verdict(shown(figures), good, figures, {"failures": failures[:20], "wrong": wrong, "took_s": took_s})


def shown(figures: dict[str, Any]) -> str:
    """What failed, and what it cost."""
    return (
        f"{figures['failures']} failures of {figures['calls']:,} calls, {figures['wrong']} lost or doubled, "
        f"{figures['digests']} digest{'s' * (figures['digests'] != 1)}; longest call and two {figures['longest_s']:.2f} s, "
        f"slowest step {figures['slowest_step_s']:.1f} s"
    )
