"""``/cache``: every row of the contract, successes and failures, over the fake store."""

from __future__ import annotations

import re
from typing import Any

import pytest
from rest.client import Client
from rest.fake_store import FakeStore

from cacheflow.errors import NotReady


def test_put_creates_then_replaces_and_names_the_version(client: Client) -> None:
    created = client.put("/cache/k", json={"value": "v", "ttl": 2.5})
    assert (created.status_code, created.json) == (201, {"key": "k", "version": 1, "ttl": 2.5})
    assert created.headers["ETag"] == '"1"'
    replaced = client.put("/cache/k", json={"value": "w"})
    assert (replaced.status_code, replaced.json) == (200, {"key": "k", "version": 2, "ttl": None})


def test_get_answers_key_value_ttl_and_version(client: Client, store: FakeStore) -> None:
    client.put("/cache/k", json={"value": [1], "ttl": 2})
    store.clock_ms += 500
    answer = client.get("/cache/k")
    assert answer.json == {"key": "k", "value": [1], "ttl": 1.5, "version": 1}
    assert answer.content_type == "application/json"
    assert answer.headers["ETag"] == '"1"'
    assert answer.headers["Cache-Control"] == "no-cache"
    store.clock_ms += 1500
    assert client.get("/cache/k").status_code == 404


def test_an_absent_key_is_a_404_that_names_it(client: Client) -> None:
    answer = client.get("/cache/a%2Fb")
    assert (answer.status_code, answer.content_type) == (404, "application/problem+json")
    assert answer.json == {
        "type": "urn:cacheflow:key-not-found",
        "title": "Key not found",
        "status": 404,
        "detail": "the key is absent",
        "key": "a/b",
    }


def test_head_tells_what_get_would_without_a_body(client: Client) -> None:
    client.put("/cache/k", json={"value": "v"})
    head, get = client.head("/cache/k"), client.get("/cache/k")
    assert (head.status_code, head.data) == (200, b"")
    assert head.headers == get.headers
    missing = client.head("/cache/missing")
    assert (missing.status_code, missing.data) == (404, b"")


def test_every_answer_names_index_term_and_node(client: Client) -> None:
    client.put("/cache/k", json={"value": 1})
    for answer in (
        client.get("/cache/k"),
        client.get("/cache/k", headers={"If-None-Match": "*"}),
        client.get("/cache/missing"),
        client.put("/cache/k", data="{", content_type="application/json"),
        client.post("/cache/k"),
        client.options("/cache/k"),
        client.options("/metrics"),
        client.get("/nowhere"),
        client.get("/livez"),
        client.get("/metrics"),
        client.get("/openapi.json"),
    ):
        raft = [answer.headers[name] for name in ("X-Raft-Index", "X-Raft-Term", "X-Served-By")]
        assert raft == ["1", "3", "n1"], answer.request.path


# TTLs


@pytest.mark.parametrize("ttl", ["0", "-1", "true", "false", '"1"', "[1]", "1e12", "1" + "0" * 400, "-0.0"])
def test_a_ttl_is_a_number_of_seconds_above_0_and_bounded(client: Client, ttl: str) -> None:
    for path, body in (("/cache/k", '{"value":1,"ttl":%s}'), ("/cache/k/incr", '{"initial":0,"ttl":%s}')):
        answer = client.open(
            path, method="PUT" if path == "/cache/k" else "POST", data=body % ttl, content_type="application/json"
        )
        assert answer.status_code == 400
        assert "ttl" in answer.json["detail"]
    client.put("/cache/k", json={"value": 1})
    assert client.post("/cache/k/touch", data=f'{{"ttl":{ttl}}}').status_code == 400


@pytest.mark.parametrize("ttl", ["0", "-1", "nan", "inf", "1_0", "", "1e99", "%201", "+1", "0x10", "1e400", "true"])
def test_a_ttl_in_the_query_is_checked_alike(client: Client, ttl: str) -> None:
    assert client.put(f"/cache/k?ttl={ttl}", data=b"raw").status_code == 400


