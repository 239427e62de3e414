"""GET /slow: the requests that took long lately."""

from __future__ import annotations

from rest.client import Client
from rest.fake_store import FakeStore


def test_slow_requests_are_told_newest_first(client: Client, store: FakeStore) -> None:
    assert client.get("/slow").json == {"slow_ms": 50, "slow": []}
    store.slow_log.note("http", "PUT /cache/{key}", "error", 0.0625, 5, 1, "192.0.2.1:5", "some-id")
    store.slow_log.note("resp", "get", "ok", 0.1234567, None, 3)
    answer = client.get("/slow")
    assert answer.status_code == 200 and "X-Raft-Index" in answer.headers
    assert answer.json["slow"] == [
        {
            "id": 2,
            "time": 1000.0,
            "front": "resp",
            "command": "get",
            "outcome": "ok",
            "duration_ms": 123.457,
            "key_bytes": None,
            "requests": 3,
            "client": None,
            "request_id": None,
        },
        {
            "id": 1,
            "time": 1000.0,
            "front": "http",
            "command": "PUT /cache/{key}",
            "outcome": "error",
            "duration_ms": 62.5,
            "key_bytes": 5,
            "requests": 1,
            "client": "192.0.2.1:5",
            "request_id": "some-id",
        },
    ]


def test_that_nothing_is_slow_is_told_as_a_negative_number(client: Client, store: FakeStore) -> None:
    store.slow_log.set_slow_ms(-1)
    assert client.get("/slow").json == {"slow_ms": -1, "slow": []}
