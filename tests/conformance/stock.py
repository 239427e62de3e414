"""The suites of frameworks whose stock back ends speak to a Redis or to a memcached: each is run unchanged by our ports.

What names a server's usual port in its tests is led to the server under test by a plugin for pytest, ``by_port``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from conformance.fetching import environment, sources
from conformance.suites import DJANGO, PYMEMCACHE, REDIS_PY, Results, Suite, run_pytest

PLUGINS = Path(__file__).parent / "plugins"
OWN = Path(__file__).parent / "own"
PYTEST = "pytest==9.2.0"
REDIS_PORT, MEMCACHED_PORT = 6379, 11211


def _stock(
    package: str,
    version: str,
    needed: Sequence[str],
    told: Sequence[Sequence[str]],
    *,
    usual: int,
    plugins: Sequence[str] = (),
    environ: Callable[[int], dict[str, str]] = lambda port: {},
) -> Callable[[int, Sequence[str]], Results]:
    """Return a function that runs a package's suite against a port.

    needed: what the suite needs beside the package.  told: pytest's arguments, of each run.  usual: the port that its tests name.
    plugins: more of ours.  environ: more of pytest's environment, by the port.
    """

    def run(port: int, tests: Sequence[str]) -> Results:
        python = environment(f"{package}-stock", [f"{package}=={version}", *needed, PYTEST])
        folder = sources(package, version)
        told_environ = {
            "CI": "true",
            "CONFORMANCE_PORTS": f"{usual}={port}",
            "PYTHONPATH": os.pathsep.join([str(PLUGINS), str(folder)]),
            **environ(port),
        }
        options = ["-c", os.devnull, "--rootdir", str(folder)]
        for plugin in ("by_port", *plugins):
            options += ["-p", plugin]
        failures: dict[str, str] = {}
        passed: set[str] = set()
        for some in [tests] if tests else told:
            results = run_pytest(python, folder, [*options, *some], told_environ)
            failures |= results.failures
            passed |= results.passed
        return Results(failures, passed)

    return run


# What django-redis' suite parametrizes its tests with: settings that a process reads once. Those for sentinels and for a socket
# file are left out.
_DJANGO_REDIS_SETTINGS = ("gzip", "herd", "json", "lz4==4.4.5", "msgpack==1.2.4", "sharding", "zlib", "zstd")
# Sorted sets are not served.
_DJANGO_REDIS_TOLD = ("tests", "--ignore=tests/test_backend_sorted_sets.py", "-k")
_DJANGO_REDIS_OTHERS = " and ".join(f"not sqlite_{each}" for each in (*_DJANGO_REDIS_SETTINGS, "sentinel", "usock"))

# limits' tests of Redis and memcached alone: others have a part of their name in common.
_LIMITS = (
    *(f"redis=={REDIS_PY}", "valkey==6.1.1", "pymongo==4.15.4", f"pymemcache=={PYMEMCACHE}", "coredis==5.7.0"),
    *("memcachio==0.5.1", "pytest-lazy-fixtures==1.4.0", "pytest-asyncio==1.5.0", "pytest-mock==3.15.1"),
    *("pytest-benchmark==5.2.3", "flaky==3.8.1", "hiro==1.1.1", "PyYAML==6.0.3"),
)
_LIMITS_TOLD = ("-o", "asyncio_mode=auto", "--ignore=tests/benchmarks", "tests")

_AIOCACHE = (
    *(f"redis=={REDIS_PY}", "aiomcache==0.8.2", "msgpack==1.1.2", "marshmallow==3.26.1"),
    *("pytest-asyncio==1.5.0", "pytest-mock==3.15.1"),
)
_AIOCACHE_TOLD = ("-o", "asyncio_mode=auto", "tests/acceptance", "-m")

_DOGPILE = (
    f"redis=={REDIS_PY}",
    f"pymemcache=={PYMEMCACHE}",
    "python-memcached==1.62",
    "pylibmc==1.6.3",
    "mako==1.3.10",
)

# Left out: a client of the binary protocol, which is not served; TLS; and threads that wait for dogpile's lock in memcached by
# pauses which double each time, so that memcached's own run takes from 11 s to minutes. What the lock promises is tested by the
# tests of mutexes.
_DOGPILE_MEMCACHED = "not BMemcached and not TLS and not (Distributed and (threaded_dogpile or threaded_get_multi))"


def _cachecontrol(port: int, tests: Sequence[str]) -> Results:
    """Run our own tests of CacheControl's RedisCache: its package comes without a suite."""
    packages = ["CacheControl==0.14.4", f"redis=={REDIS_PY}", PYTEST]
    python = environment("cachecontrol-stock", packages)
    options = ["-c", os.devnull, "--rootdir", str(OWN), "--noconftest"]
    return run_pytest(python, OWN, [*options, *(tests or ["cachecontrol_by_port.py"])], {"CONFORMANCE_PORT": str(port)})


