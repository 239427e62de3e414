"""RESP connections whose scripts run where they are asked for: no thread, no loop, and so no time that passes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from wire.fake_store import START_MS, FakeStore
from wire.fake_transport import Client
from wire.resp_client import VALUE_BYTES_MAX, ignore, pack
from wire.turns import endless

from cacheflow.access.users import Access
from cacheflow.machine.language import commands as c
from cacheflow.wire.resp.replies import CommandError
from cacheflow.wire.resp.scripting.runner import Expired
from cacheflow.wire.resp.scripting.sandbox import GivenUp, Sandbox
from cacheflow.wire.resp.scripting.scripts import Scripts
from cacheflow.wire.resp.service import RespService
from cacheflow.wire.resp.table import TABLE


class InlineRunner:
    """Runs each script at once; ``between`` is called between its end and the telling of it.

    held: the scripts that were asked for wait for ``run_next``.  time_over: every script's time is over when it is looked at.
    """

    def __init__(self) -> None:
        self.between: Callable[[], object] = lambda: None
        self.held = False
        self.time_over = False
        self.runs = 0
        self.timers: list[Callable[[], None]] = []
        self._is_busy = False
        self._waiting: list[tuple[Callable[[Sandbox, Expired], Any], Callable[[Any], None]]] = []
        self._sandbox = Sandbox()

    @property
    def waiting(self) -> int:
        """The number of scripts that wait for ``run_next``."""
        return len(self._waiting)

    def start(self, work: Callable[[Sandbox, Expired], Any], done: Callable[[Any], None]) -> None:
        self._waiting.append((work, done))
        # What is told of one script may start another: they run one after the other, not one inside the other.
        while self._waiting and not self.held and not self._is_busy:
            self.run_next()

    def run_next(self) -> None:
        """Run the script that has waited longest."""
        work, done = self._waiting.pop(0)
        self.runs += 1
        self._is_busy = True
        outcome: Any
        try:
            outcome = work(self._sandbox, lambda: self.time_over)
        except GivenUp as why:
            self._sandbox = Sandbox()
            outcome = CommandError(f"ERR given up: {why}")
        self.between()
        done(outcome)
        self._is_busy = False

    def after(self, seconds: float, call: Callable[[], None]) -> Callable[[], None]:
        self.timers.append(call)
        return lambda: self.timers.remove(call)

    def pass_time(self) -> None:
        """Let the time of all that waits be over."""
        for call in list(self.timers):
            call()

    def kill(self) -> bool:
        return False


class ScriptClients:
    """Clients of one node's RESP port, over one fake store and one runner."""

    def __init__(self, access: Access | None = None) -> None:
        self.store = FakeStore()
        self.runner = InlineRunner()
        self.service = RespService(
            self.store,
            TABLE,
            access=access,
            value_bytes_max=VALUE_BYTES_MAX,
            wall=lambda: START_MS / 1000,
            slices=endless(),
        )
        self.service.scripts = Scripts(self.runner)

    def connect(self) -> Client:
        """One more client."""
        return Client(self.service.connection(ignore))


def evaluate(
    client: Client, script: str | bytes, *words: str, keys: tuple[str, ...] = (), command: str = "EVAL"
) -> bytes:
    """What ``client`` gets for a script with ``keys`` and the arguments ``words``."""
    return client.send(pack(command, script, str(len(keys)), *keys, *words))


def proposed(clients: ScriptClients) -> list[c.Command]:
    """The commands proposed so far."""
    return [command for proposal in clients.store.proposed for command in proposal]
