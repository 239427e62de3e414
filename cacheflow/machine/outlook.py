"""The outlook: a digest of what decides a machine's next steps and no effect has told yet.

The rolling digest covers what entries did. Two machines may agree on all of that and still go apart later: by the order of
use, by what a session or a client's key has been answered, by the clock. A node compares the outlook of its memory with that of
each snapshot that is built beside it from the disk.

It is taken on the loop, so it looks at the ends of long rows alone: what comes next, and what came last. Only outlooks of one
build are compared: a later one may look at more. So no file is judged by the outlook in its header.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, astuple
from hashlib import blake2b
from itertools import islice
from typing import Any, Final

import msgpack

from cacheflow.machine.image import COUNTERS, DIGEST_BYTES, State
from cacheflow.machine.language.commands import Result
from cacheflow.machine.state.entries import EXPIRES_AT_MS, VERSION

# Rows looked at from each end of a long list: a thousand take less than 2 ms, and victims move up to the end with time.
ROWS_MAX: Final = 1000
# Results looked at in each scope of a client's: it has a few under way.
ROWS_A_SCOPE: Final = 4
# Parts of a result looked at from each end: that of a batch has 10,000.
PARTS_MAX: Final = 4


def outlook(machine: State) -> bytes:
    """Return a 16-byte digest of those parts of the state of ``machine``, a state machine, that decide its next steps.

    The parts that changed last are in it, too. State machines in equal states have equal digests.
    """
    whole = blake2b(digest_size=DIGEST_BYTES)
    for row in _rows(machine):
        whole.update(msgpack.packb(row))
    return whole.digest()


def _rows(machine: State) -> Iterator[Any]:
    contents = machine.contents
    yield machine.level, machine.applied_index, machine.cluster_id, machine.sessions.latest_id
    yield asdict(machine.settings)
    yield contents.now_ms, contents.revision, [getattr(contents, name) for name in COUNTERS]
    yield len(contents.raw), contents.bytes_used, machine.restoring and machine.restoring.row()
    for member in machine.members.values():
        yield astuple(member)
    yield list(islice(reversed(machine.removed), ROWS_MAX)), list(machine.replaced)
    for session_id, session in machine.sessions:
        yield (
            session_id,
            session.member_id,
            session.start,
            session.nonce,
            session.level,
            session.last,
            len(session.kept),
        )
        yield [_without_values(result) for result in islice(reversed(session.kept), ROWS_MAX)]
    kept = machine.idempotency.kept
    yield len(kept), machine.idempotency.reaches_index, machine.idempotency.bytes_kept
    for keys in (islice(kept, ROWS_MAX), islice(reversed(kept), ROWS_MAX)):
        yield [(client_key, *kept[client_key][:3], len(kept[client_key][3])) for client_key in keys]
    scopes = machine.scopes.by_id
    yield machine.scopes.latest_id, len(scopes), machine.scopes.bytes_kept
    for ids in (islice(scopes, ROWS_MAX), islice(reversed(scopes), ROWS_MAX)):
        for scope_id in ids:
            scope = scopes[scope_id]
            yield scope_id, scope.nonce, scope.floor, scope.used_ms, len(scope.kept), scope.kept_bytes
            yield [(number, scope.kept[number][0]) for number in islice(reversed(scope.kept), ROWS_A_SCOPE)]
    condemned = contents.condemned
    yield len(condemned.present), condemned.passing, contents.items.next_scanned(), contents.census.dead.keys
    yield [condemnation.row() for condemnation in condemned.present[:ROWS_MAX]]
    yield list(islice(reversed(condemned.counts.items()), ROWS_MAX))
    raw = contents.raw
    for key, uses in islice(contents.items.ordered(), ROWS_MAX):
        yield key, uses, raw[key][VERSION], raw[key][EXPIRES_AT_MS]


def _without_values(result: Result) -> list[Any]:
    """Return those parts of a command's ``result`` that go into a digest: the first and last elements, without values.

    A value, which may be megabytes, is replaced by its length.
    """
    return [_brief(part) for part in result]


def _brief(part: Any) -> Any:
    if type(part) is list:
        ends = (*part[:PARTS_MAX], *part[-PARTS_MAX:])
        return len(part), [
            [x for x in end[:3] if type(x) is int] if type(end) is list else end
            for end in ends
            if type(end) is not bytes
        ]
    return len(part) if type(part) is bytes else part
