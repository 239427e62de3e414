"""Answers to plain gets, nearly all that a cache is asked: many together, of one pipeline or of many clients."""

from __future__ import annotations

from cacheflow.contract import DATA, KIND, META
from cacheflow.contract import WireStore as Store
from cacheflow.errors import NotReady
from cacheflow.measuring.request_times import OK, RequestTimes
from cacheflow.values import VALUE_MAX
from cacheflow.wire.arrivals import Arrival, others
from cacheflow.wire.connection import REPLY_BYTES_MAX
from cacheflow.wire.memcached.fetch import END, value_line
from cacheflow.wire.memcached.lines import KEY_BYTES_MAX, Refused


def value_lines(store: Store, words: list[bytes]) -> list[bytes] | None:
    """Return what memcached's reply to get shows for each of several keys: VALUE line and data; no bytes for an absent key.

    words: the keys as clients wrote them. Returns None if a slower way has to answer: a key is not plain ASCII, this node may
    not be read, the values exceed one reply's limit, or one is a hash or a set.
    """
    joined = b" ".join(words)
    if not joined.isascii():
        return None
    text = joined.decode()
    keys = text.split(" ")
    if len(keys) != len(words) or "" in keys or not text.isprintable() or max(map(len, keys)) > KEY_BYTES_MAX:
        return None
    try:
        entries = store.lookup_all(keys, REPLY_BYTES_MAX)
    except NotReady:
        return None
    if entries is None:
        return None
    try:
        return [
            b""
            if entry is None
            else b"VALUE %b 0 %d\r\n%b\r\n" % (word, len(entry[DATA]), entry[DATA])
            if entry[META] is None and entry[KIND] <= VALUE_MAX
            else value_line(word, entry)
            for word, entry in zip(words, entries, strict=True)
        ]
    except Refused:
        return None


def answer_gets(store: Store, times: RequestTimes, arrived: list[Arrival]) -> list[Arrival]:
    """Answer those memcached clients that sent exactly one get of one key and have no unanswered request.

    Returns the arrivals (connection, input, transport) of all other clients.
    times: counts the gets, each as answered when all were.
    """
    came_s = times.clock()
    asking = [
        arrival
        for arrival in arrived
        if arrival[0].at_rest and arrival[1].startswith(b"get ") and arrival[1].endswith(b"\r\n")
    ]
    # No key has an end of line in it. So each client has sent one get when there are as many gets as clients.
    words = b"".join([data for _, data, _ in asking])[4:-2].split(b"\r\nget ")
    if len(words) != len(asking):
        return arrived[:]
    found = value_lines(store, words)
    if found is None:
        return arrived[:]
    for (connection, _, transport), shown in zip(asking, found, strict=True):
        connection.requests += 1
        transport.write(shown + END)
    seconds = times.clock() - came_s
    times.note("get", OK, seconds, len(asking))
    if seconds >= times.slow.from_s:
        times.slow.note(times.front, "get", OK, seconds, None, len(asking))
    return others(arrived, asking)
