"""The commands ``dump`` and ``load``: JSON lines there and back."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rest.fake_store import FakeStore

from cacheflow.cli import main
from cacheflow.files.backup import BackupMeta, written
from cacheflow.machine.language.fields import with_fields
from cacheflow.rest import HttpServer, RestConfig, create_app

SOON_MS = int(time.time() * 1000) + 3_600_000
HASH = with_fields(b"", [b"f", b"1"])[0]
ITEMS: list[list[Any]] = [
    ["text", "ü".encode(), 0, None, 0],
    ["bytes", b"\xff", 1, "image/png", 0],
    ["json", b'{"a":[1]}', 2, None, SOON_MS],
    ["flags", b"1", 0, 7, 0],
    ["\x013other", b"x", 0, None, 0],
    ["hash", HASH, 3, None, 0],
    ["over", b"x", 0, None, 1],
]
LINES = [
    {"key": "text", "value": "ü"},
    {"key": "bytes", "value": "/w==", "encoding": "base64", "content_type": "image/png"},
    {"key": "json", "value": {"a": [1]}, "expires_at_ms": SOON_MS},
    {"key": "flags", "value": "1", "flags": 7},
    {"key": "other", "value": "x", "database": 3},
    {"key": "hash", "value": {"f": "1"}, "type": "hash"},
    {"key": "over", "value": "x", "expires_at_ms": 1},
]
DATA = b"".join(written(BackupMeta(7, 2, "c1", 1000, 5, len(ITEMS)), ITEMS))


@pytest.fixture
def store() -> FakeStore:
    store = FakeStore()
    store.clock_ms = int(time.time() * 1000)
    store.backups.data = DATA
    return store


@pytest.fixture(autouse=True)
def server(store: FakeStore, monkeypatch: pytest.MonkeyPatch) -> Iterator[HttpServer]:
    with HttpServer(create_app(store, RestConfig()), "127.0.0.1", 0) as server:
        monkeypatch.setenv("CACHEFLOW_URL", f"http://127.0.0.1:{server.port}")
        # It is the leader, and the address that it is known by is another one.
        yield server


def run(capfd: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main.main(arguments)
    out, err = capfd.readouterr()
    return code, out, err


def test_contents_are_lines(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, out, _ = run(capfd, "dump")
    assert (code, [json.loads(line) for line in out.splitlines()]) == (0, LINES)
    (tmp_path / "backup").write_bytes(DATA)
    assert run(capfd, "dump", str(tmp_path / "backup"))[1] == out


def test_nothing_is_shown_of_what_is_damaged(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "backup").write_bytes(DATA[:-1])
    code, out, err = run(capfd, "dump", str(tmp_path / "backup"))
    assert (code, out, "damaged" in err) == (2, "", True)


def test_lines_are_loaded(capfd: pytest.CaptureFixture[str], store: FakeStore, tmp_path: Path) -> None:
    file = tmp_path / "lines"
    file.write_text("".join(json.dumps(line) + "\n" for line in LINES) + "\n")
    code, out, _ = run(capfd, "load", str(file), "--json")
    assert (code, json.loads(out)) == (1, {"loaded": 4, "expired": 1, "left_out": 2})
    found = {key: (*entry[:3], entry[4]) for key, entry in store.entries.items()}
    assert found.keys() == {"text", "bytes", "json", "flags"}
    assert found["text"][:2] == ("ü".encode(), 0)
    assert found["bytes"][:3] == (b"\xff", 1, "image/png")
    assert found["json"][:2] == (b'{"a":[1]}', 2)
    assert abs(found["json"][3] - SOON_MS) < 10_000


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "line 2 is not JSON"),
        ("[]", "line 2 is no object"),
        ('{"key": "k"}', "line 2 is no object"),
        ('{"key": "k", "value": "?", "encoding": "base64"}', "line 2: its value is no base64"),
        ('{"key": "k", "value": "x", "expires_at_ms": "soon"}', "line 2: expires_at_ms"),
        ('{"key": "", "value": "x"}', "the key is empty"),
        ('{"key": "k", "value": "x", "encoding": "rot13"}', "encoding"),
    ],
)
def test_a_line_that_is_none_is_named(
    capfd: pytest.CaptureFixture[str], store: FakeStore, tmp_path: Path, line: str, said: str
) -> None:
    file = tmp_path / "lines"
    file.write_text('{"key": "first", "value": 1}\n' + line + "\n")
    code, _, err = run(capfd, "load", str(file))
    assert (code, said in err, store.entries) == (2, True, {})
