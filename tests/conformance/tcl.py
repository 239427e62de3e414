"""Redis' own tests in Tcl, from Debian's source package of Redis: each file is run unchanged against a server on a port."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from conformance.fetching import FOLDER, DidNotRun, Unavailable, program, run_command, unpack
from conformance.suites import Results, Suite, ended, one_line

from cacheflow.cli.launcher import free_ports

SOURCES = Path("/etc/apt/sources.list.d/debian.sources")
_FILES = (
    *("type/string", "type/incr", "type/hash", "type/set"),
    *("expire", "keyspace", "scan", "multi", "scripting", "pubsub", "tracking"),
)
_QUICK = ("type/incr", "keyspace", "multi", "pubsub")
# Tests that would wait for ever, or leave an answer unread that all later ones take for theirs: what they expect is not so here.
_NOT_RUN = {
    # The log does not say whether a key is new.
    "pubsub": ("Keyspace notifications: new key test",),
    "tracking": (
        # What an own write has changed is told before the write is answered, and not behind it.
        "hdel deliver invalidate message after response in the same connection",
        "Tracking invalidation message is not interleaved with transaction response",
        # What a script has read is noted, not what it has named.
        "Tracking only occurs for scripts when a command calls a read-only command",
        # The size of the table is fixed.
        "Tracking gets notification on tracking table key eviction",
        "Server is able to evacuate enough keys when num of keys surpasses limit by more than defined initial effort",
    ),
}
# These are run in database 0 alone: their other tests are about COPY to another database and MOVE.
_IN_ONE_DATABASE = ("keyspace",)
# Changes of the suite's harness, so that a refusal ends the test that asks for it and no other: what it asks for before a file,
# limits for forms that values have in Redis' memory, and the transaction that a failed test has begun. The tests of scripts are
# run by EVAL, not once more as functions, which are not served.
_HARNESS = (
    ("unit/scripting.tcl", "foreach is_eval {0 1} {", "foreach is_eval {1} {"),
    ("support/server.tcl", "    r function flush\n", "    catch {r function flush}\n"),
    ("support/server.tcl", "r config set $param $val", "catch {r config set $param $val}"),
    ("support/test.tcl", "incr ::num_failed\n", "incr ::num_failed; catch {r discard}; catch {r unwatch}\n"),
    (
        "test_helper.tcl",
        '    [srv $level "client"] {*}$args\n',
        '    if {[string match "config set *-max-*" $args]} {return OK}\n    [srv $level "client"] {*}$args\n',
    ),
)
_OUTCOME = re.compile(r"^\[(ok|err|exception)\]: (.*?)(?: \(\d+ ms\)| in tests/[\w/.-]+\.tcl)?$")
_COLOUR = re.compile(r"\x1b\[[\d;]*m")


def _redis_sources() -> Path:
    """Return the folder of Redis' unpacked sources. Raises Unavailable."""
    folder = FOLDER / "sources" / "redis-tcl"
    if not folder.exists():
        if not SOURCES.exists():
            raise Unavailable(f"the sources of Redis come from Debian, and there is no {SOURCES} here")
        fetched = FOLDER / "fetched" / "redis-tcl"
        lists = fetched / "lists"
        shutil.rmtree(fetched, ignore_errors=True)
        (lists / "partial").mkdir(parents=True)
        (fetched / "redis.sources").write_text(SOURCES.read_text().replace("Types: deb\n", "Types: deb-src\n"))
        told = {"Etc::sourceparts": fetched, "Etc::sourcelist": "/dev/null", "State::Lists": lists}
        options = [f"-oDir::{name}={value}" for name, value in told.items()]
        run_command(["apt-get", *options, "update"])
        run_command(["apt-get", *options, "source", "--download-only", "redis"], fetched)
        (archive,) = fetched.glob("redis_*.orig.tar.gz")
        unpack(archive, folder)
    return folder


def _tcl(file: str) -> Callable[[int, Sequence[str]], Results]:
    """Return a function that runs one of the suite's files, by its name below tests/unit."""

    def run(port: int, tests: Sequence[str]) -> Results:
        tclsh, sources = program("tclsh", "tcl"), _redis_sources()
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch) / "redis"
            shutil.copytree(sources / "tests", folder / "tests")
            (folder / "src").mkdir()
            for name, theirs, ours in _HARNESS:
                changed = folder / "tests" / name
                changed.write_text(changed.read_text().replace(theirs, ours))
            (own,) = free_ports(1)
            command = [tclsh, "tests/test_helper.tcl", "--host", "127.0.0.1", "--port", str(port)]
            command += ["--single", f"unit/{file}", "--baseport", str(own), "--durable", "--ignore-encoding"]
            command += ["--tags", "-needs:debug", *(["--singledb"] if file in _IN_ONE_DATABASE else [])]
            command += [part for test in _NOT_RUN.get(file, ()) for part in ("--skiptest", test)]
            done = ended([*command, *(part for test in tests for part in ("--only", test))], folder, {})
        return _results(done.stdout + done.stderr)

    return run


def _results(told: str) -> Results:
    """Return the outcomes in what the suite prints. Raises DidNotRun for none.

    Tests of the same name are numbered from the second on.
    """
    failures: dict[str, str] = {}
    passed: set[str] = set()
    seen: Counter[str] = Counter()
    lines = _COLOUR.sub("", told).splitlines()
    for number, line in enumerate(lines):
        found = _OUTCOME.match(line)
        if found is None:
            continue
        seen[found[2]] += 1
        name = found[2] if seen[found[2]] == 1 else f"{found[2]} ({seen[found[2]]})"
        if found[1] == "ok":
            passed.add(name)
        else:
            # Of an error that is no assertion, the harness cuts off the beginning: then the next line has all of it.
            told_of = lines[number + 1 : number + 3]
            failures[name] = one_line(told_of[1] if told_of[1:] and told_of[1].endswith(told_of[0]) else told_of[0])
    if not passed:
        raise DidNotRun(f"no results: {told[-600:]}")
    return Results(failures, passed)


TCL = tuple(
    Suite(f"redis-tcl-{file.rpartition('/')[2]}", "redis-server", _tcl(file), quick=file in _QUICK) for file in _FILES
)
