"""The access log: one line for each HTTP answer, at the level debug, so that it costs nothing where nobody asks for it.

A line names the request's target, which has the key in it, and the user, never a token or a value.
"""

from __future__ import annotations

import logging
import time
from typing import Any, Final

from cacheflow.rest.request.auth import user_name

logger: Final = logging.getLogger("cacheflow.access")
# Characters of a request's target that a line shows: a key of 1 KiB takes 3 KiB of them.
_TARGET_MAX: Final = 1024


def is_on() -> bool:
    """Return whether answers are logged: a caller asks before it gathers what ``note`` needs."""
    return logger.isEnabledFor(logging.DEBUG)


def note(channel: Any, request: Any, status: int, body_bytes: int, environ: dict[str, Any] | None = None) -> None:
    """Log the answer to the HTTP request ``request``, which came on the connection ``channel``.

    environ: what the application was given; None for an answer that it has not made.
    """
    # From the request's first byte to its answer's last that was made here; what the client takes its time for is not in it.
    took_ms = (time.monotonic() - request.began_s) * 1000
    address = channel.addr
    fields = {
        "method": request.command,
        "target": getattr(request, "request_uri", "")[:_TARGET_MAX],
        "status": status,
        "body_bytes": body_bytes,
        "took_ms": round(took_ms, 3),
        "client": address[0] if isinstance(address, tuple) else "",
        "user": "" if environ is None else user_name(environ),
    }
    logger.debug(
        "%s %s: %d, %d bytes in %.1f ms, to %s%s",
        *(fields["method"], fields["target"], status, body_bytes, took_ms, fields["client"]),
        f" ({fields['user']})" if fields["user"] else "",
        extra={"fields": fields},
    )
