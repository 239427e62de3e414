"""The table of all RESP commands, by name."""

from __future__ import annotations

from typing import Final

from cacheflow.wire import resp_clients, resp_control, resp_keys, resp_scan, resp_server, resp_strings
from cacheflow.wire.resp_spec import Spec

_ALL: Final = (
    *resp_strings.SPECS,
    *resp_keys.SPECS,
    *resp_scan.SPECS,
    *resp_server.SPECS,
    *resp_clients.SPECS,
    *resp_control.SPECS,
)

TABLE: Final[dict[bytes, Spec]] = {spec.name.encode(): spec for spec in sorted(_ALL, key=lambda spec: spec.name)}
