"""The commands ``dump`` and ``load``: contents as JSON lines, for people and other programs; a backup is the faithful form.

A line is an object: ``key``, ``value`` as HTTP shows it (``encoding`` base64 for bytes), ``expires_at_ms`` if it ends, and where
there is one ``content_type``, ``flags``, ``type`` (hash or set) and ``database``. What the HTTP API cannot write is left out by
``load``, which tells how much that is.
"""

from __future__ import annotations

import base64
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Final

import click

from cacheflow import values
from cacheflow.cli import texts
from cacheflow.cli.backup import node_options, source_of
from cacheflow.cli.options import client_options
from cacheflow.client.client import CacheClient
from cacheflow.client.transfers import Transfers
from cacheflow.errors import InvalidRequest
from cacheflow.files.backup import Item, opened, verified
from cacheflow.machine.language.databases import PREFIXES, database_of

# Items of one request, and characters of their lines: well within what a node takes.
ITEMS_AT_ONCE: Final = 500
CHARS_AT_ONCE: Final = 4 * 1024 * 1024
# The longest line that is read: the largest value as base64 or escaped JSON, with room for the rest.
LINE_BYTES_MAX: Final = 512 * 1024 * 1024
_FIELDS: Final = ("key", "value", "encoding", "content_type")


@click.command()
@click.argument("file", type=texts.path, required=False)
@node_options
def dump(file: Path | None, urls: tuple[str, ...], api_token_file: Path | None, ca: Path | None) -> int:
    """Print a cluster's contents, or those of the backup FILE, as JSON lines."""
    if file is not None:
        with file.open("rb") as backup:
            _print(backup)
        return 0
    url, token, ca = source_of(urls, api_token_file, ca)
    with tempfile.TemporaryFile() as fetched:
        Transfers(url, token, ca).fetch(fetched, lambda size: lambda count: None)
        _print(fetched)
    return 0


def _print(backup: BinaryIO) -> None:
    # Nothing is printed of a damaged one.
    verified(backup)
    for item in opened(backup)[1]:
        sys.stdout.write(json.dumps(line_of(item), ensure_ascii=True) + "\n")


def line_of(item: Item) -> dict[str, Any]:
    """Return ``item``, an item of a backup, as the JSON object that is printed for it on one line."""
    key, data, kind, meta, expires_at_ms = item
    database = database_of(key)
    line: dict[str, Any] = {"key": key[len(PREFIXES[database]) :]}
    if kind > values.VALUE_MAX:
        line["value"], is_base64 = values.json_of_fields(kind, data)
        line["type"] = values.NAMES[kind]
    else:
        is_base64 = kind == values.BYTES
        line["value"] = base64.b64encode(data).decode() if is_base64 else values.decode(kind, data)
    if is_base64:
        line["encoding"] = "base64"
    if meta is not None:
        line["content_type" if isinstance(meta, str) else "flags"] = meta
    if expires_at_ms:
        line["expires_at_ms"] = expires_at_ms
    if database:
        line["database"] = database
    return line


@click.command()
@click.argument("file", type=texts.path, required=False)
@client_options
def load(client: CacheClient, file: Path | None, as_json: bool) -> int:
    """Write JSON lines, from FILE or standard input, as dump prints them. Exit code 1 when some of the lines are left out.

    Other keys of the cluster stay.
    """
    told = {"loaded": 0, "expired": 0, "left_out": 0}
    with sys.stdin.buffer if file is None else file.open("rb") as source:
        for block in _blocks(source, told):
            for result in client.batch(block):
                told["loaded" if result["status"] in (200, 201) else "left_out"] += 1
    if as_json:
        click.echo(json.dumps(told))
    else:
        click.echo(
            f"{told['loaded']} loaded, {told['expired']} were over, "
            f"{told['left_out']} left out (hashes, sets, other databases, too large)"
        )
    return 1 if told["left_out"] else 0


def _blocks(source: BinaryIO, told: dict[str, int]) -> Iterator[list[dict[str, Any]]]:
    """Yield lists of operations, each for one batch, that write the JSON lines of ``source``; each line is one item.

    told: counts the items that are not written because they have expired, or because HTTP cannot write them."""
    block: list[dict[str, Any]] = []
    chars = number = 0
    while text := source.readline(LINE_BYTES_MAX):
        number += 1
        if text.isspace():
            continue
        operation = _operation(text, number)
        if operation is None:
            told["left_out"] += 1
        elif operation.get("ttl", 1.0) <= 0:
            told["expired"] += 1
        else:
            if block and (len(block) >= ITEMS_AT_ONCE or chars + len(text) > CHARS_AT_ONCE):
                yield block
                block, chars = [], 0
            block.append(operation)
            chars += len(text)
    if block:
        yield block


def _operation(text: bytes, number: int) -> dict[str, Any] | None:
    """Return the operation, for a batch, that writes the item in the JSON line ``text``; None if HTTP cannot write that item.

    Raises InvalidRequest.
    """
    try:
        line = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"line {number} is not JSON: {error}") from None
    if not isinstance(line, dict) or "key" not in line or "value" not in line:
        raise InvalidRequest(f'line {number} is no object with "key" and "value"')
    if line.get("database") or "type" in line:
        return None
    operation = {"op": "set", **{name: line[name] for name in _FIELDS if name in line}}
    if operation.get("encoding") == "base64":
        try:
            operation["value"] = base64.b64decode(operation["value"], validate=True)
        except (TypeError, ValueError):
            raise InvalidRequest(f"line {number}: its value is no base64") from None
        del operation["encoding"]
    ends = line.get("expires_at_ms")
    if ends is not None:
        if type(ends) is not int:
            raise InvalidRequest(f"line {number}: expires_at_ms is no whole number")
        operation["ttl"] = ends / 1000 - time.time()
    return operation
