"""A TLS connection without its socket: whatever pieces its bytes come in, the plaintext is the same."""

from __future__ import annotations

import contextlib
import random
import ssl
from pathlib import Path

import pytest
from fakes.certificates import Authority, met
from fakes.key_updates import Forger, noting
from hypothesis import given
from hypothesis import strategies as st

from cacheflow.net.tls.session import EMPTY_MAX, FILLED_FOR_ONE_EMPTY, RECORD_BYTES, Session


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


def test_no_context_speaks_anything_older_or_renegotiates(authority: Authority) -> None:
    in_force = authority.certificates().in_force
    for context in (in_force.clients, in_force.listening, in_force.dialing, in_force.calling, authority.trusted()):
        assert context is not None
        assert context.minimum_version == ssl.TLSVersion.TLSv1_2 and context.options & ssl.OP_NO_RENEGOTIATION


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


def test_a_large_answer_leaves_no_large_buffer(client: ssl.SSLContext, server: ssl.SSLContext) -> None:
    """OpenSSL's buffers never shrink: each client would keep its largest answer until it leaves."""
    one, other = met(client, server)
    held: list[int] = []

    class Watched:
        def read(self) -> bytes:
            held.append(outgoing.pending)
            return outgoing.read()

    outgoing, other._outgoing = other._outgoing, Watched()  # type: ignore[assignment]
    data = random.Random(1).randbytes(1_000_000)
    assert one.decrypt(other.encrypt(data)) == data
    assert max(held) < RECORD_BYTES + 100


def test_nothing_is_left_that_no_socket_would_tell_of(client: ssl.SSLContext, server: ssl.SSLContext) -> None:
    one, other = met(client, server)
    records = b"".join([one.encrypt(b"x" * size) for size in (1, 5_000, RECORD_BYTES, 3)])
    plain = other.decrypt(records)
    assert len(plain) == 1 + 5_000 + RECORD_BYTES + 3
    assert not other._tls.pending() and not other._incoming.pending and not other._partial


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


def test_half_a_record_behind_the_handshake_waits_for_its_rest(client: ssl.SSLContext, server: ssl.SSLContext) -> None:
    one, other = Session(client, server_side=False, host="localhost"), Session(server, server_side=True)
    one.shake(b"")
    other.shake(one.output())
    assert one.shake(other.output())
    finished, record = one.output(), one.encrypt(b"GET /")
    for cut in range(len(record)):
        if cut == 9:
            assert other.shake(finished + record[:cut])
            assert other.early == b"" and other.decrypt(record[cut:]) == b"GET /"


@pytest.mark.parametrize("answer", [True, False])
def test_a_key_update_is_followed_and_answered(
    authority: Authority, server: ssl.SSLContext, tmp_path: Path, answer: bool
) -> None:
    one, other = met(noting(authority.trusted(), tmp_path / "keys"), server)
    forger = Forger(tmp_path / "keys")
    assert other.decrypt(forger.data(b"before") + forger.key_update(answer) + forger.data(b"after")) == b"beforeafter"
    # The answer leaves before the next record, in the same bytes.
    records = other.encrypt(b"reply")
    assert one.decrypt(records) == b"reply"
    assert len(records) == 27 + 16 + 11 if answer else 27


@pytest.mark.parametrize("data", [b"", b"x"])
def test_who_sends_key_updates_without_end_is_cut_off_soon(
    authority: Authority, server: ssl.SSLContext, tmp_path: Path, data: bytes
) -> None:
    _, other = met(noting(authority.trusted(), tmp_path / "keys"), server)
    forger = Forger(tmp_path / "keys")
    with pytest.raises(ssl.SSLError, match="carry nothing"):
        for number in range(2 * EMPTY_MAX):
            assert other.decrypt(forger.key_update() + (forger.data(data) if data else b"")) == data
            assert number <= EMPTY_MAX


def test_key_updates_now_and_then_may_go_on_for_ever(
    authority: Authority, server: ssl.SSLContext, tmp_path: Path
) -> None:
    _, other = met(noting(authority.trusted(), tmp_path / "keys"), server)
    forger = Forger(tmp_path / "keys")
    for _ in range(2 * EMPTY_MAX):
        records = b"".join([forger.data(b"x") for _ in range(FILLED_FOR_ONE_EMPTY)])
        assert other.decrypt(records + forger.key_update()) == b"x" * FILLED_FOR_ONE_EMPTY


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
