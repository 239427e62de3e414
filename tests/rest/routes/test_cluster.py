"""``/nodes`` and ``/cluster``."""

from __future__ import annotations

from typing import Any

import pytest
from rest.client import Client
from rest.fake_store import FakeStore

from cacheflow.errors import NoLeader, NotReady, OutcomeUnknown


def test_nodes_are_listed(client: Client) -> None:
    [node] = client.get("/nodes/list").json
    assert (node["id"], node["address"], node["status"], node["role"]) == ("n1", "127.0.0.1:8080", "up", "leader")


def test_a_node_joins_once_and_is_known_then(client: Client, store: FakeStore) -> None:
    member = {"id": "n2", "address": "127.0.0.1:8081", "raft_address": "127.0.0.1:9999"}
    joined = client.post("/nodes/register", json=member)
    assert (joined.status_code, joined.json) == (201, {**member, "status": "joined"})
    known = client.post("/nodes/register", json=member)
    assert (known.status_code, known.json["status"]) == (200, "known")
    moved = client.post("/nodes/register", json={**member, "address": "127.0.0.1:8082"})
    assert (moved.status_code, moved.json["type"]) == (409, "urn:cacheflow:member-conflict")


def test_an_embedded_node_has_no_http_address(client: Client, store: FakeStore) -> None:
    member = {"id": "n2", "address": "", "raft_address": "127.0.0.1:9999"}
    assert client.post("/nodes/register", json=member).status_code == 201
    assert store.members["n2"] == ("", "127.0.0.1:9999")
    assert client.post("/nodes/register", json={"id": "n3", "address": ""}).status_code == 400


@pytest.mark.parametrize(
    ("address", "raft_address"),
    [
        ("127.0.0.1:8081", "127.0.0.1:9081"),
        ("http://node-b:80/", "node-b:1080"),
        ("[::1]:8081", "[::1]:9081"),
    ],
)
def test_without_a_raft_address_it_is_the_port_plus_1000(
    client: Client, store: FakeStore, address: str, raft_address: str
) -> None:
    assert client.post("/nodes/register", json={"id": "n2", "address": address}).status_code == 201
    assert store.members["n2"] == (address, raft_address)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"id": "n2"},
        {"address": "h:1"},
        {"id": 5, "address": "h:1"},
        {"id": "", "address": "h:1"},
        {"id": "a b", "address": "h:1"},
        {"id": "n2", "address": "h"},
        {"id": "n2", "address": "h:0"},
        {"id": "n2", "address": "h:65536"},
        {"id": "n2", "address": "h:²"},
        {"id": "n2", "address": ":80"},
        {"id": "n2", "address": "h/x:80"},
        {"id": "n2", "address": "h:65000"},
        {"id": "n2", "address": "h:1", "raft_address": "nonsense"},
        {"id": "n2", "address": "h:1", "raft_address": 5},
        {"id": "n2", "address": "h:1", "port": 1},
        [],
    ],
)
def test_nonsense_in_a_registration_is_refused(client: Client, store: FakeStore, body: Any) -> None:
    assert client.post("/nodes/register", json=body).status_code == 400
    assert list(store.members) == ["n1"]


def test_one_that_was_removed_is_told_so_when_it_asks_to_come_back(client: Client, store: FakeStore) -> None:
    member = {"id": "n2", "address": "127.0.0.1:8081", "was_member": True}
    refused = client.post("/nodes/register", json=member)
    assert (refused.status_code, refused.json["type"]) == (409, "urn:cacheflow:member-conflict")
    assert client.post("/nodes/register", json={**member, "was_member": False}).status_code == 201
    assert client.post("/nodes/register", json={**member, "was_member": 1}).status_code == 400


def test_a_member_is_removed_once(client: Client, store: FakeStore) -> None:
    store.members["n2"] = ("h:1", "h:2")
    removed = client.delete("/nodes/n2")
    assert (removed.status_code, removed.data, "X-Raft-Index" in removed.headers) == (204, b"", True)
    assert [node["id"] for node in client.get("/nodes/list").json] == ["n1"]
    again = client.delete("/nodes/n2")
    assert (again.status_code, again.json["type"]) == (404, "urn:cacheflow:member-unknown")
    assert "n2" in again.json["detail"]


def test_a_member_that_cannot_be_spared_stays(client: Client, store: FakeStore) -> None:
    refused = client.delete("/nodes/n1")
    assert (refused.status_code, refused.json["type"]) == (409, "urn:cacheflow:member-conflict")
    assert list(store.members) == ["n1"]


