"""The verbs of a cache as generators: the command that a call sends, and the Python value that its result becomes.

1. Pure: no I/O, no clock, no store.
2. Every check of an argument stands here, so what one class refuses all refuse, before anything is sent.
3. A verb is a generator. It yields one command at a time and is sent the command's raw result with the time in ms with
   which the expiry times in it compare; it returns what the call answers. ``faces.py`` makes methods and coroutines of the verbs.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Generator, Iterable, Iterator, Mapping
from typing import Any, Final, TypeAlias, TypeVar

from cacheflow import values
from cacheflow.errors import (
    CacheFlowError,
    IdempotencyKeyReused,
    InvalidRequest,
    KeyNotFound,
    LevelConflict,
    NotAnInteger,
    OutcomeForgotten,
    OutcomeUnknown,
    Overloaded,
    PreconditionFailed,
    ValueTooLarge,
)
from cacheflow.machine.language import commands
from cacheflow.machine.language.commands import INT64_MAX, INT64_MIN, Command, Result
from cacheflow.results import IncrResult, Item, SetResult

# The longest TTL, ten years: longer than any cache should remember, and safely inside the machine's milliseconds.
TTL_S_MAX: Final = 10 * 365 * 86400
CONSISTENCY_LEVELS: Final = ("local", "bounded", "linearizable")
# Keys in a page, and the most that a caller may ask for: with keys of 1 KiB that is an answer of 10 MiB.
KEYS_PAGE: Final = 1000
KEYS_MAX: Final = 10_000
# The limits of a batch that set_many and its like send: it is one log entry, and a larger one makes every other write wait.
BATCH_OPS_MAX: Final = 500
BATCH_BYTES_MAX: Final = 512 * 1024
# Stands for "no default was given", since None is a value.
MISSING: Final = object()

# HTTP takes blanks around a header's value away: a key with some would be another one there.
_IDEMPOTENCY_KEY: Final = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]{0,254}[\x21-\x7e])?")
_CONTENT_TYPE: Final = re.compile(r"[\x20-\x7e]{1,255}")

T = TypeVar("T")
Steps: TypeAlias = Generator[Command, tuple[Result, int], T]


# Checks -------------------------------------------------------------------------------------------------------------


def shown(value: Any) -> str:
    """Return ``value`` as short text for an error message."""
    try:
        text = repr(value)
    except Exception:  # an integer of too many digits, a list nested too deep, a class whose repr raises
        text = type(value).__name__
    return text if len(text) <= 60 else text[:57] + "..."


def positive_seconds(value: Any, name: str = "ttl") -> float:
    """Return ``value`` as a float if it is a number of seconds above 0 and no bool.

    Raises InvalidRequest for any other value, which the message calls ``name``.
    """
    if type(value) not in (float, int) or not 0 < value <= TTL_S_MAX:
        raise InvalidRequest(f"{name} is a number of seconds above 0 and at most {TTL_S_MAX}, not {shown(value)}")
    return float(value)


def ttl_to_ms(ttl_s: float | None) -> int:
    """Return ``ttl_s``, a TTL in seconds, as the milliseconds in a command, at least 1; TTL_NONE for None.

    Raises InvalidRequest for what is no TTL."""
    return commands.TTL_NONE if ttl_s is None else max(1, round(positive_seconds(ttl_s) * 1000))


def int64(value: Any, name: str) -> int:
    """Return ``value`` if it is a 64-bit integer.

    Raises InvalidRequest for any other value, which the message calls ``name``.
    """
    if type(value) is not int or not INT64_MIN <= value <= INT64_MAX:
        raise InvalidRequest(f"{name} is a 64-bit integer, not {shown(value)}")
    return value


def check_version(value: Any, name: str = "version") -> int:
    """Return ``value`` if it can be an entry's version, a positive integer.

    Raises InvalidRequest for any other value, which the message calls ``name``.
    """
    if type(value) is not int or not 1 <= value <= INT64_MAX:
        raise InvalidRequest(f"{name} is a positive integer, not {shown(value)}")
    return value


def check_idempotency_key(key: Any) -> str:
    """Return ``key`` if it can be an Idempotency-Key header: 1 to 256 printable ASCII characters.

    Raises InvalidRequest.
    """
    if not isinstance(key, str) or not _IDEMPOTENCY_KEY.fullmatch(key):
        raise InvalidRequest("an idempotency key is 1 to 256 printable ASCII characters, without blanks around")
    return key


def flag(value: Any, name: str) -> bool:
    """Return ``value`` if it is a bool; else raise InvalidRequest, whose message calls the value ``name``.

    Other values that Python takes for true mean something else over HTTP.
    """
    if type(value) is not bool:
        raise InvalidRequest(f"{name} is true or false, not {shown(value)}")
    return value


def text(value: Any, name: str) -> str:
    """Return ``value`` if it is a str that UTF-8 can encode; else raise InvalidRequest, whose message calls it ``name``."""
    if not isinstance(value, str):
        raise InvalidRequest(f"{name} is a str, not {shown(value)}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InvalidRequest(f"{name} has a lone surrogate") from None
    return value


def check_node_id(node_id: Any) -> str:
    """Return ``node_id`` if it can be the id of a member: a str that is not empty. Raises InvalidRequest."""
    if not text(node_id, "a node id"):
        raise InvalidRequest("the node id is empty")
    return str(node_id)


def each_of(several: Any, what: str) -> Iterator[Any]:
    """Return an iterator over ``several``.

    Raises InvalidRequest if it is no iterable, and for a str, whose letters are not meant.
    what: names the wanted items in the message.
    """
    if not isinstance(several, (str, bytes, bytearray)):
        try:
            return iter(several)
        except TypeError:
            pass
    raise InvalidRequest(f"{what} are needed, such as a list of them, not {shown(several)}")


def check_read(consistency: str, max_staleness: float | None, peek: bool, strict: bool) -> None:
    """Check that the options of a read are known and do not contradict each other. Raises InvalidRequest."""
    if not isinstance(consistency, str) or consistency not in CONSISTENCY_LEVELS:
        raise InvalidRequest(f"consistency is one of {', '.join(CONSISTENCY_LEVELS)}, not {shown(consistency)}")
    if max_staleness is not None:
        positive_seconds(max_staleness, "max_staleness")
    if (consistency == "bounded") != (max_staleness is not None):
        raise InvalidRequest("consistency bounded and max_staleness, in seconds, go together")
    flag(strict, "strict")
    if flag(peek, "peek") and strict:
        raise InvalidRequest("peek (count no use) and strict (count exactly) exclude each other")


def check_page(prefix: str, limit: int, cursor: str | None) -> None:
    """Raise InvalidRequest for a ``prefix``, ``limit`` or ``cursor`` that is not valid in a request for a page of keys."""
    if text(prefix, "prefix"):
        values.check_key(prefix)
    if cursor is not None:
        text(cursor, "cursor")
    if not 1 <= int64(limit, "limit") <= KEYS_MAX:
        raise InvalidRequest(f"limit is a whole number from 1 to {KEYS_MAX}, not {limit}")


def check_digest(index: int | None, full: bool) -> None:
    """Check a request for a digest: ``index`` is an index of the log or None, and None if ``full``, a bool, is true.

    Raises InvalidRequest."""
    flag(full, "full")
    if index is not None:
        if full:
            raise InvalidRequest("full hashes the contents as they are now: it has no index")
        if int64(index, "index") < 0:
            raise InvalidRequest(f"index is no entry of the log: {index}")


def check_size(command: Command, value_bytes_max: int, place: str = "") -> None:
    """Check that no value in ``command``, also inside a batch, exceeds ``value_bytes_max``. Raises ValueTooLarge.

    place: where in the request the value stands, as the beginning of the error's message.
    """
    op = command[0]
    if op == commands.SET:
        if len(command[2]) > value_bytes_max:
            raise ValueTooLarge(f"{place}the value has {len(command[2])} bytes; at most {value_bytes_max} are taken")
    elif op == commands.BATCH:
        for index, inner in enumerate(command[2]):
            check_size(inner, value_bytes_max, f"ops[{index}]: ")
    elif op == commands.IDEMPOTENT:
        check_size(command[3], value_bytes_max)


def known_fields(fields: Mapping[str, Any], known: Collection[str]) -> None:
    """Check that all ``fields`` of a JSON object or operation are ``known``, and that none but ``ttl`` and ``value`` is null.

    Raises InvalidRequest: a misspelt ttl must not become a value without one, nor a null a default that nobody has written.
    """
    unknown = [name for name in fields if name not in known]
    if unknown:
        listed = ", ".join(shown(name) for name in sorted(unknown, key=str)[:5])
        raise InvalidRequest(f"unknown field {listed}; known are {', '.join(sorted(known))}")
    if None in fields.values():
        empty = [name for name, value in fields.items() if value is None and name not in ("ttl", "value")]
        if empty:
            raise InvalidRequest(f"{shown(empty[0])} is null: leave it out, or give it a value")


# Arguments to commands ----------------------------------------------------------------------------------------------


def raise_level_command(level: Any) -> Command:
    """Return the command that raises the cluster's feature level to ``level``. Raises InvalidRequest."""
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


