"""The yardstick of the REST row: an empty Flask view on a waitress that is set as a node's is. Prints its port."""

from __future__ import annotations

import sys

from flask import Flask

from cacheflow.config import NodeConfig
from cacheflow.rest import HttpServer, RestConfig


def main() -> None:
    """Serve until stdin ends, as it does when the parent is gone."""
    app = Flask("empty")
    app.add_url_rule("/empty", view_func=lambda: "", methods=["GET", "PUT"])
    rest = RestConfig(token=None)
    threads = NodeConfig().http_threads
    with HttpServer(app, "127.0.0.1", 0, threads=threads, body_bytes_max=rest.body_bytes_max) as server:
        print(server.port, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
