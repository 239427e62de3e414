"""A TLS connection without its socket: whatever pieces its bytes come in, the plaintext is the same."""

from __future__ import annotations

import contextlib
import random
import ssl

import pytest
from fakes.certificates import Authority, met
from hypothesis import given
from hypothesis import strategies as st

from cacheflow.net.tls.session import RECORD_BYTES, Session


@pytest.fixture(scope="module")
def server(authority: Authority) -> ssl.SSLContext:
    return authority.certificates().in_force.clients


@pytest.fixture(scope="module")
def client(authority: Authority) -> ssl.SSLContext:
    return authority.trusted()


def test_both_speak_the_newest_tls_and_http_by_name(client: ssl.SSLContext, server: ssl.SSLContext) -> None:
    client.set_alpn_protocols(["h2", "http/1.1"])
    one, _ = met(client, server)
    assert one._tls.version() == "TLSv1.3" and one._tls.selected_alpn_protocol() == "http/1.1"


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1:DeprecationWarning")
def test_older_versions_are_not_spoken(authority: Authority, server: ssl.SSLContext) -> None:
    old = authority.trusted()
    old.set_ciphers("ALL:@SECLEVEL=0")
    old.minimum_version = ssl.TLSVersion.TLSv1_1
    old.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(ssl.SSLError):
        met(old, server)


@pytest.mark.parametrize("size", [0, 1, RECORD_BYTES - 1, RECORD_BYTES, RECORD_BYTES + 1, 1_000_000])
def test_what_is_sent_arrives(client: ssl.SSLContext, server: ssl.SSLContext, size: int) -> None:
    one, other = met(client, server)
    data = random.Random(size).randbytes(size)
    assert other.decrypt(one.encrypt(data)) == data
    assert one.decrypt(other.encrypt(memoryview(data))) == data


def test_nothing_is_left_that_no_socket_would_tell_of(client: ssl.SSLContext, server: ssl.SSLContext) -> None:
    one, other = met(client, server)
    records = b"".join([one.encrypt(b"x" * size) for size in (1, 5_000, RECORD_BYTES, 3)])
    plain = other.decrypt(records)
    assert len(plain) == 1 + 5_000 + RECORD_BYTES + 3
    assert not other._tls.pending() and not other._incoming.pending


@given(st.lists(st.integers(1, 4000), min_size=1, max_size=40), st.integers(0, 2**32))
def test_pieces_of_records_are_put_together(authority: Authority, sizes: list[int], seed: int) -> None:
    chance = random.Random(seed)
    one, other = met(authority.trusted(), authority.certificates().in_force.clients)
    data = [chance.randbytes(size) for size in sizes]
    wire, plain = b"".join(map(one.encrypt, data)), b""
    while wire:
        cut = chance.randint(1, len(wire))
        plain += other.decrypt(wire[:cut])
        wire = wire[cut:]
    assert plain == b"".join(data) and not other.ended


def test_what_comes_with_the_last_leg_of_the_handshake_is_kept(client: ssl.SSLContext, server: ssl.SSLContext) -> None:
    one, other = Session(client, server_side=False, host="localhost"), Session(server, server_side=True)
    one.shake(b"")
    other.shake(one.output())
    assert one.shake(other.output())
    assert other.shake(one.output() + one.encrypt(b"GET ") + one.encrypt(b"/"))
    assert other.early == b"GET /"


def test_a_farewell_ends_the_plaintext_and_is_heard_behind_it(client: ssl.SSLContext, server: ssl.SSLContext) -> None:
    one, other = met(client, server)
    assert other.decrypt(one.encrypt(b"last") + one.farewell()) == b"last"
    assert other.ended
    # This side may still answer.
    assert one.decrypt(other.encrypt(b"answer")) == b"answer"


def test_every_changed_byte_is_noticed(client: ssl.SSLContext, server: ssl.SSLContext) -> None:
    for at in range(30):
        one, other = met(client, server)
        wire = bytearray(one.encrypt(b"x"))
        if at >= len(wire):
            return
        wire[at] ^= 1
        try:
            plain = other.decrypt(bytes(wire) + one.encrypt(b"y" * 400))
        except ssl.SSLError:
            continue
        # A longer length of the record: its end is still awaited.
        assert plain == b"", at


@pytest.mark.parametrize("newest", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_noise_behind_the_handshake_is_an_error_and_never_plaintext(
    authority: Authority, server: ssl.SSLContext, newest: ssl.TLSVersion
) -> None:
    chance = random.Random(7)
    client = authority.trusted()
    client.maximum_version = newest
    for _ in range(300):
        _, other = met(client, server)
        wire = chance.randbytes(chance.randint(1, 200))
        begin = chance.choice([b"", b"\x17\x03\x03", b"\x16\x03\x03", b"\x15\x03\x03"])
        with contextlib.suppress(ssl.SSLError):
            assert other.decrypt(begin + wire) == b""
