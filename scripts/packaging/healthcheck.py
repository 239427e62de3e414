"""A container's health check: exit code 0 while the node's ``/livez`` passes, which only a restart could mend otherwise.

Takes the node's own settings from the environment: its host and port, and whether that port speaks TLS.
"""

from __future__ import annotations

import http.client
import os
import ssl
import sys

TIMEOUT_S = 4.0


def main() -> int:
    """Ask the node once; return the exit code."""
    host = os.environ.get("CACHEFLOW_HOST") or "127.0.0.1"
    # The addresses that stand for all of a machine's.
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    port = int(os.environ.get("CACHEFLOW_PORT") or 8080)
    connection: http.client.HTTPConnection
    if os.environ.get("CACHEFLOW_TLS_CERT"):
        # Nothing is sent that must be kept from anybody, and the certificate names no loopback address.
        connection = http.client.HTTPSConnection(
            host, port, timeout=TIMEOUT_S, context=ssl._create_unverified_context()
        )
    else:
        connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", "/livez", headers={"Host": "localhost"})
        answer = connection.getresponse()
        print(answer.read(4096).decode(errors="replace"))
    except (OSError, http.client.HTTPException) as error:
        print(f"no answer: {error}")
        return 1
    return 0 if answer.status == 200 else 1


if __name__ == "__main__":
    sys.exit(main())
