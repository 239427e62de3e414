"""A socket behind TLS: whatever the system takes of an answer, and when, all of it arrives, and no call takes too little."""

from __future__ import annotations

import contextlib
import errno
import random
from collections.abc import Callable

import pytest
from fakes.certificates import Authority, met

from cacheflow.net.tls.secured_socket import SecuredSocket
from cacheflow.net.tls.session import Session


class Taking:
    """A socket that takes so many bytes of each call, and none where that is 0."""

    def __init__(self, takes: Callable[[], int]) -> None:
        self.taken = bytearray()
        self._takes = takes

    def send(self, data: bytes) -> int:
        taken = min(self._takes(), len(data))
        if not taken:
            raise BlockingIOError(errno.EWOULDBLOCK, "full")
        self.taken += data[:taken]
        return taken


@pytest.fixture
def sessions(authority: Authority) -> tuple[Session, Session]:
    return met(authority.trusted(), authority.certificates().in_force.clients)


def test_one_call_sends_all_that_the_system_takes(sessions: tuple[Session, Session]) -> None:
    """A call for each record would have the HTTP server copy megabytes for each: a sixth of the speed."""
    client, server = sessions
    below = Taking(lambda: 1 << 30)
    data = random.Random(1).randbytes(1_000_000)
    assert SecuredSocket(below, server).send(memoryview(data)) == len(data)  # type: ignore[arg-type]
    assert client.decrypt(bytes(below.taken)) == data


@pytest.mark.parametrize("seed", range(20))
def test_what_is_sent_in_pieces_arrives_whole(sessions: tuple[Session, Session], seed: int) -> None:
    client, server = sessions
    chance = random.Random(seed)
    below = Taking(lambda: chance.choice((0, 1, 5, 700, 16_406, 16_407, 50_000, 1 << 20)))
    secured = SecuredSocket(below, server)  # type: ignore[arg-type]
    data = chance.randbytes(chance.choice((1, 16_384, 16_385, 300_000)))
    sent = 0
    while sent < len(data):
        # The same bytes again, or more: never fewer than before.
        with contextlib.suppress(BlockingIOError):
            taken = secured.send(memoryview(data)[sent : sent + 100_000])
            assert 0 < taken <= 100_000
            sent += taken
    assert sent == len(data) and client.decrypt(bytes(below.taken)) == data
