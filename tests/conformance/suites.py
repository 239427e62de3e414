"""The suites of others, and how each is run against one server."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from conformance.fetching import DidNotRun, environment, sources

REDIS_PY = "8.1.0"
PYMEMCACHE = "4.0.0"
DJANGO = "5.2.19"
# Seconds for one suite.
SUITE_S = 1500
_DJANGO_LINE = re.compile(
    r"^(test\w+) \(([\w.]+)\)(?:\n.*?)?? \.\.\. (ok|FAIL|ERROR|skipped.*|expected failure)$", re.MULTILINE
)
_DJANGO_ERROR = re.compile(
    r"^(?:FAIL|ERROR): (\w+) \(([\w.]+)\)[^\n]*\n(?:[^\n]*\n)*?-{70}\n(.*?)(?=\n={70}|\n-{70}|\Z)", re.M | re.S
)


@dataclass(frozen=True)
class Results:
    """What became of each test: the failures with the last line of their message, and what passed."""

    failures: dict[str, str]
    passed: set[str]


@dataclass(frozen=True)
class Suite:
    """One suite of tests. control: the server it is written for.

    run: runs it against a port, all of it or only ``tests``, and returns the results.
    quick: True if it is a part of the subset that takes no more than a minute.
    """

    name: str
    control: str
    run: Callable[[int, Sequence[str]], Results]
    quick: bool = False


def _redis_py(files: Sequence[str]) -> Callable[[int, Sequence[str]], Results]:
    def run(port: int, tests: Sequence[str]) -> Results:
        python = environment(
            "redis-py",
            [f"redis=={REDIS_PY}", "pytest==9.2.0", "pytest-asyncio==1.5.0", "pytest-timeout==2.4.0", "numpy"],
        )
        folder = sources("redis", REDIS_PY)
        marks = "not redismod and not onlycluster and not ssl and not cp_integration and not multidb_integration"
        options = ["--redis-url", f"redis://127.0.0.1:{port}/0", "--redis-mod-url", f"redis://127.0.0.1:{port}/0"]
        return run_pytest(python, folder, [*options, "--timeout", "30", "-m", marks, *(tests or files)])

    return run


def _pymemcache(port: int, tests: Sequence[str]) -> Results:
    python = environment("pymemcache", [f"pymemcache=={PYMEMCACHE}", "pytest==9.2.0"])
    folder = sources("pymemcache", PYMEMCACHE)
    options = [
        "-c",
        os.devnull,
        "--rootdir",
        str(folder),
        "-m",
        "integration",
        "--port",
        str(port),
        "--server",
        "127.0.0.1",
    ]
    return run_pytest(python, folder, [*options, *(tests or ["pymemcache/test/test_integration.py"])])


def run_pytest(
    python: Path, folder: Path, arguments: Sequence[str], environ: Mapping[str, str] | None = None
) -> Results:
    """Run pytest in a package's sources and return the results by ``file::class::test``. Raises Unavailable, DidNotRun.

    environ: more of its environment.
    """
    with tempfile.TemporaryDirectory() as scratch:
        report = Path(scratch) / "report.xml"
        command = [
            str(python),
            "-m",
            "pytest",
            "-q",
            "--tb=line",
            "-p",
            "no:cacheprovider",
            f"--junitxml={report}",
            *arguments,
        ]
        done = ended(command, folder, {"PYTHONPATH": str(folder), **(environ or {})})
        if done.returncode not in (0, 1) or not report.exists():
            raise DidNotRun(f"no results: {(done.stdout + done.stderr)[-600:]}")
        failures: dict[str, str] = {}
        passed: set[str] = set()
        for case in ElementTree.parse(report).iter("testcase"):
            name = f"{case.get('classname', '').replace('.', '/')}::{case.get('name')}"
            bad = [each for each in case if each.tag in ("failure", "error")]
            if bad:
                failures[name] = one_line(bad[0].get("message") or "")
            elif not any(each.tag == "skipped" for each in case):
                passed.add(name)
    return Results(failures, passed)


def _django(backend: str, location: str, tests_of: str) -> Callable[[int, Sequence[str]], Results]:
    def run(port: int, tests: Sequence[str]) -> Results:
        python = environment("django", [f"Django=={DJANGO}", f"redis=={REDIS_PY}", f"pymemcache=={PYMEMCACHE}"])
        cache = {"BACKEND": f"django.core.cache.backends.{backend}", "LOCATION": location.format(port=port)}
        return run_django(python, cache, tests or [f"cache.tests.{tests_of}"])

    return run


def run_django(python: Path, cache: Mapping[str, object], tests: Sequence[str], paths: Sequence[Path] = ()) -> Results:
    """Run some of Django's own tests, by their labels, with ``cache`` as its cache; return the results. Raises DidNotRun.

    paths: more folders whose modules can be imported.
    """
    folder = sources("django", DJANGO) / "tests"
    with tempfile.TemporaryDirectory() as scratch:
        settings = ["from test_sqlite import *", f"CACHES = {{'default': {dict(cache)!r}}}"]
        (Path(scratch) / "conformance_settings.py").write_text("\n".join(settings))
        options = ["--settings=conformance_settings", "--parallel=1", "-v", "2", "--noinput"]
        imported = os.pathsep.join(map(str, [scratch, folder, folder.parent, *paths]))
        done = ended([str(python), "runtests.py", *options, *tests], folder, {"PYTHONPATH": imported})
    told = done.stdout + done.stderr
    results = _django_results(told)
    if not results.passed and not results.failures:
        raise DidNotRun(f"no results: {told[-600:]}")
    return results


def _django_results(told: str) -> Results:
    failures: dict[str, str] = {}
    passed: set[str] = set()
    for _, path, outcome in _DJANGO_LINE.findall(told):
        if outcome == "ok":
            passed.add(path)
        elif outcome in ("FAIL", "ERROR"):
            failures[path] = outcome
    for _, path, text in _DJANGO_ERROR.findall(told):
        lines = [line for line in text.strip().splitlines() if line.strip()]
        failures[path] = one_line(lines[-1] if lines else "")
    return Results(failures, passed - failures.keys())


def ended(command: Sequence[str], folder: Path, environ: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Return a suite's program when it has ended. Raises DidNotRun for one that does not end in time."""
    environ = {**os.environ, **environ}
    try:
        return subprocess.run(
            command,
            cwd=folder,
            env=environ,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=SUITE_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise DidNotRun(f"it did not end within {SUITE_S} s") from None


def one_line(message: str) -> str:
    """Return the first line of a failure's message, short and without addresses that differ from run to run."""
    line = next((line.strip() for line in message.splitlines() if line.strip()), "it failed")
    unserved = re.search(r"unknown (?:command|subcommand) '(\w+)'(?:\. Try (\w+) HELP)?", line)
    if unserved:
        return f"not served: {f'{unserved[2] or str()} {unserved[1]}'.strip().upper()}"
    return re.sub(r"0x[0-9a-f]+", "0x", line)[:160]


SUITES = (
    Suite("redis-py-commands", "redis-server", _redis_py(["tests/test_commands.py", "tests/test_encoding.py"])),
    Suite("redis-py-pipeline", "redis-server", _redis_py(["tests/test_pipeline.py"]), quick=True),
    Suite(
        "redis-py-scripting", "redis-server", _redis_py(["tests/test_scripting.py", "tests/test_lock.py"]), quick=True
    ),
    Suite(
        "redis-py-asyncio",
        "redis-server",
        _redis_py(["tests/test_asyncio/test_commands.py", "tests/test_asyncio/test_pipeline.py"]),
    ),
    Suite(
        "redis-py-cache",
        "redis-server",
        _redis_py(["tests/test_cache.py", "tests/test_keyspace_notifications.py"]),
    ),
    Suite("redis-py-pubsub", "redis-server", _redis_py(["tests/test_pubsub.py"])),
    Suite("pymemcache", "memcached", _pymemcache, quick=True),
    Suite(
        "django-redis-cache",
        "redis-server",
        _django("redis.RedisCache", "redis://127.0.0.1:{port}", "RedisCacheTests"),
        quick=True,
    ),
    Suite(
        "django-pymemcache",
        "memcached",
        _django("memcached.PyMemcacheCache", "127.0.0.1:{port}", "PyMemcacheCacheTests"),
        quick=True,
    ),
)
