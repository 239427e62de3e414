"""One browser, one cluster and one node with users for all tests here."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser.watched import DEADLINE_MS, Watched, launch, missing, watched
from cluster.processes import HERE, NodeProcess, Nodes
from playwright.sync_api import Browser, expect, sync_playwright

TOKENS = {role: f"cf_{role}_{'0' * 24}" for role in ("read", "write", "admin")}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put these tests behind all others: while Playwright is open, its event loop runs in the tests' thread."""
    items.sort(key=lambda item: Path(__file__).parent in item.path.parents)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    if why := missing():
        pytest.skip(why)
    expect.set_options(timeout=DEADLINE_MS)
    with sync_playwright() as playwright:
        started = launch(playwright)
        yield started
        started.close()


@pytest.fixture(scope="session")
def _shared(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    with Nodes(3, tmp_path_factory.mktemp("trio"), ["--max-items", "200000"]) as nodes:
        yield nodes


@pytest.fixture
def trio(_shared: Nodes) -> Nodes:
    """Three whole nodes without keys; a test may leave some killed, but not paused."""
    _shared.start()
    assert _shared[0].ask("DELETE", "/cache?all=true").status == 200
    return _shared


@pytest.fixture(scope="session")
def guarded(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    """A node whose users reader, writer and admin have the tokens of TOKENS."""
    folder = tmp_path_factory.mktemp("guarded")
    lines = [f"{role} {role} {hashlib.sha256(token.encode()).hexdigest()}\n" for role, token in TOKENS.items()]
    users, secret = folder / "users", folder / "secret"
    users.write_text("".join(lines))
    secret.write_text("s" * 32)
    for file in (users, secret):
        file.chmod(0o600)
    flags = ["--users-file", str(users), "--cluster-secret-file", str(secret)]
    place = HERE._replace(token=TOKENS["admin"])
    with Nodes(1, folder, flags, lambda _: place) as nodes:
        yield nodes.start()[0]


@pytest.fixture
def reader(browser: Browser) -> Iterator[Watched]:
    """A reader's browser, whose pages have to behave whatever a test does with them."""
    with watched(browser, viewport={"width": 1280, "height": 900}) as opened:
        yield opened
