"""A terminal that a program runs on, of any size: what it shows, what is typed, and whether it is left as it was."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

# Where a picture on the whole screen begins, and what else a terminal does not show.
_HOME = "\x1b[H"
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
ALTERNATE, BACK = "\x1b[?1049h", "\x1b[?1049l"
CURSOR_HIDDEN, CURSOR_SHOWN = "\x1b[?25l", "\x1b[?25h"
DEADLINE_S = 30.0


class Terminal:
    """A pseudo-terminal with ``python -m cacheflow`` on it. Use as a context manager: leaving it ends the program.

    last_words: one of them ends each picture that the program draws on the whole screen.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        columns: int = 80,
        lines: int = 24,
        environ: Mapping[str, str] | None = None,
        last_words: tuple[str, ...] = ("p to hold", "q to end"),
    ) -> None:
        self._last_words = last_words
        self._master, slave = pty.openpty()
        self._slave = slave
        self.resize(columns, lines)
        self.before = termios.tcgetattr(slave)
        self.output = ""
        kept = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "cacheflow", *arguments],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env={**kept, "TERM": "xterm-256color", **(environ or {})},
            # Its own session, of which this is the terminal: Ctrl-C reaches it and nobody else.
            preexec_fn=lambda: os.login_tty(slave),
        )

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._master)
        os.close(self._slave)

    def resize(self, columns: int, lines: int) -> None:
        """Give the terminal another size, as a user does who drags the corner of its window."""
        fcntl.ioctl(self._slave, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def type(self, keys: str) -> None:
        """Press ``keys``."""
        os.write(self._master, keys.encode())

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the program."""
        self.process.send_signal(number)

    def ignores(self, number: signal.Signals) -> bool:
        """True if the program ignores a signal (Linux)."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        ignored = next(line.split()[1] for line in status.splitlines() if line.startswith("SigIgn:"))
        return bool(int(ignored, 16) >> (number - 1) & 1)

    def settings(self) -> list[Any]:
        """Return the terminal's settings."""
        return termios.tcgetattr(self._slave)

    def frame(self) -> list[str]:
        """Return the lines of the latest whole picture on the screen, without colours."""
        for picture in reversed(self.output.split(_HOME)[1:]):
            lines = [line.rstrip() for line in _CONTROL.sub("", picture).replace("\r", "").split("\n")]
            # The last one may still be on its way.
            if lines[-1].endswith(self._last_words):
                return lines
        return [""]

    def wait(self, condition: Callable[[], Any], what: str) -> None:
        """Read what the program writes until ``condition`` is true."""
        deadline = time.monotonic() + DEADLINE_S
        while not condition():
            assert time.monotonic() < deadline, f"not within {DEADLINE_S:g} s: {what}; shown: {self.output[-3000:]!r}"
            self._read(0.05)

    def end(self) -> int:
        """Wait until the program has ended; return its exit code."""
        self.wait(lambda: self.process.poll() is not None, "the program ends")
        while self._read(0.0):
            pass
        assert self.process.returncode is not None
        return self.process.returncode

    def _read(self, wait_s: float) -> bool:
        if not select.select([self._master], [], [], wait_s)[0]:
            return False
        self.output += os.read(self._master, 1 << 16).decode("utf-8", "replace")
        return True
