"""One picture of a cluster, from what its nodes have answered: who leads, how each node is, and what is wrong.

1. Whose word counts for the cluster: the leader's of the highest term; without one, that of the node which has applied most.
2. Each node speaks for itself: it is up if it answers here, whatever others say. Of those that do not answer, the others' word is
   shown beside that.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from cacheflow.cli.monitor.answers import Answered, Silent, number, whole
from cacheflow.cli.nodes import change_text, role_of
from cacheflow.client.members import addresses_in

# The order of rows in the table of nodes; whatever else a node may be comes last.
_RANKS: Final = {"leader": 0, "voter": 1, "learner": 2, "spare": 3, "observer": 4}

# A row of which nothing is known, with everything that a row has.
_EMPTY: Final[Mapping[str, Any]] = dict.fromkeys(
    [
        *("id", "address", "url", "role", "status", "since_s", "ready", "why", "change"),
        *("lag", "term", "leader", "build", "level", "items", "bytes", "memory_bytes"),
    ]
)

Answers = Mapping[str, Answered | Silent]


class Overview(NamedTuple):
    """A cluster as it is shown. Everything in it can be JSON, and may be shown on a terminal.

    cluster: what all nodes have in common.  nodes: a row for each node.  problems: why the cluster is not healthy, empty if it
    is.  notes: what else the user should know.
    """

    cluster: dict[str, Any]
    nodes: list[dict[str, Any]]
    problems: list[str]
    notes: list[str]

    def document(self) -> dict[str, Any]:
        """Return this overview as one JSON object."""
        told = {"healthy": not self.problems, "problems": self.problems, "notes": self.notes}
        return {**told, **self.cluster, "nodes": self.nodes}


def authority(answers: Answers, given: Sequence[str]) -> Answered | None:
    """Return the answer of the node whose word counts for the cluster; None if no node has answered.

    answers: what was answered, by URL.  given: the URLs that the user has named: the first of them that answers and knows its
    cluster says which one is meant, and nodes of others do not count. A node that has not caught up since its start does not
    know it.
    """
    found = [answer for url in [*given, *answers] if isinstance(answer := answers.get(url), Answered)]
    cluster_id = next((known for each in found if (known := each.status["cluster_id"])), None)
    return max([each for each in found if each.status["cluster_id"] == cluster_id], key=_weight, default=None)


def _weight(answer: Answered) -> tuple[bool, int, int]:
    status = answer.status
    return status["role"] == "leader", status["term"] or 0, status["applied_index"] or 0


def places(answers: Answers, given: Sequence[str]) -> list[str]:
    """Return the URLs at which the nodes of the cluster are to be asked: those that were given, and each member's.

    A member that answers at some address needs no other. Members' own addresses are taken as a client takes them: of the
    same scheme, so that no token goes out unencrypted, and none that leads nowhere.
    """
    found = list(given)
    told_by = authority(answers, given)
    if told_by is None:
        return found
    at: dict[str, list[str]] = {}
    for url, answer in answers.items():
        if isinstance(answer, Answered):
            at.setdefault(answer.status["node_id"], []).append(url)
    for member in told_by.members:
        found += at.get(member["id"]) or addresses_in([member], told_by.url)
    return list(dict.fromkeys(found))


def overview(answers: Answers, given: Sequence[str]) -> Overview:
    """Return the picture of the cluster from ``answers``, by URL, of which at least one is an answer.

    given: the URLs that the user has named.
    """
    told_by = authority(answers, given)
    assert told_by is not None
    status, members = told_by.status, told_by.members
    rows = [_row(member, told_by, answers) for member in members]
    listed = {member["id"] for member in members}
    problems: list[str] = []
    notes = _short_of_voters(status, members)
    for url, answer in answers.items():
        if isinstance(answer, Silent):
            if url in given and url not in [row["url"] for row in rows]:
                notes.append(f"{url} does not answer: {answer.why}")
        elif answer.status["cluster_id"] not in (status["cluster_id"], None):
            # One that the user takes for a node of this cluster may have founded its own, for want of a seed.
            (problems if url in given else notes).append(
                f"{url} is a node of another cluster, {answer.status['cluster_id']}"
            )
        elif answer.status["node_id"] not in listed and not answer.status["cluster_id"] and status["cluster_id"]:
            notes.append(f"{url} is a node of no cluster yet, or has not caught up")
        elif answer.status["node_id"] not in listed:
            # The node is in no table of members: it was removed, or is just joining.
            listed.add(answer.status["node_id"])
            rows.append(_stranger(answer))
        if isinstance(answer, Answered) and not answer.metrics:
            notes.append(f"{answer.status['node_id']} gives no metrics")
    rows.sort(key=lambda row: (_RANKS.get(row["role"], len(_RANKS)), row["id"]))
    cluster = {
        **{name: status[name] for name in ("cluster_id", "leader", "term", "level", "commit_index")},
        "told_by": status["node_id"],
        "settings": status["settings"],
        "restore": status["restore"],
    }
    return Overview(cluster, rows, [*_problems(status, rows), *problems], notes)


def _short_of_voters(status: Mapping[str, Any], members: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a line that says so if fewer members of a cluster of several vote than its settings ask for; else none."""
    voters, replicas = sum(member["voter"] for member in members), status["settings"]["replicas"]
    if len(members) < 2 or replicas is None or voters > replicas:
        return []
    return [
        f"{voters} members vote, and replicas {replicas} asks for {replicas + 1}: start another node, or lower replicas"
    ]


