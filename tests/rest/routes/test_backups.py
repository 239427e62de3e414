"""``/backup`` and ``/restore``."""

from __future__ import annotations

from rest.client import Client
from rest.fake_store import FakeStore

from cacheflow.errors import BadBackup, NoRoom, NotReady, RestoreConflict


def test_a_backup_is_the_file(client: Client, store: FakeStore) -> None:
    answer = client.get("/backup")
    assert (answer.status_code, answer.data) == (200, b"a backup")
    assert answer.headers["Content-Type"] == "application/x-cacheflow-backup"
    assert answer.headers["Content-Length"] == "8"
    assert answer.headers["X-Backup-Index"] == "7"
    assert answer.headers["Content-Disposition"] == 'attachment; filename="cacheflow-7.backup"'
    assert answer.headers["X-Served-By"] == "n1"


def test_head_makes_no_backup(client: Client, store: FakeStore) -> None:
    store.backups.failure = NotReady("this would have made one")
    answer = client.head("/backup")
    assert (answer.status_code, answer.data) == (200, b"")


def test_a_node_that_can_make_none_says_why(client: Client, store: FakeStore) -> None:
    store.backups.failure = NotReady("not now", 5.0)
    answer = client.get("/backup")
    assert (answer.status_code, answer.json["detail"], answer.headers["Retry-After"]) == (503, "not now", "5")
    store.backups.failure = NoRoom("the disk is full")
    assert client.get("/backup").json["type"] == "urn:cacheflow:no-room"


def test_the_body_is_restored(client: Client, store: FakeStore) -> None:
    answer = client.post("/restore", data=b"the bytes", content_type="application/x-cacheflow-backup")
    assert answer.status_code == 200
    assert answer.json == {
        "items": 3,
        "revision": 2**40,
        "backup": {"index": 7, "cluster_id": "c1", "revision": 5},
    }
    client.post("/restore?online", data=b"more")
    assert store.backups.restored == [(b"the bytes", False), (b"more", True)]


def test_what_is_refused_is_told(client: Client, store: FakeStore) -> None:
    assert client.post("/restore").status_code == 400
    assert client.post("/restore?online=perhaps", data=b"x").status_code == 400
    store.backups.failure = BadBackup("frame 3 is damaged")
    answer = client.post("/restore", data=b"x")
    assert (answer.status_code, answer.json["type"]) == (400, "urn:cacheflow:bad-backup")
    store.backups.failure = RestoreConflict("another one has begun")
    answer = client.post("/restore", data=b"x")
    assert (answer.status_code, answer.json["type"]) == (409, "urn:cacheflow:restore-conflict")
    assert store.backups.restored == []


def test_a_restore_is_given_up(client: Client, store: FakeStore) -> None:
    assert client.delete("/restore").json == {"given_up": False}
    store.backups.given_up = True
    assert client.delete("/restore").json == {"given_up": True}
