"""The log of a server's process: what a line says, how many there are, and that nobody waits for who reads them."""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import select
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cluster.processes import NodeProcess, wait_for
from fakes.embedded import wait_for as soon

from cacheflow.cli.logs import writer as writing
from cacheflow.cli.logs.bounds import BURST, EVERY_S, Bounded
from cacheflow.cli.logs.formats import EXCEPTION_MAX, MESSAGE_MAX, JsonFormatter, LineFormatter, TextFormatter
from cacheflow.cli.logs.server_log import ServerLog
from cacheflow.cli.logs.writer import Writer
from cacheflow.config import NodeConfig
from cacheflow.errors import ConfigError, NotReady
from cacheflow.rest.server.request_ids import served
from cacheflow.results import RaftPosition
from cacheflow.store import ReplicatedStore

# A forged line, a terminal's command, a change of direction, half a character, and what stands between lines elsewhere.
HOSTILE = 'k\n2026-01-01 00:00:00,000 ERROR n1 x: forged\r\x1b[2J\x7f\x9b\u202e\ud800\u2028\x85"\\'
# Makes a writer for a descriptor.
Opened = Callable[[int], Writer]
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


def record(
    message: str, *arguments: object, level: int = logging.WARNING, line: int = 7, **more: Any
) -> logging.LogRecord:
    made = logging.LogRecord("cacheflow.part", level, "part.py", line, message, arguments, more.pop("exc_info", None))
    vars(made).update(more)
    return made


def placed(formatter: LineFormatter) -> LineFormatter:
    formatter.where = lambda: RaftPosition(42, 3, "n1", "n2")
    return formatter


@contextmanager
def serving(request_id: str, **headers: str) -> Iterator[None]:
    served.request = SimpleNamespace(id=request_id, headers=headers)
    try:
        yield
    finally:
        served.request = None


def failure(message: str) -> Any:
    try:
        raise ValueError(message)
    except ValueError:
        return sys.exc_info()


# Formats -----------------------------------------------------------------------------------------------------------------


def test_a_line_of_json_has_every_field_of_the_node_and_the_request() -> None:
    traced = f"00-{TRACE}-00f067aa0ba902b7-01"
    with serving("a-1", TRACEPARENT=traced):
        line = placed(JsonFormatter("n1")).format(record("%d of %s", 2, "x", created=1764439200.1237))
    assert json.loads(line) == {
        "time": "2025-11-29T18:00:00.123Z",
        "level": "warning",
        "logger": "cacheflow.part",
        "message": "2 of x",
        "node": "n1",
        "term": 3,
        "index": 42,
        "request": "a-1",
        "trace": TRACE,
    }


def test_what_is_not_known_is_left_out() -> None:
    def unknown() -> RaftPosition:
        raise NotReady("not started")

    formatter = JsonFormatter(None)
    formatter.where = unknown
    assert json.loads(formatter.format(record("x"))).keys() == {"time", "level", "logger", "message"}
    assert json.loads(JsonFormatter("n7").format(record("x")))["node"] == "n7"


def test_further_fields_stand_beside_the_others() -> None:
    told = json.loads(JsonFormatter("n1").format(record("x", fields={"status": 200, "user": ""})))
    assert told["status"] == 200 and "user" not in told


def test_a_line_of_text_names_node_and_request() -> None:
    formatter = placed(TextFormatter("n1"))
    plain = formatter.format(record("%d of %s", 2, "x"))
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} WARNING n1 cacheflow\.part: 2 of x", plain)
    with serving("a-1"):
        assert formatter.format(record("x")).endswith("cacheflow.part: x [request a-1]")
    with serving("a-1", TRACEPARENT=f"00-{TRACE}-00f067aa0ba902b7-01"):
        assert formatter.format(record("x")).endswith(f"x [request a-1, trace {TRACE}]")
    assert " WARNING - cacheflow" in TextFormatter(None).format(record("x"))


