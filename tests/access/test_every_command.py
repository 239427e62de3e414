"""Every route and every command, with every role, over sockets: what docs/security.md says, and nothing else."""

from __future__ import annotations

import re
from typing import Any

import pytest
from access.guarded import Guarded, Wire
from access.table import ROLES, allows, table_of
from rest.fake_store import FakeStore
from wire.resp_client import pack

from cacheflow.rest.app import create_app
from cacheflow.rest.request.auth import NEEDS, route_name
from cacheflow.rest.request.context import RestConfig
from cacheflow.wire.memcached.connection import _WITH_VALUE
from cacheflow.wire.memcached.meta.commands import META
from cacheflow.wire.memcached.text import COMMANDS
from cacheflow.wire.resp.commands.catalogue import _COMMAND
from cacheflow.wire.resp.commands.channels import _LISTED, _PUBSUB
from cacheflow.wire.resp.commands.clients import _SUBCOMMANDS
from cacheflow.wire.resp.commands.config import _CONFIG
from cacheflow.wire.resp.commands.objects import _MEMORY, _OBJECT
from cacheflow.wire.resp.table import TABLE

HTTP, REDIS, MEMCACHED = table_of("HTTP"), table_of("Redis"), table_of("memcached")
_ABOUT_KEYS = {"MEMORY": _MEMORY, "OBJECT": _OBJECT}
_PARENTS: dict[str, dict[bytes, tuple[int, Any]]] = {
    "CLIENT": _SUBCOMMANDS,
    "CONFIG": _CONFIG,
    "COMMAND": _COMMAND,
    "PUBSUB": {**_PUBSUB, **dict.fromkeys(_LISTED, (-2, None))},
    **_ABOUT_KEYS,
}


# The tables are whole ----------------------------------------------------------------------------------------------------


def test_every_route_stands_in_the_documents_table_and_in_the_nodes_own() -> None:
    app = create_app(FakeStore(), RestConfig())
    served = {
        route_name(method, rule.rule)
        for rule in app.url_map.iter_rules()
        for method in rule.methods or ()
        if method not in ("HEAD", "OPTIONS")
    }
    assert served == set(HTTP) == set(NEEDS)


def test_every_redis_command_stands_in_the_documents_table() -> None:
    served = {name.decode().upper() for name in TABLE} - {"CLIENT", "CONFIG", "MEMORY", "OBJECT", "PUBSUB"}
    for parent, subcommands in _PARENTS.items():
        served |= {f"{parent} {name.decode()}" for name in subcommands}
    assert served == set(REDIS)


def test_every_memcached_command_stands_in_the_documents_table() -> None:
    served = {name.decode() for name in (*_WITH_VALUE, *COMMANDS, *META)}
    assert served == {name for name in MEMCACHED if " " not in name}
    assert {name for name in MEMCACHED if " " in name} == {"mg N", "mg R", "mg T"}


# HTTP --------------------------------------------------------------------------------------------------------------------

# A request that a role lets in and that changes nothing but a key, by route.
_BODIES = {
    "PUT /cache/{key}": {"value": 1},
    "POST /cache/{key}/touch": {"ttl": 1},
    "POST /cache/_batch": {"ops": [{"op": "get", "key": "a"}, {"op": "delete", "key": "a"}]},
    "POST /nodes/register": {},
    "POST /cluster/leader": {"id": "nobody-here"},
    "POST /cluster/level": {"level": 0},
}


def asked(guarded: Guarded, role: str, method: str, path: str, **rest: object) -> int:
    """The status of the answer to a request with the token of a user of ``role``."""
    token = guarded.tokens[role]
    headers = {**({} if token is None else {"Authorization": f"Bearer {token}"}), **rest.pop("headers", {})}  # type: ignore[dict-item]
    guarded.node.token, kept = None, guarded.node.token
    try:
        answer = guarded.node.ask(method, path, rest.get("body"), headers)
    finally:
        guarded.node.token = kept
    if answer.status == 401:
        assert answer.headers["www-authenticate"].startswith("Bearer")
    if answer.status == 403 and method != "HEAD":
        assert re.search(
            r"needs the role (write|admin), and the user of this token has the role", answer.body["detail"]
        )
    return answer.status


