"""Backups and restores of a running node: what comes back, what is refused, and who is served meanwhile."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fakes.embedded import wait_for

from cacheflow.errors import BadBackup, ConfigError, NotReady, Overloaded, ValueTooLarge
from cacheflow.files.backup import opened
from cacheflow.machine.language import commands
from cacheflow.node import backups
from cacheflow.store import ReplicatedStore


def node(directory: Path, **settings: Any) -> ReplicatedStore:
    return ReplicatedStore(
        node_id="a", raft_address="127.0.0.1:0", bootstrap=True, data_dir=directory, replicas=0, **settings
    )


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ReplicatedStore]:
    with node(tmp_path / "first", max_items=None) as made:
        made.wait_ready(10.0)
        yield made


def test_a_backup_is_restored_in_a_cluster_of_another_policy(store: ReplicatedStore, tmp_path: Path) -> None:
    store.set_many({f"k{number}": {"n": number} for number in range(1500)})
    store.set("text", "x", ttl=1000)
    store.run([commands.set_fields("hash", 3, [b"f", b"1"], 1000)])
    file, meta = store.backups.take()
    assert meta.items == 1502
    store.set("later", "x")
    with node(tmp_path / "second", eviction="lfu", max_items=None) as other:
        other.wait_ready(10.0)
        other.set("k1", "mine")
        other.set("mine", "x")
        version = other.get_item("k1").version  # type: ignore[union-attr]
        restored, revision = other.backups.restore(file)
        assert restored == meta
        assert len(other) == 1502
        assert other["k1"] == {"n": 1}
        assert "mine" not in other and "later" not in other
        assert other["hash"] == {"f": "1"}
        item, ttl = other.get_item("k1"), other.get_item("text").ttl_s  # type: ignore[union-attr]
        assert item is not None and item.version > revision > version + 2**40 - 1
        assert ttl is not None and abs(ttl - (store.get_item("text").ttl_s or 0)) < 1.0  # type: ignore[union-attr]
        assert other.status()["restore"] == {"items": 1502, "done": 1502, "online": False, "ended": True}
        other["k1"] = "after"


def test_writing_goes_on_while_a_backup_is_made(store: ReplicatedStore) -> None:
    written = 0
    taken: list[tuple[io.BytesIO, int]] = []

    def take() -> None:
        file, meta = store.backups.take()
        with file:
            taken.append((io.BytesIO(file.read()), meta.items))

    thread = threading.Thread(target=take)
    thread.start()
    while thread.is_alive():
        store[f"k{written}"] = written
        written += 1
    thread.join()
    [(file, items)] = taken
    # The keys of a moment: all that were written before the last of them.
    assert [item[0] for item in opened(file)[1]] == [f"k{number}" for number in range(items)]
    assert written > 0


def test_what_is_damaged_changes_nothing(store: ReplicatedStore) -> None:
    store["a"] = 1
    file, _ = store.backups.take()
    data = bytearray(file.read())
    index = store.position().index
    for at in (0, 20, len(data) // 2, len(data) - 1):
        broken = data.copy()
        broken[at] ^= 1
        for content in (broken, data[:at]):
            with store.backups.new_file() as bad:
                bad.write(content)
                with pytest.raises(BadBackup):
                    store.backups.restore(bad)
    assert store["a"] == 1
    assert store.position().index == index
    assert store.status()["restore"] is None


def test_a_value_that_this_node_does_not_take_is_refused(store: ReplicatedStore, tmp_path: Path) -> None:
    store["large"] = b"x" * 5000
    file, _ = store.backups.take()
    with node(tmp_path / "second", max_value_bytes=4999) as other:
        other.wait_ready(10.0)
        other["mine"] = 1
        with pytest.raises(ValueTooLarge, match="'large'"):
            other.backups.restore(file)
        assert other["mine"] == 1


def test_clients_are_not_served_until_it_is_done_or_given_up(store: ReplicatedStore) -> None:
    store["a"] = 1
    assert store.backups._run([commands.restore_begin("r", "", 10, 0, False)])[0][0] == commands.OK
    with pytest.raises(NotReady, match="0 of 10 items"):
        store.get("a")
    with pytest.raises(NotReady, match="0 of 10 items"):
        store["a"] = 2
    with pytest.raises(NotReady):
        store.backups.take()
    assert [check for check in store.readiness() if not check[1]] == [
        ("restore", False, "a restore is under way: 0 of 10 items; if it does not go on, repeat it or give it up")
    ]
    assert all(passed for _, passed, _ in store.liveness())
    assert store.backups.give_up() is True
    assert store.backups.give_up() is False
    assert store.get("a") is None
    store["a"] = 2


def test_online_they_are(store: ReplicatedStore) -> None:
    assert store.backups._run([commands.restore_begin("r", "", 10, 0, True)])[0][0] == commands.OK
    store["a"] = 1
    assert store["a"] == 1


def test_a_restore_that_was_interrupted_is_repeated(store: ReplicatedStore) -> None:
    store["a"] = 1
    file, _ = store.backups.take()
    store.backups._run([commands.restore_begin("broken off", "", 10, 0, False)])
    store.backups.restore(file)
    assert store["a"] == 1


def test_one_at_a_time(store: ReplicatedStore) -> None:
    store["a"] = 1
    file, _ = store.backups.take()
    with store.backups._one:
        with pytest.raises(Overloaded):
            store.backups.take()
        with pytest.raises(Overloaded):
            store.backups.restore(file)


def test_a_disk_without_room_is_not_filled(store: ReplicatedStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backups, "KEPT_FREE_BYTES", 2**62)
    with pytest.raises(Exception, match="to spare"):
        store.set("a", "x") and store.backups.take()


def test_nothing_is_left_on_the_disk(store: ReplicatedStore, tmp_path: Path) -> None:
    store["a"] = 1
    before = sorted(path.name for path in (tmp_path / "first").iterdir())
    file, _ = store.backups.take()
    file.close()
    assert sorted(path.name for path in (tmp_path / "first").iterdir()) == before


def test_a_first_node_begins_with_a_backup(store: ReplicatedStore, tmp_path: Path) -> None:
    store["a"] = 1
    path = tmp_path / "backup"
    path.write_bytes(store.backups.take()[0].read())
    with node(tmp_path / "second") as other:
        other.backups.begin_with(path)
        assert other["a"] == 1
        other["a"] = 2
    with node(tmp_path / "second") as again:
        again.backups.begin_with(path)
        wait_for(lambda: again.readiness() and all(passed for _, passed, _ in again.readiness()))
        assert again["a"] == 2
    (tmp_path / "other").write_bytes(b"no backup")
    with node(tmp_path / "third") as third, pytest.raises(ConfigError, match="no backup of CacheFlow"):
        third.backups.begin_with(tmp_path / "other")