@pytest.mark.parametrize(
    ("failure", "status", "kind"),
    [
        (NoLeader("no leader is known"), 503, "urn:cacheflow:no-leader"),
        (NotReady("this node was removed"), 503, "urn:cacheflow:not-ready"),
        (OutcomeUnknown("it may have been removed"), 504, "urn:cacheflow:outcome-unknown"),
    ],
)
def test_a_removal_that_fails_says_what_is_certain(
    client: Client, store: FakeStore, failure: Exception, status: int, kind: str
) -> None:
    store.failure = failure
    answer = client.delete("/nodes/n1")
    assert (answer.status_code, answer.json["type"]) == (status, kind)
    assert ("Retry-After" in answer.headers) == (status == 503)


def test_a_member_is_promoted_and_demoted(client: Client, store: FakeStore) -> None:
    store.members["n2"] = ("h:1", "h:2")
    demoted = client.post("/nodes/n2/demote")
    assert (demoted.status_code, demoted.json["id"], demoted.json["voter"], demoted.json["observer"]) == (
        200,
        "n2",
        False,
        True,
    )
    assert client.post("/nodes/n2/promote").json["voter"]
    for change in ("promote", "demote"):
        unknown = client.post(f"/nodes/nobody/{change}")
        assert (unknown.status_code, unknown.json["type"]) == (404, "urn:cacheflow:member-unknown")
        assert client.get(f"/nodes/n2/{change}").status_code == 405
    del store.members["n2"]
    refused = client.post("/nodes/n1/demote")
    assert (refused.status_code, refused.json["type"]) == (409, "urn:cacheflow:member-conflict")


def test_a_node_registers_with_its_role(client: Client) -> None:
    node = {"id": "n2", "address": "h:1", "raft_address": "h:2"}
    assert client.post("/nodes/register", json={**node, "role": "observer"}).status_code == 201
    for role in ("leader", "", None, 5, ["voter"]):
        refused = client.post("/nodes/register", json={**node, "role": role})
        assert (refused.status_code, "role" in refused.json["detail"]) == (400, True)


def test_status_is_shown(client: Client) -> None:
    told = client.get("/cluster/status").json
    assert told.pop("checks")[0] == {"name": "leader", "passed": True, "detail": ""}
    assert told == {"leader": "n1", "term": 3, "commit_index": 0, "applied_index": 0}


def test_leadership_is_handed_over(client: Client, store: FakeStore) -> None:
    store.members["n2"] = ("h:1", "h:2")
    assert client.post("/cluster/leader", json={"id": "n2"}).json == {"leader": "n2"}
    assert client.post("/cluster/leader").json == {"leader": "n1"}
    assert client.post("/cluster/leader", json={"id": None}).status_code == 400
    assert client.post("/cluster/leader", json={}).status_code == 200
    for body in ({"id": "nobody"}, {"id": 5}, {"id": ""}, {"leader": "n2"}):
        assert client.post("/cluster/leader", json=body).status_code == 400


def test_the_level_is_raised_if_all_members_know_it(client: Client, store: FakeStore) -> None:
    assert client.post("/cluster/level", json={"level": 2}).json == {"level": 2}
    refused = client.post("/cluster/level", json={"level": 9})
    assert (refused.status_code, refused.json["type"]) == (409, "urn:cacheflow:level-conflict")
    assert refused.json["detail"].startswith("member n2 has not told that its CacheFlow knows level 9: install one")
    for body in ({}, {"level": 0}, {"level": "2"}, {"level": True}, {"level": 1.5}, {"level": 2, "id": "n1"}):
        assert client.post("/cluster/level", json=body).status_code == 400
    assert store.level == 2


def test_digests_by_index(client: Client) -> None:
    client.put("/cache/k", json={"value": 1})
    now = client.get("/cluster/digest").json
    assert now["index"] == 1
    assert client.get("/cluster/digest?index=1").json == now
    assert client.get("/cluster/digest?index=0").json["digest"] == "00" * 16
    assert client.get("/cluster/digest?full").json == {"index": 1, "digest": "ff" * 16}
    unknown = client.get("/cluster/digest?index=99")
    assert (unknown.status_code, unknown.json["type"]) == (404, "urn:cacheflow:digest-not-known")
    for query in ("index=-1", "index=x", "index=1&full", "full=perhaps", "index=99999999999999999999"):
        assert client.get(f"/cluster/digest?{query}").status_code == 400
