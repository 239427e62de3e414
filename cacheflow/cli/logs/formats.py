"""What a line of the log says, in two formats: for people, and as JSON.

A line stays a line, and is harmless on a terminal, whatever a message holds: names and errors come from clients and peers.
"""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

from cacheflow.errors import CacheFlowError
from cacheflow.rest import served_ids
from cacheflow.results import RaftPosition

# The characters of a message and of a traceback that are shown; of a traceback its end. Docker cuts lines at 16 KiB.
MESSAGE_MAX: Final = 4000
EXCEPTION_MAX: Final = 8000
# Returns where the node stands in the log; raises CacheFlowError before it has started.
Where = Callable[[], RaftPosition]


def escaped(text: str) -> str:
    """Return ``text`` with escapes for all characters that are not printed: ends of lines, a terminal's commands, and more."""
    if text.isprintable():
        return text
    return "".join([char if char.isprintable() else char.encode("unicode_escape").decode() for char in text])


def _shortened(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[:most]} ... ({len(text) - most} more characters)"


class LineFormatter(logging.Formatter):
    """The base of both formats: a line's message, its traceback, and what is known of the node.

    node_id: the node's id, as far as the settings say it.  where: tells more, once there is a node.
    """

    where: Where | None = None

    def __init__(self, node_id: str | None) -> None:
        super().__init__()
        self._node_id = node_id

    def place(self) -> tuple[str | None, int | None, int | None]:
        """Return (node id, term, index) of the node now, None for each that is not known yet."""
        if self.where is not None:
            with contextlib.suppress(CacheFlowError):
                at = self.where()
                return at.node_id, at.term, at.index
        return self._node_id, None, None

    def message_of(self, record: logging.LogRecord) -> str:
        """Return the message of ``record``, also where its arguments do not fit into its text."""
        try:
            return _shortened(record.getMessage(), MESSAGE_MAX)
        except Exception:
            return f"{record.msg!s:.{MESSAGE_MAX}} (a line that cannot be formatted)"

    def traceback_of(self, record: logging.LogRecord) -> str:
        """Return the traceback that comes with ``record``, or its end if it is long; "" without one."""
        text = self.formatException(record.exc_info) if record.exc_info and record.exc_info[0] else ""
        return text if len(text) <= EXCEPTION_MAX else f"... {text[-EXCEPTION_MAX:]}"


class TextFormatter(LineFormatter):
    """Lines for people: time, level, node, logger and message; a traceback follows on lines of its own, which are indented."""

    def format(self, record: logging.LogRecord) -> str:
        request_id, trace_id = served_ids()
        ids = f" [request {request_id}{f', trace {trace_id}' if trace_id else ''}]" if request_id else ""
        node = self.place()[0] or "-"
        line = (
            f"{self.formatTime(record)} {record.levelname} {node} {record.name}: "
            f"{escaped(self.message_of(record))}{ids}"
        )
        # Indented: what an exception holds cannot pass for a line of the log.
        return "".join([line, *(f"\n    {escaped(part)}" for part in self.traceback_of(record).split("\n") if part)])


class JsonFormatter(LineFormatter):
    """Lines for programs: one JSON object each, in ASCII."""

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC)
        node, term, index = self.place()
        request_id, trace_id = served_ids()
        shown: dict[str, Any] = {
            "time": f"{at:%Y-%m-%dT%H:%M:%S}.{at.microsecond // 1000:03}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": self.message_of(record),
            "node": node,
            "term": term,
            "index": index,
            "request": request_id,
            "trace": trace_id,
            **getattr(record, "fields", {}),
            "exception": self.traceback_of(record),
        }
        return json.dumps({name: value for name, value in shown.items() if value not in (None, "")})
