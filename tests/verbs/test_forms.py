"""Serializers and key prefixes, through all four classes, on one real node."""

from __future__ import annotations

import dataclasses
import datetime
import pickle
from enum import IntEnum
from typing import Any

import cachetools
import pytest
from verbs.four import VALUE_BYTES_MAX, Four

from cacheflow import key_of
from cacheflow.errors import InvalidRequest, NotAnInteger, UnreadableValue, ValueTooLarge
from cacheflow.forms.form import PLAIN, form_of
from cacheflow.forms.serializers import SERIALIZERS
from cacheflow.machine.language.commands import INT64_MAX

PICKLE = "application/x-cacheflow-pickle"


class Colour(IntEnum):
    RED = 1


@dataclasses.dataclass
class Point:
    x: int
    y: tuple[int, ...]


class Refuses:
    """An object that neither goes into a pickle nor says why."""

    def __reduce__(self) -> Any:
        raise Mute

    __slots__ = ()


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


class Bomb:
    """An object whose pickle raises when it is read."""

    def __reduce__(self) -> Any:
        return (int, ("no number",))


PLAIN_VALUES: list[Any] = [None, True, False, 0, -5, INT64_MAX, 1.5, "", "ü€", [1, [None]], {"a": {"b": 2}}]
HOLDS: dict[str, list[Any]] = {
    "json": [*PLAIN_VALUES, 10**30],
    "msgpack": [*PLAIN_VALUES, b"", b"\x00\xff", {1: b"x", None: 2}, 2**64 - 1],
    "pickle": [
        *(*PLAIN_VALUES, b"", b"\x00\xff", (1, 2), {1, 2}, {(1,): 2}, 10**30, Colour.RED, Point(1, (2,)), int),
        datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC),
    ],
}
REFUSES: dict[str, list[Any]] = {
    "json": [b"x", bytearray(b"x"), (1,), {1: 2}, {1}, float("nan"), "\ud800", object()],
    "msgpack": [(1,), {"a": (1,)}, {1}, 2**64, object(), "\ud800", datetime.date(2026, 1, 2), Colour.RED],
    "pickle": [lambda: None, (each for each in "ab"), Refuses(), memoryview(b"x")],
}


@pytest.mark.parametrize("serializer", HOLDS)
def test_what_is_read_is_what_was_set(node: Four, serializer: str) -> None:
    formed = node.formed(form_of(serializer=serializer, key_prefix="s", version=serializer))
    for name in formed.faces:
        formed.call(name, "clear")
        kept = {f"k{number}": value for number, value in enumerate(HOLDS[serializer])}
        formed.call(name, "set_many", kept)
        assert formed.call(name, "get_many", kept) == kept
        assert dict(formed.call(name, "items")) == kept
        for key, value in kept.items():
            found = formed.call(name, "get", key)
            assert (found, type(found)) == (value, type(value))
            assert formed.call(name, "setdefault", key, "another") == value
            assert formed.call(name, "pop", key) == value
            assert formed.call(name, "add", key, value)
            version = formed.call(name, "get_item", key, strict=True).version
            formed.call(name, "compare_and_set", key, value, version=version)
            item = formed.call(name, "get_item", key)
            assert (item.key, item.value, type(item.value)) == (key, value, type(value))
            ops = [{"op": "set", "key": key, "value": value}, {"op": "get", "key": key}]
            answer = formed.call(name, "batch", ops)[1]
            assert (answer["key"], answer["value"]) == (key, value) and "content_type" not in answer
            assert formed.call(name, "setdefault", "new", value) == value
            assert formed.call(name, "pop", "new") == value


@pytest.mark.parametrize("serializer", REFUSES)
def test_what_would_come_back_as_something_else_is_refused_when_it_is_set(node: Four, serializer: str) -> None:
    formed = node.formed(form_of(serializer=serializer))
    node.store.clear()
    for name in formed.faces:
        for value in REFUSES[serializer]:
            with pytest.raises(InvalidRequest):
                formed.call(name, "set", "k", value)
            with pytest.raises(InvalidRequest):
                formed.call(name, "batch", [{"op": "set", "key": "k", "value": value}])
    assert not node.store


