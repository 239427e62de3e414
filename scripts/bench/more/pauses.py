"""How long one entry stops a node: the machine alone, by what the entry does, with the garbage collector as it is."""

from __future__ import annotations

import random
import time
from collections.abc import Iterable
from typing import Any

from cacheflow.machine.language import commands as c
from cacheflow.machine.machine import CacheMachine
from scripts.bench.harness import Verdict
from scripts.bench.load import VALUE, key_of

MUST = (
    "longest entry of 100 newcomers in a full cache: 10^5 items <= 50 ms, 10^6 items <= 350 ms; of a clear, a removal by prefix, "
    "half the limit, keys that expire together <= 10 ms"
)
LIMIT_S = 600
WHAT = "longest entry of 100 newcomers in a full cache, the machine alone, LRU and LFU, by the number of items"
LIMITS_MS = {100_000: 50.0, 1_000_000: 350.0}
PER_ENTRY = 100
# How long keys live that are to expire together.
AT_MS = 1000
JUDGED = ("filling", "newcomers", "mixed")
# What goes in bulk: the command's own entry and those that follow until nothing is left to do.
BULK = ("a prefix that is none", "a prefix of a tenth", "half the limit", "expiry", "clear")
BULK_MS = 10.0


def run() -> Verdict:
    """CPU time of the thread that applies. Only newcomers are judged; what people ask for seldom is shown beside."""
    found: dict[str, dict[str, float]] = {}
    passed = True
    for items, limit_ms in LIMITS_MS.items():
        for policy in ("lru", "lfu"):
            took = found[f"{policy} {items}"] = _measure(policy, items)
            passed = passed and max(took[what] for what in JUDGED) <= limit_ms
            passed = passed and max(took[what] for what in BULK) <= BULK_MS
    told = "; ".join(
        f"{who}: " + ", ".join(f"{what} {took:.0f}" for what, took in each.items()) for who, each in found.items()
    )
    figures = {
        str(items): round(max(found[f"{policy} {items}"][what] for policy in ("lru", "lfu") for what in JUDGED), 1)
        for items in LIMITS_MS
    }
    return Verdict(f"longest entry in ms: {told}", passed, figures, found)


def shown(figures: dict[str, Any]) -> str:
    """The worst of both policies."""
    return "; ".join(f"{int(items):,}: {longest_ms:.0f} ms" for items, longest_ms in figures.items())


def _measure(policy: str, items: int) -> dict[str, float]:
    machine = CacheMachine()
    _longest_ms(machine, [c.configure({"policy": policy, "max_items": items})])
    source = random.Random(1)
    took = {
        "filling": _fill(machine, range(items)),
        "newcomers": _fill(machine, range(items, 3 * items)),
        "mixed": _fill(machine, (source.randrange(3 * items) for _ in range(items))),
    }
    chunks = list(machine.snapshot())
    began = time.thread_time()
    machine = CacheMachine.restore(chunks)
    took["restore"] = _ms_since(began)
    del chunks
    began = time.thread_time()
    machine.keys(limit=100)
    took["page of keys"] = _ms_since(began)
    other = {"lru": "lfu", "lfu": "lru"}[policy]
    for what, command in {
        "a prefix that is none": c.delete_prefix("none"),
        "a prefix of a tenth": c.delete_prefix(key_of(int(2.6 * items))[:-4]),
        "the other policy": c.configure({"policy": other}),
        "the policy again": c.configure({"policy": policy}),
        "half the limit": c.configure({"max_items": items // 2}),
        "expiry": c.noop(),
        "clear": c.clear_all(),
    }.items():
        if what in ("expiry", "clear"):
            # Half the limit fits by now, and before the clear all have expired.
            _fill(machine, range(items // 2), ttl_ms=AT_MS)
        took[what] = _worked_off_ms(machine, command, 1 if what != "expiry" else 3 * AT_MS)
    return took


def _worked_off_ms(machine: CacheMachine, command: Any, at_ms: int) -> float:
    """The longest entry: of ``command``, or of those that follow at that time until the machine has nothing more to do."""
    longest = _longest_ms(machine, [command], at_ms=at_ms)
    while (due_ms := machine.next_due_ms()) is not None and due_ms <= max(at_ms, machine.now_ms):
        longest = max(longest, _longest_ms(machine, [c.noop()], at_ms=at_ms))
    return longest


def _fill(machine: CacheMachine, numbers: Iterable[int], ttl_ms: int = 0) -> float:
    longest, commands = 0.0, []
    for number in numbers:
        commands.append(c.set_(key_of(number), VALUE.encode(), 0, None, ttl_ms))
        if len(commands) == PER_ENTRY:
            longest = max(longest, _longest_ms(machine, commands))
            commands = []
    return longest


def _longest_ms(machine: CacheMachine, *entries: Any, at_ms: int = 1) -> float:
    longest = 0.0
    for commands in entries:
        payload = c.encode_entry(at_ms, [c.encode_block(0, 1, 1, commands)])
        began = time.thread_time()
        machine.apply(machine.applied_index + 1, payload)
        longest = max(longest, _ms_since(began))
    return longest


def _ms_since(began: float) -> float:
    return (time.thread_time() - began) * 1000