@pytest.mark.parametrize(("ttl", "seconds"), [("5", 5.0), ("0.25", 0.25), ("1e3", 1000.0), ("0.0001", 0.001)])
def test_a_raw_body_takes_its_ttl_from_the_query(client: Client, ttl: str, seconds: float) -> None:
    assert client.put(f"/cache/k?ttl={ttl}", data=b"raw").json["ttl"] == seconds


def test_a_ttl_in_the_query_serves_json_too_but_not_twice(client: Client) -> None:
    assert client.put("/cache/k?ttl=5", json={"value": 1}).json["ttl"] == 5
    assert client.put("/cache/k?ttl=5", json={"value": 1, "ttl": 6}).status_code == 400


def test_null_is_no_ttl(client: Client) -> None:
    assert client.put("/cache/k", json={"value": 1, "ttl": None}).json["ttl"] is None


def test_keep_ttl_keeps_it(client: Client) -> None:
    client.put("/cache/k", json={"value": 1, "ttl": 9})
    assert client.put("/cache/k?keep_ttl", json={"value": 2}).json["ttl"] == 9
    assert client.put("/cache/k?keep_ttl", json={"value": 2, "ttl": 3}).status_code == 400
    assert client.put("/cache/k?keep_ttl=maybe", json={"value": 2}).status_code == 400


# Conditions


def test_if_none_match_star_creates_only(client: Client) -> None:
    headers = {"If-None-Match": "*"}
    assert client.put("/cache/k", json={"value": 1}, headers=headers).status_code == 201
    answer = client.put("/cache/k", json={"value": 2}, headers=headers)
    assert (answer.status_code, answer.json["version"], answer.json["key"]) == (412, 1, "k")
    assert client.get("/cache/k").json["value"] == 1


def test_if_match_compares_and_sets(client: Client) -> None:
    client.put("/cache/k", json={"value": 1})
    assert client.put("/cache/k", json={"value": 2}, headers={"If-Match": '"1"'}).json["version"] == 2
    assert client.put("/cache/k", json={"value": 3}, headers={"If-Match": '"1"'}).status_code == 412
    assert client.put("/cache/new", json={"value": 3}, headers={"If-Match": '"1"'}).status_code == 412


def test_of_a_list_any_version_matches(client: Client) -> None:
    client.put("/cache/k", json={"value": 1})
    assert client.put("/cache/k", json={"value": 2}, headers={"If-Match": '"9", "1" ,"4"'}).status_code == 200
    assert client.put("/cache/k", json={"value": 3}, headers={"If-Match": '"9", "1"'}).status_code == 412
    both = {"If-Match": '"2", "4"', "Idempotency-Key": "i"}
    assert client.put("/cache/k", json={"value": 3}, headers=both).status_code == 400


@pytest.mark.parametrize("tag", ['W/"1"', '"0"', '"01"', '"abc"', '""', '"99999999999999999999"', '"-1"'])
def test_a_weak_tag_or_no_version_never_matches_a_write(client: Client, tag: str) -> None:
    client.put("/cache/k", json={"value": 1})
    for method in ("PUT", "DELETE"):
        answer = client.open("/cache/k", method=method, data=b"x", headers={"If-Match": tag})
        assert (answer.status_code, answer.json["version"]) == (412, 1)


