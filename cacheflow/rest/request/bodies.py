"""Request bodies: they are read whole, and parsed as strict JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NoReturn

from werkzeug.exceptions import RequestEntityTooLarge, UnsupportedMediaType

from cacheflow.errors import InvalidRequest


def _refuse_constant(name: str) -> NoReturn:
    raise InvalidRequest(f"the body is not JSON: {name} is no JSON number")


# Made once: json.loads builds a decoder for every call that has an option.
_decode = json.JSONDecoder(parse_constant=_refuse_constant).decode


def read_body(environ: Mapping[str, Any], bytes_max: int) -> bytes:
    """Return the whole body of an HTTP request.

    Raises RequestEntityTooLarge over ``bytes_max`` bytes, also under a WSGI server that has no limit of its own.
    """
    length = environ.get("CONTENT_LENGTH")
    if length:
        size = int(length) if length.isascii() and length.isdigit() else 0
    else:
        # Without a length there is a body only where the server marks its end.
        size = bytes_max + 1 if environ.get("wsgi.input_terminated") else 0
    if not size:
        return b""
    if length and size > bytes_max:
        raise RequestEntityTooLarge(f"the body has {size} bytes; the most is {bytes_max}")
    body: bytes = environ["wsgi.input"].read(size)
    if len(body) > bytes_max:
        raise RequestEntityTooLarge(f"the body has more than {bytes_max} bytes")
    return body


def parse_json(body: bytes) -> Any:
    """Return the value that the JSON text ``body`` spells. Raises InvalidRequest unless it is strict JSON.

    Strict is: UTF-8, no NaN or Infinity, bounded nesting and digits. 1e999, which Python reads as infinity, and lone
    surrogates are refused later, when the value is encoded.
    """
    try:
        return _decode(body.decode())
    except UnicodeDecodeError:
        raise InvalidRequest("the body is not JSON: it is not valid UTF-8") from None
    except RecursionError:
        raise InvalidRequest("the body is nested too deeply") from None
    except json.JSONDecodeError as error:
        raise InvalidRequest(f"the body is not JSON: {error}") from None
    except InvalidRequest:
        raise
    except ValueError:  # more digits than Python turns into an integer
        raise InvalidRequest("the body has a number with too many digits") from None


def read_object(environ: Mapping[str, Any], bytes_max: int) -> dict[str, Any]:
    """Return the JSON object that the body of an HTTP request holds; an empty body is an empty object.

    Raises InvalidRequest, RequestEntityTooLarge, and UnsupportedMediaType for a body whose Content-Type is not JSON: a web
    page may make a browser send texts and forms to any site, but JSON only to a site that allows it.
    """
    body = read_body(environ, bytes_max)
    if not body:
        return {}
    if not is_json(environ.get("CONTENT_TYPE")):
        raise UnsupportedMediaType("this route takes JSON: send the header Content-Type: application/json")
    fields = parse_json(body)
    if type(fields) is not dict:
        raise InvalidRequest("the body must be a JSON object")
    return fields


def is_json(content_type: str | None) -> bool:
    """True if the Content-Type ``content_type`` is application/json, in which a PUT wraps its value as ``{"value": ...}``.

    ``application/x+json`` is not: a body of that type is the value itself.
    """
    return (
        content_type == "application/json"
        or (content_type or "").partition(";")[0].strip().lower() == "application/json"
    )
