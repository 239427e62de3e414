"""The command ``import``: the strings of a Redis server, with their TTLs, into a cluster."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Iterator
from typing import Any, Final

import click

from cacheflow import values
from cacheflow.cli import texts
from cacheflow.cli.options import client_options
from cacheflow.cli.printing import Bar
from cacheflow.cli.redis_source import RedisSource
from cacheflow.client.client import CacheClient
from cacheflow.errors import InvalidRequest

# Keys that SCAN is asked for at once.
KEYS_AT_ONCE: Final = 500
# Bytes of values that are read, and written, at once; a value of more goes alone.
VALUES_BYTES_AT_ONCE: Final = 2 * 1024 * 1024
# The largest value that any cluster takes (config.py).
VALUE_BYTES_MAX: Final = 64 * 1024 * 1024


@click.command("import")
@click.argument("url", type=texts.text)
@client_options
def import_(client: CacheClient, url: str, as_json: bool) -> int:
    """Write the strings of the Redis server at URL, as redis://host:6379/0, into the cluster; other keys stay.

    TTLs are kept. Other types, and what the cluster does not take, are counted and left out; exit code 1 then.
    """
    told: Counter[str] = Counter(imported=0)
    with contextlib.closing(RedisSource(url)) as source, Bar(source.ask("DBSIZE")) as bar:
        for keys in _pages(source):
            for block in _blocks(source, keys, told):
                _write(client, block, told)
            bar.advance(len(keys))
    left_out = {why: count for why, count in sorted(told.items()) if why != "imported"}
    if as_json:
        click.echo(json.dumps({"imported": told["imported"], "left_out": left_out}))
    else:
        click.echo(
            f"{told['imported']} imported" + "".join(f", {count} {why} left out" for why, count in left_out.items())
        )
    return 1 if left_out else 0


def _pages(source: RedisSource) -> Iterator[list[bytes]]:
    """Yield lists with all keys of the Redis server ``source``, some keys perhaps twice, as SCAN returns them."""
    cursor = b"0"
    while True:
        cursor, keys = source.ask("SCAN", cursor, "COUNT", str(KEYS_AT_ONCE))
        if keys:
            yield keys
        if cursor == b"0":
            return


def _blocks(source: RedisSource, keys: list[bytes], told: Counter[str]) -> Iterator[list[dict[str, Any]]]:
    """Yield lists of operations, each for one batch, that write into the cluster what ``keys`` hold on the Redis server.

    Only strings are written. told: counts the keys that are not written, by their type or as too large."""
    answers = source.ask_all([words for key in keys for words in (("TYPE", key), ("STRLEN", key))])
    group: list[bytes] = []
    size = 0
    for key, kind, length in zip(keys, answers[::2], answers[1::2], strict=True):
        if kind == b"none":
            continue
        if kind != b"string" or not isinstance(length, int):
            told[kind.decode(errors="replace") if isinstance(kind, bytes) else "unknown"] += 1
        elif length > VALUE_BYTES_MAX:
            told["too large"] += 1
        else:
            if group and size + length > VALUES_BYTES_AT_ONCE:
                yield _operations(source, group, told)
                group, size = [], 0
            group.append(key)
            size += length
    if group:
        yield _operations(source, group, told)


def _operations(source: RedisSource, keys: list[bytes], told: Counter[str]) -> list[dict[str, Any]]:
    answers = source.ask_all([words for key in keys for words in (("GET", key), ("PTTL", key))])
    block = []
    for key, data, left_ms in zip(keys, answers[::2], answers[1::2], strict=True):
        # Since its type was asked for the key may have expired, and then nothing is left out, or have got another type.
        if data is None or left_ms == -2:
            continue
        if not isinstance(data, bytes) or not isinstance(left_ms, int):
            told["changed meanwhile"] += 1
            continue
        try:
            name = values.check_key(key.decode())
        except ValueError:
            told["keys that are none here"] += 1
            continue
        operation: dict[str, Any] = {"op": "set", "key": name}
        operation["value"] = data.decode() if values.kind_of(data) == values.TEXT else data
        if left_ms >= 0:
            operation["ttl"] = max(left_ms, 1) / 1000
        block.append(operation)
    return block


def _write(client: CacheClient, block: list[dict[str, Any]], told: Counter[str]) -> None:
    """Send the operations ``block`` in one batch, or one by one if the cluster refuses the batch.

    told: counts how many operations wrote a key, and how many were too large.
    """
    if not block:
        return
    try:
        results = client.batch(block)
    except InvalidRequest:
        if len(block) == 1:
            told["too large"] += 1
            return
        for operation in block:
            _write(client, [operation], told)
        return
    for result in results:
        told["imported" if result["status"] in (200, 201) else "too large"] += 1
