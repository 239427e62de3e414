"""The secret that the launcher makes for its nodes."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest

from cacheflow.cli.launcher import LocalCluster
from cacheflow.cli.secret_file import make_secret
from cacheflow.config import read_secret
from cacheflow.errors import ConfigError

NOTHING = ("true",)


def told(cluster: LocalCluster, number: int = 0) -> list[str]:
    """The secret files that a node is told, the last of which counts."""
    arguments = cluster.children[number].arguments
    return [arguments[at + 1] for at, part in enumerate(arguments) if part == "--cluster-secret-file"]


def start(folder: Path, *flags: str) -> LocalCluster:
    cluster = LocalCluster(2, folder, flags=flags, say=lambda _: None, command=NOTHING)
    with cluster:
        cluster.start()
    return cluster


def test_a_secret_is_random_long_enough_and_nobody_else_s_to_read(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        make_secret(tmp_path / "one" / "secret")
        make_secret(tmp_path / "other")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "other").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "one" / "secret").stat().st_mode) == 0o600
    secret = read_secret(tmp_path / "other", "x")
    assert secret is not None and len(secret) == 64
    assert secret != read_secret(tmp_path / "one" / "secret", "x")


def test_what_is_there_stays_and_is_looked_at(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    make_secret(file)
    secret = file.read_bytes()
    make_secret(file)
    assert file.read_bytes() == secret
    assert list(tmp_path.iterdir()) == [file]
    file.write_bytes(b"short")
    with pytest.raises(ConfigError, match=r"secret'.*: must be one line of 16 to 4096 .* has 5 bytes"):
        make_secret(file)


def test_two_that_start_at_once_share_one_secret(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    found: list[bytes] = []

    def make() -> None:
        make_secret(file)
        found.append(file.read_bytes())

    threads = [threading.Thread(target=make) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 16 and len(set(found)) == 1
    assert list(tmp_path.iterdir()) == [file]


def test_where_none_can_be_made_the_reason_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"a secret cannot be made in .*: .*; give another --data-dir"):
        make_secret(tmp_path / "file" / "secret")


def test_all_nodes_are_told_the_secret_that_is_made_and_it_outlives_a_restart(tmp_path: Path) -> None:
    cluster = start(tmp_path)
    file = tmp_path / "cluster-secret"
    assert cluster.secret_file == file
    assert [told(cluster, number) for number in range(2)] == [[str(file)]] * 2
    secret = file.read_bytes()
    assert told(start(tmp_path)) == [str(file)]
    assert file.read_bytes() == secret


def test_no_file_is_made_before_the_nodes_are_started(tmp_path: Path) -> None:
    LocalCluster(2, tmp_path / "data")
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("way", ["flag", "flag=", "environment", "config", "config in the environment"])
def test_a_secret_that_is_given_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    given = str(tmp_path / "mine")
    config = tmp_path / "node.toml"
    config.write_text(f'cluster_secret_file = "{given}"\n')
    flags = {"flag": ("--cluster-secret-file", given), "flag=": (f"--cluster-secret-file={given}",)}.get(way, ())
    if way == "environment":
        monkeypatch.setenv("CACHEFLOW_CLUSTER_SECRET_FILE", given)
    elif way == "config":
        flags = ("--config", str(config))
    elif way == "config in the environment":
        monkeypatch.setenv("CACHEFLOW_CONFIG", str(config))
    cluster = start(tmp_path / "data", *flags)
    assert cluster.secret_file == Path(given)
    assert told(cluster) == ([given] if way == "flag" else [])
    assert not (tmp_path / "data" / "cluster-secret").exists()
