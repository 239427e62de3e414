"""Calls that do not fit into one block: cut, refused, and answered as one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from cacheflow.config import NodeConfig
from cacheflow.contract import Done
from cacheflow.errors import NotCommitted, OutcomeUnknown, ValueTooLarge
from cacheflow.machine.language import commands
from cacheflow.machine.language.commands import Command, Result
from cacheflow.machine.machine import CacheMachine
from cacheflow.machine.state.entries import KEY_BYTES_MAX
from cacheflow.node import inbox, large_calls, proposals, recency
from cacheflow.node.large_calls import LargeCall
from cacheflow.raft.transport.peer_transport import FRAME_BYTES_MAX
from cacheflow.store import ReplicatedStore

BYTES_MAX = 4000
PIECE_BYTES_MAX = 2600
SMALL = [commands.set_(f"k{number}", b"v", 0) for number in range(3)]


@pytest.fixture(autouse=True)
def small_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(large_calls, "CALL_BYTES_MAX", BYTES_MAX)
    monkeypatch.setattr(large_calls, "PIECE_BYTES_MAX", PIECE_BYTES_MAX)


class Node:
    """Applies what is sent at once. sent: the commands of each piece.  failing: what the piece with that number ends with."""

    def __init__(self) -> None:
        self.machine = CacheMachine()
        self.sent: list[Sequence[Command]] = []
        self.failing: dict[int, Any] = {}

    def send(self, commands_: Sequence[Command], size: int, weight: int, done: Done) -> None:
        packed = commands.encode_block(0, 0, 0, commands_)
        assert len(packed) <= size + 8 <= BYTES_MAX + 8
        self.sent.append(commands_)
        if len(self.sent) in self.failing:
            done(self.failing[len(self.sent)])()
            return
        payload = commands.encode_entry(1, [packed])
        done(self.machine.apply(self.machine.applied_index + 1, payload)[0][2])()

    def call(self, *commands_: Command) -> Any:
        outcomes: list[Any] = []
        woken: list[bool] = []

        def done(outcome: Any) -> Any:
            outcomes.append(outcome)
            return lambda: woken.append(True)

        LargeCall(commands_, self.send, done).go_on()()
        assert len(outcomes) == len(woken) == 1
        return outcomes[0]


def sets(count: int, *, key: int = 1000, value: int = 100) -> list[Command]:
    """Commands of which most of the bytes are those of the keys."""
    return [commands.set_(f"{number:0{key}}", bytes(value), 0) for number in range(count)]


def versions(result: Result) -> list[int]:
    assert result[0] == commands.OK
    return [one[1] for one in result[1]]


def test_a_plain_batch_is_cut_and_answered_as_one() -> None:
    node = Node()
    (result,) = node.call(commands.batch(sets(10)))
    assert versions(result) == list(range(1, 11))
    assert [len(command[2]) for (command,) in node.sent] == [2, 2, 2, 2, 2]
    assert all(command[:2] == (commands.BATCH, False) for (command,) in node.sent)


def test_what_must_be_one_command_is_refused_and_nothing_of_it_is_sent() -> None:
    node = Node()
    for command in (
        commands.batch(sets(10), atomic=True),
        commands.guarded([], sets(10)),
        commands.idempotent("once", commands.batch(sets(10))),
        commands.set_("k", bytes(BYTES_MAX), 0),
        commands.append("k", bytes(BYTES_MAX)),
        commands.batch([SMALL[0], commands.set_("k", bytes(BYTES_MAX), 0)]),
    ):
        ((status, said),) = node.call(command)
        assert status == commands.TOO_LARGE
        assert said == (
            f"this takes {commands.packed_bytes(command)} bytes in the log, and at most {BYTES_MAX} are taken at once"
        )
    assert node.sent == []


def test_a_command_that_only_seems_to_be_too_large_is_sent() -> None:
    node = Node()
    # Its keys count for four bytes a character.
    wide = commands.batch([commands.set_("é" * 500, b"", 0), commands.set_("è" * 500, b"", 0)], atomic=True)
    assert commands.packed_bytes(wide) < BYTES_MAX < commands.size_of(wide)
    assert versions(*node.call(wide)) == [1, 2]
    assert node.sent == [[wide]]


def test_the_commands_of_a_call_go_in_pieces_each_with_its_own_answer() -> None:
    node = Node()
    doomed = commands.batch(sets(10), atomic=True)
    refused = [commands.TOO_LARGE, node.call(doomed)[0][1]]
    results = node.call(*SMALL, doomed, commands.batch(sets(4)), *SMALL, commands.get("k1"))
    assert [result[0] for result in results] == [commands.OK] * 3 + [commands.TOO_LARGE] + [commands.OK] * 5
    assert results[3] == refused
    assert versions(results[4]) == [4, 5, 6, 7]
    assert results[-1][1] == b"v"
    assert [len(piece) for piece in node.sent] == [3, 1, 3, 2]


def test_a_batch_that_the_machine_refuses_says_so_once() -> None:
    node = Node()
    node.failing[2] = [[commands.MALFORMED, "no batch"]]
    assert node.call(commands.batch(sets(10))) == [[commands.MALFORMED, "no batch"]]


def test_a_call_of_which_nothing_took_place_may_be_sent_again_and_one_of_which_some_did_is_unknown() -> None:
    node = Node()
    node.failing[1] = NotCommitted("no leader")
    assert node.call(commands.batch(sets(10))) is node.failing[1]
    assert len(node.sent) == 1
    node = Node()
    node.failing[3] = NotCommitted("no leader")
    outcome = node.call(commands.batch(sets(10)))
    assert isinstance(outcome, OutcomeUnknown) and "no leader" in str(outcome)
    assert len(node.sent) == 3


def test_a_store_takes_plain_calls_of_any_size_and_refuses_atomic_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ReplicatedStore(raft_address="127.0.0.1:0", data_dir=tmp_path, fsync="never") as store:
        ops = [{"op": "set", "key": f"{number:01000}", "value": "v"} for number in range(20)]
        before = store.status()["applied_index"]
        assert [result["status"] for result in store.batch(ops)] == [201] * 20
        assert store.status()["applied_index"] > before + 3
        with pytest.raises(ValueTooLarge, match="bytes in the log"):
            store.batch(ops, atomic=True)
        with pytest.raises(ValueTooLarge, match="bytes in the log"):
            store.batch(ops, idempotency_key="once")
        with pytest.raises(ValueTooLarge, match="bytes in the log"):
            store["k"] = "v" * BYTES_MAX
        assert len(store) == 20
        # More commands than may wait at once, too.
        monkeypatch.setattr(inbox, "PENDING_MAX", 100)
        counts = store.run([commands.incr("n", 1, 0)] * 1000)
        assert [result[2] for result in counts] == list(range(1, 1001))


def test_the_largest_value_that_may_be_configured_fits_and_so_does_its_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    value = bytes(64 * 1024 * 1024)
    NodeConfig(max_value_bytes=len(value))
    key, content_type = "k" * KEY_BYTES_MAX, "t" * 255
    largest = commands.idempotent(
        "o" * 256, commands.batch([commands.set_(key, value, 0, content_type), commands.get(key)])
    )
    assert commands.size_of(largest) <= large_calls.CALL_BYTES_MAX <= proposals.PENDING_BYTES_MAX
    # In front of a block a node sends its readers' uses, and an entry travels with a header.
    uses = commands.encode_block(0, 0, 0, [commands.recency([(key, 1000)] * recency.KEYS_MAX)])
    assert proposals.SENT_BYTES_MAX + len(uses) + 4096 <= FRAME_BYTES_MAX
