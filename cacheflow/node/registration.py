"""How a node asks a member to be registered: ``POST /nodes/register`` over HTTP."""

from __future__ import annotations

import asyncio
import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

from cacheflow.config import read_secret
from cacheflow.errors import ConfigError

# Seconds for one request: a member probes the newcomer and waits for the leader's answer (see joining.py).
TIMEOUT_S: Final = 10.0

# (the member's URL, the request's document) -> what went wrong, for people; "" when the node was registered.
AskSeed = Callable[[str, dict[str, Any]], Awaitable[str]]


def over_http(token_file: Path | None) -> AskSeed:
    """The way over HTTP. token_file: holds the API token of the members; read for every request, so it may change."""

    async def ask(url: str, document: dict[str, Any]) -> str:
        return await asyncio.to_thread(_post, url, document, token_file)

    return ask


def _post(url: str, document: dict[str, Any], token_file: Path | None) -> str:
    headers = {"Content-Type": "application/json"}
    try:
        token = read_secret(token_file, "api-token-file")
        if token is not None:
            headers["Authorization"] = f"Bearer {token.decode()}"
        request = urllib.request.Request(
            f"{url.rstrip('/')}/nodes/register", json.dumps(document).encode(), headers, method="POST"
        )
        with urllib.request.urlopen(request, timeout=TIMEOUT_S):
            return ""
    except urllib.error.HTTPError as error:
        try:
            detail = json.loads(error.read(65536)).get("detail", error.reason)
        except (ValueError, OSError, AttributeError):
            detail = error.reason
        return f"{url} answers {error.code}: {detail}"
    except ConfigError as error:
        return str(error)
    except (OSError, ValueError, http.client.HTTPException) as error:
        return f"{url} cannot be asked: {getattr(error, 'reason', error)}"
