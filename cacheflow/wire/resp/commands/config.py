"""The command CONFIG: the cluster's limit and policy under the names that they have in Redis, and what tools ask for beside."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Any, Final

from cacheflow.errors import CacheFlowError
from cacheflow.machine.language.commands import Command, Result
from cacheflow.machine.language.databases import DATABASES
from cacheflow.measuring.slow_log import KEPT
from cacheflow.verbs import settings_command, settings_of
from cacheflow.wire.resp.command_stats import command_stats
from cacheflow.wire.resp.commands.clients import chosen, subcommand
from cacheflow.wire.resp.commands.info import stats
from cacheflow.wire.resp.glob import PATTERN_BYTES_MAX, matcher
from cacheflow.wire.resp.notifications import parsed, spelled
from cacheflow.wire.resp.replies import OK, CommandError, encode, error
from cacheflow.wire.resp.session import Arguments, Local, RespSession, Spec
from cacheflow.wire.streams import whole

# What one CONFIG SET counts for among the requests of one log entry: another policy takes some milliseconds.
CHANGE_WORK: Final = 200
# Redis' names of the policies that there are here.
POLICIES: Final = {"allkeys-lru": "lru", "allkeys-lfu": "lfu"}
_NAMES_OF: Final = {policy: name for name, policy in POLICIES.items()}
# Redis' policies that evict only keys with a TTL, or none at all.
_OTHER_POLICIES: Final = (
    *("noeviction", "allkeys-random", "volatile-lru", "volatile-lfu", "volatile-random", "volatile-ttl"),
)
# A size as Redis writes it: 100mb is 100 * 1024 * 1024 bytes, 100m is 100,000,000.
_SIZE: Final = re.compile(r"([0-9]{1,18})([kmg]?)(b?)", re.IGNORECASE)
_MICROSECONDS: Final = re.compile(r"-?[0-9]{1,13}")
_UNITS: Final = {"": 0, "k": 1, "m": 2, "g": 3}


def _told(session: RespSession) -> dict[str, str]:
    """Return the parameters that CONFIG GET knows, with their values."""
    settings = session.service.store.settings()
    slow_ms = session.service.store.slow_log.slow_ms
    return {
        "appendonly": "yes",
        "databases": str(DATABASES),
        "maxmemory": str(settings.max_bytes or 0),
        "maxmemory-policy": _NAMES_OF[settings.eviction],
        NOTIFY: spelled(session.service.notifications.flags),
        "proto-max-bulk-len": str(settings.max_value_bytes),
        "save": "",
        "slowlog-log-slower-than": str(round(slow_ms * 1000)) if slow_ms >= 0 else "-1",
        "slowlog-max-len": str(KEPT),
        "timeout": "0",
    }


def _get(session: RespSession, arguments: Arguments) -> bytes:
    known = _told(session)
    found: dict[str, str] = {}
    for pattern in arguments[2:]:
        if len(pattern) <= PATTERN_BYTES_MAX:
            matches = matcher(pattern.lower())
            found.update({name: value for name, value in known.items() if matches(name.encode())})
    return encode(session.protocol, found)


def _max_bytes(text: str) -> int | None:
    """Return the limit in bytes that ``text``, a size as Redis writes it, stands for; None for 0, which is no limit.

    Raises ValueError that says how such a text is written.
    """
    found = _SIZE.fullmatch(text)
    if found is None:
        raise ValueError("argument must be a memory value")
    number, unit, binary = found.groups()
    return int(number) * (1024 if binary else 1000) ** _UNITS[unit.lower()] or None


def _policy(text: str) -> str:
    """Return the policy of eviction that Redis calls ``text``. Raises ValueError that says which policies there are."""
    policy = POLICIES.get(text.lower())
    if policy is None:
        if text.lower() in _OTHER_POLICIES:
            raise ValueError("this cache evicts from all keys by their use: allkeys-lru or allkeys-lfu")
        raise ValueError("argument(s) must be one of the following: allkeys-lru, allkeys-lfu")
    return policy


def _slow_ms(text: str) -> float:
    """Return the milliseconds that ``text``, a number of microseconds, stands for. Raises ValueError."""
    if not _MICROSECONDS.fullmatch(text):
        raise ValueError("argument couldn't be parsed into an integer")
    return int(text) / 1000


# The parameters that are this node's own, until its next start, and what their texts mean.
NOTIFY: Final = "notify-keyspace-events"
_SLOWER_THAN: Final = "slowlog-log-slower-than"
_OWN: Final[dict[str, Callable[[str], Any]]] = {NOTIFY: parsed, _SLOWER_THAN: _slow_ms}
# Redis' name of a parameter of the cluster: the setting's own, and what its text means.
_SETTABLE: Final[dict[str, tuple[str, Callable[[str], Any]]]] = {
    "maxmemory": ("max_bytes", _max_bytes),
    "maxmemory-policy": ("eviction", _policy),
}


def _asked(session: RespSession, arguments: Arguments) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what a CONFIG SET asks for, values by parameter: the cluster's settings, and this node's. Raises CommandError."""
    words = [argument.decode("utf-8", "replace") for argument in arguments[2:]]
    if len(words) % 2:
        raise CommandError("ERR wrong number of arguments for 'config|set' command")
    changes: dict[str, Any] = {}
    own: dict[str, Any] = {}
    for name, value in zip(words[::2], words[1::2], strict=True):
        name = name.lower()
        if name in changes or name in own:
            raise CommandError(f"ERR CONFIG SET failed (possibly related to argument '{name}') - duplicate parameter")
        if name not in _SETTABLE and name not in _OWN:
            known = name in _told(session)
            raise CommandError(
                f"ERR CONFIG SET failed (possibly related to argument '{name}') - can't set immutable config"
                if known
                else f"ERR Unknown option or number of arguments for CONFIG SET - '{name[:128]}'"
            )
        try:
            if name in _OWN:
                own[name] = _OWN[name](value)
            else:
                changes[name] = _SETTABLE[name][1](value)
        except ValueError as wrong:
            raise CommandError(f"ERR CONFIG SET failed (possibly related to argument '{name}') - {wrong}") from None
    return changes, own


