"""What a front has counted, and a clock that tests move."""

from __future__ import annotations

from cacheflow.measuring.request_times import RequestTimes


class Clock:
    """Seconds, moved by tests."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def counted(times: RequestTimes) -> dict[tuple[str, str], int]:
    """The number of answered requests by command and outcome; without those of which there were none."""
    return {
        (command, outcome): histogram.count
        for command, outcomes in times.by_command().items()
        for outcome, histogram in outcomes.items()
        if histogram.count
    }
