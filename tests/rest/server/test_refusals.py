"""A write that would only be refused is refused before it costs a thread."""

from __future__ import annotations

import functools
import json

from rest.wire import ask

from cacheflow.rest import HttpServer, turn_away
from cacheflow.rest.app import RestApp

JSON = "Content-Type: application/json\r\n"


def test_while_the_gate_is_full_writes_are_turned_away_and_reads_served(app: RestApp) -> None:
    gate = app.services.gate
    for _ in range(gate.waiting_max):
        gate.__enter__()
    with HttpServer(app, "127.0.0.1", 0, turn_away=functools.partial(turn_away, app.services)) as server:
        refused = ask(server.port, "PUT", "/cache/k", b'{"value": 1}', JSON)
        assert refused.status == 503
        assert refused.headers["retry-after"] == "1" and "x-raft-index" in refused.headers
        problem = json.loads(refused.body)
        assert problem["type"] == "urn:cacheflow:overloaded" and problem["outcome"] == "not applied"
        assert ask(server.port, "GET", "/livez").status == 200
        reads = json.dumps({"ops": [{"op": "get", "key": "k"}]}).encode()
        assert ask(server.port, "POST", "/cache/_batch", reads, JSON).status == 200
        counted = gate.refused
        gate.__exit__()
        served = ask(server.port, "PUT", "/cache/k", b'{"value": 1}', JSON)
        assert served.status == 201
        assert gate.refused == counted == 1
