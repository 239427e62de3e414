"""The verbs of a cache as generators: the command that a call sends, and the Python value that its result becomes.

1. Pure: no I/O, no clock, no store.
2. Every argument is checked (``arguments.py``) before anything is sent, so what one class refuses all refuse.
3. A verb is a generator. It yields one command at a time and is sent the command's raw result with the time in ms with
   which the expiry times in it compare; it returns what the call answers. ``faces.py`` makes methods and coroutines of the verbs.
4. A verb begins with the form of its cache (``forms/form.py``), which names every key and makes every value.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping
from typing import Any, Final, TypeAlias, TypeVar

from cacheflow import values
from cacheflow.arguments import (
    check_content_type,
    check_idempotency_key,
    check_read,
    check_version,
    each_of,
    flag,
    int64,
    shown,
    ttl_to_ms,
)
from cacheflow.errors import (
    AnswerNotKept,
    CacheFlowError,
    IdempotencyKeyReused,
    InvalidRequest,
    KeyNotFound,
    LevelConflict,
    NotAnInteger,
    OutcomeForgotten,
    Overloaded,
    PreconditionFailed,
    ValueTooLarge,
)
from cacheflow.forms.form import PLAIN, Form
from cacheflow.machine.language import commands
from cacheflow.machine.language.commands import Command, Result
from cacheflow.machine.state.settings import BY_CHARS_MAX, RULES, Settings
from cacheflow.results import ClusterSettings, IncrResult, Item, SetResult

# The limits of a batch that set_many and its like send: it is one log entry, and a larger one makes every other write wait.
BATCH_OPS_MAX: Final = 500
BATCH_BYTES_MAX: Final = 512 * 1024
# The most operations of one batch, which is one log entry, and the most keys of one read.
# As many as hold no node for longer than about five milliseconds.
OPS_MAX: Final = 1000
# What the log calls each of the cluster's settings, by the name that users know.
SETTINGS: Final = {
    "max_items": "max_items",
    "max_bytes": "max_bytes",
    "eviction": "policy",
    "replicas": "replicas",
    "max_value_bytes": "max_value_bytes",
}
# Stands for "no default was given", since None is a value.
MISSING: Final = object()

T = TypeVar("T")
Steps: TypeAlias = Generator[Command, tuple[Result, int], T]


# Arguments to commands ----------------------------------------------------------------------------------------------


def raise_level_command(level: Any) -> Command:
    """Return a command that raises the cluster's feature level to ``level``. Raises InvalidRequest."""
    if type(level) is not int or not 1 <= level <= commands.INT64_MAX:
        raise InvalidRequest(f"a level is a whole number from 1 on, not {shown(level)}")
    return commands.raise_level(level)


def level_of(level: int, result: Result) -> int:
    """Return the feature level in force, from the result of a command that asked for ``level``. Raises LevelConflict."""
    if result[0] == commands.OK:
        in_force: int = result[1]
        return in_force
    _, in_force, member_id = result
    if level < in_force:
        raise LevelConflict(f"level {in_force} is in force, and no level is ever lowered")
    if not member_id:
        raise LevelConflict("this node's cluster has no members yet")
    raise LevelConflict(
        f"member {member_id} has not told that its CacheFlow knows level {level}: install one there that does and start it, "
        "or remove the member"
    )


def settings_command(changes: Mapping[str, Any], only_if_version: int | None = None, by: str = "") -> Command:
    """Return a command that changes the cluster's settings by ``changes``, {name: value}.

    only_if_version: change nothing unless the settings are at this version.  by: the name of the user who asks, cut to fit.
    Raises InvalidRequest that names the setting.
    """
    if not changes:
        raise InvalidRequest(f"name a setting to change: {', '.join(SETTINGS)}")
    inner: dict[str, Any] = {}
    for name, value in changes.items():
        if name not in SETTINGS:
            raise InvalidRequest(f"no setting is called {shown(name)}; there are {', '.join(SETTINGS)}")
        is_good, words = RULES[SETTINGS[name]]
        if not is_good(value):
            raise InvalidRequest(f'"{name}" is {words}, not {shown(value)}')
        inner[SETTINGS[name]] = value
    version = None if only_if_version is None else check_version(only_if_version, "only_if_version")
    return commands.configure(inner, version, by[:BY_CHARS_MAX])


