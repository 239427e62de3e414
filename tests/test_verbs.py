"""The verbs: the same names, options, refusals and answers in all four classes, on one real node."""

from __future__ import annotations

import asyncio
import functools
import inspect
import math
import re
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from fakes.embedded import Waiting

from cacheflow import verbs
from cacheflow.aio.store import AsyncReplicatedStore
from cacheflow.arguments import TTL_S_MAX, ttl_to_ms
from cacheflow.client.client import AsyncCacheClient, CacheClient
from cacheflow.errors import (
    CacheFlowError,
    IdempotencyKeyReused,
    InvalidRequest,
    KeyNotFound,
    LevelConflict,
    MemberConflict,
    MemberUnknown,
    NotAnInteger,
    PreconditionFailed,
    ValueTooLarge,
)
from cacheflow.forms.form import PLAIN
from cacheflow.machine.deciding import batches
from cacheflow.machine.language import commands
from cacheflow.machine.machine import CacheMachine
from cacheflow.rest import HttpServer, RestConfig, at_once, create_app, turn_away
from cacheflow.results import Digest, IncrResult, Item, SetResult
from cacheflow.store import ReplicatedStore
from cacheflow.verbs import error_of

CLASSES = (ReplicatedStore, AsyncReplicatedStore, CacheClient, AsyncCacheClient)
# What a class has beside the verbs: a node's life and its parts, and where a client's nodes are.
OWN: dict[type, set[str]] = {
    ReplicatedStore: {
        *("handshakes", "on_loop"),
        *("start", "serve", "wait_ready", "run", "submit", "submit_barrier", "barrier"),
        *(
            "lookup",
            "lookup_all",
            "copy_keys",
            "live",
            "count_of",
            "expiring_of",
            "uses_of",
            "unsent",
            "slices",
            "channels",
        ),
        *("now_ms", "told_ms", "read_applied", "position", "metrics", "liveness", "readiness"),
        *("register", "transfer_leadership", "on_loop"),
    },
    CacheClient: {"urls"},
    AsyncCacheClient: {"urls"},
}
VALUE_BYTES_MAX = 100_000
# Stands for the version of "text" in a row's arguments.
VERSION: Any = object()


def own_verbs(kind: type) -> set[str]:
    return {name for name in dir(kind) if not name.startswith("_")} - OWN.get(kind, set())


VERBS = sorted(set().union(*map(own_verbs, CLASSES)))


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_has_one_signature(verb: str) -> None:
    told = {}
    for kind in CLASSES:
        assert hasattr(kind, verb), f"{kind.__name__} has no {verb}"
        parameters = list(inspect.signature(getattr(kind, verb)).parameters.values())
        assert parameters[0].name == "self"
        told[kind.__name__] = [(each.name, each.default, each.kind) for each in parameters[1:]]
        assert inspect.getdoc(getattr(kind, verb)), f"{kind.__name__}.{verb} says nothing of itself"
    assert len({repr(parameters) for parameters in told.values()}) == 1, told


def test_a_bound_verb_shows_its_arguments_to_help() -> None:
    assert list(inspect.signature(CacheClient("http://x").incr).parameters)[:2] == ["key", "delta"]
    assert ReplicatedStore.set.__name__ == "set"


# What the machine answers, as errors and TTLs


@pytest.mark.parametrize(
    ("status", "http_status"),
    [
        (commands.MISSING, 404),
        (commands.PRECONDITION, 412),
        (commands.NOT_AN_INTEGER, 409),
        (commands.TOO_LARGE, 413),
        (commands.MALFORMED, 400),
        (commands.KEY_REUSED, 422),
        (commands.OUT_OF_ORDER, 500),
    ],
)
def test_every_status_of_the_machine_has_its_error(status: int, http_status: int) -> None:
    assert error_of("k", [status, 7]).http_status == http_status


def test_a_failed_precondition_tells_the_present_version() -> None:
    error = error_of("k", [commands.PRECONDITION, 7])
    assert isinstance(error, PreconditionFailed)
    assert error.version == 7
    assert "absent" in str(error_of("k", [commands.PRECONDITION, 0]))


