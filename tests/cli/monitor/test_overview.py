"""The picture of a cluster, from answers that nodes have given."""

from __future__ import annotations

from typing import Any

import pytest

from cacheflow.cli.monitor.answers import MEMBERS_MAX, Answered, Silent, status_of
from cacheflow.cli.monitor.overview import authority, overview, places

URLS = {node_id: f"http://10.0.0.{number}:8080" for number, node_id in enumerate("abcde", 1)}


def member(node_id: str, **told: Any) -> dict[str, Any]:
    """Return a member as a node's status has it."""
    address = URLS[node_id].removeprefix("http://") if node_id in URLS else ""
    shown = {"id": node_id, "address": address, "status": "up", "role": "follower", "voter": True}
    return {**shown, "lag": None, "build": "0.1.0", "level": 1, "last_seen": 0.0, **told}


MEMBERS = [member("a", role="leader", lag=0), member("b", lag=3), member("c", lag=0)]


def answered(node_id: str, members: list[dict[str, Any]] = MEMBERS, ready: bool = True, **told: Any) -> Answered:
    """Return what the node ``node_id`` answers. told: what its status has otherwise."""
    leads = any(row["id"] == node_id and row["role"] == "leader" for row in members)
    status = {
        "node_id": node_id,
        "cluster_id": "c1",
        "role": "leader" if leads else "follower",
        "leader": "a",
        "term": 3,
        "commit_index": 10,
        "applied_index": 9,
        "level": 1,
        "configuration": {"eviction": "lru", "max_items": 1000, "replicas": 2, "max_value_bytes": 1024},
        "members": members,
        **told,
    }
    found = status_of(status)
    assert found is not None
    metrics = {"items": 5, "bytes": 100}
    return Answered(URLS[node_id], 0.0, *found, metrics, None if ready else ["leader failed: is not known"])


def silent(node_id: str, why: str = "Connection refused") -> Silent:
    return Silent(URLS[node_id], why)


def by_url(*answers: Answered | Silent) -> dict[str, Answered | Silent]:
    return {answer.url: answer for answer in answers}


def test_a_whole_cluster_is_healthy_and_its_leader_stands_first() -> None:
    found = overview(by_url(answered("c"), answered("b"), answered("a")), [URLS["c"]])
    assert (found.problems, found.notes) == ([], [])
    assert [(row["id"], row["role"], row["status"], row["ready"], row["lag"]) for row in found.nodes] == [
        ("a", "leader", "up", True, 0),
        ("b", "voter", "up", True, 3),
        ("c", "voter", "up", True, 0),
    ]
    assert (found.cluster["leader"], found.cluster["told_by"], found.cluster["settings"]["replicas"]) == ("a", "a", 2)
    assert found.document()["healthy"] is True


def test_a_node_that_does_not_answer_is_down_if_the_others_say_so_too() -> None:
    members = [MEMBERS[0], member("b", status="down", last_seen=42.0), MEMBERS[2]]
    found = overview(by_url(answered("a", members), silent("b"), silent("c", "no answer in time")), [URLS["a"]])
    assert [(row["status"], row["since_s"], row["items"], row["ready"]) for row in found.nodes[1:]] == [
        ("down", 42.0, None, None),
        ("unreachable", None, None, None),
    ]
    assert found.problems == [
        "b is down: Connection refused",
        "c does not answer here, and a counts it as up: no answer in time",
    ]


def test_members_that_are_not_looked_at_are_a_problem() -> None:
    members = [{"id": f"{number:03}", "status": "up", "voter": True} for number in range(MEMBERS_MAX + 6)]
    found = overview(by_url(answered("a", members)), [URLS["a"]])
    assert found.problems[0] == "6 more members are not looked at: ask them by --url"


def test_a_node_that_is_not_ready_and_a_missing_leader_are_problems() -> None:
    members = [{**row, "role": "follower"} for row in MEMBERS]
    found = overview(by_url(*(answered(each, members, ready=each != "b", leader=None) for each in "abc")), [URLS["a"]])
    assert found.problems == ["there is no leader", "b is not ready: leader failed: is not known"]
    # Nobody leads, so each tells its own lag.
    assert [row["lag"] for row in found.nodes] == [1, 1, 1]


def test_the_leader_of_the_highest_term_says_who_is_a_member() -> None:
    after = [member("a"), member("b", role="leader")]
    # Once it has led, and does not know yet that it does no more.
    before = answered("a", MEMBERS, term=3)
    late = answered("c", MEMBERS, term=9, applied_index=2)
    now = answered("b", after, term=4, leader="b")
    told_by = authority(by_url(before, late, now), [URLS["a"]])
    assert told_by is now
    found = overview(by_url(before, late, now), [URLS["a"]])
    assert found.cluster["leader"] == "b"
    # It answers, and is no member any more.
    assert [(row["id"], row["role"]) for row in found.nodes] == [("b", "leader"), ("a", "voter"), ("c", "no member")]