@pytest.mark.parametrize("formatter", [TextFormatter("n1"), JsonFormatter("n1")])
@pytest.mark.parametrize("arguments", [("said %s", HOSTILE), (HOSTILE,)])
def test_a_hostile_text_stays_within_its_line_and_says_nothing_to_a_terminal(
    formatter: LineFormatter, arguments: tuple[str, ...]
) -> None:
    line = formatter.format(record(*arguments))
    assert line.isprintable()
    line.encode()
    if isinstance(formatter, JsonFormatter):
        assert line.isascii() and HOSTILE in json.loads(line)["message"]


def test_a_traceback_is_a_field_of_json() -> None:
    line = JsonFormatter("n1").format(record("x", exc_info=failure(HOSTILE)))
    told = json.loads(line)["exception"]
    assert line.isprintable() and told.startswith("Traceback") and "ValueError: k\n2026" in told


def test_a_traceback_of_text_is_indented_so_that_nothing_in_it_passes_for_a_line() -> None:
    first, *rest = TextFormatter("n1").format(record("x", exc_info=failure(HOSTILE))).split("\n")
    assert first.endswith("cacheflow.part: x") and len(rest) >= 4
    assert all(line.startswith("    ") and line.isprintable() for line in rest)
    assert rest[0] == "    Traceback (most recent call last):" and any("forged" in line for line in rest)


@pytest.mark.parametrize("formatter", [TextFormatter("n1"), JsonFormatter("n1")])
def test_a_line_has_an_end(formatter: LineFormatter) -> None:
    line = formatter.format(record("%s", "x" * 10**6, exc_info=failure("y" * 10**6)))
    assert len(line) < MESSAGE_MAX + EXCEPTION_MAX + 1000
    assert f"({10**6 - MESSAGE_MAX} more characters)" in line


@pytest.mark.parametrize("formatter", [TextFormatter("n1"), JsonFormatter("n1")])
def test_a_line_whose_arguments_do_not_fit_is_written_all_the_same(formatter: LineFormatter) -> None:
    assert "%d of it (a line that cannot be formatted)" in formatter.format(record("%d of it", "x"))


# Bounds ------------------------------------------------------------------------------------------------------------------


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_one_place_writes_so_many_lines_in_ten_seconds_and_what_is_left_out_is_counted() -> None:
    clock = Clock()
    bounded = Bounded(clock)
    passed = [bounded.filter(record("%d came", number)) for number in range(BURST + 5)]
    assert passed == [True] * BURST + [False] * 5
    assert bounded.filter(record("of another place", line=8))
    assert bounded.left_out() == []
    clock.now_s += EVERY_S
    assert bounded.left_out() == [(5, "%d came")] and bounded.left_out() == []
    assert bounded.filter(record("%d came", 1))


def test_what_was_left_out_is_told_also_when_more_came_before_anybody_looked() -> None:
    clock = Clock()
    bounded = Bounded(clock)
    for _ in range(2):
        for number in range(BURST + 1):
            bounded.filter(record("%d came", number))
        clock.now_s += EVERY_S
    assert bounded.left_out() == [(2, "%d came")]


def test_what_somebody_has_asked_for_is_not_bounded() -> None:
    bounded = Bounded(Clock())
    assert all(bounded.filter(record("x", level=logging.DEBUG)) for _ in range(10 * BURST))


# The writer --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


@pytest.fixture
def open_writer() -> Iterator[Opened]:
    """Make writers, whose threads end with the test: the descriptors will be somebody else's."""
    made: list[Writer] = []

    def make(descriptor: int) -> Writer:
        made.append(Writer(descriptor))
        return made[-1]

    yield make
    for each in made:
        each.close()


def test_lines_are_written_in_order_and_flush_waits_for_them(pipe: tuple[int, int], open_writer: Opened) -> None:
    reading, writing_end = pipe
    handler = open_writer(writing_end)
    for number in range(100):
        handler.handle(record("line %d \ud800", number))
    handler.flush()
    assert os.read(reading, 65536).decode().splitlines() == [f"line {number} \\ud800" for number in range(100)]


