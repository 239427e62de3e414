"""What ``cacheflow status`` shows, as lines: the cluster, a row for each node, and what is wrong."""

from __future__ import annotations

from typing import Any, Final

from cacheflow.cli.monitor import figures
from cacheflow.cli.monitor.figures import UNKNOWN
from cacheflow.cli.monitor.overview import Overview
from cacheflow.cli.monitor.tables import BAD, FAINT, GOOD, NOTED, PLAIN, TITLE, Column, Line, Row, cut_line, table


def _told(name: str) -> Any:
    """Return a function that shows what a row has under ``name``, as it is."""
    return lambda row: UNKNOWN if row[name] is None else str(row[name])


def _state(row: Row) -> str:
    """Return how a node is, in a word."""
    if row["status"] == "up" and row["ready"] is False:
        return "not ready"
    return str(row["status"])


def _state_style(row: Row) -> str:
    return GOOD if row["status"] == "up" and row["ready"] is not False else BAD


def _role_style(row: Row) -> str:
    return NOTED if row["role"] == "leader" else PLAIN


ID: Final = Column("node", _told("id"), 100, left=True, least=8, style=_role_style)
ROLE: Final = Column("role", _told("role"), 90, left=True, style=_role_style)
STATE: Final = Column("state", _state, 95, left=True, style=_state_style)
SINCE: Final = Column("since", lambda row: figures.age(row["since_s"]), 60)
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


def status_page(found: Overview, width: int | None) -> list[Line]:
    """Return a cluster as the lines that ``cacheflow status`` prints. width: the most characters of a line; None for any."""
    columns = [column for column in STATUS_COLUMNS if any(column.show(row) for row in found.nodes)]
    lines = [*head(found), [], *table(columns, found.nodes, width), []]
    lines += [[("problem: ", BAD), (problem, PLAIN)] for problem in found.problems]
    lines += [[("note: ", NOTED), (note, PLAIN)] for note in found.notes]
    if not found.problems:
        lines.append([("healthy", GOOD)])
    # The reasons are what the command is called for: they go on in the next line of a narrow terminal.
    return lines if width is None else [line if _is_reason(line) else cut_line(line, width) for line in lines]


def _is_reason(line: Line) -> bool:
    return bool(line) and line[0][0].endswith(": ")


def head(found: Overview) -> list[Line]:
    """Return what all nodes of a cluster have in common, as lines."""
    cluster, settings = found.cluster, found.cluster["settings"]
    up = sum(row["status"] == "up" for row in found.nodes)
    leader = cluster["leader"]
    first: Line = [("leader ", TITLE), (leader or "none", NOTED if leader else BAD)]
    first += _pairs([("term", cluster["term"]), ("level", cluster["level"])])
    first += [("  nodes ", TITLE), (f"{up} of {len(found.nodes)} up", GOOD if up == len(found.nodes) else BAD)]
    first += _pairs([("cluster", cluster["cluster_id"])])
    second = _pairs(
        [
            ("eviction", settings["eviction"]),
            ("max items", "none" if settings["max_items"] is None else f"{settings['max_items']:,}"),
            ("max bytes", "none" if settings["max_bytes"] is None else figures.size(settings["max_bytes"])),
            ("replicas", settings["replicas"]),
            ("largest value", figures.size(settings["max_value_bytes"])),
        ]
    )
    lines = [first, [(second[0][0].lstrip(), second[0][1]), *second[1:]]]
    if (restore := cluster["restore"]) is not None:
        lines.append([("restore ", TITLE), (f"{restore['done']} of {restore['items']} items", NOTED)])
    return lines


def _pairs(told: list[tuple[str, Any]]) -> Line:
    return [
        piece
        for name, value in told
        for piece in (
            (f"  {name} ", TITLE),
            (UNKNOWN if value is None else str(value), FAINT if value is None else PLAIN),
        )
    ]
