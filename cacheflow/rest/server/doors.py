"""Doors: which requests of web browsers are let in.

A browser sends what any page tells it to, to any address that it reaches, this machine's too. Three things tell such a request:

1. Its Origin is another site's, or Sec-Fetch-Site says so, where a page only wants an image. Not even a read is served
   then: the longest reads cost the node something. (Browsers leave Sec-Fetch-Site out towards an address that is neither
   HTTPS nor this machine: there an image can still be asked for, and a node needs its token.)
2. Its Host is a name that is not this node's: the page's own site has turned its name to this address (DNS rebinding).
   Where an API token is asked for a page has nothing to show, and a node behind a proxy has names that it cannot know.
3. Its body is JSON and its Content-Type says something else: pages may send texts and forms anywhere (``bodies.py`` looks).

Other clients send neither Origin nor Sec-Fetch-Site.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection, Mapping
from typing import Final

# A Host header: a name or an address, perhaps a port (RFC 9110, 7.2).
_HOST: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~%!$&'()*+;=-]*)(?::[0-9]{0,5})?")
# The ports that a Host header and an Origin may leave out.
_PORTS: Final = {"http": ":80", "https": ":443"}
# Host headers that are remembered as let in: clients have a few, and an attacker must not fill the memory.
_KNOWN_MAX: Final = 256
# What a page of an allowed origin may read of an answer, beside its body.
_EXPOSED: Final = "ETag, X-Raft-Index, X-Raft-Term, X-Served-By, X-Request-Id, X-Watch-Position, Retry-After"


class Doors:
    """The rules by which requests of web browsers are let in or refused. Any thread may use it.

    hosts: names of this node that a Host header may have beside ``localhost``; None allows every name.
    origins: other sites whose pages may send anything, as ``https://app.example.com``; a ``*`` allows all.
    """

    def __init__(self, hosts: Collection[str] | None = None, origins: Collection[str] = ()) -> None:
        self._hosts = None if hosts is None else {"localhost", *(host.lower().strip("[]") for host in hosts)}
        self._origins = frozenset(origin.lower().rstrip("/") for origin in origins)
        # Whether answers depend on the Origin, which shared caches between here and a browser must know.
        self.varies = bool(self._origins)
        # Values of the Host header that were let in: what follows is asked once for each.
        self.known: set[str] = set()

    def malformed(self, host: str | None, version: str) -> str:
        """Return why a request of the HTTP version ``version`` must not have the Host header ``host``, or "" if it may.

        host: None for a request without that header. See RFC 9112, 3.2.
        """
        if host is None:
            return "HTTP/1.1 needs a Host header" if version == "1.1" else ""
        return "" if _HOST.fullmatch(host) else f"the Host header must be one host and port, not {host[:80]!r}"

    def refusal(self, headers: Mapping[str, str], path: str) -> str:
        """Return why a well-formed HTTP request is not let in, as a text for people, or "" if it is.

        headers: the request's headers, by the names that waitress gives them (``HOST``).
        """
        host = headers.get("HOST")
        if host is not None and host not in self.known:
            if not self._is_ours(host):
                return f"this node is not called {host[:80]!r}: start it with --allow-host {_name_of(host)[:80]}"
            if len(self.known) < _KNOWN_MAX:
                self.known.add(host)
        origin = headers.get("ORIGIN")
        if origin is None:
            return self._refused_by_fetch(headers, path)
        scheme, _, site = origin.lower().partition("://")
        port = _PORTS.get(scheme, "")
        if self._allows(origin) or site.removesuffix(port) == (host or "").lower().removesuffix(port) != "":
            return ""
        return f"a page of {origin[:80]!r} may not call this node: start it with --allow-origin {origin[:80]}"

    def answer_headers(self, headers: Mapping[str, str], method: str) -> list[tuple[str, str]]:
        """Return the response headers that let a browser show the answer to a page of another site, if that site is allowed.

        Without these headers a browser hides the answer from the page. headers, method: those of the request.
        """
        told = [("Vary", "Origin")] if self.varies else []
        origin = headers.get("ORIGIN", "")
        if not self._allows(origin):
            return told
        told += [("Access-Control-Allow-Origin", origin), ("Access-Control-Expose-Headers", _EXPOSED)]
        if method == "OPTIONS" and "ACCESS_CONTROL_REQUEST_METHOD" in headers:
            told.append(("Access-Control-Allow-Methods", "GET, HEAD, PUT, POST, PATCH, DELETE"))
            if wanted := headers.get("ACCESS_CONTROL_REQUEST_HEADERS"):
                told.append(("Access-Control-Allow-Headers", wanted))
        return told

    def _allows(self, origin: str) -> bool:
        return origin.lower() in self._origins or ("*" in self._origins and origin != "")

    def _refused_by_fetch(self, headers: Mapping[str, str], path: str) -> str:
        site = headers.get("SEC_FETCH_SITE", "none")
        if site in ("none", "same-origin") or "*" in self._origins:
            return ""
        if path == "/" and headers.get("SEC_FETCH_MODE") == "navigate" and headers.get("SEC_FETCH_DEST") == "document":
            return ""  # somebody has followed a link
        return "a page of another site may not call this node: start it with --allow-origin and that site"

    def _is_ours(self, host: str) -> bool:
        name = _name_of(host)
        if self._hosts is None or name in self._hosts or name.endswith(".localhost"):
            return True
        try:
            # Nobody can turn an address to another one.
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True


def _name_of(host: str) -> str:
    """Return the name or address in a Host header, in lower case, without brackets and port."""
    matched = _HOST.fullmatch(host)
    # A name that is fully qualified may end in a dot.
    return matched[1].strip("[]").rstrip(".").lower() if matched else ""
