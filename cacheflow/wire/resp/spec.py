"""Spec: a command as one entry of the table that dispatches, checks, queues and documents it.

There are four sorts, by what answers:

- ``local``: the connection itself.  ``answer(session, arguments)``
- ``read``: memory.  ``answer(session, find, arguments)``; in a transaction that writes, ``find`` looks at what the
  entry of the log found instead.
- ``plan``: the log.  ``plan(session, find, arguments)`` names the commands of the machine and how their results read.
  With ``steps`` it looks at memory first (through ``find``, which notes what it saw), and its commands take place only
  if that still holds.
- ``control``: the connection's own state; ``control(connection, arguments)`` replies by itself.

``arguments`` begin with the command's name. All of them raise CommandError.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from cacheflow.contract import Entry
from cacheflow.contract import WireStore as Store
from cacheflow.machine.language.commands import Command, Result

Arguments = list[bytes]


class Find(Protocol):
    """A function that returns the live entry of a key. count: looking at it is a use."""

    def __call__(self, key: str, *, count: bool = True) -> Entry | None: ...


class Scans(Protocol):
    """The scans under way on this node, as commands see them. See resp_scan.Scans."""

    def page(self, cursor: int, count: int) -> tuple[list[str], int]: ...
    def any_key(self) -> str | None: ...


class Shared(Protocol):
    """The settings and figures that the connections of one port share. See resp_service.RespService."""

    store: Store
    table: Mapping[bytes, Spec]
    token: bytes | None
    value_bytes_max: int
    request_bytes_max: int
    wall: Callable[[], float]
    accepted: int
    started_at: float
    run_id: str

    @property
    def scans(self) -> Scans: ...
    @property
    def connections(self) -> Mapping[int, Session]: ...
    def wall_ms(self) -> int: ...
    def admits(self, user: bytes, password: bytes) -> bool: ...


class Session(Protocol):
    """A connection, as the commands see it that came through it. See resp_session.RespSession."""

    service: Shared
    protocol: int
    null: bytes
    null_array: bytes
    id: int
    name: str
    linearizable: bool
    library: dict[str, str]

    def describe(self) -> str:
        """Return the connection's line in CLIENT LIST."""


Finish = Callable[[Sequence[Result]], bytes]
Plan = tuple[Sequence[Command], Finish]

Local = Callable[[Session, Arguments], bytes]
Read = Callable[[Session, Find, Arguments], bytes]
Planner = Callable[[Session, Find, Arguments], Plan]
Control = Callable[[Any, Arguments], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """One command of the table.

    arity: the number of words, the name among them; negative for "at least".  keys: the first, the last (negative: from the
    end) and the step, as COMMAND tells them.  steps, local, read, plan, control: see the module.
    """

    name: str
    arity: int
    summary: str
    group: str
    flags: tuple[str, ...] = ()
    keys: tuple[int, int, int] = (0, 0, 0)
    local: Local | None = None
    read: Read | None = None
    plan: Planner | None = None
    steps: bool = False
    control: Control | None = None

    def takes(self, count: int) -> bool:
        """True if a request of this command may have so many words."""
        return count == self.arity if self.arity >= 0 else count >= -self.arity

    def keys_in(self, arguments: Arguments) -> list[bytes]:
        """Return the keys that ``arguments`` name."""
        first, last, step = self.keys
        return arguments[first : (last if last >= 0 else len(arguments) + last) + 1 : step] if first else []


# The commands since MULTI.
Queue = list[tuple[Spec, Arguments]]
# Key -> its version at WATCH; 0 for an absent key, None until the turn of WATCH has come.
Watched = dict[str, "int | None"]


def wrong_arity(name: str) -> str:
    """Return Redis' words for a wrong number of arguments."""
    return f"ERR wrong number of arguments for '{name}' command"