def test_a_ttl_is_at_least_a_millisecond_and_at_most_ten_years() -> None:
    assert ttl_to_ms(None) == commands.TTL_NONE
    assert ttl_to_ms(0.0001) == 1
    assert ttl_to_ms(1.5) == 1500
    assert ttl_to_ms(TTL_S_MAX) < commands.TTL_MS_MAX
    for wrong in (0, -1, True, float("nan"), float("inf"), TTL_S_MAX + 1, "5"):
        with pytest.raises(InvalidRequest):
            ttl_to_ms(wrong)  # type: ignore[arg-type]


# One node, four classes


@dataclass
class Four:
    """One node and what reaches it. call: a verb of a class, with whatever it answers collected."""

    store: ReplicatedStore
    faces: dict[str, Any]
    runner: asyncio.Runner

    def call(self, name: str, verb: str, *args: Any, **kwargs: Any) -> Any:
        async def collected(answer: Any) -> Any:
            if isinstance(answer, AsyncIterator):
                return [each async for each in answer]
            return await answer

        answer = getattr(self.faces[name], verb)(*args, **kwargs)
        if name.startswith("Async"):
            return self.runner.run(collected(answer))
        return list(answer) if verb in ("keys", "values", "items") else answer


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Four]:
    with asyncio.Runner() as runner:
        twin = AsyncReplicatedStore(
            node_id="a",
            raft_address="127.0.0.1:0",
            bootstrap=True,
            data_dir=tmp_path_factory.mktemp("verbs"),
            max_items=5000,
            max_value_bytes=VALUE_BYTES_MAX,
            fsync="never",
        )
        store = twin.store
        rest = RestConfig(max_value_bytes=VALUE_BYTES_MAX, threads=8)
        app = create_app(store, rest)
        http = HttpServer(
            app,
            "127.0.0.1",
            0,
            threads=rest.threads,
            body_bytes_max=rest.body_bytes_max,
            refusal_headers=app.services.raft_headers,
            turn_away=functools.partial(turn_away, app.services),
            at_once=at_once,
        )
        runner.run(twin.__aenter__())
        http.start()
        url = f"http://127.0.0.1:{http.port}"
        client, async_client = CacheClient(url), AsyncCacheClient(url)
        faces = {type(face).__name__: face for face in (store, twin, client, async_client)}
        try:
            yield Four(store, faces, runner)
        finally:
            client.close()
            runner.run(async_client.close())
            http.stop()
            runner.run(twin.close())


