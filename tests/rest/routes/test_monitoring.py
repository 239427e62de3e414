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
