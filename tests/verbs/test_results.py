"""What the machine answers, as errors and TTLs."""

from __future__ import annotations

import pytest

from cacheflow.arguments import TTL_S_MAX, ttl_to_ms
from cacheflow.errors import (
    InvalidRequest,
    PreconditionFailed,
)
from cacheflow.machine.language import commands
from cacheflow.verbs import error_of


@pytest.mark.parametrize(
    ("status", "http_status"),
    [
        (commands.MISSING, 404),
        (commands.PRECONDITION, 412),
        (commands.NOT_AN_INTEGER, 409),
        (commands.TOO_LARGE, 413),
        (commands.MALFORMED, 400),
        (commands.KEY_REUSED, 422),
        (commands.OUT_OF_ORDER, 500),
    ],
)
def test_every_status_of_the_machine_has_its_error(status: int, http_status: int) -> None:
    assert error_of("k", [status, 7]).http_status == http_status


def test_a_failed_precondition_tells_the_present_version() -> None:
    error = error_of("k", [commands.PRECONDITION, 7])
    assert isinstance(error, PreconditionFailed)
    assert error.version == 7
    assert "absent" in str(error_of("k", [commands.PRECONDITION, 0]))


def test_a_ttl_is_at_least_a_millisecond_and_at_most_ten_years() -> None:
    assert ttl_to_ms(None) == commands.TTL_NONE
    assert ttl_to_ms(0.0001) == 1
    assert ttl_to_ms(1.5) == 1500
    assert ttl_to_ms(TTL_S_MAX) < commands.TTL_MS_MAX
    for wrong in (0, -1, True, float("nan"), float("inf"), TTL_S_MAX + 1, "5"):
        with pytest.raises(InvalidRequest):
            ttl_to_ms(wrong)  # type: ignore[arg-type]
