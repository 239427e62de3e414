"""Health, metrics and the specification."""

from __future__ import annotations

import re

from fakes.users import access_of
from rest.client import Client
from rest.fake_store import FakeStore

from cacheflow.access.roles import Role
from cacheflow.rest.app import RestApp, create_app
from cacheflow.rest.request.auth import NEEDS, route_name
from cacheflow.rest.request.context import RestConfig
from cacheflow.rest.routes.metrics import prometheus_text


def test_alive_and_ready_are_a_plain_ok(client: Client) -> None:
    for path in ("/livez", "/readyz"):
        answer = client.get(path)
        assert (answer.status_code, answer.data) == (200, b"ok")
        assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"


def test_verbose_has_a_line_a_check(client: Client) -> None:
    assert client.get("/readyz?verbose").data == b"[+]leader ok\n[+]applied ok\nreadyz check passed\n"
    assert client.get("/livez?verbose").data == b"[+]loop ok\nlivez check passed\n"
    assert client.get("/livez?verbose=perhaps").status_code == 400


def test_a_node_without_a_leader_is_alive_but_not_ready(client: Client, store: FakeStore) -> None:
    store.ready = [("leader", False, "none known for 3 s"), ("applied", True, "")]
    answer = client.get("/readyz")
    assert answer.status_code == 503
    assert answer.data == b"[-]leader failed: none known for 3 s\n[+]applied ok\nreadyz check failed\n"
    assert client.get("/livez").status_code == 200


def test_metrics_are_prometheus_text(client: Client) -> None:
    answer = client.get("/metrics")
    assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    lines = answer.text.splitlines()
    assert "# TYPE cacheflow_hits_total counter" in lines
    assert "# TYPE cacheflow_items gauge" in lines
    assert "cacheflow_items 0" in lines
    assert 'cacheflow_peer_lag{peer="c"} 7.5' in lines
    assert lines.count("# TYPE cacheflow_peer_lag gauge") == 1
    assert "cacheflow_http_waiting_requests_max 158" in lines
    sample = re.compile(r'[a-z_]+(\{[a-z]+="[^"]*"\})? [-+0-9.eInfNa]+')
    assert all(line.startswith("# ") or sample.fullmatch(line) for line in lines)


def test_every_metric_is_explained_even_an_unknown_one() -> None:
    text = prometheus_text({"strange_new_thing": float("nan"), "up": float("inf"), "down": float("-inf"), "big": 2e15})
    assert "# HELP cacheflow_strange_new_thing Strange new thing.\n" in text
    assert "cacheflow_strange_new_thing NaN\n" in text
    assert "cacheflow_up +Inf\n" in text
    assert "cacheflow_down -Inf\n" in text
    assert "cacheflow_big 2000000000000000\n" in text


def test_metrics_are_json_for_who_asks(client: Client) -> None:
    for answer in (
        client.get("/metrics?format=json"),
        client.get("/metrics", headers={"Accept": "application/json"}),
    ):
        assert answer.content_type == "application/json"
        assert answer.json["hits_total"] == 2
    browser = client.get("/metrics", headers={"Accept": "text/html,*/*;q=0.8"})
    assert browser.content_type.startswith("text/plain")
    assert client.get("/metrics?format=prometheus", headers={"Accept": "application/json"}).text.startswith("# HELP")
    assert client.get("/metrics?format=xml").status_code == 400


def test_the_specification_lists_every_route_and_no_other(app: RestApp, client: Client) -> None:
    document = client.get("/openapi.json").json
    assert document["openapi"].startswith("3.1")
    specified = {
        (path, method)
        for path, item in document["paths"].items()
        for method in item
        if method in ("get", "head", "put", "post", "patch", "delete")
    }
    served = {
        (re.sub(r"<(?:\w+:)?(?:raw_)?(\w+)>", r"{\1}", rule.rule), method.lower())
        for rule in app.url_map.iter_rules()
        for method in rule.methods or ()
        if method != "OPTIONS"
    }
    # HEAD goes wherever GET does and is only told apart for keys.
    heads = {(path, method) for path, method in served - specified if method == "head"}
    # A path that only some methods know by a name of its own is a key, or a node's id, to the others.
    keys = [f"/cache/{name}" for name in ("{key}/incr", "{key}/touch", "_batch")]
    also = {(path, method) for path in keys for method in ("get", "head", "put", "delete")}
    also |= {(f"/nodes/{name}", "delete") for name in ("list", "register")}
    assert served - heads == specified - also and also <= specified


def test_allow_names_the_methods_that_the_specification_has(client: Client) -> None:
    for path, item in client.get("/openapi.json").json["paths"].items():
        allowed = client.options(path.replace("{key}", "k").replace("{id}", "n")).headers["Allow"]
        specified = {method.upper() for method in item if method in ("get", "head", "put", "post", "patch", "delete")}
        # HEAD is served wherever GET is.
        heads = {"HEAD"} if "GET" in specified else set()
        assert set(allowed.split(", ")) == {"OPTIONS", *specified, *heads}, path


def test_references_in_the_specification_lead_somewhere(client: Client) -> None:
    document = client.get("/openapi.json").json
    references = re.findall(r'"\$ref":"#/([^"]+)"', client.get("/openapi.json").text)
    assert references
    for reference in references:
        found = document
        for part in reference.split("/"):
            found = found[part]


def test_a_token_shows_in_the_specification() -> None:
    client = Client(create_app(FakeStore(), RestConfig(access=access_of(b"s" * 16))))
    document = client.get("/openapi.json", headers={"Authorization": f"Bearer {'s' * 16}"}).json
    assert document["security"] == [{"token": []}]
    assert document["paths"]["/cache/{key}"]["head"]["security"] == [{"token": ["read"]}]
    assert document["paths"]["/cache/{key}"]["put"]["security"] == [{"token": ["write"]}]
    for path, item in document["paths"].items():
        for method in item.keys() & {"get", "head", "put", "post", "delete"}:
            needed = NEEDS.get(route_name("GET" if method == "head" else method.upper(), path))
            if needed is None:
                # Only another method knows this path; to this one it is a key or a node's id like any other.
                assert item[method]["security"] != []
                continue
            assert item[method]["security"] == ([{"token": [needed.word]}] if needed else [])
            assert needed == Role.NOBODY or {"401", "403"} <= item[method]["responses"].keys(), (method, path)
    assert document["paths"]["/livez"]["get"]["security"] == []
    # Nobody is asked for anything without users.
    assert "security" not in Client(create_app(FakeStore(), RestConfig())).get("/openapi.json").text
