"""Which role each route needs, and the token that shows it: ``Authorization: Bearer TOKEN``.

A node that wants to join shows another token, derived from the cluster's secret, which allows nothing else.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

from flask import request
from werkzeug.routing import Map

from cacheflow.access.roles import Role, User
from cacheflow.access.users import Access
from cacheflow.rest.problems import Problem

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

# The role that each route needs. HEAD goes wherever GET does. A route that is missing here needs an admin, and a test fails.
NEEDS: Final[Mapping[str, Role]] = {
    "GET /cache/{key}": Role.READ,
    "PUT /cache/{key}": Role.WRITE,
    "DELETE /cache/{key}": Role.WRITE,
    "POST /cache/{key}/incr": Role.WRITE,
    "POST /cache/{key}/touch": Role.WRITE,
    # Of reads alone: the view asks for more when there is anything else in it.
    "POST /cache/_batch": Role.READ,
    "GET /cache": Role.READ,
    "DELETE /cache": Role.WRITE,
    "GET /watch": Role.READ,
    "POST /scopes": Role.WRITE,
    "GET /nodes/list": Role.READ,
    "POST /nodes/register": Role.ADMIN,
    "DELETE /nodes/{id}": Role.ADMIN,
    "POST /nodes/{id}/promote": Role.ADMIN,
    "POST /nodes/{id}/demote": Role.ADMIN,
    "GET /cluster/status": Role.READ,
    "POST /cluster/leader": Role.ADMIN,
    "POST /cluster/level": Role.ADMIN,
    "GET /cluster/settings": Role.READ,
    "PATCH /cluster/settings": Role.ADMIN,
    "GET /cluster/digest": Role.READ,
    "GET /backup": Role.ADMIN,
    "POST /restore": Role.ADMIN,
    "DELETE /restore": Role.ADMIN,
    # Load balancers and kubelets carry no token, and these two tell only whether to send traffic here.
    "GET /livez": Role.NOBODY,
    "GET /readyz": Role.NOBODY,
    # Files that are the same for everybody, which a browser loads before anybody can type a token.
    "GET /": Role.NOBODY,
    "GET /page/{name}": Role.NOBODY,
    "GET /metrics": Role.READ,
    "GET /history": Role.READ,
    "GET /events": Role.READ,
    # For admins, because the slow log names clients by their addresses, as CLIENT LIST does.
    "GET /slow": Role.ADMIN,
    "GET /openapi.json": Role.READ,
}
# The route that a node which knows the cluster's secret may use without a user's token.
_REGISTER: Final = ("POST", "/nodes/register")
# Where a request's environ keeps (its user, who knows the users); absent where a node asks nobody for a token.
_USER: Final = "cacheflow.user"


def route_name(method: str, rule: str) -> str:
    """Return a route's name, its method and path, such as ``GET /cache/{key}``, as the table of needed roles spells it.

    rule: the path as Flask's URL map has it, such as ``/cache/<path:raw_key>``.
    """
    return f"{method} " + re.sub(r"<(?:\w+:)?(?:raw_)?(\w+)>", r"{\1}", rule)


def role_check(access: Access, join_token: bytes | None, url_map: Map) -> Callable[[], None]:
    """Return a Flask ``before_request`` function that raises Problem unless the request shows a token of a sufficient role.

    The problem is 401 for no known token, and 403 for a role that is too low.
    join_token: the token that is enough for a node that registers itself; None: there is none.
    """
    needs = {
        rule.endpoint: NEEDS.get(route_name(method, rule.rule), Role.ADMIN)
        for rule in url_map.iter_rules()
        for method in sorted(rule.methods or ())
        if method not in ("HEAD", "OPTIONS")
    }

    def check() -> None:
        environ = request.environ
        method = environ["REQUEST_METHOD"]
        if method == "OPTIONS" and "HTTP_ACCESS_CONTROL_REQUEST_METHOD" in environ:
            # A browser's question before a call shows no token. The server has looked at its Origin (``server/doors.py``).
            return
        # Without an endpoint this will be a 404 or 405, which a stranger is not told. OPTIONS only names a path's methods.
        endpoint = request.endpoint
        needed = Role.READ if endpoint is None else needs.get(endpoint, Role.ADMIN)
        if needed == Role.NOBODY:
            return
        token = _token_in(environ.get("HTTP_AUTHORIZATION", ""))
        user = access.user_of(token)
        if user is not None:
            environ[_USER] = user, access
            require(environ, Role.READ if method == "OPTIONS" else needed)
            return
        joins = (method, environ["PATH_INFO"]) == _REGISTER
        if joins and join_token is not None and hmac.compare_digest(token, join_token):
            return
        access.refuse("http")
        raise unauthorized()

    return check


def unauthorized() -> Problem:
    """Return the error 401, that a request shows no user's token."""
    return Problem(
        "this node asks for a user's token: Authorization: Bearer TOKEN",
        status=401,
        title="Unauthorized",
        kind="urn:cacheflow:unauthorized",
        headers=[("WWW-Authenticate", 'Bearer realm="cacheflow"')],
    )


def may(access: Access | None, authorization: str, needed: Role) -> bool:
    """Return whether the header Authorization ``authorization`` shows the token of a user with the role ``needed``.

    access: the users; None where nobody has to show a token.
    """
    if access is None:
        return True
    user = access.user_of(_token_in(authorization))
    return user is not None and user.role >= needed


def _token_in(authorization: str) -> bytes:
    scheme, _, text = authorization.partition(" ")
    return text.strip().encode("latin-1", "replace") if scheme.lower() == "bearer" else b""


def user_of(environ: WSGIEnvironment) -> User | None:
    """Return the user of an HTTP request; None where nobody has to show a token."""
    known: tuple[User, Access] | None = environ.get(_USER)
    return None if known is None else known[0]


def user_name(environ: WSGIEnvironment) -> str:
    """Return the name of the user whose token an HTTP request shows; "" where a node asks nobody for a token."""
    user = user_of(environ)
    return "" if user is None else user.name


def require(environ: WSGIEnvironment, needed: Role) -> None:
    """Raise Problem (403) if the user of an HTTP request has a role below the role ``needed``."""
    known: tuple[User, Access] | None = environ.get(_USER)
    if known is None or known[0].role >= needed:
        return
    user, access = known
    access.refuse("http", role=True)
    raise Problem(
        f"this needs the role {needed.word}, and the user of this token has the role {user.role.word}",
        status=403,
        title="Forbidden",
        kind="urn:cacheflow:forbidden",
    )
