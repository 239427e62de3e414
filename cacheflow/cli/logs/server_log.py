"""ServerLog: the logging of a server's process, which nothing but such a process configures.

An embedded store's lines go where its host sends those of the logger ``cacheflow``.
"""

from __future__ import annotations

import logging
import os
import sys
import threading

from cacheflow.cli.logs.bounds import Bounded
from cacheflow.cli.logs.formats import JsonFormatter, LineFormatter, TextFormatter, Where
from cacheflow.cli.logs.writer import Writer
from cacheflow.config import NodeConfig

logger = logging.getLogger(__name__)


class ServerLog:
    """The log of a server's process, while the process serves: the handler of all loggers, with its format and its bounds.

    A context manager. descriptor: where lines go, that of stderr unless told.
    """

    def __init__(self, config: NodeConfig, descriptor: int | None = None) -> None:
        self._bounded = Bounded()
        self._writer = Writer(_stderr() if descriptor is None else descriptor)
        self._writer.addFilter(self._bounded)
        self._format: LineFormatter = (JsonFormatter if config.log_format == "json" else TextFormatter)(config.node_id)
        self._writer.setFormatter(self._format)
        self._level = getattr(logging, config.log_level.upper())
        self._root, self._own = logging.getLogger(), logging.getLogger("cacheflow")
        self._before = self._root.level, self._own.level

    def __enter__(self) -> ServerLog:
        self._root.addHandler(self._writer)
        # What other packages have to say at the level debug nobody has asked for.
        self._root.setLevel(max(self._level, logging.INFO))
        self._own.setLevel(self._level)
        threading.excepthook = _thread_failed
        return self

    def __exit__(self, *_: object) -> None:
        threading.excepthook = threading.__excepthook__
        self.look()
        self.flush()
        self._root.removeHandler(self._writer)
        self._writer.close()
        self._root.setLevel(self._before[0])
        self._own.setLevel(self._before[1])

    def follow(self, where: Where) -> None:
        """Let each line from now on name what ``where`` returns: the node's id, its term and its applied index."""
        self._format.where = where

    def flush(self) -> None:
        """Wait until all lines of before are written, for a second at most."""
        self._writer.flush()

    def look(self) -> None:
        """Tell how many lines were left out or dropped. Called about once a second."""
        for lines, text in self._bounded.left_out():
            logger.warning("%d more lines like this one were left out: %s", lines, text)
        if dropped := self._writer.dropped():
            logger.warning(
                "%d lines were dropped: whoever reads this log does not keep up, or they could not be written", dropped
            )


def _thread_failed(failed: threading.ExceptHookArgs) -> None:
    name = failed.thread.name if failed.thread is not None else "?"
    if failed.exc_value is not None:
        logger.error(
            "the thread %s has ended in a fault",
            name,
            exc_info=(failed.exc_type, failed.exc_value, failed.exc_traceback),
        )


def _stderr() -> int:
    """Return the descriptor of stderr; where that is closed, one that drops everything: the number may be a file's by now."""
    return os.open(os.devnull, os.O_WRONLY) if sys.stderr is None else sys.stderr.fileno()
