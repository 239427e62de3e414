"""Every error is a problem document, and none says more than it should."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from fakes.users import access_of
from rest.client import Client
from rest.fake_store import FakeStore

from cacheflow import errors
from cacheflow.config import join_token
from cacheflow.errors import AnswerNotKept, NoCluster, NoLeader, NotCommitted, OutcomeUnknown, Overloaded
from cacheflow.rest.app import create_app
from cacheflow.rest.problems import urn_of
from cacheflow.rest.request.context import RestConfig

WRITES: list[tuple[str, str, dict[str, Any]]] = [
    ("PUT", "/cache/k", {"json": {"value": 1}}),
    ("DELETE", "/cache/k", {}),
    ("POST", "/cache/k/incr", {"json": {"initial": 0}}),
    ("POST", "/cache/k/touch", {"json": {"ttl": 5}}),
    ("POST", "/cache/_batch", {"json": {"ops": [{"op": "set", "key": "k", "value": 1}]}}),
    ("POST", "/cache/_batch?consistency=linearizable", {"json": {"ops": [{"op": "get", "key": "k"}]}}),
    ("DELETE", "/cache?all=true", {}),
    ("GET", "/cache/k?consistency=linearizable", {}),
    ("GET", "/cache/k?recency=strict", {}),
    ("POST", "/nodes/register", {"json": {"id": "n2", "address": "h:1"}}),
    ("POST", "/cluster/leader", {}),
    ("POST", "/cluster/level", {"json": {"level": 2}}),
]


@pytest.mark.parametrize(("method", "path", "arguments"), WRITES)
def test_without_a_leader_whatever_replicates_is_503(
    client: Client, store: FakeStore, method: str, path: str, arguments: dict[str, Any]
) -> None:
    store.failure, store.leader_id = NoLeader("no leader is known", retry_after_s=1.2), None
    answer = client.open(path, method, **arguments)
    assert (answer.status_code, answer.content_type) == (503, "application/problem+json")
    assert answer.headers["Retry-After"] == "2"
    assert answer.json["type"] == "urn:cacheflow:no-leader"
    assert answer.json["outcome"] == "not applied"
    assert "leader" not in answer.json


@pytest.mark.parametrize(("method", "path", "arguments"), WRITES)
def test_a_timeout_of_what_was_sent_is_504_and_says_so(
    client: Client, store: FakeStore, method: str, path: str, arguments: dict[str, Any]
) -> None:
    store.failure = OutcomeUnknown("no answer within 10 s: it may or may not have been applied")
    answer = client.open(path, method, **arguments)
    assert (answer.status_code, answer.json["title"]) == (504, "Outcome unknown")
    assert answer.json["outcome"] == "unknown"
    assert answer.json["leader"] == "n1"
    assert "Retry-After" not in answer.headers


def test_a_write_that_took_place_and_whose_answer_is_lost_says_so(client: Client, store: FakeStore) -> None:
    store.failure = AnswerNotKept("the keys are removed; how many there were is not known any more")
    answer = client.delete("/cache?prefix=k")
    assert (answer.status_code, answer.json["title"], answer.json["outcome"]) == (504, "Answer not kept", "applied")
    assert answer.json["type"] == "urn:cacheflow:answer-not-kept"


@pytest.mark.parametrize("error", [NotCommitted("n"), Overloaded("o"), NoLeader("n", retry_after_s=0.01)])
def test_what_is_safe_to_repeat_says_when(client: Client, store: FakeStore, error: NotCommitted) -> None:
    store.failure = error
    answer = client.put("/cache/k", json={"value": 1})
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
    assert (answer.json["key"], answer.json["leader"]) == ("k", "n1")


def test_types_are_the_names_of_the_classes() -> None:
    assert urn_of(errors.NoLeader) == "urn:cacheflow:no-leader"
    assert urn_of(errors.NotAnInteger) == "urn:cacheflow:not-an-integer"


def test_every_class_of_the_tree_is_answered_with_its_status(client: Client, store: FakeStore) -> None:
    def walk(base: type[errors.CacheFlowError]) -> list[type[errors.CacheFlowError]]:
        return [base, *(found for sub in base.__subclasses__() for found in walk(sub))]

    own = [found for found in walk(errors.CacheFlowError) if found.__module__ == "cacheflow.errors"]
    assert len(own) >= 14
    for error_class in own:
        store.failure = error_class("what went wrong")
        answer = client.put("/cache/k", json={"value": 1})
        assert answer.status_code == error_class.http_status
        assert answer.content_type == "application/problem+json"
        assert set(answer.json) >= {"type", "title", "status", "detail"}


@pytest.mark.parametrize(
    "error", [RuntimeError("secret detail"), OSError("secret detail"), errors.ConfigError("secret detail")]
)
def test_no_stack_trace_leaves_the_process(
    client: Client, store: FakeStore, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    store.failure = error
    with caplog.at_level(logging.ERROR, "cacheflow.rest"):
        answer = client.put("/cache/k", json={"value": 1})
    assert (answer.status_code, answer.content_type) == (500, "application/problem+json")
    assert "secret" not in answer.text
    assert "Traceback" not in answer.text
    assert answer.json["incident"] in answer.json["detail"]
    [record] = [record for record in caplog.records if record.name == "cacheflow.rest"]
    assert answer.json["incident"] in record.getMessage()
    assert record.exc_info is not None


def test_a_node_that_does_not_know_where_it_stands_still_answers(
    client: Client, store: FakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> None:
        raise AttributeError("secret detail")

    monkeypatch.setattr(store, "position", broken)
    store.failure = NoLeader("no leader")
    for answer in (client.get("/cache/k"), client.put("/cache/k", data=b"x"), client.get("/nowhere")):
        assert (answer.status_code, answer.content_type) == (500, "application/problem+json")
        assert "secret" not in answer.text


@pytest.mark.parametrize("path", ["/page", "/nowhere", "/cachex", "/cache_", "/nodes", "/%FF", "/Cache/k"])
def test_unknown_routes_are_404_problems(client: Client, path: str) -> None:
    answer = client.get(path)
    assert (answer.status_code, answer.content_type) == (404, "application/problem+json")
    assert answer.json["status"] == 404


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("POST", "/cache/k", "DELETE, GET, HEAD, OPTIONS, PUT"),
        ("PATCH", "/cache/k", "DELETE, GET, HEAD, OPTIONS, PUT"),
        ("PATCH", "/cache/k/incr", "DELETE, GET, HEAD, OPTIONS, POST, PUT"),
        ("BREW", "/cache/_batch", "DELETE, GET, HEAD, OPTIONS, POST, PUT"),
        ("PUT", "/cache", "DELETE, GET, HEAD, OPTIONS"),
        ("POST", "/livez", "GET, HEAD, OPTIONS"),
        ("GET", "/nodes/register", "DELETE, OPTIONS, POST"),
    ],
)
def test_methods_that_are_not_allowed_are_405_and_name_those_that_are(
    client: Client, method: str, path: str, allowed: str
) -> None:
    answer = client.open(path, method)
    assert (answer.status_code, answer.content_type) == (405, "application/problem+json")
    assert answer.headers["Allow"] == allowed
    options = client.options(path)
    assert (options.status_code, options.data) == (204, b"")
    assert set(options.headers["Allow"].split(", ")) == set(allowed.split(", "))


# The API token

TOKEN = "0123456789abcdef-token"


@pytest.mark.parametrize(
    "given", [None, "", "Bearer", "Bearer ", "Bearer wrong", f"Basic {TOKEN}", TOKEN, f"Bearer {TOKEN}x", "Bearer ñ"]
)
def test_without_the_token_there_is_only_health(store: FakeStore, given: str | None) -> None:
    client = Client(create_app(store, RestConfig(access=access_of(TOKEN.encode()))))
    headers = {} if given is None else {"Authorization": given}
    for method, path in (
        ("GET", "/cache/k"),
        ("PUT", "/cache/k"),
        ("GET", "/metrics"),
        ("GET", "/nowhere"),
        ("POST", "/livez/x"),
    ):
        answer = client.open(path, method, headers=headers)
        assert (answer.status_code, answer.content_type) == (401, "application/problem+json")
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")
    assert not store.entries
    assert client.get("/livez", headers=headers).status_code == 200
    assert client.get("/readyz", headers=headers).status_code == 200


@pytest.mark.parametrize("given", [f"Bearer {TOKEN}", f"bearer  {TOKEN}"])
def test_with_the_token_everything_is_served(store: FakeStore, given: str) -> None:
    client = Client(create_app(store, RestConfig(access=access_of(TOKEN.encode()))))
    assert client.put("/cache/k", json={"value": 1}, headers={"Authorization": given}).status_code == 201
    assert client.get("/nowhere", headers={"Authorization": given}).status_code == 404


def test_a_node_that_knows_the_clusters_secret_may_register_and_nothing_else(store: FakeStore) -> None:
    joins = join_token(b"the secret of all nodes")
    client = Client(create_app(store, RestConfig(access=access_of(TOKEN.encode()), join_token=joins)))
    headers = {"Authorization": f"Bearer {joins.decode()}"}
    node = {"id": "n9", "address": "127.0.0.1:8090", "raft_address": "127.0.0.1:9090"}
    assert client.post("/nodes/register", json=node, headers=headers).status_code == 201
    for method, path in (
        ("GET", "/nodes/list"),
        ("DELETE", "/nodes/n9"),
        ("PUT", "/cache/k"),
        ("GET", "/nodes/register"),
    ):
        assert client.open(path, method, headers=headers).status_code == 401
    without = Client(create_app(store, RestConfig(access=access_of(TOKEN.encode()))))
    assert without.post("/nodes/register", json=node, headers=headers).status_code == 401
    assert without.post("/nodes/register", json=node, headers={"Authorization": "Bearer "}).status_code == 401


def test_a_node_of_no_cluster_tells_where_its_peers_meet_it(
    client: Client, store: FakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def register(*_: Any) -> bool:
        raise NoCluster("127.0.0.1:9080")

    monkeypatch.setattr(store, "register", register)
    answer = client.post("/nodes/register", json={"id": "n9", "address": "127.0.0.1:8090"})
    assert answer.status_code == 503 and answer.json["type"] == "urn:cacheflow:no-cluster"
    assert answer.json["raft_address"] == "127.0.0.1:9080"
