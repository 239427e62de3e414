"""Fast parsing of input that is a row of one command, as every client spells it: GETs, or SETs without options.

A pipeline is nearly always such a row, and reading it request by request costs twice as much. To recognise one, the bytes
are taken for a row, its keys and values are read, and the row is written again from these: it must come out the same.
"""

from __future__ import annotations

from typing import Final

GET: Final = b"*2\r\n$3\r\nGET\r\n$"
SET: Final = b"*3\r\n$3\r\nSET\r\n$"
# The longest key of a row; requests with longer keys go the general way.
KEY_BYTES_MAX: Final = 255

_SIZES: Final = {length: b"$%d" % length for length in range(1, KEY_BYTES_MAX + 1)}
_LENGTHS: Final = {b"%d" % length: length for length in range(1, KEY_BYTES_MAX + 1)}
_KEY_LENGTHS: Final = range(1, KEY_BYTES_MAX + 1)
_GET_HEADS: Final = {length: f"{GET.decode()}{length}" for length in _KEY_LENGTHS}
# The bytes before the key of a GET that came alone, by the length of the whole input: there is one for each length.
LONE_GETS: Final = {len(head) + 4 + length: f"{head}\r\n".encode() for length, head in _GET_HEADS.items()}
_SET_HEADS: Final = {length: b"%b%d" % (SET, length) for length in _KEY_LENGTHS}


def keys_of_gets(data: bytes) -> list[str] | None:
    """Return the keys if ``data``, input of a RESP client, consists of complete GETs of valid ASCII keys, else None."""
    if not data.isascii():
        return None
    text = data.decode()
    end = text.find("\r\n", len(GET))
    length = _LENGTHS.get(data[len(GET) : end])
    if length is None or not data.startswith(GET):
        return None
    # Most often all keys of a row are of one length, and the same text stands between any two of them.
    head = text[: end + 2]
    keys = text[end + 2 : -2].split("\r\n" + head)
    if set(map(len, keys)) != {length} or not data.endswith(b"\r\n"):
        keys = text.split("\r\n")[4::5]
        again = [""] * (2 * len(keys) + 1)
        again[1::2] = keys
        try:
            again[:-1:2] = map(_GET_HEADS.__getitem__, map(len, keys))
        except KeyError:
            return None
        if "\r\n".join(again) != text:
            return None
    return keys if "".join(keys).isprintable() else None


def pairs_of_sets(data: bytes) -> tuple[list[str], list[bytes]] | None:
    """Return (keys, values) if ``data``, input of a RESP client, consists of complete SETs of valid keys, else None."""
    parts = data.split(b"\r\n")
    raws, values = parts[4::7], parts[6::7]
    if not raws or len(raws) != len(values):
        return None
    again = [b""] * (4 * len(raws) + 1)
    again[1::4] = raws
    again[2::4] = [b"$%d" % len(value) for value in values]
    again[3::4] = values
    try:
        again[:-1:4] = map(_SET_HEADS.__getitem__, map(len, raws))
        keys = b"\r\n".join(raws).decode()
    except (KeyError, UnicodeDecodeError):
        return None
    if b"\r\n".join(again) != data or not keys.replace("\r\n", "").isprintable():
        return None
    return keys.split("\r\n"), values


def lone_set(data: bytes) -> tuple[str, bytes] | None:
    """Return (key, value) if ``data``, input of a RESP client, is one complete SET of a valid key, else None.

    This is cheaper than to read any number of SETs, as ``pairs_of_sets`` does.
    """
    # Whatever is in the value stays in one piece.
    parts = data.split(b"\r\n", 6)
    if len(parts) < 7 or not data.startswith(SET):
        return None
    _, _, _, key_size, raw, value_size, rest = parts
    value = rest[:-2]
    if key_size != _SIZES.get(len(raw)) or value_size != b"$%d" % len(value) or not rest.endswith(b"\r\n"):
        return None
    try:
        key = raw.decode()
    except UnicodeDecodeError:
        return None
    return (key, value) if key.isprintable() else None


def is_part_of_set(data: bytes) -> bool:
    """True if ``data``, input of a RESP client that begins like a SET, seems to be an incomplete SET.

    The answer is a guess, on which only speed may depend.
    """
    parts = data.split(b"\r\n", 6)
    if len(parts) < 7 or not data.startswith(SET):
        return True
    size = parts[5][1:]
    return size.isdigit() and len(size) < 10 and len(parts[6]) < int(size) + 2
