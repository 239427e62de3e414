"""RequestTimes: the requests that a front has answered, by command and outcome, and how long their answers took.

There are three outcomes. *ok*: the request was answered, a miss and a condition that did not hold among them. *refused*: the
request itself is at fault, and would be in any state of the node. *error*: the node could not do it, or does not know whether
it was done: no leader, not committed, not ready.

Commands come from the fronts' own tables. What a client names that is in no table is ``unknown``: a client makes no new metric.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from cacheflow.measuring.histogram import Histogram
from cacheflow.measuring.metrics import labelled
from cacheflow.measuring.slow_log import SlowLog

OK: Final = "ok"
REFUSED: Final = "refused"
ERROR: Final = "error"
# Stands for every command that is in no table of the node's.
UNKNOWN: Final = "unknown"


class RequestTimes:
    """Histograms of the times that a front's answers took. One thread notes, or one at a time; any thread may read.

    front: http, resp or memcached.  slow: the node's slow log.  clock: returns seconds, by which requests are timed.
    answered: the histograms of requests that ended well, by command, as far as there are any: for hot paths.
    """

    def __init__(self, front: str, slow: SlowLog, clock: Callable[[], float] = time.monotonic) -> None:
        self.front = front
        self.slow = slow
        self.clock = clock
        self.answered: dict[str, Histogram] = {}
        self._by_outcome: dict[str, dict[str, Histogram]] = {OK: self.answered, REFUSED: {}, ERROR: {}}

    def histogram(self, command: str, outcome: str = OK) -> Histogram:
        """Return the histogram of the answers to ``command`` that had this outcome, always the same object."""
        by_command = self._by_outcome[outcome]
        found = by_command.get(command)
        if found is None:
            found = by_command[command] = Histogram()
        return found

    def note(self, command: str, outcome: str, seconds: float, times: int = 1) -> None:
        """Count ``times`` requests for ``command``, each answered within ``seconds`` seconds."""
        self.histogram(command, outcome).note(seconds, times)

    def by_command(self) -> dict[str, dict[str, Histogram]]:
        """Return the histograms by command and, for each command, by outcome; of commands that were asked for at least once."""
        found: dict[str, dict[str, Histogram]] = {}
        for outcome, histograms in self._by_outcome.items():
            # A list, because other threads may come here while one adds to it.
            for command, histogram in list(histograms.items()):
                found.setdefault(command, {})[outcome] = histogram
        return {command: found[command] for command in sorted(found)}

    def metrics(self) -> dict[str, Histogram]:
        """Return the histograms by metric name, with front, command and outcome as labels. Any thread may call it."""
        return {
            labelled("request_seconds", front=self.front, command=command, outcome=outcome): histogram
            for command, outcomes in self.by_command().items()
            for outcome, histogram in outcomes.items()
        }
