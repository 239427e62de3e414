"""The command ``cacheflow settings``: the settings that all nodes of a cluster have, shown and changed while it runs."""

from __future__ import annotations

import re
import time
from dataclasses import asdict
from typing import Any, Final

import click

from cacheflow.cli import texts
from cacheflow.cli.options import client_options
from cacheflow.cli.printing import print_json, print_table
from cacheflow.client.client import CacheClient
from cacheflow.results import ClusterSettings

# What switches a limit off.
NONE: Final = "none"


@click.command("settings")
@click.argument("words", nargs=-1, metavar="[set NAME VALUE...]", type=texts.text)
@click.option("--if-version", type=int, help="Change them only if they are at this version; exit code 1 otherwise.")
@client_options
def cluster_settings(client: CacheClient, words: tuple[str, ...], if_version: int | None, as_json: bool) -> int:
    """Print the cluster's settings, or change some: max-items, max-bytes, eviction, replicas, max-value-bytes.

    The VALUE none of max-items and max-bytes is no limit. A change counts on all nodes at once and needs no restart.
    """
    if words:
        found = client.change_settings(only_if_version=if_version, **_changes(words))
    elif if_version is not None:
        raise click.UsageError("--if-version is for settings set")
    else:
        found = client.settings()
    if as_json:
        print_json(asdict(found))
    else:
        print_table([{"name": name, "value": value} for name, value in _shown(found).items()])
    return 0


def _changes(words: tuple[str, ...]) -> dict[str, Any]:
    """Return {name: new value} of settings to change, from the words ``set NAME VALUE...``. Raises click.UsageError."""
    if words[0] != "set" or len(words) < 3 or not len(words) % 2:
        raise click.UsageError("say: settings set NAME VALUE, or more names, each with its value")
    names = [name.replace("-", "_") for name in words[1::2]]
    if len(set(names)) < len(names):
        raise click.UsageError("a setting is named twice")
    if "only_if_version" in names:
        raise click.UsageError("no setting is called only_if_version; there is --if-version")
    return {name: _value(text) for name, text in zip(names, words[2::2], strict=True)}


def _value(text: str) -> Any:
    """Return the setting's value that ``text`` stands for: None, a whole number, or the text itself. Checks nothing."""
    if text == NONE:
        return None
    return int(text) if re.fullmatch(r"-?[0-9]{1,20}", text) else text


def _shown(found: ClusterSettings) -> dict[str, Any]:
    shown = {name: NONE if value is None else value for name, value in asdict(found).items()}
    moment = time.gmtime(found.changed_at)
    return shown | {"changed_by": found.changed_by or "-", "changed_at": time.strftime("%Y-%m-%d %H:%M:%SZ", moment)}
