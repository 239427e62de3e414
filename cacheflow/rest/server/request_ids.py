"""Request ids: the name that one HTTP request has for its client, in its answer and in this node's log.

1. Every answer carries it as X-Request-Id: what the client has sent, if that is 1 to 128 harmless characters, else a new one.
2. A new id is a random text of this process and a number that counts up: nobody else has it, and it costs far less than a UUID.
3. While a thread serves a request, the log lines of that thread can name the request (``served``).
"""

from __future__ import annotations

import itertools
import re
import secrets
import threading
from collections.abc import Mapping
from typing import Final, Protocol

HEADER: Final = "X-Request-Id"
# What a client may call its request: the letters of UUIDs, base64, URNs and counters, and nothing that a log, a header or a shell
# would take for something else.
_VALID: Final = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")
# W3C Trace Context: version, trace id, parent id, flags; later versions may have more behind them.
_TRACEPARENT: Final = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?:-.*)?")

_PREFIX: Final = secrets.token_hex(5)
_numbers: Final = itertools.count(1)


class Request(Protocol):
    """Interface: an HTTP request that is being served. headers: by the names that waitress gives them (``X_REQUEST_ID``)."""

    @property
    def id(self) -> str: ...
    @property
    def headers(self) -> Mapping[str, str]: ...


class _Served(threading.local):
    """Holds the HTTP request that the present thread serves; None while it serves none."""

    request: Request | None = None


served: Final = _Served()


def id_of(given: str | None) -> str:
    """Return the id of an HTTP request whose header X-Request-Id is ``given``: that one if it is valid, else a new one."""
    if given is not None and _VALID.fullmatch(given):
        return given
    return f"{_PREFIX}-{next(_numbers)}"


def served_ids() -> tuple[str, str]:
    """Return (id, W3C trace id) of the HTTP request that the present thread serves, each "" where there is none."""
    request = served.request
    if request is None:
        return "", ""
    traced = _TRACEPARENT.fullmatch(request.headers.get("TRACEPARENT", ""))
    return request.id, traced[1] if traced else ""
