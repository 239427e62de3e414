"""Who has which token, and what becomes of that when the files change."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from cacheflow.access.roles import Role, User
from cacheflow.access.users import Access
from cacheflow.access.users_file import line_of, new_token
from cacheflow.config import NodeConfig
from cacheflow.errors import ConfigError

A, B = new_token(), new_token()
API = b"sixteen letters."


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    token, users = tmp_path / "token", tmp_path / "users"
    token.write_bytes(API)
    users.write_text(f"{line_of('a', Role.READ, A)}\n{line_of('b', Role.WRITE, B)}\n")
    return token, users


def known(access: Access, token: str) -> User:
    user = access.user_of(token.encode())
    assert user is not None
    return user


def test_a_token_is_its_users(files: tuple[Path, Path]) -> None:
    access = Access(*files)
    assert (known(access, A).name, known(access, A).role) == ("a", Role.READ)
    assert (known(access, B).name, known(access, B).role) == ("b", Role.WRITE)
    assert (known(access, API.decode()).name, known(access, API.decode()).role) == ("default", Role.ADMIN)
    for wrong in (b"", A.encode()[:-1], A.encode() + b"x", line_of("a", Role.READ, A).encode(), bytes(32)):
        assert access.user_of(wrong) is None


def test_a_token_that_can_be_guessed_from_its_hash_is_nobodys(files: tuple[Path, Path]) -> None:
    short, long = "hunter2-hunter2-hunte", "hunter2-hunter2-hunter"
    files[1].write_text(f"{line_of('a', Role.ADMIN, short)}\n{line_of('b', Role.ADMIN, long)}\n")
    access = Access(*files)
    assert access.user_of(short.encode()) is None and known(access, long).name == "b"


def test_one_token_is_not_two_users(files: tuple[Path, Path]) -> None:
    files[0].write_text(A)
    with pytest.raises(ConfigError, match="api-token-file: its token is one of --users-file, too"):
        Access(*files)


def test_a_change_counts_from_the_reload_on(files: tuple[Path, Path]) -> None:
    access = Access(*files)
    a, b = known(access, A), known(access, B)
    files[1].write_text(line_of("b", Role.READ, B))
    files[0].write_text("another sixteen letters")
    assert access.is_current(a) and access.is_current(b)
    assert access.reload()
    assert not access.is_current(a) and not access.is_current(b) and access.user_of(A.encode()) is None
    assert known(access, B).role == Role.READ and access.is_current(known(access, B))
    assert access.user_of(API) is None and known(access, "another sixteen letters").role == Role.ADMIN


def test_whoever_did_not_change_is_current_after_a_reload(files: tuple[Path, Path]) -> None:
    access = Access(*files)
    a = known(access, A)
    files[1].write_text(f"# only a\n{line_of('a', Role.READ, A)}\n")
    assert access.reload() and access.is_current(a)
    for changed in (line_of("c", Role.READ, A), line_of("a", Role.WRITE, A), line_of("a", Role.READ, B)):
        files[1].write_text(changed)
        assert access.reload() and not access.is_current(a)


@pytest.mark.parametrize("broken", [0, 1])
def test_a_new_file_that_is_wrong_changes_nothing_and_is_told(
    files: tuple[Path, Path], broken: int, caplog: pytest.LogCaptureFixture
) -> None:
    access = Access(*files)
    a = known(access, A)
    right = files[broken].read_bytes()
    assert access.check() == ("users", True, "as told") and access.metrics()["users_outdated"] == 0
    files[broken].write_bytes(b"a read")
    with caplog.at_level(logging.INFO):
        assert not access.reload()
    assert len(caplog.records) == 1 and "the users of before stay" in caplog.text
    assert access.is_current(a) and known(access, API.decode()).role == Role.ADMIN
    name, passed, detail = access.check()
    assert (name, passed) == ("users", True) and "those of before" in detail and str(files[1]) not in detail
    assert access.metrics()["users_outdated"] == 1 and access.metrics()["users"] == 3
    files[broken].write_bytes(right)
    assert access.reload() and access.check()[2] == "as told" and access.metrics()["users_outdated"] == 0


def test_refusals_are_counted_by_port_and_reason_alone() -> None:
    access = Access()
    for port, role in (("http", False), ("resp", True), ("http", False)):
        access.refuse(port, role)
    assert access.metrics() == {
        "users": 0,
        "users_outdated": 0,
        'access_refused_total{port="http",reason="token"}': 2,
        'access_refused_total{port="http",reason="role"}': 0,
        'access_refused_total{port="memcached",reason="token"}': 0,
        'access_refused_total{port="memcached",reason="role"}': 0,
        'access_refused_total{port="resp",reason="token"}': 0,
        'access_refused_total{port="resp",reason="role"}': 1,
    }


def test_without_files_nobody_is_asked(files: tuple[Path, Path]) -> None:
    assert Access.of(NodeConfig()) is None
    assert Access.of(NodeConfig(api_token_file=files[0])) is not None
    assert Access.of(NodeConfig(users_file=files[1], cluster_secret_file=files[0])) is not None
