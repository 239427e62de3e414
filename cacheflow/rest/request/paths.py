"""Strict decoding of paths and queries from their bytes, so that two different keys are never taken for one.

WSGI hands over the path percent-decoded, each byte as one latin-1 character. Werkzeug turns that into text and
puts U+FFFD where it is not UTF-8: ``%FF`` and ``%FE`` would name the same key. It also lets ``%zz`` pass as the
key that ``%25zz`` names. Here both are refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, unquote_to_bytes

from cacheflow.errors import InvalidRequest
from cacheflow.values import check_key

# U+FFFD, which stands where bytes were no UTF-8: itself in UTF-8, each byte as one character.
_REPLACEMENT = "\xef\xbf\xbd"
_BAD_ESCAPE = re.compile("%(?![0-9A-Fa-f]{2})")
# The most parameters of a query. Our longest has six; without a cap a query of 16 KiB costs 8,000 tuples.
_PARAMETERS_MAX = 64

Query = Mapping[str, str]
_NO_QUERY: Query = {}


def decode_key(raw: str, environ: Mapping[str, Any]) -> str:
    """Return the key that an HTTP request's path names. Raises InvalidRequest when it is no valid key.

    raw: the key's part of the path, percent-decoded by WSGI, each byte as one character.
    """
    key = raw
    if not raw.isascii():
        try:
            key = raw.encode("latin-1").decode("utf-8")
        except UnicodeError:
            raise InvalidRequest("the key is not valid UTF-8") from None
    if "%" in raw or _REPLACEMENT in raw:
        _check_escapes(str(environ.get("REQUEST_URI") or environ.get("RAW_URI") or "").partition("?")[0])
    return check_key(key)


def _check_escapes(path: str) -> None:
    """Check the path of an HTTP request as the client sent it, percent-encoded.

    Raises InvalidRequest for a broken percent escape or bytes that are not UTF-8. The decoded path does not show these: a
    percent sign in it comes from ``%25`` or from a broken escape, and a U+FFFD from the key itself or from a layer between
    the wire and us (Werkzeug's test client, for one) that decodes loosely.
    """
    if _BAD_ESCAPE.search(path):
        raise InvalidRequest("the path has a percent sign without two hexadecimal digits; write % as %25")
    try:
        unquote_to_bytes(path).decode()
    except UnicodeDecodeError:
        raise InvalidRequest("the key is not valid UTF-8") from None


def parse_query(environ: Mapping[str, Any]) -> Query:
    """Return the parameters of an HTTP request's query by name; ``+`` stands for a blank. Raises InvalidRequest.

    A parameter given twice is refused: clients would not agree on which of the two counts.
    """
    text = environ.get("QUERY_STRING")
    if not text:
        return _NO_QUERY
    if not text.isascii() or _BAD_ESCAPE.search(text):
        raise InvalidRequest("the query is not percent-encoded")
    try:
        pairs = parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=_PARAMETERS_MAX)
    except UnicodeDecodeError:
        raise InvalidRequest("the query is not valid UTF-8") from None
    except ValueError:
        raise InvalidRequest(f"the query has more than {_PARAMETERS_MAX} parameters") from None
    query = dict(pairs)
    if len(query) != len(pairs):
        raise InvalidRequest("the query names a parameter twice")
    return query
