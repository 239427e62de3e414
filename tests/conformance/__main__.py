"""``python -m tests.conformance [SUITE...]``: the suites of clients and frameworks, and schemathesis, against three real nodes.

Each suite comes from the package registry, or from Debian's sources. That of a client or of a stock back end is run against
node 2, that of a framework with our back end against all. What fails and is not in its list in tests/conformance/expected is new;
by a port it is run again against the server that the suite is written for, where that can be had.
Exit code 1 for a new failure; a suite that cannot be fetched is skipped, and the reason told.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from conformance import expected, schema  # noqa: E402 - the path comes first
from conformance.fetching import DidNotRun, Unavailable  # noqa: E402
from conformance.frameworks import FRAMEWORKS, Framework  # noqa: E402
from conformance.node_redis import NODE  # noqa: E402
from conformance.servers import server  # noqa: E402
from conformance.stock import STOCK  # noqa: E402
from conformance.suites import SUITES, Results, Suite  # noqa: E402
from conformance.tcl import TCL  # noqa: E402

from cacheflow.cli.launcher import LocalCluster, terminable  # noqa: E402

SCHEMA = "http"
BY_PORT = (*SUITES, *STOCK, *TCL, *NODE)
ALL: tuple[Suite | Framework, ...] = (*BY_PORT, *FRAMEWORKS)
# The seconds of schemathesis on every operation together.
SCHEMA_S = 300
FLAGS = ("--max-items", "100000", "--resp-port", "0", "--memcached-port", "0")


def main() -> int:
    """Run what the command line asks for; return the exit code."""
    names = [SCHEMA, *(suite.name for suite in ALL)]
    parser = argparse.ArgumentParser(prog="python -m tests.conformance", description=__doc__)
    parser.add_argument("suites", nargs="*", metavar="SUITE", help=f"all unless told: {', '.join(names)}")
    parser.add_argument("--subset", action="store_true", help="what takes no more than three minutes")
    parser.add_argument("--update", action="store_true", help="write the lists anew from what fails")
    parser.add_argument(
        "--control", action="store_true", help="run the suites against the servers they are written for"
    )
    given = parser.parse_args()
    quick = {suite.name for suite in ALL if suite.quick}
    unknown = set(given.suites) - set(names)
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}; known are {', '.join(names)}")
    chosen = given.suites or [name for name in names if not given.subset or name in quick]
    frameworks = {framework.name: framework for framework in FRAMEWORKS}
    failed = False
    with (
        terminable(),
        tempfile.TemporaryDirectory(prefix="cacheflow-conformance-") as folder,
        LocalCluster(3, Path(folder), flags=FLAGS, say=lambda _: None) as cluster,
    ):
        cluster.start()
        cluster.wait_ready()
        for name in chosen:
            began = time.monotonic()
            try:
                if name == SCHEMA:
                    good, told = schema.check(cluster.urls[1], SCHEMA_S)
                elif name in frameworks:
                    if given.control:
                        continue
                    results = frameworks[name].run(cluster.urls, ())
                    found, told = compared(name, results, update=given.update)
                    good, told = not found.new, told + _lines(found.new)
                else:
                    suite = next(each for each in BY_PORT if each.name == name)
                    good, told = run(suite, cluster, update=given.update, control=given.control)
            except Unavailable as reason:
                good, told = True, f"SKIPPED: {reason}"
            except DidNotRun as reason:
                good, told = False, f"DID NOT RUN: {reason}"
            failed |= not good
            print(f"{name}: {told} ({time.monotonic() - began:.0f} s)", flush=True)
    return int(failed)


def run(suite: Suite, cluster: LocalCluster, *, update: bool, control: bool) -> tuple[bool, str]:
    """Run one suite; return (True if nothing failed that is not listed, what to tell). Raises Unavailable."""
    if control:
        with server(suite.control) as port:
            results = suite.run(port, ())
        return (
            True,
            f"{suite.control}: {len(results.passed)} passed, {len(results.failures)} failed{_lines(results.failures)}",
        )
    flag = "--resp-port" if suite.control == "redis-server" else "--memcached-port"
    results = suite.run(cluster.children[1].wire_ports[flag], ())
    found, told = compared(suite.name, results, update=update)
    return not found.new, told + _lines(_beside_control(suite, found.new, results))


def compared(name: str, results: Results, *, update: bool) -> tuple[expected.Comparison, str]:
    """Return the results of the suite ``name`` beside its list, which ``update`` writes anew, and what to tell of them."""
    if update:
        expected.write(name, results.failures)
    found = expected.compare(expected.read(name), results.failures, results.passed)
    told = f"{len(results.passed)} passed, {len(results.failures)} failed, {len(found.new)} of them not listed"
    if found.passing:
        told += f"; {len(found.passing)} listed ones pass now, take them out:{_lines(dict.fromkeys(found.passing, ''))}"
    return found, told


def _beside_control(suite: Suite, new: dict[str, str], results: Results) -> dict[str, str]:
    """Return new failures with what the control says to the same tests, where there is a control."""
    if not new:
        return new
    try:
        with server(suite.control) as port:
            others = suite.run(port, ())
    except Unavailable as reason:
        return {test: f"{message} ({suite.control}: {reason})" for test, message in new.items()}
    return {
        test: f"{message} ({suite.control}: {'fails as well' if test in others.failures else 'passes'})"
        for test, message in new.items()
    }


def _lines(failures: dict[str, str]) -> str:
    return "".join(f"\n    {test}{': ' if message else ''}{message}" for test, message in sorted(failures.items()))


if __name__ == "__main__":
    sys.exit(main())
