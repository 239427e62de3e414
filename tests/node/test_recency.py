"""The buffer of uses: in order of last use, each key once, bounded when it travels."""

from __future__ import annotations

import threading

from cacheflow.node.recency import KEYS_MAX, NOTED_MAX, RecencyBuffer


def test_uses_are_counted_in_order_of_the_last() -> None:
    buffer = RecencyBuffer()
    for key in "abcab":
        buffer.note(key)
    assert len(buffer.noted) == 5
    assert buffer.drain() == [("c", 1), ("a", 2), ("b", 2)]
    assert buffer.drain() == [] and len(buffer.noted) == 0


def test_several_may_be_noted_at_once() -> None:
    buffer = RecencyBuffer()
    buffer.note("a")
    buffer.note_all(["b", "c", "a"])
    assert buffer.drain() == [("b", 1), ("c", 1), ("a", 2)]


def test_only_the_latest_travel() -> None:
    buffer = RecencyBuffer()
    for number in range(KEYS_MAX + 10):
        buffer.note(str(number))
    drained = buffer.drain()
    assert len(drained) == KEYS_MAX
    assert drained[0] == ("10", 1) and drained[-1] == (str(KEYS_MAX + 9), 1)


def test_threads_may_note_while_it_is_drained() -> None:
    buffer = RecencyBuffer()
    stop: list[bool] = []
    errors: list[BaseException] = []

    def note(name: str) -> None:
        number = 0
        try:
            while not stop:
                number += 1
                buffer.note(f"{name}{number % 500}")
        except BaseException as error:  # told below
            errors.append(error)

    threads = [threading.Thread(target=note, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    drained = 0
    while drained < 20_000:
        uses = buffer.drain()
        assert len({key for key, _ in uses}) == len(uses)
        drained += len(uses)
    stop.append(True)
    for thread in threads:
        thread.join()
    assert errors == []


def test_a_buffer_that_nobody_drains_keeps_the_latest_and_stays_small() -> None:
    buffer = RecencyBuffer()
    for number in range(5 * NOTED_MAX):
        buffer.note(f"k{number}")
        assert len(buffer.noted) <= NOTED_MAX
    last = 5 * NOTED_MAX
    assert [key for key, _ in buffer.drain()] == [f"k{number}" for number in range(last - KEYS_MAX, last)]
