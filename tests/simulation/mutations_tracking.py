"""What is promised to those who keep what they have read, taken away: that they are told what has changed since."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from cacheflow.machine.effects import CONDEMNED
from cacheflow.node import tracking
from cacheflow.node.assembly import LocalNode
from cacheflow.node.tracking import Tracking


def note_a_read_after_it_was_answered(patch: pytest.MonkeyPatch) -> None:
    """Note what was read when the next read is answered, whatever has happened to it by then."""
    note = Tracking.note
    late: dict[Tracking, tuple[int, list[str]]] = {}

    def _note(self: Any, number: int, keys: Any) -> None:
        if self in late:
            note(self, *late[self])
        late[self] = number, list(keys)

    patch.setattr(Tracking, "note", _note)


def note_a_late_read_as_it_is_now(patch: pytest.MonkeyPatch) -> None:
    """Note what was read some time ago without a look at what it is now."""
    patch.setattr(Tracking, "note_seen", lambda self, number, seen: self.note(number, [key for key, *_ in seen]))


def compare_no_late_read_under_prefixes(patch: pytest.MonkeyPatch) -> None:
    """Tell a client of prefixes nothing behind an answer that was made some time ago."""
    patch.setattr(Tracking, "_follows", lambda self, number, key: False)


def tell_of_others_before_an_own_write_is_answered(patch: pytest.MonkeyPatch) -> None:
    """Tell at once, before it is answered, what others have changed behind an own write."""

    def _tell_later(self: Any, number: int, message: Any) -> None:
        self._due.append(tracking._Due(message, (), iter((number,)), is_behind=True))
        self._due_keys += 1
        self._schedule()

    patch.setattr(Tracking, "_tell_later", _tell_later)


def compare_no_own_write_under_prefixes(patch: pytest.MonkeyPatch) -> None:
    """Tell a client of prefixes nothing behind its own write that another write has overtaken."""
    wrote = Tracking.wrote

    def _wrote(self: Any, number: int, written: Any) -> None:
        wrote(self, number, written)
        self._answered.clear()

    patch.setattr(Tracking, "wrote", _wrote)


def forget_what_was_noted_first(patch: pytest.MonkeyPatch) -> None:
    """Tell nobody of the keys for which there is no room."""
    note = Tracking.note

    def _note(self: Any, number: int, keys: Any) -> None:
        due = len(self._due)
        note(self, number, keys)
        while len(self._due) > due:
            self._due.pop()
            self._due_keys -= 1

    patch.setattr(Tracking, "note", _note)


def drop_what_is_too_much(patch: pytest.MonkeyPatch) -> None:
    """Tell nobody of the keys of which too many are due."""
    hand_out = Tracking._hand_out

    def _hand_out(self: Any) -> None:
        if self._due_keys > tracking.DUE_MAX:
            self._due.clear()
            self._changed.clear()
            self._due_keys = 0
        hand_out(self)

    patch.setattr(Tracking, "_hand_out", _hand_out)


def keep_everything_over_a_snapshot(patch: pytest.MonkeyPatch) -> None:
    """Tell nobody that a snapshot has taken the place of the contents."""
    _without(patch, LocalNode, "machine_replaced", "forget")


def keep_everything_over_a_restore(patch: pytest.MonkeyPatch) -> None:
    """Tell nobody that a restore has replaced all contents."""
    _without(patch, LocalNode, "applied", "forget")


def keep_what_is_condemned(patch: pytest.MonkeyPatch) -> None:
    """Tell nobody that all keys under a prefix were removed."""
    applied = Tracking.applied
    patch.setattr(
        Tracking, "applied", lambda self, effects: applied(self, [each for each in effects if each[0] != CONDEMNED])
    )


def tell_those_of_no_prefix_alone(patch: pytest.MonkeyPatch) -> None:
    """Tell those who are told of the keys under a prefix nothing of them."""
    follow = Tracking.follow
    patch.setattr(Tracking, "follow", lambda self, number, prefix: follow(self, number, f"{prefix}~" if prefix else ""))


def tell_the_first_alone(patch: pytest.MonkeyPatch) -> None:
    """Tell one of those who have read a key that it has changed."""
    put = Tracking._put

    def _put(self: Any, key: str, version: int, numbers: Any) -> None:
        if isinstance(numbers, set):
            first = min(numbers)
            self._noted -= len(numbers) - 1
            numbers = first
        put(self, key, version, numbers)

    patch.setattr(Tracking, "_put", _put)


def _without(patch: pytest.MonkeyPatch, owner: type, method: str, call: str) -> None:
    """Let ``method`` of a node do all that it does, but for one call of its tracking."""
    real: Callable[..., None] = getattr(owner, method)

    def _method(self: Any, *arguments: Any) -> None:
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(self.tracking, call, lambda: None)
            real(self, *arguments)

    patch.setattr(owner, method, _method)
