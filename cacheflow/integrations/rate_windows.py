"""Windows of rate limits: what each kind keeps under its key, and which hit fits into it.

A window is one value in the cluster, changed only by compare-and-set: of hits that come together, each is decided on what all
others before it have left. Time is the cluster's alone. A window's key lives for two periods from its *zero*, so that the
TTL that a read shows tells how long ago that was; no clock of a client counts, however wrong it is.

These are pure rules. What asks the cluster is ``limits.py``. Times are milliseconds since the window's zero.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

# Groups of hits that a moving window tells apart at most; of a higher limit, hits of a thousandth of the period are one group.
GROUPS_MAX: Final = 1000


class Found(NamedTuple):
    """A rate limit's window as it was read from the cluster.

    state: the value under the window's key, None if the key is absent.  now_ms: the milliseconds since the window began.
    """

    state: Any
    now_ms: float


class Hit(NamedTuple):
    """A rate limit's window after more hits were added. state: the value to be written under the window's key.

    lives_ms: that key's new TTL in ms, for a window that begins now; None: the TTL stays, as the window goes on.
    """

    state: Any
    lives_ms: float | None


class Counts(NamedTuple):
    """The hits in two successive windows of a rate limit, and the milliseconds until each of them ends."""

    previous: int
    previous_ms: float
    current: int
    current_ms: float


# A rule: what is found, the limit, the period in ms, the hits asked for; returns the window with them, None if they do not fit.
Rule = Callable[[Found, int, int, int], Hit | None]


def entries(found: Found, period_ms: int) -> list[list[int]]:
    """Return those groups of hits, [time in ms, hits], of the moving window ``found`` that still count, the oldest first."""
    return [group for group in found.state or () if group[0] > found.now_ms - period_ms]


def moving(found: Found, limit: int, period_ms: int, amount: int) -> Hit | None:
    """Return the moving window ``found`` with ``amount`` more hits; None if there would be over ``limit`` hits.

    Only hits of the last ``period_ms`` milliseconds count.
    """
    groups = entries(found, period_ms)
    if sum(hits for _, hits in groups) + amount > limit:
        return None
    if found.state is None or found.now_ms >= period_ms:
        # Its key would not live as long as this hit counts: now is its zero.
        return Hit([*([int(at - found.now_ms), hits] for at, hits in groups), [0, amount]], 2 * period_ms)
    # Upwards, so that a hit never counts for less than its period.
    step_ms = 1 if limit <= GROUPS_MAX else max(period_ms // GROUPS_MAX, 1)
    at = math.ceil(found.now_ms / step_ms) * step_ms
    if groups and groups[-1][0] >= at:
        groups[-1] = [groups[-1][0], groups[-1][1] + amount]
        return Hit(groups, None)
    return Hit([*groups, [at, amount]], None)


def counts(found: Found, period_ms: int) -> Counts:
    """Return the hits in the previous and the present window of the sliding window counter ``found``."""
    previous, current = found.state or (0, 0)
    since_ms = found.now_ms
    if since_ms >= period_ms:
        # The current one has ended; the next one began there.
        previous, current, since_ms = current, 0, since_ms - period_ms
    if since_ms >= period_ms or found.state is None:
        return Counts(0, 0, 0, 0)
    left_ms = period_ms - since_ms
    return Counts(previous, left_ms if previous else 0, current, left_ms + period_ms)


def sliding(found: Found, limit: int, period_ms: int, amount: int) -> Hit | None:
    """Return the sliding window counter ``found`` with ``amount`` more hits; None if there would be over ``limit``.

    All hits of the present window count, and of the previous one the share that lies within the last ``period_ms``.
    """
    now = counts(found, period_ms)
    if int(now.previous * now.previous_ms / period_ms) + now.current + amount > limit:
        return None
    if not now.current_ms:
        return Hit([0, amount], 2 * period_ms)
    shifted = found.now_ms >= period_ms
    return Hit([now.previous, now.current + amount], now.current_ms if shifted else None)


def together(
    rule: Rule, found: Found, limit: int, period_ms: int, amounts: Sequence[int]
) -> tuple[list[bool], Hit | None]:
    """Return for each of ``amounts``, the hits of several callers, whether they fit; and the window with those that do.

    rule: a function that adds hits to a window.  found: the window before these hits.
    The window returned is None if no hits fit.
    """
    fits: list[bool] = []
    last: Hit | None = None
    for amount in amounts:
        hit = rule(found, limit, period_ms, amount)
        fits.append(hit is not None)
        if hit is not None:
            if hit.lives_ms is None:
                last = Hit(hit.state, last.lives_ms if last is not None else None)
                found = Found(hit.state, found.now_ms)
            else:
                last, found = hit, Found(hit.state, 2 * period_ms - hit.lives_ms)
    return fits, last
