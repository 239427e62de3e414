"""docs/errors.md names every message that the program can give, and none that it cannot."""

from __future__ import annotations

import re
import sys

import pytest
from documented import messages
from documented.messages import ANY
from documented.reading import ROOT

from cacheflow.measuring.families import FAMILIES
from cacheflow.store import ReplicatedStore

PAGE = (ROOT / "docs/errors.md").read_text()


def section(title: str, level: str = "##") -> str:
    """Return what stands under a heading, to the next one of its level."""
    return re.split(rf"^{level} ", PAGE.split(f"\n{level} {title}\n", 1)[1], maxsplit=1, flags=re.MULTILINE)[0]


def cells(text: str) -> list[list[str]]:
    """Return the rows of the tables in ``text``, without their heads."""
    rows = [[cell.strip() for cell in line.strip("|\n").split(" | ")] for line in text.splitlines() if line[:1] == "|"]
    return [row for number, row in enumerate(rows) if number > 1 and not set(row[0]) <= {"-", "|"}]


def first_codes(text: str) -> list[str]:
    """Return what stands between backticks in the first cell of each row."""
    return [code for row in cells(text) for code in re.findall(r"`([^`]+)`", row[0])]


def without_ends(text: str) -> str:
    """Return a message as it is compared: any two places that differ and stand side by side are one."""
    return re.sub(rf"{ANY}+", ANY, text)


def test_every_answer_over_http_has_its_row_with_its_status() -> None:
    told = {row[0].strip("`"): row[1] for row in cells(section("Answers over HTTP"))}
    assert told == {kind: str(status) for kind, status in messages.problems().items()}


def test_every_error_of_the_wire_ports_has_its_row() -> None:
    assert set(first_codes(section("Replies on the wire ports"))) == messages.wire_replies()


@pytest.mark.parametrize("message", sorted(messages.refusals()))
def test_every_refusal_has_its_row(message: str) -> None:
    told = {without_ends(code) for code in first_codes(section("Refusals at the start"))}
    assert without_ends(message) in told, f"{messages.refusals()[message]} says it, and docs/errors.md does not"


@pytest.mark.parametrize("message", sorted(messages.complaints()))
def test_every_line_of_the_log_at_error_has_its_row(message: str) -> None:
    told = {without_ends(code) for code in first_codes(section("In the log"))}
    assert without_ends(message) in told, f"{messages.complaints()[message]} logs it, and docs/errors.md does not"


def test_the_page_names_nothing_that_nobody_says() -> None:
    said = {without_ends(text) for text in [*messages.refusals(), *messages.complaints()]}
    told = first_codes(section("Refusals at the start")) + first_codes(section("In the log"))
    assert not {without_ends(code) for code in told} - said


def test_every_check_of_health_has_its_row() -> None:
    told = first_codes(section("Health"))
    with ReplicatedStore(persistence=False, port=0, bootstrap=True) as store:
        checks = [name for name, _, _ in store.readiness()]
    assert told == [*checks, "users"]


def test_every_metric_that_is_to_be_watched_is_one() -> None:
    watched = set(re.findall(r"`cacheflow_(\w+)`", (ROOT / "docs/operating.md").read_text()))
    assert len(watched) > 10 and watched <= set(FAMILIES)


def test_a_message_that_is_new_would_be_noticed() -> None:
    assert "data directory … is in use by process …; stop it or give another --data-dir" in messages.refusals()
    assert "host = …: cannot be resolved (…); give an address" in messages.refusals()
    assert any(text.startswith("the journal is damaged: ") for text in messages.refusals())
    assert "this node takes no further part in the cluster: …" in messages.complaints()
    assert messages.problems()["forbidden"] == 403 and messages.problems()["no-room"] == 507
    assert len(messages.refusals()) > 60 and sys.version_info >= (3, 11)
