"""What the disk says of a node that goes out of its cluster by itself, and what its next start makes of that."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fakes.disk import FakeDisk

from cacheflow.errors import ConfigError, NewerCacheFlow
from cacheflow.raft.log import datadir, departure
from cacheflow.raft.log.datadir import DataDirectory
from cacheflow.raft.log.departure import Departure, forget_departure, read_departure, write_departure
from cacheflow.raft.log.disk import Disk
from cacheflow.raft.log.documents import write_document

MEMORY = ("journal-000000000001.cfj", "journal-000000000002.cfj.new", "snapshot-00000007.cfs", "recovery")
OTHERS = ("10.0.0.1:9080", "10.0.0.2:9080")


def left(path: Path, incarnation: str | None = None) -> str:
    """Make a directory whose node has left by itself; return the incarnation that did."""
    with DataDirectory(path, node_id="n1") as data:
        for name in MEMORY:
            (path / name).write_bytes(b"x")
        data.note_start()
        write_departure(Disk(), path, Departure(incarnation or data.incarnation, OTHERS))
        data.note_removed("node n1 has left the cluster at index 57")
        return data.incarnation


def test_a_departure_is_read_as_it_was_written_and_forgotten(tmp_path: Path) -> None:
    assert read_departure(Disk(), tmp_path) is None
    write_departure(Disk(), tmp_path, Departure("abc", OTHERS))
    assert read_departure(Disk(), tmp_path) == Departure("abc", OTHERS)
    forget_departure(Disk(), tmp_path)
    assert read_departure(Disk(), tmp_path) is None


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"format_version": 1, "incarnation": "a", "members": []}'])
def test_a_damaged_departure_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "departure").write_text(content)
    with pytest.raises(ConfigError, match="departure is unreadable; if this node was to leave"):
        read_departure(Disk(), tmp_path)


def test_fields_of_other_types_and_of_a_newer_format_are_refused(tmp_path: Path) -> None:
    for fields in ({"incarnation": 1, "members": []}, {"incarnation": "a", "members": [1]}, {"incarnation": "a"}):
        write_document(Disk(), tmp_path / "departure", {"format_version": 1, **fields})
        with pytest.raises(ConfigError):
            read_departure(Disk(), tmp_path)
    write_document(Disk(), tmp_path / "departure", {"format_version": 2})
    with pytest.raises(NewerCacheFlow):
        read_departure(Disk(), tmp_path)


def test_a_node_that_has_left_begins_anew_as_another_member(tmp_path: Path) -> None:
    before = left(tmp_path)
    (tmp_path / "mine.txt").write_text("not ours")
    with DataDirectory(tmp_path) as again:
        assert (again.node_id, again.starts) == ("n1", 0)
        assert again.incarnation != before
    # Who it had left is known until it is a member again.
    assert sorted(file.name for file in tmp_path.iterdir()) == ["departure", "identity", "lock", "mine.txt"]
    assert read_departure(Disk(), tmp_path) == Departure(before, OTHERS)


def test_whoever_only_looks_at_it_removes_nothing(tmp_path: Path) -> None:
    left(tmp_path)
    with pytest.raises(ConfigError, match="node n1 has left the cluster at index 57"):
        DataDirectory(tmp_path, to_start=False)
    with pytest.raises(ConfigError):
        DataDirectory(tmp_path, node_id="n2")
    assert all((tmp_path / name).exists() for name in MEMORY)


def test_without_a_mark_that_it_is_out_everything_stays(tmp_path: Path) -> None:
    before = left(tmp_path)
    (tmp_path / "removed").unlink()
    with DataDirectory(tmp_path) as again:
        assert again.incarnation == before
    assert all((tmp_path / name).exists() for name in MEMORY)


def test_a_departure_of_an_earlier_member_is_none_of_this_one(tmp_path: Path) -> None:
    left(tmp_path, "0123456789abcdef")
    with pytest.raises(ConfigError, match="to use it again, remove"):
        DataDirectory(tmp_path)
    assert all((tmp_path / name).exists() for name in MEMORY)


@pytest.mark.parametrize("steps", range(8))
def test_a_new_beginning_that_was_interrupted_is_made_again(
    steps: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = left(tmp_path)
    done: list[Path] = []

    class Dying(Disk):
        def remove(self, path: Path) -> None:
            if len(done) >= steps:
                raise KeyboardInterrupt
            done.append(path)
            super().remove(path)

    with monkeypatch.context() as patch:
        patch.setattr(datadir, "Disk", Dying)
        try:
            DataDirectory(tmp_path).close()
        except KeyboardInterrupt:
            assert steps < 5
    with DataDirectory(tmp_path) as again:
        assert again.node_id == "n1" and again.incarnation != before
    assert not any((tmp_path / name).exists() for name in (*MEMORY, "removed"))


def test_half_a_departure_is_swept_away() -> None:
    disk = FakeDisk()
    path = Path("/data")
    disk.close(disk.open(path / "departure.new", create=True))
    departure.remove_unfinished(disk, path)
    departure.remove_unfinished(disk, path)
    assert disk.list(path) == []


def test_the_file_is_plain_json(tmp_path: Path) -> None:
    write_departure(Disk(), tmp_path, Departure("abc", OTHERS))
    fields = json.loads((tmp_path / "departure").read_text())
    assert fields["members"] == list(OTHERS) and fields["incarnation"] == "abc"
