"""dogpile.cache over three nodes: regions, and locks that hold in the whole cluster. Its suite is one of tests/conformance."""

from __future__ import annotations

import configparser
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from dogpile.cache import make_region, register_backend
from dogpile.cache.api import NO_VALUE

from cacheflow import ConfigError, ReplicationError, open_cache
from cacheflow.integrations.dogpile import CacheFlowBackend, Mutex

ROOT = Path(__file__).resolve().parents[2]

register_backend("tested", "cacheflow.integrations.dogpile", "CacheFlowBackend")  # type: ignore[no-untyped-call]


def region(urls: list[str], prefix: str, expiration_time: float = 60, **arguments: Any) -> Any:
    return make_region().configure(
        "tested", expiration_time=expiration_time, arguments={"urls": urls, "key_prefix": prefix, **arguments}
    )


def mutex(urls: list[str], key: str, lease_s: float = 30) -> Mutex:
    return Mutex(open_cache(urls), key, lease_s)


def test_an_installed_cacheflow_is_found_by_its_name(tmp_path: Path) -> None:
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg")
    folder = tmp_path / "cacheflow-0.1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: cacheflow\nVersion: 0.1.0\n")
    (folder / "entry_points.txt").write_text(f"[dogpile.cache]\n{settings['options.entry_points']['dogpile.cache']}\n")
    program = """
from dogpile.cache import make_region
region = make_region().configure("cacheflow", arguments={"urls": "http://127.0.0.1:1"})
print(type(region.backend).__module__)
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONPATH": f"{tmp_path}:{ROOT}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == "cacheflow.integrations.dogpile", done.stderr


def test_values_keep_their_age_and_the_cluster_drops_them(urls: list[str], heard: Callable[[], None]) -> None:
    here, there = (region([url], "dog-values", cacheflow_expiration_time=50) for url in urls[:2])
    here.set("k", {"a": {1}})
    heard()
    assert there.get("k") == {"a": {1}}
    assert there.get("k", expiration_time=-1) is NO_VALUE
    item = open_cache(urls, key_prefix="dog-values").get_item("k")
    assert item is not None and item.ttl_s == pytest.approx(50, abs=5)
    there.set_multi({"l": 1, "m": 2})
    heard()
    assert here.get_multi(["l", "none", "m"]) == [1, NO_VALUE, 2]
    here.delete_multi(["l", "none"])
    here.delete("k")
    heard()
    assert there.get_multi(["k", "l"]) == [NO_VALUE, NO_VALUE]


def test_what_others_have_written_there_is_no_value(urls: list[str]) -> None:
    open_cache(urls, key_prefix="dog-others").set("k", "a text")
    assert region(urls, "dog-others").get("k") is NO_VALUE


def test_keys_of_any_kind_work(urls: list[str]) -> None:
    cached = region(urls, "dog-keys")
    for number, key in enumerate(["", "a\nb", "k" * 5000]):
        cached.set(key, number)
        assert cached.get(key) == number


def test_one_of_many_threads_on_three_nodes_makes_the_value(urls: list[str]) -> None:
    regions = [region([url], "dog-once", distributed_lock=True) for url in urls]
    made: Counter[str] = Counter()

    def make() -> str:
        made["k"] += 1
        time.sleep(0.2)
        return "value"

    got = []
    threads = [
        threading.Thread(target=lambda r=each: got.append(r.get_or_create("k", make)))
        for each in regions
        for _ in range(10)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (made["k"], Counter(got)) == (1, {"value": 30})


def test_a_creator_that_fails_frees_the_lock(urls: list[str]) -> None:
    cached = region(urls, "dog-fails", distributed_lock=True)

    def fail() -> str:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        cached.get_or_create("k", fail)
    assert cached.get_or_create("k", lambda: "made") == "made"


def test_a_lock_holds_in_the_whole_cluster(urls: list[str], heard: Callable[[], None]) -> None:
    here, there = mutex(urls[:1], "dog-lock"), mutex(urls[1:], "dog-lock")
    assert here.acquire()
    assert (here.acquire(False), there.acquire(False)) == (False, False)
    waiter = threading.Thread(target=there.acquire)
    waiter.start()
    time.sleep(0.05)
    assert waiter.is_alive()
    here.release()
    waiter.join(20)
    assert not waiter.is_alive()
    heard()
    assert here.locked()
    there.release()
    assert not there.locked()


def test_the_lock_of_a_killed_holder_ends_with_its_lease(urls: list[str]) -> None:
    # Before the lock is asked for: its answer may be late, and the lease is from the lock's entry on.
    began, waiting = time.monotonic(), mutex(urls, "dog-lease")
    assert mutex(urls, "dog-lease", 0.3).acquire()
    while not waiting.acquire(False):
        assert time.monotonic() < began + 20
        time.sleep(0.02)
    assert time.monotonic() > began + 0.25


def test_a_late_release_leaves_the_next_holder_s_lock(urls: list[str]) -> None:
    late, next_one = mutex(urls, "dog-late", 0.2), mutex(urls, "dog-late")
    assert late.acquire()
    assert next_one.acquire()
    late.release()
    assert next_one.locked()
    next_one.release()
    with pytest.raises(RuntimeError):
        next_one.release()


def test_arguments_are_checked_and_those_of_others_let_pass() -> None:
    with pytest.raises(ConfigError, match="urls"):
        CacheFlowBackend({})
    backend = CacheFlowBackend({"urls": "http://127.0.0.1:1", "host": "of another"})
    assert (backend.get_mutex("k"), backend.has_lock_timeout()) == (None, False)


def test_without_a_node_a_region_raises_in_time() -> None:
    cached = region(["http://127.0.0.1:1"], "dog-nobody", distributed_lock=True, timeout=0.2)
    with pytest.raises(ReplicationError):
        cached.get("k")
    with pytest.raises(ReplicationError):
        cached.get_or_create("k", lambda: "made")
    lock = Mutex(open_cache("http://127.0.0.1:1", timeout=0.2), "dog-nobody", 5)
    for _ in range(2):
        with pytest.raises(ReplicationError):
            lock.acquire(False)
