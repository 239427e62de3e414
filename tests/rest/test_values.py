"""Values in and out: text, JSON, bytes; what is refused, and how it comes back."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

import pytest
from rest.client import Client
from rest.fake_store import FakeStore

from cacheflow import values
from cacheflow.rest.long_answers import LONG_BYTES_MIN


def put_json(client: Client, body: bytes | str) -> tuple[int, dict[str, Any]]:
    answer = client.put("/cache/k", data=body, content_type="application/json")
    return answer.status_code, answer.json


@pytest.mark.parametrize(
    "value", ["text", "", "Grüße 🙂 \u2028", '"quoted"', None, True, 0, -1.5, 10**30, [], {}, {"b": [1, {"a": None}]}]
)
def test_a_json_value_comes_back_as_it_went(client: Client, value: object) -> None:
    assert put_json(client, json.dumps({"value": value}))[0] == 201
    assert client.get("/cache/k").json["value"] == value


def test_a_json_string_is_text_and_other_json_is_canonical(client: Client, store: FakeStore) -> None:
    put_json(client, '{"value": "é"}')
    assert store.entries["k"][:3] == ("é".encode(), values.TEXT, None)
    put_json(client, '{"value": {"b": 1, "a": [1.0, "\\u00e9"]}}')
    assert store.entries["k"][:3] == ('{"a":[1.0,"é"],"b":1}'.encode(), values.JSON, None)


@pytest.mark.parametrize("content_type", ["application/json; charset=utf-8", "Application/JSON", "application/json ;x"])
def test_parameters_and_case_of_the_json_type_do_not_matter(client: Client, content_type: str) -> None:
    client.put("/cache/k", data=b'{"value": 1}', content_type=content_type)
    assert client.get("/cache/k").json["value"] == 1


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"nonsense",
        b"\xff",
        b'{"value": "\xed\xa0\x80"}',
        '{"value": 1}'.encode("utf-16"),
        '\ufeff{"value": 1}'.encode(),
        b"[1]",
        b'"text"',
        b"null",
        b"{}",
        b'{"ttl": 1}',
        b'{"value": NaN}',
        b'{"value": [Infinity]}',
        b'{"value": -Infinity}',
        b'{"value": 1e999}',
        b'{"value": "\\ud800"}',
        b'{"value": {"\\udfff": 1}}',
        b'{"value": ' + b"9" * 5000 + b"}",
        b'{"value": ' + b"[" * 65 + b"]" * 65 + b"}",
        b'{"value": 1} trailing',
    ],
)
def test_what_is_not_strict_json_with_a_value_is_refused(client: Client, store: FakeStore, body: bytes) -> None:
    status, problem = put_json(client, body)
    assert (status, problem["status"]) == (400, 400)
    assert problem["detail"]
    assert not store.entries


@pytest.mark.parametrize("opening", [b"[", b'{"a":', b'{"value":['])
def test_absurd_nesting_is_refused_quickly(client: Client, opening: bytes) -> None:
    begin = time.monotonic()
    assert put_json(client, opening * 100_000)[0] == 400
    assert put_json(client, b'{"value": ' + b"[" * 100_000 + b"]" * 100_000 + b"}")[0] == 400
    assert client.post("/cache/_batch", data=b"[" * 100_000).status_code == 400
    assert time.monotonic() - begin < 2


def test_64_levels_are_accepted(client: Client) -> None:
    assert put_json(client, b'{"value": ' + b"[" * 64 + b"]" * 64 + b"}")[0] == 201


def test_unknown_fields_are_refused_by_name(client: Client) -> None:
    status, problem = put_json(client, b'{"value": 1, "tttl": 5}')
    assert status == 400
    assert "tttl" in problem["detail"]


def test_of_duplicate_fields_the_last_one_counts(client: Client) -> None:
    put_json(client, b'{"value": 1, "value": 2}')
    assert client.get("/cache/k").json["value"] == 2


def test_any_other_type_is_kept_byte_for_byte(client: Client, store: FakeStore) -> None:
    body = bytes(range(256))
    assert client.put("/cache/k", data=body, content_type="image/png").status_code == 201
    assert store.entries["k"][:3] == (body, values.BYTES, "image/png")
    shown = client.get("/cache/k").json
    assert (shown["encoding"], shown["content_type"]) == ("base64", "image/png")
    assert base64.b64decode(shown["value"]) == body
    raw = client.get("/cache/k?raw")
    assert (raw.data, raw.content_type) == (body, "image/png")


def test_an_empty_body_and_no_type_at_all_are_bytes_too(client: Client) -> None:
    assert client.put("/cache/k").status_code == 201
    assert client.get("/cache/k").json == {"key": "k", "value": "", "encoding": "base64", "ttl": None, "version": 1}
    assert client.get("/cache/k?raw").content_type == "application/octet-stream"


def test_other_types_that_end_in_json_are_values_of_their_own(client: Client) -> None:
    client.put("/cache/k", data=b"not even json", content_type="application/ld+json")
    assert client.get("/cache/k?raw").data == b"not even json"


@pytest.mark.parametrize(
    ("value", "body", "content_type"),
    [
        ("text", b"text", "text/plain; charset=utf-8"),
        ({"a": 1}, b'{"a":1}', "application/json"),
        (7, b"7", "application/json"),
    ],
)
def test_raw_answers_are_the_stored_bytes(client: Client, value: object, body: bytes, content_type: str) -> None:
    client.put("/cache/k", json={"value": value})
    for answer in (client.get("/cache/k?raw"), client.get("/cache/k", headers={"Accept": "application/x-other"})):
        assert (answer.data, answer.headers["Content-Type"]) == (body, content_type)


@pytest.mark.parametrize(
    ("accept", "raw"),
    [
        ("*/*", False),
        ("application/json", False),
        ("application/*", False),
        ("text/html,application/xhtml+xml,*/*;q=0.8", False),
        ("image/*, */*;q=0.1", True),
        ("image/png", True),
        ("text/plain", True),
        ("application/json;q=0, */*", True),
        ("application/json;q=0.5, image/png;q=0.6", True),
    ],
)
def test_the_bytes_are_given_to_who_prefers_their_type(client: Client, accept: str, raw: bool) -> None:
    client.put("/cache/k", data=b"png", content_type="image/png")
    answer = client.get("/cache/k", headers={"Accept": accept})
    assert (answer.data == b"png") is raw
    assert answer.headers["Vary"] == "Accept"


def test_a_stored_page_cannot_run_as_a_part_of_this_origin(client: Client) -> None:
    client.put("/cache/k", data=b"<script>", content_type="text/html")
    answer = client.get("/cache/k", headers={"Accept": "text/html"})
    assert answer.data == b"<script>"
    assert answer.headers["Content-Security-Policy"] == "sandbox"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize("meta", ["text/html\r\nX-Evil: 1", "täxt/plain", "nonsense", 7, None])
def test_a_type_that_cannot_be_a_header_is_shown_as_bytes(
    client: Client, store: FakeStore, meta: str | int | None
) -> None:
    store.entries["k"] = (b"x", values.BYTES, meta, 1, 0)
    answer = client.get("/cache/k?raw")
    assert (answer.data, answer.content_type) == (b"x", "application/octet-stream")


def test_a_value_over_the_limit_is_413(client: Client) -> None:
    assert client.put("/cache/k", data=b"x" * 100_000).status_code == 201
    too_large = client.put("/cache/k", data=b"x" * 100_001)
    assert (too_large.status_code, too_large.content_type) == (413, "application/problem+json")
    assert put_json(client, json.dumps({"value": "x" * 100_000}))[0] == 200
    assert put_json(client, json.dumps({"value": "x" * 100_001}))[0] == 413
    assert put_json(client, json.dumps({"value": ["x" * 100_000]}))[0] == 413
    # 30,000 numbers of four characters, each four times as long in the canonical spelling.
    assert put_json(client, '{"value": [' + ",".join(["1e15"] * 20_000) + "]}")[0] == 413
    batch = client.post("/cache/_batch", json={"ops": [{"op": "set", "key": "k", "value": "x" * 100_001}]})
    assert (batch.status_code, batch.json["index"]) == (413, 0)


def test_a_body_over_the_cap_is_413_without_a_server_in_front(client: Client) -> None:
    answer = client.put("/cache/k", data=b"x" * (16 * 1024 * 1024 + 1))
    assert (answer.status_code, answer.content_type) == (413, "application/problem+json")


@pytest.mark.parametrize("size", [LONG_BYTES_MIN - 1, LONG_BYTES_MIN, 100_000])
def test_long_texts_are_the_same_json_with_and_without_what_it_escapes(
    client: Client, store: FakeStore, size: int
) -> None:
    for odd in ("", "\x00", "\x1f", "\n", '"', "\\", "/", "\x7f", "\u2028", "\U0001f600"):
        text = "x" * (size - len(odd.encode()) - 1) + odd + "y"
        store._put("k", text.encode(), values.TEXT, None, 0)
        answer = client.get("/cache/k")
        assert answer.json["value"] == text
        assert answer.data == json.dumps(answer.json, ensure_ascii=False, separators=(",", ":")).encode()
