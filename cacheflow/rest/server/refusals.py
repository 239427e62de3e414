"""Refusal of requests in the reading thread, before they cost a thread of the pool.

When as many requests wait for the cluster as may, a further write will be refused whatever it says. Done by a thread
through Flask a refusal costs as much as a read, and clients that come back at once fill all queues with them.
"""

from __future__ import annotations

from email.utils import formatdate

from cacheflow.rest.problems import PROBLEM_TYPE, problem_bytes, urn_of
from cacheflow.rest.request.context import Services
from cacheflow.rest.server.lanes import READING


def turn_away(services: Services, method: str, path: str) -> bytes | None:
    """Return the HTTP response that refuses a write because too many writes wait already.

    Returns None if the request is to be served: it only reads, is a batch, or there is room. Called for each request, in the
    HTTP server's reading thread.
    """
    gate = services.gate
    # Nearly every request: no call for what is as usual. A batch may be one of reads; one that writes is refused when it would
    # begin to wait.
    if method in READING or gate.waiting < gate.waiting_max or path == "/cache/_batch":
        return None
    error = gate.refusal()
    body = problem_bytes(urn_of(type(error)), error.title, error.http_status, str(error), outcome="not applied")
    headers = [
        PROBLEM_TYPE,
        ("Content-Length", str(len(body))),
        ("Date", formatdate(usegmt=True)),
        ("Retry-After", str(round(error.retry_after_s))),
        *services.raft_headers(),
    ]
    head = "".join(f"{name}: {value}\r\n" for name, value in headers)
    return f"HTTP/1.1 503 Service Unavailable\r\n{head}\r\n".encode("latin-1") + body