def test_nobody_waits_for_a_reader_that_hangs_and_what_is_dropped_is_counted(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch, open_writer: Opened
) -> None:
    monkeypatch.setattr(writing, "LINES_WAITING_MAX", 10)
    monkeypatch.setattr(writing, "_WRITTEN_WITHIN_S", 0.01)
    reading, writing_end = pipe
    handler = open_writer(writing_end)
    # More than a pipe and the queue hold.
    for _ in range(200):
        handler.handle(record("x" * 10_000))
    handler.flush()
    dropped = handler.dropped()
    assert 100 < dropped < 200 and handler.dropped() == 0
    left = (200 - dropped) * 10_001
    while left:
        left -= len(os.read(reading, 65536))


def test_the_thread_ends_also_if_nothing_more_fits_when_the_writer_is_closed(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "LINES_WAITING_MAX", 10)
    before = set(threading.enumerate())
    handler = Writer(pipe[1])
    (thread,) = set(threading.enumerate()) - before
    for _ in range(100):
        handler.handle(record("x" * 10_000))
    handler.close()
    os.set_blocking(pipe[0], False)

    def read_on() -> bool:
        with suppress(BlockingIOError):
            os.read(pipe[0], 65536)
        return not thread.is_alive()

    soon(read_on)


def test_a_reader_that_has_gone_ends_nothing(pipe: tuple[int, int], open_writer: Opened) -> None:
    reading, writing_end = os.pipe()
    handler = open_writer(writing_end)
    os.close(reading)
    handler.handle(record("x"))
    handler.flush()
    os.close(writing_end)
    assert handler.dropped() == 0


def test_lines_for_a_reader_that_is_slow_are_whole_though_no_write_blocks(
    pipe: tuple[int, int], open_writer: Opened
) -> None:
    reading, writing_end = pipe
    os.set_blocking(writing_end, False)
    handler = open_writer(writing_end)
    # More than a pipe holds.
    wanted = b"".join(f"line {number} {'x' * 1000}\n".encode() for number in range(500))
    for number in range(500):
        handler.handle(record("line %d %s", number, "x" * 1000))
    got = b""
    while len(got) < len(wanted) and select.select([reading], [], [], 10.0)[0]:
        got += os.read(reading, 4096)
    assert got == wanted and handler.dropped() == 0


