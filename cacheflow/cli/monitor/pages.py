"""What ``cacheflow status`` and ``top`` show, as lines: the cluster, a row for each node, and what is wrong."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from cacheflow.cli.monitor import figures
from cacheflow.cli.monitor.figures import UNKNOWN
from cacheflow.cli.monitor.overview import Overview
from cacheflow.cli.monitor.rates import FRONTS
from cacheflow.cli.monitor.tables import BAD, FAINT, GAP, GOOD, NOTED, PLAIN, TITLE, Column, Line, Row, cut_line, table


def _told(name: str) -> Callable[[Row], str]:
    """Return a function that shows what a row has under ``name``, as it is."""
    return lambda row: UNKNOWN if row[name] is None else str(row[name])


def _rate(name: str, show: Callable[[float | None], str]) -> Callable[[Row], str]:
    """Return a function that shows, by ``show``, what the rates of a row have under ``name``."""
    return lambda row: show(_rates(row).get(name))


def _front(front: str, name: str, show: Callable[[float | None], str]) -> Callable[[Row], str]:
    """Return a function that shows, by ``show``, what the rates of a row have under ``name`` for requests at ``front``."""
    return lambda row: show(_rates(row).get("fronts", {}).get(front, {}).get(name))


def _error_style(row: Row) -> str:
    return BAD if _rates(row).get("errors_per_s") else PLAIN


def _rates(row: Row) -> Mapping[str, Any]:
    return row.get("rates") or {}


def _state(row: Row) -> str:
    """Return how a node is, in a word."""
    if row["status"] == "up" and row["ready"] is False:
        return "not ready"
    return str(row["status"])


def _state_style(row: Row) -> str:
    return GOOD if row["status"] == "up" and row["ready"] is not False else BAD


def _role_style(row: Row) -> str:
    return NOTED if row["role"] == "leader" else PLAIN


ID: Final = Column("node", _told("id"), 100, left=True, least=12, style=_role_style)
ROLE: Final = Column("role", _told("role"), 90, left=True, style=_role_style)
STATE: Final = Column("state", _state, 95, left=True, style=_state_style)
SINCE: Final = Column("since", lambda row: figures.age(row["since_s"]), 79)
LAG: Final = Column("lag", lambda row: figures.count(row["lag"]), 80)

STATUS_COLUMNS: Final = (
    ID,
    Column("address", _told("address"), 50, left=True, least=12),
    ROLE,
    STATE,
    SINCE,
    LAG,
    Column("build", _told("build"), 30, left=True, least=8),
    Column("level", _told("level"), 20),
    Column("items", lambda row: figures.count(row["items"]), 40),
    Column("bytes", lambda row: figures.size(row["bytes"]), 35),
    Column("memory", lambda row: figures.size(row["memory_bytes"]), 45),
    Column("under way", lambda row: row["change"] or "", 65, left=True),
    Column("why not", lambda row: row["why"] or "", 25, left=True, least=10, style=lambda row: BAD),
)


# The columns of one front; {front: how its columns are called}.
_SHORT: Final = {"http": "http", "resp": "resp", "memcached": "memc"}
FRONT_COLUMNS: Final = {
    front: (
        Column(f"{short}/s", _front(front, "requests_per_s", figures.count), 70 - place),
        Column(f"{short} p50", _front(front, "p50_s", figures.duration), 48 - place),
        Column(f"{short} p99", _front(front, "p99_s", figures.duration), 74 - place),
    )
    for place, (front, short) in enumerate(_SHORT.items())
}

TOP_COLUMNS: Final = (
    ID,
    ROLE,
    STATE,
    SINCE,
    LAG,
    Column("reads/s", _rate("reads_per_s", figures.count), 78),
    Column("writes/s", _rate("writes_per_s", figures.count), 76),
    Column("errors/s", _rate("errors_per_s", figures.count), 75, style=_error_style),
    Column("hits", _rate("hit_ratio", figures.share), 71),
    *(column for front in FRONTS for column in FRONT_COLUMNS[front]),
    Column("loop p99", _rate("loop_p99_s", figures.duration), 66),
    Column("flush p99", _rate("flush_p99_s", figures.duration), 65),
    Column("unsent", _rate("unsent_bytes", figures.size), 46),
    Column("evicted/s", _rate("evicted_per_s", figures.count), 52),
    Column("expired/s", _rate("expired_per_s", figures.count), 50),
    Column("items", lambda row: figures.count(row["items"]), 40),
    Column("bytes", lambda row: figures.size(row["bytes"]), 35),
    Column("memory", lambda row: figures.size(row["memory_bytes"]), 38),
)


def status_page(found: Overview, width: int | None) -> list[Line]:
    """Return a cluster as the lines that ``cacheflow status`` prints. width: the most characters of a line; None for any."""
    columns = [column for column in STATUS_COLUMNS if any(column.show(row) for row in found.nodes)]
    lines = [*head(found), *_settings(found), [], *table(columns, found.nodes, width), [], *_reasons(found)]
    if not found.problems:
        lines.append([("healthy", GOOD)])
    # The reasons are what the command is called for: they go on in the next line of a narrow terminal.
    return lines if width is None else [line if _is_reason(line) else cut_line(line, width) for line in lines]


def top_page(found: Overview, totals: Mapping[str, Any], width: int | None) -> list[Line]:
    """Return one look of ``cacheflow top`` as lines. width: as for ``status_page``.

    totals: what all nodes have done together.
    """
    served = totals["fronts"]
    unserved = [column for front in FRONTS if front not in served for column in FRONT_COLUMNS[front]]
    columns = [column for column in TOP_COLUMNS if column not in unserved]
    told = ("reads", "writes", "errors", "evicted", "expired")
    pairs = [(name, f"{figures.count(totals[f'{name}_per_s'])}/s") for name in told]
    pairs.insert(2, ("hits", figures.share(totals["hit_ratio"])))
    pairs += [(front, f"{figures.count(served[front]['requests_per_s'])}/s") for front in FRONTS if front in served]
    lines = [*head(found), _pairs(pairs), [], *table(columns, found.nodes, width), [], *_reasons(found)]
    return lines if width is None else [cut_line(line, width) for line in lines]


def _reasons(found: Overview) -> list[Line]:
    """Return what is wrong with a cluster, and what else the user should know, as lines."""
    lines: list[Line] = [[("problem: ", BAD), (problem, PLAIN)] for problem in found.problems]
    return lines + [[("note: ", NOTED), (note, PLAIN)] for note in found.notes]


def _is_reason(line: Line) -> bool:
    return bool(line) and line[0][0].endswith(": ")


def head(found: Overview) -> list[Line]:
    """Return who leads a cluster, and what is under way in all of it, as lines."""
    cluster = found.cluster
    up = sum(row["status"] == "up" for row in found.nodes)
    leader = cluster["leader"]
    first: Line = [("leader ", TITLE), (leader or "none", NOTED if leader else BAD)]
    first += [
        ("  nodes ", TITLE),
        (f"{up} of {len(found.nodes)} up", GOOD if up == len(found.nodes) else BAD),
        (GAP, PLAIN),
    ]
    first += _pairs([("term", cluster["term"]), ("level", cluster["level"]), ("cluster", cluster["cluster_id"])])
    if (restore := cluster["restore"]) is None:
        return [first]
    return [first, [("restore ", TITLE), (f"{restore['done']} of {restore['items']} items", NOTED)]]


def _settings(found: Overview) -> list[Line]:
    settings = found.cluster["settings"]
    items, size = settings["max_items"], settings["max_bytes"]
    told = {
        "eviction": settings["eviction"],
        "max items": "none" if items is None else f"{items:,}",
        "max bytes": "none" if size is None else figures.size(size),
        "replicas": settings["replicas"],
        "largest value": figures.size(settings["max_value_bytes"]),
    }
    # Before it has caught up a node has the settings that a new cluster begins with: version 0.
    known = settings["version"] != 0
    return [_pairs([(name, value if known else None) for name, value in told.items()])]


def _pairs(told: list[tuple[str, Any]]) -> Line:
    """Return names with their values as one line."""
    line: Line = []
    for name, value in told:
        shown = (UNKNOWN, FAINT) if value is None else (str(value), PLAIN)
        line += [(f"{GAP if line else ''}{name} ", TITLE), shown]
    return line
