"""Trust: which certificates of others are believed, which versions of TLS are spoken, and how failures are told to people."""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterable

from cacheflow.errors import ConfigError, InvalidRequest


def trusting(ca: str | os.PathLike[str] | None, setting: str = "ca") -> ssl.SSLContext:
    """Return a TLS context for HTTPS calls that trusts the CA in a file, or without a file what the system trusts.

    Raises ConfigError; its text begins with ``setting``, the name of the option that names the file.
    """
    context = modern(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
    if ca is None:
        context.load_default_certs()
    else:
        trust(context, ca, setting)
    return context


def check_is_of_use(ca: str | os.PathLike[str] | None, urls: Iterable[str]) -> None:
    """Raise InvalidRequest if a CA is given, but none of the nodes' addresses ``urls`` begins with https://.

    Some may begin with http://: clients have addresses of both kinds while a cluster changes over to TLS.
    """
    if ca is not None and not any(url.lower().startswith("https://") for url in urls):
        raise InvalidRequest("ca is of no use without TLS: give an address with https:// (cacheflows://), or no ca")


def modern(context: ssl.SSLContext) -> ssl.SSLContext:
    """Make the TLS ``context`` refuse versions older than 1.2, renegotiation and compression; return ``context``."""
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    return context


def trust(context: ssl.SSLContext, ca: str | os.PathLike[str], setting: str) -> None:
    """Make the TLS ``context`` trust certificates of the CA in a file.

    Raises ConfigError; its text begins with ``setting``, the name of the option that names the file.
    """
    try:
        context.load_verify_locations(ca)
    except ssl.SSLError as error:
        raise ConfigError(f"{setting} = {os.fspath(ca)!r}: is no certificate in PEM ({told(error)})") from None
    except OSError as error:
        raise ConfigError(f"{setting} = {os.fspath(ca)!r}: cannot be read ({error.strerror})") from None


def told(error: Exception) -> str:
    """Return why TLS failed with ``error``, in OpenSSL's words for people, without its file names and numbers."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return str(error.verify_message).rstrip(".")
    reason = getattr(error, "reason", None)
    if isinstance(reason, str):
        return reason.replace("_", " ").lower()
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