def refused(role: str) -> int:
    return 401 if role == "nobody" else 403


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("route", NEEDS)
def test_every_route_with_every_role(guarded: Guarded, route: str, role: str) -> None:
    method, path = route.split(" ")
    path = path.replace("{key}", "k").replace("{id}", "nobody-here")
    # (A watch that begins has no end.)
    query = {"DELETE /cache": "?prefix=x", "GET /watch": "?since=nowhere"}.get(route, "")
    status = asked(guarded, role, method, path + query, body=_BODIES.get(route))
    assert (status in (401, 403)) == (not allows(role, HTTP[route])), status
    if status in (401, 403):
        assert status == refused(role)
    if method == "GET":
        assert asked(guarded, role, "HEAD", path + query) == status


@pytest.mark.parametrize("role", ROLES)
def test_a_batch_of_reads_is_a_read_and_any_other_a_write(guarded: Guarded, role: str) -> None:
    reads = {"ops": [{"op": "get", "key": "a"}]}
    assert asked(guarded, role, "POST", "/cache/_batch", body=reads) == (200 if allows(role, "read") else 401)
    for body in (
        {"ops": [{"op": "set", "key": "a", "value": 1}]},
        {"ops": [{"op": "get", "key": "a"}, {"op": "incr", "key": "n", "initial": 1}], "atomic": True},
    ):
        expected = 200 if allows(role, "write") else refused(role)
        assert asked(guarded, role, "POST", "/cache/_batch", body=body) == expected
    once = {"Idempotency-Key": f"of {role}"}
    expected = 200 if allows(role, "write") else refused(role)
    assert asked(guarded, role, "POST", "/cache/_batch", body=reads, headers=once) == expected


@pytest.mark.parametrize("role", ROLES)
def test_what_is_not_served_is_told_to_users_alone(guarded: Guarded, role: str) -> None:
    stranger = role == "nobody"
    assert asked(guarded, role, "GET", "/nowhere") == (401 if stranger else 404)
    assert asked(guarded, role, "POST", "/livez") == (401 if stranger else 405)
    assert asked(guarded, role, "OPTIONS", "/cluster/leader") == (401 if stranger else 204)
    assert asked(guarded, role, "PATCH", "/cache/k") == (401 if stranger else 405)


# Redis -------------------------------------------------------------------------------------------------------------------


def resp(guarded: Guarded, role: str) -> Wire:
    """A connection of a user of ``role``."""
    wire = guarded.dial(guarded.resp_port)
    token = guarded.tokens[role]
    assert token is None or wire.ask(pack("AUTH", role, token)) == b"+OK"
    return wire


def redis_request(name: str) -> bytes:
    words = name.split(" ")
    arity = TABLE[words[0].lower().encode()].arity if len(words) == 1 else _PARENTS[words[0]][words[1].encode()][0]
    return pack(*words, *["1"] * (abs(arity) - len(words)))


@pytest.mark.parametrize("role", ROLES)
def test_every_redis_command_with_every_role(guarded: Guarded, role: str) -> None:
    for name, needed in REDIS.items():
        # As a request of its own, and as one of a pipeline, which takes other ways in the node.
        for data in (redis_request(name), redis_request(name) * 2 + pack("GET", "k")):
            with resp(guarded, role) as wire:
                reply = wire.ask(data)
            denied = reply.startswith((b"-NOAUTH", b"-NOPERM"))
            if name == "HELLO" and role == "nobody":
                denied = b"HELLO must be called" not in reply  # who says HELLO without AUTH is told how
            assert denied == (not allows(role, needed)), (name, reply)
            if denied and role != "nobody":
                shown = (
                    name.lower().replace(" ", "|")
                    if name in ("CLIENT LIST", "CLIENT KILL")
                    else name.split(" ")[0].lower()
                )
                said = f"-NOPERM this user has no permissions to run the '{shown}' command: it needs the role {needed}"
                assert reply == said.encode()


@pytest.mark.parametrize(
    "data", [pack("SET", "w", "1"), pack("SET", "w", "1") * 3, b"SET w 1\r\n", pack("set", "w", "1")]
)
def test_no_way_of_a_set_leads_past_the_role(guarded: Guarded, data: bytes) -> None:
    with resp(guarded, "admin") as wire:
        wire.ask(pack("DEL", "w"))
    for piece in (len(data), 7):
        with resp(guarded, "read") as wire:
            for at in range(0, len(data), piece):
                wire.send(data[at : at + piece])
            wire.send(pack("QUIT"))
            replies = wire.rest().split(b"\r\n")
        assert replies[-2:] == [b"+OK", b""] and len(replies) >= 3
        assert all(reply.startswith(b"-NOPERM") for reply in replies[:-2])
        with resp(guarded, "read") as wire:
            assert wire.ask(pack("GET", "w")) == b"$-1"


