"""Watching when keys end on a node: it is asked again and again, and whatever it says is noted with the time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from scripts.bench.load import Connection, Reply, get

# Between two questions about the same key; the error of every time noted here.
EVERY_S = 0.01


@dataclass
class Sightings:
    """One key on one node. Times are of the monotonic clock; None: never."""

    last_readable: float | None = None
    first_missing_after: float | None = None
    readable: int = 0
    ttls: list[tuple[float, float]] = field(default_factory=list)
    bad: list[str] = field(default_factory=list)

    def note(self, asked_at: float, reply: Reply) -> None:
        """asked_at: when the question went out, so a readable key lived at least until then."""
        if reply.status == 200:
            self.readable += 1
            self.last_readable, self.first_missing_after = asked_at, None
            self.ttls.append((time.monotonic(), reply.json()["ttl"]))
        elif reply.status == 404:
            if self.first_missing_after is None:
                self.first_missing_after = time.monotonic()
        elif reply.status not in (0, 503):
            # 503: the node has just started and does not answer reads yet.
            self.bad.append(f"{reply.status} {reply.body[:100]!r}")


async def watch(url: str, keys: Sequence[str], until: float) -> dict[str, Sightings]:
    """What one node said of the keys, up to ``until``. It may die and come back meanwhile."""
    seen = {key: Sightings() for key in keys}
    # A peek: watching must not count as use.
    requests = {key: get(key, "?peek") for key in keys}
    connection: Connection | None = None
    while time.monotonic() < until:
        try:
            if connection is None or not connection.is_open:
                connection = await Connection.open(url)
        except OSError:
            await asyncio.sleep(EVERY_S)
            continue
        for key, request in requests.items():
            asked_at = time.monotonic()
            seen[key].note(asked_at, await connection.ask(request))
        await asyncio.sleep(EVERY_S)
    if connection is not None:
        connection.close()
    return seen