def test_if_match_star_needs_the_key_whatever_its_version(client: Client) -> None:
    headers = {"If-Match": "*"}
    assert client.put("/cache/k", json={"value": 1}, headers=headers).status_code == 412
    client.put("/cache/k", json={"value": 1, "ttl": 7})
    kept = client.put("/cache/k?keep_ttl", json={"value": 2}, headers=headers)
    assert (kept.status_code, kept.json) == (200, {"key": "k", "version": 2, "ttl": 7.0})
    assert client.put("/cache/k", json={"value": 3, "ttl": 4}, headers=headers).json["ttl"] == 4.0
    retried = {**headers, "Idempotency-Key": "i"}
    assert client.put("/cache/k", json={"value": 4}, headers=retried).json["version"] == 4
    assert client.put("/cache/k", json={"value": 4}, headers=retried).json["version"] == 4
    assert client.delete("/cache/absent", headers=headers).status_code == 412
    assert client.delete("/cache/k", headers=headers).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"If-Match": '"1"', "If-None-Match": "*"},
        {"If-None-Match": '"1"'},
        {"If-Match": "1"},
        {"If-Match": '"1'},
        {"If-Match": '"1" "2"'},
        {"If-Match": ""},
        {"If-Match": '*, "1"'},
        {"If-Match": ",".join(['"1"'] * 100)},
    ],
)
def test_conditions_that_cannot_be_understood_are_refused(client: Client, headers: dict[str, str]) -> None:
    assert client.put("/cache/k", json={"value": 1}, headers=headers).status_code == 400


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"If-None-Match": '"1"'}, 304),
        ({"If-None-Match": 'W/"1"'}, 304),
        ({"If-None-Match": '"8", W/"1"'}, 304),
        ({"If-None-Match": "*"}, 304),
        ({"If-None-Match": '"8"'}, 200),
        ({"If-Match": '"1"'}, 200),
        ({"If-Match": "*"}, 200),
        ({"If-Match": 'W/"1"'}, 412),
        ({"If-Match": '"8"'}, 412),
        ({"If-None-Match": "1"}, 400),
    ],
)
def test_a_conditional_read(client: Client, headers: dict[str, str], status: int) -> None:
    client.put("/cache/k", json={"value": 1})
    answer = client.get("/cache/k", headers=headers)
    assert answer.status_code == status
    if status == 304:
        assert (answer.data, answer.headers["ETag"], answer.headers["Vary"]) == (b"", '"1"', "Accept")


# Idempotency

SCOPE = "7-00112233445566ab; number=3; lowest=2"


def test_a_retry_with_an_idempotency_key_does_not_count_twice(client: Client) -> None:
    headers = {"Idempotency-Key": "retry-1"}
    for _ in range(2):
        assert client.post("/cache/n/incr", json={"initial": 0}, headers=headers).json["value"] == 1
    other = client.post("/cache/n/incr", json={"initial": 0, "delta": 5}, headers=headers)
    assert (other.status_code, other.json["type"]) == (422, "urn:cacheflow:idempotency-key-reused")


def test_every_write_takes_an_idempotency_key(client: Client, store: FakeStore) -> None:
    ops = {"ops": [{"op": "incr", "key": "n", "initial": 0}]}
    calls: list[tuple[str, str, dict[str, Any]]] = [
        ("PUT", "/cache/k", {"json": {"value": 1}}),
        ("POST", "/cache/k/touch", {"json": {"ttl": 5}}),
        ("POST", "/cache/_batch", {"json": ops}),
        ("DELETE", "/cache/k", {}),
    ]
    for at, (method, path, arguments) in enumerate(calls):
        answers = [
            client.open(path, method=method, headers={"Idempotency-Key": f"k{at}"}, **arguments) for _ in range(2)
        ]
        assert answers[0].status_code in (200, 201)
        assert answers[0].data == answers[1].data, path
    assert len(store.kept) == len(calls)


def test_a_client_may_send_an_idempotency_key_with_a_delete_of_many(client: Client) -> None:
    client.put("/cache/k", json={"value": 1})
    assert client.delete("/cache?prefix=k", headers={"Idempotency-Key": "k"}).json == {"deleted": 1}
    assert client.delete("/cache?prefix=k", headers={"Idempotency-Key": ""}).status_code == 400


