"""Certificates: this node's certificate, key and CA, read from files, checked, and read again when they are renewed.

1. What is in force is replaced as a whole, and only by what was checked: a broken new file changes nothing.
2. A connection keeps what it began with; a new one gets what is in force when it begins.
3. With a CA the check is a handshake of this node with itself, as two members would shake hands: it finds a wrong CA, a
   certificate that has ended or may not serve one of both sides, and a key of another certificate.
"""

from __future__ import annotations

import logging
import math
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from cacheflow.errors import ConfigError
from cacheflow.net.tls.session import Session
from cacheflow.net.tls.trust import modern, told, trust, trusting

logger = logging.getLogger(__name__)

# A certificate that ends sooner is warned of: time for one that forgets things for weeks.
WARN_DAYS: Final = 21
# Seconds between two looks at the end of the certificate.
LOOK_EVERY_S: Final = 3600.0
_WARN_EVERY_S: Final = 24 * 3600.0
_DAY_S: Final = 24 * 3600.0
# Legs of a handshake in memory: three are enough.
_LEGS_MAX: Final = 8


@dataclass(frozen=True, slots=True)
class InForce:
    """The TLS contexts made by one reading of the files with this node's certificate, key and CA.

    clients: the context for clients' ports.  listening: that for connections which other nodes make to this one.
    dialing: that for connections which this node makes to others; it and ``listening`` are None without a CA.
    calling: the context for HTTP calls to other nodes.  ends_s: when the certificate ends, in seconds since 1970.
    """

    clients: ssl.SSLContext
    listening: ssl.SSLContext | None
    dialing: ssl.SSLContext | None
    calling: ssl.SSLContext
    ends_s: float


class Certificates:
    """This node's certificate, key and CA, read from files. Raises ConfigError.

    Any thread may use it, but only one thread at a time may call ``reload``.
    """

    def __init__(self, cert: Path, key: Path, ca: Path | None, wall_s: Callable[[], float] = time.time) -> None:
        self._cert, self._key, self._ca = cert, key, ca
        self._wall_s = wall_s
        self._warned_s = -math.inf
        self.in_force = self._read()
        self.look()

    def reload(self) -> None:
        """Read the files with certificate, key and CA again, for connections that begin from now on.

        Raises ConfigError, and changes nothing then.
        """
        self.in_force = self._read()
        self._warned_s = -math.inf
        logger.info("the certificate of %s is in force, for %.0f days", self._cert, self.days_left)
        self.look()

    @property
    def days_left(self) -> float:
        """The number of days until this node's TLS certificate ends; negative once it has ended."""
        return (self.in_force.ends_s - self._wall_s()) / _DAY_S

    def look(self) -> None:
        """Log a warning, once a day, if this node's certificate ends soon."""
        now_s = self._wall_s()
        if self.days_left < WARN_DAYS and not 0 <= now_s - self._warned_s < _WARN_EVERY_S:
            self._warned_s = now_s
            logger.warning(
                "the certificate %s %s: put a new one in its place and send this process SIGHUP",
                self._cert,
                f"ends on {_date(self.in_force.ends_s)}, in {self.days_left:.1f} days"
                if self.days_left > 0
                else f"has ended on {_date(self.in_force.ends_s)}, and nobody who connects now takes it",
            )

    def _read(self) -> InForce:
        try:
            first = ssl.PEM_cert_to_DER_cert(_first_certificate(self._cert.read_text("latin-1")))
            begins_s, ends_s = validity(first)
        except OSError as error:
            raise ConfigError(f"tls-cert = {str(self._cert)!r}: cannot be read ({error.strerror})") from None
        except ValueError as error:
            raise ConfigError(f"tls-cert = {str(self._cert)!r}: is no certificate in PEM ({error})") from None
        now_s = self._wall_s()
        if not begins_s <= now_s < ends_s:
            raise ConfigError(
                f"tls-cert = {str(self._cert)!r}: counts from {_date(begins_s)} to {_date(ends_s)}, and today is "
                f"{_date(now_s)}: give a valid one (or set the clock)"
            )
        clients = self._context(ssl.PROTOCOL_TLS_SERVER)
        clients.set_alpn_protocols(["http/1.1"])
        if self._ca is None:
            return InForce(clients, None, None, trusting(None), ends_s)
        listening, dialing = self._context(ssl.PROTOCOL_TLS_SERVER), self._context(ssl.PROTOCOL_TLS_CLIENT)
        for context in (listening, dialing):
            trust(context, self._ca, "tls-ca")
            context.verify_mode = ssl.CERT_REQUIRED
        dialing.check_hostname = False
        try:
            _meet(Session(dialing, server_side=False), Session(listening, server_side=True))
        except ssl.SSLError as error:
            raise ConfigError(
                f"tls-cert = {str(self._cert)!r}: no member would take it ({told(error)}): it must be signed by the CA in "
                f"{str(self._ca)!r}, and be for servers and clients"
            ) from None
        dialing.check_hostname = True
        return InForce(clients, listening, dialing, trusting(self._ca, "tls-ca"), ends_s)

    def _context(self, protocol: int) -> ssl.SSLContext:
        context = modern(ssl.SSLContext(protocol))
        try:
            context.load_cert_chain(self._cert, self._key, password=_no_password)
        except ssl.SSLError as error:
            raise ConfigError(
                f"tls-key = {str(self._key)!r}: is not the key of the certificate in {str(self._cert)!r} ({told(error)})"
            ) from None
        except OSError as error:
            raise ConfigError(f"tls-key = {str(self._key)!r}: cannot be read ({error.strerror})") from None
        return context


