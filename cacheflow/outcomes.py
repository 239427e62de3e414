"""What a raw result of the machine means outside: the error it stands for, and a TTL on its way in."""

from __future__ import annotations

from typing import Final

from cacheflow.errors import (
    CacheFlowError,
    IdempotencyKeyReused,
    InvalidRequest,
    KeyNotFound,
    NotAnInteger,
    PreconditionFailed,
    ValueTooLarge,
)
from cacheflow.machine import commands
from cacheflow.machine.commands import Result

# Longer than any cache should remember, and safely inside the machine's milliseconds.
TTL_S_MAX: Final = 10 * 365 * 86400


def ttl_to_ms(ttl_s: float | None) -> int:
    """Seconds as the log's milliseconds: at least one, because none means for ever. Raises InvalidRequest."""
    if ttl_s is None:
        return commands.TTL_NONE
    if isinstance(ttl_s, bool) or not isinstance(ttl_s, (int, float)) or not 0 < ttl_s <= TTL_S_MAX:
        raise InvalidRequest(f"ttl is a number of seconds above 0 and at most {TTL_S_MAX}, not {ttl_s!r}")
    return max(1, round(ttl_s * 1000))


def error_of(key: str, result: Result) -> CacheFlowError:
    """The error that a failed raw result stands for. key: for the message, "" when there is none."""
    status = result[0]
    name = repr(key) if key else "the key"
    detail = str(result[1]) if len(result) > 1 else ""
    if status == commands.MISSING:
        return KeyNotFound(f"{name} is absent")
    if status == commands.PRECONDITION:
        version = result[1]
        return PreconditionFailed(f"{name} is at version {version}" if version else f"{name} is absent", version)
    if status == commands.NOT_AN_INTEGER:
        return NotAnInteger(detail)
    if status == commands.TOO_LARGE:
        return ValueTooLarge(detail)
    if status == commands.KEY_REUSED:
        return IdempotencyKeyReused("the Idempotency-Key came before with another request")
    if status == commands.MALFORMED:
        return InvalidRequest(detail)
    return CacheFlowError(f"a result with the unexpected status {status}")