def test_an_age_is_told_as_the_first_entry_in_which_the_command_may_be(client: Client, store: FakeStore) -> None:
    for age in ("0", "5000", "0" * 15, "9" * 15):
        headers = {"Idempotency-Key": f"k{age}", "Idempotency-Age": age}
        assert client.put("/cache/k", json={"value": 1}, headers=headers).status_code in (200, 201)
    assert store.first_tries == [100_000, 95_000, 100_000, 1]
    store.has_a_past = False
    assert client.put("/cache/k", json={"value": 1}, headers=headers).status_code == 503
    assert client.put("/cache/k", json={"value": 1}, headers={"Idempotency-Key": "k"}).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        *(
            {"Idempotency-Key": "k", "Idempotency-Age": age}
            for age in ("", "-1", "+1", "1.5", "1e3", "1" * 16, "١", "x")
        ),
        {"Idempotency-Age": "5"},
        {"Idempotency-Key": "k", "Idempotency-Scope": SCOPE},
        {"Idempotency-Scope": SCOPE, "Idempotency-Age": "5"},
        *(
            {"Idempotency-Scope": wrong}
            for wrong in (
                "",
                "7",
                SCOPE.replace("7-", "0-"),
                SCOPE.replace("7-", "07-"),
                SCOPE.replace("7-", f"{2**63}-"),
                SCOPE.replace("ab", "AB"),
                SCOPE.replace("; lowest=2", ""),
                SCOPE.replace("number=3", "number=0"),
                SCOPE.replace("number=3", "number=-3"),
                SCOPE.replace("number=3", "number=1"),
                SCOPE.replace("number=3", "number=٣"),
                SCOPE.replace(";", ","),
                SCOPE + "; more=1",
                SCOPE + ";",
            )
        ),
    ],
)
def test_what_makes_a_write_one_to_be_sent_again_is_checked_strictly(client: Client, headers: dict[str, str]) -> None:
    for method, path in (("PUT", "/cache/k"), ("DELETE", "/cache/k"), ("POST", "/cache/k/incr")):
        assert client.open(path, method=method, headers=headers).status_code == 400


def test_a_number_in_a_scope_does_not_count_twice(client: Client, store: FakeStore) -> None:
    opened = client.post("/scopes")
    assert opened.status_code == 201 and re.fullmatch(r"7-[0-9a-f]{16}", opened.json["scope"])
    headers = {"Idempotency-Scope": f"{opened.json['scope']}; number=1; lowest=1"}
    for _ in range(2):
        assert client.post("/cache/n/incr", json={"initial": 0}, headers=headers).json["value"] == 1
    assert client.post("/scopes", json={"name": 1}).status_code == 400


def test_a_scope_that_is_closed_leaves_the_outcome_unknown(client: Client) -> None:
    answer = client.put("/cache/k", json={"value": 1}, headers={"Idempotency-Scope": SCOPE.replace("7-", "1-")})
    assert (answer.status_code, answer.json["type"]) == (504, "urn:cacheflow:outcome-forgotten")
    assert answer.json["outcome"] == "unknown"


@pytest.mark.parametrize("key", ["", "x" * 257, "tab\there", "ünïcode"])
def test_an_idempotency_key_is_1_to_256_printable_characters(client: Client, key: str) -> None:
    for method, path in (("PUT", "/cache/k"), ("DELETE", "/cache/k"), ("POST", "/cache/k/incr")):
        assert client.open(path, method=method, headers={"Idempotency-Key": key}).status_code == 400


# Reads


@pytest.mark.parametrize(
    ("query", "asked"),
    [
        ("consistency=local", {}),
        ("consistency=linearizable", {"consistency": "linearizable"}),
        ("consistency=bounded&max_staleness=0.5", {"consistency": "bounded", "max_staleness": 0.5}),
        ("max_staleness=3", {"consistency": "bounded", "max_staleness": 3.0}),
        ("peek", {"peek": True}),
        ("peek=false&unknown=ignored", {}),
    ],
)
def test_a_read_asks_the_store_as_its_query_says(
    client: Client, store: FakeStore, query: str, asked: dict[str, object]
) -> None:
    client.put("/cache/k", json={"value": 1})
    store.records_reads = True
    assert client.get(f"/cache/k?{query}").status_code == 200
    plain = {"consistency": "local", "max_staleness": None, "peek": False}
    assert store.reads == [plain | asked]


