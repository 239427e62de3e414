"""The contract of a store: the types of its answers, and what each layer above calls on it.

1. The fronts name the protocols here, never the store: tests hand them a fake.
2. A *done* is called once, on the node's loop, and must not block. The call that it returns is made when the loop's turn
   has sent what it had to send, and wakes whoever waits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeAlias

from cacheflow.errors import ReplicationError
from cacheflow.machine.language.commands import Command, Result
from cacheflow.machine.state.entries import DATA, EXPIRES_AT_MS, KIND, META, VERSION, Entry
from cacheflow.results import Digest, Item, RaftPosition

__all__ = [
    "DATA",
    "EXPIRES_AT_MS",
    "KIND",
    "META",
    "VERSION",
    "Check",
    "Done",
    "Entry",
    "KeysCopy",
    "Outcome",
    "RestStore",
    "WireStore",
]

# The outcome of a proposal: one raw result a command, or the error that says why there is none.
Outcome: TypeAlias = list[Result] | ReplicationError
# A function that takes an outcome (see rule 2).
Done: TypeAlias = Callable[[Outcome], Callable[[], None]]
# (name, whether it passed, detail for people) of one liveness or readiness check.
Check: TypeAlias = tuple[str, bool, str]


class RestStore(Protocol):
    """Interface: what the REST layer needs of a store, the cache of a running node. Any thread may call it."""

    # Reads of single items as Python sees them. ``get_item`` may block when the level asks for it.
    def get_item(
        self,
        key: str,
        *,
        consistency: str = "local",
        max_staleness: float | None = None,
        peek: bool = False,
    ) -> Item | None: ...
    def read_applied(self, key: str, *, peek: bool = False) -> Item | None: ...
    def keys_page(
        self, prefix: str = "", limit: int = ..., cursor: str | None = None
    ) -> tuple[list[str], str | None]: ...
    def now_ms(self) -> int: ...
    def told_ms(self) -> int: ...

    # Commands on their way through the log: see WireStore; ``run`` and ``barrier`` block until the answer is there.
    def submit(self, commands: list[Command], done: Done) -> None: ...
    def submit_barrier(self, done: Done) -> None: ...
    def run(self, commands: list[Command]) -> list[Result]: ...
    def barrier(self) -> list[Result]: ...

    # The members and who leads them. These calls block.
    def position(self) -> RaftPosition: ...
    def nodes(self) -> list[dict[str, Any]]: ...
    def status(self) -> dict[str, Any]: ...
    def digest(self, *, index: int | None = None, full: bool = False) -> Digest | None: ...
    def register(self, node_id: str, address: str, raft_address: str, was_member: bool = False) -> bool: ...
    def remove_node(self, node_id: str) -> None: ...
    def transfer_leadership(self, node_id: str | None) -> str: ...
    def raise_level(self, level: Any) -> int: ...

    # Counters and gauges by name, and the checks of liveness and readiness.
    def metrics(self) -> dict[str, float]: ...
    def readiness(self) -> Sequence[Check]: ...
    def liveness(self) -> Sequence[Check]: ...


class KeysCopy(Protocol):
    """Interface: a copy of all keys of a cache that is made slice by slice (see machine/listing.py)."""

    @property
    def slices(self) -> list[list[str]]: ...
    @property
    def done(self) -> bool: ...
    @property
    def still_gathers(self) -> bool: ...
    @property
    def has_all(self) -> bool: ...
    def go_on(self) -> list[str]: ...


class WireStore(Protocol):
    """Interface: what the Redis and memcached fronts need of a store. Called on the event loop only; no method blocks."""

    def lookup(self, key: str, *, count: bool = True) -> Entry | None:
        """Return the live entry under ``key``, or None. count: the look-up counts as a use. Raises NotReady."""

    def lookup_all(self, keys: list[str], bytes_max: int) -> list[Entry | None] | None:
        """Return the live entries of ``keys`` at one moment, None for each absent one.

        Returns None for all when their values exceed ``bytes_max`` together. Raises NotReady.
        """

    def now_ms(self) -> int:
        """Return the cluster's time in milliseconds, by which entries expire."""

    def copy_keys(self) -> KeysCopy:
        """Return a copy of all keys in memory, of which nothing is copied yet. Raises NotReady."""

    def live(self, keys: list[str]) -> list[str]:
        """Return those of ``keys`` that are there now; this counts as no use of them. Raises NotReady."""

    def __len__(self) -> int: ...

    def submit(self, commands: list[Command], done: Done) -> None:
        """Replicate ``commands`` in order; ``done`` gets their results, or the error."""

    def submit_barrier(self, done: Done) -> None:
        """Call ``done`` once everything acknowledged before this call is applied on this node."""

    def metrics(self) -> dict[str, float]: ...
