"""The events of a node over HTTP."""

from __future__ import annotations

import pytest
from rest.client import Client
from rest.fake_store import FakeStore

from cacheflow.results import Event

EVENTS = [
    Event(number, 1000.5 + number, "leader", f"n{number} leads in term {number}", f"n{number}") for number in (7, 8, 9)
]


def test_events_are_told_oldest_first_with_the_number_to_go_on_with(client: Client, store: FakeStore) -> None:
    assert client.get("/events").json == {"events": [], "next": 1}
    store.happened = [*EVENTS, Event(10, 2000.0, "restore", "a restore of 3 items is done", None)]
    told = client.get("/events")
    assert told.json["next"] == 11 and [event["number"] for event in told.json["events"]] == [7, 8, 9, 10]
    assert told.json["events"][0] == {
        "number": 7,
        "at": 1007.5,
        "what": "leader",
        "text": "n7 leads in term 7",
        "about": "n7",
    }
    assert told.json["events"][-1]["about"] is None and told.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize(
    ("since", "numbers"),
    [("0", [7, 8, 9]), ("8", [8, 9]), ("10", []), ("11", [7, 8, 9]), ("9000000000000000000", [7, 8, 9])],
)
def test_who_goes_on_gets_what_is_new_and_all_where_the_node_has_been_started_again(
    client: Client, store: FakeStore, since: str, numbers: list[int]
) -> None:
    store.happened = EVENTS
    told = client.get(f"/events?since={since}").json
    assert [event["number"] for event in told["events"]] == numbers and told["next"] == 10


@pytest.mark.parametrize("since", ["-1", "x", "1.5", "99999999999999999999", ""])
def test_a_number_that_is_none_is_refused(client: Client, since: str) -> None:
    assert client.get(f"/events?since={since}").status_code == 400


def test_hostile_names_are_data(client: Client, store: FakeStore) -> None:
    name = 'n\u202e"<img src=x onerror=alert(1)>\u0000'
    store.happened = [Event(1, 1.0, "member", f"{name} does not answer", name)]
    assert client.get("/events").json["events"][0]["about"] == name
