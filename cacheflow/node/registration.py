"""Registration: how a node asks a member of a cluster, over HTTP, to register it (``POST /nodes/register``).

A seed is whatever somebody wrote behind ``--seed``: it may be down, another server, or none. Whatever it does is an
answer for people here, and never an exception. No proxy is asked and no redirection followed, because what is sent is
for the cluster's nodes.
"""

from __future__ import annotations

import asyncio
import http.client
import io
import json
import os
import socket
import ssl
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cacheflow.config import join_token, read_secret, split_url
from cacheflow.errors import ConfigError

# Seconds for one request: a member probes the newcomer and waits for the leader's answer (see joining.py).
TIMEOUT_S: Final = 10.0
# Seconds until a connection stands: on a host that is down nobody refuses it.
CONNECT_S: Final = 2.0
# Bytes of an answer: a member's has some 300.
_ANSWER_BYTES_MAX: Final = 65536


@dataclass(frozen=True, slots=True)
class SeedAnswer:
    """What a seed, a node named by --seed, has answered to this node's request to be registered as a member.

    problem: what went wrong, as text for people; "" when the node is registered.
    empty_at: the raft address of a node that belongs to no cluster yet; "" for every other answer.
    """

    problem: str
    empty_at: str = ""


# (the member's URL, the request's document) -> its answer. Raises nothing.
AskSeed = Callable[[str, dict[str, Any]], Coroutine[Any, Any, SeedAnswer]]


def over_http(
    secret: bytes | None, token_file: Path | None, context: Callable[[], ssl.SSLContext] = ssl.create_default_context
) -> AskSeed:
    """Return a function that asks a seed, a node named by --seed, over HTTP to register this node as a member.

    secret: the cluster's secret, of which the request shows a derived token; None if the cluster has none.
    token_file: file of the members' API token, which the request shows if there is no secret; read again for every request.
    context: returns the TLS context for a request that begins now, to a seed whose URL begins with https.
    """

    async def ask(url: str, document: dict[str, Any]) -> SeedAnswer:
        try:
            token = read_secret(token_file, "api-token-file") if secret is None else join_token(secret)
            async with asyncio.timeout(TIMEOUT_S):
                # So that the member's log names who asks.
                request_id = f"join-{document.get('id')}"
                status, body = await _post(url, json.dumps(document).encode(), token, request_id, context)
        except ConfigError as error:
            return SeedAnswer(str(error))
        except TimeoutError:
            return SeedAnswer(f"{url} cannot be asked: no answer in time")
        except (OSError, ValueError, EOFError, http.client.HTTPException) as error:
            return SeedAnswer(f"{url} cannot be asked: {_reason(error)}")
        return _understand(url, status, body)

    return ask


def _understand(url: str, status: int, body: bytes) -> SeedAnswer:
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        answer = None
    said = answer if type(answer) is dict else {}
    if status in (200, 201) and said.get("status") in ("joined", "known"):
        return SeedAnswer("")
    if status in (200, 201) or "detail" not in said:
        return SeedAnswer(f"{url} answers {status} as no CacheFlow node does")
    empty_at = said.get("raft_address")
    return SeedAnswer(f"{url} answers {status}: {said['detail']}", empty_at if type(empty_at) is str else "")


async def _post(
    url: str, body: bytes, token: bytes | None, request_id: str, context: Callable[[], ssl.SSLContext]
) -> tuple[int, bytes]:
    """Send an HTTP POST to ``url``/nodes/register on a connection of its own; return (status, body) of the response."""
    parts = split_url(url)
    secure = parts.scheme == "https"
    async with asyncio.timeout(CONNECT_S):
        reader, writer = await asyncio.open_connection(
            parts.hostname, parts.port or (443 if secure else 80), ssl=context() if secure else None
        )
    try:
        head = [
            f"POST {parts.path.rstrip('/')}/nodes/register HTTP/1.1",
            f"Host: {parts.netloc.rpartition('@')[2]}",
            "Connection: close",
            "Content-Type: application/json",
            f"X-Request-Id: {request_id}",
            f"Content-Length: {len(body)}",
        ]
        if token is not None:
            head.append(f"Authorization: Bearer {token.decode()}")
        writer.write("\r\n".join([*head, "", ""]).encode() + body)
        answer = b""
        while len(answer) < _ANSWER_BYTES_MAX and (piece := await reader.read(_ANSWER_BYTES_MAX)):
            answer += piece
    finally:
        writer.close()
    response = http.client.HTTPResponse(_Heard(answer))  # type: ignore[arg-type]
    response.begin()
    return response.status, response.read(_ANSWER_BYTES_MAX)


def _reason(error: Exception) -> str:
    """Return why a seed could not be asked, as text for people."""
    number = (
        error.errno if isinstance(error, OSError) and not isinstance(error, ssl.SSLError | socket.gaierror) else None
    )
    # asyncio's own words name the address once more, and say less.
    if number:
        return os.strerror(number).lower()
    return str(error) or type(error).__name__


class _Heard:
    """A stand-in for a socket, from which the standard library's HTTP parser reads the bytes of an answer."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer

    def makefile(self, mode: str) -> io.BytesIO:
        return io.BytesIO(self._answer)
