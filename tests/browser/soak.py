"""``python -m tests.browser.soak --minutes 10``: the page of a node at half load with a million keys, for as long as told.

A reader goes from view to view, pages through keys and looks at some. What is told: how soon a new page shows its first data; the
longest run of a script of the page, in milliseconds of processor; the browser's memory for it, early and late. Exit code 1 when a
bound is missed.
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from browser.watched import Watched, launch, missing, traced  # noqa: E402 - the path comes first
from cluster.processes import NodeProcess, Nodes  # noqa: E402
from playwright.sync_api import Browser, Page, sync_playwright  # noqa: E402

# The bounds: seconds until first data, milliseconds of processor of a script at once, how much more memory late than early.
FIRST_DATA_S = 1.0
SCRIPT_MS = 50
GROWN = 1.25
CLIENTS = 4
SIGNS = {
    "cluster": "#view-cluster tbody tr",
    "plots": "#view-plots figure",
    "events": "#view-events li",
    "keys": "#view-keys li",
    "members": "#view-members tbody tr",
}


class Load:
    """Clients of a node that read and write a key in turn: first as fast as it goes, then at half of that."""

    def __init__(self, node: NodeProcess, keys: int) -> None:
        self._node = node
        self._keys = keys
        self._wait_s = 0.0
        self._done = [0] * CLIENTS
        self._stopped = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in range(CLIENTS)]

    def start(self) -> float:
        """Begin; return how many requests a second the half is."""
        for thread in self._threads:
            thread.start()
        time.sleep(1)
        before, began = sum(self._done), time.monotonic()
        time.sleep(4)
        half = (sum(self._done) - before) / (time.monotonic() - began) / 2
        self._wait_s = CLIENTS / half
        return half

    def stop(self) -> None:
        """End the clients."""
        self._stopped.set()
        for thread in self._threads:
            thread.join()

    def _run(self, number: int) -> None:
        with self._node.connect() as connection:
            due = time.monotonic()
            for step in itertools.count(number):
                if self._stopped.is_set():
                    return
                path = f"/cache/many:{step * 7919 % self._keys:07}"
                connection.request("GET", path) if step % 10 else connection.request("PUT", path, {"value": "new"})
                self._done[number] += 1
                if self._wait_s:
                    due = max(due + self._wait_s, time.monotonic() - 1)
                    time.sleep(max(0.0, due - time.monotonic()))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the soak; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.browser.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--keys", type=int, default=1_000_000)
    parser.add_argument("--nodes", type=int, default=3)
    given = parser.parse_args(arguments)
    if why := missing():
        print(why, file=sys.stderr)
        return 2
    flags = ["--max-items", str(2 * given.keys)]
    with (
        tempfile.TemporaryDirectory(prefix="cacheflow-page-") as folder,
        Nodes(given.nodes, Path(folder), flags) as nodes,
    ):
        nodes.start()
        node = nodes.leader()
        fill(node, given.keys)
        load = Load(node, given.keys)
        print(
            f"{given.keys:,} keys; load on the node: {load.start():,.0f} requests a second, half of what it could",
            flush=True,
        )
        try:
            with sync_playwright() as playwright:
                browser = launch(playwright)
                reader = Watched(browser)
                failed = look(browser, reader, node, given.minutes)
                reader.check()
                browser.close()
        finally:
            load.stop()
    return int(failed)


def fill(node: NodeProcess, count: int) -> None:
    """Write ``count`` keys, a thousand with each request."""
    with node.connect() as connection:
        for start in range(0, count, 1000):
            ops = [{"op": "set", "key": f"many:{n:07}", "value": f"value {n}"} for n in range(start, start + 1000)]
            answer = connection.request("POST", "/cache/_batch", {"ops": ops})
            assert answer.status == 200, answer


def look(browser: Browser, reader: Watched, node: NodeProcess, minutes: float) -> bool:
    """Use the page; print what was measured; return whether a bound was missed."""
    opened = {view: [seconds_to_data(reader, node.url, view) for _ in range(5)] for view in SIGNS}
    page = reader.open(node.url)
    session = reader.context.new_cdp_session(page)
    heap: list[float] = []
    scripts: list[tuple[float, str]] = []
    until = time.monotonic() + 60 * minutes
    while time.monotonic() < until:
        with traced(browser, page, scripts):
            use(page)
        session.send("HeapProfiler.collectGarbage")
        heap.append(session.send("Runtime.getHeapUsage")["usedSize"] / 2**20)
    longest = max(scripts)
    quarter = max(1, len(heap) // 4)
    early, late = median(heap[:quarter]), median(heap[-quarter:])
    for view, took in opened.items():
        print(f"first data of {view}: median {median(took):.2f} s, most {max(took):.2f} s of {len(took)}")
    print(
        f"{len(heap)} rounds through all views in {minutes:g} minutes; longest script: {longest[0]:.0f} ms, {longest[1]}"
    )
    print(f"memory of the page's scripts: {early:.1f} MiB early, {late:.1f} MiB late")
    print(f"load average of the machine: {os.getloadavg()[0]:.1f}", flush=True)
    # A list of a million keys takes the node longer than the bound for first data: it is told, and no part of it.
    slow = max(median(took) for view, took in opened.items() if view != "keys")
    return slow > FIRST_DATA_S or longest[0] > SCRIPT_MS or late > early * GROWN + 1


def seconds_to_data(reader: Watched, url: str, view: str) -> float:
    """Return how long a new page takes until it shows the first data of a view."""
    began = time.perf_counter()
    page = reader.open(url, view)
    page.locator(SIGNS[view]).first.wait_for()
    took = time.perf_counter() - began
    page.close()
    return took


def use(page: Page) -> None:
    """Go once through all views as a reader does."""
    for view, sign in SIGNS.items():
        page.locator(f'header nav a[href="#{view}"]').click()
        page.locator(sign).first.wait_for()
        page.wait_for_timeout(1000)
        if view == "keys":
            for _ in range(3):
                page.get_by_role("link", name="Next page").click()
                page.wait_for_timeout(500)
            page.locator("#view-keys .keys a").first.click()
            page.get_by_role("region", name="Value").wait_for()
            page.wait_for_timeout(2000)


if __name__ == "__main__":
    sys.exit(main())