def write(
    key: str,
    value: Any,
    ttl: float | None = None,
    keep_ttl: bool = False,
    content_type: str | None = None,
    when: int = commands.ALWAYS,
    version: int = 0,
) -> Command:
    """Return a SET command for a key that is checked already. Raises InvalidRequest for a wrong value or TTL."""
    kind, data = values.encode(value)
    # A write is the hot path: no call for what is as usual.
    if keep_ttl is not False and flag(keep_ttl, "keep_ttl") and ttl is not None:
        raise InvalidRequest("ttl and keep_ttl exclude each other")
    ttl_ms = commands.TTL_KEEP if keep_ttl else ttl_to_ms(ttl)
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


def check_content_type(content_type: Any, value: Any) -> None:
    if not isinstance(value, (bytes, bytearray, memoryview)):
        raise InvalidRequest("content_type goes with a value of bytes")
    if not isinstance(content_type, str) or not _CONTENT_TYPE.fullmatch(content_type):
        raise InvalidRequest("content_type is 1 to 255 printable ASCII characters")
    if content_type.partition(";")[0].strip().lower() == "application/json":
        raise InvalidRequest("bytes of the type application/json are a JSON value: give the value itself")


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

    Returns ``command`` itself if there is no such key. Raises InvalidRequest.
    """
    if idempotency_key is None:
        return command
    return commands.idempotent(check_idempotency_key(idempotency_key), command)


# Results to Python --------------------------------------------------------------------------------------------------


# The errors whose message is in the result.
_TOLD_BY_THE_MACHINE: Final[dict[int, type[CacheFlowError]]] = {
    commands.NOT_AN_INTEGER: NotAnInteger,
    # Of the verbs counting alone depends on the kind.
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
        return OutcomeUnknown("this took place before, and its answer is not kept any more")
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
    """Return the seconds from ``now_ms`` until ``expires_at_ms``; None if that is 0, which means never."""
    return max(0.0, (expires_at_ms - now_ms) / 1000) if expires_at_ms else None


def item_of(key: str, result: Result, now_ms: int) -> Item | None:
    """Return the item in ``result``, the state machine's answer to a GET; None if the key is absent.

    now_ms: the time in ms from which the item's TTL counts. Raises the error that a failed result stands for.
    """
    if result[0] == commands.MISSING:
        return None
    _, data, kind, meta, version, expires_at_ms = checked(key, result)
    return Item(key, data, kind, meta, version, seconds_left(expires_at_ms, now_ms))


# The verbs ----------------------------------------------------------------------------------------------------------


def set_(
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
    """Write ``key = value`` and return once that is committed and visible on the node that answers.

    ttl: seconds > 0; None: the key stays until it is evicted, or with keep_ttl for the time that it has left.
    only_if_version: compare and set.  content_type: of a value of bytes.
    idempotency_key: a call repeated with the same idempotency key counts once.
    Raises InvalidRequest, ValueTooLarge, PreconditionFailed, NotCommitted (safe to retry), OutcomeUnknown.
    """
    command = set_command(
        key,
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


def add(key: str, value: Any, *, ttl: float | None = None, idempotency_key: str | None = None) -> Steps[bool]:
    """Write ``key = value`` only if the key is absent; return whether it was absent. Raises what ``set`` raises."""
    try:
        yield from set_(key, value, ttl=ttl, only_if_absent=True, idempotency_key=idempotency_key)
    except PreconditionFailed:
        return False
    return True


def compare_and_set(
    key: str, value: Any, *, version: int, ttl: float | None = None, idempotency_key: str | None = None
) -> Steps[SetResult]:
    """Write ``key = value`` only if the key is at ``version``; return the new version and TTL.

    Raises PreconditionFailed with the present version, and what ``set`` raises.
    """
    check_version(version)
    return (yield from set_(key, value, ttl=ttl, only_if_version=version, idempotency_key=idempotency_key))


def delete(key: str, *, only_if_version: int | None = None, idempotency_key: str | None = None) -> Steps[bool]:
    """Remove ``key``; return whether it was present. only_if_version: remove it only at this version.

    An absent key is at no version. Raises PreconditionFailed and what ``set`` raises.
    """
    result, _ = yield once(delete_command(key, only_if_version), idempotency_key)
    if result[0] == commands.MISSING:
        if only_if_version is not None:
            raise error_of(key, [commands.PRECONDITION, 0])
        return False
    checked(key, result)
    return True


def incr(
    key: str,
    delta: int = 1,
    *,
    initial: int | None = None,
    ttl: float | None = None,
    idempotency_key: str | None = None,
) -> Steps[IncrResult]:
    """Add ``delta`` to the decimal 64-bit integer under ``key`` and return the sum; the key's TTL stays.

    An absent key becomes ``initial + delta`` with ``ttl``.
    Raises KeyNotFound (absent, and no initial), NotAnInteger and what ``set`` raises.
    """
    result, now_ms = yield once(incr_command(key, delta, initial, ttl), idempotency_key)
    _, version, number, expires_at_ms = checked(key, result)
    return IncrResult(number, version, seconds_left(expires_at_ms, now_ms))


def decr(
    key: str,
    delta: int = 1,
    *,
    initial: int | None = None,
    ttl: float | None = None,
    idempotency_key: str | None = None,
) -> Steps[IncrResult]:
    """Subtract ``delta`` from the decimal 64-bit integer under ``key``; otherwise like ``incr``."""
    step = -int64(delta, "delta")
    return (yield from incr(key, step, initial=initial, ttl=ttl, idempotency_key=idempotency_key))


def touch(key: str, ttl: float | None, *, idempotency_key: str | None = None) -> Steps[bool]:
    """Give ``key`` a new TTL in seconds, or none (None keeps it until evicted); return whether it was present."""
    result, _ = yield once(touch_command(key, ttl), idempotency_key)
    if result[0] == commands.MISSING:
        return False
    checked(key, result)
    return True


def persist(key: str, *, idempotency_key: str | None = None) -> Steps[bool]:
    """Remove the TTL of ``key``, which then stays until it is evicted; return whether it was present."""
    return (yield from touch(key, None, idempotency_key=idempotency_key))


def get_many(keys: Iterable[str]) -> Steps[dict[str, Any]]:
    """Return {key: value} of those ``keys`` that are present, read through the log; each read counts as a use."""
    found: dict[str, Any] = {}
    wanted = [commands.get(values.check_key(key)) for key in each_of(keys, "keys")]
    while wanted:
        # What is too much for one batch's answer is asked for again: each batch answers at least the first of its keys.
        rest: list[Command] = []
        for command, result in (yield from _in_batches(wanted)):
            if result[0] == commands.OK:
                found[command[1]] = values.decode(result[2], result[1])
            elif result[0] == commands.TOO_LARGE and len(wanted) > 1:
                rest.append(command)
            elif result[0] != commands.MISSING:
                raise error_of(command[1], result)
        wanted = rest
    return found


def set_many(mapping: Mapping[str, Any], *, ttl: float | None = None) -> Steps[None]:
    """Write all keys of ``mapping``, in as few log entries as their size allows. Raises the first failure's error."""
    if not isinstance(mapping, Mapping):
        raise InvalidRequest(f"a mapping of keys and values is needed, not {shown(mapping)}")
    for command, result in (yield from _in_batches(set_command(key, value, ttl=ttl) for key, value in mapping.items())):
        checked(command[1], result)


