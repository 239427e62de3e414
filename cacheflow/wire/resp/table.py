"""The table of all RESP commands, by name."""

from __future__ import annotations

from typing import Final

from cacheflow.wire.resp.commands import clients, control, keys, scan, scripts, server, strings
from cacheflow.wire.resp.session import Spec

_ALL: Final = (
    *strings.SPECS,
    *keys.SPECS,
    *scan.SPECS,
    *server.SPECS,
    *clients.SPECS,
    *control.SPECS,
    *scripts.SPECS,
)

TABLE: Final[dict[bytes, Spec]] = {spec.name.encode(): spec for spec in sorted(_ALL, key=lambda spec: spec.name)}
