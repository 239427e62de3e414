"""The command ``top``: what all nodes of a cluster do, as they do it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import click

from cacheflow.cli.launcher import terminable
from cacheflow.cli.monitor import pages, terminal
from cacheflow.cli.monitor.answers import Answered, Silent
from cacheflow.cli.monitor.asking import Cluster, Look
from cacheflow.cli.monitor.overview import Overview
from cacheflow.cli.monitor.rates import rates, totals
from cacheflow.cli.options import DEFAULT_URL, ca_of, token_of, urls_of
from cacheflow.cli.printing import print_json
from cacheflow.cli.status import node_options, overview_of
from cacheflow.errors import CacheFlowError

# Seconds in which all nodes answer as a rule: only then is the first picture drawn without some of them.
START_WITHIN_S: Final = 0.5
# Seconds from one look to the next: a node should not be kept busy by those who look at it, and none sleeps for hours.
EVERY_S_MIN: Final = 0.1
EVERY_S_MAX: Final = 3600.0

Picture = tuple[Overview, dict[str, Any]]


def _every(given: str) -> float:
    """Return the seconds that ``--every`` names. Raises click.BadParameter."""
    try:
        every_s = float(given)
    except ValueError:
        every_s = 0.0
    if not EVERY_S_MIN <= every_s <= EVERY_S_MAX:
        raise click.BadParameter(f"{given!r} is no number from {EVERY_S_MIN} to {EVERY_S_MAX:g}")
    return every_s


@click.command()
@click.option(
    "--every", default=1.0, show_default=True, type=_every, metavar="SECONDS", help="From one look to the next."
)
@click.option("--once", is_flag=True, help="Show what happens in one such time, and end.")
@node_options
def top(
    urls: tuple[str, ...],
    timeout: float,
    api_token_file: Path | None,
    ca: Path | None,
    as_json: bool,
    every: float,
    once: bool,
) -> int:
    """Show what each node does, live: rates, latencies, lag, and who is down. All nodes are asked, also those not named.

    On a terminal q ends it and p holds what is shown. Elsewhere each look is printed, with --json as one object a line.
    """
    cluster = Cluster(urls_of(urls) or [DEFAULT_URL], token_of(api_token_file), ca_of(ca), timeout, every)
    with terminable():
        try:
            # Somebody has to answer at first. Later all nodes may be down for a while, and are shown as such.
            cluster.wait_first(time.monotonic() + timeout + 1.0)
            looks = cluster.wait(1, time.monotonic() + START_WITHIN_S)
            pictures = Pictures(cluster, picture(looks, cluster.given))
            console = None if once or as_json else terminal.console()
            if console is None:
                cluster.wait(2, time.monotonic() + every + 2 * timeout)
                _print_looks(pictures, every, once, _print_json if as_json else _print_page)
            else:
                # Here, not above: rich need not be installed.
                from cacheflow.cli.monitor import screen

                screen.live(console, lambda: cluster.changes, pictures.take, _live_page)
        except KeyboardInterrupt:
            # Ctrl-C is how a user ends top.
            return 0
        finally:
            cluster.close()
    return 0


def picture(looks: Mapping[str, Look], given: list[str]) -> Picture:
    """Return (the picture of the cluster, its nodes' rates among it; what they have done together), from ``looks``, by URL.

    Raises what ``overview_of`` does.
    """
    found = overview_of(looks, given)
    steps = {url: rates(look.now, look.before) for url, look in looks.items() if isinstance(look.now, Answered)}
    rows = [{**row, "since_s": _since_s(row, looks), "rates": steps.get(row["url"])} for row in found.nodes]
    counted = [row["rates"] for row in rows if row["rates"] is not None]
    return found._replace(nodes=rows), totals(counted)


def _since_s(row: Mapping[str, Any], looks: Mapping[str, Look]) -> float | None:
    """Return for how many seconds a node has been as it is; None if that is unknown.

    Of a node whose silence the others have not told of, it is since it has last answered here.
    """
    look = looks.get(row["url"])
    if row["since_s"] is None and look is not None and isinstance(look.now, Silent) and look.before is not None:
        return time.monotonic() - look.before.at_s
    since_s: float | None = row["since_s"]
    return since_s


class Pictures:
    """The pictures of ``cluster``, one after the other. first: the one that is known already."""

    def __init__(self, cluster: Cluster, first: Picture) -> None:
        self._cluster = cluster
        self._last = first

    def take(self) -> Picture:
        """Return the picture as it is now. While no node answers it has the nodes that were known, and says so."""
        try:
            self._last = picture(self._cluster.looks(), self._cluster.given)
            return self._last
        except CacheFlowError as error:
            found = self._last[0]
            gone = {"status": "unreachable", "ready": None, "since_s": None, "rates": None}
            rows = [{**row, **gone} for row in found.nodes]
            cluster = {**found.cluster, "leader": None}
            return found._replace(cluster=cluster, nodes=rows, problems=[str(error)], notes=[]), totals([])


def _live_page(shown: Picture, width: int) -> list[Any]:
    return pages.top_page(*shown, width)


def _print_looks(pictures: Pictures, every_s: float, once: bool, show: Callable[[Picture], None]) -> None:
    """Show a picture by the function ``show`` every ``every_s`` seconds, or only one."""
    due = time.monotonic()
    while True:
        show(pictures.take())
        sys.stdout.flush()
        if once:
            return
        # A process that was stopped for long does not make up for what it has missed.
        due = max(due + every_s, time.monotonic())
        time.sleep(max(due - time.monotonic(), 0.0))


def _print_page(shown: Picture) -> None:
    click.echo(time.strftime("%Y-%m-%d %H:%M:%S"))
    terminal.show(pages.top_page(*shown, terminal.width()))
    click.echo()


def _print_json(shown: Picture) -> None:
    found, together = shown
    print_json({"at": round(time.time(), 3), **found.document(), "totals": together})
