"""What a file of users may hold, and what is said of one that is wrong."""

from __future__ import annotations

import codecs
import hashlib
import os
from pathlib import Path

import pytest
from access.table import DOCUMENT

from cacheflow.access.roles import Role
from cacheflow.access.users_file import line_of, new_token, read_users
from cacheflow.errors import ConfigError

HASH = hashlib.sha256(b"one").hexdigest()
OTHER = hashlib.sha256(b"two").hexdigest()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "users"


def test_what_the_command_prints_is_a_user(path: Path) -> None:
    token = new_token()
    path.write_text(line_of("web-1", Role.WRITE, token))
    [user] = read_users(path).values()
    assert (user.name, user.role, user.digest) == ("web-1", Role.WRITE, hashlib.sha256(token.encode()).digest())


def test_tokens_are_different_long_and_no_hashes() -> None:
    tokens = {new_token() for _ in range(100)}
    assert len(tokens) == 100
    assert all(len(token) == 46 and token.startswith("cf_") and token.isascii() for token in tokens)


@pytest.mark.parametrize(
    "content",
    [
        f"# who may\n\na read {HASH}\nb admin {OTHER}\n".encode(),
        codecs.BOM_UTF8 + f"a read {HASH}\r\nb admin {OTHER}\r\n\r\n".encode(),
        f"  a\tread   {HASH.upper()}  \n   # b\nb admin {OTHER}".encode(),
    ],
)
def test_blanks_comments_line_ends_and_a_byte_order_mark_do_not_count(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    assert {user.name: user.role for user in read_users(path).values()} == {"a": Role.READ, "b": Role.ADMIN}


def test_the_file_that_the_document_shows_is_right(path: Path) -> None:
    path.write_text(DOCUMENT.read_text().partition("```text\n")[2].partition("```")[0])
    assert {user.name: user.role for user in read_users(path).values()} == {"web": Role.WRITE, "grafana": Role.READ}


SECRET = "cf_hunter2-hunter2-hunter2-hunter2"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "names no user"),
        (b"# only\n", "names no user"),
        (f"a read {HASH}\na write {OTHER}\n", "line 2: has the name of line 1"),
        (f"a read {HASH}\nb write {HASH.upper()}\n", "line 2: has the hash of line 1"),
        (f"a king {HASH}\n", "line 1: the second word is the role; it must be read, write, admin"),
        (f"a nobody {HASH}\n", "line 1: the second word"),
        (f"a READ {HASH}\n", "line 1: the second word"),
        (f"a read {SECRET}\n", "line 1: the third word must be the SHA-256"),
        (f"a read {HASH[:-1]}\n", "line 1: the third word"),
        (f"a read sha256:{HASH}\n", "line 1: the third word"),
        (f"{SECRET} read\n", "line 1: must be NAME ROLE HASH, .* it has 2 words"),
        (f"{SECRET}\n", "it has 1 words"),
        (f"a read {HASH} {SECRET}\n", "it has 4 words"),
        (f"default admin {HASH}\n", "line 1: the first word is the name; .* not 'default'"),
        (f"a/{SECRET} read {HASH}\n", "line 1: the first word"),
        (f"{'x' * 64} read {HASH}\n", "line 1: the first word"),
        (f"ä read {HASH}\n", "line 1: the first word"),
        (b"\xff\xfea", "is not UTF-8"),
        (b"\n" * (1024 * 1024 + 1), "is over"),
    ],
)
def test_anything_else_is_refused_by_line_and_never_shown(path: Path, content: str | bytes, said: str) -> None:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(ConfigError, match=rf"users-file = '.*users': .*{said}") as caught:
        read_users(path)
    assert SECRET not in str(caught.value) and HASH not in str(caught.value)


def test_a_file_that_everybody_may_write_to_is_refused(path: Path) -> None:
    path.write_text(f"a read {HASH}\n")
    path.chmod(0o646)
    with pytest.raises(ConfigError, match="everybody on this machine may write to it"):
        read_users(path)
    path.chmod(0o644)
    assert len(read_users(path)) == 1


def test_what_is_no_file_is_refused_at_once(path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read_users(path)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_users(path.parent)
    os.mkfifo(path)
    with pytest.raises(ConfigError, match="is no regular file"):
        read_users(path)
