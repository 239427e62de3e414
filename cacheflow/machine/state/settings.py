"""Replicated settings: the limits of the cache, and the table of members; their checks.

Both come from the log, so both are checked here without trust: the functions raise ValueError with a message for
people. The message becomes part of a kept result, hence of the replicated state: no ``repr`` in it, which differs
between Pythons.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final, TypeAlias

from cacheflow.machine.language.commands import INT64_MAX

MAX_BYTES_MIN: Final = 1024
REPLICAS_MAX: Final = 8
# The largest value that may be allowed: what carries values (blocks, frames, bodies of requests) has room for it.
VALUE_BYTES_MAX: Final = 64 * 1024 * 1024
# The name of who has changed the settings is cut to so many characters.
BY_CHARS_MAX: Final = 64
MEMBERS_MAX: Final = 1000
NAME_CHARS_MAX: Final = 256


@dataclass(frozen=True, slots=True)
class Settings:
    """The replicated settings of the cache. A limit of None means no limit; replicas is None until somebody has set it.

    version: grows by one with each change; 0 until somebody has set any.
    changed_by, changed_at_ms: who has made the last change, "" if that is unknown, and when by the log's time.
    """

    policy: str = "lru"
    max_items: int | None = None
    max_bytes: int | None = None
    replicas: int | None = None
    max_value_bytes: int = 1024 * 1024
    version: int = 0
    changed_by: str = ""
    changed_at_ms: int = 0


@dataclass(frozen=True, slots=True)
class Member:
    """One member of the cluster, as a row of the member table.

    Another incarnation of the same id is a node whose disk was emptied.  voter: whether the member votes now.
    observer: whether the member stays without a vote until an operator promotes it. A member that is neither is a spare: it
    is given a vote when one is wanted.
    """

    id: str
    incarnation: str
    raft_address: str
    address: str
    voter: bool
    observer: bool = False

    @property
    def is_spare(self) -> bool:
        """True if the member does not vote now and may be given a vote without an operator's asking for that."""
        return not (self.voter or self.observer)


def is_whole(value: Any, least: int, most: int = INT64_MAX) -> bool:
    """True if ``value`` is an int from ``least`` to ``most``, and no bool."""
    return type(value) is int and least <= value <= most


# What a setting may be: a check, and the same in words.
Rule: TypeAlias = tuple[Callable[[Any], bool], str]

RULES: Final[dict[str, Rule]] = {
    "policy": (lambda value: value in ("lru", "lfu"), "lru or lfu"),
    "max_items": (lambda value: value is None or is_whole(value, 1), "a whole number from 1 on, or null for no limit"),
    "max_bytes": (
        lambda value: value is None or is_whole(value, MAX_BYTES_MIN),
        f"a whole number from {MAX_BYTES_MIN} on, or null for no limit",
    ),
    "replicas": (lambda value: is_whole(value, 0, REPLICAS_MAX), f"a whole number from 0 to {REPLICAS_MAX}"),
    "max_value_bytes": (
        lambda value: is_whole(value, 1, VALUE_BYTES_MAX),
        f"a whole number from 1 to {VALUE_BYTES_MAX} (64 MiB)",
    ),
}


def changed(settings: Settings, changes: Any, by: Any, at_ms: int) -> Settings:
    """Return ``settings`` changed by ``changes``, {name: value}; ``settings`` itself if its values are these already.

    by, at_ms: who makes the change, and when. Raises ValueError for unknown names and bad values.
    """
    if type(changes) is not dict:
        raise ValueError("the settings are not a map")
    if type(by) is not str or len(by) > BY_CHARS_MAX:
        raise ValueError(f"who changes the settings is not a text of at most {BY_CHARS_MAX} characters")
    for name, value in changes.items():
        rule = RULES.get(name)
        if rule is None:
            raise ValueError("no setting has that name")
        is_good, words = rule
        if not is_good(value):
            raise ValueError(f"{name} is {words}")
    new = replace(settings, **changes)
    if new == settings and settings.version:
        return settings
    return replace(new, version=settings.version + 1, changed_by=by, changed_at_ms=at_ms)


def is_name(value: Any) -> bool:
    """True if ``value`` can be an id, an address or a nonce: a str of 1 to 256 characters."""
    return type(value) is str and 0 < len(value) <= NAME_CHARS_MAX


def member_of(row: Any) -> Member:
    """Return the member in ``row``, the values of a Member's fields in a list. Raises ValueError for any other row.

    Rows are checked before they are written to the log, too: the log would take what the state machine then refuses.
    """
    if type(row) is not list or len(row) != 6:
        raise ValueError("a member is not a list of six")
    member = Member(*row)
    texts = (member.incarnation, member.raft_address, member.address)
    if not is_name(member.id) or any(type(text) is not str or len(text) > NAME_CHARS_MAX for text in texts):
        raise ValueError("a member's id or address is not a short str")
    if type(member.voter) is not bool or type(member.observer) is not bool:
        raise ValueError("a member's flags are not bools")
    if member.voter and member.observer:
        raise ValueError("an observer has a vote")
    return member


def member_table(rows: Any) -> dict[str, Member]:
    """Return the member table ``rows``, a list of rows, one a member, as {id: Member}. Raises ValueError."""
    if type(rows) is not list or len(rows) > MEMBERS_MAX:
        raise ValueError(f"the member table is not a list of at most {MEMBERS_MAX}")
    table: dict[str, Member] = {}
    for row in rows:
        member = member_of(row)
        if member.id in table:
            raise ValueError(f"the member {member.id} is named twice")
        table[member.id] = member
    return table
