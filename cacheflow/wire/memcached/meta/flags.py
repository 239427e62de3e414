"""The flags of a meta command: ``<command> <key> [<size>] <flag>[<token>]...``.

Three flags are refused, because a true answer is not to be had: E (versions are the cluster's own: nobody can choose
them), h and l (uses are counted in batches and not by time). P and L are for proxies and ignored.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Final

from cacheflow.wire.memcached.expiry import exptime_of, ttl_ms_of
from cacheflow.wire.memcached.lines import (
    BAD_FORMAT,
    KEY_BYTES_MAX,
    UINT32_MAX,
    Refused,
    key_of,
    number_of,
    text_key_of,
)

# The most words of one request, as memcached counts them.
WORDS_MAX: Final = 20
OPAQUE_BYTES_MAX: Final = 32

BAD_TOKEN: Final = b"CLIENT_ERROR bad token in command line format\r\n"
BAD_KEY: Final = b"CLIENT_ERROR error decoding key\r\n"
# Keys of the cache are texts, so that every front can name them.
NO_TEXT: Final = b"CLIENT_ERROR the decoded key is not UTF-8 without control characters\r\n"
DUPLICATE: Final = b"CLIENT_ERROR duplicate flag\r\n"
INVALID: Final = b"CLIENT_ERROR invalid flag\r\n"
OPAQUE_TOO_LONG: Final = b"CLIENT_ERROR opaque token too long\r\n"
TOO_MANY: Final = b"CLIENT_ERROR options flags are too long\r\n"
BAD_INITIAL: Final = b"CLIENT_ERROR invalid numeric initial value\r\n"
BAD_DELTA: Final = b"CLIENT_ERROR invalid numeric delta value\r\n"

_PLAIN: Final = frozenset(b"kstcfvuqxIPL")
_REFUSED: Final = frozenset(b"Ehl")
_NUMBERS: Final = {ord("C"): BAD_TOKEN, ord("J"): BAD_INITIAL, ord("D"): BAD_DELTA, ord("F"): BAD_FORMAT}

_b, _O, _M, _N, _R, _T, _F = b"bOMNRTF"


class MetaRequest:
    """A parsed meta request of memcached's protocol: its key, its flags and the flags' tokens.

    tokens: the flags in their order, each with its token.  mode: the token of flag M.
    numbers: what the flags C, J, D and F say as numbers, and N, R and T as TTLs in milliseconds, by flag.
    shown_key: what the reply says for flag k.  quiet: True if flag q stands in the request.
    """

    __slots__ = ("flags", "key", "mode", "numbers", "quiet", "shown_key", "tokens")

    def __init__(self, key: str, word: bytes, tokens: list[bytes]) -> None:
        self.key = key
        self.tokens = tokens
        self.flags: set[int] = set()
        self.numbers: dict[int, int] = {}
        self.mode = b""
        self.shown_key = b" k" + word
        self.quiet = False

    def has(self, flag: bytes) -> bool:
        """True if the flag ``flag`` stands in this meta request."""
        return flag[0] in self.flags

    def number(self, flag: bytes) -> int | None:
        """Return the number that follows ``flag`` in this meta request; None when it has no such flag or number.

        For N, R and T the number is a TTL in milliseconds.
        """
        return self.numbers.get(flag[0])

    def line(self, status: bytes, shown: Mapping[bytes, bytes]) -> bytes:
        """Return the line of the reply to this meta request: ``status``, then the text for each flag, in the request's order.

        shown: the texts by flag; those for the opaque token (O) and the key (k) come from the request.
        """
        told = status
        for token in self.tokens:
            flag = token[:1]
            if flag == b"O":
                told += b" " + token
            else:
                told += self.shown_key if flag == b"k" else shown.get(flag, b"")
        return told + b"\r\n"

    def expiry_before(self, flag: bytes, expires_at_ms: int, now_ms: int) -> int:
        """Return the expiry, in ms, that ``flag`` of this meta request shows or tests: the new one if flag T stands before it.

        Otherwise return ``expires_at_ms``, the entry's present expiry. 0 stands for no expiry.
        """
        for token in self.tokens:
            if token[:1] == flag:
                break
            if token[0] == _T:
                return now_ms + self.numbers[_T] if self.numbers[_T] else 0
        return expires_at_ms

    def echo(self) -> bytes:
        """Return what each reply repeats of this meta request: the opaque token (flag O) and the key (flag k), if given."""
        told = b""
        for token in self.tokens:
            if token[0] == _O:
                told += b" " + token
            elif token == b"k":
                told += self.shown_key
        return told


def parse(words: list[bytes], first: int, wall_s: float) -> MetaRequest:
    """Return the meta request of memcached's protocol that ``words`` spell; its flags begin at position ``first``.

    Raises Refused when it is malformed.
    wall_s: this node's wall clock, in seconds since 1970; absolute expiry times become TTLs by it.
    """
    if len(words) < first or len(words[1]) > KEY_BYTES_MAX:
        raise Refused(BAD_FORMAT)
    if len(words) > WORDS_MAX:
        raise Refused(TOO_MANY)
    tokens = words[first:]
    request = MetaRequest("", words[1], tokens)
    error = b""
    for token in tokens:
        flag = token[0]
        if flag in request.flags:
            raise Refused(DUPLICATE)
        request.flags.add(flag)
        if flag in _PLAIN or flag == _b:
            continue
        if flag in _REFUSED:
            raise Refused(b"CLIENT_ERROR flag %c is not served\r\n" % flag)
        if flag == _O:
            error = OPAQUE_TOO_LONG if len(token) > OPAQUE_BYTES_MAX else error
        elif flag == _M:
            request.mode = token[1:2] or b" "
        elif flag in (_N, _R, _T):
            exptime = exptime_of(token[1:])
            if exptime is None:
                error = BAD_TOKEN
            else:
                request.numbers[flag] = ttl_ms_of(exptime, wall_s)
        elif flag in _NUMBERS:
            number = number_of(token[1:], UINT32_MAX) if flag == _F else number_of(token[1:])
            if number is None:
                error = _NUMBERS[flag]
            else:
                request.numbers[flag] = number
        else:
            raise Refused(INVALID)
    if error:
        raise Refused(error)
    request.quiet = request.has(b"q")
    if request.has(b"b"):
        request.key = _decoded(words[1])
        request.shown_key += b" b"
        return request
    key = key_of(words[1])
    if key is None:
        raise Refused(BAD_FORMAT)
    request.key = key
    return request


def _decoded(word: bytes) -> str:
    """Return the key that ``word``, of a memcached command, encodes in base64.

    Raises Refused when the word is no base64 or encodes no valid key.
    """
    try:
        decoded = base64.b64decode(word, validate=True)
    except binascii.Error:
        raise Refused(BAD_KEY) from None
    key = text_key_of(decoded)
    if key is None:
        raise Refused(NO_TEXT if decoded else BAD_KEY)
    return key
