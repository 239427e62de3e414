"""What one node answers about itself and its cluster, checked.

1. Nothing that a node says reaches the terminal as it came: texts are printable and short, numbers finite, lists bounded.
2. What is missing, or of another kind than it should be, is None: a node of another version is shown, not refused.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

# The most characters that are kept of a text: an id that nobody chose has 36, a reason may be a sentence or two.
TEXT_MAX: Final = 200
# Anything larger is no count of anything: 2^63 bytes or entries are no cluster's.
NUMBER_MAX: Final = 1 << 63
# The most members that are looked at: far more than a cluster has. Each of them costs a thread.
MEMBERS_MAX: Final = 64
# The most metrics that are kept, and characters of one's name with its labels. A node has some hundred, with names below 200.
METRICS_MAX: Final = 5000
METRIC_NAME_MAX: Final = 1000
# The most lines of a health check that are kept.
REASONS_MAX: Final = 20


class Answered(NamedTuple):
    """What one node has answered at one moment.

    url: the address at which the node was asked.  at_s: the monotonic time at which its metrics came.
    status: its view of the cluster.  members: the members in it.  metrics: its metrics, by name; empty if it gave none.
    reasons: why it is not ready, a line each; None if it is ready.
    """

    url: str
    at_s: float
    status: dict[str, Any]
    members: list[dict[str, Any]]
    metrics: Mapping[str, Any]
    reasons: list[str] | None


class Silent(NamedTuple):
    """A node that has given no answer of use. url: the address at which it was asked.  why: the reason, for people.

    refused: True if the node is there, and refuses the caller's token.
    """

    url: str
    why: str
    refused: bool = False


def text(value: Any) -> str | None:
    """Return ``value`` as a text that a terminal may show, with escapes for what is not printable; None if it is no text."""
    if not isinstance(value, str) or not value:
        return None
    shown = "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode() for each in value[: TEXT_MAX + 1]
    )
    return shown if len(shown) <= TEXT_MAX else f"{shown[: TEXT_MAX - 1]}…"


def number(value: Any) -> float | None:
    """Return ``value`` if it is a number that can be shown; None if it is no number, not finite, or absurdly large."""
    if type(value) not in (int, float) or not -NUMBER_MAX <= value <= NUMBER_MAX:
        return None
    return value if math.isfinite(value) else None


def whole(value: Any) -> int | None:
    """Return ``value`` if it is a whole number that can be shown, else None."""
    found = number(value)
    return None if found is None else int(found)


def status_of(document: Any) -> tuple[dict[str, Any], list[dict[str, Any]]] | None:
    """Return (a node's view of the cluster, the members in it), checked, from the JSON of ``/cluster/status``.

    Returns None if the document is no CacheFlow node's.
    """
    told = _object(document)
    if (node_id := text(told.get("node_id"))) is None:
        return None
    settings = _object(told.get("configuration"))
    restore = _object(told.get("restore"))
    status = {
        "node_id": node_id,
        **{name: text(told.get(name)) for name in ("cluster_id", "role", "leader", "failure")},
        **{name: whole(told.get(name)) for name in ("term", "commit_index", "applied_index", "level")},
        "settings": {
            "eviction": text(settings.get("eviction")),
            **{
                name: whole(settings.get(name))
                for name in ("max_items", "max_bytes", "replicas", "max_value_bytes", "version")
            },
        },
        "restore": None
        if not restore or restore.get("ended")
        else {"items": whole(restore.get("items")), "done": whole(restore.get("done"))},
    }
    listed = told.get("members")
    members: dict[str, dict[str, Any]] = {}
    for row in listed if isinstance(listed, list) else []:
        member = _member(_object(row))
        if member is not None:
            members.setdefault(member["id"], member)
    status["left_out"] = max(0, len(members) - MEMBERS_MAX)
    return status, list(members.values())[:MEMBERS_MAX]


def _member(row: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return a member of the list in a node's status, checked; None if it has no id."""
    if (member_id := text(row.get("id"))) is None:
        return None
    change = _object(row.get("change"))
    return {
        "id": member_id,
        **{name: text(row.get(name)) for name in ("address", "status", "role", "build")},
        **{name: row.get(name) is True for name in ("voter", "observer")},
        **{name: whole(row.get(name)) for name in ("lag", "level")},
        "last_seen": number(row.get("last_seen")),
        "change": {"what": text(change.get("what")), "due": number(change.get("due"))} if change else None,
    }


def reasons_of(body: bytes) -> list[str]:
    """Return the checks that failed, a line each, from the body of a health check that did not pass."""
    lines = body[: 1 << 16].decode("utf-8", "replace").splitlines()
    failed = [shown for line in lines if line.startswith("[-]") and (shown := text(line[3:]))]
    return failed[:REASONS_MAX] or ["its health check fails and does not say why"]


def metrics_of(document: Any) -> Mapping[str, Any]:
    """Return a node's metrics from their JSON, METRICS_MAX at most: values by name, of which who reads one checks that one."""
    named = (each for each in _object(document).items() if len(each[0]) <= METRIC_NAME_MAX)
    return dict(itertools.islice(named, METRICS_MAX))


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