def test_a_strict_read_is_a_command_in_the_log(client: Client, store: FakeStore) -> None:
    client.put("/cache/k", json={"value": 1, "ttl": 7})
    store.records_reads = True
    logged = store.entries_logged
    found = client.get("/cache/k?recency=strict")
    assert (found.json["value"], found.json["ttl"], found.headers["ETag"]) == (1, 7.0, '"1"')
    assert (store.entries_logged, store.reads) == (logged + 1, [])
    assert client.get("/cache/other?recency=strict").status_code == 404


@pytest.mark.parametrize(
    "query",
    [
        "consistency=eventual",
        "consistency=",
        "consistency=bounded",
        "consistency=local&max_staleness=1",
        "consistency=linearizable&max_staleness=1",
        "consistency=bounded&max_staleness=-1",
        "consistency=bounded&max_staleness=soon",
        "recency=lax",
        "recency=strict&peek",
        "peek=perhaps",
        "raw=perhaps",
        "peek&peek",
        "raw=%FF",
        "raw=%zz",
    ],
)
def test_nonsense_in_a_read_is_refused(client: Client, query: str) -> None:
    client.put("/cache/k", json={"value": 1})
    assert client.get(f"/cache/k?{query}").status_code == 400


def test_a_read_that_is_not_fresh_enough_is_503(client: Client, store: FakeStore) -> None:
    store.read_failure = NotReady("4 s old, and at most 1 s was asked for", retry_after_s=0.2)
    answer = client.get("/cache/k?consistency=bounded&max_staleness=1")
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
    assert answer.json["type"] == "urn:cacheflow:not-ready"


# Delete, incr, touch


def test_delete_answers_200_then_404(client: Client) -> None:
    client.put("/cache/k", json={"value": 1})
    assert client.delete("/cache/k").json == {"key": "k", "deleted": True}
    assert client.delete("/cache/k").status_code == 404


def test_delete_takes_if_match(client: Client) -> None:
    client.put("/cache/k", json={"value": 1})
    assert client.delete("/cache/k", headers={"If-Match": '"5"'}).status_code == 412
    assert client.delete("/cache/k", headers={"If-None-Match": "*"}).status_code == 400
    assert client.delete("/cache/k", headers={"If-Match": '"1"'}).status_code == 200


def test_incr_counts_creates_with_initial_and_keeps_the_ttl(client: Client, store: FakeStore) -> None:
    assert client.post("/cache/n/incr").status_code == 404
    created = client.post("/cache/n/incr", json={"delta": 5, "initial": 10, "ttl": 60})
    assert (created.status_code, created.json) == (200, {"key": "n", "value": 15, "version": 1, "ttl": 60.0})
    assert client.post("/cache/n/incr", json={"delta": -20, "ttl": 1}).json["value"] == -5
    assert client.post("/cache/n/incr").json["value"] == -4
    assert client.get("/cache/n").json["ttl"] == 60


def test_incr_of_something_else_is_409(client: Client) -> None:
    client.put("/cache/k", json={"value": "text"})
    answer = client.post("/cache/k/incr")
    assert (answer.status_code, answer.json["type"]) == (409, "urn:cacheflow:not-an-integer")


@pytest.mark.parametrize(
    "body", ['{"delta":1.0}', '{"delta":true}', '{"delta":"1"}', '{"initial":1e3}', '{"delta":9223372036854775808}',
             '{"delat":1}', "[]", "{"]
)  # fmt: skip
def test_nonsense_in_incr_is_refused(client: Client, body: str) -> None:
    assert client.post("/cache/n/incr", data=body).status_code == 400