def write(
    key: str,
    value: Any,
    ttl: float | None = None,
    keep_ttl: bool = False,
    content_type: str | None = None,
    when: int = commands.ALWAYS,
    version: int = 0,
) -> Command:
    """Return a SET command for a key that was found valid before. Raises InvalidRequest for a wrong value or TTL."""
    kind, data = values.encode(value)
    # A write is the hot path: no call for what is as usual.
    if keep_ttl is not False and flag(keep_ttl, "keep_ttl") and ttl is not None:
        raise InvalidRequest("ttl and keep_ttl exclude each other")
    ttl_ms = commands.TTL_KEEP if keep_ttl else commands.TTL_NONE if ttl is None else ttl_to_ms(ttl)
    return commands.set_(key, data, kind, content_type, ttl_ms, when, version)


def set_command(
    key: str,
    value: Any,
    *,
    ttl: float | None = None,
    keep_ttl: bool = False,
    only_if_absent: bool = False,
    only_if_version: int | None = None,
    content_type: str | None = None,
) -> Command:
    """Return the SET command for the arguments of a cache's method ``set``, after checking them. Raises InvalidRequest."""
    values.check_key(key)
    when, version = commands.ALWAYS, 0
    if only_if_absent is not False and flag(only_if_absent, "only_if_absent"):
        if only_if_version is not None:
            raise InvalidRequest("only_if_absent and only_if_version exclude each other")
        when = commands.IF_ABSENT
    elif only_if_version is not None:
        when, version = commands.IF_VERSION, check_version(only_if_version, "only_if_version")
    if content_type is not None:
        check_content_type(content_type, value)
    return write(key, value, ttl, keep_ttl, content_type, when, version)


def delete_command(key: str, only_if_version: int | None = None) -> Command:
    """Return a DELETE command. Raises InvalidRequest for a wrong key or version."""
    version = 0 if only_if_version is None else check_version(only_if_version, "only_if_version")
    return commands.delete(values.check_key(key), version)


def incr_command(key: str, delta: Any = 1, initial: Any = None, ttl: float | None = None) -> Command:
    """Return an INCR command. Raises InvalidRequest for a wrong argument."""
    if initial is not None:
        int64(initial, "initial")
    return commands.incr(values.check_key(key), int64(delta, "delta"), initial, ttl_to_ms(ttl))


def touch_command(key: str, ttl: float | None) -> Command:
    """Return a TOUCH command. Raises InvalidRequest for a wrong key or TTL."""
    return commands.touch(values.check_key(key), ttl_to_ms(ttl))


def once(command: Command, idempotency_key: str | None) -> Command:
    """Return ``command`` wrapped so that it takes place once for ``idempotency_key``, however often it is sent.

    Returns ``command`` itself if ``idempotency_key`` is None. Raises InvalidRequest.
    """
    if idempotency_key is None:
        return command
    return commands.idempotent(check_idempotency_key(idempotency_key), command)


# Results to Python --------------------------------------------------------------------------------------------------


# The errors whose message is in the result.
_TOLD_BY_THE_MACHINE: Final[dict[int, type[CacheFlowError]]] = {
    commands.NOT_AN_INTEGER: NotAnInteger,
    # The only verb that depends on an entry's kind is the one that counts.
    commands.WRONG_KIND: NotAnInteger,
    commands.TOO_LARGE: ValueTooLarge,
    commands.MALFORMED: InvalidRequest,
}


