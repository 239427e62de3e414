"""The command ``watch``: what happens to keys, one change a line."""

from __future__ import annotations

import sys

import click

from cacheflow.cli import texts
from cacheflow.cli.options import client_options
from cacheflow.cli.printing import print_json
from cacheflow.client.client import CacheClient


@click.command()
@click.argument("prefix", default="", type=texts.text)
@click.option("--since", metavar="POSITION", help="Begin behind this position, which --json shows. [default: now]")
@client_options
def watch(client: CacheClient, prefix: str, since: str | None, as_json: bool) -> int:
    """Print what happens to keys that start with PREFIX, one change a line, until Ctrl-C.

    When a node ends, the command goes on at another one. Exit code 1 if the command was too slow and has missed changes.
    """
    with client.watch(prefix, since=since) as changes:
        for change in changes:
            if as_json:
                print_json({name: value for name, value in change._asdict().items() if value is not None})
            else:
                what = f"{change.prefix}*" if change.key is None else change.key
                ttl = "" if change.ttl_s is None else f"  {change.ttl_s:g} s left"
                click.echo(f"{change.what:<6}  {what}  version {change.version}{ttl}")
            sys.stdout.flush()
    return 0
