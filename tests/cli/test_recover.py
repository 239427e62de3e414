"""``cacheflow recover``: what it shows, what it asks, and what it leaves on the disk."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import click
import pytest
from fakes.embedded import QUICK, wait_for

from cacheflow.cli.main import main
from cacheflow.machine.language.commands import RECOVERY_RAISE
from cacheflow.store import ReplicatedStore


@pytest.fixture(scope="module")
def _stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recover") / "data"
    with ReplicatedStore(node_id="n1", raft_address="127.0.0.1:0", data_dir=folder, **QUICK) as store:
        wait_for(lambda: store.set("k", "v"))
    return folder


@pytest.fixture
def stopped(_stopped: Path, tmp_path: Path) -> Path:
    """The data directory of a node that was stopped, with one key."""
    folder = tmp_path / "data"
    shutil.copytree(_stopped, folder)
    return folder


def answering(monkeypatch: pytest.MonkeyPatch, said: bool) -> list[str]:
    """Put a person at a terminal who answers every question alike; return the questions."""
    asked: list[str] = []

    def confirm(text: str, abort: bool = False, **_: object) -> bool:
        asked.append(text)
        if abort and not said:
            raise click.Abort
        return said

    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(click, "confirm", confirm)
    return asked


def test_show_prints_what_is_there_and_leaves_it_so(stopped: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path.name: path.read_bytes() for path in stopped.iterdir() if path.name != "lock"}
    assert main(["recover", str(stopped), "--show"]) == 0
    said = capsys.readouterr().out
    assert "entries up to" in said and "were committed for certain" in said and "this disk cannot know" in said
    assert main(["recover", str(stopped), "--show", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    (row,) = shown["nodes"]
    assert (row["node_id"], row["items"], row["level"], row["recovered_as"]) == ("n1", 1, 1, "")
    assert row["index"] - row["committed"] == row["uncommitted"] and len(row["digest"]) == 32
    assert [member["id"] for member in row["members"]] == ["n1"] and shown["latest"] == str(stopped)
    assert {path.name: path.read_bytes() for path in stopped.iterdir() if path.name != "lock"} == before


def test_a_new_cluster_is_asked_for(
    stopped: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["recover", str(stopped), "--force-new-cluster"]
    assert answering(monkeypatch, said=False) == [] and main(command) == 130
    assert not (stopped / "recovery").exists()
    asked = answering(monkeypatch, said=True)
    assert main(command) == 0 and asked == ["Make a new cluster?"]
    said = capsys.readouterr()
    assert "will count as committed" in said.err and "takes the place of" in said.out
    assert (stopped / "recovery").is_file()
    monkeypatch.setattr(sys.stdin, "isatty", lambda: False, raising=False)
    assert main(command) == 2 and "give --yes" in capsys.readouterr().err


def test_the_node_goes_on_as_a_cluster_of_its_own(stopped: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recover", str(stopped), "--force-new-cluster", "--yes", "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert main(["recover", str(stopped), "--show", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["nodes"]
    assert (row["cluster_id"], row["recovered_as"]) == (made["replaced"][-1], made["cluster_id"])
    for _ in range(2):
        with ReplicatedStore(node_id="n1", raft_address="127.0.0.1:0", data_dir=stopped, **QUICK) as store:
            wait_for(lambda: store.set("more", "v"))
            item = store.get_item("k")
            assert item is not None and item.value == "v" and item.version > RECOVERY_RAISE
            assert item.version < 2 * RECOVERY_RAISE, "raised once, however often it is started"
            assert store.status()["cluster_id"] == made["cluster_id"]
            assert main(["recover", str(stopped), "--show"]) == 2
            assert "is in use by process" in capsys.readouterr().err
    assert main(["recover", str(stopped), "--show", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["nodes"]
    assert (row["cluster_id"], row["replaced"], row["recovered_as"]) == (made["cluster_id"], made["replaced"][-1], "")


def test_of_two_the_later_is_named_and_one_is_recovered(
    stopped: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other"
    shutil.copytree(stopped, other)
    with ReplicatedStore(node_id="n1", raft_address="127.0.0.1:0", data_dir=other, **QUICK) as store:
        wait_for(lambda: store.set("more", "v"))
    assert main(["recover", str(stopped), str(other), "--show"]) == 0
    assert f"the latest log is in {other}: term " in capsys.readouterr().out
    assert main(["recover", str(stopped), str(other), "--force-new-cluster", "--yes"]) == 2
    assert f"{other} has the latest log of these" in capsys.readouterr().err
    assert not (other / "recovery").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "give --show or --force-new-cluster"),
        (["--show", "--force-new-cluster"], "give --show or --force-new-cluster"),
        (["--show", "--peers", "x"], "--peers goes with --force-new-cluster"),
    ],
)
def test_one_of_two_things_is_asked_for(
    arguments: list[str], said: str, stopped: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["recover", str(stopped), *arguments]) == 2
    assert said in capsys.readouterr().err


def test_a_folder_that_is_no_data_directory_stays_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recover", str(tmp_path), "--show"]) == 2
    assert "is no data directory of a node" in capsys.readouterr().err
    assert main(["recover", str(tmp_path / "none"), "--show"]) == 2
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_journal_is_called_so(stopped: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (file,) = stopped.glob("journal-*.cfj")
    data = bytearray(file.read_bytes())
    data[200] ^= 1
    file.write_bytes(data)
    assert main(["recover", str(stopped), "--show"]) == 2
    assert "the journal is damaged" in capsys.readouterr().err
