"""Seams: the interfaces through which a node uses its surroundings. The simulation has its own of each."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from cacheflow.machine.machine import CacheMachine, Settled


class Loop(Protocol):
    """The methods of an event loop that a node uses; asyncio's loop has them."""

    def call_soon(self, callback: Callable[..., Any], *args: Any) -> Any: ...
    def call_later(self, delay: float, callback: Callable[..., Any], *args: Any) -> Any: ...
    def time(self) -> float: ...


class Tasks(Protocol):
    """A supervisor: starts background tasks, and starts a task again that raises. name: what people read in the log."""

    def start(self, name: str, work: Callable[[], Coroutine[Any, Any, None]]) -> asyncio.Task[None]: ...


class Clock(Protocol):
    """The cluster's time as a node uses it: ClusterClock."""

    def hear(self, cluster_ms: int) -> None: ...
    def lead(self, stamp_ms: int, told_ms: int) -> None: ...
    def now_ms(self) -> int: ...
    def wall_ms(self) -> int: ...

    @property
    def heard(self) -> bool: ...

    @property
    def known(self) -> bool: ...


class Events(Protocol):
    """The events that a node reports to the store."""

    def applied(self, settled: list[Settled]) -> None: ...
    def route_changed(self) -> None: ...
    def machine_replaced(self, machine: CacheMachine) -> None: ...