def test_a_transaction_with_a_command_that_is_not_allowed_is_discarded(guarded: Guarded) -> None:
    with resp(guarded, "read") as wire:
        wire.send(pack("MULTI") + pack("GET", "a") + pack("SET", "a", "1") + pack("EXEC"))
        assert [wire.line() for _ in range(2)] == [b"+OK", b"+QUEUED"]
        assert wire.line().startswith(b"-NOPERM") and wire.line().startswith(b"-EXECABORT")
        wire.send(pack("MULTI") + pack("GET", "nothing") + pack("EXEC"))
        assert [wire.line() for _ in range(4)] == [b"+OK", b"+QUEUED", b"*1", b"$-1"]
        # A subcommand is looked at when it runs.
        wire.send(pack("MULTI") + pack("CLIENT", "LIST") + pack("EXEC"))
        assert [wire.line() for _ in range(3)] == [b"+OK", b"+QUEUED", b"*1"]
        assert wire.line().startswith(b"-NOPERM")


def test_a_client_may_become_another_user_and_a_stranger_again(guarded: Guarded) -> None:
    with resp(guarded, "read") as wire:
        assert wire.ask(pack("SET", "a", "1")).startswith(b"-NOPERM")
        assert wire.ask(pack("AUTH", "default", guarded.tokens["write"] or "")) == b"+OK"
        assert wire.ask(pack("SET", "a", "1")) == b"+OK"
        assert wire.ask(pack("AUTH", guarded.tokens["read"] or "")) == b"+OK"
        assert wire.ask(pack("SET", "a", "1")).startswith(b"-NOPERM")
        assert wire.ask(pack("AUTH", "read", guarded.tokens["write"] or "")).startswith(b"-WRONGPASS")
        # Nobody goes on as the user before.
        assert wire.ask(pack("GET", "a")).startswith(b"-NOAUTH")
        assert wire.ask(pack("AUTH", guarded.tokens["read"] or "")) == b"+OK"
        assert wire.ask(pack("GET", "a")) == b"$1" and wire.line() == b"1"
        assert wire.ask(pack("RESET")) == b"+RESET" and wire.ask(pack("GET", "a")).startswith(b"-NOAUTH")


def test_who_may_only_read_hears_and_says_nothing(guarded: Guarded) -> None:
    with resp(guarded, "read") as reader, resp(guarded, "write") as writer:
        reader.send(pack("SUBSCRIBE", "said"))
        assert [reader.line() for _ in range(6)][-1] == b":1"
        with resp(guarded, "read") as other:
            for command in ("PUBLISH", "SPUBLISH", "publish"):
                assert other.ask(pack(command, "said", "1")).startswith(b"-NOPERM")
            other.send(pack("MULTI") + pack("PUBLISH", "said", "1") + pack("EXEC"))
            assert other.line() == b"+OK" and other.line().startswith(b"-NOPERM")
            assert other.line().startswith(b"-EXECABORT")
        assert writer.ask(pack("PUBLISH", "said", "2")) == b":1"
        assert [reader.line() for _ in range(7)][-1] == b"2"


def test_a_list_of_clients_names_their_users(guarded: Guarded) -> None:
    with resp(guarded, "read") as reader, resp(guarded, "admin") as admin:
        assert reader.ask(pack("CLIENT", "INFO")).startswith(b"$") and b" user=read " in reader.line()
        admin.send(pack("CLIENT", "LIST") + pack("QUIT"))
        told = admin.rest()
        assert b" user=admin " in told and b" user=read " in told


def test_the_connections_of_one_user_are_ended(guarded: Guarded) -> None:
    with resp(guarded, "read") as reader, resp(guarded, "write") as writer, resp(guarded, "admin") as admin:
        assert admin.ask(pack("CLIENT", "KILL", "USER", "nobody")).startswith(b"-ERR No such user")
        assert admin.ask(pack("CLIENT", "KILL", "USER", "read")) == b":1"
        assert reader.line() == b"" and writer.ask(pack("PING")) == b"+PONG"


# memcached ---------------------------------------------------------------------------------------------------------------


def memcached(guarded: Guarded, role: str) -> Wire:
    """A connection of a user of ``role``."""
    wire = guarded.dial(guarded.memcached_port)
    token = guarded.tokens[role]
    if token is not None:
        shown = f"any {token}".encode()
        assert wire.ask(b"set x 0 0 %d\r\n%b\r\n" % (len(shown), shown)) == b"STORED"
    return wire


