"""The commands OBJECT and MEMORY: they tell how the cache keeps a value, as far as it has what Redis tells."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Final

from cacheflow.contract import DATA, KIND, META, Entry, entry_bytes
from cacheflow.values import VALUE_MAX
from cacheflow.wire.resp.arguments import SYNTAX, integer_of, key_of
from cacheflow.wire.resp.commands.clients import chosen
from cacheflow.wire.resp.replies import ONE, CommandError, bulk, integer
from cacheflow.wire.resp.session import Arguments, Find, Read, RespSession, Spec
from cacheflow.wire.streams import Reply

# The longest text that Redis keeps in one piece with its header, and the largest count of uses that it tells.
EMBEDDED_BYTES_MAX: Final = 44
USES_MAX: Final = 255
_SWITCHED: Final = (
    "Please note that when switching between policies at runtime LRU and LFU data will take some time to adjust."
)
NOT_LFU: Final = f"ERR An LFU maxmemory policy is not selected, access frequency not tracked. {_SWITCHED}"
NOT_LRU: Final = f"ERR An LFU maxmemory policy is selected, idle time not tracked. {_SWITCHED}"
NO_IDLE_TIMES: Final = "ERR idle times are not known: reads are counted in batches, without times"

# A function that tells something of the entry under a key of the cache.
Tell = Callable[[RespSession, str, Entry], bytes]


def _about(tell: Tell) -> Read:
    """Return a function that answers a Redis command, such as OBJECT ENCODING, about the key in the command's third word.

    tell: a function that makes the reply from that key and its entry. If the key is absent, the reply is null.
    """

    def answer(session: RespSession, find: Find, arguments: Arguments) -> bytes:
        key = key_of(arguments[2])
        entry = find(key, count=False)
        return session.null if entry is None else tell(session, key, entry)

    return answer


def _encoding(session: RespSession, key: str, entry: Entry) -> bytes:
    data = entry[DATA]
    if entry[KIND] > VALUE_MAX:
        # Redis' word for all fields in one piece of memory.
        return bulk(b"listpack")
    try:
        integer_of(data)
    except CommandError:
        return bulk(b"embstr" if len(data) <= EMBEDDED_BYTES_MAX else b"raw")
    return bulk(b"int")


def _frequency(session: RespSession, key: str, entry: Entry) -> bytes:
    uses = session.service.store.uses_of(key)
    if uses is None:
        raise CommandError(NOT_LFU)
    return integer(min(uses, USES_MAX))


def _idle_time(session: RespSession, key: str, entry: Entry) -> bytes:
    raise CommandError(NO_IDLE_TIMES if session.service.store.uses_of(key) is None else NOT_LRU)


def _usage(session: RespSession, find: Find, arguments: Arguments) -> Reply:
    options = arguments[3:]
    if options and (len(options) != 2 or options[0].upper() != b"SAMPLES" or integer_of(options[1]) < 0):
        raise CommandError(SYNTAX)
    return _about(lambda session, key, entry: integer(entry_bytes(key, entry[DATA], entry[META])))(
        session, find, arguments
    )


_OBJECT: Final[dict[bytes, tuple[int, Read]]] = {
    b"ENCODING": (3, _about(_encoding)),
    b"FREQ": (3, _about(_frequency)),
    b"IDLETIME": (3, _about(_idle_time)),
    b"REFCOUNT": (3, _about(lambda session, key, entry: ONE)),
}
_MEMORY: Final[dict[bytes, tuple[int, Read]]] = {b"USAGE": (-3, _usage)}


def _answer(
    subcommands: dict[bytes, tuple[int, Read]], session: RespSession, find: Find, arguments: Arguments
) -> Reply:
    return chosen(subcommands, session, arguments)(session, find, arguments)


_read = functools.partial(Spec, flags=("readonly",), keys=(2, 2, 1))

SPECS: Final = (
    _read("object", -2, "Tells how a value is kept.", group="generic", read=functools.partial(_answer, _OBJECT)),
    _read("memory", -2, "Tells what a value takes.", group="server", read=functools.partial(_answer, _MEMORY)),
)
