"""A node that only pretends: the REST contract over a dictionary, with faults on order.

In a test: several ``FakeNode`` objects share one ``FakeState``, as nodes of one cluster would. As a program
(``python http_node.py --node-id a --port 1234 --data-dir d``) it stands in for a real node under the launcher;
its members are the files in ``members`` beside its data directory.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import sys
import threading
import time
from collections import deque
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

PROBLEM = "application/problem+json"


class Refusal(Exception):
    """An answer that is a problem document."""

    def __init__(self, status: int, title: str, detail: str = "", **extra: Any) -> None:
        super().__init__(title)
        self.status = status
        self.document = {"type": "about:blank", "title": title, "status": status, "detail": detail or title, **extra}


class Stored:
    """One entry: the value as JSON answers show it."""

    def __init__(self, value: Any, version: int, ttl: float | None, content_type: str | None = None) -> None:
        self.value = value
        self.version = version
        self.ttl = ttl
        self.content_type = content_type

    def document(self, key: str) -> dict[str, Any]:
        shown: dict[str, Any] = {"key": key, "value": self.value, "ttl": self.ttl, "version": self.version}
        if isinstance(self.value, bytes):
            shown |= {"value": base64.b64encode(self.value).decode(), "encoding": "base64"}
            shown |= {"content_type": self.content_type}
        return shown


class FakeState:
    """What the nodes of one fake cluster share."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.entries: dict[str, Stored] = {}
        self.revision = 0
        self.kept: dict[str, tuple[int, dict[str, Any]]] = {}
        # The scopes that are open, by name, with the lowest number that may still come.
        self.scopes: dict[str, int] = {}
        self.opened = 0

    def write(self, key: str, value: Any, ttl: float | None, content_type: str | None = None) -> tuple[Stored, bool]:
        self.revision += 1
        created = key not in self.entries
        self.entries[key] = Stored(value, self.revision, ttl, content_type)
        return self.entries[key], created

    def incr(self, key: str, body: dict[str, Any]) -> Stored:
        entry = self.entries.get(key)
        if entry is None and body.get("initial") is None:
            raise Refusal(404, "Key not found", key=key)
        before = body["initial"] if entry is None else entry.value
        if type(before) is not int:
            raise Refusal(409, "Not an integer")
        ttl = body.get("ttl") if entry is None else entry.ttl
        return self.write(key, before + body.get("delta", 1), ttl)[0]

    def batch(self, ops: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [self._batch_op(op) for op in ops]

    def _batch_op(self, op: dict[str, Any]) -> dict[str, Any]:
        key = op["key"]
        entry = self.entries.get(key)
        verb = op["op"]
        if verb in ("set", "add", "cas"):
            if (verb == "add" and entry) or (verb == "cas" and (entry.version if entry else 0) != op["version"]):
                return {"status": 412, "key": key}
            value = op["value"]
            if op.get("encoding") == "base64":
                value = base64.b64decode(value)
            stored, created = self.write(key, value, op.get("ttl"))
            return {"status": 201 if created else 200, "key": key, "version": stored.version, "ttl": stored.ttl}
        if verb == "incr":
            stored = self.incr(key, op)
            return {"status": 200, "key": key, "value": stored.value, "version": stored.version}
        if entry is None:
            return {"status": 404, "key": key}
        if verb == "get":
            return {"status": 200, **entry.document(key)}
        if verb == "delete":
            del self.entries[key]
            return {"status": 200, "key": key, "deleted": True}
        entry.ttl = op.get("ttl")
        return {"status": 200, "key": key, "ttl": entry.ttl, "version": entry.version}


class FakeNode:
    """One listening node. ``faults`` are used up one a request, from the left:

    "drop-early": the connection breaks before anything is done; "drop-late": after; "hang": no answer until ``stop``;
    (status, title): a problem document, nothing done; None: served as usual. Opening a scope is no request in this sense; it has
    faults of its own, ``opening_faults``.
    request_id: what answers name as X-Request-Id; None: nothing.
    index: what answers name as X-Raft-Index; None: nothing.  delay_s: how far away this node is.
    told: what its view of the cluster has otherwise.  raw: (status, body) of answers to paths of the cluster and of monitoring.
    """

    def __init__(self, state: FakeState | None = None, node_id: str = "a", port: int = 0) -> None:
        self.state = state or FakeState()
        self.node_id = node_id
        self.faults: deque[str | tuple[int, str] | None] = deque()
        self.opening_faults: deque[str | tuple[int, str] | None] = deque()
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.connections = 0
        self.request_id: str | None = None
        self.index: int | None = None
        self.delay_s = 0.0
        self.nodes: list[dict[str, Any]] = []
        self.told: dict[str, Any] = {}
        self.metrics: dict[str, Any] = {"items": 0}
        self.raw: dict[str, tuple[int, bytes]] = {}
        self.members_dir: Path | None = None
        self.released = threading.Event()
        self._server = _Server(("127.0.0.1", port), self)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self.nodes = [{"id": node_id, "address": self.url, "status": "up", "role": "leader", "raft_address": None}]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)

    def start(self) -> FakeNode:
        self._thread.start()
        return self

    def __enter__(self) -> FakeNode:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Stop listening and break the connections, as a killed process does."""
        self.released.set()
        self._server.shutdown()
        self._server.break_connections()
        self._server.server_close()

    def break_idle_connections(self) -> None:
        """Close what is open, as a server does with connections that were idle for long; go on listening."""
        self._server.break_connections()

    def known_nodes(self) -> list[dict[str, Any]]:
        if self.members_dir is None:
            return self.nodes
        rows = [json.loads(path.read_text()) for path in sorted(self.members_dir.glob("*.json"))]
        # Processes that were killed leave their file behind: the lowest living one leads.
        leader = None
        for row in rows:
            row["status"] = "up" if _alive(row.pop("pid")) else "down"
            if leader is None and row["status"] == "up":
                leader = row["id"]
            row["role"] = "leader" if row["id"] == leader else "follower"
        return rows


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    # Ctrl-C and broken connections are part of the tests: no traceback on stderr.
    request_queue_size = 64

    def __init__(self, address: tuple[str, int], node: FakeNode) -> None:
        self.node = node
        self._open: set[Any] = set()
        super().__init__(address, _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        self.node.connections += 1
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass

    def break_connections(self) -> None:
        for request in list(self._open):
            try:
                request.shutdown(2)
            except OSError:
                continue


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    server: _Server

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _serve(self) -> None:
        node = self.server.node
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.path == "/scopes":
            fault = node.opening_faults.popleft() if node.opening_faults else None
        else:
            node.requests.append((self.command, self.path, {k.lower(): v for k, v in self.headers.items()}))
            fault = node.faults.popleft() if node.faults else None
        if node.delay_s:
            time.sleep(node.delay_s)
        if fault == "drop-early":
            return self._break()
        if fault == "hang":
            node.released.wait(30)
            return self._break()
        try:
            if isinstance(fault, tuple):
                raise Refusal(*fault)
            answer = self._once(body)
        except Refusal as refusal:
            answer = refusal.status, refusal.document
        if fault == "drop-late":
            return self._break()
        self._answer(*answer)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _serve

    def _break(self) -> None:
        self.close_connection = True
        self.connection.close()

    def _answer(self, status: int, document: Any) -> None:
        raw = isinstance(document, bytes)
        data = document if raw else json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", PROBLEM if status >= 400 else "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.send_header("X-Served-By", self.server.node.node_id)
        if self.server.node.request_id is not None:
            self.send_header("X-Request-Id", self.server.node.request_id)
        if self.server.node.index is not None:
            self.send_header("X-Raft-Index", str(self.server.node.index))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _once(self, body: bytes) -> tuple[int, Any]:
        state = self.server.node.state
        with state.lock:
            token = self.headers.get("Idempotency-Key") or self._number()
            if token is not None and token in state.kept:
                return state.kept[token]
            try:
                answer = self._route(body)
            except Refusal as refusal:
                answer = refusal.status, refusal.document
            if token is not None:
                state.kept[token] = answer
            return answer

    def _number(self) -> str | None:
        header = self.headers.get("Idempotency-Scope")
        if header is None:
            return None
        name, number, lowest = (part.strip().rpartition("=")[2] for part in header.split(";"))
        scopes = self.server.node.state.scopes
        if name not in scopes or int(number) < scopes[name]:
            raise Refusal(504, "Outcome forgotten")
        scopes[name] = max(scopes[name], int(lowest))
        return f"{name} {number}"

    def _route(self, body: bytes) -> tuple[int, Any]:
        url = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(url.query, keep_blank_values=True).items()}
        parts = url.path.strip("/").split("/")
        match self.command, parts:
            case "GET", ["cache"]:
                return self._list(query)
            case "DELETE", ["cache"]:
                return self._clear(query)
            case "POST", ["scopes"]:
                state = self.server.node.state
                state.opened += 1
                state.scopes[f"{state.opened}-x"] = 1
                return 201, {"scope": f"{state.opened}-x"}
            case "POST", ["cache", "_batch"]:
                return 200, {"results": self.server.node.state.batch(json.loads(body)["ops"])}
            case "POST", ["cluster", "level"]:
                return self._raise_level(json.loads(body)["level"])
            case "POST", ["cluster", "leader"]:
                return 200, {"leader": json.loads(body).get("id", "b")}
            case "DELETE", ["nodes", quoted]:
                return self._remove(unquote(quoted))
            case "POST", ["nodes", quoted, "promote" | "demote" as change]:
                return self._change_vote(unquote(quoted), change == "promote")
            case verb, ["cache", quoted, *rest]:
                return self._entry(verb, unquote(quoted), rest, query, body)
            case _:
                return self.server.node.raw.get(url.path) or self._cluster(parts)

    def _cluster(self, parts: list[str]) -> tuple[int, Any]:
        node = self.server.node
        match parts:
            case ["nodes", "list"]:
                return 200, node.known_nodes()
            case ["cluster", "status"]:
                return 200, {
                    "node_id": node.node_id,
                    "leader": node.node_id,
                    "term": 1,
                    "level": 1,
                    "commit_index": 7,
                    "applied_index": 7,
                    "configuration": {"replicas": 2},
                    "members": [{"lag": None, "last_seen": None, **row} for row in node.known_nodes()],
                    **node.told,
                }
            case ["cluster", "digest"]:
                return 200, {"index": 7, "digest": "00" * 16}
            case ["metrics"]:
                return 200, node.metrics
            case ["readyz"] | ["livez"]:
                return 200, {"status": "ok"}
            case _:
                raise Refusal(404, "Not found")

    def _remove(self, node_id: str) -> tuple[int, Any]:
        node = self.server.node
        if len(node.nodes) == 1:
            raise Refusal(409, "Member conflict", f"{node_id!r} is the only node that votes")
        node.nodes = [row for row in node.nodes if row["id"] != node_id]
        return 204, b""

    def _change_vote(self, node_id: str, voter: bool) -> tuple[int, Any]:
        if node_id == "needed":
            raise Refusal(409, "Member conflict", "it is needed")
        [row] = [row for row in self.server.node.nodes if row["id"] == node_id] or [{"id": node_id}]
        row["voter"], row["observer"] = voter, not voter
        return 200, row

    def _raise_level(self, level: int) -> tuple[int, Any]:
        if level > 2:
            raise Refusal(409, "Level conflict", "member b does not know it")
        return 200, {"level": level}

    def _list(self, query: dict[str, str]) -> tuple[int, Any]:
        keys = sorted(key for key in self.server.node.state.entries if key.startswith(query.get("prefix", "")))
        keys = [key for key in keys if key > query.get("cursor", "")]
        limit = int(query.get("limit", "100"))
        return 200, {"keys": keys[:limit], "cursor": keys[limit - 1] if len(keys) > limit else None}

    def _clear(self, query: dict[str, str]) -> tuple[int, Any]:
        entries = self.server.node.state.entries
        if "prefix" not in query and query.get("all") != "true":
            raise Refusal(400, "Invalid request", "give prefix= or all=true")
        doomed = [key for key in entries if key.startswith(query.get("prefix", ""))]
        for key in doomed:
            del entries[key]
        return 200, {"deleted": len(doomed)}

    def _entry(self, verb: str, key: str, rest: list[str], query: dict[str, str], body: bytes) -> tuple[int, Any]:
        state = self.server.node.state
        entry = state.entries.get(key)
        if verb == "PUT":
            return self._put(key, entry, query, body)
        if verb == "POST" and rest == ["incr"]:
            stored = state.incr(key, json.loads(body))
            return 200, {"key": key, "value": stored.value, "version": stored.version}
        if entry is None:
            raise Refusal(404, "Key not found", key=key)
        if verb == "POST" and rest == ["touch"]:
            entry.ttl = json.loads(body)["ttl"]
            return 200, {"key": key, "ttl": entry.ttl, "version": entry.version}
        if verb == "DELETE":
            self._check(entry)
            state.revision += 1
            del state.entries[key]
            return 200, {"key": key, "deleted": True}
        return 200, entry.document(key)

    def _put(self, key: str, entry: Stored | None, query: dict[str, str], body: bytes) -> tuple[int, Any]:
        self._check(entry)
        if self.headers.get("Content-Type") == "application/json":
            told = json.loads(body)
            value, ttl, content_type = told["value"], told.get("ttl"), None
            if told.keys() - {"value", "ttl"}:
                raise Refusal(400, "Invalid request", "unknown field")
        else:
            value, content_type = body, self.headers["Content-Type"]
            ttl = float(query["ttl"]) if "ttl" in query else None
        if query.get("keep_ttl") == "true" and entry is not None:
            ttl = entry.ttl
        stored, created = self.server.node.state.write(key, value, ttl, content_type)
        return 201 if created else 200, {"key": key, "version": stored.version, "ttl": stored.ttl}

    def _check(self, entry: Stored | None) -> None:
        version = entry.version if entry else 0
        if self.headers.get("If-None-Match") == "*" and entry is not None:
            raise Refusal(412, "Precondition failed", version=version)
        asked = self.headers.get("If-Match")
        if asked is not None and asked != f'"{version}"':
            raise Refusal(412, "Precondition failed", version=version)


def _alive(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--node-id", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--data-dir", type=Path, required=True)
    arguments, others = parser.parse_known_args()
    data: Path = arguments.data_dir
    data.mkdir(parents=True, exist_ok=True)
    (data / "flags").write_text("\n".join(others))
    node = FakeNode(_FileState(data.parent / "contents"), arguments.node_id, arguments.port)
    members = data.parent / "members"
    members.mkdir(exist_ok=True)
    row = {"id": arguments.node_id, "address": node.url, "raft_address": "127.0.0.1:1", "pid": os.getpid()}
    unfinished = members / f"{arguments.node_id}.new"
    unfinished.write_text(json.dumps(row))
    unfinished.replace(members / f"{arguments.node_id}.json")
    node.members_dir = members
    print("listening on", node.url, file=sys.stderr, flush=True)
    node.start()._thread.join()


class _FileState(FakeState):
    """Shared between processes through files, one an entry: enough for a demonstration's one or two keys."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        folder.mkdir(exist_ok=True)
        self.entries = _Files(folder)


def keys_sent(node: FakeNode) -> list[str]:
    """Return the names that make each write that was sent to ``node`` count once: scope and number, or a key."""
    sent = [headers for verb, _, headers in node.requests if verb not in ("GET", "HEAD")]
    return [headers.get("idempotency-scope") or headers["idempotency-key"] for headers in sent]


class _Files(dict[str, Stored]):
    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder

    def _path(self, key: object) -> Path:
        return self._folder / str(key).encode().hex()

    def get(self, key: str, default: Any = None) -> Any:
        try:
            return Stored(json.loads(self._path(key).read_text()), 1, None)
        except OSError:
            return default

    def __getitem__(self, key: str) -> Stored:
        entry: Stored = self.get(key)
        return entry

    def __contains__(self, key: object) -> bool:
        return self._path(key).exists()

    def __setitem__(self, key: str, entry: Stored) -> None:
        unfinished = self._path(key).with_suffix(".new")
        unfinished.write_text(json.dumps(entry.value))
        unfinished.replace(self._path(key))


if __name__ == "__main__":
    main()
