"""A node that builds a snapshot when it gets SIGUSR1, and otherwise none, so that a row decides what is on its disk.

unattended_node.py serve FLAGS
"""

from __future__ import annotations

import signal
import sys
from types import FrameType
from unittest import mock

from cacheflow.cli.main import main
from cacheflow.node import engine
from cacheflow.raft.snapshots import schedule

_asked: list[int] = []


class OnDemand(schedule.Snapshotting):
    """Looks once a heartbeat whether it was asked."""

    def consider(self) -> None:
        """As always, for no journal is long enough; and what was asked."""
        super().consider()
        if _asked:
            _asked.clear()
            self.build()


def _ask(signum: int, frame: FrameType | None) -> None:
    _asked.append(signum)


if __name__ == "__main__":
    schedule.JOURNAL_BYTES_MIN = sys.maxsize
    signal.signal(signal.SIGUSR1, _ask)
    with mock.patch.object(engine, "Snapshotting", OnDemand):
        sys.exit(main())
