"""GET and PATCH /cluster/settings: what is shown, what is changed, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
from fakes.users import access_of
from rest.client import Client
from rest.fake_store import FakeStore

from cacheflow.errors import NotReady
from cacheflow.machine.state.settings import BY_CHARS_MAX, VALUE_BYTES_MAX
from cacheflow.rest.app import create_app
from cacheflow.rest.request.context import RestConfig

PATH = "/cluster/settings"
SHOWN = {"max_items": 1000, "max_bytes": None, "eviction": "lru", "replicas": 2, "max_value_bytes": 1 << 20}


def test_the_settings_are_shown_with_their_version(client: Client) -> None:
    answer = client.get(PATH)
    assert answer.status_code == 200
    assert answer.json == {**SHOWN, "version": 1, "changed_by": "", "changed_at": 0.0}
    assert answer.headers["ETag"] == '"1"'
    assert answer.headers["X-Served-By"] == "n1"
    assert client.get(PATH, headers={"If-None-Match": '"1"'}).status_code == 304
    assert client.get(PATH, headers={"If-Match": '"2"'}).status_code == 412


def test_some_are_changed_and_all_are_answered(client: Client, store: FakeStore) -> None:
    answer = client.patch(PATH, json={"max_items": None, "max_bytes": 2048, "eviction": "lfu", "replicas": 4})
    changed = {**SHOWN, "max_items": None, "max_bytes": 2048, "eviction": "lfu", "replicas": 4}
    assert answer.status_code == 200
    assert answer.json == {**changed, "version": 2, "changed_by": "", "changed_at": 1000.0}
    assert answer.headers["ETag"] == '"2"'
    assert client.get(PATH).json == answer.json


@pytest.mark.parametrize("tags", ['"1"', '"7", "1"', "*"])
def test_a_change_with_the_present_version_takes_place(tags: str, client: Client) -> None:
    assert client.patch(PATH, json={"max_items": 7}, headers={"If-Match": tags}).status_code == 200


@pytest.mark.parametrize("tags", ['"2"', '"7", "8"', 'W/"1"', '"x"'])
def test_a_change_with_another_version_is_refused(tags: str, client: Client, store: FakeStore) -> None:
    answer = client.patch(PATH, json={"max_items": 7}, headers={"If-Match": tags})
    assert (answer.status_code, answer.json["version"]) == (412, 1)
    assert store.replicated.version == 1


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({}, "max_items, max_bytes, eviction, replicas, max_value_bytes"),
        ({"max_items": 0}, '"max_items"'),
        ({"max_items": 1.0}, '"max_items"'),
        ({"max_items": True}, '"max_items"'),
        ({"max_bytes": 1023}, '"max_bytes"'),
        ({"max_bytes": "1mb"}, '"max_bytes"'),
        ({"eviction": "fifo"}, '"eviction"'),
        ({"eviction": []}, '"eviction"'),
        ({"eviction": None}, '"eviction"'),
        ({"replicas": None}, '"replicas"'),
        ({"replicas": 9}, '"replicas"'),
        ({"max_value_bytes": 0}, '"max_value_bytes"'),
        ({"max_value_bytes": None}, '"max_value_bytes"'),
        ({"max_value_bytes": VALUE_BYTES_MAX + 1}, '"max_value_bytes"'),
        ({"policy": "lru"}, "policy"),
        ({"version": 3}, "version"),
        ({"max_items": 5, "x": 1}, "x"),
    ],
)
def test_a_wrong_setting_is_named_and_nothing_is_changed(
    changes: dict[str, Any], named: str, client: Client, store: FakeStore
) -> None:
    answer = client.patch(PATH, json=changes)
    assert answer.status_code == 400
    assert named in answer.json["detail"]
    assert store.replicated.version == 1


def test_a_change_that_is_sent_again_takes_place_once(client: Client, store: FakeStore) -> None:
    headers = {"If-Match": '"1"', "Idempotency-Key": "k"}
    answers = [client.patch(PATH, json={"max_items": 7}, headers=headers) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 200]
    assert store.replicated.version == 2


def test_the_headers_and_bodies_that_make_no_sense_here(client: Client) -> None:
    assert client.patch(PATH, json={"max_items": 7}, headers={"If-None-Match": "*"}).status_code == 400
    assert client.patch(PATH, data="{}", headers={"Content-Type": "text/plain"}).status_code == 415
    assert client.patch(PATH, json=[]).status_code == 400
    assert client.put(PATH, json={}).status_code == 405


def test_the_last_change_names_the_user_of_the_token(store: FakeStore) -> None:
    client = Client(create_app(store, RestConfig(access=access_of(b"a token of many letters"))))
    token = {"Authorization": "Bearer a token of many letters"}
    answer = client.patch(PATH, json={"max_items": 7}, headers=token)
    assert answer.json["changed_by"] == client.get(PATH, headers=token).json["changed_by"] != ""
    assert len(answer.json["changed_by"]) <= BY_CHARS_MAX
    assert client.patch(PATH, json={"max_items": 8}).status_code == 401


def test_the_largest_value_counts_from_the_change_on(client: Client) -> None:
    assert client.patch(PATH, json={"max_value_bytes": 10}).status_code == 200
    assert client.put("/cache/k", data=b"x" * 11).status_code == 413
    assert client.post("/cache/_batch", json={"ops": [{"op": "set", "key": "k", "value": "x" * 11}]}).status_code == 413
    assert client.put("/cache/k", data=b"x" * 10).status_code == 201
    client.patch(PATH, json={"max_value_bytes": 11})
    assert client.put("/cache/k", data=b"x" * 11).status_code == 200


def test_a_node_that_answers_no_reads_shows_no_settings(client: Client, store: FakeStore) -> None:
    store.read_failure = NotReady("not now")
    assert client.get(PATH).status_code == 503
