#!/usr/bin/env python3
"""Run rows of the benchmark and say for each what must hold, what was measured, and whether it holds.

    scripts/bench/run.py [ROW ...] [--set NAME=NUMBER ...] [--short] [--no-keep] [--json FILE] [--logs FOLDER]

Without a name all rows run, one after the other; with --short all that have a short form, in that form. Exit code 1 when one
misses. What a whole run measured is kept in scripts/bench/figures.json, of which tables.py makes the tables of README and
docs: never of a short form, with --set or --no-keep, or when there is no figure.
"""

from __future__ import annotations

import argparse
import faulthandler
import importlib
import inspect
import json
import resource
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from scripts.bench import figures
from scripts.bench.harness import Logs, OutOfTime, Verdict, machine, machine_cpu_s, told

# In rows/: each guards a promise and has a short form, which .ci/run runs.
GUARDS = ("kills", "digests", "durability", "cas", "lfu", "trace", "freshness", "skew", "wire", "counted")
# In more/: how fast, how large, how long.
MORE = (
    *("rest", "batch", "failover", "resume", "noleader", "overload", "idle", "embedded", "idlerestart", "memory"),
    *("flat", "pauses", "looppauses", "holds", "slowclients", "start", "snapshot", "steady", "delays", "calls", "tls"),
    *("clearing", "expiring", "scripts", "django", "backup", "settings", "replacement", "recovery", "watch"),
)
ROWS = (*GUARDS, *MORE)
# Seconds for a row whose time is over to end its nodes and threads. Then the process ends: a row may hang in that, too.
ENDING_S = 60


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"of {', '.join(ROWS)}")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=NUMBER", help="a parameter of the rows")
    parser.add_argument(
        "--short", action="store_true", help="the short forms, which guard a promise and keep no figure"
    )
    parser.add_argument("--no-keep", action="store_true", help="leave figures.json alone")
    parser.add_argument("--json", type=Path, help="write the results there, too")
    parser.add_argument("--logs", type=Path, help="keep the nodes' lines in this folder")
    options = parser.parse_args(arguments)
    known = [name for name in ROWS if short_form(name) is not None] if options.short else ROWS
    unknown = set(options.rows) - set(known)
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}; rows are {', '.join(known)}")
    Logs.folder = options.logs
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    on = machine()
    print(f"on {told(on)}, load {on['load']}", flush=True)
    given = dict(part.split("=", 1) for part in options.set)
    keeping = not (options.short or given or options.no_keep)
    results = []
    for name in options.rows or known:
        tree = figures.tree_hash()
        chosen = {**(short_form(name) or {}), **given} if options.short else given
        result = measure(name, chosen)
        results.append(result)
        form = f" (with {', '.join(f'{key} = {value}' for key, value in chosen.items())})" if chosen else ""
        print(f"{result['verdict']}  {name}{form}: {result['must']}\n      {result['measured']}", flush=True)
        print(
            f"      ({result['took_s']:.0f} s; others used {result['cores_used_by_others']:.2f} cores meanwhile)",
            flush=True,
        )
        if keeping:
            _keep(result, tree, told(on))
        if options.json:
            options.json.write_text(json.dumps({"machine": on, "rows": results}, indent=2) + "\n")
    missed, skipped = ([result["row"] for result in results if result["verdict"] == word] for word in ("MISS", "SKIP"))
    took_s = sum(result["took_s"] for result in results)
    print(
        f"{len(results)} rows in {took_s:.0f} s; missed: {', '.join(missed) or 'none'}; skipped: {', '.join(skipped) or 'none'}"
    )
    return 1 if missed else 0


def module_of(name: str) -> ModuleType:
    """The row's module: MUST, WHAT, LIMIT_S, run() and shown(), and SHORT where it has a short form."""
    return importlib.import_module(f"scripts.bench.{'rows' if name in GUARDS else 'more'}.{name}")


def short_form(name: str) -> Mapping[str, float] | None:
    """The parameters with which a row guards its promise in little time, on a machine that need not be quiet; or None."""
    form: Mapping[str, float] | None = getattr(module_of(name), "SHORT", None)
    return form


def _keep(result: dict[str, Any], tree: str, on: str) -> None:
    """Write the result into the file; or say why not: then the last run's stays, with its date."""
    if result["verdict"] == "SKIP" or not result["figures"]:
        print("      not kept: no figure")
    elif figures.tree_hash() != tree:
        print("      not kept: cacheflow/ changed meanwhile")
    else:
        record = {
            "must": result["must"],
            "measured": result["measured"],
            "passed": result["verdict"] == "PASS",
            "figures": result["figures"],
        }
        figures.keep("rows", result["row"], record, tree=tree, machine=on)
        print("      kept; scripts/bench/tables.py makes the tables anew")


def measure(name: str, given: Mapping[str, str | float]) -> dict[str, Any]:
    """Run one row within its time. A row that breaks is a miss."""
    row = module_of(name)
    known = inspect.signature(row.run).parameters
    chosen = {key: type(known[key].default)(float(value)) for key, value in given.items() if key in known}

    def too_long(signum: int, frame: FrameType | None) -> None:
        # Where everybody stood: nothing else tells why it did not end.
        faulthandler.dump_traceback()
        faulthandler.dump_traceback_later(ENDING_S, exit=True)
        raise OutOfTime

    began, busy_s, own_s = time.monotonic(), machine_cpu_s(), _own_s()
    Logs.row = name
    signal.signal(signal.SIGALRM, too_long)
    signal.alarm(row.LIMIT_S)
    try:
        verdict: Verdict = row.run(**chosen)
    except OutOfTime:
        verdict = Verdict(f"did not end within {row.LIMIT_S} s", False)
    except Exception as error:
        verdict = Verdict(f"broke: {type(error).__name__}: {error}", False)
    finally:
        signal.alarm(0)
        faulthandler.cancel_dump_traceback_later()
    word = {True: "PASS", False: "MISS", None: "SKIP"}[verdict.passed]
    took_s = time.monotonic() - began
    foreign = max(machine_cpu_s() - busy_s - (_own_s() - own_s), 0.0) / took_s
    return {
        "row": name,
        "must": row.MUST,
        "measured": verdict.measured,
        "verdict": word,
        "figures": verdict.figures,
        "details": verdict.details,
        "took_s": round(took_s, 1),
        "cores_used_by_others": round(foreign, 2),
    }


def _own_s() -> float:
    """CPU seconds of this process and of its children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


if __name__ == "__main__":
    sys.exit(main())