def memcached_request(name: str) -> bytes:
    command, _, flag = name.partition(" ")
    if command == "ms":
        return b"ms k 1\r\n1\r\n"
    if command.encode() in _WITH_VALUE:
        return f"{command} k 0 0 1{' 1' if command == 'cas' else ''}\r\n1\r\n".encode()
    if flag:
        return f"mg k {flag}30\r\n".encode()
    words = {
        "flush_all": "",
        "stats": "",
        "version": "",
        "quit": "",
        "mn": "",
        "consistency": "local",
        "verbosity": "1",
        **dict.fromkeys(("incr", "decr", "touch"), "k 1"),
        **dict.fromkeys(("gat", "gats"), "1 k"),
    }
    return f"{command} {words.get(command, 'k')}".rstrip().encode() + b"\r\n"


@pytest.mark.parametrize("role", ROLES)
def test_every_memcached_command_with_every_role(guarded: Guarded, role: str) -> None:
    for name, needed in MEMCACHED.items():
        with memcached(guarded, role) as wire:
            reply = wire.ask(memcached_request(name))
            if role == "nobody":
                assert reply.startswith(b"CLIENT_ERROR"), (name, reply)
                continue
            denied = reply.endswith(b" needs the role write")
            assert denied == (not allows(role, needed)), (name, reply)
            assert not reply.startswith((b"ERROR", b"CLIENT_ERROR")) or denied or needed == "write", (name, reply)
            if denied:
                # The value behind it was thrown away, and the connection is in step.
                assert reply.startswith(b"CLIENT_ERROR " + name.split(" ")[0].encode())
                assert wire.ask(b"mn\r\n") == b"MN"


def test_who_may_only_read_changes_nothing_by_memcached(guarded: Guarded) -> None:
    with memcached(guarded, "write") as writer, memcached(guarded, "read") as reader:
        assert writer.ask(b"set s 0 0 1\r\n1\r\n") == b"STORED" and writer.ask(b"md s I\r\n") == b"HD"
        # Quiet requests are refused quietly; the value goes with them, whatever it looks like.
        assert reader.ask(b"set s 0 0 8 noreply\r\nget k\r\nx\r\nincr s 1 noreply\r\nmn\r\n") == b"MN"
        assert reader.ask(b"set s 0 0 99999999999999999999\r\nmn\r\n").endswith(b"needs the role write")
        assert reader.line() == b"MN"
        # A stale entry is shown, and nobody who may not write is told to renew it.
        assert reader.ask(b"mg s v c\r\n").endswith(b" X") and reader.line() == b"1"
        assert writer.ask(b"mg s v\r\n").endswith(b" W") and writer.line() == b"1"


# What is counted ---------------------------------------------------------------------------------------------------------


def refusals(guarded: Guarded) -> dict[tuple[str, str], int]:
    """The node's counts of refused requests, by port and reason."""
    text = guarded.node.ask("GET", "/metrics").body.decode()
    assert "cacheflow_users 3.0\n" in text and "cacheflow_users_outdated 0.0\n" in text
    rows = re.findall(r'^cacheflow_access_refused_total{port="(\w+)",reason="(\w+)"} (\d+)\.0$', text, re.M)
    return {(port, reason): int(count) for port, reason, count in rows}


@pytest.mark.parametrize(
    ("port", "role", "data", "reason"),
    [
        ("resp", "nobody", pack("GET", "a"), "token"),
        ("resp", "nobody", pack("AUTH", "x" * 30), "token"),
        ("resp", "nobody", pack("HELLO", "3"), "token"),
        ("resp", "read", pack("SET", "a", "1"), "role"),
        ("resp", "read", pack("CLIENT", "LIST"), "role"),
        ("memcached", "nobody", b"get a\r\n", "token"),
        ("memcached", "nobody", b"set x 0 0 3\r\na b\r\n", "token"),
        ("memcached", "read", b"incr k 1\r\n", "role"),
        ("memcached", "read", b"mg k N30\r\n", "role"),
        ("http", "nobody", b"", "token"),
        ("http", "read", b"", "role"),
    ],
)
def test_each_refusal_is_counted_once(guarded: Guarded, port: str, role: str, data: bytes, reason: str) -> None:
    before = refusals(guarded)
    if port == "http":
        asked(guarded, role, "PUT", "/cache/k", body={"value": 1})
    else:
        with {"resp": resp, "memcached": memcached}[port](guarded, role) as wire:
            wire.ask(data)
    assert refusals(guarded) == {**before, (port, reason): before[port, reason] + 1}


def test_readiness_tells_whose_users_these_are(guarded: Guarded) -> None:
    assert b"[+]users ok: as told" in guarded.node.ask("GET", "/readyz?verbose").body
