"""What SIGHUP changes, and for whom; and nodes that have nothing but users."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from access.guarded import Guarded
from cluster.processes import NodeProcess, wait_for
from fakes.certificates import Authority
from wire.resp_client import pack

from cacheflow.access.roles import Role
from cacheflow.access.users_file import line_of, new_token
from cacheflow.cli.launcher import LocalCluster
from cacheflow.client.client import CacheClient
from cacheflow.errors import InvalidRequest

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _all_users(request: pytest.FixtureRequest) -> Iterator[None]:
    guarded = request.getfixturevalue("guarded") if "guarded" in request.fixturenames else None
    yield
    if guarded is not None:
        guarded.write_users(guarded.tokens)
        guarded.reload()


def get_status(guarded: Guarded, token: str | None) -> int:
    return guarded.node.ask("GET", "/nodes/list", headers={"Authorization": f"Bearer {token}"}).status


def without_own_token(guarded: Guarded, name: str) -> int:
    kept, guarded.node.token = guarded.node.token, None
    try:
        return get_status(guarded, guarded.tokens[name])
    finally:
        guarded.node.token = kept


def auth(guarded: Guarded, name: str) -> bytes:
    return pack("AUTH", guarded.tokens[name] or "")


def shown(guarded: Guarded, name: str) -> bytes:
    value = f"any {guarded.tokens[name]}".encode()
    return b"set x 0 0 %d\r\n%b\r\n" % (len(value), value)


@pytest.mark.parametrize("change", ["taken out", "lowered", "raised", "another token"])
def test_who_was_taken_out_or_changed_loses_open_connections_and_nobody_else(guarded: Guarded, change: str) -> None:
    with (
        guarded.dial(guarded.resp_port) as resp,
        guarded.dial(guarded.memcached_port) as memcached,
        guarded.dial(guarded.resp_port) as other,
        guarded.dial(guarded.resp_port) as stranger,
    ):
        assert resp.ask(auth(guarded, "write")) == b"+OK" and other.ask(auth(guarded, "admin")) == b"+OK"
        assert memcached.ask(shown(guarded, "write")) == b"STORED"
        assert resp.ask(pack("MULTI")) == b"+OK" and resp.ask(pack("SET", "left", "1")) == b"+QUEUED"
        tokens = {**guarded.tokens}
        if change == "taken out":
            del tokens["write"]
        elif change == "another token":
            tokens["write"] = new_token()
        guarded.write_users(tokens, {"lowered": {"write": "read"}, "raised": {"write": "admin"}}.get(change))
        guarded.reload()
        assert resp.line() == b"" and memcached.line() == b""
        assert other.ask(pack("PING")) == b"+PONG" and stranger.ask(pack("PING")).startswith(b"-NOAUTH")
        with guarded.dial(guarded.resp_port) as again:
            gone = change in ("taken out", "another token")
            assert again.ask(auth(guarded, "write")).startswith(b"-WRONGPASS" if gone else b"+OK")
            if change == "lowered":
                assert again.ask(pack("SET", "left", "1")).startswith(b"-NOPERM")
        assert without_own_token(guarded, "write") == (401 if gone else 200)
        assert guarded.node.value("left") is None


def test_a_subscriber_who_was_taken_out_is_closed(guarded: Guarded) -> None:
    with guarded.dial(guarded.resp_port) as resp, guarded.dial(guarded.resp_port) as other:
        assert resp.ask(auth(guarded, "write")) == b"+OK" and other.ask(auth(guarded, "admin")) == b"+OK"
        resp.send(pack("SUBSCRIBE", "said"))
        assert [resp.line() for _ in range(6)][-1] == b":1"
        guarded.write_users({name: token for name, token in guarded.tokens.items() if name != "write"})
        guarded.reload()
        assert resp.line() == b"" and other.ask(pack("PUBLISH", "said", "1")) == b":0"


def test_the_watch_of_a_user_who_was_taken_out_ends(guarded: Guarded) -> None:
    def watch(name: str) -> bytes:
        shown = f"Authorization: Bearer {guarded.tokens[name]}\r\n"
        return f"GET /watch HTTP/1.1\r\nHost: localhost\r\n{shown}\r\n".encode()

    with guarded.dial(guarded.node.port) as ended, guarded.dial(guarded.node.port) as other:
        for wire, name in ((ended, "read"), (other, "admin")):
            wire.send(watch(name))
            while not wire.line().startswith(b"id: "):
                pass
            wire.line()
        guarded.write_users({name: token for name, token in guarded.tokens.items() if name != "read"})
        guarded.reload()
        assert ended.line() == b""
        guarded.node.put("k", "v")
        assert other.line() == b"event: set"


def test_a_broken_file_changes_nothing_and_is_told(guarded: Guarded) -> None:
    with guarded.dial(guarded.resp_port) as resp:
        assert resp.ask(auth(guarded, "write")) == b"+OK"
        guarded.users_file.write_text(f"write admin {guarded.tokens['write']}\n")
        guarded.reload()
        assert resp.ask(pack("PING")) == b"+PONG" and without_own_token(guarded, "read") == 200
    assert (
        len(re.findall(r"the users of before stay: users-file = .*line 1: the third word", guarded.node.output())) == 1
    )
    told = guarded.node.ask("GET", "/readyz?verbose")
    assert told.status == 200 and b"[+]users ok: those of before: " in told.body
    assert guarded.node.ask("GET", "/metrics?format=json").body["users_outdated"] == 1
    everything = guarded.node.output() + told.body.decode()
    assert all(token is None or token not in everything for token in guarded.tokens.values())


def test_what_was_sent_before_is_answered(guarded: Guarded) -> None:
    with guarded.dial(guarded.resp_port) as resp:
        assert resp.ask(auth(guarded, "write")) == b"+OK"
        resp.send(pack("SET", "sent", "1") * 500)
        assert resp.line() == b"+OK"
        guarded.write_users({name: token for name, token in guarded.tokens.items() if name != "write"})
        guarded.reload()
        replies = resp.rest().split(b"\r\n")
    assert replies[-1] == b"" and set(replies[:-1]) == {b"+OK"} and len(replies) == 500


def test_sighup_ends_no_node(tmp_path: Path) -> None:
    node = NodeProcess(1, tmp_path).start()
    try:
        wait_for(lambda: not node.alive or node.is_ready())
        for times in (1, 2, 3):
            node.signal(signal.SIGHUP)
            wait_for(lambda times=times: node.output().count("SIGHUP: nothing is read again") == times)  # type: ignore[misc]
        assert node.put("k", 1).status == 201 and node.alive
        node.signal(signal.SIGTERM)
        assert node.wait() == 0 and "Traceback" not in node.output()
    finally:
        if node.alive:
            node.kill()


def test_sighup_while_a_node_is_loaded_does_not_end_it(tmp_path: Path) -> None:
    node = NodeProcess(1, tmp_path)
    node.program = f"""
