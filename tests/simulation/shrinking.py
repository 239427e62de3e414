"""The search for a smaller run that fails in the same way: fewer faults, less time, fewer clients.

Everything else of a run follows from its seed, and each fault makes its own choices, so what is left plays again exactly.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from simulation.faults import Strike
from simulation.runner import Outcome, run

SECONDS_MIN = 1.0
# The most runs of one search.
RUNS_MAX = 400


@dataclass(frozen=True, slots=True)
class Case:
    """The settings of a run. clients: None is as many as its seed says. kinds: of the faults, as ``run`` takes them."""

    seed: int
    nodes: int
    seconds: float
    strikes: tuple[Strike, ...]
    clients: int | None = None
    kinds: dict[str, float] | None = None

    def play(self, *, trace: bool = False) -> Outcome:
        """Run it."""
        return run(
            self.seed,
            self.nodes,
            self.seconds,
            kinds=self.kinds,
            strikes=self.strikes,
            clients=self.clients,
            trace=trace,
        )


def check_of(violation: str) -> str:
    """Return the name of the check that complained: "at 1.5: durability: n1 ..." is durability's."""
    return violation.partition(": ")[2].partition(":")[0]


class Shrinking:
    """The search for a smaller run. play: runs one; that of the tests counts them."""

    def __init__(self, check: str, play: Callable[[Case], Outcome] = Case.play) -> None:
        self._check = check
        self._play = play
        self._runs_left = RUNS_MAX

    def fails(self, case: Case) -> bool:
        """Return whether the same check complains in a run; False, too, when no more runs are left."""
        if self._runs_left <= 0:
            return False
        self._runs_left -= 1
        violation = self._play(case).violation
        return violation is not None and check_of(violation) == self._check

    def shrink(self, case: Case) -> Case:
        """Return a smaller case that fails likewise, or ``case`` itself."""
        case = self._fewer_clients(self._less_time(self._fewer_strikes(case)))
        # With less under way some more faults may have become needless.
        return self._fewer_strikes(case)

    def _fewer_strikes(self, case: Case) -> Case:
        """Return a case with fewer faults by delta debugging (Zeller): leave pieces out, large ones first."""
        pieces = 2
        while len(case.strikes) > 0:
            size = -(-len(case.strikes) // pieces)
            for begin in range(0, len(case.strikes), size):
                fewer = replace(case, strikes=case.strikes[:begin] + case.strikes[begin + size :])
                if self.fails(fewer):
                    case, pieces = fewer, max(2, pieces - 1)
                    break
            else:
                if size == 1:
                    break
                pieces *= 2
        return case

    def _less_time(self, case: Case) -> Case:
        while case.seconds / 2 >= SECONDS_MIN and self.fails(shorter := replace(case, seconds=case.seconds / 2)):
            case = shorter
        return case

    def _fewer_clients(self, case: Case) -> Case:
        for clients in (1, 2, 4):
            if self.fails(fewer := replace(case, clients=clients)):
                return fewer
        return case


def shrunk(outcome: Outcome, case: Case) -> tuple[Case, str]:
    """Return a smaller case that fails like ``outcome``, and its transcript with every message and call."""
    assert outcome.violation is not None
    smaller = Shrinking(check_of(outcome.violation)).shrink(case)
    played = smaller.play(trace=True)
    lines = [
        f"seed {smaller.seed}, {smaller.nodes} nodes, {smaller.seconds:g} s, {smaller.clients or 'all'} clients, "
        f"{len(smaller.strikes)} of {len(case.strikes)} faults:",
        *(f"  {strike.at_s:10.6f} {strike.name} (seed {strike.seed})" for strike in smaller.strikes),
        *played.transcript,
        f"{played.violation}",
    ]
    return smaller, "\n".join(lines)
