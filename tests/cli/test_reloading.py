"""What SIGHUP has read again: one after the other, whatever becomes of one of them."""

from __future__ import annotations

import pytest

from cacheflow.cli.reloading import reload_all
from cacheflow.errors import ConfigError


def test_all_are_read_again_and_what_fails_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    read: list[str] = []

    def broken() -> None:
        raise ConfigError("tls-cert = 'x': cannot be read")

    def stumbles() -> None:
        raise RuntimeError("unforeseen")

    reload_all([lambda: read.append("a"), broken, stumbles, lambda: read.append("b")])
    assert read == ["a", "b"]
    lines = [record.getMessage() for record in caplog.records]
    assert lines[0] == "not reloaded, and what was in force goes on: tls-cert = 'x': cannot be read"
    assert len(lines) == 2