import os, signal, sys
class Hup:
    def find_spec(self, name, *_):
        if name == "cacheflow.cli.server":
            os.kill(os.getpid(), signal.SIGHUP)
sys.meta_path.insert(0, Hup())
{node.program}"""
    node.start()
    try:
        wait_for(lambda: not node.alive or node.is_ready())
        assert node.alive
    finally:
        if node.alive:
            node.kill()


def test_a_node_with_a_wrong_file_does_not_start(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("the secret of all nodes")
    (tmp_path / "users").write_text("a read\n")
    flags = ["--users-file", str(tmp_path / "users"), "--cluster-secret-file", str(tmp_path / "secret")]
    node = NodeProcess(1, tmp_path, flags).start()
    assert node.wait() == 2
    assert node.output().count("\n") == 1 and "line 1: must be NAME ROLE HASH" in node.output()


@pytest.mark.parametrize("tls", [False, True])
def test_nodes_with_users_alone_join_and_send_each_other_writes(tmp_path: Path, tls: bool) -> None:
    reader, writer = new_token(), new_token()
    users = tmp_path / "users"
    users.write_text(f"{line_of('r', Role.READ, reader)}\n{line_of('w', Role.WRITE, writer)}\n")
    flags = ["--users-file", str(users)]
    if tls:
        flags += Authority(tmp_path / "ca").flags("node", "--peer-tls", "require")
    with LocalCluster(3, tmp_path / "data", flags=flags, say=lambda _: None) as cluster:
        cluster.start()
        cluster.wait_ready()
        with CacheClient(cluster.urls[0], token=reader, ca=cluster.ca, discover=False) as client:
            wait_for(lambda: len(client.nodes()) == 3)
        for number, url in enumerate(cluster.urls):
            with CacheClient(url, token=writer, ca=cluster.ca, discover=False) as client:
                client.set(f"k{number}", number)
                client.update({"a": 1, "b": 2})
                with pytest.raises(InvalidRequest, match="needs the role admin"):
                    client.remove_node("node-3")
            with CacheClient(url, token=reader, ca=cluster.ca, discover=False) as client:
                assert client.get(f"k{number}", consistency="linearizable") == number
                assert client.get_many(["a", "b"]) == {"a": 1, "b": 2}
                with pytest.raises(InvalidRequest, match="needs the role write"):
                    client.set("k", 1)
            with (
                pytest.raises(InvalidRequest, match="asks for a user's token"),
                CacheClient(url, ca=cluster.ca, discover=False) as client,
            ):
                client.get("k")


@pytest.mark.parametrize(
    ("arguments", "lives"), [((), True), (("serve",), True), (("--port", "0"), True), (("keys",), False)]
)
def test_sighup_at_the_very_start_ends_what_serves_nothing(arguments: tuple[str, ...], lives: bool) -> None:
    # The signal comes before the first import of the entry point, and nothing else happens.
    program = """
import os, runpy, signal, sys
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # who runs the tests may ignore it (nohup)
class Hup:
    def find_spec(self, name, *_):
        if name == "cacheflow.cli.main":
            os.kill(os.getpid(), signal.SIGHUP)
            sys.exit(0)
sys.meta_path.insert(0, Hup())
runpy.run_module("cacheflow", run_name="__main__")"""
    ended = subprocess.run([sys.executable, "-c", program, *arguments], cwd=ROOT, timeout=30, check=False)
    assert ended.returncode == (0 if lives else -signal.SIGHUP)
