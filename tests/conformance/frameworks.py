"""The suites of frameworks whose caches CacheFlow has back ends for: each is run unchanged, with our back end in the place of one
of the framework's own, which a plugin for pytest in the folder plugins puts there. Django has a runner of its own.
"""

from __future__ import annotations

import configparser
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from conformance.fetching import ROOT, environment, sources
from conformance.servers import server
from conformance.suites import DJANGO, Results, run_django, run_pytest

PLUGINS = Path(__file__).parent / "plugins"
PYTEST = "pytest==9.2.0"


@dataclass(frozen=True)
class Framework:
    """A framework's suite. run: runs it against the nodes' URLs, all of it or only ``tests``, and returns the results.

    quick: True if it is a part of the subset that takes no more than a minute.
    """

    name: str
    run: Callable[[Sequence[str], Sequence[str]], Results]
    quick: bool = False


def _ours() -> list[str]:
    """Return the packages that an installation of ours brings with it."""
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg")
    return [line for line in settings["options"]["install_requires"].split("\n") if line and not line.startswith("#")]


def _with_plugin(
    plugin: str,
    package: str,
    version: str,
    needed: Sequence[str],
    told: Sequence[str],
    within: str = "",
) -> Callable[[Sequence[str], Sequence[str]], Results]:
    """Return a function that runs a package's suite with one of our plugins.

    needed: what the suite needs beside the package.  told: pytest's arguments.  within: the folder where pytest runs.
    """

    def run(urls: Sequence[str], tests: Sequence[str]) -> Results:
        python = environment(package, [f"{package}=={version}", *needed, PYTEST, *_ours()])
        folder = sources(package, version) / within
        environ = {
            "CI": "true",
            "CONFORMANCE_URLS": ",".join(urls),
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(PLUGINS), str(folder)]),
        }
        options = ["-c", os.devnull, "--rootdir", str(folder), "-p", plugin]
        return run_pytest(python, folder, [*options, *(tests or told)], environ)

    return run


def _django(urls: Sequence[str], tests: Sequence[str]) -> Results:
    python = environment("django-own", [f"Django=={DJANGO}", *_ours()])
    cache = {"BACKEND": "cacheflow.integrations.django.CacheFlowCache", "LOCATION": list(urls)}
    # The first one has Django create the models that the second one uses.
    labels = ["cache.tests.CacheClosingTests", "for_django.CacheFlowCacheTests"]
    sessions = ["sessions_tests.tests.CacheSessionTests", "sessions_tests.tests.CacheDBSessionTests"]
    return run_django(python, cache, tests or [*labels, *sessions], [ROOT, PLUGINS])


def _celery(urls: Sequence[str], tests: Sequence[str]) -> Results:
    """Run Celery's tests of nested chords with our result back end, and a redis-server as their broker."""
    needed = (
        *("redis==6.4.0", "pydantic==2.12.5", "cryptography>=42", "pytest-rerunfailures==16.7"),
        *("pytest-timeout==2.4.0", "pytest-subtests==0.15.0", "pytest-order==1.5.0"),
    )
    python = environment("celery", ["celery==5.7.0", *needed, PYTEST, *_ours()])
    folder = sources("celery", "5.7.0")
    hosts = ",".join(url.removeprefix("http://") for url in urls)
    with server("redis-server") as port:
        environ = {
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(folder)]),
            "REDIS_HOST": "127.0.0.1",
            "REDIS_PORT": str(port),
            "TEST_BACKEND": f"cacheflow.integrations.celery:CacheFlowBackend+cacheflow://{hosts}",
            "TEST_BROKER": f"redis://127.0.0.1:{port}/1",
        }
        options = [
            "-c",
            os.devnull,
            "--rootdir",
            str(folder),
            "-p",
            "celery.contrib.pytest",
            "-o",
            "python_classes=test_*",
        ]
        told = ["t/integration/test_canvas.py", "-k", "test_chord and nested"]
        return run_pytest(python, folder, [*options, *(tests or told)], environ)


# What limits' suite imports, whichever storages it is run for.
_LIMITS = (
    *("redis==8.1.0", "valkey==6.1.1", "pymongo==4.15.4", "pymemcache==4.0.0", "pytest-lazy-fixtures==1.4.0"),
    *(
        "pytest-asyncio==1.5.0",
        "pytest-mock==3.15.1",
        "pytest-benchmark==5.2.3",
        "flaky==3.8.1",
        "hiro==1.1.1",
        "PyYAML==6.0.3",
    ),
)
# Parts of the names of its tests for other servers, and for Redis by a socket file.
_OTHERS = ("in-memory", "memcached", "mongodb", "cluster", "sentinel", "valkey", "uds")

FRAMEWORKS = (
    Framework("django", _django, quick=True),
    Framework(
        "cachelib",
        _with_plugin(
            *("for_cachelib", "cachelib", "0.17.0", ["redis==8.1.0"]),
            ["test_redis_cache.py", "test_base_cache.py", "test_serializers.py"],
            within="tests",
        ),
    ),
    Framework(
        "flask-caching",
        _with_plugin(
            *("for_flask_caching", "flask-caching", "2.5.1", ["redis==8.1.0", "blinker==1.9.0", "flask[async]>=3.1"]),
            [],
            within="tests",
        ),
    ),
    Framework(
        "dogpile.cache",
        _with_plugin(
            *("for_dogpile", "dogpile.cache", "1.5.0", ["redis==8.1.0", "mako==1.3.10"]),
            ["-o", "python_classes=*Test", "-k", "not RedisConnectionTest", "tests/cache/test_redis_backend.py"],
        ),
    ),
    Framework(
        "limits",
        _with_plugin(
            *("for_limits", "limits", "5.8.0", _LIMITS),
            ["-o", "asyncio_mode=auto", "--ignore=tests/benchmarks", "-k", f"not ({' or '.join(_OTHERS)})", "tests"],
        ),
    ),
    Framework(
        "aiocache",
        _with_plugin(
            *("for_aiocache", "aiocache", "0.12.3"),
            ["redis==8.1.0", "pytest-asyncio==1.5.0", "pytest-mock==3.15.1", "marshmallow==4.4.0"],
            ["-o", "asyncio_mode=auto", "-m", "redis", "tests/acceptance"],
        ),
    ),
    Framework("celery", _celery),
)
