"""Answer: a response with its body in memory and known headers, sent with as little work as possible.

Werkzeug's Response copies, checks and scans its headers several times. For an answer whose body, length and headers
are all known that is a third of the work of a GET, so ``Answer`` keeps the three and hands them to WSGI as they are.
Whoever asks it for anything else (``after_request`` functions, tests) finds an ordinary Response.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, BinaryIO

from flask import Response

from cacheflow import values
from cacheflow.rest.server.files import SentFile
from cacheflow.rest.server.suspending import SUSPENDS
from cacheflow.results import Item

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

Headers = list[tuple[str, str]]

JSON_TYPE = ("Content-Type", "application/json")
TEXT_TYPE = ("Content-Type", "text/plain; charset=utf-8")
_ANY_BYTES = "application/octet-stream"
_STATUS_LINES = {status.value: f"{status.value} {status.phrase}" for status in HTTPStatus}
_BODILESS = (204, 304)
_PIECE_BYTES = 256 * 1024


class Answer(Response):
    """A Flask response whose body, status and headers are all known; it becomes an ordinary Response only if code needs that.

    status: the HTTP status number.
    headers: a list of (name, value) without Content-Length; the response keeps this list and extends it.
    """

    def __init__(self, body: bytes, status: int, headers: Headers) -> None:
        if status not in _BODILESS:
            headers.append(("Content-Length", str(len(body))))
        self._plain: tuple[Sequence[bytes], int, Headers] | None = ((body,), status, headers)

    def __getattr__(self, name: str) -> Any:
        """Turn this answer into an ordinary Flask Response, and return the Response's attribute ``name``."""
        plain = self.__dict__.get("_plain")
        if plain is None:
            raise AttributeError(name)
        parts, status, headers = plain
        self._plain = None
        super().__init__(b"".join(parts), status, headers)
        return getattr(self, name)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        plain = self._plain
        if plain is None:
            return super().__call__(environ, start_response)
        parts, status, headers = plain
        start_response(_STATUS_LINES[status], headers)
        return () if environ["REQUEST_METHOD"] == "HEAD" or status in _BODILESS else parts


class FileAnswer(Response):
    """A Flask response whose body is a file, of which the client gets piece by piece as much as it takes.

    file: is read from its beginning, and closed with the answer.  headers: a list of (name, value) without Content-Length.
    """

    def __init__(self, file: BinaryIO, headers: Headers) -> None:
        size = file.seek(0, io.SEEK_END)
        file.seek(0)
        super().__init__(iter(lambda: file.read(_PIECE_BYTES), b""), 200, headers)
        self.content_length = size
        self.call_on_close(file.close)
        self._file = file

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if SUSPENDS not in environ:
            return super().__call__(environ, start_response)
        # Our own server sends it without a thread that would wait for the client, and closes it.
        start_response(_STATUS_LINES[200], self.get_wsgi_headers(environ).to_wsgi_list())
        return SentFile(self._file)


def json_bytes(value: Any) -> bytes:
    """Return the Python value ``value`` as JSON in UTF-8, for the body of an HTTP message."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def json_answer(value: Any, headers: Headers, status: int = 200) -> Answer:
    """Return an HTTP answer with ``value`` as JSON in its body. The answer keeps the list ``headers`` and extends it."""
    headers.append(JSON_TYPE)
    return Answer(json_bytes(value), status, headers)


def seconds_json(ttl_s: float | None) -> str:
    """Return a TTL of ``ttl_s`` seconds as the text of a JSON number; ``null`` for None (no expiry)."""
    return "null" if ttl_s is None else repr(ttl_s)


def raw_of(item: Item) -> tuple[str, bytes]:
    """Return the Content-Type with which the value of ``item``, an entry of the cache, is sent by itself, and its bytes.

    A value written from Python or a wire port can carry anything as its type: what cannot stand in a header is answered as
    application/octet-stream. A hash or set is sent as JSON; its texts are base64 where one of them is not UTF-8, and the type
    says so.
    """
    if item.kind == values.TEXT:
        return "text/plain; charset=utf-8", item.data
    if item.kind == values.JSON:
        return "application/json", item.data
    if item.kind > values.VALUE_MAX:
        shown, is_base64 = values.json_of_fields(item.kind, item.data)
        return "application/json" + ("; encoding=base64" if is_base64 else ""), json_bytes(shown)
    meta = item.meta
    if isinstance(meta, str) and "/" in meta and meta.isascii() and meta.isprintable():
        return meta, item.data
    return _ANY_BYTES, item.data
