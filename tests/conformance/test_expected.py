"""The lists of what others' suites fail are complete lines, and a run is compared with them both ways."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from conformance import expected
from conformance.frameworks import FRAMEWORKS, Framework
from conformance.stock import STOCK
from conformance.suites import SUITES, Suite, _django_results
from conformance.tcl import TCL, _results

from cacheflow.wire.resp.table import TABLE


def test_every_listed_failure_has_a_reason_and_every_list_a_suite() -> None:
    suites: tuple[Suite | Framework, ...] = (*SUITES, *STOCK, *TCL, *FRAMEWORKS)
    names = {suite.name for suite in suites}
    assert {file.stem for file in expected.FOLDER.glob("*.txt")} <= names
    assert sum(len(expected.read(name)) for name in names) > 100


def test_what_is_called_not_served_is_not() -> None:
    """A command that has come to be served leaves no list that says the opposite."""
    called = {
        (file.name, test, words)
        for file in expected.FOLDER.glob("*.txt")
        for test, reason in expected.read(file.stem).items()
        for words in re.findall(r"^not served: ([A-Z_]+(?: [A-Z-]+)?)", reason)
    }
    assert len(called) > 100
    served = {name.decode().upper() for name in TABLE}
    with_subcommands = {"CLIENT", "COMMAND", "CONFIG", "MEMORY", "OBJECT", "SCRIPT", "PUBSUB"}
    for file_name, test, words in called:
        command, _, subcommand = words.partition(" ")
        assert command not in served or (subcommand and command in with_subcommands), (file_name, test, words)


def test_a_line_without_a_reason_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expected, "FOLDER", tmp_path)
    (tmp_path / "some.txt").write_text("# head\n\na::b  # not served\n")
    assert expected.read("some") == {"a::b": "not served"}
    (tmp_path / "some.txt").write_text("a::b\n")
    with pytest.raises(ValueError, match="no reason"):
        expected.read("some")


def test_a_run_is_compared_both_ways(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = expected.compare({"old": "why", "mended": "why"}, {"old": "x", "new": "y"}, {"mended", "good"})
    assert (found.new, found.passing) == ({"new": "y"}, ["mended"])
    monkeypatch.setattr(expected, "FOLDER", tmp_path)
    expected.write("some", {"old": "message"})
    (tmp_path / "some.txt").write_text((tmp_path / "some.txt").read_text().replace("message", "a reason"))
    expected.write("some", {"old": "message", "new": "another"})
    assert expected.read("some") == {"old": "a reason", "new": "another"}


def test_django_s_report_is_read() -> None:
    told = """
test_a (cache.tests.T.test_a) ... ok
test_b (cache.tests.T.test_b)
What it is about. ... FAIL
test_c (cache.tests.T.test_c) ... ERROR
test_d (cache.tests.T.test_d) ... skipped 'no'

======================================================================
ERROR: test_c (cache.tests.T.test_c)
----------------------------------------------------------------------
Traceback (most recent call last):
  x
redis.exceptions.ResponseError: unknown command 'EVAL'
----------------------------------------------------------------------
Ran 4 tests
"""
    results = _django_results(told)
    assert results.passed == {"cache.tests.T.test_a"}
    assert results.failures == {"cache.tests.T.test_b": "FAIL", "cache.tests.T.test_c": "not served: EVAL"}


def test_the_report_of_redis_own_tests_is_read() -> None:
    told = """
\x1b[0;32;49m[ok]\x1b[0m: GET (now) (2 ms)
\x1b[0;31;49m[err]\x1b[0m: RPUSH in tests/unit/type/incr.tcl
n command 'rpush', with args beginning with: 'mylist' '1'
ERR unknown command 'rpush', with args beginning with: 'mylist' '1'
    while executing
[ok]: GET (now) (3 ms)
\x1b[0;33;49m[ignore]\x1b[0m: DEBUG: Tag: needs:debug denied
"""
    results = _results(told)
    assert results.passed == {"GET (now)", "GET (now) (2)"}
    assert results.failures == {"RPUSH": "not served: RPUSH"}
