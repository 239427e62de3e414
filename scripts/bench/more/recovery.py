"""A majority is lost, or every node has moved: ``cacheflow recover`` makes a new cluster of what is left on the disks.

Seconds count from the end of the command, the last one where each node has one, to the first write that is acknowledged, with the
nodes' start. What the commands themselves take is shown, too.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cacheflow.cli.launcher import Child, ask, free_ports
from cacheflow.client.client import CacheClient
from cacheflow.errors import CacheFlowError
from scripts.bench.harness import Cluster, Verdict, cluster, wait_until

MUST = (
    "two of three destroyed, and all three moved: contents as of the survivor's index, writes <= 10 s after the command, "
    "the dead ones stay out and say why, the new cluster serves on"
)
LIMIT_S = 600
WHAT = "`cacheflow recover` to the first write: one survivor of three; all three moved"
WRITES_WITHIN_S = 10.0
WITHIN_S = 60.0


@dataclass
class _Recovered:
    """What one recovery took, in seconds, and what was not as it must be."""

    command_s: float
    write_s: float
    wrong: list[str]


def run(items: int = 10_000) -> Verdict:
    """Two clusters, with so many items in each."""
    alone, moved = _one_survives(items), _all_move(items)
    wrong = alone.wrong + moved.wrong
    figures = {
        "items": items,
        "alone_s": round(alone.write_s, 2),
        "alone_command_s": round(alone.command_s, 2),
        "moved_s": round(moved.write_s, 2),
        "moved_commands_s": round(moved.command_s, 2),
        "wrong": len(wrong),
    }
    good = not wrong and max(alone.write_s, moved.write_s) <= WRITES_WITHIN_S
    return Verdict(shown(figures), good, figures, {"wrong": wrong[:20]})


def shown(figures: dict[str, Any]) -> str:
    """Both times."""
    text = f"{figures['alone_s']:.1f} s with one survivor (the command {figures['alone_command_s']:.1f} s), "
    text += f"{figures['moved_s']:.1f} s with all three moved (three commands {figures['moved_commands_s']:.1f} s)"
    return f"{text}; {figures['items']:,} items, {figures['wrong']} wrong"


def _one_survives(items: int) -> _Recovered:
    with cluster("--max-items", "none") as nodes:
        survivor, *dead = reversed(nodes.children)
        _load(nodes, items)
        # What only the survivor has is in its log still, and it stands alone: the old cluster commits nothing more.
        for child in dead:
            nodes.kill(child)
        had = _contents(survivor)
        nodes.kill(survivor)
        shown_ = _recover(survivor.data_dir, "--show")["nodes"][0]
        began = time.monotonic()
        made = _recover(survivor.data_dir, "--force-new-cluster", "--yes")
        made_at = time.monotonic()
        nodes.restart(survivor)
        _first_write(survivor)
        took = _Recovered(made_at - began, time.monotonic() - made_at, [])
        wrong = _differences(had, _contents(survivor))
        if shown_["items"] != len(had):
            wrong.append(f"the disk has {shown_['items']} items, and {len(had)} were read")
        for child in dead:
            nodes.restart(child)
        said = f"which cluster {made['cluster_id']} has replaced in a recovery"
        for child in dead:
            try:
                wait_until(lambda child=child: said in _ready(child), f"{child.node_id} says why it is out", WITHIN_S)  # type: ignore[misc]
            except RuntimeError:
                wrong.append(f"{child.node_id} does not say that it is out, but {_ready(child)!r}")
            if not any("has replaced" in line for line in child.tail):
                wrong.append(f"{child.node_id} does not log that it is out")
        # They are a majority of the old one, and must not have moved it.
        with CacheClient(survivor.url, discover=False) as client:
            for number in range(100):
                client[f"behind-{number}"] = number
            if client.status()["cluster_id"] != made["cluster_id"]:
                wrong.append("it serves in another cluster than the new one")
        took.wrong = wrong
        return took


def _all_move(items: int) -> _Recovered:
    with cluster("--max-items", "none") as nodes:
        _load(nodes, items)
        had = _contents(nodes.children[0])
        for child in nodes.children:
            nodes.kill(child)
        for child in nodes.children:
            _move(child)
        peers = nodes.children[0].data_dir.parent / "peers.json"
        rows = [
            {"id": child.node_id, "raft_address": f"127.0.0.1:{_after(child, '--raft-port')}"}
            for child in nodes.children
        ]
        peers.write_text(json.dumps(rows))
        began = time.monotonic()
        for child in nodes.children:
            _recover(child.data_dir, "--force-new-cluster", "--peers", str(peers), "--yes")
        made_at = time.monotonic()
        for child in nodes.children:
            nodes.restart(child)
        _first_write(nodes.children[0])
        took = _Recovered(made_at - began, time.monotonic() - made_at, [])
        nodes.wait_ready(WITHIN_S)
        wrong = _differences(had, _contents(nodes.children[0]))
        digests: set[tuple[int, str]] = set()

        def are_level() -> bool:
            digests.clear()
            digests.update(tuple(ask(child.url, "/cluster/digest")[1].values()) for child in nodes.children)
            return len({index for index, _ in digests}) == 1

        wait_until(are_level, "all have applied the same", WITHIN_S)
        if len(digests) != 1:
            wrong.append(f"the nodes differ: {digests}")
        took.wrong = wrong
        return took


def _load(nodes: Cluster, items: int) -> None:
    """Fill the cluster, count beside it, and return when all nodes have everything."""
    counting = threading.Thread(target=_count, args=(nodes.urls,), daemon=True)
    counting.start()
    with CacheClient(nodes.urls[0], discover=False) as client:
        for first in range(0, items, 100):
            client.set_many({f"k{number}": f"value {number}" for number in range(first, min(first + 100, items))})
    counting.join(WITHIN_S)
    wait_until(
        lambda: len({ask(child.url, "/cluster/digest")[1]["index"] for child in nodes.children}) == 1,
        "all have applied the same",
        WITHIN_S,
    )


def _count(urls: list[str]) -> None:
    with CacheClient(urls) as client:
        for _ in range(200):
            client.incr("counted", initial=0)


def _contents(child: Child) -> dict[str, Any]:
    """Return all that the node has, read from its own memory."""
    with CacheClient(child.url, discover=False) as client:
        keys = sorted(client.keys())
        found: dict[str, Any] = {}
        for first in range(0, len(keys), 500):
            found |= client.get_many(keys[first : first + 500])
    return found


def _differences(had: dict[str, Any], has: dict[str, Any]) -> list[str]:
    # Written behind the recovery.
    has = {key: value for key, value in has.items() if key != "first"}
    return [
        f"{key} is {has.get(key)!r}, not {had.get(key)!r}"
        for key in had.keys() | has.keys()
        if had.get(key) != has.get(key)
    ]


def _recover(*arguments: object) -> Any:
    ended = subprocess.run(
        [sys.executable, "-m", "cacheflow", "recover", *map(str, arguments), "--json"],
        cwd=Path(__file__).resolve().parents[3],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=WITHIN_S,
    )
    if ended.returncode != 0:
        raise RuntimeError(f"recover: {ended.returncode}: {ended.stderr}")
    return json.loads(ended.stdout)


def _first_write(child: Child) -> None:
    with CacheClient(child.url, timeout_s=1.0, discover=False) as client:

        def is_answered() -> bool:
            try:
                client["first"] = "behind the recovery"
            except CacheFlowError:
                return False
            return True

        wait_until(is_answered, "a write is answered", WITHIN_S)


def _ready(child: Child) -> str:
    """Return what the node says of its readiness; nothing while it does not answer."""
    try:
        with urllib.request.urlopen(f"{child.url}/readyz?verbose", timeout=2.0) as answer:
            return str(answer.read(), "utf-8", "replace")
    except urllib.error.HTTPError as error:
        return str(error.read(), "utf-8", "replace")
    except OSError:
        return ""


def _after(child: Child, flag: str) -> str:
    return child.arguments[child.arguments.index(flag) + 1]


def _move(child: Child) -> None:
    """Give a stopped node other ports, and no word of where it or the others were."""
    port, raft_port = free_ports(2)
    told = child.arguments
    while "--seed" in told:
        at = told.index("--seed")
        del told[at : at + 2]
    if "--bootstrap" in told:
        told.remove("--bootstrap")
    told[told.index("--port") + 1], told[told.index("--raft-port") + 1] = str(port), str(raft_port)
    child.url = f"http://127.0.0.1:{port}"
