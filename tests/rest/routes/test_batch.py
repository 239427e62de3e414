"""``POST /cache/_batch``."""

from __future__ import annotations

import json
from typing import Any

import pytest
from rest.client import Client
from rest.fake_store import FakeStore

from cacheflow.errors import NoLeader, NotReady
from cacheflow.rest.routes import batch as batch_module


def run(client: Client, *ops: Any, **members: Any) -> Any:
    answer = client.post("/cache/_batch", json={"ops": ops, **members})
    assert answer.status_code == 200, answer.json
    return answer.json["results"]


def test_every_operation_in_one_entry(client: Client, store: FakeStore) -> None:
    results = run(
        client,
        {"op": "set", "key": "a", "value": "text"},
        {"op": "set", "key": "a", "value": {"b": [1]}, "ttl": 5},
        {"op": "get", "key": "a"},
        {"op": "add", "key": "a", "value": 1},
        {"op": "add", "key": "b", "value": 1},
        {"op": "cas", "key": "a", "value": 2, "version": 2},
        {"op": "cas", "key": "a", "value": 2, "version": 2},
        {"op": "incr", "key": "b", "delta": 4},
        {"op": "incr", "key": "c"},
        {"op": "incr", "key": "c", "initial": 10, "delta": -1, "ttl": 3},
        {"op": "touch", "key": "a", "ttl": None},
        {"op": "touch", "key": "nobody", "ttl": 1},
        {"op": "delete", "key": "a", "version": 3},
        {"op": "delete", "key": "a", "version": 4},
        {"op": "delete", "key": "a"},
        {"op": "delete", "key": "a", "version": 4},
        {"op": "get", "key": "a"},
    )
    assert store.entries_logged == 1
    assert results == [
        {"status": 201, "key": "a", "version": 1},
        {"status": 200, "key": "a", "version": 2},
        {"status": 200, "key": "a", "value": {"b": [1]}, "version": 2},
        {"status": 412, "key": "a", "detail": "the key is at version 2", "version": 2},
        {"status": 201, "key": "b", "version": 3},
        {"status": 200, "key": "a", "version": 4},
        {"status": 412, "key": "a", "detail": "the key is at version 4", "version": 4},
        {"status": 200, "key": "b", "value": 5, "version": 5},
        {"status": 404, "key": "c", "detail": "the key is absent"},
        {"status": 200, "key": "c", "value": 9, "version": 6},
        {"status": 200, "key": "a", "version": 4},
        {"status": 404, "key": "nobody", "detail": "the key is absent"},
        {"status": 412, "key": "a", "detail": "the key is at version 4", "version": 4},
        {"status": 200, "key": "a", "deleted": True, "version": 7},
        {"status": 404, "key": "a", "detail": "the key is absent"},
        {"status": 412, "key": "a", "detail": "the key is absent", "version": 0},
        {"status": 404, "key": "a", "detail": "the key is absent"},
    ]


READS = {"ops": [{"op": "get", "key": "a"}, {"op": "get", "key": "absent"}]}
READ = [
    {"status": 200, "key": "a", "value": "ä", "version": 1},
    {"status": 404, "key": "absent", "detail": "the key is absent"},
]


@pytest.mark.parametrize("atomic", [False, True])
def test_reads_alone_are_read_from_memory(client: Client, store: FakeStore, atomic: bool) -> None:
    client.put("/cache/a", json={"value": "ä"})
    store.failure = NoLeader("nobody leads")
    assert run(client, *READS["ops"], atomic=atomic) == READ
    assert store.entries_logged == 1


@pytest.mark.parametrize(
    ("query", "asked"),
    [
        ("", {}),
        ("?consistency=local", {}),
        ("?peek", {"peek": True}),
        ("?consistency=bounded&max_staleness=0.5", {"max_staleness": 0.5}),
        ("?max_staleness=3&peek=true", {"max_staleness": 3.0, "peek": True}),
        ("?consistency=linearizable", {"applied": True}),
    ],
)
def test_a_batch_of_reads_takes_the_options_of_a_read(
    client: Client, store: FakeStore, query: str, asked: dict[str, Any]
) -> None:
    client.put("/cache/a", json={"value": "ä"})
    store.records_reads = True
    assert client.post(f"/cache/_batch{query}", json=READS).json["results"] == READ
    assert store.reads == [{"applied": False, "max_staleness": None, "peek": False, **asked}]
    if "linearizable" in query:
        store.failure = NoLeader("nobody leads")
        assert client.post(f"/cache/_batch{query}", json=READS).status_code == 503


