"""Flask's test client, typed for tests: a request goes in, an answer comes out whose JSON is anything."""

from __future__ import annotations

from typing import Any

from flask import Flask


class Client:
    """Arguments as Flask's client takes them."""

    def __init__(self, app: Flask) -> None:
        self._client = app.test_client()

    def open(self, path: str, method: str, **arguments: Any) -> Any:
        return self._client.open(path, method=method, **arguments)

    def get(self, path: str, **arguments: Any) -> Any:
        return self.open(path, "GET", **arguments)

    def head(self, path: str, **arguments: Any) -> Any:
        return self.open(path, "HEAD", **arguments)

    def put(self, path: str, **arguments: Any) -> Any:
        return self.open(path, "PUT", **arguments)

    def post(self, path: str, **arguments: Any) -> Any:
        # Every route that is posted to takes JSON.
        return self.open(path, "POST", **{"content_type": "application/json", **arguments})

    def patch(self, path: str, **arguments: Any) -> Any:
        return self.open(path, "PATCH", **arguments)

    def delete(self, path: str, **arguments: Any) -> Any:
        return self.open(path, "DELETE", **arguments)

    def options(self, path: str, **arguments: Any) -> Any:
        return self.open(path, "OPTIONS", **arguments)