def _problems(status: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return what is wrong with a cluster, a line each: no leader, members that do not answer, nodes that are not ready."""
    found = [] if status["leader"] else ["there is no leader"]
    if status["left_out"]:
        found.append(f"{status['left_out']} more members are not looked at: ask them by --url")
    for row in rows:
        if row["status"] == "down":
            found.append(f"{row['id']} is down: {row['why']}")
        elif row["status"] == "unreachable":
            found.append(f"{row['id']} does not answer here, and {status['node_id']} counts it as up: {row['why']}")
        elif row["ready"] is False:
            found.append(f"{row['id']} is not ready: {row['why']}")
    return found


def _row(member: Mapping[str, Any], told_by: Answered, answers: Answers) -> dict[str, Any]:
    """Return one member of the cluster as a row. told_by: the answer whose list of members it is in."""
    own = next(
        (each for each in answers.values() if isinstance(each, Answered) and each.status["node_id"] == member["id"]),
        None,
    )
    role = role_of(dict(member), told_by.members, told_by.status["settings"]["replicas"])
    change = change_text(member["change"]) if member["change"] else None
    seen_s = member["last_seen"]
    if own is not None:
        row = _own(own)
        if told_by.status["role"] == "leader":
            row["lag"] = member["lag"]
        return {**row, "address": member["address"], "role": role, "change": change}
    url = next(iter(addresses_in([member], told_by.url)), None)
    asked = answers.get(url) if url is not None else None
    if isinstance(asked, Silent):
        state, why = "down" if member["status"] == "down" else "unreachable", asked.why
    elif isinstance(asked, Answered):
        state, why = "unreachable", f"{asked.status['node_id']} answers at its address"
    elif url is not None:
        state, why = "unreachable", "has not answered yet"
    elif member["address"]:
        state, why = "unreachable", "its address is of no use from here"
    else:
        # An embedded node: nobody can ask it anything.
        state, why = member["status"] or "unreachable", "serves no HTTP"
    return {
        **_EMPTY,
        "id": member["id"],
        "address": member["address"],
        "url": url,
        "role": role,
        "status": state,
        "since_s": seen_s if state == "down" else None,
        "lag": member["lag"],
        "build": member["build"],
        "level": member["level"],
        "why": why,
        "change": change,
    }


def _stranger(answer: Answered) -> dict[str, Any]:
    """Return the row of a node that belongs to the cluster and is not in its list of members."""
    return {**_own(answer), "role": "no member"}


def _own(answer: Answered) -> dict[str, Any]:
    """Return what a node says of itself, as a row."""
    status, metrics = answer.status, answer.metrics
    own = next((member for member in answer.members if member["id"] == status["node_id"]), {})
    started_at = number(metrics.get("process_start_time_seconds"))
    return {
        **_EMPTY,
        "id": status["node_id"],
        "url": answer.url,
        "status": "up",
        "ready": answer.reasons is None,
        "since_s": None if started_at is None else max(time.time() - started_at, 0.0),
        "lag": _behind(status),
        "term": status["term"],
        "leader": status["leader"],
        "build": own.get("build"),
        "level": own.get("level"),
        "items": whole(metrics.get("items")),
        "bytes": whole(metrics.get("bytes")),
        "memory_bytes": whole(metrics.get("process_resident_memory_bytes")),
        "why": "; ".join(answer.reasons or []) or None,
    }


def _behind(status: Mapping[str, Any]) -> int | None:
    """Return how many entries a node has not applied of those that it knows to be committed."""
    committed, applied = status["commit_index"], status["applied_index"]
    return None if committed is None or applied is None else max(committed - applied, 0)
