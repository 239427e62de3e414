"""A TLS 1.3 client that forges records by itself, which Python's ssl cannot send: key updates (RFC 8446, 4.6.3)."""

from __future__ import annotations

import ssl
import struct
from pathlib import Path

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

# The cipher that both sides agree on first: AES-256-GCM with SHA-384.
_HASH = hashes.SHA384()
_APPLICATION_DATA = 23
_HANDSHAKE = 22


class Forger:
    """The sending half of a client's session, from its first record behind the handshake on.

    keylog: the file in which the client's ``ssl`` has noted its secrets; nothing may have been sent since.
    """

    def __init__(self, keylog: Path) -> None:
        lines = [line.split() for line in keylog.read_text().splitlines() if line.startswith("CLIENT_TRAFFIC_SECRET_0")]
        self._use(bytes.fromhex(lines[-1][2]))

    def data(self, plain: bytes) -> bytes:
        """A record with application data."""
        return self._record(plain, _APPLICATION_DATA)

    def key_update(self, answer: bool = True) -> bytes:
        """A record that changes this side's keys. answer: whether the other side has to do the same."""
        record = self._record(bytes((24, 0, 0, 1, answer)), _HANDSHAKE)
        self._use(_expanded(self._secret, b"traffic upd", 48))
        return record

    def _use(self, secret: bytes) -> None:
        self._secret = secret
        self._cipher = AESGCM(_expanded(secret, b"key", 32))
        self._iv = int.from_bytes(_expanded(secret, b"iv", 12), "big")
        self._number = 0

    def _record(self, plain: bytes, kind: int) -> bytes:
        inner = plain + bytes((kind,))
        head = struct.pack(">BHH", _APPLICATION_DATA, 0x0303, len(inner) + 16)
        nonce = (self._iv ^ self._number).to_bytes(12, "big")
        self._number += 1
        return head + self._cipher.encrypt(nonce, inner, head)


def noting(context: ssl.SSLContext, keylog: Path) -> ssl.SSLContext:
    """The context of a client, which notes its secrets and speaks nothing but TLS 1.3."""
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.keylog_filename = str(keylog)
    return context


def _expanded(secret: bytes, label: bytes, length: int) -> bytes:
    label = b"tls13 " + label
    info = struct.pack(">H", length) + bytes((len(label),)) + label + b"\0"
    return HKDFExpand(_HASH, length, info).derive(secret)
