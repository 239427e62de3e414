"""Interfaces between a node and its surroundings: loop, tasks, clock, events. The simulation has its own of each."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from cacheflow.machine.machine import CacheMachine, Settled


class Loop(Protocol):
    """Interface: the methods of an event loop that a node uses; asyncio's loops have them."""

    def call_soon(self, callback: Callable[..., Any], *args: Any) -> Any: ...
    def call_later(self, delay: float, callback: Callable[..., Any], *args: Any) -> Any: ...
    def time(self) -> float: ...


class Tasks(Protocol):
    """Interface: a supervisor, which starts background tasks and restarts one that raises.

    name: how the node's log names the task.
    """

    def start(self, name: str, work: Callable[[], Coroutine[Any, Any, None]]) -> asyncio.Task[None]: ...


class Clock(Protocol):
    """Interface: a clock that estimates the cluster's common time and knows this node's wall clock."""

    def hear(self, cluster_ms: int, late_ms: int | None) -> None: ...
    def lead(self, stamp_ms: int, told_ms: int) -> None: ...
    def now_ms(self) -> int: ...
    def wall_ms(self) -> int: ...

    @property
    def heard(self) -> bool: ...

    @property
    def known(self) -> bool: ...


class Events(Protocol):
    """Interface: what a node calls in the store, the layer above it, which sends commands and waits for their results.

    The node tells the results of applied entries, a new route to the leader, and a replaced state machine.
    """

    def applied(self, settled: list[Settled]) -> None: ...
    def route_changed(self) -> None: ...
    def machine_replaced(self, machine: CacheMachine) -> None: ...
