"""Celery by its own result back end, with a real worker and a broker in memory; and by its Redis back end on the RESP port."""

from __future__ import annotations

import pickle
import re
import threading
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from celery import Celery, chain, chord, group
from celery.backends.redis import RedisBackend
from celery.contrib.testing.worker import start_worker
from celery.exceptions import BackendStoreError
from celery.result import allow_join_result
from celery.signals import setup_logging
from cluster.processes import Nodes

from cacheflow.errors import NotCommitted, OutcomeUnknown
from cacheflow.integrations.celery import COMPLETE, CacheFlowBackend

BACKEND = "cacheflow.integrations.celery:CacheFlowBackend+"
# Seconds for a result, polled so often.
WAIT: dict[str, Any] = {"timeout": 25, "interval": 0.02}


def url_of(urls: list[str], rest: str = "") -> str:
    return "cacheflow://" + ",".join(url.removeprefix("http://") for url in urls) + rest


def app_of(backend: str, **settings: Any) -> Celery:
    """Return an application with its own queue and the tasks of this file."""
    name = f"tests-{uuid.uuid4().hex}"
    app = Celery(name, broker="memory://", backend=backend, set_as_current=False)
    app.conf.update(
        task_default_queue=name,
        broker_transport_options={"polling_interval": 0.01},
        **settings,
    )

    @app.task(name="add", shared=False)  # type: ignore[untyped-decorator]
    def add(x: int, y: int) -> int:
        return x + y

    @app.task(name="total", shared=False)  # type: ignore[untyped-decorator]
    def total(numbers: list[int]) -> int:
        return sum(numbers)

    @app.task(name="fail", shared=False)  # type: ignore[untyped-decorator]
    def fail() -> None:
        raise ValueError("on purpose")

    return app


def _no_logging(**_: object) -> None:
    """Leave logging as it is."""


@pytest.fixture(scope="module")
def working(_frameworks: Nodes) -> Iterator[Celery]:
    """An application with a worker of four threads, whose task ``redis`` has the stock Redis back end."""
    # With somebody who sets up logging Celery leaves that of the other tests alone.
    setup_logging.connect(_no_logging)
    nodes = _frameworks.start()
    app = app_of(BACKEND + url_of([node.url for node in nodes.all]))
    (port,) = re.findall(r"resp protocol on 127.0.0.1:(\d+)", nodes[1].output())[-1:]

    @app.task(name="redis", shared=False, backend=RedisBackend(f"redis://127.0.0.1:{port}/0", app=app))  # type: ignore[untyped-decorator]
    def redis(x: int, y: int) -> int:
        return x + y

    with start_worker(app, pool="threads", concurrency=4, perform_ping_check=False), allow_join_result():
        yield app


@pytest.fixture
def app(urls: list[str]) -> Celery:
    return app_of(BACKEND + url_of(urls))


def test_tasks_groups_and_chords(working: Celery) -> None:
    add, total, fail = (working.tasks[name] for name in ("add", "total", "fail"))
    assert add.delay(2, 3).get(**WAIT) == 5
    with pytest.raises(ValueError, match="on purpose"):
        fail.delay().get(**WAIT)
    many = group(add.s(i, i) for i in range(10)).apply_async()
    assert many.get(**WAIT) == [2 * i for i in range(10)]
    many.save()
    assert working.GroupResult.restore(many.id).get(**WAIT) == [2 * i for i in range(10)]
    many.delete()
    assert working.GroupResult.restore(many.id) is None
    assert chord((add.s(i, i) for i in range(20)), total.s()).delay().get(**WAIT) == 380
    nested = chord([group(add.s(1, 1), add.s(2, 2)), add.s(3, 3)], total.s())
    assert nested.delay().get(**WAIT) == 12
    broken = chord([add.s(1, 1), fail.s()], total.s()).delay()
    with pytest.raises(Exception, match="on purpose"):
        broken.get(**WAIT)


