"""What the REST layer asks of a store: one line a method. ``ReplicatedStore`` has them, and so has the tests' fake."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from cacheflow.machine.commands import Command, Result
from cacheflow.results import IncrResult, Item, RaftPosition, SetResult

Check = tuple[str, bool, str]
"""(name, whether it passed, detail for people) of one liveness or readiness check."""


class Store(Protocol):
    """Every method may be called from any thread. Those that replicate block and raise ReplicationError."""

    # Reads: memory of this node, unless the level asks for more.
    def read(
        self,
        key: str,
        *,
        consistency: str = "local",
        max_staleness_s: float | None = None,
        count: bool = True,
        strict: bool = False,
    ) -> Item | None: ...
    def keys_page(self, prefix: str, limit: int, cursor: str | None) -> tuple[list[str], str | None]: ...

    # Writes: replicated; they return once committed and visible here.
    def run(self, commands: list[Command], *, timeout_s: float | None = None) -> list[Result]: ...
    def set(
        self,
        key: str,
        value: Any,
        *,
        ttl: float | None = None,
        keep_ttl: bool = False,
        only_if_absent: bool = False,
        only_if_version: int | None = None,
        content_type: str | None = None,
        idempotency_key: str | None = None,
    ) -> SetResult: ...
    def delete(self, key: str, *, only_if_version: int | None = None, idempotency_key: str | None = None) -> bool: ...
    def incr(
        self,
        key: str,
        delta: int = 1,
        *,
        initial: int | None = None,
        ttl: float | None = None,
        idempotency_key: str | None = None,
    ) -> IncrResult: ...
    def touch(self, key: str, ttl: float | None, *, idempotency_key: str | None = None) -> bool: ...
    def batch(
        self, commands: list[Command], *, atomic: bool = False, idempotency_key: str | None = None
    ) -> list[Result]: ...
    def delete_prefix(self, prefix: str, *, idempotency_key: str | None = None) -> int: ...

    # The cluster.
    def position(self) -> RaftPosition: ...
    def nodes(self) -> list[dict[str, Any]]: ...
    def status(self) -> dict[str, Any]: ...
    def digest(self, index: int | None, full: bool) -> tuple[int, str] | None: ...
    def register(self, node_id: str, address: str, raft_address: str) -> bool: ...
    def transfer_leadership(self, node_id: str | None) -> str: ...

    # Health.
    def readiness(self) -> Sequence[Check]: ...
    def liveness(self) -> Sequence[Check]: ...
    def metrics(self) -> dict[str, float]: ...
