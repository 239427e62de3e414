"""The command ``status``: one look at all nodes of a cluster."""

from __future__ import annotations

import functools
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import click

from cacheflow.cli.monitor import pages, terminal
from cacheflow.cli.monitor.answers import Silent
from cacheflow.cli.monitor.asking import Cluster, Look, latest
from cacheflow.cli.monitor.overview import Overview, overview
from cacheflow.cli.options import DEFAULT_URL, ca_of, connection_options, token_of, urls_of
from cacheflow.cli.printing import print_json
from cacheflow.errors import InvalidRequest, NotCommitted

# Seconds for one node: one that takes longer is in no state to serve anybody.
ANSWER_WITHIN_S: Final = 2.0
node_options = functools.partial(
    connection_options, timeout_s=ANSWER_WITHIN_S, timeout_help="Seconds for a node to answer."
)


@click.command()
@node_options
def status(urls: tuple[str, ...], timeout: float, api_token_file: Path | None, ca: Path | None, as_json: bool) -> int:
    """Show the cluster and how each node is. All nodes are asked, also those that are not named.

    Exit code 1 if there is no leader, or a node does not answer or is not ready.
    """
    cluster = Cluster(urls_of(urls) or [DEFAULT_URL], token_of(api_token_file), ca_of(ca), timeout)
    # Once for the nodes that are named, once for the members that they know.
    found = overview_of(cluster.wait(1, time.monotonic() + 2 * timeout + 1.0), cluster.given)
    cluster.close()
    if as_json:
        print_json(found.document())
    else:
        terminal.show(pages.status_page(found, terminal.width()))
    return 1 if found.problems else 0


def overview_of(looks: Mapping[str, Look], given: list[str]) -> Overview:
    """Return the picture of the cluster from ``looks``, by URL. given: the URLs that the user has named.

    Raises NotCommitted if no node has answered, InvalidRequest if all that are there refuse the token.
    """
    silent = [look.now for look in looks.values() if isinstance(look.now, Silent)]
    if len(silent) < len(looks):
        return overview(latest(looks), given)
    for each in silent:
        if each.refused:
            raise InvalidRequest(f"{each.url}: {each.why}")
    raise NotCommitted("no node answered: " + "; ".join(f"{each.url}: {each.why}" for each in silent))
