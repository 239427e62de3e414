"""The HTTP API for the fuzzer."""

from __future__ import annotations

import json
import re
from collections import deque
from random import Random
from typing import Any

from fuzz.grammar import Malformed, key, value

STATUS = re.compile(rb"HTTP/1\.[01] ([0-9]{3})(?: [^\r\n]*)?")
BODIES: tuple[dict[str, Any], ...] = (
    {"value": "text", "ttl": 60},
    {"value": {"a": [1, None, True]}},
    {"value": 7},
    {"delta": 2, "initial": 0},
    {"ttl": None},
    {"ttl": 5},
    {"ops": [{"op": "set", "key": "key-1", "value": 1}, {"op": "get", "key": "key-2"}]},
    {"ops": [{"op": "incr", "key": "n", "initial": 0}], "atomic": True},
    {},
)
PATHS = (
    *("/cache/{k}/incr", "/cache/{k}/touch", "/cache/_batch", "/scopes", "/cache/{k}"),
    *("/cluster/leader?", "/nodes/register?", "/cluster/level?"),
)
READS = (
    *(
        "/cache/{k}",
        "/cache/{k}?raw",
        "/cache/{k}?peek=true",
        "/cache/{k}?consistency=linearizable",
        "/cache/%C3%BC{k}",
    ),
    *(
        "/cache?prefix=key-1&limit=5",
        "/cache?limit=1",
        "/livez",
        "/readyz?verbose",
        "/nodes/list",
        "/cluster/status",
        "/metrics",
        "/events?since=2",
        "/history?since=1",
        "/",
        "/page/vendor/../index.html",
    ),
    *("/cluster/digest", "/openapi.json", "/nosuch", "/cache/", "/cache/{k}?max_staleness=5"),
)
HEADERS = (
    *(
        b"",
        b"If-None-Match: *\r\n",
        b'If-Match: "1"\r\n',
        b"Accept: */*;q=0.1\r\n",
        b"Idempotency-Key: a\r\n",
        b"Accept: text/plain\r\n",
    ),
    *(b"X-Long: " + b"x" * 500 + b"\r\n", b'If-None-Match: "1", W/"2"\r\n'),
)


class Http:
    """HTTP/1.1 requests, pipelined."""

    tokens: tuple[bytes, ...] = (
        *(
            b"\r\n",
            b"\r\n\r\n",
            b"\n",
            b"\r",
            b" ",
            b"\0",
            b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
            b"Content-Length: 5\r\n",
        ),
        *(
            b"Transfer-Encoding: chunked\r\n",
            b"Host: a\r\n",
            b"Expect: 100-continue\r\n",
            b"HTTP/1.0",
            b"%",
            b"%00",
            b"?",
            b"&",
            b"//",
        ),
        *(
            b"Content-Length: -1\r\n",
            b"Content-Length: 5, 5\r\n",
            b"5\r\nhello\r\n0\r\n\r\n",
            b"{",
            b"[" * 200,
            b'"',
            b"\xff",
            b"\\ud800",
        ),
        *(
            b"Connection: close\r\n",
            b" folded\r\n",
            b"Idempotency-Scope: 1-0123456789abcdef; number=1; lowest=1\r\n",
            b"..",
            b"%2e%2e",
        ),
    )

    def valid(self, random: Random) -> tuple[bytes, int]:
        """Return one request."""
        kind = random.randrange(10)
        headers = random.choice(HEADERS)
        if kind < 4:
            path = random.choice(READS).replace("{k}", key(random).decode())
            method = random.choice((b"GET", b"GET", b"GET", b"HEAD", b"OPTIONS"))
            return self._request(method, path, headers, b""), 1
        if kind < 6:
            body = value(random)
            kind_of = random.choice((b"text/plain", b"application/octet-stream"))
            return self._request(
                b"PUT", f"/cache/{key(random).decode()}", headers + b"Content-Type: " + kind_of + b"\r\n", body
            ), 1
        if kind == 6:
            return self._request(b"DELETE", f"/cache/{key(random).decode()}", headers, b""), 1
        method = b"PUT" if kind == 7 else b"POST"
        path = "/cache/{k}" if kind == 7 else random.choice(PATHS)
        path = path.replace("{k}", key(random).decode())
        body = json.dumps(random.choice(BODIES)).encode()
        headers += b"Content-Type: application/json\r\n"
        if random.random() < 0.15:
            chunked = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
            return self._head(method, path, headers + b"Transfer-Encoding: chunked\r\n") + chunked, 1
        return self._request(method, path, headers, body), 1

    def mutable(self, random: Random) -> bytes:
        """Return a valid input to be mutated: no HEAD, whose answer's length only its request tells."""
        while (data := self.valid(random)[0]).startswith(b"HEAD"):
            pass
        return data

    def _head(self, method: bytes, path: str, headers: bytes) -> bytes:
        return b"%b %b HTTP/1.1\r\nHost: 127.0.0.1\r\n%b\r\n" % (method, path.encode(), headers)

    def _request(self, method: bytes, path: str, headers: bytes, body: bytes) -> bytes:
        length = b"Content-Length: %d\r\n" % len(body) if body or method in (b"PUT", b"POST") else b""
        return self._head(method, path, headers + length) + body

    def known(self, nonce: int) -> bytes:
        """Return a read of an absent key called like ``nonce``: its error names the key."""
        return self._head(b"GET", f"/cache/nonce-{nonce}", b"")

    def answers(self, reply: Any, nonce: int) -> bool:
        """True if the error names ``nonce``."""
        return bool(reply[0] == 404 and b'"nonce-%d"' % nonce in reply[1])

    def replies(self) -> HttpReplies:
        """Return a reader of HTTP answers."""
        return HttpReplies()


class HttpReplies:
    """A reader of HTTP answers; that a HEAD's answer has no body is known only of valid requests."""

    def __init__(self) -> None:
        self._data = b""
        self._methods: deque[bytes] = deque()

    def feed(self, data: bytes) -> None:
        """Add bytes that came from the node."""
        self._data += data

    def sent(self, data: bytes) -> None:
        """Note the method of a request."""
        self._methods.append(data.partition(b" ")[0])

    def take(self) -> Any:
        """Return (status, body), None while the answer is not complete. Raises Malformed, also for a 500."""
        head, end, rest = self._data.partition(b"\r\n\r\n")
        if not end:
            if len(head) > 65536:
                raise Malformed("a head without an end")
            return None
        first, *lines = head.split(b"\r\n")
        found = STATUS.fullmatch(first)
        if found is None:
            raise Malformed(repr(first[:200]))
        status = int(found[1])
        if status < 200:
            self._data = rest
            return self.take()
        if status in (500, 501, 502) and status != 501:
            raise Malformed(repr(self._data[:600]))
        headers = {name.lower(): text.strip() for name, _, text in (line.partition(b":") for line in lines)}
        method = self._methods[0] if self._methods else b""
        size = 0 if method == b"HEAD" or status in (204, 304) else int(headers.get(b"content-length", b"0"))
        if len(rest) < size:
            return None
        if self._methods:
            self._methods.popleft()
        self._data = rest[size:]
        return status, rest[:size]
