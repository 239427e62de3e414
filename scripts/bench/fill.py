"""Filling a node with many small items, for the rows about size."""

from __future__ import annotations

from scripts.bench.load import Connection, batch

VALUE = "x" * 100
_BATCH = 10_000


def key_of(number: int) -> str:
    """16 bytes; the load generator has the same."""
    return f"key:{number:012}"


async def fill(url: str, items: int) -> None:
    """``items`` keys with a value of 100 bytes. Raises RuntimeError when a batch fails."""
    connection = await Connection.open(url)
    for start in range(0, items, _BATCH):
        numbers = range(start, min(start + _BATCH, items))
        reply = await connection.ask(
            batch([{"op": "set", "key": key_of(number), "value": VALUE} for number in numbers])
        )
        if reply.status != 200:
            raise RuntimeError(f"a batch of the filling: {reply.status} {reply.body[:200]!r}")
    connection.close()
