"""Scripts: what all RESP connections of a node share of scripting."""

from __future__ import annotations

from cacheflow.wire.resp.scripting.catalogue import Catalogue
from cacheflow.wire.resp.scripting.runner import Runner, Runs
from cacheflow.wire.resp.scripting.turns import Turns


class Scripts:
    """The scripts that a node knows, the thread that runs them, and the queues of scripts that name the same key.

    The event loop owns it.
    """

    def __init__(self, runner: Runs | None = None) -> None:
        self.catalogue = Catalogue()
        self.turns = Turns()
        self.runner: Runs = Runner() if runner is None else runner
