"""When an entry waits for more commands, and when it does not."""

from __future__ import annotations

import pytest

from cacheflow.raft.roles.batching import COMPANY_S, ENTRIES, Company


class Time:
    """What the leader's clock says, and when it will look again."""

    def __init__(self) -> None:
        self.now_s = 10.0
        self.woken_after: list[float] = []


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def company(time: Time) -> Company:
    return Company(lambda: time.now_s, time.woken_after.append)


def test_without_crowds_nobody_waits(company: Company, time: Time) -> None:
    assert not company.is_awaited([""], 5)
    assert time.woken_after == []


def test_the_first_of_several_crowds_waits_until_all_are_here(company: Company, time: Time) -> None:
    for origin in ("", "n2", "n3"):
        company.came(origin, 5)
    assert company.is_awaited([""], 6)
    assert company.is_awaited(["", "n3"], 6)
    assert not company.is_awaited(["n2", "", "n3"], 6)
    assert time.woken_after == [COMPANY_S]


def test_who_stays_away_is_waited_for_no_longer_than_told(company: Company, time: Time) -> None:
    company.came("", 5)
    company.came("n2", 5)
    assert company.is_awaited([""], 6)
    time.now_s += COMPANY_S / 2
    assert company.is_awaited([""], 6)
    time.now_s += COMPANY_S
    assert not company.is_awaited([""], 6)


def test_a_lone_client_waits_for_nobody(company: Company, time: Time) -> None:
    company.came("n2", 5)
    assert not company.is_awaited([""], 6)
    assert not company.is_awaited(["", "n3"], 6)
    assert time.woken_after == []


def test_who_has_stayed_away_is_expected_no_more(company: Company, time: Time) -> None:
    company.came("n2", 5)
    company.came("", 6)
    assert company.is_awaited([""], 5 + ENTRIES)
    time.now_s += COMPANY_S
    assert not company.is_awaited([""], 5 + ENTRIES)
    assert not company.is_awaited([""], 6 + ENTRIES)


def test_another_leadership_knows_nobody(company: Company) -> None:
    company.came("n2", 5)
    company.forget()
    assert not company.is_awaited([""], 6)
