"""GETs that arrived from many connections in the same round of the loop, answered together with one look at memory."""

from __future__ import annotations

from typing import Final

from cacheflow.contract import DATA, KIND, Entry
from cacheflow.contract import WireStore as Store
from cacheflow.errors import NotReady
from cacheflow.measuring.request_times import OK, REFUSED, RequestTimes
from cacheflow.values import VALUE_MAX
from cacheflow.wire.arrivals import Arrival, others
from cacheflow.wire.connection import REPLY_BYTES_MAX
from cacheflow.wire.resp.replies import bulk
from cacheflow.wire.resp.rows import GET, keys_of_gets
from cacheflow.wire.resp.typed import WRONG_TYPE_REPLY

# The most bytes of GETs, over all clients, that are answered as one row; more are answered client by client.
MANY_BYTES_MAX: Final = 256 * 1024
# The head of a reply by the length of its value: three times as fast as formatting it.
_HEADS: Final = [b"$%d\r\n" % length for length in range(1024)]


def answer_gets(store: Store, times: RequestTimes, arrived: list[Arrival]) -> list[Arrival]:
    """Answer those RESP clients in ``arrived`` whose input is only GETs and who have no unanswered request.

    arrived: (connection, input, transport) of each client that has sent something. Returns those that were not answered here.
    times: counts the GETs, each as answered when all were.
    """
    came_s = times.clock()
    asking = [arrival for arrival in arrived if arrival[0].at_rest and arrival[1].startswith(GET)]
    row = b"".join([data for _, data, _ in asking])
    # No key has the beginning of a request in it, for it is no key then. So each client has sent as many requests as
    # beginnings of requests, when its input begins with one and all input joined is a row of GETs.
    keys = keys_of_gets(row) if len(row) <= MANY_BYTES_MAX else None
    if keys is None:
        return arrived[:]
    try:
        entries = store.lookup_all(keys, REPLY_BYTES_MAX)
    except NotReady:
        return arrived[:]
    if entries is None:
        return arrived[:]
    answers, refused = bulks_of(entries)
    if len(keys) == len(asking):
        for (connection, _, transport), answer in zip(asking, answers, strict=True):
            connection.requests += 1
            transport.write(answer or connection.null)
    else:
        at = 0
        for connection, data, transport in asking:
            count = data.count(GET)
            connection.requests += count
            transport.write(b"".join([answer or connection.null for answer in answers[at : at + count]]))
            at += count
    seconds = times.clock() - came_s
    note_gets(times, seconds, len(keys), refused)
    if seconds >= times.slow.from_s:
        times.slow.note(times.front, "get", OK, seconds, None, len(keys))
    return others(arrived, asking)


def note_gets(times: RequestTimes, seconds: float, count: int, refused: int) -> None:
    """Count ``count`` GETs that were answered within ``seconds`` seconds, ``refused`` of them as of no string."""
    times.note("get", OK, seconds, count - refused)
    if refused:
        times.note("get", REFUSED, seconds, refused)


def bulks_of(entries: list[Entry | None]) -> tuple[list[bytes], int]:
    """Return (replies, refused): the reply to a Redis GET for each of the cache's ``entries``, and how many refuse a hash or set.

    The reply for an absent entry is empty bytes.
    """
    join, heads = b"".join, _HEADS
    refused: list[Entry] = []
    try:
        answers = [
            b""
            if entry is None
            else join((heads[len(entry[DATA])], entry[DATA], b"\r\n"))
            if entry[KIND] <= VALUE_MAX
            else _refusal(entry, refused)
            for entry in entries
        ]
    except IndexError:
        refused.clear()
        answers = [
            b"" if entry is None else bulk(entry[DATA]) if entry[KIND] <= VALUE_MAX else _refusal(entry, refused)
            for entry in entries
        ]
    return answers, len(refused)


def _refusal(entry: Entry, refused: list[Entry]) -> bytes:
    refused.append(entry)
    return WRONG_TYPE_REPLY
