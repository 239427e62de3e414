"""What a node makes of its certificate, key and CA, and what it refuses."""

from __future__ import annotations

import logging
import ssl
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from fakes.certificates import Authority, met, put_in_place

from cacheflow.cli import signing
from cacheflow.errors import ConfigError
from cacheflow.net.tls.certificates import WARN_DAYS, Certificates, validity

DAY_S = 24 * 3600


def of(authority: Authority, name: str, days: int = 90) -> tuple[Path, Path]:
    return authority.node(name, days=days)


def test_it_knows_when_a_certificate_ends(authority: Authority) -> None:
    cert, key = of(authority, "known", 40)
    certificates = Certificates(cert, key, authority.crt)
    assert 39.9 < certificates.days_left < 40.1
    assert 39.9 < Certificates(cert, key, None).days_left < 40.1


def test_it_reads_dates_before_and_after_2050(tmp_path: Path) -> None:
    for days in (100, 36_000):
        signing.make_ca(tmp_path / str(days), "far", days)
        cert = tmp_path / str(days) / "ca.crt"
        begins_s, ends_s = validity(ssl.PEM_cert_to_DER_cert(cert.read_text()))
        assert abs(ends_s - time.time() - days * DAY_S) < 3600 and begins_s < time.time()
        assert datetime.fromtimestamp(ends_s, UTC).year >= 2026


def test_bytes_that_are_no_certificate_are_refused_whatever_they_are(authority: Authority) -> None:
    good = ssl.PEM_cert_to_DER_cert(authority.crt.read_text())
    for length in range(len(good)):
        with pytest.raises(ValueError):
            validity(good[:length])
    for at in range(60):
        for bit in range(8):
            broken = bytearray(good)
            broken[at] ^= 1 << bit
            try:
                validity(bytes(broken))
            except ValueError:
                continue


@pytest.mark.parametrize("content", ["", "nonsense", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
def test_a_file_that_is_no_certificate_is_named(authority: Authority, tmp_path: Path, content: str) -> None:
    _, key = of(authority, "any")
    cert = tmp_path / "no.crt"
    cert.write_text(content)
    with pytest.raises(ConfigError, match=r"tls-cert = .*no\.crt.*is no certificate in PEM"):
        Certificates(cert, key, authority.crt)


def test_files_that_are_not_there_are_named(authority: Authority, tmp_path: Path) -> None:
    cert, key = of(authority, "any")
    nothing = tmp_path / "nothing"
    with pytest.raises(ConfigError, match=r"tls-cert = .*No such file"):
        Certificates(nothing, key, authority.crt)
    with pytest.raises(ConfigError, match=r"tls-key = .*No such file"):
        Certificates(cert, nothing, authority.crt)
    with pytest.raises(ConfigError, match=r"tls-ca = .*No such file"):
        Certificates(cert, key, nothing)


def test_the_key_of_another_certificate_is_refused(authority: Authority) -> None:
    cert, _ = of(authority, "one")
    _, key = of(authority, "other")
    with pytest.raises(ConfigError, match=r"tls-key = .*is not the key of the certificate"):
        Certificates(cert, key, authority.crt)


def test_a_key_with_a_passphrase_asks_nobody(authority: Authority, tmp_path: Path) -> None:
    from cryptography.hazmat.primitives import serialization

    cert, key = of(authority, "locked")
    loaded = serialization.load_pem_private_key(key.read_bytes(), None)
    locked = tmp_path / "locked.key"
    locked.write_bytes(
        loaded.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    with pytest.raises(ConfigError, match="passphrase"):
        Certificates(cert, locked, authority.crt)


def test_a_certificate_of_another_ca_is_refused(authority: Authority, other_authority: Authority) -> None:
    with pytest.raises(ConfigError, match="must be signed by the CA"):
        Certificates(*of(authority, "stranger"), other_authority.crt)


def test_one_that_has_ended_or_not_begun_is_refused(authority: Authority) -> None:
    with pytest.raises(ConfigError, match=r"counts from .* to .*, and today is"):
        Certificates(*of(authority, "ended", 0), authority.crt)
    with pytest.raises(ConfigError, match="set the clock"):
        Certificates(*of(authority, "early"), authority.crt, wall_s=lambda: time.time() - 2 * DAY_S)


def test_a_certificate_of_a_ca_is_not_a_member(authority: Authority) -> None:
    with pytest.raises(ConfigError):
        Certificates(authority.crt, authority.folder / "ca.key", authority.crt)


def test_its_end_is_warned_of_once_a_day(authority: Authority, caplog: pytest.LogCaptureFixture) -> None:
    now_s = [time.time()]
    cert, key = of(authority, "soon", WARN_DAYS + 1)
    certificates = Certificates(cert, key, authority.crt, wall_s=lambda: now_s[0])
    assert not caplog.records
    now_s[0] += 2 * DAY_S
    for _ in range(30):
        certificates.look()
        now_s[0] += 3600
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 2
    assert "SIGHUP" in caplog.text and str(cert) in caplog.text
    now_s[0] += WARN_DAYS * DAY_S
    certificates.look()
    assert f"{cert} has ended on" in caplog.records[-1].getMessage()


def test_a_renewed_certificate_is_for_new_connections(authority: Authority) -> None:
    cert, key = of(authority, "renewed", 10)
    certificates = Certificates(cert, key, authority.crt)
    before = certificates.in_force
    one, other = met(authority.trusted(), before.clients)
    of(authority, "renewed", 80)
    certificates.reload()
    assert certificates.days_left > 79 and certificates.in_force is not before
    assert other.decrypt(one.encrypt(b"still")) == b"still"
    met(authority.trusted(), certificates.in_force.clients)


@pytest.mark.parametrize("broken", ["cert", "key", "ca", "ended"])
def test_a_broken_new_file_changes_nothing(authority: Authority, tmp_path: Path, broken: str) -> None:
    files = tmp_path / "n.crt", tmp_path / "n.key"
    put_in_place(of(authority, "good"), files)
    ca = tmp_path / "ca.crt"
    ca.write_bytes(authority.crt.read_bytes())
    certificates = Certificates(*files, ca)
    before = certificates.in_force
    if broken == "ended":
        put_in_place(of(authority, "over", 0), files)
    else:
        {"cert": files[0], "key": files[1], "ca": ca}[broken].write_text("half a fi")
    with pytest.raises(ConfigError):
        certificates.reload()
    assert certificates.in_force is before
    met(authority.trusted(), before.clients)


def test_members_are_told_from_strangers_on_both_sides(authority: Authority, other_authority: Authority) -> None:
    member = authority.certificates().in_force
    stranger = other_authority.certificates().in_force
    assert member.dialing is not None and member.listening is not None
    met(member.dialing, member.listening)
    with pytest.raises(ssl.SSLError):
        met(member.dialing, stranger.clients)
    assert stranger.dialing is not None
    with pytest.raises(ssl.SSLError):
        met(stranger.dialing, member.listening)
    # Who shows no certificate is none.
    with pytest.raises(ssl.SSLError):
        met(authority.trusted(), member.listening)


def test_a_dialer_wants_the_host_that_it_has_dialed(authority: Authority) -> None:
    member = authority.certificates("elsewhere", ["db.example"]).in_force
    assert member.dialing is not None and member.listening is not None
    met(member.dialing, member.listening, "db.example")
    with pytest.raises(ssl.SSLCertVerificationError, match="mismatch"):
        met(member.dialing, member.listening, "127.0.0.1")