def test_reads_that_count_exactly_or_once_are_an_entry(client: Client, store: FakeStore) -> None:
    client.put("/cache/a", json={"value": "ä"})
    store.records_reads = True
    assert client.post("/cache/_batch?recency=strict", json=READS).json["results"] == READ
    assert client.post("/cache/_batch", json=READS, headers={"Idempotency-Key": "x"}).json["results"] == READ
    assert (store.entries_logged, store.reads) == (3, [])


@pytest.mark.parametrize(
    "query", ["consistency=none", "max_staleness=0", "recency=now", "peek&recency=strict", "peek=7"]
)
def test_odd_options_of_a_batch_are_refused(client: Client, store: FakeStore, query: str) -> None:
    assert client.post(f"/cache/_batch?{query}", json=READS).status_code == 400


@pytest.mark.parametrize("query", ["consistency=linearizable", "max_staleness=1", "peek", "recency=strict"])
def test_a_batch_that_writes_takes_no_options_of_a_read(client: Client, store: FakeStore, query: str) -> None:
    writes = {"ops": [*READS["ops"], {"op": "set", "key": "a", "value": 1}]}
    answer = client.post(f"/cache/_batch?{query}", json=writes)
    assert answer.status_code == 400 and "nothing but get" in answer.json["detail"]
    assert client.post(f"/cache/_batch?{query}", json=READS, headers={"Idempotency-Key": "x"}).status_code == 400
    assert not store.entries


def test_a_node_that_answers_no_reads_answers_no_batch_of_reads(client: Client, store: FakeStore) -> None:
    store.read_failure = NotReady("not caught up")
    assert client.post("/cache/_batch", json=READS).status_code == 503


def test_bytes_travel_as_base64_in_both_directions(client: Client) -> None:
    sent = {"op": "set", "key": "a", "value": "AP8=", "encoding": "base64", "content_type": "image/png"}
    results = run(client, sent, {"op": "get", "key": "a"})
    shown = {"value": "AP8=", "encoding": "base64", "content_type": "image/png"}
    assert results[1] == {"status": 200, "key": "a", **shown, "version": 1}
    assert client.get("/cache/a?raw").data == b"\x00\xff"


def test_ttls_are_at_least_a_millisecond_and_can_be_kept(client: Client, store: FakeStore) -> None:
    run(client, {"op": "set", "key": "a", "value": 1, "ttl": 0.0001})
    assert store.entries["a"][4] == store.clock_ms + 1
    run(client, {"op": "set", "key": "a", "value": 2, "keep_ttl": True})
    assert store.entries["a"][4] == store.clock_ms + 1


def test_an_atomic_batch_is_all_or_nothing(client: Client, store: FakeStore) -> None:
    ops = [{"op": "set", "key": "a", "value": 1}, {"op": "cas", "key": "b", "value": 1, "version": 9}]
    answer = client.post("/cache/_batch", json={"ops": ops, "atomic": True})
    assert (answer.status_code, answer.content_type) == (412, "application/problem+json")
    assert answer.json["index"] == 1
    assert answer.json["detail"].startswith("ops[1]: ")
    assert answer.json["type"] == "urn:cacheflow:precondition-failed"
    assert not store.entries
    ops = [{"op": "set", "key": "a", "value": "x"}, {"op": "incr", "key": "a"}]
    assert client.post("/cache/_batch", json={"ops": ops, "atomic": True}).status_code == 409
    assert run(client, {"op": "set", "key": "a", "value": "x"}, atomic=True)[0]["status"] == 201