# (verb, positional arguments, keywords, the answer or the error's type)
TABLE: list[tuple[str, tuple[Any, ...], dict[str, Any], Any]] = [
    ("get", ("text",), {}, "old"),
    ("get", ("json",), {}, {"a": [1, None]}),
    ("get", ("bytes",), {"consistency": "linearizable"}, b"\x00\xff"),
    ("get", ("absent",), {}, None),
    ("get", ("absent", "gone"), {"strict": True}, "gone"),
    ("get", ("text",), {"consistency": "bounded", "max_staleness": 60}, "old"),
    ("get", ("text",), {"consistency": "bounded"}, InvalidRequest),
    ("get", ("text",), {"max_staleness": 1}, InvalidRequest),
    ("get", ("text",), {"consistency": "bounded", "max_staleness": 0}, InvalidRequest),
    ("get", ("text",), {"consistency": "linearizable", "max_staleness": 1.0}, InvalidRequest),
    ("get", ("text",), {"consistency": "eventual"}, InvalidRequest),
    ("get", ("text",), {"peek": True, "strict": True}, InvalidRequest),
    ("get", ("",), {}, InvalidRequest),
    ("get", ("a\nb",), {"peek": True}, InvalidRequest),
    ("get_item", ("text",), {"peek": True}, ("text", b"old", None, None)),
    ("get_item", ("bytes",), {"strict": True}, ("bytes", b"\x00\xff", "image/png", None)),
    ("get_item", ("short",), {}, ("short", b"s", None, 60)),
    ("get_item", ("short",), {"strict": True}, ("short", b"s", None, 60)),
    ("get_item", ("absent",), {"consistency": "linearizable"}, None),
    ("get_item", ("x" * 1025,), {"strict": True}, InvalidRequest),
    ("get_item", ("",), {"consistency": "linearizable"}, InvalidRequest),
    ("get_many", (["text", "absent", "bytes"],), {}, {"text": "old", "bytes": b"\x00\xff"}),
    ("get_many", ([],), {}, {}),
    ("get_many", (["text", ""],), {}, InvalidRequest),
    ("keys", (), {}, ["bytes", "json", "number", "short", "text"]),
    ("keys", ("t",), {}, ["text"]),
    ("keys", ("\n",), {}, InvalidRequest),
    ("keys_page", ("", 2), {}, (["bytes", "json"], "json")),
    ("keys_page", ("", 2, "number"), {}, (["short", "text"], None)),
    ("keys_page", ("", 0), {}, InvalidRequest),
    ("values", (), {}, [b"\x00\xff", {"a": [1, None]}, 5, "s", "old"]),
    (
        "items",
        (),
        {},
        [("bytes", b"\x00\xff"), ("json", {"a": [1, None]}), ("number", 5), ("short", "s"), ("text", "old")],
    ),
    ("set", ("new", 1), {}, ("set", True, None)),
    ("set", ("text", "new"), {"ttl": 60}, ("set", False, 60)),
    ("set", ("short", b"new"), {"keep_ttl": True}, ("set", False, 60)),
    ("set", ("short", "new"), {"keep_ttl": True}, ("set", False, 60)),
    ("set", ("k", b"\x01"), {"content_type": "image/png", "ttl": 60}, ("set", True, 60)),
    ("set", ("k", "text"), {"content_type": "image/png"}, InvalidRequest),
    ("set", ("k", b"{}"), {"content_type": "application/json"}, InvalidRequest),
    ("set", ("k", b"x"), {"content_type": "a\nb"}, InvalidRequest),
    ("set", ("k", 1), {"ttl": 5, "keep_ttl": True}, InvalidRequest),
    ("set", ("k", 1), {"ttl": 0}, InvalidRequest),
    ("set", ("k", 1), {"ttl": "5"}, InvalidRequest),
    ("set", ("k", 1), {"only_if_absent": True, "only_if_version": 1}, InvalidRequest),
    ("set", ("k", 1), {"only_if_version": 0}, InvalidRequest),
    ("set", ("text", 1), {"only_if_version": VERSION}, ("set", False, None)),
    ("set", ("json", 1), {"only_if_version": VERSION}, PreconditionFailed),
    ("set", ("absent", 1), {"only_if_version": VERSION}, PreconditionFailed),
    ("set", ("text", 1), {"only_if_absent": True}, PreconditionFailed),
    ("set", ("k", "x" * (VALUE_BYTES_MAX + 1)), {}, ValueTooLarge),
    ("set", ("k", b"x" * (VALUE_BYTES_MAX + 1)), {}, ValueTooLarge),
    ("set", ("k", "x" * VALUE_BYTES_MAX), {}, ("set", True, None)),
    ("set", ("k", float("nan")), {}, InvalidRequest),
    ("set", ("k", 1), {"idempotency_key": ""}, InvalidRequest),
    ("set", ("k", 1), {"idempotency_key": " a"}, InvalidRequest),
    ("set", ("k", 1), {"idempotency_key": "a "}, InvalidRequest),
    ("set", ("k", 1), {"idempotency_key": "ü"}, InvalidRequest),
    ("set", ("k", 1), {"idempotency_key": "mine"}, ("set", True, None)),
    ("set", ("k", 2), {"idempotency_key": "used"}, IdempotencyKeyReused),
    ("set", ("", 1), {}, InvalidRequest),
    ("add", ("k", 1), {"ttl": 60}, True),
    ("add", ("text", 1), {}, False),
    ("add", ("k", 1), {"ttl": -1}, InvalidRequest),
    ("compare_and_set", ("text", "new"), {"version": VERSION}, ("set", False, None)),
    ("compare_and_set", ("number", "new"), {"version": VERSION}, PreconditionFailed),
    ("compare_and_set", ("text", "new"), {"version": 0}, InvalidRequest),
    ("compare_and_set", ("text", "new"), {"version": None}, InvalidRequest),
    ("delete", ("text",), {}, True),
    ("delete", ("absent",), {}, False),
    ("delete", ("text",), {"only_if_version": VERSION}, True),
    ("delete", ("json",), {"only_if_version": VERSION}, PreconditionFailed),
    ("delete", ("absent",), {"only_if_version": VERSION}, PreconditionFailed),
    ("delete", ("text",), {"only_if_version": 0}, InvalidRequest),
    ("delete", ("text",), {"idempotency_key": "mine"}, True),
    ("incr", ("number",), {}, ("incr", 6, None)),
    ("incr", ("number", -7), {}, ("incr", -2, None)),
    ("incr", ("new",), {"initial": 10, "ttl": 60}, ("incr", 11, 60)),
    ("incr", ("absent",), {}, KeyNotFound),
    ("incr", ("text",), {}, NotAnInteger),
    ("incr", ("number", 2**63), {}, InvalidRequest),
    ("incr", ("number", True), {}, InvalidRequest),
    ("incr", ("number",), {"initial": 2**63}, InvalidRequest),
    ("decr", ("number", 2), {}, ("incr", 3, None)),
    ("decr", ("new",), {"initial": 0, "idempotency_key": "mine"}, ("incr", -1, None)),
    ("decr", ("number", "1"), {}, InvalidRequest),
    ("touch", ("text", 60), {}, True),
    ("touch", ("short", None), {}, True),
    ("touch", ("absent", 60), {"idempotency_key": "mine"}, False),
    ("touch", ("text", 0), {}, InvalidRequest),
    ("persist", ("short",), {}, True),
    ("persist", ("absent",), {}, False),
    (
        "batch",
        (
            [
                {"op": "set", "key": "b", "value": b"\xff", "content_type": "image/png"},
                {"op": "get", "key": "b"},
                {"op": "get", "key": "json"},
                {"op": "get", "key": "absent"},
                {"op": "incr", "key": "number", "delta": 2},
                {"op": "incr", "key": "text"},
                {"op": "add", "key": "text", "value": 1},
                {"op": "cas", "key": "text", "value": 1, "version": VERSION, "ttl": 5},
                {"op": "touch", "key": "text", "ttl": None},
                {"op": "delete", "key": "json"},
                {"op": "set", "key": "short", "value": "t", "keep_ttl": True},
            ],
        ),
        {},
        [
            {"status": 201, "key": "b", "version": True},
            {"status": 200, "key": "b", "value": b"\xff", "content_type": "image/png", "version": True},
            {"status": 200, "key": "json", "value": {"a": [1, None]}, "version": True},
            {"status": 404, "key": "absent", "detail": "the key is absent"},
            {"status": 200, "key": "number", "value": 7, "version": True},
            {"status": 409, "key": "text", "detail": "the value is not a decimal 64-bit integer"},
            {"status": 412, "key": "text", "detail": "the key is at version N", "version": True},
            {"status": 200, "key": "text", "version": True},
            {"status": 200, "key": "text", "version": True},
            {"status": 200, "key": "json", "deleted": True, "version": True},
            {"status": 200, "key": "short", "version": True},
        ],
    ),
    (
        "batch",
        ([{"op": "add", "key": "new", "value": 1}, {"op": "incr", "key": "absent"}],),
        {"atomic": True},
        KeyNotFound,
    ),
    (
        "batch",
        ([{"op": "set", "key": "n", "value": 1}, {"op": "add", "key": "text", "value": 1}],),
        {"atomic": True},
        PreconditionFailed,
    ),
    (
        "batch",
        ([{"op": "set", "key": "n", "value": 1}, {"op": "incr", "key": "text"}],),
        {"atomic": True},
        NotAnInteger,
    ),
    ("batch", ([],), {}, InvalidRequest),
    ("batch", ([{"op": "set", "key": "k"}],), {}, InvalidRequest),
    ("batch", ([{"op": "drop", "key": "k"}],), {}, InvalidRequest),
    ("batch", ([{"op": "set", "key": "k", "value": 1, "tll": 5}],), {}, InvalidRequest),
    ("batch", ([{"op": "set", "key": "k", "value": 1, "ttl": 5, "keep_ttl": True}],), {}, InvalidRequest),
    ("batch", ([{"op": "cas", "key": "k", "value": 1, "version": 0}],), {}, InvalidRequest),
    ("batch", ([{"op": "set", "key": "k", "value": b"x" * (VALUE_BYTES_MAX + 1)}],), {}, ValueTooLarge),
    ("batch", ([{"op": "get", "key": "k"}] * 10_001,), {}, InvalidRequest),
    ("set_many", ({"text": "new", "k": b"1"},), {"ttl": 60}, None),
    ("set_many", ({"k": 1, "": 2},), {}, InvalidRequest),
    ("set_many", ({"k": 1, "l": "x" * (VALUE_BYTES_MAX + 1)},), {}, ValueTooLarge),
    ("update", ({"text": "new"},), {"k": 1}, None),
    ("update", ([("text", "new"), ("self", 2)],), {"other": 3}, None),
    ("update", (), {}, None),
    ("delete_many", (["text", "absent", "json"],), {}, 2),
    ("delete_many", (["text", "a\nb"],), {}, InvalidRequest),
    ("delete_prefix", ("t",), {}, 1),
    ("delete_prefix", ("absent",), {"idempotency_key": "mine"}, 0),
    ("delete_prefix", ("",), {}, InvalidRequest),
    ("clear", (), {}, None),
    ("pop", ("json",), {}, {"a": [1, None]}),
    ("pop", ("bytes", "gone"), {}, b"\x00\xff"),
    ("pop", ("absent", None), {}, None),
    ("pop", ("absent",), {}, KeyNotFound),
    ("pop", ("", 1), {}, InvalidRequest),
    ("popitem", (), {}, ("bytes", b"\x00\xff")),
    ("setdefault", ("text", "new"), {}, "old"),
    ("setdefault", ("new", [1]), {}, [1]),
    ("setdefault", ("new",), {}, None),
    ("setdefault", ("new", "x" * (VALUE_BYTES_MAX + 1)), {}, ValueTooLarge),
    ("digest", (), {"index": 10**9}, None),
    ("digest", (), {"index": 1, "full": True}, InvalidRequest),
    ("digest", (), {"index": -1}, InvalidRequest),
    ("digest", (), {"full": True}, Digest),
    ("remove_node", ("nobody",), {}, MemberUnknown),
    ("remove_node", ("a",), {}, MemberConflict),
    ("raise_level", (1,), {}, 1),
    ("raise_level", (2,), {}, LevelConflict),
    ("raise_level", (0,), {}, InvalidRequest),
    ("raise_level", ("1",), {}, InvalidRequest),
]


