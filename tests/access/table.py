"""The tables of docs/security.md: which role each route and each command needs."""

from __future__ import annotations

import re
from pathlib import Path

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "security.md"
ROLES = ("nobody", "read", "write", "admin")


def table_of(title: str) -> dict[str, str]:
    """The role by what needs it, from the rows below the heading ``title``. Of a name in two rows the last one counts."""
    section = DOCUMENT.read_text().partition(f"\n### {title}\n")[2].partition("\n#")[0]
    found: dict[str, str] = {}
    for row in section.splitlines():
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        if row.startswith("| `") and cells[-1] in ROLES:
            for name in re.findall(r"`([^`]+)`", cells[0].partition(", ")[0].partition(" (")[0].partition(";")[0]):
                found[name] = cells[-1]
    assert found, title
    return found


def allows(role: str, needed: str) -> bool:
    """Whether a user of ``role`` may do what needs the role ``needed``."""
    return ROLES.index(role) >= ROLES.index(needed)
