"""The data directory: locked, identified, or gone."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import pytest

from cacheflow.errors import ConfigError, NewerCacheFlow
from cacheflow.raft.log import datadir, documents
from cacheflow.raft.log.datadir import DataDirectory


class Usage(NamedTuple):
    total: int
    used: int
    free: int


def test_it_is_made_and_identified_once(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b"
    with DataDirectory(path, node_id="n1") as first:
        assert (first.path, first.node_id, len(first.incarnation)) == (path, "n1", 16)
        assert path.stat().st_mode & 0o777 == 0o700
        (path / "journal-000000000001.cfj").write_bytes(b"")
    for node_id in ("n1", None):
        with DataDirectory(path, node_id=node_id) as again:
            assert (again.node_id, again.incarnation) == ("n1", first.incarnation)


def test_without_a_node_id_one_is_made_and_kept(tmp_path: Path) -> None:
    with DataDirectory(tmp_path) as first:
        assert len(first.node_id) == 36
    with DataDirectory(tmp_path) as again:
        assert again.node_id == first.node_id


def test_after_a_start_that_made_no_journal_it_is_another_incarnation(tmp_path: Path) -> None:
    with DataDirectory(tmp_path, node_id="n1") as first:
        pass
    with DataDirectory(tmp_path, node_id="n1") as again:
        assert again.incarnation != first.incarnation


def test_a_journal_that_is_gone_is_missed(tmp_path: Path) -> None:
    journal = tmp_path / "journal-000000000001.cfj"
    for number in (1, 2):
        with DataDirectory(tmp_path, node_id="n1") as data:
            journal.write_bytes(b"")
            data.note_start()
            assert data.starts == number
    journal.unlink()
    with pytest.raises(ConfigError, match=r"is that of node n1 and has no journal; remove .* start again"):
        DataDirectory(tmp_path, node_id="n1")


def test_randomness_is_handed_in(tmp_path: Path) -> None:
    with DataDirectory(tmp_path, random_bytes=lambda length: b"\x07" * length) as data:
        assert data.incarnation == "07" * 8
        assert data.node_id == "07070707-0707-4707-8707-070707070707"


def test_another_node_id_is_refused(tmp_path: Path) -> None:
    with DataDirectory(tmp_path, node_id="n1"):
        pass
    with pytest.raises(ConfigError, match="belongs to node n1, not n2; give --node-id n1"):
        DataDirectory(tmp_path, node_id="n2")
    with DataDirectory(tmp_path, node_id="n1"):  # the refused one has given it free
        pass


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "unreadable"),
        ("[]", "unreadable"),
        ('{"format_version": 1, "node_id": "", "incarnation": "0123456789abcdef"}', "unreadable"),
        ('{"format_version": 1, "node_id": "n", "incarnation": "x"}', "unreadable"),
        ('{"format_version": 1, "node_id": 5, "incarnation": "0123456789abcdef"}', "unreadable"),
        ('{"format_version": 1, "node_id": "n", "incarnation": "0123456789abcdef", "check": ""}', "unreadable"),
        ('{"format_version": 2, "node_id": "n", "incarnation": "0123456789abcdef"}', "unreadable"),
        ('{"format_version": 3, "node_id": "n", "incarnation": "0123456789abcdef"}', "unreadable"),
    ],
)
def test_a_damaged_identity_is_refused(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "identity").write_text(content)
    with pytest.raises(ConfigError, match=message):
        DataDirectory(tmp_path)


def test_an_identity_of_a_newer_build_is_called_so(tmp_path: Path) -> None:
    identity = {"format_version": 3, "node_id": "n", "incarnation": "x", "starts": 1, "more": []}
    (tmp_path / "identity").write_text(json.dumps({**identity, "check": documents._check_of(identity)}))
    with pytest.raises(
        NewerCacheFlow, match=r"identity was written by a newer CacheFlow \(format 3; this build knows 2\)"
    ):
        DataDirectory(tmp_path)


def test_every_flipped_bit_and_every_cut_of_the_identity_is_refused(tmp_path: Path) -> None:
    with DataDirectory(tmp_path, node_id="n1"):
        pass
    file = tmp_path / "identity"
    whole = file.read_bytes()
    damaged = [whole[:length] for length in range(len(whole) - 1)]
    for position in range(len(whole)):
        for bit in range(8):
            flipped = bytearray(whole)
            flipped[position] ^= 1 << bit
            damaged.append(bytes(flipped))
    for data in damaged:
        file.write_bytes(data)
        with pytest.raises(ConfigError, match=r"identity is unreadable"):
            DataDirectory(tmp_path)


def test_an_identity_of_the_first_format_which_had_no_check_is_read(tmp_path: Path) -> None:
    (tmp_path / "journal-000000000001.cfj").write_bytes(b"")
    (tmp_path / "identity").write_text('{"format_version": 1, "node_id": "n", "incarnation": "0123456789abcdef"}')
    with DataDirectory(tmp_path) as data:
        assert (data.node_id, data.incarnation) == ("n", "0123456789abcdef")


@pytest.mark.parametrize("kind", ["a FIFO", "a link", "a link to nothing", "a folder"])
@pytest.mark.parametrize(
    "name",
    [
        "lock",
        "identity",
        "identity.new",
        "removed",
        "journal-000000000001.cfj",
        "snapshot-00000000000000000009.cfs.part",
    ],
)
def test_what_is_no_regular_file_is_named_and_left_alone(name: str, kind: str, tmp_path: Path) -> None:
    path, other = tmp_path / "data" / name, tmp_path / "other"
    path.parent.mkdir()
    other.write_text("somebody else's")
    if kind == "a FIFO":
        os.mkfifo(path)
    elif kind == "a folder":
        path.mkdir()
    else:
        path.symlink_to(other if kind == "a link" else tmp_path / "nothing")
    with pytest.raises(ConfigError, match=rf"data/{name} is no regular file"):
        DataDirectory(path.parent)
    assert other.read_text() == "somebody else's"
    assert not (tmp_path / "nothing").exists()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("journal-000000000001.cfj", "a journal and no file identity"),
        ("snapshot-00000000000000000009.cfs", "no journal"),
    ],
)
def test_what_does_not_belong_together_is_refused(name: str, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(ConfigError, match=f"{message}.*--seed"):
        DataDirectory(tmp_path)


HOLD = """
import sys
import tempfile
from pathlib import Path
from cacheflow.raft.log.datadir import DataDirectory
data = DataDirectory(Path(sys.argv[1]), ephemeral=sys.argv[2] == "ephemeral")
print(data.path, flush=True)
sys.stdin.readline()
"""


def holder(path: Path, kind: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path), kind], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def test_a_directory_in_use_names_the_process(tmp_path: Path) -> None:
    with holder(tmp_path, "kept") as process:
        assert process.stdout is not None
        assert process.stdin is not None
        process.stdout.readline()
        with pytest.raises(ConfigError, match=f"in use by process {process.pid}; stop it or give another --data-dir"):
            DataDirectory(tmp_path)
        process.stdin.write("\n")
    with DataDirectory(tmp_path), pytest.raises(ConfigError, match=f"in use by process {os.getpid()}"):
        DataDirectory(tmp_path)


def test_an_ephemeral_directory_goes_at_close_and_what_the_dead_left_at_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datadir, "_memory", lambda: tmp_path)
    # One that another process holds, one without its lock, one that a killed process left, and strangers.
    alive = DataDirectory(tmp_path, ephemeral=True)
    orphan = tmp_path / "cacheflow-1-0123456789abcdef"
    orphan.mkdir()
    (orphan / "journal-000000000001.cfj").write_bytes(b"x")
    (tmp_path / "cacheflow-1-fedcba9876543210").symlink_to(tmp_path)
    (tmp_path / "cacheflow-notes").mkdir()
    (tmp_path / "cacheflow-2-0123456789abcdef").write_bytes(b"a file")
    with DataDirectory(Path("ignored"), ephemeral=True) as data:
        assert data.path.parent == tmp_path
        assert data.path.name.startswith(f"cacheflow-{os.getpid()}-")
        assert data.incarnation != alive.incarnation
        assert not orphan.exists()
        assert alive.path.exists()
    assert not data.path.exists()
    alive.close()
    alive.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "cacheflow-1-fedcba9876543210",
        "cacheflow-2-0123456789abcdef",
        "cacheflow-notes",
    ]


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    with holder(tmp_path, "ephemeral") as process:
        assert process.stdout is not None
        path = Path(process.stdout.readline().strip())
        assert (path / "identity").exists()
        process.kill()
    assert path.exists()
    with DataDirectory(tmp_path, ephemeral=True):
        assert not path.exists()


def test_little_memory_means_the_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(0, 0, 2**27 if path == Path("/dev/shm") else 2**40))
    with DataDirectory(tmp_path, ephemeral=True) as data:
        assert data.path.parent == tmp_path


def test_a_full_disk_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(0, 0, 5 << 20))
    with pytest.raises(ConfigError, match=r"5 MiB are free and 32 are needed") as caught:
        DataDirectory(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_path_that_cannot_be_a_directory_is_one_clear_line(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    for path in (file, file / "below"):
        with pytest.raises(ConfigError, match=f"data directory {path}: .*; give another --data-dir"):
            DataDirectory(path)


def test_a_directory_that_is_not_writable_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(ConfigError, match=r"Permission denied; give another --data-dir"):
        DataDirectory(tmp_path)


def test_the_identity_is_plain_json(tmp_path: Path) -> None:
    with DataDirectory(tmp_path, node_id="n1") as data:
        identity = json.loads((tmp_path / "identity").read_text())
    check = identity.pop("check")
    assert identity == {"format_version": 2, "node_id": "n1", "incarnation": data.incarnation, "starts": 0}
    assert len(check) == 16


def test_where_a_removed_member_lived_nobody_starts_until_it_is_emptied(tmp_path: Path) -> None:
    path = tmp_path / "data"
    with DataDirectory(path, node_id="n1") as data:
        (path / "journal-000000000001.cfj").write_bytes(b"")
        data.note_removed("node n1 was removed from the cluster at index 57")
    with pytest.raises(ConfigError) as refused:
        DataDirectory(path, node_id="n1")
    assert "n1 was removed from the cluster at index 57" in str(refused.value)
    assert f"remove {path} and start again with --seed" in str(refused.value) and "\n" not in str(refused.value)
    shutil.rmtree(path)
    with DataDirectory(path, node_id="n1") as again:
        assert again.incarnation != data.incarnation
