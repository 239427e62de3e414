"""The options of a cache that is opened by its URL: keywords over what the URL's query says, as the types that they have."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, Final, NamedTuple

from cacheflow.arguments import shown
from cacheflow.client.client import TIMEOUT_S_DEFAULT
from cacheflow.config import NodeConfig, read_secret
from cacheflow.errors import InvalidRequest
from cacheflow.forms.form import Form, form_of
from cacheflow.opening.urls import place_of

_FORM: Final = ("serializer", "key_prefix", "version")
_REMOTE: Final = (*_FORM, "timeout", "token", "token_file", "ca", "discover")
_SETTINGS: Final = {each.name: str(each.type) for each in fields(NodeConfig)}
_EMBEDDED: Final = (*_FORM, "timeout", "raft_address", *_SETTINGS)


class Opening(NamedTuple):
    """The checked options of a cache that is to be opened.

    form: the cache's key prefix and serializer.  client: arguments of CacheClient, for nodes elsewhere.  node: arguments of
    ReplicatedStore, for a node in this process. One of ``client`` and ``node`` is None.
    """

    form: Form
    client: dict[str, Any] | None
    node: dict[str, Any] | None


def opening_of(url: str | Iterable[str], options: Mapping[str, Any]) -> Opening:
    """Return the checked options for opening the cache at ``url``.

    Raises InvalidRequest for options that are unknown or wrong.
    """
    place = place_of(url)
    known = _REMOTE if place.urls else _EMBEDDED
    for name in (*place.options, *options):
        if name not in known:
            raise InvalidRequest(f"unknown option {shown(name)}; known are {', '.join(sorted(known))}")
    told: dict[str, Any] = {
        **{name: _typed(name, text) for name, text in place.options.items() if name not in options},
        **options,
    }
    form = form_of(**{name: told.pop(name, None) for name in _FORM})
    if place.urls:
        return Opening(form, _client(place.urls, place.token, told), None)
    if "timeout" in told:
        if "request_timeout_s" in told:
            raise InvalidRequest("timeout and request_timeout_s are the same: give one of them")
        told["request_timeout_s"] = told.pop("timeout")
    if place.folder is not None:
        told.setdefault("data_dir", Path(place.folder))
    return Opening(form, None, told)


def _client(urls: tuple[str, ...], token: str | None, told: dict[str, Any]) -> dict[str, Any]:
    file = told.get("token_file")
    if file is not None:
        if not isinstance(file, (str, os.PathLike)):
            raise InvalidRequest(f"token_file is a path, not {shown(file)}")
        if told.get("token") is not None:
            raise InvalidRequest("token and token_file exclude each other")
        secret = read_secret(Path(file), "token_file")
        token = None if secret is None else secret.decode("ascii")
    elif told.get("token") is not None:
        token = told["token"]
    return {
        "urls": list(urls),
        "timeout_s": TIMEOUT_S_DEFAULT if told.get("timeout") is None else told["timeout"],
        "token": token,
        "ca": told.get("ca"),
        "discover": told.get("discover", True),
    }


def _typed(name: str, text: str) -> Any:
    """Return the Python value of the option ``name`` for ``text``, its value in a URL's query. Raises InvalidRequest."""
    kind = {"timeout": "float", "discover": "bool"}.get(name) or _SETTINGS.get(name, "str")
    convert = _CONVERT.get(kind.removesuffix(" | None"), str)
    try:
        return convert(text)
    except ValueError:
        raise InvalidRequest(f"{name}={shown(text)} is no {_CALLED.get(convert, 'value')}") from None


def _bool(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError(text)
    return text == "true"


def _texts(text: str) -> tuple[str, ...]:
    return tuple(each for each in text.split(",") if each)


_CONVERT: Final[dict[str, Callable[[str], Any]]] = {
    "bool": _bool,
    "int": int,
    "float": float,
    "Path": Path,
    "tuple[str, ...]": _texts,
}
_CALLED: Final[dict[Callable[[str], Any], str]] = {
    _bool: "truth value: write true or false",
    int: "whole number",
    float: "number",
}
