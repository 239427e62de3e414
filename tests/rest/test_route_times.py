"""Which route an HTTP request counts for, and how it has ended, by method, path and status alone."""

from __future__ import annotations

import pytest
from rest.fake_store import FakeStore
from werkzeug.exceptions import HTTPException

from cacheflow.measuring.slow_log import SlowLog
from cacheflow.rest.app import RestApp
from cacheflow.rest.request.auth import NEEDS, route_name
from cacheflow.rest.route_times import RouteTimes, key_bytes_of, outcome_of, route_of

METHODS = ("GET", "HEAD", "PUT", "POST", "PATCH", "DELETE", "OPTIONS", "TRACE", "")
PATHS = (
    *("/", "", "/cache", "/cache/", "/cache/k", "/cache/a/b", "/cache/_batch", "/cache/k/incr", "/cache/k/touch"),
    *("/cache/incr", "/cache/{key}", "/nodes", "/nodes/", "/nodes/list", "/nodes/register", "/nodes/n1", "/nodes/{id}"),
    *("/nodes/n1/promote", "/nodes/n1/demote", "/nodes/n1/other", "/nodes/n1/promote/more", "/watch", "/scopes"),
    *("/cluster/status", "/cluster/leader", "/cluster/level", "/cluster/settings", "/cluster/digest", "/cluster/none"),
    *(
        "/backup",
        "/restore",
        "/livez",
        "/readyz",
        "/metrics",
        "/slow",
        "/openapi.json",
        "/slower",
        "/cache2/k",
    ),
    *("/page", "/page/", "/page/a.js", "/page/vendor/a.js", "/page//a.js", "/page/{name}", "/pages/a.js"),
    *("//cache/k", "///cache/k/incr", "//cache/_batch", "cache/k", "cache/_batch", "//livez", "//page/a.js"),
    *("{id}", "/{id}", "/scopes/{id}", "/livez/promote", "/nodes//promote"),
)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("path", PATHS)
def test_a_request_counts_for_the_route_that_the_application_gives_it(app: RestApp, method: str, path: str) -> None:
    with app.test_request_context("/none", method=method or "NONE", environ_overrides={"PATH_INFO": path}) as context:
        try:
            rule, _ = context.url_adapter.match(return_rule=True)  # type: ignore[union-attr]
            asked = "GET" if method == "HEAD" else method
            wanted = route_name(method, rule.rule) if route_name(asked, rule.rule) in NEEDS else "unknown"
        except HTTPException:
            wanted = "unknown"
    assert route_of(method, path, NEEDS) == wanted


@pytest.mark.parametrize(
    ("route", "status", "outcome"),
    [
        ("GET /cache/{key}", 200, "ok"),
        ("GET /cache/{key}", 304, "ok"),
        ("GET /cache/{key}", 404, "ok"),
        ("PUT /cache/{key}", 412, "ok"),
        ("PUT /cache/{key}", 400, "refused"),
        ("PUT /cache/{key}", 401, "refused"),
        ("POST /cache/{key}/incr", 409, "refused"),
        ("unknown", 404, "refused"),
        ("unknown", 412, "refused"),
        ("PUT /cache/{key}", 503, "error"),
        ("PUT /cache/{key}", 504, "error"),
        ("unknown", 500, "error"),
        ("GET /readyz", 503, "ok"),
        ("HEAD /livez", 503, "ok"),
        ("GET /readyz", 500, "error"),
    ],
)
def test_a_no_is_an_answer_and_a_fault_is_the_clients_or_the_nodes(route: str, status: int, outcome: str) -> None:
    assert outcome_of(route, status) == outcome


@pytest.mark.parametrize(
    ("route", "path", "key_bytes"),
    [
        ("GET /cache/{key}", "/cache/abc", 3),
        ("PUT /cache/{key}", "/cache/a/incr", 6),
        ("POST /cache/{key}/incr", "/cache/abcd/incr", 4),
        ("POST /cache/{key}/touch", "/cache/gr\xc3\xb6\xc3\x9fer/touch", 8),
        ("GET /cache/{key}", "//cache/abc", 3),
        ("GET /cache/{key}", "/cache//abc", 4),
        ("POST /cache/{key}/incr", "///cache/abcd/incr", 4),
        ("POST /cache/_batch", "/cache/_batch", None),
        ("DELETE /nodes/{id}", "/nodes/n1", None),
        ("unknown", "/cache/", None),
    ],
)
def test_a_slow_request_is_told_with_the_length_of_its_key(route: str, path: str, key_bytes: int | None) -> None:
    assert key_bytes_of(route, path) == key_bytes


def test_paths_that_clients_make_up_make_no_metric() -> None:
    times = RouteTimes(SlowLog(50), NEEDS)
    for number in range(100):
        times.note("GET", f"/path{number}", 404, 0.001, None, "")
        times.note(f"METHOD{number}", "/slow", 405, 0.001, None, "")
        times.note("GET", f"/cache/{number}", 200, 0.001, None, "")
    assert {name: histogram.count for name, histogram in times.times.metrics().items()} == {
        'request_seconds{front="http",command="GET /cache/{key}",outcome="ok"}': 100,
        'request_seconds{front="http",command="unknown",outcome="refused"}': 200,
    }


def test_only_what_was_slow_is_kept() -> None:
    store = FakeStore()
    times = RouteTimes(store.slow_log, NEEDS)
    times.note("GET", "/cache/quick", 200, 0.049, ("192.0.2.1", 5), "a")
    times.note("PUT", "/cache/slow", 503, 0.05, ("192.0.2.1", 5), "a")
    times.note("PUT", "/cache/slow", 503, 0.05, "", "b")
    told = [(*each[2:5], each.key_bytes, each.client, each.request_id) for each in store.slow_log.latest()]
    slow = ("http", "PUT /cache/{key}", "error", 4)
    assert told == [(*slow, "", "b"), (*slow, "192.0.2.1:5", "a")]
