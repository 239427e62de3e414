"""The API token: ``Authorization: Bearer``, needed on everything but the two health checks."""

from __future__ import annotations

import hmac
from collections.abc import Callable

from flask import request

from cacheflow.rest.problems import Problem

# Paths that need no token: load balancers and kubelets carry none, and these tell only whether to send traffic here.
OPEN_PATHS = frozenset({"/livez", "/readyz"})


def token_check(token: bytes) -> Callable[[], None]:
    """Return a ``before_request`` function that lets only holders of ``token`` pass. Raises Problem (401)."""

    def check() -> None:
        environ = request.environ
        scheme, _, given = environ.get("HTTP_AUTHORIZATION", "").partition(" ")
        if scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode("latin-1", "replace"), token):
            return
        if environ["PATH_INFO"] in OPEN_PATHS:
            return
        raise Problem(
            "this node asks for its API token: Authorization: Bearer TOKEN",
            status=401,
            title="Unauthorized",
            kind="urn:cacheflow:unauthorized",
            headers=[("WWW-Authenticate", 'Bearer realm="cacheflow"')],
        )

    return check
