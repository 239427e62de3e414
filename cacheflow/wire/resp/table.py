"""The table of all RESP commands, by name."""

from __future__ import annotations

from typing import Final

from cacheflow.wire.resp.commands import (
    catalogue,
    channels,
    clients,
    config,
    control,
    hashes,
    info,
    keys,
    latency,
    objects,
    scan,
    scripts,
    server,
    sets,
    slowlog,
    strings,
)
from cacheflow.wire.resp.session import Spec

_ALL: Final = (
    *strings.SPECS,
    *hashes.SPECS,
    *sets.SPECS,
    *keys.SPECS,
    *scan.SPECS,
    *objects.SPECS,
    *server.SPECS,
    *info.SPECS,
    *slowlog.SPECS,
    *latency.SPECS,
    *config.SPECS,
    *catalogue.SPECS,
    *clients.SPECS,
    *channels.SPECS,
    *control.SPECS,
    *scripts.SPECS,
)

TABLE: Final[dict[bytes, Spec]] = {spec.name.encode(): spec for spec in sorted(_ALL, key=lambda spec: spec.name)}
