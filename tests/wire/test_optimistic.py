"""The optimistic loop by itself: what leads to another attempt, and what ends it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import cast

import pytest
from wire import memcached_client
from wire.fake_store import FakeStore
from wire.fake_transport import Client
from wire.resp_client import connect, lines

from cacheflow import values
from cacheflow.errors import NotCommitted, OutcomeUnknown, ReplicationError
from cacheflow.machine.language import commands as c
from cacheflow.machine.language.commands import Result
from cacheflow.wire.connection import Connection
from cacheflow.wire.memcached.meta import commands
from cacheflow.wire.optimistic import ATTEMPTS_MAX, Attempt, Attempts, Condition, unchanged
from cacheflow.wire.streams import Reply


class Asking:
    """A connection with one request that increments ``n`` when it can be read. gone: its client has left."""

    def __init__(self, store: FakeStore) -> None:
        self.store = store
        self.gone = False
        self.looks = 0
        self.replies: list[Reply] = []

    def contained(self, end: Callable[[bytes], None], call: Callable[..., None], *arguments: object) -> None:
        if not self.gone:
            call(*arguments)

    def failure(self, error: ReplicationError, /) -> bytes:
        return f"{type(error).__name__}: {error}".encode()

    def decide(self) -> Attempt | bytes:
        self.looks += 1
        entry = self.store.entry("n")
        if entry is not None and entry[0] == b"full":
            return b"no need"
        return Attempt([unchanged("n", entry)], [c.incr("n", 1, 0)], lambda results: b"done")

    def ask(self, fixed: Sequence[Condition] = ()) -> None:
        Attempts(cast(Connection, self), self.decide, lambda result: b"refused", fixed, b"lost").begin(
            self.replies.append
        )


def others_write(store: FakeStore) -> None:
    store.apply([c.set_("n", b"5", values.TEXT)])


@pytest.fixture
def asking() -> Asking:
    store = FakeStore()
    store.held = True
    return Asking(store)


def test_what_has_changed_meanwhile_is_looked_at_again(asking: Asking) -> None:
    asking.ask()
    others_write(asking.store)
    asking.store.release()
    assert (asking.looks, asking.replies) == (2, [])
    asking.store.release()
    assert asking.replies == [b"done"]
    assert asking.store.entry("n") == (b"6", values.TEXT, None, 2, 0)


def test_a_reply_that_needs_no_write_ends_it_at_any_attempt(asking: Asking) -> None:
    asking.ask()
    asking.store.apply([c.set_("n", b"full", values.TEXT)])
    asking.store.release()
    assert asking.replies == [b"no need"]
    assert len(asking.store.proposed) == 1


def test_attempts_end_and_the_client_hears_that_nothing_has_happened(asking: Asking) -> None:
    asking.ask()
    for _ in range(2 * ATTEMPTS_MAX):
        others_write(asking.store)
        asking.store.release()
    assert asking.replies == [b"NotCommitted: others changed the same keys again and again"]
    assert asking.looks == len(asking.store.proposed) == ATTEMPTS_MAX


@pytest.mark.parametrize("error", [OutcomeUnknown("no answer in time"), NotCommitted("too many wait")])
def test_a_failure_is_told_and_never_followed_by_another_attempt(asking: Asking, error: ReplicationError) -> None:
    asking.ask()
    asking.store.failure = error
    asking.store.release()
    assert asking.replies == [asking.failure(error)]
    assert asking.looks == 1


def test_what_the_machine_refuses_for_another_reason_is_not_tried_again(asking: Asking) -> None:
    asking.ask(fixed=[("n", 0, 0)] * 10_000)
    asking.store.release()
    assert asking.replies == [b"refused"]
    assert asking.looks == 1


def test_a_condition_of_an_earlier_look_cannot_be_mended(asking: Asking) -> None:
    asking.ask(fixed=[("other", 0, 0), ("n", 0, 0)])
    others_write(asking.store)
    asking.store.release()
    assert asking.replies == [b"lost"]
    assert asking.looks == 1


def test_nothing_is_attempted_for_a_client_that_has_gone(asking: Asking) -> None:
    asking.ask()
    others_write(asking.store)
    asking.gone = True
    asking.store.release()
    assert (asking.looks, asking.replies) == (1, [])


def test_a_reply_that_rests_on_nothing_seen_needs_no_write(asking: Asking) -> None:
    def reply(results: list[Result]) -> bytes:
        return b"wrong argument" if not results else b"done"

    Attempts(cast(Connection, asking), lambda: Attempt([], [], reply), lambda result: b"refused").begin(
        asking.replies.append
    )
    assert asking.replies == [b"wrong argument"]
    assert asking.store.proposed == []


@pytest.mark.parametrize("again", [False, True])
def test_a_defect_in_a_plan_closes_its_own_connection_alone(monkeypatch: pytest.MonkeyPatch, again: bool) -> None:
    """At the first look, and at a later one, which the store's own loop calls."""

    def broken(*arguments: object) -> None:
        raise RuntimeError("a defect")

    store = FakeStore()
    store.held = True
    client = memcached_client.connect(store)
    if not again:
        monkeypatch.setattr(commands, "_plan_count", broken)
    logging.getLogger("cacheflow.wire").disabled = True
    try:
        client.send(b"ma n N0 T60 v\r\n")
        if again:
            monkeypatch.setattr(commands, "_plan_count", broken)
            others_write(store)
            store.release()
    finally:
        logging.getLogger("cacheflow.wire").disabled = False
    assert client.closed
    other: Client = connect(store)
    store.held = False
    assert other.send(lines("SET k 1\nGET k")) == b"+OK\r\n$1\r\n1\r\n"
