"""The commands ``backup`` and ``restore``, against the real HTTP server over a store that pretends."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from rest.fake_store import FakeStore

from cacheflow.cli import main
from cacheflow.errors import BadBackup, NotReady
from cacheflow.files.backup import BackupMeta, written
from cacheflow.rest import HttpServer, RestConfig, Uploads, create_app

DATA = b"".join(written(BackupMeta(7, 2, "c1", 1000, 5, 2), [["a", b"1", 0, None, 0], ["b", b"2", 1, None, 0]]))


@pytest.fixture
def store() -> FakeStore:
    store = FakeStore()
    store.backups.data = DATA
    return store


@pytest.fixture(autouse=True)
def server(store: FakeStore, monkeypatch: pytest.MonkeyPatch) -> Iterator[HttpServer]:
    uploads = Uploads(lambda _: True, store.backups.new_file, store.backups.room)
    app = create_app(store, RestConfig())
    with HttpServer(app, "127.0.0.1", 0, uploads=uploads) as server:
        monkeypatch.setenv("CACHEFLOW_URL", f"http://127.0.0.1:{server.port}")
        yield server


def run(capfd: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main.main(arguments)
    out, err = capfd.readouterr()
    return code, out, err


def test_a_backup_is_written_whole(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "backup"
    code, out, err = run(capfd, "backup", str(file))
    # No bar where nobody looks.
    assert (code, err) == (0, "")
    assert out.startswith(f"2 items, {len(DATA)} bytes, as of index 7, from http://127.0.0.1:")
    assert file.read_bytes() == DATA
    assert [path.name for path in tmp_path.iterdir()] == ["backup"]


def test_json_for_programs(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, out, _ = run(capfd, "backup", str(tmp_path / "backup"), "--json")
    told = json.loads(out)
    assert (code, told["items"], told["index"], told["bytes"]) == (0, 2, 7, len(DATA))
    code, out, _ = run(capfd, "restore", str(tmp_path / "backup"), "--json")
    assert (code, json.loads(out)["revision"]) == (0, 2**40)


def test_a_file_that_is_there_stays(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "backup"
    file.write_bytes(b"mine")
    code, _, err = run(capfd, "backup", str(file))
    assert (code, "--force" in err, file.read_bytes()) == (2, True, b"mine")
    assert run(capfd, "backup", str(file), "--force")[0] == 0
    assert file.read_bytes() == DATA


@pytest.mark.parametrize("data", [b"no backup", DATA[:-1], DATA[:40] + b"x" + DATA[41:]])
def test_what_came_damaged_is_no_backup(
    capfd: pytest.CaptureFixture[str], store: FakeStore, tmp_path: Path, data: bytes
) -> None:
    store.backups.data = data
    assert run(capfd, "backup", str(tmp_path / "backup"))[0] == 2
    assert list(tmp_path.iterdir()) == []


def test_a_node_that_makes_none(capfd: pytest.CaptureFixture[str], store: FakeStore, tmp_path: Path) -> None:
    store.backups.failure = NotReady("not now")
    code, _, err = run(capfd, "backup", str(tmp_path / "backup"))
    # The log of the node has more under that id.
    assert code == 3 and re.fullmatch(r"cacheflow: not now \[request [0-9a-f]+-[0-9]+\]\n", err)
    assert list(tmp_path.iterdir()) == []


def test_it_comes_from_a_follower(capfd: pytest.CaptureFixture[str], store: FakeStore, tmp_path: Path) -> None:
    """The leader of this cluster pretends to be at port 8080; the follower, at port 1, answers nobody."""
    store.members["n2"] = ("127.0.0.1:1", "127.0.0.1:9080")
    code, _, err = run(capfd, "backup", str(tmp_path / "backup"))
    assert (code, "127.0.0.1:1" in err) == (3, True)
    assert run(capfd, "backup", str(tmp_path / "backup"), "--here")[0] == 0


def test_a_backup_is_restored(capfd: pytest.CaptureFixture[str], store: FakeStore, tmp_path: Path) -> None:
    file = tmp_path / "backup"
    file.write_bytes(DATA)
    code, out, _ = run(capfd, "restore", str(file), "--yes")
    assert (code, out) == (0, f"3 items are restored; the revision is {2**40}\n")
    assert run(capfd, "restore", str(file), "--online")[0] == 0
    assert store.backups.restored == [(DATA, False), (DATA, True)]


def test_what_is_no_backup_is_not_even_sent(
    capfd: pytest.CaptureFixture[str], store: FakeStore, tmp_path: Path
) -> None:
    file = tmp_path / "backup"
    file.write_bytes(DATA[:-1])
    code, _, err = run(capfd, "restore", str(file))
    assert (code, "damaged" in err, store.backups.restored) == (2, True, [])


def test_a_refusal_is_told(capfd: pytest.CaptureFixture[str], store: FakeStore, tmp_path: Path) -> None:
    file = tmp_path / "backup"
    file.write_bytes(DATA)
    store.backups.failure = BadBackup("item 3 is none")
    assert run(capfd, "restore", str(file)) == (2, "", "cacheflow: item 3 is none\n")


def test_a_restore_is_given_up(capfd: pytest.CaptureFixture[str], store: FakeStore) -> None:
    assert run(capfd, "restore", "--give-up") == (1, "no restore is under way\n", "")
    store.backups.given_up = True
    assert run(capfd, "restore", "--give-up") == (0, "given up\n", "")
    assert run(capfd, "restore")[0] == run(capfd, "restore", "x", "--give-up")[0] == 2