def validity(certificate: bytes) -> tuple[float, float]:
    """Return the times (begin, end) between which a certificate in DER is valid, in seconds since 1970. Raises ValueError.

    The standard library tells these times only of a certificate that the other side of a connection has shown.
    """
    fields = _elements(_elements(_elements(certificate)[0][1])[0][1])
    # The version is optional; then come serial number, algorithm, issuer and validity (RFC 5280, 4.1).
    at = 4 if fields[0][0] == 0xA0 else 3
    if len(fields) <= at:
        raise ValueError("it is cut off")
    begins, ends = _elements(fields[at][1])
    return _moment(*begins), _moment(*ends)


def _elements(data: bytes) -> list[tuple[int, bytes]]:
    """Return the (tag, content) pairs that ``data`` in DER consists of, in their order. Raises ValueError."""
    found = []
    while data:
        length, begin = data[1] if len(data) > 1 else 0xFF, 2
        if length & 0x80:
            begin += length & 0x7F
            length = int.from_bytes(data[2:begin], "big")
        if begin > len(data) or length > len(data) - begin:
            raise ValueError("it is cut off")
        found.append((data[0], data[begin : begin + length]))
        data = data[begin + length :]
    if not found:
        raise ValueError("it is empty")
    return found


def _moment(tag: int, content: bytes) -> float:
    text = content.decode("ascii")
    if tag == 0x17:  # UTCTime has two digits of a year
        text = ("19" if text >= "5" else "20") + text
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC).timestamp()


def _first_certificate(text: str) -> str:
    begin, end = text.find(ssl.PEM_HEADER), text.find(ssl.PEM_FOOTER)
    if not 0 <= begin < end:
        raise ValueError("it has no BEGIN CERTIFICATE")
    return text[begin : end + len(ssl.PEM_FOOTER)]


def _meet(dialer: Session, listener: Session) -> None:
    """Let two TLS sessions in this process shake hands, to see that a certificate works. Raises ssl.SSLError."""
    said = b""
    for _ in range(_LEGS_MAX):
        dialed = dialer.shake(said)
        listened = listener.shake(dialer.output())
        said = listener.output()
        if dialed and listened:
            return


def _date(moment_s: float) -> str:
    return f"{datetime.fromtimestamp(moment_s, UTC):%Y-%m-%d %H:%M} UTC"


def _no_password() -> str:
    raise ssl.SSLError("it has a passphrase, and nobody is here to type it")