def comparable(answer: Any) -> Any:
    """An answer without what differs from call to call: versions, and the seconds that a TTL has lost."""
    if isinstance(answer, SetResult):
        return ("set", answer.created, answer.ttl_s and 10 * math.ceil(answer.ttl_s / 10))
    if isinstance(answer, IncrResult):
        assert answer.version > 0
        return ("incr", int(answer), answer.ttl_s and 10 * math.ceil(answer.ttl_s / 10))
    if isinstance(answer, Item):
        assert answer.version > 0
        return (answer.key, answer.data, answer.meta, answer.ttl_s and 10 * math.ceil(answer.ttl_s / 10))
    if isinstance(answer, Digest):
        return Digest
    if isinstance(answer, list) and answer and isinstance(answer[0], dict):
        changing: dict[str, Callable[[Any], Any]] = {"version": lambda version: version > 0, "detail": message}
        return [{name: changing.get(name, lambda each: each)(each) for name, each in one.items()} for one in answer]
    return answer


def message(error: object) -> str:
    return re.sub(r"version \d+", "version N", str(error))


def contents(store: ReplicatedStore) -> list[tuple[Any, ...]]:
    return [comparable(store.get_item(key, peek=True)) for key in store]


def put_version(arguments: Any, version: int) -> Any:
    if arguments is VERSION:
        return version
    if isinstance(arguments, dict):
        return {name: put_version(each, version) for name, each in arguments.items()}
    if isinstance(arguments, (tuple, list)):
        return type(arguments)(put_version(each, version) for each in arguments)
    return arguments