def test_a_node_of_another_cluster_is_told_and_not_counted() -> None:
    other = answered("d", [member("d", role="leader")], cluster_id="c2", term=99)
    found = overview(by_url(answered("a"), other, answered("b"), answered("c")), [URLS["a"], URLS["d"]])
    assert found.cluster["cluster_id"] == "c1" and len(found.nodes) == 3 and not found.notes
    assert found.problems == [f"{URLS['d']} is a node of another cluster, c2"]


@pytest.mark.parametrize("given", [["b", "a"], ["b"]])
def test_a_node_that_has_not_caught_up_does_not_say_which_cluster_is_meant(given: list[str]) -> None:
    lost = answered("b", ready=False, cluster_id="", leader=None, role="follower", term=9, applied_index=0)
    found = overview(by_url(lost, answered("a", role="leader"), answered("c")), [URLS[each] for each in given])
    assert (found.cluster["cluster_id"], found.cluster["told_by"], found.cluster["leader"]) == ("c1", "a", "a")
    assert not found.notes, "it is a member, if one that knows nothing"
    assert [row["id"] for row in found.nodes if not row["ready"]] == ["b"]
    assert [problem.split(":")[0] for problem in found.problems] == ["b is not ready"]


def test_a_node_of_no_cluster_is_no_member() -> None:
    new = answered("d", [], ready=False, cluster_id="", leader=None)
    found = overview(by_url(new, answered("a", role="leader"), answered("b"), answered("c")), [URLS["d"], URLS["a"]])
    assert len(found.nodes) == 3 and not found.problems
    assert found.notes == [f"{URLS['d']} is a node of no cluster yet, or has not caught up"]


@pytest.mark.parametrize(("replicas", "told"), [(2, True), (1, False), (None, False)])
def test_who_has_fewer_voters_than_the_settings_ask_for_is_told(replicas: int | None, told: bool) -> None:
    settings = {"eviction": "lru", "replicas": replicas, "version": 1}
    two = [answered(each, MEMBERS[:2], configuration=settings) for each in "ab"]
    found = overview(by_url(*two), [URLS["a"]])
    assert not found.problems
    note = "2 members vote, and replicas 2 asks for 3: start another node, or lower replicas"
    assert found.notes == ([note] if told else [])


def test_one_node_alone_is_not_short_of_voters() -> None:
    assert overview(by_url(answered("a", MEMBERS[:1])), [URLS["a"]]).notes == []


def test_an_address_that_is_no_members_is_told_when_it_does_not_answer() -> None:
    found = overview(by_url(silent("e"), *map(answered, "abc")), [URLS["e"], URLS["a"]])
    assert (found.problems, found.notes) == ([], [f"{URLS['e']} does not answer: Connection refused"])


def test_a_member_without_an_address_is_as_the_others_say() -> None:
    for state in ("up", "down"):
        members = [*MEMBERS, member("app", voter=False, observer=True, status=state)]
        found = overview(by_url(answered("a", members), answered("b"), answered("c")), [URLS["a"]])
        assert (found.nodes[3]["status"], found.nodes[3]["role"]) == (state, "observer")
        assert found.problems == ([] if state == "up" else ["app is down: serves no HTTP"])


def test_a_member_at_whose_address_another_node_answers_is_not_up() -> None:
    members = [*MEMBERS[:2], member("c", address=URLS["b"].removeprefix("http://"))]
    found = overview(by_url(answered("a", members), answered("b")), [URLS["a"]])
    assert (found.nodes[2]["status"], found.nodes[2]["why"]) == ("unreachable", "b answers at its address")


def test_a_node_without_metrics_is_shown_without_figures() -> None:
    answer = answered("a", MEMBERS[:1])._replace(metrics={})
    found = overview(by_url(answer), [URLS["a"]])
    assert found.nodes[0]["items"] is None and found.notes == ["a gives no metrics"]


def test_members_are_asked_where_they_answer_else_at_their_own_address() -> None:
    given = ["http://localhost:1"]
    asked_as = answered("a")._replace(url=given[0])
    assert places(by_url(asked_as), given) == [given[0], URLS["b"], URLS["c"]]
    assert places({}, given) == given


def test_no_member_is_asked_over_another_scheme_or_at_an_address_that_leads_nowhere() -> None:
    strange = ("http://10.0.0.2:8080", "0.0.0.0:8080", "127.0.0.1:8080", "10.0.0.9", "x" * 300)
    members = [MEMBERS[0], *(member(f"n{number}", address=address) for number, address in enumerate(strange))]
    secure = answered("a", members)._replace(url="https://10.0.0.1:8080")
    assert places(by_url(secure), [secure.url]) == [secure.url]
    found = overview(by_url(secure), [secure.url])
    assert {row["why"] for row in found.nodes[1:]} == {"its address is of no use from here"}
