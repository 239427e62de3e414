"""What a node asks of what is around it: its event loop, the cluster's time, the store. The simulation has its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from cacheflow.machine.machine import CacheMachine, Settled


class Loop(Protocol):
    """What the node asks of its event loop; asyncio's has it."""

    def call_soon(self, callback: Callable[..., Any], *args: Any) -> Any: ...
    def call_later(self, delay: float, callback: Callable[..., Any], *args: Any) -> Any: ...
    def time(self) -> float: ...


class Tasks(Protocol):
    """Starts background tasks, and starts one again that raises. name: what people read in the log."""

    def start(self, name: str, work: Callable[[], Coroutine[Any, Any, None]]) -> asyncio.Task[None]: ...


class Clock(Protocol):
    """ClusterClock, as the node sees it."""

    def hear(self, cluster_ms: int) -> None: ...
    def lead(self, latest_ms: int, voters_heard: bool) -> None: ...
    def now_ms(self) -> int: ...
    def wall_ms(self) -> int: ...

    @property
    def heard(self) -> bool: ...

    @property
    def known(self) -> bool: ...


class Events(Protocol):
    """What the node tells the store."""

    def applied(self, settled: list[Settled]) -> None: ...
    def route_changed(self) -> None: ...
    def machine_replaced(self, machine: CacheMachine) -> None: ...