@pytest.mark.parametrize(
    ("verb", "args", "kwargs", "expected"),
    [pytest.param(*row, id=f"{number}-{row[0]}") for number, row in enumerate(TABLE)],
)
def test_a_call_answers_the_same_everywhere(
    node: Four, verb: str, args: tuple[Any, ...], kwargs: dict[str, Any], expected: Any
) -> None:
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
            told["idempotency_key"] = f"{verb} {args} {number}"
        elif told.get("idempotency_key") == "used":
            told["idempotency_key"] = f"used {number}"
            store.set("k", 1, idempotency_key=f"used {number}")
        if isinstance(expected, type) and issubclass(expected, CacheFlowError):
            with pytest.raises(CacheFlowError) as refused:
                node.call(name, verb, *put_version(args, version), **told)
            assert type(refused.value) is expected, f"{name}: {refused.value!r}"
            messages.add(message(refused.value))
        else:
            answer = comparable(node.call(name, verb, *put_version(args, version), **told))
            assert answer == expected, name
        left.append(contents(store))
    assert len(messages) <= 1
    assert all(each == left[0] for each in left), "the same was written"


# Arguments of a wrong kind


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
    """Yield a call of each verb for each of its arguments, which is the odd one."""
    for verb in VERBS:
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
        answers = {}
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

    for verb in (verbs.get_many, verbs.delete_many):
        with pytest.raises(LookupError, match="mine"):
            next(verb(PLAIN, broken()))


