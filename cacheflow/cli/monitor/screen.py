"""A live view on the whole terminal, until a key or a signal ends it; the terminal is as before afterwards.

rich draws it on the terminal's other screen, each picture over the one before, so that nothing flickers.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import sys
import termios
import time
import tty
from collections.abc import Callable, Iterator
from typing import Final, TypeVar

from rich.console import Console
from rich.live import Live

from cacheflow.cli.monitor.tables import FAINT, Line, cut_line
from cacheflow.cli.monitor.terminal import rich_text

# Seconds between two looks at keys, the terminal's size and what has changed: too short to be noticed.
LOOK_S: Final = 0.1

# What a key such as an arrow sends.
_ESCAPED: Final = re.compile(rb"\x1b(?:\[[0-9;]*[A-Za-z~]|O.|.)?")

T = TypeVar("T")


def live(
    console: Console, changes: Callable[[], int], take: Callable[[], T], page: Callable[[T, int], list[Line]]
) -> None:
    """Show pages on ``console`` until q is pressed; p holds what is shown, and lets it go on. Ctrl-C raises KeyboardInterrupt.

    changes: returns another number when there is something new.  take: returns what is to be shown now.
    page: returns its lines, at a width in characters.
    """
    held = False
    shown: tuple[object, ...] = ()
    taken, changed = take(), changes()
    with _keys() as pressed, Live(console=console, screen=True, auto_refresh=False) as view:
        while True:
            if not held and changes() != changed:
                changed = changes()
                taken = take()
            size = console.size
            state = (changed, size, held)
            if state != shown:
                shown = state
                view.update(rich_text(_fitted(page(taken, size.width), size.width, size.height, held)), refresh=True)
            for key in pressed(LOOK_S):
                if key == "q":
                    return
                if key in "p ":
                    held = not held


def _fitted(lines: list[Line], width: int, height: int, held: bool) -> list[Line]:
    """Return ``lines`` with the line about keys as the last one of the terminal; those that have no room are counted there."""
    keys = "held, p to go on  q to end" if held else "q to end  p to hold"
    room = max(height - 1, 0)
    if len(lines) > room:
        keys = f"{len(lines) - room} lines more  {keys}"
    shown = lines[:room]
    return [*shown, *([[]] * (room - len(shown))), cut_line([(keys, FAINT)], width)]


def _no_key(wait_s: float) -> str:
    time.sleep(wait_s)
    return ""


@contextlib.contextmanager
def _keys() -> Iterator[Callable[[float], str]]:
    """A context manager in which the terminal hands over each key as it is pressed; its function waits for keys, some seconds.

    That function returns the keys; "q" when there is nobody any more who could press one. Keys such as arrows, which send
    several characters, are left out. Without a terminal as stdin there are no keys. Ctrl-Z does nothing inside the block: the
    shell would have to live with the terminal as it is there.
    """
    if not sys.stdin.isatty():
        yield _no_key
        return
    fd = sys.stdin.fileno()

    def pressed(wait_s: float) -> str:
        if not select.select([fd], [], [], wait_s)[0]:
            return ""
        told = os.read(fd, 64)
        return _ESCAPED.sub(b"", told).decode("ascii", "replace").lower() if told else "q"

    before = termios.tcgetattr(fd)
    handlers = {signal.SIGTSTP: signal.signal(signal.SIGTSTP, signal.SIG_IGN)}
    for number in (signal.SIGQUIT, signal.SIGHUP):
        # These end it like Ctrl-C, and the terminal is as before; also where whoever has started it ignores them.
        handlers[number] = signal.signal(number, signal.default_int_handler)
    tty.setcbreak(fd)
    try:
        yield pressed
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)
        for number, handler in handlers.items():
            signal.signal(number, handler)
