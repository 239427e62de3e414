"""The commands ``backup`` and ``restore``: a cluster's contents as a file, and a file's in the place of a cluster's contents."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path
from typing import Any, BinaryIO, Final

import click

from cacheflow.cli import texts
from cacheflow.cli.options import CA_OPTION, DEFAULT_URL, ca_of, token_of, urls_of
from cacheflow.cli.printing import Bar, print_json
from cacheflow.client.client import CacheClient
from cacheflow.client.transfers import Told, Transfers, near, write_whole
from cacheflow.errors import CacheFlowError, ConfigError
from cacheflow.files.backup import verified

# Seconds between two looks at how far a restore is.
LOOK_EVERY_S: Final = 0.5


def node_options(command: Any) -> Any:
    """Give a click command the options that name one node and an admin's token."""
    for option in (
        click.option("--api-token-file", type=texts.path, help="Token of an admin."),
        CA_OPTION,
        click.option(
            "--url", "urls", multiple=True, type=texts.text, metavar="URL", help=f"A node. {DEFAULT_URL} unless told."
        ),
    ):
        command = option(command)
    return command


def source_of(
    urls: tuple[str, ...], api_token_file: Path | None, ca: Path | None, here: bool = False
) -> tuple[str, str | None, Path | None]:
    """Return (URL, token, CA) of the node that is to make a backup: a follower, if there is one.

    here: True: take the node that the command names, in any case."""
    url, token, ca = (urls_of(urls) or [DEFAULT_URL])[0], token_of(api_token_file), ca_of(ca)
    if not here:
        with CacheClient([url], token=token, ca=ca, discover=False) as client:
            url = near(client.nodes(), url.partition("//")[0].rstrip(":") if "//" in url else "http") or url
    return url, token, ca


_as_json = click.option("--json", "as_json", is_flag=True, help="JSON for programs instead of text for people.")


@click.command()
@click.argument("file", type=texts.path)
@click.option("--here", is_flag=True, help="Of the very node that is named, even if it leads.")
@click.option("--force", is_flag=True, help="Replace FILE if it is there.")
@_as_json
@node_options
def backup(
    file: Path,
    here: bool,
    force: bool,
    urls: tuple[str, ...],
    api_token_file: Path | None,
    ca: Path | None,
    as_json: bool,
) -> int:
    """Write a consistent copy of the cluster's contents to FILE, from a follower if there is one. Writes go on meanwhile."""
    if file.exists() and not force:
        raise ConfigError(f"{file} is there; --force replaces it")
    url, token, ca = source_of(urls, api_token_file, ca, here)
    bars: list[Bar] = []

    def begin(size: int) -> Told:
        bars.append(Bar(size).__enter__())
        return bars[0].advance

    def fill(into: BinaryIO) -> None:
        Transfers(url, token, ca).fetch(into, begin)
        told.append(verified(into))

    told: list[Any] = []
    try:
        write_whole(file, fill)
    finally:
        for bar in bars:
            bar.__exit__()
    [meta] = told
    size = file.stat().st_size
    if as_json:
        print_json({"file": str(file), "bytes": size, "items": meta.items, "index": meta.index, "from": url})
    else:
        click.echo(f"{meta.items} items, {size} bytes, as of index {meta.index}, from {url}")
    return 0


@click.command()
@click.argument("file", type=texts.path, required=False)
@click.option("--online", is_flag=True, help="The nodes serve clients meanwhile, who see a part of the contents.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--give-up", is_flag=True, help="End a restore that was interrupted, with the contents as they are.")
@_as_json
@node_options
def restore(
    file: Path | None,
    online: bool,
    yes: bool,
    give_up: bool,
    urls: tuple[str, ...],
    api_token_file: Path | None,
    ca: Path | None,
    as_json: bool,
) -> int:
    """Replace everything in the cluster by the backup in FILE. An interrupted restore can be repeated."""
    if give_up == (file is not None):
        raise click.UsageError("give a FILE, or --give-up")
    url, token, ca = (urls_of(urls) or [DEFAULT_URL])[0], token_of(api_token_file), ca_of(ca)
    transfers = Transfers(url, token, ca)
    if file is None:
        given_up = transfers.give_up()
        click.echo("given up" if given_up else "no restore is under way")
        return 0 if given_up else 1
    with file.open("rb") as source:
        meta = verified(source)
        if not yes and sys.stdin.isatty():
            click.confirm(f"Replace everything in the cluster by {meta.items} items of {file}?", abort=True, err=True)
        with CacheClient([url], token=token, ca=ca, discover=False) as client:
            told = _watched(transfers, source, client, online, file.stat().st_size)
    if as_json:
        print_json(told)
    else:
        click.echo(f"{told['items']} items are restored; the revision is {told['revision']}")
    return 0


def _watched(transfers: Transfers, source: BinaryIO, client: CacheClient, online: bool, size: int) -> dict[str, Any]:
    """Have a node restore the backup in ``source``, and return the node's answer.

    One progress bar shows how much of the backup is sent, a second one how much is restored.
    """
    outcome: list[dict[str, Any] | BaseException] = []
    sent = [0]

    def told(count: int) -> None:
        sent[0] += count

    def send() -> None:
        try:
            outcome.append(transfers.send(source, online=online, told=told))
        except BaseException as error:
            outcome.append(error)

    sender = threading.Thread(target=send, daemon=True)
    sender.start()
    with Bar(size) as bar:
        shown = 0
        while sent[0] < size and not outcome:
            time.sleep(LOOK_EVERY_S / 10)
            bar.advance(sent[0] - shown)
            shown = sent[0]
        bar.advance(sent[0] - shown)
    with Bar(1000) as bar:
        shown = 0
        while not outcome:
            sender.join(LOOK_EVERY_S)
            share = _share(client)
            bar.advance(max(0, share - shown))
            shown = max(shown, share)
        bar.advance(1000 - shown if isinstance(outcome[0], dict) else 0)
    if isinstance(outcome[0], BaseException):
        raise outcome[0]
    return outcome[0]


def _share(client: CacheClient) -> int:
    """Return how many thousandths of the running restore are done; 0 if there is none, or no node answers."""
    try:
        restore_ = client.status().get("restore") or {}
    except CacheFlowError:
        return 0
    return 0 if restore_.get("ended", True) else 1000 * restore_["done"] // max(restore_["items"], 1)
