"""The line of uploads as a whole, in random runs: honest ones come to their end however many silent ones stand before them."""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass, field

import pytest

from cacheflow.net.unfinished import COUNTED_BYTES_MIN, LONG_S, SILENT_S, Unfinished
from cacheflow.net.unsent import LOOK_EVERY_S

PIECE = 64 * 1024
TURN_S = 0.05
# The longest that a silent client keeps the turn: until the look after the time that it has.
ROUND_S = SILENT_S + LOOK_EVERY_S + 2 * TURN_S
# The longest that reading takes what all honest clients of a run send, one after the other.
READING_S = 3 * 16 * TURN_S


@dataclass(eq=False)
class Client:
    """A client that has ``size`` bytes to send, sends ``left`` of them as fast as they are read, and then nothing more."""

    size: int
    left: int
    begins_s: float
    unfinished_bytes: int = 0
    came_s: float = 0.0
    waits: bool = False
    got: int = 0
    complete_s: float | None = None
    ended: bool = False
    honest: bool = field(init=False)

    def __post_init__(self) -> None:
        self.honest = self.left == self.size

    def read_on(self) -> None:
        assert not self.waits


class Front:
    """A front that reads its clients in turns, as the HTTP server does, by a clock of its own."""

    def __init__(self, rng: random.Random, bytes_max: int) -> None:
        self.now_s = 100.0
        self.rng = rng
        self.budget = Unfinished(bytes_max, lambda: self.now_s)
        self.clients: list[Client] = []
        self._looked_s = 0.0

    def add(self, size: int, sent: int, after_s: float = 0.0) -> Client:
        client = Client(size, sent, self.now_s + after_s)
        self.clients.append(client)
        return client

    def turn(self) -> None:
        self.now_s += TURN_S
        here = [
            each for each in self.clients if each.begins_s <= self.now_s and each.complete_s is None and not each.ended
        ]
        for client in self.rng.sample(here, len(here)):
            if client.left and not client.waits:
                self._read(client)
        if self.now_s - self._looked_s >= LOOK_EVERY_S and self.budget.crowded:
            self._looked_s = self.now_s
            for client in self.budget.overdue(here, self.now_s):
                if self.budget.has_stayed(client, self.now_s) or not client.left:
                    client.ended = True
                    self.budget.tell(client, 0)

    def _read(self, client: Client) -> None:
        count = min(client.left, PIECE if self.rng.random() < 0.7 else self.rng.randint(1, PIECE))
        client.left -= count
        client.got += count
        if client.got == client.size:
            client.complete_s = self.now_s
        if client.got >= COUNTED_BYTES_MIN or client.unfinished_bytes:
            self.budget.tell(client, 0 if client.complete_s else client.got)

    def waited_s(self, honest: list[Client], most_s: float) -> float:
        """The time that the slowest of the ``honest`` took, who must all have ended after ``most_s``."""
        until_s = max(client.begins_s for client in honest) + most_s
        while any(client.complete_s is None for client in honest):
            self.turn()
            assert self.now_s < until_s, [each for each in self.clients if each.unfinished_bytes]
        return max((client.complete_s or 0.0) - client.begins_s for client in honest)


def wait_of_an_honest_client(seed: int) -> None:
    rng = random.Random(seed)
    front = Front(rng, rng.randint(6, 24) * PIECE)
    silent = rng.randint(1, 8)
    for _ in range(silent):
        size = rng.randint(PIECE // 2, 14 * PIECE)
        front.add(size, rng.randrange(size), rng.choice((0.0, 0.0, 2 * rng.random())))
    sizes = [rng.randint(PIECE, 14 * PIECE) for _ in range(rng.randint(1, 3))]
    honest = [front.add(size, size, 3 * rng.random()) for size in sizes]
    # Each silent one may have the turn once.
    assert (silent + 1) * ROUND_S < LONG_S
    front.waited_s(honest, (silent + 1) * ROUND_S + READING_S)
    assert not any(client.ended for client in honest)


@pytest.mark.parametrize("seeds", [range(first, first + 500) for first in range(0, 3000, 500)])
def test_an_honest_upload_waits_for_each_silent_one_once_at_most(seeds: range) -> None:
    for seed in seeds:
        wait_of_an_honest_client(seed)


@pytest.mark.parametrize("count", [20, 1000])
def test_those_who_wait_and_send_nothing_are_ended_together(count: int) -> None:
    front = Front(random.Random(count), 16 * PIECE)
    for _ in range(count):
        front.add(14 * PIECE, PIECE)
    honest = front.add(14 * PIECE, 14 * PIECE, 0.5)
    front.waited_s([honest], 2 * ROUND_S)
    assert not honest.ended


def test_a_little_room_that_is_left_by_the_silent_stops_nobody() -> None:
    """One is called for whom there is room, and has no more to send: others still wait, and not all is full any more."""
    front = Front(random.Random(1), 10 * PIECE)
    silent = [front.add(14 * PIECE, sent * PIECE) for sent in (4, 5, 1)]
    honest = front.add(14 * PIECE, 14 * PIECE)
    budget = front.budget
    for client, size in zip((*silent, honest), (4, 5, 1, 1), strict=True):
        budget.tell(client, size * PIECE)
        client.got, client.left = size * PIECE, client.left - size * PIECE
    for client in itertools.chain(silent[1:], [honest]):
        budget.tell(client, client.unfinished_bytes)
    assert honest.waits
    front.waited_s([honest], 3 * ROUND_S)
