"""What a cache's URL says.

    cacheflow://host:port[,host:port...][/][?option=value&...]      nodes by HTTP; cacheflows:// by HTTPS
    cacheflow+embedded:///folder[?setting=value&...]                a node in this process, its data in that folder
    http://host:port, https://host:port                             one node, as CacheClient takes it

A token stands where other URLs have a password (``cacheflow://:token@host``), and nowhere else: what is shown of a URL, in
an error too, never has it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qsl, unquote

from cacheflow.arguments import each_of, shown
from cacheflow.config import hidden, join_address, split_address, split_url
from cacheflow.errors import InvalidRequest

PORT_DEFAULT: Final = 8080
_SCHEMES: Final = {"cacheflow": "http", "cacheflows": "https", "http": "http", "https": "https"}
_EMBEDDED: Final = "cacheflow+embedded"


@dataclass(frozen=True)
class Place:
    """Where a cache is, by its URL: the HTTP addresses ``urls`` of nodes, or the data ``folder`` of an embedded node."""

    urls: tuple[str, ...] = ()
    folder: str | None = None
    token: str | None = field(default=None, repr=False)
    options: dict[str, str] = field(default_factory=dict)


def place_of(url: str | Iterable[str]) -> Place:
    """Return where the cache at ``url`` is: nodes' addresses or a folder. Raises InvalidRequest.

    url: a URL, or a list of the URLs of one cluster's nodes.
    """
    places = [_place(each) for each in ([url] if isinstance(url, str) else each_of(url, "URLs"))]
    if not places:
        raise InvalidRequest("a cache needs the address of at least one node")
    first = places[0]
    if len(places) == 1:
        return first
    if not all(place.urls for place in places):
        raise InvalidRequest(f"a {_EMBEDDED} URL stands alone: its node finds the others by peers or seed")
    tokens = {place.token for place in places if place.token is not None}
    if len(tokens) > 1:
        raise InvalidRequest("the URLs have different tokens: one cluster has one for a client")
    options: dict[str, str] = {}
    for place in places:
        for name, value in place.options.items():
            if options.setdefault(name, value) != value:
                raise InvalidRequest(f"the URLs have different values of {name}")
    return Place(tuple(each for place in places for each in place.urls), None, next(iter(tokens), None), options)


def shown_url(url: object) -> str:
    """Return ``url`` as short text for a message, without a user name and token in the URL."""
    return shown(hidden(url) if isinstance(url, str) else url)


def _place(url: Any) -> Place:
    if not isinstance(url, str):
        raise InvalidRequest(f"a cache's URL is a str, not {shown(url)}")
    if not url.isprintable() or " " in url:
        raise InvalidRequest(f"{shown_url(url)} has blanks or control characters")
    scheme, separator, rest = url.partition("://")
    scheme = scheme.lower()
    if not separator or scheme not in (*_SCHEMES, _EMBEDDED):
        raise InvalidRequest(
            f"{shown_url(url)} is no cache's URL such as cacheflow://127.0.0.1:8080, {_EMBEDDED}:///var/lib/cache "
            "or http://127.0.0.1:8080"
        )
    if "#" in rest:
        raise InvalidRequest(f"{shown_url(url)}: a '#' ends the address; write %23")
    rest, _, query = rest.partition("?")
    authority, slash, path = rest.partition("/")
    path = slash + path
    if scheme == _EMBEDDED:
        if authority:
            raise InvalidRequest(f"{shown_url(url)}: the folder begins with a third slash, {_EMBEDDED}:///folder")
        return Place(folder=unquote(path) or None, options=_options(url, query))
    user, at, hosts = authority.rpartition("@")
    token = _token(url, user) if at else None
    if scheme in ("http", "https"):
        address = f"{scheme}://{hosts}{path}" + (f"?{query}" if query else "")
        try:
            split_url(address)
        except ValueError as error:
            raise InvalidRequest(str(error)) from None
        return Place((address,), None, token)
    if path not in ("", "/"):
        raise InvalidRequest(f"{shown_url(url)}: a path behind the nodes means nothing; options stand behind a '?'")
    urls = tuple(f"{_SCHEMES[scheme]}://{_address(url, each)}" for each in hosts.split(","))
    return Place(urls, None, token, _options(url, query))


def _token(url: str, user: str) -> str:
    # The name before the colon is for people: a token is a user's by itself.
    _, colon, token = user.partition(":")
    if not colon or not token:
        raise InvalidRequest(f"{shown_url(url)}: a token stands behind a colon, cacheflow://:token@host")
    return unquote(token)


def _address(url: str, host: str) -> str:
    told = host
    if host.endswith("]") or ":" not in host:
        host = f"{host}:{PORT_DEFAULT}"
    try:
        return join_address(*split_address(host))
    except ValueError as error:
        # Not shown where it is the beginning of a token that was not escaped.
        why = error if told in hidden(url) else "where the hosts stand is no host:port"
        raise InvalidRequest(f"{shown_url(url)}: {why}") from None


def _options(url: str, query: str) -> dict[str, str]:
    found: dict[str, str] = {}
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=True) if query else []
    except ValueError:
        raise InvalidRequest(f"{shown_url(url)}: options are name=value, with '&' between them") from None
    for name, value in pairs:
        if name in ("token", "password"):
            # URLs are logged, and what stands in a query is not taken for a secret there.
            raise InvalidRequest(
                f"{name} does not belong into the query of a URL: name a token_file there, give token= to the call, "
                "or write cacheflow://:token@host"
            )
        if found.setdefault(name, value) != value:
            raise InvalidRequest(f"the URL has different values of {name}")
    return found
