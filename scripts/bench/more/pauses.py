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

MUST = "longest entry of 100 newcomers in a full cache: 10^5 items <= 50 ms, 10^6 items <= 350 ms"
LIMIT_S = 600
WHAT = "longest entry of 100 newcomers in a full cache, the machine alone, LRU and LFU, by the number of items"
LIMITS_MS = {100_000: 50.0, 1_000_000: 350.0}
PER_ENTRY = 100
JUDGED = ("filling", "newcomers", "mixed")


def run() -> Verdict:
    """CPU time of the thread that applies. Only newcomers are judged; what people ask for seldom is shown beside."""
    found: dict[str, dict[str, float]] = {}
    passed = True
    for items, limit_ms in LIMITS_MS.items():
        for policy in ("lru", "lfu"):
            took = found[f"{policy} {items}"] = _measure(policy, items)
            passed = passed and max(took[what] for what in JUDGED) <= limit_ms
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
        "clear": c.delete_prefix(""),
    }.items():
        took[what] = _longest_ms(machine, [command], *[[c.noop()]] * 10)
    return took


def _fill(machine: CacheMachine, numbers: Iterable[int]) -> float:
    longest, commands = 0.0, []
    for number in numbers:
        commands.append(c.set_(key_of(number), VALUE.encode(), 0))
        if len(commands) == PER_ENTRY:
            longest = max(longest, _longest_ms(machine, commands))
            commands = []
    return longest


def _longest_ms(machine: CacheMachine, *entries: Any) -> float:
    longest = 0.0
    for commands in entries:
        payload = c.encode_entry(1, [c.encode_block(0, 1, 1, commands)])
        began = time.thread_time()
        machine.apply(machine.applied_index + 1, payload)
        longest = max(longest, _ms_since(began))
    return longest


def _ms_since(began: float) -> float:
    return (time.thread_time() - began) * 1000
