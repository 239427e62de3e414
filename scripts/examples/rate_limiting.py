#!/usr/bin/env python3
"""API rate limiting, exact over nodes: Flask-Limiter with its limits in a cluster, while a node is killed.

Three nodes, and three copies of a small API, each of which asks another node first. Visitors call all three at once, faster than
they may. Shown is: each visitor is served exactly as often as the limit says, by all copies together, although the leader is
killed meanwhile; and nobody gets an error. Exit code 1 if anything was otherwise.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import flask
from flask_limiter import Limiter

import cacheflow.integrations.limits  # noqa: F401 - makes cacheflow:// known
from cacheflow.cli.launcher import LocalCluster

# Seconds that a visitor goes on beyond the time, until the first refusal.
LATE_S = 30.0
STRATEGIES = ("fixed-window", "moving-window", "sliding-window-counter")


def api(storage_uri: str, strategy: str, limit: int) -> flask.Flask:
    """Return a copy of the API: each visitor may call it ``limit`` times an hour."""
    app = flask.Flask("api")
    limiter = Limiter(
        lambda: flask.request.headers["X-Visitor"],
        app=app,
        storage_uri=storage_uri,
        strategy=strategy,
        key_prefix=strategy,
    )

    @app.get("/")
    @limiter.limit(f"{limit} per hour")
    def index() -> str:
        return "served"

    return app


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the example; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--visitors", type=int, default=8)
    parser.add_argument("--limit", type=int, default=50, help="calls that a visitor may make in an hour")
    parser.add_argument("--seconds", type=float, default=8.0, help="of calls for each strategy, while a node is killed")
    parser.add_argument("--strategy", choices=STRATEGIES, help="one of the three; all unless told")
    given = parser.parse_args(arguments)
    good = True
    with tempfile.TemporaryDirectory() as folder:
        for strategy in (given.strategy,) if given.strategy else STRATEGIES:
            with LocalCluster(3, Path(folder) / strategy, say=lambda _: None) as nodes:
                nodes.start()
                nodes.wait_ready()
                good &= shown(nodes, strategy, given.visitors, given.limit, given.seconds)
    print("as promised" if good else "NOT as promised")
    return 0 if good else 1


def shown(nodes: LocalCluster, strategy: str, visitors: int, limit: int, seconds: float) -> bool:
    """Have visitors call three copies of the API while the leader is killed; return whether each got exactly what it may."""
    places = [url.removeprefix("http://") for url in nodes.urls]
    copies = [api(f"cacheflow://{','.join([*places[first:], *places[:first]])}", strategy, limit) for first in range(3)]
    answers: Counter[tuple[str, int]] = Counter()
    counted = threading.Lock()
    began = time.monotonic()
    # At such a pace that the limit is reached when two thirds of the time are over.
    pause_s = seconds * 2 / 3 / limit * 3

    def call(visitor: str, copy: flask.Flask) -> None:
        client = copy.test_client()
        # Also on a machine so slow, or behind so long a pause, that the limit is not reached in time.
        while (past_s := time.monotonic() - began) < seconds or (
            not answers[visitor, 429] and past_s < seconds + LATE_S
        ):
            status = client.get("/", headers={"X-Visitor": visitor}).status_code
            with counted:
                answers[visitor, status] += 1
            time.sleep(pause_s)

    threads = [threading.Thread(target=call, args=(f"visitor {n}", copy)) for n in range(visitors) for copy in copies]
    killer = threading.Timer(seconds / 4, lambda: nodes.kill(nodes.leader() or nodes.children[0]))
    for thread in (*threads, killer):
        thread.start()
    for thread in (*threads, killer):
        thread.join()
    served = [answers[f"visitor {number}", 200] for number in range(visitors)]
    refused = sum(count for (_, status), count in answers.items() if status == 429)
    failed = sum(count for (_, status), count in answers.items() if status not in (200, 429))
    told = f"{visitors} visitors were served {min(served)} to {max(served)} times each of {limit}"
    print(f"{strategy}: the leader killed; {told}, refused {refused} times, {failed} errors")
    return served == [limit] * visitors and refused > 0 and failed == 0


if __name__ == "__main__":
    sys.exit(main())
