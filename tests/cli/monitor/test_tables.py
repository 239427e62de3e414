"""Tables are as wide as the terminal, and leave out what matters least."""

from __future__ import annotations

import pytest

from cacheflow.cli.monitor.tables import Column, cut, cut_line, plain, table, wide

COLUMNS = (
    Column("node", lambda row: row["id"], 3, left=True, least=6),
    Column("state", lambda row: "up", 2, left=True),
    Column("items", lambda row: "12.3k", 1),
)


def lines(width: int | None, *ids: str) -> list[str]:
    return [plain(line) for line in table(COLUMNS, [{"id": each} for each in ids], width)]


def test_without_a_width_nothing_is_left_out() -> None:
    assert lines(None, "a" * 30) == [f"node{'':28}state  items", f"{'a' * 30}  up     12.3k"]


def test_a_long_text_is_cut_before_a_column_is_left_out() -> None:
    assert lines(22, "a" * 30) == ["node      state  items", "aaaaaaa…  up     12.3k"]
    assert lines(20, "a" * 30) == ["node    state  items", "aaaaa…  up     12.3k"]
    assert lines(19, "a" * 30) == ["node          state", "aaaaaaaaaaa…  up"]
    assert lines(5, "a" * 30) == ["node", "aaaa…"]


@pytest.mark.parametrize("width", range(1, 60))
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    assert all(wide(line) <= width for line in lines(width, "a", "b" * 30, "漢字" * 9, "e\u0301" * 20))


def test_letters_that_take_two_columns_or_none_are_counted_so() -> None:
    assert [wide(text) for text in ("abc", "漢字", "e\u0301")] == [3, 4, 1]
    assert [cut(text, 3) for text in ("abc", "abcd", "漢字", "")] == ["abc", "ab…", "漢…", ""]
    assert cut("abc", 0) == ""
    assert plain(cut_line([("ab", ""), ("cd", ""), ("ef", "")], 3)) == "ab…"
