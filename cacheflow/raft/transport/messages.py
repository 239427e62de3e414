"""Messages: the content of frames after the handshake, msgpack ``[group, message]``, read with a limit on everything.

1. A message is a map of plain data with a text under "type"; its receiver checks the fields that it knows and leaves out
   the others.
2. Group 0 is the one Raft group that there is. A CONTROL message is between transports and is never delivered; a BESIDE
   message is between nodes and about no log. Groups and types that a build does not know are dropped and counted: a newer
   one may send them, and no connection ends by it.
3. Every limit is kept before the memory is spent: lengths by msgpack itself, the number of items of a large frame
   by looking over it first (ten empty lists are ten bytes there and 640 here), the depth before anybody recurses.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from typing import Any, Final, NoReturn

import msgpack

from cacheflow.raft.message_types import OVERTAKING
from cacheflow.raft.transport.frames import FrameError
from cacheflow.raft.transport.network import Message

GROUP: Final = 0
CONTROL: Final = -1
BESIDE: Final = -2

# The longest text: texts are names and addresses, while keys and values travel as bytes.
STRING_BYTES_MAX: Final = 64 * 1024
# The longest list: the entries of one message.
ARRAY_ITEMS_MAX: Final = 64 * 1024
MAP_ITEMS_MAX: Final = 4096
# The deepest nesting: an entry is a list of atoms in a list in a map; its commands stay packed.
DEPTH_MAX: Final = 16
# Frames up to this size are read without counting their items first: whatever is in one takes at most about 64 MiB.
UNCOUNTED_BYTES_MAX: Final = 1024 * 1024 + 4096
# Items in a larger frame: ARRAY_ITEMS_MAX entries of four atoms, and the rest of the message.
ITEMS_MAX: Final = 5 * ARRAY_ITEMS_MAX + MAP_ITEMS_MAX

_CONTAINERS: Final = frozenset((list, dict))
# For the bytes 0xc0 to 0xdf: (bytes of the length field, bytes of the item itself, items for each counted one).
_TOKENS: Final = (
    (0, 0, 0), (0, 0, 0), (0, 0, 0), (0, 0, 0), (1, 0, 0), (2, 0, 0), (4, 0, 0), (1, 1, 0),
    (2, 1, 0), (4, 1, 0), (0, 4, 0), (0, 8, 0), (0, 1, 0), (0, 2, 0), (0, 4, 0), (0, 8, 0),
    (0, 1, 0), (0, 2, 0), (0, 4, 0), (0, 8, 0), (0, 2, 0), (0, 3, 0), (0, 5, 0), (0, 9, 0),
    (0, 17, 0), (1, 0, 0), (2, 0, 0), (4, 0, 0), (2, 0, 1), (4, 0, 1), (2, 0, 2), (4, 0, 2),
)  # fmt: skip

# One packer for all messages: it keeps its buffer, which ``packb`` would allocate for each.
_pack = msgpack.Packer(autoreset=True).pack


def encode(message: Mapping[str, Any], group: int = GROUP) -> bytes:
    """Return ``message`` encoded as the body of a frame.

    Raises TypeError, ValueError or OverflowError for what msgpack cannot encode.
    """
    body: bytes = _pack((group, message))
    return body


def may_overtake(message: Mapping[str, Any]) -> bool:
    """True if ``message`` may overtake messages that were sent earlier: it is small, and means the same when it is early."""
    return message["type"] in OVERTAKING or message.get("entries") == []


def decode(body: memoryview) -> tuple[int, Message]:
    """Return (group, message) that a frame's body holds: the message, and the number of the Raft group that it is for.

    A message that is for no Raft group has a special number. Raises FrameError if the body is malformed or exceeds a limit.
    """
    size = len(body)
    if size > UNCOUNTED_BYTES_MAX:
        _check_items(body)
    try:
        group, message = msgpack.unpackb(
            body,
            max_str_len=STRING_BYTES_MAX,
            max_bin_len=size,
            max_array_len=min(size, ARRAY_ITEMS_MAX),
            max_map_len=min(size, MAP_ITEMS_MAX),
            max_ext_len=0,
            ext_hook=_refuse_extension,
            strict_map_key=True,
        )
    except Exception as error:  # msgpack raises a dozen kinds; all mean the same here
        raise FrameError(f"not a message: {error or type(error).__name__}") from None
    if type(group) is not int or type(message) is not dict or type(message.get("type")) is not str:
        raise FrameError("not a message: a number and a map with a type are needed")
    _check_depth(message)
    return group, message


def _refuse_extension(code: int, data: bytes) -> NoReturn:
    raise ValueError(f"extension type {code}")


def _check_depth(message: Message) -> None:
    """Raise FrameError if ``message`` is nested deeper than DEPTH_MAX levels.

    The check goes level by level, without recursion, and each level is searched in C, because a message may hold thousands
    of log entries.
    """
    level: list[Any] = list(message.values())
    for _ in range(DEPTH_MAX):
        if _CONTAINERS.isdisjoint(map(type, level)):
            return
        inner = [item for item in level if type(item) in _CONTAINERS]
        # Keys are texts or bytes (strict_map_key): only values can go deeper.
        level = list(chain.from_iterable(item.values() if type(item) is dict else item for item in inner))
    raise FrameError(f"not a message: nested deeper than {DEPTH_MAX} levels")


def _check_items(body: memoryview) -> None:
    """Raise FrameError if a frame's body claims more than ITEMS_MAX items; the items are counted without being unpacked.

    Counting takes a few steps for a large value, and 0.2 us an item.
    """
    position, waiting, claimed = 0, 1, 0
    try:
        while waiting:
            waiting -= 1
            token = body[position]
            position += 1
            if token < 0x80 or token >= 0xE0:
                continue
            if token < 0xA0:
                more = (token & 15) * (2 if token < 0x90 else 1)
            elif token < 0xC0:
                position += token & 31
                continue
            else:
                width, fixed, factor = _TOKENS[token - 0xC0]
                length = int.from_bytes(body[position : position + width], "big")
                position += width + fixed
                if not factor:
                    position += length
                    continue
                more = length * factor
            waiting += more
            claimed += more
            if claimed > ITEMS_MAX:
                raise FrameError(f"not a message: more than {ITEMS_MAX} items")
    except IndexError:
        raise FrameError("not a message: it ends too early") from None