@pytest.mark.parametrize("serializer", SERIALIZERS)
def test_a_plain_int_stays_a_number_and_counts(node: Four, serializer: str) -> None:
    formed = node.formed(form_of(serializer=serializer))
    for name in formed.faces:
        formed.call(name, "set", "n", 5)
        assert formed.call(name, "incr", "n") == 6
        # What a counter has answered is a number when it is set again.
        formed.call(name, "set", "m", formed.call(name, "incr", "n"))
        assert (formed.call(name, "get", "m"), formed.call(name, "incr", "m")) == (7, 8)
        assert node.store.get("n") == 7
        formed.call(name, "set", "yes", True)
        with pytest.raises(NotAnInteger):
            formed.call(name, "incr", "yes")


def test_only_bytes_of_the_serializers_own_type_are_read_by_it(node: Four) -> None:
    harmless = pickle.dumps("unpickled")
    node.store.set("typed", harmless, content_type="application/octet-stream")
    node.store.set("other", harmless, content_type=PICKLE + "; v=2")
    node.store.set("bytes", harmless)
    node.store.set("text", "text")
    node.store.set("json", {"a": 1})
    node.formed(form_of(serializer="msgpack")).store.set("packed", [1])
    formed = node.formed(form_of(serializer="pickle"))
    keys = ["typed", "other", "bytes", "text", "json", "packed"]
    for name in formed.faces:
        expected = [harmless, harmless, harmless, "text", {"a": 1}, b"\x91\x01"]
        assert [formed.call(name, "get", key) for key in keys] == expected
        assert formed.call(name, "get_many", keys) == dict(zip(keys, expected, strict=True))
        told = formed.call(name, "batch", [{"op": "get", "key": "typed"}])[0]
        assert (told["value"], told["content_type"]) == (harmless, "application/octet-stream")
        formed.call(name, "set", "mine", b"\x89PNG", content_type="image/png")
        assert formed.call(name, "get", "mine") == b"\x89PNG"
        assert formed.call(name, "get_item", "mine").meta == "image/png"


@pytest.mark.parametrize(
    ("serializer", "data"),
    [
        ("pickle", b""),
        ("pickle", b"\x80\x05no pickle"),
        ("pickle", pickle.dumps([1, 2, 3])[:-3]),
        ("pickle", b"cno.module\nname\n."),
        ("pickle", pickle.dumps(Bomb())),
        ("msgpack", b""),
        ("msgpack", b"\x93\x01"),
        ("msgpack", b"\x01\x02"),
        ("msgpack", b"\x81\x90\x01"),
        ("msgpack", b"\x91" * 5000 + b"\x01"),
    ],
)
def test_a_broken_value_is_told_by_an_error_of_the_tree(node: Four, serializer: str, data: bytes) -> None:
    node.store.set("k", data, content_type=f"application/x-cacheflow-{serializer}")
    formed = node.formed(form_of(serializer=serializer))
    for name in formed.faces:
        for verb, args in (("get", ("k",)), ("get_many", (["k"],)), ("batch", ([{"op": "get", "key": "k"}],))):
            with pytest.raises(UnreadableValue, match=serializer):
                formed.call(name, verb, *args)
        # The item itself can be had, and a new value put in its place.
        item = formed.call(name, "get_item", "k")
        assert (item.data, item.version > 0) == (data, True)
        with pytest.raises(UnreadableValue):
            _ = item.value


def test_a_value_counts_with_the_bytes_that_its_serializer_makes(node: Four) -> None:
    formed = node.formed(form_of(serializer="pickle"))
    for name in formed.faces:
        formed.call(name, "set", "k", "x" * (VALUE_BYTES_MAX - 100))
        with pytest.raises(ValueTooLarge):
            formed.call(name, "set", "k", "x" * VALUE_BYTES_MAX)
        formed.call(name, "set", "k", float("inf"))
        assert formed.call(name, "get", "k") == float("inf")


# Prefixes