def test_a_line_that_a_full_disk_cuts_is_counted_and_the_next_one_does_not_go_on_with_it(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch, open_writer: Opened
) -> None:
    reading, writing_end = pipe
    room = [4]

    def write(descriptor: int, data: memoryview) -> int:
        if not room[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = real(descriptor, data[: room[0]])
        room[0] -= written
        return written

    real = os.write
    monkeypatch.setattr(os, "write", write)
    handler = open_writer(writing_end)
    for text in ("first", "second"):
        handler.handle(record(text))
    handler.flush()
    # It could not be told.
    assert handler.dropped() == 0
    room[0] = 1000
    for text in ("third", "fourth"):
        handler.handle(record(text))
    handler.flush()
    assert os.read(reading, 1000) == b"firs\nthird\nfourth\n"
    assert handler.dropped() == 2 and handler.dropped() == 0


def test_a_line_that_cannot_be_made_is_counted_and_no_fault_of_whoever_logs(
    pipe: tuple[int, int], open_writer: Opened
) -> None:
    class Broken(logging.Formatter):
        def format(self, record: logging.LogRecord) -> str:
            raise RuntimeError("a defect")

    handler = open_writer(pipe[1])
    handler.setFormatter(Broken())
    handler.handle(record("x"))
    assert handler.dropped() == 1


# The log of a process ----------------------------------------------------------------------------------------------------


@pytest.fixture
def lines(pipe: tuple[int, int]) -> Callable[[], list[dict[str, Any]]]:
    return lambda: [json.loads(line) for line in os.read(pipe[0], 1 << 16).decode().splitlines()]


def config(**settings: Any) -> NodeConfig:
    return NodeConfig(node_id="n1", log_format="json", **settings)


@pytest.mark.parametrize(
    ("level", "told"),
    [
        ("debug", ["debug", "info", "warning", "error", "other info"]),
        ("info", ["info", "warning", "error", "other info"]),
        ("warning", ["warning", "error"]),
        ("error", ["error"]),
    ],
)
def test_the_level_is_the_least_that_is_written_and_others_debug_nothing(
    pipe: tuple[int, int], lines: Callable[[], list[dict[str, Any]]], level: str, told: list[str]
) -> None:
    own, other = logging.getLogger("cacheflow.x"), logging.getLogger("another.package")
    before = logging.getLogger().level, logging.getLogger("cacheflow").level
    with ServerLog(config(log_level=level), pipe[1]):
        for each in ("debug", "info", "warning", "error"):
            getattr(own, each)(each)
        other.debug("other debug")
        other.info("other info")
    own.error("behind it")
    assert [line["message"] for line in lines()] == told
    assert (logging.getLogger().level, logging.getLogger("cacheflow").level) == before


def test_lines_that_were_left_out_are_told_when_somebody_looks(
    pipe: tuple[int, int], lines: Callable[[], list[dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(Bounded.__init__, "__defaults__", (clock,))
    with ServerLog(config(), pipe[1]) as log:
        for number in range(BURST + 3):
            logging.getLogger("cacheflow.x").warning("%d came", number)
        clock.now_s += EVERY_S
        log.look()
    assert lines()[BURST:][0]["message"] == "3 more lines like this one were left out: %d came"


def test_a_thread_that_ends_in_a_fault_is_a_line(
    pipe: tuple[int, int], lines: Callable[[], list[dict[str, Any]]]
) -> None:
    def fails() -> None:
        raise ValueError("a defect")

    with ServerLog(config(), pipe[1]):
        thread = threading.Thread(target=fails, name="worker-9")
        thread.start()
        thread.join()
    [line] = lines()
    assert line["message"] == "the thread worker-9 has ended in a fault" and "ValueError" in line["exception"]


def test_an_embedded_node_leaves_the_logging_of_its_host_alone(tmp_path: Path) -> None:
    root, own = logging.getLogger(), logging.getLogger("cacheflow")
    before = root.level, list(root.handlers), own.level, list(own.handlers), threading.excepthook
    with ReplicatedStore(persistence=False, port=0, bootstrap=True, log_level="debug", log_format="json") as store:
        store.wait_ready(20)
        assert (root.level, list(root.handlers), own.level, list(own.handlers), threading.excepthook) == before


@pytest.mark.parametrize(("name", "value"), [("log_level", "verbose"), ("log_level", "INFO"), ("log_format", "xml")])
def test_an_unknown_level_or_format_is_refused(name: str, value: str) -> None:
    with pytest.raises(ConfigError, match=name.replace("_", "-")):
        NodeConfig(**{name: value})  # type: ignore[arg-type]


# A process ---------------------------------------------------------------------------------------------------------------


def test_everything_that_a_process_with_json_prints_is_json(tmp_path: Path) -> None:
    node = NodeProcess(1, tmp_path, ["--log-format", "json", "--log-level", "debug"])
    try:
        node.start()
        wait_for(node.is_ready)
        node.ask("PUT", "/cache/k%1B", {"value": 1}, {"X-Request-Id": "a-1"})
        node.ask("GET", "/cache/k%0Aforged", None, {"X-Request-Id": "a-2"})
        soon(lambda: "a-2" in node.output())
    finally:
        node.signal(signal.SIGTERM)
    assert node.wait() == 0
    told = [json.loads(line) for line in node.output().splitlines()]
    assert {line["node"] for line in told} == {"node-1"}
    assert [line["status"] for line in told if line.get("request") in ("a-1", "a-2")] == [400, 400]
    led = next(line for line in told if line["message"].startswith("leader in term"))
    assert led["level"] == "info" and datetime.fromisoformat(led["time"]).tzinfo is not None
    assert told[-1]["message"] == "ended in order" and told[-1]["index"] >= 1


def test_a_refused_start_is_json_too(tmp_path: Path) -> None:
    node = NodeProcess(1, tmp_path, ["--log-format", "json"])
    node.data_dir.write_text("a file where a directory should be")
    node.start()
    assert node.wait() == 2
    *_, last = [json.loads(line) for line in node.output().splitlines()]
    assert last["level"] == "critical" and "data directory" in last["message"]
