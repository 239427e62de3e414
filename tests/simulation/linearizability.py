"""The check whether the history of one key could have come from one copy of it (Wing and Gong's search with Lowe's memory).

The search takes operations one by one, each time any that began before the first end of those not yet taken, and
remembers which (taken, state) it has seen. What has no known outcome may be taken at any time after it began, or never.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import inf
from typing import Any

# The most (taken, state) pairs that are looked at before a history counts as undecided.
STEPS_MAX = 300_000

Value = bytes | None


@dataclass(slots=True)
class Operation:
    """One call on one key.

    kind: set, delete, cas, get.  ended: inf when its outcome is unknown.  argument: what it writes (set), expects and
    writes (cas).  result: what it told: get a value or None, delete whether there was something, cas whether it wrote.
    """

    kind: str
    began: float
    ended: float
    argument: Any = None
    result: Any = None

    @property
    def known(self) -> bool:
        """True if the operation was answered."""
        return self.ended != inf


# (state, operation) -> whether it may happen there, and the state after it.
Advance = Callable[[Value, Operation], tuple[bool, Value]]


def step(state: Value, operation: Operation) -> tuple[bool, Value]:
    """Return whether ``operation`` may happen in ``state``, and the state after it."""
    kind = operation.kind
    if kind == "set":
        return True, operation.argument
    if kind == "get":
        return operation.result == state, state
    if kind == "delete":
        return not operation.known or operation.result == (state is not None), None
    expected, value = operation.argument
    wrote = state == expected
    if operation.known and operation.result != wrote:
        return False, state
    return True, value if wrote else state


def check(history: Sequence[Operation], initial: Value = None, advance: Advance = step) -> str:
    """Return whether the history is linearizable: "ok", "wrong" or "undecided"."""
    observed = {operation.result for operation in history if operation.kind == "get"}
    observed |= {operation.argument[0] for operation in history if operation.kind == "cas"}
    # Most writes without an outcome never show: first without those, and without all that only removed something.
    likely = [
        operation
        for operation in history
        if operation.known or _written(operation) in observed or operation.kind == "delete"
    ]
    if _search(_without_removals(likely), initial, advance) == "ok" or _repaired(history, likely, initial, advance):
        return "ok"
    if _search(likely, initial, advance) == "ok":
        return "ok"
    return _search(list(history), initial, advance)


def _without_removals(history: Sequence[Operation]) -> list[Operation]:
    """Return a history without the removals of unknown outcome; a prefix delete is a set of nothing."""
    return [
        operation
        for operation in history
        if operation.known or (operation.kind != "delete" and _written(operation) is not None)
    ]


def _repaired(history: Sequence[Operation], likely: list[Operation], initial: Value, advance: Advance) -> bool:
    """Return whether the history is linearizable with some of the writes of unknown outcome.

    Where it first fails, the latest such write that mends it is taken.

    A write that no read saw may still be what a delete removed; trying all of them together takes for ever.
    """
    chosen = _without_removals(likely)
    rest = [operation for operation in history if not operation.known and operation.kind != "get"]
    rest = sorted([operation for operation in rest if operation not in chosen], key=lambda operation: -operation.began)
    moments = sorted({operation.ended for operation in history if operation.known})

    def holds_until(moment: float, operations: list[Operation]) -> bool:
        seen = [
            operation if operation.ended <= moment else replace(operation, ended=inf)
            for operation in operations
            if operation.began < moment and (operation.ended <= moment or operation.kind != "get")
        ]
        return _search(seen, initial, advance) == "ok"

    while True:
        first_bad = bisect_left(moments, True, key=lambda moment: not holds_until(moment, chosen))
        if first_bad == len(moments):
            return True
        moment = moments[first_bad]
        helps = next((one for one in rest if one.began < moment and holds_until(moment, [*chosen, one])), None)
        if helps is None:
            return False
        chosen.append(helps)
        rest.remove(helps)


def _written(operation: Operation) -> Value:
    value: Value = operation.argument[1] if operation.kind == "cas" else operation.argument
    return value


def _search(operations: list[Operation], initial: Value, advance: Advance) -> str:
    operations.sort(key=lambda operation: operation.began)
    count = len(operations)
    began = [operation.began for operation in operations]
    ended = [operation.ended for operation in operations]
    must = sum(1 << position for position in range(count) if operations[position].known)
    seen: set[tuple[int, Value]] = set()
    # taken: a bit for each operation; first: none before this position is untaken.
    stack: list[tuple[int, int, Value]] = [(0, 0, initial)]
    steps = 0
    while stack:
        taken, first, state = stack.pop()
        if taken & must == must:
            return "ok"
        while taken >> first & 1:
            first += 1
        deadline = inf
        candidates = []
        for position in range(first, count):
            if began[position] > deadline:
                break
            if not taken >> position & 1:
                candidates.append(position)
                deadline = min(deadline, ended[position])
        # What ends first is tried first, what has no outcome last: the stack is taken from its end.
        candidates.sort(key=lambda position: -ended[position])
        for position in candidates:
            if began[position] > deadline:
                continue
            possible, after = advance(state, operations[position])
            if possible:
                configuration = (taken | 1 << position, after)
                if configuration not in seen:
                    seen.add(configuration)
                    stack.append((configuration[0], first, after))
        steps += 1
        if steps > STEPS_MAX:
            return "undecided"
    return "wrong"
