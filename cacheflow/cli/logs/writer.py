"""How lines leave the process: in a thread of its own, so that nobody waits for whoever reads the log.

Where LINES_WAITING_MAX lines wait, more are dropped and counted. So a journal that hangs, or a pager that somebody has left open,
holds no event loop.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
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
        # Lines that were dropped since this was last told.
        self._dropped = 0
        threading.Thread(target=self._write, name="cacheflow-log", daemon=True).start()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._lines.put_nowait(self.format(record))
        except queue.Full:
            self._dropped += 1

    def flush(self) -> None:
        """Wait until all lines of before are written, for a second at most."""
        written = threading.Event()
        with contextlib.suppress(queue.Full):
            self._lines.put(written, timeout=_WRITTEN_WITHIN_S)
            written.wait(_WRITTEN_WITHIN_S)

    def close(self) -> None:
        """Have the thread end that writes, once it has written what waits."""
        with contextlib.suppress(queue.Full):
            self._lines.put_nowait(None)
        super().close()

    def dropped(self) -> int:
        """Return how many lines were dropped since the last call of this method."""
        self.acquire()
        dropped, self._dropped = self._dropped, 0
        self.release()
        return dropped

    def _write(self) -> None:
        while (line := self._lines.get()) is not None:
            if isinstance(line, threading.Event):
                line.set()
                continue
            data = memoryview(f"{line}\n".encode(errors="backslashreplace"))
            # Past Python's own buffer, whose lock the end of the process would wait for. Nobody may read any more.
            with contextlib.suppress(OSError):
                while data:
                    data = data[os.write(self._descriptor, data) :]
