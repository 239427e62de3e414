"""What a command is: one entry of the table that dispatches, checks, queues and documents it.

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

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from cacheflow.contract import Entry
from cacheflow.machine.commands import Command, Result

if TYPE_CHECKING:
    from cacheflow.wire.resp_service import RespService

Arguments = list[bytes]


class Find(Protocol):
    """The live entry of a key. count: as a use."""

    def __call__(self, key: str, *, count: bool = True) -> Entry | None: ...


class Session(Protocol):
    """What commands may know of the connection they came through."""

    service: RespService
    protocol: int
    null: bytes
    null_array: bytes
    id: int
    name: str
    linearizable: bool
    library: dict[str, str]

    def describe(self) -> str:
        """The connection's line in CLIENT LIST."""


Finish = Callable[[Sequence[Result]], bytes]
Plan = tuple[Sequence[Command], Finish]

Local = Callable[[Session, Arguments], bytes]
Read = Callable[[Session, Find, Arguments], bytes]
Planner = Callable[[Session, Find, Arguments], Plan]
Control = Callable[[Any, Arguments], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """arity: of the name and all arguments, negative for "at least".  keys: the first, the last (negative: from the end)
    and the step, as COMMAND tells them.  steps, local, read, plan, control: see the module.
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
        """Whether a request may have so many parts."""
        return count == self.arity if self.arity >= 0 else count >= -self.arity

    def keys_in(self, arguments: Arguments) -> list[bytes]:
        """The keys that ``arguments`` name."""
        first, last, step = self.keys
        return arguments[first : (last if last >= 0 else len(arguments) + last) + 1 : step] if first else []


def wrong_arity(name: str) -> str:
    """Redis' words."""
    return f"ERR wrong number of arguments for '{name}' command"