@pytest.mark.parametrize(
    "op",
    [
        5,
        None,
        [],
        {},
        {"op": "get"},
        {"key": "k"},
        {"op": "nonsense", "key": "k"},
        {"op": ["set"], "key": "k"},
        {"op": None, "key": "k"},
        {"op": "get", "key": ""},
        {"op": "get", "key": 5},
        {"op": "get", "key": "\u0007"},
        {"op": "get", "key": "\ud800"},
        {"op": "get", "key": "x" * 1025},
        {"op": "get", "key": "k", "extra": 1},
        {"op": "set", "key": "k"},
        {"op": "set", "key": 5, "value": "x"},
        {"op": "set", "key": "k", "value": "\ud800"},
        {"op": "set", "key": "k", "value": 1, "ttl": 0},
        {"op": "set", "key": "k", "value": 1, "ttl": True},
        {"op": "set", "key": "k", "value": 1, "ttl": "5"},
        {"op": "set", "key": "k", "value": 1, "ttl": 1e30},
        {"op": "set", "key": "k", "value": 1, "ttl": 1, "keep_ttl": True},
        {"op": "set", "key": "k", "value": 1, "keep_ttl": 1},
        {"op": "set", "key": "k", "value": 1, "version": 1},
        {"op": "set", "key": "k", "value": 1, "encoding": "base64"},
        {"op": "set", "key": "k", "value": "?", "encoding": "base64"},
        {"op": "set", "key": "k", "value": "ä", "encoding": "base64"},
        {"op": "set", "key": "k", "value": "AA==", "encoding": "hex"},
        {"op": "set", "key": "k", "value": "AA==", "content_type": "a/b"},
        {"op": "set", "key": "k", "value": "AA==", "encoding": "base64", "content_type": 5},
        {"op": "set", "key": "k", "value": "AA==", "encoding": "base64", "content_type": "\ud800"},
        {"op": "set", "key": "k", "value": "AA==", "encoding": "base64", "content_type": "a\r\nX: y"},
        {"op": "add", "key": "k", "value": 1, "keep_ttl": True},
        {"op": "cas", "key": "k", "value": 1},
        {"op": "cas", "key": "k", "value": 1, "version": 0},
        {"op": "cas", "key": "k", "value": 1, "version": True},
        {"op": "cas", "key": "k", "value": 1, "version": 2**63},
        {"op": "delete", "key": "k", "version": "1"},
        {"op": "delete", "key": "k", "extra": 1},
        {"op": "incr", "key": "k", "delta": 1.5},
        {"op": "incr", "key": "k", "delta": None},
        {"op": "incr", "key": "k", "initial": 2**63},
        {"op": "touch", "key": "k"},
        {"op": "touch", "key": "k", "ttl": 0},
    ],
)
def test_a_bad_operation_is_named_by_its_index_and_nothing_is_written(
    client: Client, store: FakeStore, op: Any
) -> None:
    ops = [{"op": "set", "key": "good", "value": 1}, op]
    answer = client.post("/cache/_batch", data=json.dumps({"ops": ops}))
    assert (answer.status_code, answer.json["index"]) == (400, 1)
    assert answer.json["detail"].startswith("ops[1]: ")
    assert not store.entries


@pytest.mark.parametrize(
    "body",
    [
        *(
            "",
            "[]",
            "{}",
            "{",
            '{"ops": {}}',
            '{"ops": []}',
            '{"ops": null}',
            '{"ops": [{"op":"set","key":"k","value":NaN}]}',
        ),
        *('{"ops": [{"op":"get","key":"k"}], "x": 1}', '{"ops": [{"op":"get","key":"k"}], "atomic": 1}'),
    ],
)
def test_a_body_that_is_no_batch_is_refused(client: Client, body: str) -> None:
    assert client.post("/cache/_batch", data=body).status_code == 400


def test_a_thousand_operations_are_the_most(client: Client) -> None:
    op = {"op": "get", "key": "k"}
    assert len(run(client, *[op] * 1000)) == 1000
    assert client.post("/cache/_batch", json={"ops": [op] * 1001}).status_code == 400


def test_an_answer_too_large_for_memory_leaves_the_rest_of_the_values_out(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_module, "ANSWER_CHARS_MAX", 1000)
    client.put("/cache/k", json={"value": "x" * 600})
    reads = [{"op": "get", "key": "k"}] * 3
    assert [result["status"] for result in run(client, *reads)] == [200, 413, 413]
    assert [result["status"] for result in run(client, *reads, {"op": "touch", "key": "k", "ttl": 1})] == [
        200,
        413,
        413,
        200,
    ]
    answer = client.post("/cache/_batch", json={"ops": reads, "atomic": True})
    assert (answer.status_code, answer.json["index"]) == (413, 1)
    # One that is larger than all answers may be is answered where it is the first.
    client.put("/cache/k", json={"value": "x" * 2000})
    assert [result["status"] for result in run(client, *reads)] == [200, 413, 413]
