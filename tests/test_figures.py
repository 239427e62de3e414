"""No figure without its run: the file of figures, who writes it, and the tables that are made from it."""

from __future__ import annotations

import copy
import json
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from scripts.bench import figures, run, tables
from scripts.bench.harness import Verdict, rounded, told
from scripts.bench.peers import compare

ROOT = Path(__file__).parent.parent
RECORD = {"must", "measured", "passed", "figures", "cacheflow", "date", "machine"}
# Of a record's figures: they are for tables. A whole report belongs into ``details``.
FIGURES_CHARS_MAX = 400
# A number with the unit of something measured.
MEASURED = re.compile(r"\d ?(%|µs|ms|x|points?|ops)(?![\w])|\d/s\b|\d [a-zA-Z]+/s\b")


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of figures, for this test, empty."""
    path = tmp_path / "figures.json"
    monkeypatch.setattr(figures, "FILE", path)
    return path


@pytest.fixture
def row(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The only row there is: it measures what it is given, and passes."""
    module = ModuleType("scripts.bench.more.made_up")

    def measure(number: int = 7) -> Verdict:
        return Verdict(f"{number} found", True, {"number": number}, {"bulk": list(range(1000))})

    vars(module).update(MUST="a number", WHAT="a number", LIMIT_S=5, SHORT={"number": 3}, run=measure)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(run, "ROWS", ("made_up",))
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGALRM)}
    yield module
    for number, handler in handlers.items():
        signal.signal(number, handler)


def kept(file: Path) -> Any:
    return json.loads(file.read_text())["rows"]["made_up"] if file.exists() else None


# The tables -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "page", [page for page in tables.pages() if tables.BEGIN in page.read_text()], ids=lambda p: p.name
)
def test_the_tables_are_those_that_the_file_makes(page: Path) -> None:
    if found := tables.differences(page, figures.read()):
        pytest.fail("\n".join(["scripts/bench/tables.py makes them anew:", *found]), pytrace=False)


def test_every_row_and_every_table_is_shown_once() -> None:
    shown = [name for names in tables.ROWS_OF.values() for name in names]
    assert sorted(shown) == sorted(run.ROWS)
    used = [name for page in tables.pages() for name in tables.BLOCK.findall(page.read_text())]
    assert sorted(used) == sorted(tables.TABLES)


@pytest.mark.parametrize(("folder", "names"), [("rows", run.GUARDS), ("more", run.MORE)])
def test_every_row_lies_in_the_folder_of_its_kind(folder: str, names: tuple[str, ...]) -> None:
    assert {file.stem for file in (ROOT / "scripts/bench" / folder).glob("*.py")} == set(names)


def test_the_headlines_are_five_of_what_is_measured() -> None:
    assert len(set(tables.HEADLINES)) == 5
    assert set(tables.HEADLINES) <= {*run.ROWS, *(each.name for each in compare.rows() if each.decides)}


def test_what_is_kept_is_of_a_row_and_small() -> None:
    all_ = figures.read()
    assert set(all_["rows"]) <= set(run.ROWS)
    assert set(all_["peers"]) <= {each.name for each in compare.rows() if each.decides}
    for kind in figures.KINDS:
        for record in all_[kind].values():
            assert set(record) == RECORD
            assert len(json.dumps(record["figures"])) <= FIGURES_CHARS_MAX


@pytest.mark.parametrize(("figure", "other"), [("0 of 180,809", "0 of 180,808"), ("0.81 ", "0.91 ")])
def test_a_figure_that_was_changed_by_hand_is_found(figure: str, other: str) -> None:
    made = {
        "rows": {"durability": record({"kills": 20, "of_all": 5, "acks": 180_809, "missing": 0})},
        "peers": {
            "GET, leader / redis-server": record({"ours": 81, "theirs": 100, "unit": "/s", "ratio": 0.81, "repeats": 3})
        },
    }
    text = "".join(f"<!-- figures: {name} -->\n<!-- end of figures -->\n" for name in ("measured", "peers"))
    right = tables.rewritten(text, made)
    assert right.count(figure) == 1
    assert tables.rewritten(right.replace(figure, other), made) == right


