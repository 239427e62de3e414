"""Arguments of a wrong kind: refused alike by all four classes, before anything is sent."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import pytest
from verbs.four import VERBS, Four

from cacheflow import verbs
from cacheflow.errors import (
    CacheFlowError,
    InvalidRequest,
)
from cacheflow.forms.form import PLAIN
from cacheflow.store import ReplicatedStore


class Raises:
    """An object that raises whatever is asked of it."""

    def __repr__(self) -> str:
        raise RuntimeError("no repr")

    def __bool__(self) -> bool:
        raise ValueError("no truth")


def nested() -> list[Any]:
    """A list nested so deep that it cannot be printed."""
    deep: list[Any] = []
    for _ in range(3000):
        deep = [deep]
    return deep


def endless() -> list[Any]:
    """A list that holds itself twice."""
    found: list[Any] = []
    found += [found, found]
    return found


ODD: dict[str, Any] = {
    "none": None,
    "number": 7,
    "nan": float("nan"),
    "too long to print": 10**5000,
    "surrogate": "\ud800",
    "control character": "a\nb",
    "empty": "",
    "bytes": b"x",
    "list": ["\ud800"],
    "pairs of three": [(1, 2, 3)],
    "mapping": {"\ud800": 1},
    "mapping of numbers": {1: 2},
    "set": {1},
    "type": int,
    "object": object(),
    "raises": Raises(),
    "nested": nested(),
    "endless": endless(),
    "operations": [{"op": "set", "key": "k", "value": "\ud800"}],
    "operations with odd names": [{"op": "set", "key": "k", "value": 1, None: 2}, {"op": []}],
    "operations with odd members": [{"op": "touch", "key": "k", "ttl": []}],
}
USUAL: dict[str, Any] = {
    "key": "text",
    "value": "v",
    "ttl": 5,
    "keys": ["text"],
    "mapping": {"text": 1},
    "ops": [{"op": "get", "key": "text"}],
    "prefix": "t",
    "version": 1,
    "node_id": "nobody",
}


def calls_with(odd: Any) -> Iterator[tuple[str, tuple[Any, ...], dict[str, Any]]]:
    """Yield a call of each verb but ``close`` for each of its arguments, which is the odd one."""
    for verb in [verb for verb in VERBS if verb != "close"]:
        parameters = list(inspect.signature(getattr(ReplicatedStore, verb)).parameters.values())[1:]
        told = [each for each in parameters if each.kind != each.VAR_KEYWORD]
        for wrong in told:
            given = {each.name: USUAL[each.name] for each in told if each.default is each.empty and each is not wrong}
            given[wrong.name] = odd
            if wrong.name == "max_staleness":
                given["consistency"] = "bounded"
            args = tuple(given.pop(each.name) for each in told if each.kind == each.POSITIONAL_ONLY)
            yield verb, args, given


@pytest.mark.parametrize("name", ODD)
def test_an_odd_argument_is_answered_alike_everywhere_and_by_an_error_of_the_tree(node: Four, name: str) -> None:
    for verb, args, kwargs in calls_with(ODD[name]):
        answers: dict[str, str] = {}
        for face in node.faces:
            node.store["text"] = "old"
            try:
                node.call(face, verb, *args, **kwargs)
                answers[face] = "an answer"
            except CacheFlowError as error:
                answers[face] = type(error).__name__
        assert len(set(answers.values())) == 1, f"{verb} {sorted(kwargs)}: {answers}"


@pytest.mark.parametrize(
    ("verb", "args", "kwargs"),
    [
        ("batch", (None,), {}),
        ("batch", ("ops",), {}),
        ("keys_page", (), {"cursor": "\ud800"}),
        ("keys_page", (), {"cursor": 7}),
        ("get_many", ("text",), {}),
        ("get_many", (None,), {}),
        ("get_many", ([7],), {}),
        ("get_many", (["k"],), {"peek": 1}),
        ("get_many", (["k"],), {"consistency": None}),
        ("delete_many", ("text",), {}),
        ("set_many", ([("k", 1)],), {}),
        ("update", ([1],), {}),
        ("get", ("text",), {"peek": 1}),
        ("get", ("text",), {"peek": None}),
        ("get", ("text",), {"strict": 1}),
        ("set", ("k", endless()), {}),
        ("set", ("k", 1), {"only_if_absent": "no"}),
        ("set", ("k", 1), {"keep_ttl": 0}),
        ("digest", (), {"full": "yes"}),
        ("remove_node", ("\ud800",), {}),
        ("remove_node", (None,), {}),
        ("remove_node", ("",), {}),
        ("promote_node", ("\ud800",), {}),
        ("demote_node", (None,), {}),
    ],
)
def test_an_argument_of_a_wrong_kind_is_refused(
    node: Four, verb: str, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    node.store.clear()
    messages = set()
    for name in node.faces:
        with pytest.raises(InvalidRequest) as refused:
            node.call(name, verb, *args, **kwargs)
        messages.add(str(refused.value))
    assert len(messages) == 1
    assert not node.store, "nothing was written"


def test_what_the_caller_s_own_iterator_raises_is_the_caller_s() -> None:
    def broken() -> Iterator[str]:
        yield "k"
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        next(verbs.delete_many(PLAIN, broken()))
    with pytest.raises(LookupError, match="mine"):
        verbs.keys_to_read(PLAIN, broken(), "local", None, False)
