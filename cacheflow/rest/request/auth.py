"""The API token: every request must show it as ``Authorization: Bearer``, except for the two health checks.

A node that wants to join shows another token, derived from the cluster's secret, which allows nothing else.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable

from flask import request

from cacheflow.rest.problems import Problem

# Paths that need no token: load balancers and kubelets carry none, and these tell only whether to send traffic here.
OPEN_PATHS = frozenset({"/livez", "/readyz"})


# The route that a node which knows the cluster's secret may use without the API token.
REGISTER = ("POST", "/nodes/register")


def token_check(token: bytes, join_token: bytes | None) -> Callable[[], None]:
    """Return a Flask ``before_request`` function that raises Problem (401) unless the request shows the API token ``token``.

    Health checks need no token.
    join_token: the token that is enough for a node that registers itself; None: only ``token`` is.
    """

    def check() -> None:
        environ = request.environ
        if environ["REQUEST_METHOD"] == "OPTIONS" and "HTTP_ACCESS_CONTROL_REQUEST_METHOD" in environ:
            # A browser's question before a call shows no token. The server has looked at its Origin (``server/doors.py``).
            return
        scheme, _, text = environ.get("HTTP_AUTHORIZATION", "").partition(" ")
        given = text.strip().encode("latin-1", "replace") if scheme.lower() == "bearer" else b""
        if hmac.compare_digest(given, token) or environ["PATH_INFO"] in OPEN_PATHS:
            return
        joins = (environ["REQUEST_METHOD"], environ["PATH_INFO"]) == REGISTER
        if joins and join_token is not None and hmac.compare_digest(given, join_token):
            return
        raise Problem(
            "this node asks for its API token: Authorization: Bearer TOKEN",
            status=401,
            title="Unauthorized",
            kind="urn:cacheflow:unauthorized",
            headers=[("WWW-Authenticate", 'Bearer realm="cacheflow"')],
        )

    return check
