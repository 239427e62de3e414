"""How lines leave the process: in a thread of its own, so that nobody waits for whoever reads the log.

Where LINES_WAITING_MAX lines wait, more are dropped and counted. So a journal that hangs, or a pager that somebody has left open,
holds no event loop. A line that cannot be written, or not made, counts as dropped too.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import select
import threading
from typing import Final

LINES_WAITING_MAX: Final = 4096
# Seconds for which the end of a process waits until its lines are written.
_WRITTEN_WITHIN_S: Final = 1.0


class Writer(logging.Handler):
    """Writes lines to the file descriptor ``descriptor``, in a thread of its own; nobody waits for it but ``flush``."""

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._lines: queue.Queue[str | threading.Event | None] = queue.Queue(LINES_WAITING_MAX)
        self._writable = select.poll()
        self._writable.register(descriptor, select.POLLOUT)
        # Lines that were dropped since this was last told.
        self._dropped = 0
        self._counting = threading.RLock()  # guards _dropped; a signal's handler may log, too
        self._ends = False
        # True if the last line could not be written.
        self._fails = False
        threading.Thread(target=self._write, name="cacheflow-log", daemon=True).start()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._lines.put_nowait(self.format(record))
        except Exception:  # no room; or a line that cannot be made, which is no fault of whoever logs
            self._drop()

    def flush(self) -> None:
        """Wait until all lines of before are written, for a second at most."""
        written = threading.Event()
        with contextlib.suppress(queue.Full):
            self._lines.put(written, timeout=_WRITTEN_WITHIN_S)
            written.wait(_WRITTEN_WITHIN_S)

    def close(self) -> None:
        """Have the thread end that writes, once it has written what waits."""
        self._ends = True
        # Where there is no room for this the thread has lines to write, and looks whether it is to end behind them.
        with contextlib.suppress(queue.Full):
            self._lines.put_nowait(None)
        super().close()

    def dropped(self) -> int:
        """Return how many lines were dropped since the last call; they wait while nothing can be written, and so nothing told."""
        with self._counting:
            dropped, self._dropped = (0, self._dropped) if self._fails else (self._dropped, 0)
        return dropped

    def _drop(self) -> None:
        with self._counting:
            self._dropped += 1

    def _write(self) -> None:
        # True if the last line was written in part: the next one must not go on with it.
        torn = False
        while not (self._ends and self._lines.empty()) and (line := self._lines.get()) is not None:
            if isinstance(line, threading.Event):
                line.set()
                continue
            text = f"\n{line}\n" if torn else f"{line}\n"
            data = memoryview(text.encode(errors="backslashreplace"))
            try:
                while data:
                    data = data[self._write_some(data) :]
                    torn = bool(data)
                self._fails = False
            except OSError:  # the disk is full, or nobody reads any more
                self._fails = True
                self._drop()

    def _write_some(self, data: memoryview) -> int:
        """Write as much of ``data`` as the descriptor takes, once it takes any; return how many bytes that was."""
        while True:
            try:
                # Past Python's own buffer, whose lock the end of the process would wait for.
                return os.write(self._descriptor, data)
            except BlockingIOError:  # another process may have made it so: stderr is shared
                self._writable.poll()