def test_touch_gives_a_ttl_and_takes_it_away(client: Client) -> None:
    assert client.post("/cache/k/touch", json={"ttl": 5}).status_code == 404
    client.put("/cache/k", json={"value": 1})
    assert client.post("/cache/k/touch", json={"ttl": 5}).json == {"key": "k", "ttl": 5.0}
    assert client.post("/cache/k/touch", json={"ttl": None}).json == {"key": "k", "ttl": None}
    for body in (b"", b"{}", b'{"ttl":0}', b'{"ttl":1,"x":2}'):
        assert client.post("/cache/k/touch", data=body).status_code == 400


# Many keys


def test_keys_are_listed_by_prefix_and_page(client: Client) -> None:
    for key in ("a/1", "a/2", "a/3", "b c"):
        client.put(f"/cache/{key}", json={"value": 1})
    assert client.get("/cache").json == {"keys": ["a/1", "a/2", "a/3", "b c"], "cursor": None}
    first = client.get("/cache?prefix=a/&limit=2").json
    assert first == {"keys": ["a/1", "a/2"], "cursor": "a/2"}
    assert client.get(f"/cache?prefix=a/&limit=2&cursor={first['cursor']}").json == {"keys": ["a/3"], "cursor": None}
    assert client.get("/cache?prefix=b+c").json["keys"] == ["b c"]
    assert client.get("/cache?prefix=b%20c&cursor=").json["keys"] == ["b c"]


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=-1",
        "limit=x",
        "limit=10001",
        "limit=1.5",
        "limit=",
        "prefix=%FF",
        "prefix=%00",
        "prefix=&prefix=",
    ],
)
def test_nonsense_in_a_listing_is_refused(client: Client, query: str) -> None:
    assert client.get(f"/cache?{query}").status_code == 400


def test_delete_by_prefix_or_all(client: Client, store: FakeStore) -> None:
    for key in ("a1", "a2", "b1"):
        client.put(f"/cache/{key}", json={"value": 1})
    assert client.delete("/cache?prefix=a").json == {"deleted": 2}
    assert client.delete("/cache?all=true").json == {"deleted": 1}
    assert not store.entries


@pytest.mark.parametrize("query", ["", "?prefix=", "?all=false", "?all=yes", "?all=true&prefix=a", "?prefix=%ff"])
def test_delete_of_many_must_say_which(client: Client, store: FakeStore, query: str) -> None:
    client.put("/cache/k", json={"value": 1})
    assert client.delete(f"/cache{query}").status_code == 400
    assert store.entries


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/cache/k/incr", {"initial": None}),
        ("/cache/k/incr", {"delta": None}),
        ("/cache/_batch", {"ops": None}),
        ("/cache/_batch", {"ops": [{"op": "get", "key": "k"}], "atomic": None}),
        ("/cache/_batch", {"ops": [{"op": "incr", "key": "k", "initial": None}]}),
        ("/cache/_batch", {"ops": [{"op": "delete", "key": "k", "version": None}]}),
        ("/cache/_batch", {"ops": [{"op": "set", "key": "k", "value": "", "content_type": None}]}),
        ("/nodes/register", {"id": "n9", "address": "h:1", "raft_address": None}),
        ("/cluster/leader", {"id": None}),
        ("/cluster/level", {"level": None}),
    ],
)
def test_a_null_that_the_specification_does_not_know_is_refused(
    client: Client, path: str, body: dict[str, Any]
) -> None:
    answer = client.post(path, json=body)
    assert answer.status_code == 400
    assert "null" in answer.json["detail"] or "None" in answer.json["detail"]


@pytest.mark.parametrize("headers", [{}, {"If-None-Match": "*"}])
def test_a_flag_that_is_none_is_refused_whatever_the_key_is(client: Client, headers: dict[str, str]) -> None:
    for key in ("absent", "present"):
        client.put("/cache/present", json={"value": 1})
        assert client.get(f"/cache/{key}?raw=2", headers=headers).status_code == 400