def test_the_command_says_what_differs_and_rewrites_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    page = tmp_path / "README.md"
    right = tables.rewritten((ROOT / "README.md").read_text(), figures.read())
    line = next(line for line in right.splitlines() if line.endswith("| durability |"))
    page.write_text(right.replace(line, line.replace("kills", "calls")))
    monkeypatch.setattr(tables, "pages", lambda: [page])
    assert tables.main(["--check"]) == 1
    assert f"+{line}" in capsys.readouterr().out.splitlines()
    assert tables.main([]) == 0
    assert page.read_text() == right
    assert tables.main(["--check"]) == 0


@pytest.mark.parametrize("page", ["README.md", "docs/benchmarks.md"])
def test_a_page_of_tables_has_no_figure_outside_them(page: str) -> None:
    text = tables.BLOCK.sub("", (ROOT / page).read_text())
    assert [line for line in text.splitlines() if MEASURED.search(line)] == []


@pytest.mark.parametrize(
    "line",
    ["hit ratio 50.40% (38364 of 76118), 567 requests a second", "GET 158,100/s", "p99 18 ms", "1.9 x", "9 PUT/s"],
)
def test_a_figure_in_prose_would_be_noticed(line: str) -> None:
    assert MEASURED.search(line)


@pytest.mark.parametrize(
    "text", ["<!-- figures: measured -->\nno end", "<!-- figures: unknown -->\n<!-- end of figures -->"]
)
def test_a_table_without_end_or_of_another_name_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="table"):
        tables.rewritten(text, {"rows": {}, "peers": {}})


def record(found: dict[str, Any], **other: Any) -> figures.Record:
    base = {"must": "hold", "measured": "", "passed": True, "cacheflow": "aa", "date": "2026-11-27", "machine": "m"}
    return {**base, "figures": found, **other}


def promises(**rows: figures.Record) -> str:
    return "\n".join(tables.TABLES["promises"]({"rows": rows, "peers": {}}))


def test_a_miss_and_what_was_never_measured_are_shown_as_such() -> None:
    text = promises(lfu=record({"readable": 99, "newcomers": 100}, passed=False))
    assert "| 99 of 100 **missed**, must: hold | lfu |" in text
    assert "| not measured yet | cas |" in text


def test_runs_on_another_tree_or_day_are_named() -> None:
    lfu = record({"readable": 100, "newcomers": 100}, cacheflow="bb", date="2026-11-28")
    lines = promises(lfu=lfu, cas=record({"rounds": 5, "one_entry": 1, "wrong": 0})).splitlines()
    assert lines[-2:] == [
        "Measured 2026-11-28, m, `cacheflow/` bb.",
        "Measured earlier or elsewhere (cas): 2026-11-27, m, `cacheflow/` aa.",
    ]


def test_figures_of_an_older_tree_are_listed_with_their_date() -> None:
    made = {
        "rows": {"cas": record({}), "lfu": record({}, cacheflow="bb")},
        "peers": {"GET": record({}, date="2026-01-01")},
    }
    assert tables.stale(made, "bb") == [
        "cacheflow/ is bb now; 2 figures are older:",
        "GET: 2026-01-01, cacheflow/ aa",
        "cas: 2026-11-27, cacheflow/ aa",
    ]
    assert tables.stale(made, "aa")[0].startswith("cacheflow/ is aa now; 1 ")


def test_a_rate_is_told_to_four_digits() -> None:
    assert [rounded(number) for number in (0, 7, 650.4, 22_344, 1_059_400)] == ["0", "7", "650", "22,340", "1,059,000"]


# The tree ---------------------------------------------------------------------------------------------------------


def test_a_tree_has_another_hash_with_any_other_byte_name_or_place(tmp_path: Path) -> None:
    (tmp_path / "raft").mkdir()
    (tmp_path / "raft/node.py").write_text("a = 1\n")
    (tmp_path / "raft/disk.py").write_text("")
    seen = {figures.tree_hash(tmp_path)}
    (tmp_path / "raft/node.py").write_text("a = 2\n")
    seen.add(figures.tree_hash(tmp_path))
    (tmp_path / "raft/node.py").rename(tmp_path / "raft/nodes.py")
    seen.add(figures.tree_hash(tmp_path))
    (tmp_path / "raft/nodes.py").rename(tmp_path / "nodes.py")
    seen.add(figures.tree_hash(tmp_path))
    (tmp_path / "nodes.py").write_text("")
    (tmp_path / "raft/disk.py").write_text("a = 2\n")
    seen.add(figures.tree_hash(tmp_path))
    assert len(seen) == 5