def test_every_verb_is_in_the_table() -> None:
    assert set(VERBS) - {row[0] for row in TABLE} == {"close", "nodes", "status"}


def test_the_cluster_is_the_same_from_everywhere(node: Four) -> None:
    rows = [node.call(name, "nodes") for name in node.faces]
    assert all([row["id"] for row in each] == ["a"] for each in rows)
    assert {node.call(name, "status")["leader"] for name in node.faces} == {"a"}


@pytest.mark.parametrize("name", ["ReplicatedStore", "CacheClient"])
def test_of_many_threads_that_pop_a_key_one_gets_it(node: Four, name: str) -> None:
    node.store.clear()
    face = node.faces[name]
    keys = [f"k{number}" for number in range(20)]
    face.update({key: key for key in keys})
    calls = [Waiting(lambda: [face.pop(key, None) for key in keys]) for _ in range(6)]
    assert [call.end() for call in calls] == [None] * 6
    assert sorted(value for call in calls for value in call.result if value is not None) == sorted(keys)
    assert not face


@pytest.mark.parametrize("name", ["ReplicatedStore", "CacheClient"])
def test_of_many_threads_that_set_a_default_all_get_one(node: Four, name: str) -> None:
    node.store.clear()
    face = node.faces[name]
    calls = [
        Waiting(lambda number=number: [face.setdefault(f"k{step}", number) for step in range(10)])  # type: ignore[misc]
        for number in range(6)
    ]
    assert [call.end() for call in calls] == [None] * 6
    assert [call.result for call in calls] == [[face[f"k{step}"] for step in range(10)]] * 6


