"""Interfaces between a node and its surroundings: loop, tasks, clock, events. The simulation has its own of each."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Protocol

from cacheflow.machine.machine import CacheMachine, Settled


@dataclass(frozen=True, slots=True)
class Timing:
    """A Raft node's election timeout and heartbeat interval, in seconds.

    A follower campaigns after one to two election timeouts without its leader.
    replace_after_s: a leader that has not heard a voter for so many seconds gives its vote to another member; 0: never.
    """

    election_timeout_s: float = 1.0
    heartbeat_s: float = 0.1
    replace_after_s: float = 0.0


class Budget(Protocol):
    """Interface: the time at which the present turn of an event loop should end, ``ends``, by the loop's clock."""

    @property
    def ends(self) -> float: ...


class Loop(Protocol):
    """Interface: the methods of an event loop that a node uses; asyncio's loops have them, but for ``budget``.

    budget: tells when the loop's present turn should begin nothing more that can wait for the next one.
    """

    @property
    def budget(self) -> Budget: ...
    def call_soon(self, callback: Callable[..., Any], *args: Any) -> Any: ...
    def call_later(self, delay: float, callback: Callable[..., Any], *args: Any) -> Any: ...
    def time(self) -> float: ...


class Tasks(Protocol):
    """Interface: a supervisor, which starts background tasks and restarts a task that raises.

    name: the task's name in log messages.
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
    """Interface: what a node tells the store, the layer above the node, which sends commands and waits for their results.

    The node tells the store the results of each applied entry, a new route to the leader, and a new state machine.
    """

    def applied(self, settled: list[Settled]) -> None: ...
    def route_changed(self) -> None: ...
    def machine_replaced(self, machine: CacheMachine) -> None: ...