def test_what_python_leaves_in_a_tree_is_not_of_it(tmp_path: Path) -> None:
    (tmp_path / "node.py").write_text("a = 1\n")
    before = figures.tree_hash(tmp_path)
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__/node.cpython-311.pyc").write_bytes(b"1")
    (tmp_path / ".node.py.swp").write_bytes(b"1")
    assert figures.tree_hash(tmp_path) == before


# Who writes the file ----------------------------------------------------------------------------------------------


def test_a_whole_run_is_kept_with_its_tree_date_and_machine(file: Path, row: ModuleType) -> None:
    assert run.main([]) == 0
    found = kept(file)
    assert set(found) == RECORD
    assert (found["must"], found["measured"], found["passed"]) == ("a number", "7 found", True)
    assert (found["figures"], found["cacheflow"]) == ({"number": 7}, figures.tree_hash())
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", found["date"])


@pytest.mark.parametrize("arguments", [["--short"], ["--set", "number=9"], ["--no-keep"], ["--short", "made_up"]])
def test_another_run_is_not_kept(file: Path, row: ModuleType, arguments: list[str], capsys: Any) -> None:
    run.main([])
    before = file.read_text()
    assert run.main(arguments) == 0
    assert file.read_text() == before
    expected = {"--short": "3 found", "--set": "9 found", "--no-keep": "7 found"}[arguments[0]]
    assert expected in capsys.readouterr().out.rpartition("PASS")[2]


def test_a_miss_is_kept_as_one(file: Path, row: ModuleType) -> None:
    vars(row)["run"] = lambda: Verdict("6 found", False, {"number": 6})
    assert run.main([]) == 1
    assert (kept(file)["passed"], kept(file)["figures"]) == (False, {"number": 6})


def broken() -> Verdict:
    raise RuntimeError("no cluster")


@pytest.mark.parametrize(("measure", "code"), [(broken, 1), (lambda: Verdict("no trace here", None, {}), 0)])
def test_a_row_that_broke_or_was_skipped_leaves_the_last_figure(
    file: Path, row: ModuleType, measure: Any, code: int, capsys: Any
) -> None:
    run.main([])
    before = copy.deepcopy(kept(file))
    vars(row)["run"] = measure
    assert run.main([]) == code
    assert kept(file) == before
    assert "not kept" in capsys.readouterr().out


def test_a_run_during_which_the_tree_changed_is_not_kept(
    file: Path, row: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    trees = iter(["aa", "bb"])
    monkeypatch.setattr(figures, "tree_hash", lambda: next(trees))
    run.main([])
    assert kept(file) is None


@pytest.mark.parametrize(("repeats", "seconds", "whole"), [(3, 2.0, True), (2, 2.0, False), (5, 1.0, False)])
def test_a_comparison_is_kept_of_three_turns_of_the_usual_length(repeats: int, seconds: float, whole: bool) -> None:
    assert compare.is_whole(repeats, seconds) is whole


def test_of_a_comparison_what_decides_and_was_compared_is_kept(file: Path) -> None:
    ours, theirs = {"per_s": 90.2, "p50_us": 7.0}, [{"per_s": 80.0, "p50_us": 9.0}, {"per_s": 100.4, "p50_us": 8.0}]
    base: dict[str, Any] = {"must": 0.85, "latency": False, "decides": True, "holds": True}
    compared = {**base, "ratio": 0.9, "ratios": [0.8, 0.9, 1.0], "ours": ours, "theirs": theirs}
    results = [
        {**compared, "name": "GET"},
        {**compared, "name": "SET latency", "latency": True, "must": 0.8, "ratio": 0.875, "holds": False},
        {**compared, "name": "one node", "decides": False},
        {**base, "name": "absent", "holds": None, "skipped": "etcd is not installed"},
    ]
    compare.keep(results, 3, "aa", "m")
    found = figures.read()["peers"]
    assert set(found) == {"GET", "SET latency"}
    assert found["GET"]["figures"] == {"ours": 90, "theirs": 100, "unit": "/s", "ratio": 0.9, "repeats": 3}
    assert found["SET latency"]["figures"] == {"ours": 7, "theirs": 8, "unit": " µs", "ratio": 0.875, "repeats": 3}
    assert (found["SET latency"]["must"], found["SET latency"]["passed"]) == ("<= 0.8", False)


def test_a_machine_is_told_without_what_changes_from_day_to_day() -> None:
    on = {"cores": 2, "python": "3.11.7", "system": "Linux 6.18.44-some-build", "load": 0.3}
    assert told(on) == "2 cores, Python 3.11.7, Linux 6.18"
