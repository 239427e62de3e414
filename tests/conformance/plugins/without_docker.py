"""A plugin for pytest: a stand-in for the fixture by which a suite starts containers."""

from __future__ import annotations

from typing import Any

import pytest


class _Docker:
    """What the suite asks of docker."""

    def start(self, *_: Any) -> None:
        """Start nothing: the nodes run."""

    def wait_for_service(self, *_: Any) -> None:
        """Wait for nothing."""


@pytest.fixture(scope="session")
def docker_services() -> _Docker:
    """A stand-in for the fixture of a plugin that starts containers."""
    return _Docker()