def update(other: Any = (), /, **more: Any) -> Steps[None]:
    """Write the keys and values of ``other``, a mapping or pairs, and of the keyword arguments, as ``set_many`` does."""
    try:
        pairs = dict(other)
    except (TypeError, ValueError) as error:
        raise InvalidRequest(f"a mapping, or pairs of a key and a value, are needed: {error}") from error
    yield from set_many({**pairs, **more})


def delete_many(keys: Iterable[str]) -> Steps[int]:
    """Remove ``keys``, in as few log entries as their number allows; return how many of them were present."""
    results = yield from _in_batches(delete_command(key) for key in each_of(keys, "keys"))
    return sum(result[0] == commands.OK for _, result in results)


def delete_prefix(prefix: str, *, idempotency_key: str | None = None) -> Steps[int]:
    """Remove every key that starts with ``prefix``, in one command; return how many keys that were."""
    if prefix == "":
        raise InvalidRequest("the prefix is empty: clear() removes every key")
    result, _ = yield once(commands.delete_prefix(values.check_key(prefix)), idempotency_key)
    removed: int = checked("", result)[1]
    return removed


def clear() -> Steps[None]:
    """Remove every key of the cache, in one command."""
    result, _ = yield commands.clear_database(0)
    checked("", result)


def pop(key: str, default: Any = MISSING) -> Steps[Any]:
    """Remove ``key`` and return its value, in one command: of several callers only one gets it.

    Raises KeyNotFound when the key is absent and no ``default`` is given, and what ``set`` raises.
    """
    values.check_key(key)
    result, _ = yield commands.batch([commands.get(key), commands.delete(key)], atomic=True)
    found = checked(key, result)[1][0]
    if found[0] == commands.MISSING and default is not MISSING:
        return default
    _, data, kind, *_ = checked(key, found)
    return values.decode(kind, data)


def setdefault(key: str, default: Any = None) -> Steps[Any]:
    """Return the value under ``key``; if the key is absent, set it to ``default`` in the same command, and return that."""
    result, _ = yield commands.batch([set_command(key, default, only_if_absent=True), commands.get(key)])
    written, found = checked(key, result)[1]
    if written[0] == commands.OK:
        return default
    if written[0] != commands.PRECONDITION:
        raise error_of(key, written)
    return values.decode(found[2], found[1])


def _in_batches(wanted: Iterable[Command]) -> Steps[list[tuple[Command, Result]]]:
    """Replicate the commands ``wanted``, each on one key, in batches of bounded size; return (command, result) of each.

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