@pytest.mark.parametrize("name", ["ReplicatedStore", "AsyncReplicatedStore", "CacheClient", "AsyncCacheClient"])
def test_an_update_is_one_entry_up_to_the_limits_of_a_batch(node: Four, name: str) -> None:
    node.store.clear()
    index = node.store.position().index
    node.call(name, "update", {f"k{number}": number for number in range(verbs.BATCH_OPS_MAX)}, more=1)
    assert node.store.position().index == index + 2
    node.call(name, "update", {f"k{number}": "x" * (verbs.BATCH_BYTES_MAX // 8 - 80) for number in range(8)})
    assert node.store.position().index == index + 3
    assert node.call(name, "delete_many", [*node.store, "absent"]) == verbs.BATCH_OPS_MAX + 1
    assert node.store.position().index == index + 5


@pytest.mark.parametrize("name", ["ReplicatedStore", "CacheClient"])
def test_views_go_on_when_keys_vanish(node: Four, name: str) -> None:
    face = node.faces[name]
    node.store.clear()
    for view, first in ((face.items(), ("k0", 0)), (face.values(), 0)):
        face.update({f"k{number}": number for number in range(9)})
        found = []
        for each in view:
            found.append(each)
            node.store.clear()
        assert found == [first]
        assert list(view) == [] and len(view) == 0
    face["k"] = "there"
    assert "there" in face.values() and "k" in face.keys() and ("k", "there") in face.items()  # noqa: SIM118
    assert None not in face.values() and ("other", "there") not in face.items()


@pytest.mark.parametrize("name", ["ReplicatedStore", "CacheClient"])
def test_looking_at_a_view_is_no_use(node: Four, name: str) -> None:
    node.store.clear()
    node.store.update({"a": 1, "b": 2})
    before = len(node.store._engine.local.uses.noted)
    assert dict(node.faces[name].items()) == {"a": 1, "b": 2} and "a" in node.faces[name]
    assert len(node.store._engine.local.uses.noted) <= before


def test_asynchronous_iteration_goes_on_when_keys_vanish(node: Four) -> None:
    async def found(face: Any) -> list[Any]:
        await face.clear()
        await face.update({f"k{number}": number for number in range(9)})
        pairs = []
        async for pair in face.items():
            pairs.append(pair)
            await face.clear()
        assert [key async for key in face] == []
        return pairs

    for name in ("AsyncReplicatedStore", "AsyncCacheClient"):
        assert node.runner.run(found(node.faces[name])) == [("k0", 0)]


def test_an_empty_cache_has_no_item_to_pop(node: Four) -> None:
    for name in node.faces:
        node.store.clear()
        with pytest.raises(KeyNotFound):
            node.call(name, "popitem")


def test_a_key_that_has_vanished_is_not_what_popitem_takes(node: Four, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (["gone", "a"], None)

    async def later(*_: object) -> object:
        return page

    for name, face in node.faces.items():
        node.store.clear()
        node.store["a"] = 1
        monkeypatch.setattr(face, "keys_page", later if name.startswith("Async") else lambda *_: page)
        assert node.call(name, "popitem") == ("a", 1)


def test_threads_that_pop_items_get_each_once(node: Four) -> None:
    node.store.clear()
    node.store.update({f"k{number}": number for number in range(40)})
    taken: list[int] = []

    def take() -> None:
        while True:
            try:
                taken.append(node.store.popitem()[1])
            except KeyNotFound:
                return

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == list(range(40))


def test_get_many_asks_again_for_what_was_too_much_for_one_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "READ_PER_BATCH_BYTES_MAX", 300)
    machine = CacheMachine()

    def apply(command: commands.Command) -> commands.Result:
        payload = commands.encode_entry(1, [commands.encode_block(0, 0, 0, [command])])
        return machine.apply(machine.applied_index + 1, payload)[0][2][0]

    keys = [f"k{number}" for number in range(6)]
    for key in keys:
        apply(commands.set_(key, b"x" * 100, 0))
    steps = verbs.get_many(PLAIN, [*keys, "absent"])
    asked = []
    with pytest.raises(StopIteration) as end:
        command = next(steps)
        while True:
            asked.append(len(command[2]))
            command = steps.send((apply(command), 0))
    assert end.value.value == dict.fromkeys(keys, "x" * 100)
    assert asked == [7, 5, 4, 3, 2, 1]
    # One that is too large by itself is no answer, and no key that is absent.
    apply(commands.set_("large", bytes(400), 0))
    steps = verbs.get_many(PLAIN, ["large"])
    with pytest.raises(ValueTooLarge):
        steps.send((apply(next(steps)), 0))
