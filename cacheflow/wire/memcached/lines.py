"""Parsing of memcached's command lines: words, numbers, keys and flags, and the error replies for what is malformed."""

from __future__ import annotations

from typing import Final

from cacheflow.contract import META, Entry
from cacheflow.errors import InvalidRequest
from cacheflow.measuring import request_times
from cacheflow.measuring.request_times import UNKNOWN
from cacheflow.values import check_key

KEY_BYTES_MAX: Final = 250
# memcached's own limit: a longer line is no command, unless it fetches many keys.
LINE_BYTES_MAX: Final = 2048
# The longest line that fetches many keys: about a thousand of the longest ones.
KEYS_LINE_BYTES_MAX: Final = 256 * 1024
VALUE_BYTES_LAST: Final = 2**31 - 3
UINT32_MAX: Final = 2**32 - 1
UINT64_MAX: Final = 2**64 - 1

# The bits in an entry's ``meta``: the client's 32, and two of our own for the meta commands.
FLAGS: Final = UINT32_MAX
STALE: Final = 1 << 32
WON: Final = 1 << 33

# What the request with which a client shows its token is measured as: it is spelled as a set.
AUTH: Final = "auth"

ERROR: Final = b"ERROR\r\n"
BAD_FORMAT: Final = b"CLIENT_ERROR bad command line format\r\n"
BAD_EXPTIME: Final = b"CLIENT_ERROR invalid exptime argument\r\n"
BAD_DELTA: Final = b"CLIENT_ERROR invalid numeric delta argument\r\n"
BAD_CHUNK: Final = b"CLIENT_ERROR bad data chunk\r\n"
NON_NUMERIC: Final = b"CLIENT_ERROR cannot increment or decrement non-numeric value\r\n"
TOO_LARGE: Final = b"SERVER_ERROR object too large for cache\r\n"
WRONG_KIND: Final = b"SERVER_ERROR wrong kind\r\n"
TOO_LONG: Final = b"CLIENT_ERROR line too long\r\n"


# Where the first key stands in the line of a command, 0 for none; for all others it is the first word behind the name.
KEY_PLACES: Final = {
    **dict.fromkeys(("gat", "gats"), 2),
    **dict.fromkeys(("flush_all", "version", "verbosity", "stats", "consistency", "quit", "mn", AUTH, UNKNOWN), 0),
}
# The beginnings of replies to requests that failed, and of those that the node could not carry out.
_FAILED: Final = (b"SERVER_ERROR ", b"CLIENT_ERROR ", b"ERROR")
_ERRORS: Final = (b"SERVER_ERROR not ready", b"SERVER_ERROR not committed", b"SERVER_ERROR outcome unknown")


def outcome_of(reply: bytes) -> str:
    """Return how a request has ended by ``reply``, the beginning of its answer: ok, refused, or error for the node's own."""
    if not reply.startswith(_FAILED):
        return request_times.OK
    return request_times.ERROR if reply.startswith(_ERRORS) else request_times.REFUSED


class Refused(Exception):
    """Raised for a memcached request that gets an error reply at once. reply: the bytes of that reply."""

    def __init__(self, reply: bytes) -> None:
        self.reply = reply


def words_of(line: bytes) -> list[bytes]:
    """Return the words of the command line ``line`` of a memcached request.

    Only blanks separate words: a tab is part of a word, and makes that word invalid as a key.
    """
    words = line.split(b" ")
    return [word for word in words if word] if b"" in words else words


def key_of(word: bytes) -> str | None:
    """Return the cache's key for the ``word`` of a memcached command; None if memcached or the cache refuses it as a key."""
    if len(word) > KEY_BYTES_MAX or not word:
        return None
    if word.isascii():
        key = word.decode("ascii")
        return key if key.isprintable() and " " not in key else None
    return text_key_of(word)


def text_key_of(data: bytes) -> str | None:
    """Return the key that ``data`` spells in UTF-8; None if it is no valid key. Blanks are allowed, as over HTTP."""
    if len(data) > KEY_BYTES_MAX:
        return None
    try:
        return check_key(data.decode())
    except (InvalidRequest, UnicodeDecodeError):
        return None


def number_of(word: bytes, largest: int = UINT64_MAX) -> int | None:
    """Return the unsigned decimal number that ``word`` spells; None if it spells none or one above ``largest``."""
    if not word.isdigit() or len(word) > 20:
        return None
    number = int(word)
    return number if number <= largest else None


def bits_of(entry: Entry) -> int:
    """Return the flags of an entry as memcached stores them: the client's 32 bits and the marks STALE and WON.

    An entry that was written over HTTP may have a Content-Type in place of flags; for it 0 is returned.
    """
    meta = entry[META]
    return meta if type(meta) is int else 0


def server_error(message: str) -> bytes:
    """Return memcached's SERVER_ERROR reply with ``message`` on one line; line breaks in the message become blanks."""
    return b"SERVER_ERROR " + " ".join(message.split()).encode(errors="replace") + b"\r\n"