def test_a_prefix_keeps_caches_apart(node: Four) -> None:
    node.store.clear()
    forms = [PLAIN, form_of(key_prefix="a"), form_of(key_prefix="b"), form_of(key_prefix="b", version=2)]
    for name in node.faces:
        node.store.clear()
        plain, a, b, b2 = (node.formed(form) for form in forms)
        for number, four in enumerate((a, b, b2)):
            four.call(name, "set", "k", number)
        assert sorted(node.store) == ["a:k", "b:2:k", "b:k"]
        assert [four.call(name, "get", "k") for four in (plain, a, b, b2)] == [None, 0, 1, 2]
        assert a.call(name, "keys") == ["k"] == b2.call(name, "keys")
        assert a.call(name, "keys_page", "k", 10) == (["k"], None)
        assert a.call(name, "keys", "a") == []
        b2.call(name, "clear")
        assert sorted(node.store) == ["a:k", "b:k"]
        a.call(name, "set_many", {"x1": 1, "x2": 2, "y": 3})
        assert a.call(name, "delete_prefix", "x") == 2
        assert sorted(dict(a.call(name, "items"))) == ["k", "y"]
        assert a.call(name, "delete_many", ["y", "gone"]) == 1
        a.call(name, "clear")
        assert sorted(node.store) == ["b:k"]


def test_a_mapping_with_a_prefix_is_a_mapping(node: Four) -> None:
    node.store.clear()
    node.store["a"] = "of others"
    for name in ("ReplicatedStore", "CacheClient"):
        face = node.formed(form_of(key_prefix="p", serializer="pickle")).faces[name]
        face.update(a=(1,), b=2)
        assert (len(face), "a" in face, "z" in face, 5 in face) == (2, True, False, False)
        assert dict(face) == {"a": (1,), "b": 2} and (1,) in face.values()
        assert ("a", (1,)) in face.items() and list(face.keys("b")) == ["b"]
        with pytest.raises(KeyError, match=r"^z$"):
            face["z"]
        assert face.popitem()[0] in ("a", "b") and len(face) == 1
        face.clear()
        assert not face and list(node.store) == ["a"]
        without = node.formed(form_of(serializer="pickle")).faces[name]
        assert len(without) == 1


def test_cachetools_caches_through_a_form(node: Four) -> None:
    for name in ("ReplicatedStore", "CacheClient"):
        face = node.formed(form_of(key_prefix="c", version=name, serializer="pickle")).faces[name]
        calls: list[int] = []

        @cachetools.cached(face, key=key_of(f"squares {name}"))
        def square(number: int, calls: list[int] = calls) -> tuple[int, int]:
            calls.append(number)
            return (number, number * number)

        assert [square(3), square(3), square(4)] == [(3, 9), (3, 9), (4, 16)]
        assert calls == [3, 4]


def test_a_key_that_its_prefix_makes_too_long_is_refused_with_its_length(node: Four) -> None:
    formed = node.formed(form_of(key_prefix="x" * 1000, version=1))
    for name in formed.faces:
        formed.call(name, "set", "k" * 21, 1)
        for verb, args in (
            ("set", ("k" * 22, 1)),
            ("get", ("ü" * 11,)),
            ("get_many", (["k" * 22],)),
            ("delete_prefix", ("k" * 22,)),
            ("batch", ([{"op": "get", "key": "k" * 22}],)),
        ):
            with pytest.raises(InvalidRequest, match=r"has 1025 bytes with the cache's prefix 'xxx"):
                formed.call(name, verb, *args)
        with pytest.raises(InvalidRequest, match=r"^ops\[1\]: "):
            formed.call(name, "batch", [{"op": "get", "key": "k"}, {"op": "get", "key": "k" * 22}])


@pytest.mark.parametrize(
    ("options", "prefix"),
    [
        ({"key_prefix": "app"}, "app:"),
        ({"key_prefix": "app", "version": 1}, "app:1:"),
        ({"version": "2"}, "2:"),
        ({"key_prefix": ""}, ""),
        ({"key_prefix": None, "version": None}, ""),
        ({"key_prefix": "ü", "version": 0}, "ü:0:"),
    ],
)
def test_the_prefix_is_made_of_what_is_given(options: dict[str, Any], prefix: str) -> None:
    assert form_of(**options).prefix == prefix


@pytest.mark.parametrize(
    "options",
    [
        {"serializer": "yaml"},
        {"serializer": 5},
        {"serializer": pickle},
        {"key_prefix": 5},
        {"key_prefix": "a\n"},
        {"key_prefix": "x" * 1025},
        {"key_prefix": "\ud800"},
        {"version": True},
        {"version": 1.5},
        {"version": ""},
    ],
)
def test_a_form_that_is_none_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest):
        form_of(**options)