STOCK = (
    Suite(
        "django-redis",
        "redis-server",
        _stock(
            *("django_redis", "7.0.0"),
            [
                f"Django=={DJANGO}",
                f"redis[hiredis]=={REDIS_PY}",
                "lz4==4.4.5",
                "msgpack==1.2.4",
                "pyzstd==0.20.0",
                "pytest-mock==3.17.0",
                "pytest-xdist==3.8.0",
            ],
            [
                [*_DJANGO_REDIS_TOLD, _DJANGO_REDIS_OTHERS],
                *([*_DJANGO_REDIS_TOLD, f"sqlite_{each}"] for each in _DJANGO_REDIS_SETTINGS),
            ],
            usual=REDIS_PORT,
        ),
    ),
    Suite(
        "dogpile-redis",
        "redis-server",
        _stock(
            *("dogpile.cache", "1.5.0", _DOGPILE),
            [["-o", "python_classes=*Test", "tests/cache/test_redis_backend.py"]],
            usual=REDIS_PORT,
            environ=lambda port: {"DOGPILE_REDIS_PORT": str(port)},
        ),
    ),
    Suite(
        "dogpile-memcached",
        "memcached",
        _stock(
            *("dogpile.cache", "1.5.0", _DOGPILE),
            # Left out: a client of the binary protocol, which is not served, and TLS.
            [
                [
                    "-o",
                    "python_classes=*Test",
                    "-k",
                    _DOGPILE_MEMCACHED,
                    "tests/cache/test_memcached_backend.py",
                ]
            ],
            usual=MEMCACHED_PORT,
            environ=lambda port: {"DOGPILE_MEMCACHED_PORT": str(port)},
        ),
    ),
    Suite(
        "limits-redis",
        "redis-server",
        _stock(
            *("limits", "5.8.0", _LIMITS, [[*_LIMITS_TOLD, "-m", "redis", "-k", "not uds"]]),
            usual=7379,
            plugins=["without_docker"],
        ),
    ),
    Suite(
        "limits-memcached",
        "memcached",
        _stock(
            *(
                "limits",
                "5.8.0",
                _LIMITS,
                [[*_LIMITS_TOLD, "-m", "memcached", "-k", "not cluster and not sasl and not uds"]],
            ),
            usual=22122,
            plugins=["without_docker"],
        ),
    ),
    Suite(
        "aiocache-redis",
        "redis-server",
        _stock("aiocache", "0.12.3", _AIOCACHE, [[*_AIOCACHE_TOLD, "redis"]], usual=REDIS_PORT),
    ),
    Suite(
        "aiocache-memcached",
        "memcached",
        _stock("aiocache", "0.12.3", _AIOCACHE, [[*_AIOCACHE_TOLD, "memcached"]], usual=MEMCACHED_PORT),
    ),
    Suite(
        "requests-cache",
        "redis-server",
        _stock(
            *("requests_cache", "1.3.3"),
            [
                *(
                    f"redis=={REDIS_PY}",
                    "requests-mock==1.12.1",
                    "responses==0.26.3",
                    "tenacity==9.2.1",
                    "time-machine==3.6.0",
                    "rich==15.0.0",
                    "psutil==7.2.2",
                ),
                *(
                    "pytest-httpbin==2.1.0",
                    "ujson==6.1.0",
                    "orjson==3.13.0",
                    "itsdangerous==2.2.0",
                    "cbor2==6.3.0",
                    "PyYAML==6.0.4",
                    "pytest-rerunfailures==16.7",
                ),
            ],
            [["tests/integration/test_redis.py"]],
            usual=REDIS_PORT,
            environ=lambda port: {"USE_PYTEST_HTTPBIN": "true"},
        ),
    ),
    Suite("cachecontrol", "redis-server", _cachecontrol, quick=True),
)
