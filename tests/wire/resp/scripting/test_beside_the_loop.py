"""What scripts do in their own thread, so that the event loop has the interpreter when it wants it."""

from __future__ import annotations

from typing import cast

import pytest
from wire.script_client import ScriptClients, evaluate

from cacheflow.machine.language import commands as c
from cacheflow.wire.optimistic import Condition
from cacheflow.wire.resp.overlay import Overlay
from cacheflow.wire.resp.scripting import caller
from cacheflow.wire.resp.session import RespSession


@pytest.fixture
def clients() -> ScriptClients:
    return ScriptClients()


class _Breaks:
    """Counts how often a script's thread would have given way."""

    given_way = 0

    def give_way(self) -> None:
        _Breaks.given_way += 1


def _filled(clients: ScriptClients, count: int) -> None:
    for start in range(0, count, 1000):
        sets = [c.set_(f"key:{number}", b"v", 0) for number in range(start, min(count, start + 1000))]
        clients.store.apply([c.batch(sets)])


def test_a_script_that_lists_all_keys_gives_way_and_frees_them_in_its_own_thread(
    clients: ScriptClients, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(caller, "Breaks", _Breaks)
    monkeypatch.setattr(_Breaks, "given_way", 0)
    freed: list[str] = []
    monkeypatch.setattr(caller, "_free", lambda breaks, slices: freed.append("freed") if slices else None)
    clients.runner.between = lambda: freed.append("told")
    _filled(clients, 5000)
    assert evaluate(clients.connect(), "return #redis.call('KEYS', '*')") == b":5000\r\n"
    assert _Breaks.given_way >= 5000 // 256
    assert freed == ["freed", "told"]


def test_the_slices_of_a_script_are_freed_with_breaks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_Breaks, "given_way", 0)
    caller._free(_Breaks(), [("a",)] * 7)  # type: ignore[arg-type]
    assert _Breaks.given_way == 7


def test_a_command_that_takes_all_of_a_scripts_time_is_broken_off(clients: ScriptClients) -> None:
    _filled(clients, 5000)
    asked = 0

    def expired() -> bool:
        nonlocal asked
        asked += 1
        return asked >= 3

    client = clients.connect()
    one = caller.Caller(cast(RespSession, client.protocol), expired, writes=False)
    assert one.call([b"KEYS", b"*"]) == b"-ERR the script's time is over\r\n"
    assert asked == 3


def test_a_reply_that_a_script_has_no_memory_for_is_not_made(
    clients: ScriptClients, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(caller, "REPLY_BYTES_MAX", 10_000)
    _filled(clients, 5000)
    answer = evaluate(clients.connect(), "return redis.call('KEYS', '*')")
    assert answer.startswith(b"-ERR a reply to a script has at most 10000 bytes")


@pytest.mark.parametrize("command", ["EVAL", "EVAL_RO"])
def test_what_a_script_has_seen_and_leaves_is_put_together_in_its_thread(
    clients: ScriptClients, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    conditions = Overlay.conditions

    def noted(self: Overlay) -> list[Condition]:
        done.append("conditions")
        return conditions(self)

    monkeypatch.setattr(Overlay, "conditions", noted)
    clients.runner.between = lambda: done.append("told")
    evaluate(clients.connect(), "return redis.call('GET', KEYS[1])", keys=("a",), command=command)
    assert done == ["conditions", "told"]