def test_tasks_and_groups_by_the_stock_redis_back_end(working: Celery) -> None:
    redis = working.tasks["redis"]
    assert redis.delay(2, 3).get(**WAIT) == 5
    assert group(redis.s(i, i) for i in range(10)).apply_async().get(**WAIT) == [2 * i for i in range(10)]


def test_a_node_is_killed_in_the_middle_of_chords(working: Celery, frameworks: Nodes) -> None:
    add, total = working.tasks["add"], working.tasks["total"]
    bodies = []
    for each in range(6):
        bodies.append(chord((add.s(i, each) for i in range(10)), total.s()).delay())
        if each == 2:
            frameworks.leader().kill()
    assert [body.get(**WAIT) for body in bodies] == [45 + 10 * each for each in range(6)]


def test_parts_of_a_chord_are_counted_exactly(app: Celery) -> None:
    key = f"chord-unlock-{uuid.uuid4()}"
    counted: list[int] = []

    def count() -> None:
        backend = CacheFlowBackend(app, url=app.backend.url)
        counted.extend(backend.incr(key) for _ in range(10))

    threads = [threading.Thread(target=count) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(counted) == list(range(1, 81))
    app.backend.delete(key)


@pytest.mark.parametrize("options", ["", "?serializer=pickle&key_prefix=p"])
def test_a_chord_that_is_sent_twice_is_complete_with_the_last_of_its_parts(urls: list[str], options: str) -> None:
    app = app_of(BACKEND + url_of(urls, options))
    group_id = str(uuid.uuid4())
    key = app.backend.get_key_for_chord(group_id)
    assert app.backend.incr(key) == 1
    # As by a task before the chord that a broker has delivered twice, or by who tries again after the broker was away.
    for _ in range(3):
        app.backend.set_chord_size(group_id, 3)
    assert [app.backend.incr(key) for _ in range(2)] == [COMPLETE - 1, COMPLETE]
    app.backend.set_chord_size(group_id, 3)
    assert app.backend.incr(key) == COMPLETE + 1
    app.backend.delete(key)


def test_a_chord_learns_its_size_while_its_parts_are_counted(app: Celery) -> None:
    group_id, parts = str(uuid.uuid4()), 40
    key = app.backend.get_key_for_chord(group_id)
    counted: list[int] = []

    def count() -> None:
        backend = CacheFlowBackend(app, url=app.backend.url)
        counted.extend(backend.incr(key) for _ in range(parts // 4))

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    app.backend.set_chord_size(group_id, parts + 1)
    # The last one is sent only then.
    counted.append(app.backend.incr(key))
    for thread in threads:
        thread.join()
    assert counted.count(COMPLETE) == 1 and max(counted) == COMPLETE
    app.backend.delete(key)


def test_results_and_counters_expire(urls: list[str]) -> None:
    app = app_of(BACKEND + url_of(urls), result_expires=60, result_chord_expires=30, result_failure_expires=5)
    backend = app.backend

    def ttl(key: str) -> float | None:
        item = backend.client.get_item(key, consistency="linearizable")
        return None if item is None else item.ttl_s

    backend.mark_as_done("expiring", 1)
    backend.mark_as_failure("failing", ValueError("x"))
    backend.incr("chord-unlock-expiring")
    left = [ttl(f"{key}ing") for key in ("celery-task-meta-expir", "celery-task-meta-fail", "chord-unlock-expir")]
    assert [round((each or 0) / 5) * 5 for each in left] == [60, 5, 30]
    backend.expire("celery-task-meta-expiring", 0)
    assert ttl("celery-task-meta-expiring") is None
    for task in ("expiring", "failing"):
        backend.forget(task)
    assert ttl("celery-task-meta-failing") is None
    for_ever = app_of(BACKEND + url_of(urls), result_expires=None).backend
    for_ever.mark_as_done("for-ever", 1)
    assert for_ever.client.get_item("celery-task-meta-for-ever").ttl_s is None


def test_a_result_that_is_too_large_is_told_as_celery_does(app: Celery) -> None:
    with pytest.raises(BackendStoreError, match="bytes"):
        app.backend.mark_as_done("large", "x" * 2_000_000)


def test_results_are_read_through_the_log(app: Celery, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker asks its own node, which may not have yet what another one has just been told."""
    asked: list[Any] = []

    class Client:
        def get(self, key: str, **options: Any) -> None:
            asked.append((key, options))

        def get_many(self, keys: list[str], **options: Any) -> dict[str, Any]:
            asked.append((keys, options))
            return {}

    monkeypatch.setitem(app.backend.__dict__, "client", Client())
    assert app.backend.get("k") is None and app.backend.mget(["k", "l"]) == {}
    assert asked == [("k", {"consistency": "linearizable"}), (["k", "l"], {"consistency": "linearizable"})]


def test_pickled_results(urls: list[str]) -> None:
    url = url_of(urls, "?key_prefix=celery&timeout=20")
    app = app_of(BACKEND + url, result_serializer="pickle", accept_content=["pickle", "json"])
    app.backend.mark_as_done("pickled", {1: (2, b"\x00")})
    assert app.AsyncResult("pickled").get(**WAIT) == {1: (2, b"\x00")}


def test_the_back_end_comes_back_from_a_pickle_and_shows_no_password(urls: list[str]) -> None:
    backend = app_of(BACKEND + url_of(urls)).backend
    assert backend.as_uri() == backend.url
    assert CacheFlowBackend(backend.app, url="cacheflow://:secret@a:1,b:2").as_uri() == "cacheflow://**@a:1,b:2"
    again = pickle.loads(pickle.dumps(backend))
    assert (again.url, again.expires) == (backend.url, backend.expires)


def test_no_node_answers() -> None:
    backend = app_of(BACKEND + "cacheflow://127.0.0.1:1?timeout=0.5").backend
    calls: list[tuple[Callable[..., Any], tuple[str, ...]]] = [
        (backend.get, ("k",)),
        (backend.set, ("k", "v")),
        (backend.incr, ("k",)),
    ]
    for call, arguments in calls:
        with pytest.raises((NotCommitted, OutcomeUnknown)) as caught:
            call(*arguments)
        assert backend.exception_safe_to_retry(caught.value)
    assert not backend.exception_safe_to_retry(ValueError())


# The last ones: a worker that stops has all workers of this process stop.
def test_a_group_in_a_chain_in_a_group_ends_with_a_worker_that_does_one_thing_at_a_time(app: Celery) -> None:
    add, total = app.tasks["add"], app.tasks["total"]
    inner = chain(add.si(1, 200), group(add.si(1, 1000), add.si(1, 2000)))
    with start_worker(app, pool="solo", perform_ping_check=False), allow_join_result():
        for parts in ([add.si(1, 100), inner], [inner, add.si(1, 100)]):
            assert chain(add.si(1, 0), group(parts), add.si(1, 10))().get(**WAIT) == 11
        # One who takes an earlier part for the last one may run the body twice, or with less.
        flat = chord([group(add.si(1, 1), add.si(2, 2)), group(add.si(3, 3), add.si(4, 4))], total.s())
        assert flat().get(**WAIT) == 20


def test_a_chord_behind_a_task_that_is_delivered_twice_is_continued(
    app: Celery, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended, sent, send = threading.Event(), [], app.amqp.send_task_message

    @app.task(name="end", shared=False)  # type: ignore[untyped-decorator]
    def end(numbers: list[int]) -> None:
        ended.set()

    def doubled(*arguments: Any, **options: Any) -> Any:
        sent.append(arguments)
        if len(sent) == 1:
            send(*arguments, **options)
        return send(*arguments, **options)

    add = app.tasks["add"]
    monkeypatch.setattr(app.amqp, "send_task_message", doubled)
    with start_worker(app, pool="solo", perform_ping_check=False):
        chain(add.s(1, 1), group(add.s(1), add.s(2)), end.s())()
        assert ended.wait(25)
