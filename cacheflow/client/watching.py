"""ClientWatch: a watch over HTTP, which goes on at another node when its own ends."""

from __future__ import annotations

import contextlib
import http.client
import json
import random
import re
import socket
import threading
import time
from collections.abc import Mapping
from typing import Any, Final

from cacheflow.client.failover import PAUSE_S_MAX, Nodes
from cacheflow.client.http_commands import query_of
from cacheflow.errors import CacheFlowError, NotCommitted, PositionGone
from cacheflow.forms.form import Form
from cacheflow.results import Change
from cacheflow.watching.watch import Watch

# Seconds after which a node is taken for dead that has not given a sign of life: three of them.
SILENT_S: Final = 30.0
# The longest line of an event: a key of 1,024 bytes, each spelled with six, and what stands around it.
LINE_BYTES_MAX: Final = 16 * 1024
# Watches in a row that end as soon as they have begun before a client gives up.
TRIES_MAX: Final = 10
CHANGES: Final = frozenset(("set", "touch", "delete", "expire", "evict"))
_POSITION: Final = re.compile(r"[\x21-\x7e]{1,200}")
GONE: Final = "the node has forgotten what comes next: this watch was too slow; list the keys anew"


class ClientWatch(Watch):
    """A watch over HTTP: tells the changes of keys that begin with ``prefix``, and goes on at another node when one ends.

    since: the position after which changes are told; None: from now on. Making this object waits for a node's answer.
    Raises NotCommitted if no node answers for as long as a call may take.
    """

    def __init__(self, form: Form, nodes: Nodes, headers: Mapping[str, str], prefix: str, since: str | None) -> None:
        super().__init__(form)
        self.position = since or ""
        self._nodes = nodes
        self._headers = headers
        self._target = "/watch" + query_of(prefix=form.under(prefix) or None)
        self._closed = False
        # Guards the connection against its end; whether a thread waits for the node, and ends the connection when it is closed.
        self._lock = threading.RLock()
        self._taking = False
        self._socket: socket.socket | None = None
        self._response: http.client.HTTPResponse | None = None
        self._connect()

    def close(self) -> None:
        with self._lock:
            self._closed = True
            if self._socket is not None:
                with contextlib.suppress(OSError):
                    # Whoever reads is woken by that.
                    self._socket.shutdown(socket.SHUT_RDWR)
                self._socket = None
            if not self._taking:
                self._drop()

    def _next(self) -> Change:
        self._taking = True
        try:
            return self._take()
        finally:
            with self._lock:
                self._taking = False
                if self._closed:
                    self._drop()

    def _take(self) -> Change:
        while not self._closed:
            fields = self._block() if self._response is not None else None
            if fields is None:
                self._drop()
                if not self._closed:
                    self._connect()
                continue
            change = self._change_in(fields)
            if change is not None:
                return change
        raise StopIteration

    def _connect(self) -> None:
        """Ask nodes for the changes behind this watch's position, until one answers. Raises NotCommitted when no node does."""
        headers = dict(self._headers)
        if self.position:
            headers["Last-Event-ID"] = self.position
        for _ in range(TRIES_MAX):
            sock, self._response = self._nodes.open(self._target, headers, SILENT_S)
            with self._lock:
                self._socket = sock
            if self._closed:
                self.close()
                return
            # Where it begins.
            fields = self._block()
            if fields is not None:
                self._change_in(fields)
                return
            self._drop()
            time.sleep(PAUSE_S_MAX * random.uniform(0.5, 1))
        raise NotCommitted("every node, or what is between, ends this watch as soon as it has begun")

    def _drop(self) -> None:
        with self._lock:
            response, self._response = self._response, None
            if response is not None:
                response.close()
            self._socket = None

    def _block(self) -> dict[str, str] | None:
        """Return the fields of the next server-sent event, by name; None at the end of the connection."""
        assert self._response is not None
        fields: dict[str, str] = {}
        try:
            while line := self._response.readline(LINE_BYTES_MAX):
                if not line.endswith(b"\n"):
                    return None
                text = line.rstrip(b"\r\n").decode()
                if not text:
                    return fields
                name, _, value = text.partition(":")
                fields[name] = value.removeprefix(" ")
        except (OSError, ValueError, http.client.HTTPException):
            pass
        return None

    def _change_in(self, fields: Mapping[str, str]) -> Change | None:
        """Return the change in ``fields``, those of a server-sent event; None if it has none. Note the event's position.

        Raises PositionGone if the event says that changes were missed.
        """
        what = fields.get("event")
        data: Any = None
        if what is not None:
            try:
                data = json.loads(fields.get("data", ""))
            except (ValueError, RecursionError):
                data = None
            if not isinstance(data, dict):
                raise CacheFlowError(f"a node has told an event {what!r:.40} without its data")
            if what == "gone":
                raise PositionGone(GONE, str(data.get("oldest", "")))
        position = fields.get("id", "")
        has_moved = _POSITION.fullmatch(position) is not None
        if has_moved:
            self.position = position
        if what not in CHANGES:
            # Heartbeats have no change, and a newer CacheFlow may tell events that are unknown here.
            if has_moved:
                self.on_quiet(position)
            return None
        key, prefix, version, ttl_s = (data.get(name) for name in ("key", "prefix", "version", "ttl"))
        text = prefix if key is None else key
        if type(text) is not str or type(version) is not int or type(ttl_s) not in (int, float, type(None)):
            raise CacheFlowError(f"a node has told an event {what} that is not one")
        return Change(what, key, None if key is not None else prefix, version, ttl_s, self.position)