def error_of(key: str, result: Result) -> CacheFlowError:
    """Return the error that ``result``, the state machine's answer to a failed command, stands for.

    key: named in the error's message, "" for no key.
    """
    status = result[0]
    name = repr(key) if key else "the key"
    if status == commands.MISSING:
        return KeyNotFound(f"{name} is absent")
    if status == commands.PRECONDITION:
        version = result[1]
        return PreconditionFailed(f"{name} is at version {version}" if version else f"{name} is absent", version)
    if status == commands.KEY_REUSED:
        return IdempotencyKeyReused("the Idempotency-Key, or the number in its scope, came before with another request")
    if status == commands.FORGOTTEN:
        return OutcomeForgotten("nothing was done now, and whether this took place before is not known any more")
    if status == commands.NOT_KEPT:
        return AnswerNotKept("this took place before, and its answer is not kept any more")
    if status == commands.TOO_MANY:
        return Overloaded("too many removals by prefix are under way; this one was not begun")
    told = _TOLD_BY_THE_MACHINE.get(status)
    return CacheFlowError(f"a result with the unexpected status {status}") if told is None else told(str(result[1]))


def checked(key: str, result: Result) -> Result:
    """Return ``result``, the state machine's answer to a command, if the command has succeeded.

    Raises the error that a failed result stands for, with ``key`` in the message.
    """
    if result[0] != commands.OK:
        raise error_of(key, result)
    return result


def seconds_left(expires_at_ms: int, now_ms: int) -> float | None:
    """Return the seconds from ``now_ms`` until ``expires_at_ms``; None if ``expires_at_ms`` is 0, which means never."""
    return max(0.0, (expires_at_ms - now_ms) / 1000) if expires_at_ms else None


def item_of(key: str, result: Result, now_ms: int) -> Item | None:
    """Return the item in ``result``, the state machine's answer to a GET; None if the key is absent.

    now_ms: the time in ms from which the item's TTL counts. Raises the error that a failed result stands for.
    """
    if result[0] == commands.MISSING:
        return None
    _, data, kind, meta, version, expires_at_ms = checked(key, result)
    return Item(key, data, kind, meta, version, seconds_left(expires_at_ms, now_ms))


def settings_of(result: Result) -> ClusterSettings:
    """Return the settings in ``result``, the state machine's answer to a command that changes them.

    Raises PreconditionFailed, with the settings' version, if they were at another one; and the errors of all writes.
    """
    if result[0] == commands.PRECONDITION:
        raise PreconditionFailed(f"the settings are at version {result[1]}: read them again", result[1])
    return settings_told(Settings(*checked("", result)[1:]))


def settings_told(settings: Settings) -> ClusterSettings:
    """Return ``settings``, the cluster's settings in the state machine, with the names and units that users know."""
    told = {name: getattr(settings, inner) for name, inner in SETTINGS.items()}
    return ClusterSettings(
        **told, version=settings.version, changed_by=settings.changed_by, changed_at=settings.changed_at_ms / 1000
    )


# The verbs ----------------------------------------------------------------------------------------------------------


def set_(
    form: Form,
    key: str,
    value: Any,
    *,
    ttl: float | None = None,
    keep_ttl: bool = False,
    only_if_absent: bool = False,
    only_if_version: int | None = None,
    content_type: str | None = None,
    idempotency_key: str | None = None,
) -> Steps[SetResult]:
    """Write ``key = value`` and return once the write is committed and visible on the node that answers.

    ttl: seconds > 0; None: the key stays until it is evicted, or with keep_ttl for the time that it has left.
    only_if_version: write only if the key is at this version.  content_type: of a value of bytes.
    idempotency_key: a call repeated with the same idempotency key counts once.
    Raises InvalidRequest, ValueTooLarge, PreconditionFailed, NotCommitted (safe to retry), OutcomeUnknown.
    """
    whole = key
    # A write is the hot path: no call for what is as usual.
    if form is not PLAIN:
        whole, (value, content_type) = form.key(key), form.value(value, content_type)
    command = set_command(
        whole,
        value,
        ttl=ttl,
        keep_ttl=keep_ttl,
        only_if_absent=only_if_absent,
        only_if_version=only_if_version,
        content_type=content_type,
    )
    result, now_ms = yield once(command, idempotency_key)
    _, version, created, expires_at_ms = checked(key, result)
    return SetResult(version, created, seconds_left(expires_at_ms, now_ms))