def _change(session: RespSession, changes: dict[str, Any]) -> Command:
    """Return the state machine's command that gives parameters the values ``changes``, all or none. Raises CommandError."""
    try:
        return settings_command(
            {_SETTABLE[name][0]: value for name, value in changes.items()},
            by="" if session.user is None else session.user.name,
        )
    except CacheFlowError as wrong:
        raise CommandError(f"ERR CONFIG SET failed - {wrong}") from None


def _changed(result: Result) -> bytes:
    try:
        settings_of(result)
    except CacheFlowError as failed:
        return error(f"ERR CONFIG SET failed - {failed}")
    return OK


def _begin_to_set(session: RespSession, arguments: Arguments) -> None:
    """Carry out a CONFIG SET: settings of the cluster by the log, and what is this node's own once they are changed."""
    changes, own = _asked(session, arguments)
    notifications, slow_log = session.service.notifications, session.service.store.slow_log

    def set_own() -> bytes:
        if _SLOWER_THAN in own:
            slow_log.set_slow_ms(own[_SLOWER_THAN])
        if NOTIFY in own:
            notifications.flags = own[NOTIFY]
            notifications.go_on()
        return OK

    def done(result: Result) -> bytes:
        reply = _changed(result)
        return set_own() if reply == OK else reply

    if changes:
        session.write(_change(session, changes), done, CHANGE_WORK)
    else:
        session.in_turn(set_own)


def _set(session: RespSession, arguments: Arguments) -> bytes:
    raise CommandError("ERR CONFIG SET is not served inside MULTI")


def _resetstat(session: RespSession, arguments: Arguments) -> bytes:
    """Answer CONFIG RESETSTAT: set the counters in INFO back to 0. The counters in ``/metrics`` stay: they never fall."""
    session.service.stats_before = stats(session)
    session.service.commands_before = command_stats(session.service.times, {})
    return OK


_CONFIG: Final[dict[bytes, tuple[int, Local]]] = {
    b"GET": (-3, _get),
    b"RESETSTAT": (2, _resetstat),
    # What CONFIG SET has changed is in the log of every node already.
    b"REWRITE": (2, lambda session, _: OK),
    b"SET": (-4, _set),
}


def _control(session: RespSession, arguments: Arguments) -> None:
    answer = chosen(_CONFIG, session, arguments)
    if answer is _set:
        _begin_to_set(session, arguments)
    else:
        session.in_turn(lambda: whole(answer(session, arguments)))


SPECS: Final = (
    Spec(
        "config",
        -2,
        "Tells settings, and changes them.",
        group="server",
        flags=("admin", "noscript", "loading", "stale", "fast"),
        control=_control,
        # Inside a transaction.
        local=functools.partial(subcommand, _CONFIG),
    ),
)
