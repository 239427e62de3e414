"""The routing of paths below ``/cache/``, done by hand on the path's bytes.

Werkzeug's router decodes the path loosely, may merge slashes, and cannot say "the key ``a/incr``" and "increment ``a``"
by method. Below ``/cache/`` every path is a key; only POST knows suffixes. All rules are registered as usual, so that
the map lists what is served; all other paths are matched as usual.

    GET, HEAD, PUT, DELETE /cache/ANYTHING      the key ANYTHING, also when it ends in /incr or is _batch
    POST /cache/_batch                          a batch
    POST /cache/ANYTHING/incr, .../touch        the key ANYTHING
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from werkzeug.exceptions import MethodNotAllowed
from werkzeug.routing import Map, MapAdapter, Rule

# What stands before a key in a path.
PREFIX = "/cache/"
_ITEM_ENDPOINTS = {"GET": "cache.get", "HEAD": "cache.get", "PUT": "cache.put", "DELETE": "cache.delete"}


class KeyMap(Map):
    """The Flask application's URL map; the class KeyAdapter, not Werkzeug's router, routes the paths below ``/cache/``."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.merge_slashes = False
        # The only rule of an endpoint, once it was asked for.
        self.rules: dict[str, Rule] = {}

    def rule_of(self, endpoint: str) -> Rule:
        """Return the only routing rule of ``endpoint`` in Werkzeug's URL map, and keep it in the dictionary ``rules``."""
        rule = self.rules[endpoint] = next(self.iter_rules(endpoint))
        return rule

    def bind_to_environ(self, environ: Any, server_name: str | None = None, subdomain: str | None = None) -> MapAdapter:
        environ = getattr(environ, "environ", environ)
        path = environ["PATH_INFO"]
        if path.startswith(PREFIX):
            return KeyAdapter(self, path[len(PREFIX) :], environ["REQUEST_METHOD"])
        return super().bind_to_environ(environ, server_name, subdomain)


class KeyAdapter(MapAdapter):
    """A Werkzeug map adapter that routes one HTTP request whose path is below ``/cache/``.

    rest: the path behind ``/cache/``, each byte as one character.
    """

    def __init__(self, key_map: KeyMap, rest: str, method: str) -> None:
        super().__init__(
            key_map,
            server_name="",
            script_name="/",
            subdomain=None,
            url_scheme="http",
            path_info=rest,
            default_method=method,
        )
        self._key_map = key_map

    def match(
        self,
        path_info: str | None = None,
        method: str | None = None,
        return_rule: bool = False,
        query_args: Mapping[str, Any] | str | None = None,
        websocket: bool | None = None,
    ) -> tuple[Any, Mapping[str, Any]]:
        rest = self.path_info if path_info is None else path_info
        method = method or self.default_method
        endpoint = _ITEM_ENDPOINTS.get(method)
        arguments = {"raw_key": rest}
        if endpoint is None:
            action, key = post_action(rest)
            if method == "OPTIONS":
                endpoint = "cache.get"
            elif method == "POST" and action is not None:
                endpoint = action
                arguments = {} if key is None else {"raw_key": key}
            else:
                raise MethodNotAllowed(valid_methods=allowed_methods(rest))
        rule = self._key_map.rules.get(endpoint) or self._key_map.rule_of(endpoint)
        return (rule if return_rule else rule.endpoint), arguments


def post_action(rest: str) -> tuple[str | None, str | None]:
    """Return (Flask endpoint, key) of a POST to ``/cache/`` + ``rest``.

    The key is None for a batch; both are None for a path that POST does not know.
    """
    if rest == "_batch":
        return "cache.batch", None
    if rest.endswith("/incr"):
        return "cache.incr", rest[: -len("/incr")]
    if rest.endswith("/touch"):
        return "cache.touch", rest[: -len("/touch")]
    return None, None


def allowed_methods(rest: str) -> list[str]:
    """Return the HTTP methods that the path ``/cache/`` + ``rest`` allows."""
    methods = ["DELETE", "GET", "HEAD", "OPTIONS", "PUT"]
    return [*methods, "POST"] if post_action(rest)[0] else methods
