"""The verbs: the same names, options, refusals and answers in all four classes, on one real node."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
from verbs.four import CLASSES, VALUE_BYTES_MAX, VERBS, Four, comparable, message
from verbs.table import TABLE, VERSION

from cacheflow.client.client import CacheClient
from cacheflow.errors import (
    CacheFlowError,
)
from cacheflow.forms.form import PLAIN, form_of
from cacheflow.opening.formed import AsyncFormedCache, FormedCache
from cacheflow.store import ReplicatedStore

FORMS = {
    "plain": PLAIN,
    "prefix": form_of(key_prefix="app", version=1),
    "msgpack": form_of(serializer="msgpack", key_prefix="m"),
    "pickle": form_of(serializer="pickle"),
}


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_has_one_signature(verb: str) -> None:
    told = {}
    for kind in (*CLASSES, FormedCache, AsyncFormedCache):
        assert hasattr(kind, verb), f"{kind.__name__} has no {verb}"
        parameters = list(inspect.signature(getattr(kind, verb)).parameters.values())
        assert parameters[0].name == "self"
        told[kind.__name__] = [(each.name, each.default, each.kind) for each in parameters[1:]]
        assert inspect.getdoc(getattr(kind, verb)), f"{kind.__name__}.{verb} says nothing of itself"
    assert len({repr(parameters) for parameters in told.values()}) == 1, told


def test_a_bound_verb_shows_its_arguments_to_help() -> None:
    assert list(inspect.signature(CacheClient("http://x").incr).parameters)[:2] == ["key", "delta"]
    assert ReplicatedStore.set.__name__ == "set"


def contents(store: Any) -> list[tuple[Any, ...]]:
    return [comparable(store.get_item(key, peek=True)) for key in store]


def put_version(arguments: Any, version: int) -> Any:
    if arguments is VERSION:
        return version
    if isinstance(arguments, dict):
        return {name: put_version(each, version) for name, each in arguments.items()}
    if isinstance(arguments, (tuple, list)):
        return type(arguments)(put_version(each, version) for each in arguments)
    return arguments


def depends_on_the_form(args: tuple[Any, ...]) -> bool:
    """Whether a row's value is one of those that not every serializer refuses or takes: see test_forms."""
    return len(args) > 1 and (args[1] != args[1] or args[1] == "x" * VALUE_BYTES_MAX)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("verb", "args", "kwargs", "expected"),
    [pytest.param(*row, id=f"{number}-{row[0]}") for number, row in enumerate(TABLE)],
)
def test_a_call_answers_the_same_everywhere(
    node: Four, verb: str, args: tuple[Any, ...], kwargs: dict[str, Any], expected: Any, form: str
) -> None:
    node.store.clear()
    if form != "plain":
        if depends_on_the_form(args):
            pytest.skip("not of this form")
        node.store["of others"] = 1
        node = node.formed(FORMS[form])
    prefix = node.form.prefix
    if verb == "keys_page" and len(args) == 3:
        args = (*args[:2], prefix + args[2])
    messages, left = set(), []
    for number, name in enumerate(node.faces):
        store = node.store
        store.clear()
        store.update({"json": {"a": [1, None]}, "number": 5})
        store.set("bytes", b"\x00\xff", content_type="image/png")
        store.set("short", "s", ttl=60)
        version = store.set("text", "old").version
        told = put_version(kwargs, version)
        if told.get("idempotency_key") == "mine":
            told["idempotency_key"] = f"{form} {verb} {args} {number}"
        elif told.get("idempotency_key") == "used":
            told["idempotency_key"] = f"{form} used {number}"
            store.set("k", 1, idempotency_key=f"{form} used {number}")
        if isinstance(expected, type) and issubclass(expected, CacheFlowError):
            with pytest.raises(CacheFlowError) as refused:
                node.call(name, verb, *put_version(args, version), **told)
            assert type(refused.value) is expected, f"{name}: {refused.value!r}"
            messages.add(message(refused.value))
        else:
            answer = comparable(node.call(name, verb, *put_version(args, version), **told))
            if verb == "keys_page" and answer[1]:
                answer = (answer[0], answer[1].removeprefix(prefix))
            assert answer == expected, name
        left.append(contents(store))
    assert len(messages) <= 1
    assert all(each == left[0] for each in left), "the same was written"


def test_every_verb_is_in_the_table() -> None:
    assert set(VERBS) - {row[0] for row in TABLE} == {"close", "nodes", "status", "watch"}
