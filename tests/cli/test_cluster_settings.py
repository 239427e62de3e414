"""``cacheflow settings``: shown, changed, and refused."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from rest.fake_store import FakeStore

from cacheflow.cli import main
from cacheflow.rest import HttpServer, RestConfig, create_app


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeStore]:
    store = FakeStore()
    with HttpServer(create_app(store, RestConfig()), "127.0.0.1", 0) as server:
        monkeypatch.setenv("CACHEFLOW_URL", f"http://127.0.0.1:{server.port}")
        yield store


def run(capfd: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main.main(arguments)
    out, err = capfd.readouterr()
    return code, out, err


def test_they_are_shown_as_a_table_or_json(store: FakeStore, capfd: pytest.CaptureFixture[str]) -> None:
    code, shown, _ = run(capfd, "settings")
    rows = dict(row.split(maxsplit=1) for row in shown.splitlines())
    assert code == 0
    assert rows["max_items"] == "1000" and rows["max_bytes"] == "none" and rows["eviction"] == "lru"
    assert rows["version"] == "1" and rows["changed_by"] == "-" and rows["changed_at"] == "1970-01-01 00:00:00Z"
    assert json.loads(run(capfd, "settings", "--json")[1])["max_bytes"] is None


def test_some_are_changed(store: FakeStore, capfd: pytest.CaptureFixture[str]) -> None:
    told = run(capfd, "settings", "set", "max-items", "none", "eviction", "lfu", "max_bytes", "4096", "--json")
    assert told[0] == 0
    changed = json.loads(told[1])
    assert (changed["max_items"], changed["eviction"], changed["max_bytes"]) == (None, "lfu", 4096)
    assert store.replicated.version == 2
    assert run(capfd, "settings", "set", "max-items", "7", "--if-version", "2")[0] == 0
    assert run(capfd, "settings", "set", "max-items", "8", "--if-version", "2")[0] == 1
    assert store.replicated.max_items == 7


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("max-items", "7"), "settings set NAME VALUE"),
        (("set",), "settings set NAME VALUE"),
        (("set", "max-items"), "settings set NAME VALUE"),
        (("set", "max-items", "7", "eviction"), "settings set NAME VALUE"),
        (("set", "max-items", "7", "max_items", "8"), "twice"),
        (("set", "only-if-version", "7"), "--if-version"),
        (("--if-version", "1"), "--if-version"),
        (("set", "max-items", "many"), "max_items"),
        (("set", "max-items", "0"), "max_items"),
        (("set", "eviction", "none"), "eviction"),
        (("set", "speed", "7"), "speed"),
    ],
)
def test_what_makes_no_sense_is_told(
    words: tuple[str, ...], named: str, store: FakeStore, capfd: pytest.CaptureFixture[str]
) -> None:
    code, _, said = run(capfd, "settings", *words)
    assert code in (1, 2) and named in said
    assert store.replicated.version == 1
