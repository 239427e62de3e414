"""HTTP to one node as a client sees it: one connection, one request after the other."""

from __future__ import annotations

import http.client
import json
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from cacheflow.net.tls.trust import trusting


class Answer(NamedTuple):
    """One HTTP answer. body: what the JSON says, else the bytes."""

    status: int
    body: Any
    headers: dict[str, str]


class Connection:
    """One keep-alive HTTP connection to one node, used by one thread. Nothing is ever sent again."""

    def __init__(
        self, host: str, port: int, timeout_s: float, token: str | None = None, ca: Path | None = None
    ) -> None:
        self._http = http.client.HTTPConnection(host, port, timeout=timeout_s)
        if ca is not None:
            self._http = http.client.HTTPSConnection(host, port, timeout=timeout_s, context=trusting(ca))
        self._token = token

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; the next request opens another."""
        self._http.close()

    def open(self) -> None:
        """Connect when it is not connected. Raises OSError: nothing was sent then."""
        if self._http.sock is None:
            try:
                self._http.connect()
            except BaseException:
                self._http.close()
                raise

    def request(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Answer:
        """Raises OSError or HTTPException when the connection breaks."""
        sent = dict(headers or {})
        if self._token is not None:
            sent["Authorization"] = f"Bearer {self._token}"
        data = None
        if body is not None:
            data = json.dumps(body).encode()
            sent["Content-Type"] = "application/json"
        try:
            self._http.request(method, path, data, sent)
            response = self._http.getresponse()
            raw = response.read()
        except BaseException:
            self._http.close()
            raise
        try:
            document = json.loads(raw)
        except ValueError:
            document = raw
        return Answer(response.status, document, {name.lower(): value for name, value in response.getheaders()})


def path_of(key: str, query: str = "") -> str:
    """The path of a key."""
    return f"/cache/{quote(key)}{query}"