def add(
    form: Form, key: str, value: Any, *, ttl: float | None = None, idempotency_key: str | None = None
) -> Steps[bool]:
    """Write ``key = value`` only if the key is absent; return whether it was absent. Raises the errors of ``set``."""
    try:
        yield from set_(form, key, value, ttl=ttl, only_if_absent=True, idempotency_key=idempotency_key)
    except PreconditionFailed:
        return False
    return True


def compare_and_set(
    form: Form, key: str, value: Any, *, version: int, ttl: float | None = None, idempotency_key: str | None = None
) -> Steps[SetResult]:
    """Write ``key = value`` only if the key is at ``version``; return the new version and TTL.

    Raises PreconditionFailed with the present version, and the errors of the method ``set``.
    """
    check_version(version)
    return (yield from set_(form, key, value, ttl=ttl, only_if_version=version, idempotency_key=idempotency_key))


def delete(
    form: Form, key: str, *, only_if_version: int | None = None, idempotency_key: str | None = None
) -> Steps[bool]:
    """Remove ``key``; return whether it was present. only_if_version: remove the key only if this is its version.

    An absent key has no version. Raises PreconditionFailed and the errors of the method ``set``.
    """
    result, _ = yield once(delete_command(form.key(key), only_if_version), idempotency_key)
    if result[0] == commands.MISSING:
        return False
    checked(key, result)
    return True


def incr(
    form: Form,
    key: str,
    delta: int = 1,
    *,
    initial: int | None = None,
    ttl: float | None = None,
    idempotency_key: str | None = None,
) -> Steps[IncrResult]:
    """Add ``delta`` to the decimal 64-bit integer under ``key`` and return the sum; the key's TTL stays.

    An absent key becomes ``initial + delta`` with ``ttl``.
    Raises KeyNotFound (absent, and no initial), NotAnInteger and the errors of the method ``set``.
    """
    result, now_ms = yield once(incr_command(form.key(key), delta, initial, ttl), idempotency_key)
    _, version, number, expires_at_ms = checked(key, result)
    return IncrResult(number, version, seconds_left(expires_at_ms, now_ms))


def decr(
    form: Form,
    key: str,
    delta: int = 1,
    *,
    initial: int | None = None,
    ttl: float | None = None,
    idempotency_key: str | None = None,
) -> Steps[IncrResult]:
    """Subtract ``delta`` from the decimal 64-bit integer under ``key`` and return the result; otherwise as ``incr`` does."""
    step = -int64(delta, "delta")
    return (yield from incr(form, key, step, initial=initial, ttl=ttl, idempotency_key=idempotency_key))


def touch(form: Form, key: str, ttl: float | None, *, idempotency_key: str | None = None) -> Steps[bool]:
    """Give ``key`` a new TTL in seconds, or none (None keeps it until evicted); return whether it was present."""
    result, _ = yield once(touch_command(form.key(key), ttl), idempotency_key)
    if result[0] == commands.MISSING:
        return False
    checked(key, result)
    return True


def persist(form: Form, key: str, *, idempotency_key: str | None = None) -> Steps[bool]:
    """Remove the TTL of ``key``, which then stays until it is evicted; return whether it was present."""
    return (yield from touch(form, key, None, idempotency_key=idempotency_key))


def keys_to_read(
    form: Form, keys: Iterable[str], consistency: str, max_staleness: float | None, peek: bool
) -> list[list[str]]:
    """Return the ``keys`` to be read, with the cache's key prefix, in lists of at most OPS_MAX, each for one read.

    All arguments of the read are checked before anything is read. Raises InvalidRequest.
    """
    check_read(consistency, max_staleness, peek, False)
    wanted = [values.check_key(form.key(key)) for key in each_of(keys, "keys")]
    return [wanted[start : start + OPS_MAX] for start in range(0, len(wanted), OPS_MAX)]


def put_found(found: dict[str, Any], form: Form, keys: list[str], entries: Iterable[tuple[Any, ...] | None]) -> None:
    """Add {key: value} of those ``keys`` that are present to ``found``.

    entries: for each of the keys its cache entry, (data, kind, meta, ...), or None if it is absent.
    """
    for key, entry in zip(keys, entries, strict=True):
        if entry is not None:
            data, kind, meta = entry[:3]
            found[form.own(key)] = form.made(data, kind, meta)


