"""Django's cache against three real nodes: what its own suite (``scripts/soak conformance django``) does not ask."""

from __future__ import annotations

import asyncio
import gc
import itertools
import os
import pickle
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from unittest import mock

import django
import pytest
from cluster.processes import Nodes, wait_for
from django.conf import settings
from django.core.cache import InvalidCacheKey, cache, caches
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpResponse
from django.template import Context, Engine
from django.test import RequestFactory, override_settings
from django.views.decorators.cache import cache_page

from cacheflow import ReplicationError
from cacheflow.integrations import django as backend
from cacheflow.integrations.django import CacheFlowCache

BACKEND = "cacheflow.integrations.django.CacheFlowCache"
_prefixes = itertools.count()


@pytest.fixture(scope="module", autouse=True)
def _django() -> Iterator[None]:
    settings.configure(
        SECRET_KEY="x",
        INSTALLED_APPS=["django.contrib.sessions"],
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
        USE_TZ=True,
    )
    django.setup()
    yield
    # The clients live as long as a process of a site, and other tests count threads.
    backend._shared.cache_clear()
    gc.collect()


@pytest.fixture
def make(urls: list[str]) -> Callable[..., Any]:
    """A function that makes a Django cache as the settings would; each test has a prefix of its own."""
    prefix = f"django-{next(_prefixes)}"

    def made(location: Any = None, **params: Any) -> Any:
        return CacheFlowCache(urls if location is None else location, {"KEY_PREFIX": prefix, **params})

    return made


@pytest.fixture
def default(urls: list[str]) -> Iterator[Any]:
    """Django's ``cache``, set to a prefix of its own."""
    named = {"BACKEND": BACKEND, "LOCATION": urls, "KEY_PREFIX": f"django-{next(_prefixes)}"}
    with override_settings(CACHES={"default": named}):
        yield cache


