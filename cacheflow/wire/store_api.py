"""What the wire ports ask of a store: one line a method. ``ReplicatedStore`` has them, and so has the tests' fake."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from cacheflow.errors import ReplicationError
from cacheflow.machine.commands import Command, Result

# data, kind, meta, version, expires_at_ms (0: never)
Entry = tuple[bytes, int, "str | int | None", int, int]
Outcome = list[Result] | ReplicationError
Done = Callable[[Outcome], Callable[[], None]]


class Store(Protocol):
    """Called on the event loop only; nothing here blocks."""

    def lookup(self, key: str, *, count: bool = True) -> Entry | None:
        """The live entry in this node's memory. Raises NotReady."""

    def lookup_all(self, keys: list[str], bytes_max: int) -> list[Entry | None] | None:
        """Several at one moment; None when their values are over ``bytes_max``. Raises NotReady."""

    def submit(self, commands: list[Command], done: Done) -> None:
        """Replicate; ``done`` is called once, and what it returns once at the end of the loop's turn."""

    def submit_barrier(self, done: Done) -> None:
        """The same for "everything acknowledged before this call is applied here"."""

    def now_ms(self) -> int:
        """The cluster's time, to which entries' ends belong."""

    def all_keys(self) -> list[str]:
        """The keys in memory, in no order, some perhaps past their end: 10 ms a million. Raises NotReady."""

    def __len__(self) -> int: ...
    def metrics(self) -> dict[str, float]: ...