def set_many(form: Form, mapping: Mapping[str, Any], *, ttl: float | None = None) -> Steps[None]:
    """Write all keys of ``mapping``, in as few log entries as their size allows. Raises the first failure's error."""
    if not isinstance(mapping, Mapping):
        raise InvalidRequest(f"a mapping of keys and values is needed, not {shown(mapping)}")
    for command, result in (yield from _in_batches(_put(form, key, value, ttl=ttl) for key, value in mapping.items())):
        checked(form.own(command[1]), result)


def update(form: Form, other: Any = (), /, **more: Any) -> Steps[None]:
    """Write the keys and values of ``other``, a mapping or pairs, and of the keyword arguments, as ``set_many`` does."""
    try:
        pairs = dict(other)
    except (TypeError, ValueError) as error:
        raise InvalidRequest(f"a mapping, or pairs of a key and a value, are needed: {error}") from error
    yield from set_many(form, {**pairs, **more})


def delete_many(form: Form, keys: Iterable[str]) -> Steps[int]:
    """Remove ``keys``, in as few log entries as their number allows; return how many of them were present."""
    results = yield from _in_batches(delete_command(form.key(key)) for key in each_of(keys, "keys"))
    return sum(result[0] == commands.OK for _, result in results)


def delete_prefix(form: Form, prefix: str, *, idempotency_key: str | None = None) -> Steps[int]:
    """Remove every key that starts with ``prefix``, in one command; return how many keys that were."""
    if prefix == "":
        raise InvalidRequest("the prefix is empty: clear() removes every key")
    result, _ = yield once(commands.delete_prefix(form.under(values.check_key(prefix))), idempotency_key)
    removed: int = checked("", result)[1]
    return removed


def clear(form: Form) -> Steps[None]:
    """Remove every key of the cache, in one command; with a prefix those that have it."""
    result, _ = yield commands.delete_prefix(form.prefix) if form.prefix else commands.clear_database(0)
    checked("", result)


def pop(form: Form, key: str, default: Any = MISSING) -> Steps[Any]:
    """Remove ``key`` and return its value, in one command: of several callers only one gets it.

    Raises KeyNotFound when the key is absent and no ``default`` is given, and the errors of the method ``set``.
    """
    stored = values.check_key(form.key(key))
    result, _ = yield commands.batch([commands.get(stored), commands.delete(stored)], atomic=True)
    found = checked(key, result)[1][0]
    if found[0] == commands.MISSING and default is not MISSING:
        return default
    return form.made(*checked(key, found)[1:4])


def setdefault(form: Form, key: str, default: Any = None) -> Steps[Any]:
    """Return the value under ``key``; if the key is absent, set it to ``default`` in the same command, and return that."""
    write_ = _put(form, key, default, only_if_absent=True)
    result, _ = yield commands.batch([write_, commands.get(write_[1])])
    written, found = checked(key, result)[1]
    if written[0] == commands.OK:
        return default
    if written[0] != commands.PRECONDITION:
        raise error_of(key, written)
    return form.made(*found[1:4])


def _put(form: Form, key: str, value: Any, **options: Any) -> Command:
    value, content_type = form.value(value, None)
    return set_command(form.key(key), value, content_type=content_type, **options)


def _in_batches(wanted: Iterable[Command]) -> Steps[list[tuple[Command, Result]]]:
    """Yield batches of bounded size of the commands ``wanted``, to be replicated; return a list of (command, result).

    All commands are checked before the first is sent.
    """
    done: list[tuple[Command, Result]] = []
    for block in list(_blocks(wanted)):
        result, _ = yield commands.batch(block)
        done += zip(block, checked("", result)[1], strict=True)
    return done


def _blocks(wanted: Iterable[Command]) -> Iterator[list[Command]]:
    block: list[Command] = []
    size = 0
    for command in wanted:
        added = commands.size_of(command)
        if block and (len(block) >= BATCH_OPS_MAX or size + added > BATCH_BYTES_MAX):
            yield block
            block, size = [], 0
        block.append(command)
        size += added
    if block:
        yield block
