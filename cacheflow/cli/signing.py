"""Signing: a CA's certificate and those of nodes that it signs, made and written. The only importer of ``cryptography``."""

from __future__ import annotations

import datetime
import ipaddress
import os
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from cacheflow.errors import ConfigError

# A certificate counts from a little before its making: clocks of nodes differ.
_BEFORE: Final = datetime.timedelta(hours=1)


def make_ca(folder: Path, name: str, days: int) -> None:
    """Make a CA's ``ca.crt`` and ``ca.key`` in ``folder``. Raises ConfigError if there is a key already."""
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / "ca.key").exists():
        raise ConfigError(
            f"{folder / 'ca.key'} is there already: a new CA would be another one; choose another --ca-dir"
        )
    key = ec.generate_private_key(ec.SECP256R1())
    who = _name(name)
    builder = _begun(who, who, key.public_key(), days)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_usage(key_cert_sign=True, crl_sign=True), critical=True)
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    made = builder.sign(key, hashes.SHA256())
    _write_key(folder / "ca.key", key)
    _replace(folder / "ca.crt", made.public_bytes(serialization.Encoding.PEM), 0o644)


def make_node(ca_dir: Path, hosts: tuple[str, ...], folder: Path, name: str, days: int) -> tuple[Path, Path]:
    """Make a node's certificate and key in ``folder``, signed by the CA in ``ca_dir``; return their paths.

    hosts: the names and addresses of the node in the certificate.  name: the files' names without ending. Raises ConfigError.
    """
    try:
        signer = serialization.load_pem_private_key((ca_dir / "ca.key").read_bytes(), None)
        issuer = x509.load_pem_x509_certificate((ca_dir / "ca.crt").read_bytes())
    except OSError as error:
        raise ConfigError(
            f"{error.filename}: {error.strerror}; cacheflow cert ca --ca-dir {ca_dir} makes a CA"
        ) from None
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{ca_dir}: holds no CA that cacheflow cert ca has made ({error})") from None
    if not isinstance(signer, ec.EllipticCurvePrivateKey):
        raise ConfigError(f"{ca_dir / 'ca.key'}: is no key that cacheflow cert ca has made")
    if not name or "/" in name:
        raise ConfigError(f"--name {name!r}: must be the name of a file, without folders")
    key = ec.generate_private_key(ec.SECP256R1())
    # Without its CA a certificate counts for nothing, and whoever looks at its end only would be surprised.
    last = issuer.not_valid_after_utc
    if last <= datetime.datetime.now(datetime.UTC):
        raise ConfigError(f"{ca_dir / 'ca.crt'}: has ended on {last:%Y-%m-%d}; make a CA in another --ca-dir")
    builder = _begun(_name(hosts[0]), issuer.subject, key.public_key(), days, last)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(_usage(digital_signature=True), critical=True)
    purposes = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
    builder = builder.add_extension(
        x509.SubjectAlternativeName([_general_name(host) for host in hosts]), critical=False
    )
    builder = builder.add_extension(
        x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False
    )
    made = builder.sign(signer, hashes.SHA256())
    folder.mkdir(parents=True, exist_ok=True)
    certificate, secret = folder / f"{name}.crt", folder / f"{name}.key"
    _write_key(secret, key)
    _replace(certificate, made.public_bytes(serialization.Encoding.PEM), 0o644)
    return certificate, secret


def _begun(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    days: int,
    last: datetime.datetime | None = None,
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    ends = now + datetime.timedelta(days=days)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BEFORE)
        .not_valid_after(ends if last is None else min(ends, last))
    )


def _name(text: str) -> x509.Name:
    try:
        return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])
    except ValueError as error:
        raise ConfigError(f"{text!r} cannot stand in a certificate: {error}") from None


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host.strip("[]")))
    except ValueError:
        pass
    try:
        return x509.DNSName(host)
    except ValueError as error:
        raise ConfigError(f"--host {host!r}: is no host ({error})") from None


def _usage(**told: bool) -> x509.KeyUsage:
    names = (
        *("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement"),
        *("key_cert_sign", "crl_sign", "encipher_only", "decipher_only"),
    )
    return x509.KeyUsage(**{name: told.get(name, False) for name in names})


def _write_key(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    text = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    _replace(path, text, 0o600)


def _replace(path: Path, content: bytes, mode: int) -> None:
    """Put ``content`` in the place of the file at ``path``, whole or not at all, with permissions ``mode`` from the start."""
    new = path.with_name(f"{path.name}.new")
    new.unlink(missing_ok=True)
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(descriptor, mode)
        file.write(content)
    new.replace(path)