class Counted:
    """A function that counts its calls and takes ``seconds``."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.calls = 0
        self._seconds = seconds
        self._lock = threading.Lock()

    def __call__(self) -> int:
        with self._lock:
            self.calls += 1
        time.sleep(self._seconds)
        return self.calls


# get_or_set


def test_a_hundred_callers_on_three_nodes_compute_once(make: Callable[..., Any], urls: list[str]) -> None:
    nodes = [make(url, OPTIONS={"discover": False}) for url in urls]
    computed = Counted(0.2)
    with ThreadPoolExecutor(100) as pool:
        found = list(pool.map(lambda number: nodes[number % 3].get_or_set("page", computed, 60), range(100)))
    assert computed.calls == 1
    assert found == [1] * 100


def test_a_value_that_this_node_has_not_heard_of_is_not_computed_again(make: Callable[..., Any]) -> None:
    made = make()
    made.set("k", 7)
    made._client = client = mock.Mock(wraps=made._client)
    late = made._client.get

    def get(key: str, default: Any, consistency: str = "local") -> Any:
        return late(key, default, consistency=consistency) if consistency == "linearizable" else default

    client.get = get
    computed = Counted()
    assert made.get_or_set("k", computed, 60) == 7
    assert computed.calls == 0


def test_the_lock_of_a_caller_ends_with_its_lease(make: Callable[..., Any]) -> None:
    made = make(OPTIONS={"compute_lease": 5})
    lock = made._lock_of(made.make_key("k"))
    left = made.get_or_set("k", lambda: made._client.get_item(lock).ttl_s, 60)
    assert 3 < left <= 5
    assert lock not in made._client


def test_a_function_that_raises_lets_the_next_one_compute_at_once(make: Callable[..., Any]) -> None:
    made = make()

    def fails() -> int:
        raise RuntimeError("no database")

    with pytest.raises(RuntimeError, match="no database"):
        made.get_or_set("k", fails, 60)
    began = time.monotonic()
    assert made.get_or_set("k", lambda: 7, 60) == 7
    assert time.monotonic() - began < 5


def test_a_process_that_dies_while_it_computes_holds_the_others_no_longer_than_its_lease(
    make: Callable[..., Any],
) -> None:
    made = make(OPTIONS={"compute_lease": 0.5})
    lock = made._lock_of(made.make_key("k"))
    # Before the lock is set: its answer may be late, and the lease is from the lock's entry on.
    began = time.monotonic()
    made._client.set(lock, 1, ttl=0.5)
    assert made.get_or_set("k", lambda: 7, 60) == 7
    assert 0.45 < time.monotonic() - began < 5


def test_a_caller_that_has_waited_for_a_lease_computes_by_itself_and_leaves_the_lock(make: Callable[..., Any]) -> None:
    made = make(OPTIONS={"compute_lease": 0.3})
    lock = made._lock_of(made.make_key("k"))
    made._client.set(lock, 1, ttl=60)
    assert made.get_or_set("k", lambda: 7, 60) == 7
    assert lock in made._client


def test_a_function_that_outlives_its_lease_does_not_end_the_next_one_s(make: Callable[..., Any]) -> None:
    made = make(OPTIONS={"compute_lease": 0.2})
    lock = made._lock_of(made.make_key("k"))

    def slow() -> str:
        time.sleep(0.3)
        made._client.set(lock, 1, ttl=60)  # another's, who found that the lease had ended
        return "mine"

    assert made.get_or_set("k", slow, 60) == "mine"
    assert lock in made._client


def test_a_value_that_is_not_kept_is_computed_without_a_lock(make: Callable[..., Any]) -> None:
    made = make()
    made._client = client = mock.Mock(wraps=made._client)
    assert made.get_or_set("k", lambda: 7, 0) == 7
    assert [call[0] for call in client.method_calls] == ["get"]
    assert made.get("k") is None
    assert made.get_or_set("k", 8, 60) == made.get("k") == 8


# One command


def test_threads_on_three_nodes_count_exactly(make: Callable[..., Any], urls: list[str]) -> None:
    nodes = [make(url, OPTIONS={"discover": False}) for url in urls]
    nodes[0].set("hits", 0, None)

    def count(number: int) -> None:
        for _ in range(20):
            nodes[number % 3].incr("hits", 2)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(count, range(6)))
    assert nodes[0].decr("hits", 0) == 240


def test_incr_refuses_what_is_no_integer_and_keeps_the_timeout(make: Callable[..., Any]) -> None:
    made = make()
    with pytest.raises(ValueError, match="Key 'none' not found"):
        made.incr("none")
    made.set_many({"text": "5", "true": True, "large": 2**63 - 1}, 60)
    for key in ("text", "true", "large"):
        with pytest.raises(TypeError):
            made.incr(key)
    made.set("n", -5, 50)
    assert (made.incr("n"), made.decr("n", -10), type(made.get("n"))) == (-4, 6, int)
    assert 40 < made._client.get_item(made.make_key("n")).ttl_s <= 50


def test_a_value_is_in_one_version_while_many_move_it(make: Callable[..., Any]) -> None:
    made = make(TIMEOUT=40)
    made.set("k", "v", 1000, version=1)
    moved: list[int] = []

    def move(_: int) -> None:
        for version in range(1, 30):
            try:
                moved.append(made.incr_version("k", version=version))
            except ValueError:
                continue

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(move, range(4)))
    assert sorted(moved) == list(range(2, 31))
    assert [version for version in range(1, 31) if made.has_key("k", version=version)] == [30]
    assert 30 < made._client.get_item(made.make_key("k", version=30)).ttl_s <= 40
    assert made.incr_version("k", 0, version=30) == 30
    assert made.decr_version("k", 29, version=30) == 1
    assert made.get("k", version=1) == "v"


# Values, timeouts, keys


@pytest.mark.parametrize("timeout", [0, -1, 0.0])
def test_a_timeout_of_nothing_removes_the_key(make: Callable[..., Any], timeout: float) -> None:
    made = make()
    writes: list[Callable[[], Any]] = [
        lambda: made.set("k", 2, timeout),
        lambda: made.set_many({"k": 2}, timeout),
        lambda: made.touch("k", timeout),
    ]
    for write in writes:
        made.set("k", 1)
        write()
        assert made.get("k") is None
    assert made.add("k", 1, timeout) is True
    assert made.get("k") is None
    made.set("k", 1)
    assert made.add("k", 2, timeout) is False
    assert made.get("k") == 1


def test_timeouts_may_be_milliseconds_and_are_at_most_ten_years(make: Callable[..., Any]) -> None:
    made = make(TIMEOUT=50)
    made.set("default", 1)
    made.set("for-ever", 1, None)
    made.set("long", 1, 10**12)
    made.set("short", 1, 0.05)
    left = {key: made._client.get_item(made.make_key(key)).ttl_s for key in ("default", "for-ever", "long")}
    assert 40 < left["default"] <= 50
    assert left["for-ever"] is None
    assert 10 * 365 * 86400 - 100 < left["long"] <= 10 * 365 * 86400
    wait_for(lambda: made.get("short") is None, "the short timeout is over", 10)


@pytest.mark.parametrize("value", [None, True, 0, -(2**62), 2**70, 1.5, "", "5", b"\x00", (1, [2]), {1: {2}}])
def test_a_value_comes_back_as_it_was(make: Callable[..., Any], value: Any) -> None:
    made = make()
    made.set("k", value)
    assert (found := made.get("k", "default")) == value
    assert type(found) is type(value)
    assert made.get_many(["k", "none"]) == {"k": value}


def test_json_in_the_place_of_pickle(make: Callable[..., Any]) -> None:
    made = make(OPTIONS={"serializer": "json"})
    made.set("k", {"a": [1, "b", None]})
    assert made.get("k") == {"a": [1, "b", None]}


@pytest.mark.parametrize("key", ["a\nb", "a\x7f", "k" * 1024, "\ud800"])
def test_a_key_that_no_cluster_takes_is_refused(make: Callable[..., Any], key: str) -> None:
    made = make()
    for call in (made.get, made.delete, made.incr, lambda key: made.set(key, 1), lambda key: made.set_many({key: 1})):
        with pytest.raises(InvalidCacheKey):
            call(key)


@pytest.mark.filterwarnings("ignore::django.core.cache.CacheKeyWarning")
def test_blanks_and_long_keys_are_taken(make: Callable[..., Any]) -> None:
    made = make()
    for key in ("a b", "清", "k" * 900, 5):
        made.set(key, "v")
        assert made.get(key) == "v"


def test_clear_leaves_what_others_have_in_the_cluster(make: Callable[..., Any]) -> None:
    mine, others = make(), make(KEY_PREFIX="django-others")
    others.set("k", 1)
    others._client.set("django-foreign", 1)
    mine.set_many({"k": 1, "l": 2})
    mine.set("k", 1, version=7)
    mine.clear()
    assert (mine.get_many(["k", "l"]), mine.get("k", version=7)) == ({}, None)
    assert others.get("k") == 1
    assert others._client.get("django-foreign") == 1


def test_many_keys_are_one_call_of_the_client_each_way(make: Callable[..., Any]) -> None:
    made = make()
    made._client = client = mock.Mock(wraps=made._client)
    names = [f"k{number}" for number in range(100)]
    assert made.set_many(dict.fromkeys(names, "v")) == []
    assert made.get_many(iter(names)) == dict.fromkeys(names, "v")
    made.delete_many(names)
    assert made.get_many(names) == {}
    assert [call[0] for call in client.method_calls] == ["set_many", "get_many", "delete_many", "get_many"]


# Settings


def test_wrong_settings_are_told_at_once(make: Callable[..., Any]) -> None:
    with pytest.raises(ImproperlyConfigured, match="LOCATION is needed"):
        make("")
    with pytest.raises(ImproperlyConfigured, match="beside this site"):
        make("cacheflow+embedded:///tmp/never-made")
    with pytest.raises(ImproperlyConfigured, match="KEY_PREFIX is the one"):
        make(OPTIONS={"key_prefix": "x"})
    with pytest.raises(ImproperlyConfigured, match="compute_lease"):
        make(OPTIONS={"compute_lease": 0})
    with pytest.raises(ValueError, match="serializer"):
        make(OPTIONS={"MAX_ENTRIES": 30})


def test_caches_of_one_setting_share_a_client_which_outlives_a_request(default: Any) -> None:
    first = caches["default"]
    first.set("k", 1)
    first.close()
    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(lambda: caches["default"]).result()
    assert other is not first
    assert other._client is first._client
    assert other.get("k") == 1


def test_a_child_after_a_fork_has_connections_of_its_own(make: Callable[..., Any]) -> None:
    made = make()
    made.set("n", 0)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            for _ in range(20):
                made.incr("n")
            code = 0
        finally:
            os._exit(code)
    for _ in range(20):
        made.incr("n")
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert made.get("n") == 40


# asyncio


def test_every_method_has_its_coroutine_on_any_loop(make: Callable[..., Any]) -> None:
    made = make()

    async def use(turn: int) -> None:
        await made.aclear()
        assert await made.aset("k", turn) is None
        assert await made.aget("k") == turn
        assert await made.aadd("k", 5) is False
        assert await made.ahas_key("k") is True
        assert await made.aincr("k", 2) == turn + 2
        assert await made.adecr("k") == turn + 1
        assert await made.atouch("k", 50) is True
        assert await made.aincr_version("k") == 2
        assert await made.adecr_version("k", version=2) == 1
        assert await made.aset_many({"a": 1, "b": (2,)}) == []
        assert await made.aget_many(["a", "b", "c"]) == {"a": 1, "b": (2,)}
        await made.adelete_many(["a", "b"])
        assert await made.aget("a", "none") == "none"
        assert await made.adelete("k") is True
        assert await made.aget_or_set("k", lambda: 7) == await made.aget("k") == 7
        with pytest.raises(ValueError, match="not found"):
            await made.aincr("none")

    for turn in range(2):
        asyncio.run(use(turn))


def test_loops_in_several_threads_count_exactly(make: Callable[..., Any]) -> None:
    """As asynchronous views do under WSGI, where each request has a loop of its own."""
    made = make()
    made.set("n", 0)

    async def count() -> None:
        await asyncio.gather(*(made.aincr("n") for _ in range(10)))

    with ThreadPoolExecutor(5) as pool:
        for done in [pool.submit(asyncio.run, count()) for _ in range(10)]:
            done.result()
    assert made.get("n") == 100


def test_coroutines_compute_once(make: Callable[..., Any]) -> None:
    made = make()
    lock = made._lock_of(made.make_key("k"))
    computed = Counted()

    async def run() -> None:
        made._client.set(lock, 1, ttl=60)
        waiting = [asyncio.create_task(made.aget_or_set("k", computed, 60)) for _ in range(10)]
        await asyncio.sleep(0.1)
        waiting[0].cancel()
        made._client.delete(lock)
        found = await asyncio.gather(*waiting, return_exceptions=True)
        assert isinstance(found[0], asyncio.CancelledError)
        assert found[1:] == [1] * 9

    asyncio.run(run())
    assert computed.calls == 1


def test_a_cancelled_coroutine_frees_its_lock(make: Callable[..., Any]) -> None:
    made = make()
    lock = made._lock_of(made.make_key("k"))

    async def run() -> None:
        holds = asyncio.Event()

        async def get(key: str, default: Any, consistency: str = "local") -> Any:
            if consistency == "linearizable":
                holds.set()
                await asyncio.Event().wait()
            return default

        made._twin = mock.Mock(wraps=made._twin)
        made._twin.get = get
        task = asyncio.create_task(made.aget_or_set("k", lambda: 1, 60))
        await holds.wait()
        assert lock in made._client
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(run())
    assert lock not in made._client


def test_a_coroutine_that_is_cancelled_while_it_takes_the_lock_frees_it(make: Callable[..., Any]) -> None:
    made = make()
    lock = made._lock_of(made.make_key("k"))

    async def run() -> None:
        taken, told = asyncio.Event(), asyncio.Event()
        real = made._twin

        async def set_late(*args: Any, **kwargs: Any) -> Any:
            result = await real.set(*args, **kwargs)
            taken.set()
            await told.wait()
            return result

        made._twin = mock.Mock(wraps=real)
        made._twin.set = set_late
        task = asyncio.create_task(made.aget_or_set("k", lambda: 1, 60))
        await taken.wait()
        assert lock in made._client
        task.cancel()
        asyncio.get_running_loop().call_later(0.05, told.set)
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(run())
    assert lock not in made._client


# What Django builds on its cache


@pytest.mark.parametrize("engine", ["cache", "cached_db"])
def test_sessions(default: Any, engine: str) -> None:
    from importlib import import_module

    from django.contrib.sessions.models import Session
    from django.db import connection

    if Session._meta.db_table not in connection.introspection.table_names():
        with connection.schema_editor() as editor:
            editor.create_model(Session)
    store = import_module(f"django.contrib.sessions.backends.{engine}").SessionStore
    session = store()
    session["user"] = {"id": 5}
    session.save()
    assert store(session.session_key)["user"] == {"id": 5}
    session.flush()
    assert store(session.session_key).get("user") is None


def test_a_fragment_of_a_template_is_made_once(default: Any) -> None:
    template = Engine(libraries={"cache": "django.templatetags.cache"}).from_string(
        "{% load cache %}{% cache 60 sidebar user %}{{ made }}{% endcache %}"
    )
    made = Counted()
    assert template.render(Context({"made": made, "user": 1})) == "1"
    assert template.render(Context({"made": made, "user": 1})) == "1"
    assert template.render(Context({"made": made, "user": 2})) == "2"


def test_a_page_is_made_once(default: Any) -> None:
    made = Counted()
    view = cache_page(60)(lambda request: HttpResponse(str(made())))
    with override_settings(ALLOWED_HOSTS=["*"]):
        pages = [view(RequestFactory().get("/page", {"q": number % 2})).content for number in range(6)]
    assert sorted(pages) == [b"1"] * 3 + [b"2"] * 3


# Failures


def test_a_node_that_is_killed_is_a_pause_and_no_error(make: Callable[..., Any], frameworks: Nodes) -> None:
    made = make()
    made.set("n", 0, None)
    killed = frameworks.leader()
    for number in range(60):
        if number == 20:
            killed.kill()
        assert made.incr("n") == number + 1
        made.set(f"k{number}", number)
        assert made.get(f"k{number}") == number
    frameworks.start()


def test_without_any_node_calls_raise_in_time(make: Callable[..., Any]) -> None:
    nobody = make("http://127.0.0.1:9", OPTIONS={"timeout": 1.0})
    calls: list[Callable[[], Any]] = [
        lambda: nobody.get("k"),
        lambda: nobody.set("k", 1),
        lambda: nobody.get_or_set("k", lambda: 1),
    ]
    for call in calls:
        began = time.monotonic()
        with pytest.raises(ReplicationError):
            call()
        assert time.monotonic() - began < 3


def test_what_cannot_be_pickled_is_refused(make: Callable[..., Any]) -> None:
    made = make()

    class Unpicklable:
        def __reduce__(self) -> str:
            raise pickle.PicklingError("no")

    for write in (made.set, made.add):
        with pytest.raises(pickle.PickleError):
            write("k", Unpicklable())
