"""The routes ``/`` and ``/page/…``: the page that people see, and the files that it loads.

1. They hold nothing secret, so nobody has to show a token: a browser that is led to an address has none to show. What the page
   then asks this node for needs a token as ever.
2. A page that could be made to run another's script would call the node in its reader's name. So only scripts of this node's own
   files run, nothing is loaded from or sent to anywhere else, and no other page may frame it or hold a handle to it.
3. A browser keeps the files, and asks each time whether they are still the same: after an upgrade it never mixes two builds.
"""

from __future__ import annotations

from typing import Final

from flask import Blueprint, request
from werkzeug.exceptions import NotFound

from cacheflow.rest.answers import Answer, Headers, json_answer
from cacheflow.rest.page_files import INDEX, PageFile, page_files
from cacheflow.rest.request.context import Services
from cacheflow.rest.request.headers import media_quality, parse_tags, takes_gzip

_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
GUARDS: Final[Headers] = [
    ("Content-Security-Policy", _POLICY),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
]
# What programs are told that ask for the root of a node.
_DIRECTORY: Final = {"service": "CacheFlow", "specification": "/openapi.json"}


def page_blueprint(services: Services) -> Blueprint:
    """Return the Flask blueprint of the routes ``/`` and ``/page/…``."""
    blueprint = Blueprint("page", __name__)
    files = dict(page_files())
    page = files.pop(INDEX)

    # An empty path is the root as well (RFC 9110, 4.2.3): nobody is sent elsewhere for it.
    @blueprint.get("/", endpoint="index", strict_slashes=False)
    def index() -> Answer:
        varies = ("Vary", "Accept")
        accept = request.environ.get("HTTP_ACCEPT", "")
        if media_quality(accept, "text/html") <= media_quality(accept, "application/json"):
            return json_answer(_DIRECTORY, [*services.raft_headers(), varies])
        return _file_answer(page, [*services.raft_headers(), varies])

    @blueprint.get("/page/<path:raw_name>", endpoint="file")
    def file(raw_name: str) -> Answer:
        found = files.get(raw_name)
        if found is None:
            raise NotFound
        return _file_answer(found, services.raft_headers())

    return blueprint


def _file_answer(file: PageFile, headers: Headers) -> Answer:
    """Return the answer with ``file``; a 304 if the client says that it has the file. headers: further headers, extended."""
    environ = request.environ
    data, tag = file.data, file.digest
    if file.packed is not None:
        headers.append(("Vary", "Accept-Encoding"))
        if takes_gzip(environ.get("HTTP_ACCEPT_ENCODING", "")):
            data, tag = file.packed, f"{file.digest}-gzip"
            headers.append(("Content-Encoding", "gzip"))
    headers += (("ETag", f'"{tag}"'), ("Cache-Control", "no-cache"), ("Content-Type", file.media_type), *GUARDS)
    known = environ.get("HTTP_IF_NONE_MATCH")
    if known is not None and (
        known.strip() == "*" or any(each == tag for _, each in parse_tags(known, "If-None-Match"))
    ):
        return Answer(b"", 304, headers)
    return Answer(data, 200, headers)
