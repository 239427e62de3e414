"""The handshake: the four frames with which every connection begins. Pure: frames in, frames out.

    dialer                                listener
      hello  (who I am, nonce)     ->
                                   <-     hello  (who I am, nonce)      or  refused (reason)
      proof  (knows the secret)    ->
                                   <-     proof  (knows the secret)     or  refused (reason, knows the secret)

A proof is HMAC-SHA256, keyed with the cluster's secret, over the prover's role and both hellos as they were sent,
nonces included. So it cannot be replayed (each side's nonce is fresh), reflected (the roles differ) or moved to
another conversation (it covers both sides' words). The dialer proves first: a stranger that knocks gets nothing
to guess the secret from.

This protects who may talk, and nothing more: where the connection is plain nothing is encrypted or signed after the
handshake. An attacker who can read the network reads the data; one who can change packets, or take over a TCP connection,
can forge messages. Networks that are not trusted need TLS below (``encryption.py``). A hello tells whether its node has
certificates, and the proofs cover it: two nodes that both have them refuse a plain connection, so nobody between them can
make them do without.

Without a secret the frames are the same and the key is empty; both must agree on whether there is one.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import dataclass
from typing import Any, Final, TypeGuard

import msgpack

from cacheflow.machine.language.commands import REPLACED_MAX
from cacheflow.raft.transport.frames import HEADER, FrameError
from cacheflow.raft.transport.network import Peer, PeerRefused, PeerUnreachable

# The version of the protocol, which rises when frames change their meaning. A hello begins alike in all versions, so that
# different ones can be told apart; builds of one version may add fields behind those that are here. What messages mean is a
# matter of the feature level, which the hello tells.
VERSION: Final = 1
MAGIC: Final = "cacheflow"
NONCE_BYTES: Final = 32
# Bytes that a handshake may have. A hello has some 300: nobody may make us keep more before we know who it is.
HANDSHAKE_BYTES_MAX: Final = 4096

# The purposes of a connection: to send to a member; to answer a node only because it has dialed us; to ask who is there.
SEND: Final = "send"
REPLY: Final = "reply"
PROBE: Final = "probe"
PURPOSES: Final = (SEND, REPLY, PROBE)

# The highest feature level that a hello may tell: a number for people, not a place in memory.
LEVEL_MAX: Final = 2**31

_HELLO: Final = "hello"
_HELLO_FIELDS: Final = 16
_PROOF: Final = "proof"
_REFUSED: Final = "refused"
# Whose a proof is, and what for.
_DIALER: Final = b"cacheflow dialer\0"
_LISTENER: Final = b"cacheflow listener\0"
_REFUSER: Final = b"cacheflow refuser\0"
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_NAME_OR_NONE: Final = re.compile(r"[A-Za-z0-9._-]{0,64}")
_BUILD: Final = re.compile(r"[\x20-\x7e]{0,64}")
_ADDRESS: Final = re.compile(r"[\x21-\x7e]{1,255}")


class Refusal(Exception):
    """Raised when this side refuses the other in a handshake. The error's text is the reason; a listener tells it a dialer."""


@dataclass(frozen=True, slots=True)
class Hello:
    """A node's description of itself in a handshake: who it is, what the connection is for, a fresh nonce, and its build.

    level: the highest feature level that its CacheFlow knows.  build: the version of its CacheFlow, for people.
    certified: the node has a certificate and the CA of the others, and so can encrypt.
    replaced: the ids of the clusters in whose place the node's cluster has come, by recoveries.
    """

    node_id: str
    incarnation: str
    raft_address: str
    cluster_id: str
    epoch: str
    start: int
    purpose: str
    secured: bool
    nonce: bytes
    level: int
    build: str
    certified: bool
    replaced: tuple[str, ...] = ()

    def encode(self) -> bytes:
        """Return this hello, a node's description of itself in a handshake, encoded as the body of a frame."""
        body: bytes = msgpack.packb(
            (
                _HELLO, MAGIC, VERSION, self.node_id, self.incarnation, self.raft_address, self.cluster_id,
                self.epoch, self.start, self.purpose, self.secured, self.nonce, self.level, self.build, self.certified,
                self.replaced,
            )
        )  # fmt: skip
        return body

    @classmethod
    def of(cls, fields: list[Any]) -> Hello:
        """Return the hello, a node's description of itself in a handshake, that a frame's ``fields`` make up.

        Raises FrameError for wrong fields, Refusal for another version of the protocol.
        """
        if fields[:2] != [_HELLO, MAGIC] or len(fields) < 3 or type(fields[2]) is not int:
            raise FrameError("no hello of a peer")
        if fields[2] != VERSION:
            raise Refusal(f"peer protocol {fields[2]} is spoken there and {VERSION} here: run the same version on both")
        if len(fields) < _HELLO_FIELDS:
            raise FrameError("a hello of the wrong length")
        told = fields[3:_HELLO_FIELDS]
        if type(told[-1]) is not list or len(told[-1]) > REPLACED_MAX:
            raise FrameError("a hello with a wrong field")
        told[-1] = tuple(told[-1])
        hello = cls(*told)
        if not (
            _matches(_NAME, hello.node_id)
            and _matches(_NAME_OR_NONE, hello.incarnation)
            and _matches(_ADDRESS, hello.raft_address)
            and _matches(_NAME_OR_NONE, hello.cluster_id)
            and _matches(_NAME_OR_NONE, hello.epoch)
            and type(hello.start) is int
            and type(hello.purpose) is str
            and hello.purpose in PURPOSES
            and type(hello.secured) is bool
            and type(hello.nonce) is bytes
            and len(hello.nonce) == NONCE_BYTES
            and type(hello.level) is int
            and 0 < hello.level <= LEVEL_MAX
            and _matches(_BUILD, hello.build)
            and type(hello.certified) is bool
            and all(_matches(_NAME_OR_NONE, each) for each in hello.replaced)
        ):
            raise FrameError("a hello with a wrong field")
        return hello

    def peer(self) -> Peer:
        """Return the node that this hello of a handshake describes, without what concerns the handshake alone."""
        return Peer(
            self.node_id, self.incarnation, self.raft_address, self.cluster_id,
            self.epoch, self.start, self.level, self.build, self.replaced,
        )  # fmt: skip


class Handshake:
    """One side of one handshake between two nodes; it is given the other side's frames until ``done``.

    expected: the id of the node that the dialer wants to reach; None for any node.
    encrypted: whether the connection is encrypted; to be set before the first frame is received.
    ``receive`` raises FrameError (the other side is no peer), Refusal (this side refuses), PeerRefused (the other side does).
    """

    def __init__(self, local: Hello, secret: bytes | None, *, dialer: bool, expected: str | None = None) -> None:
        self.local = local
        self.remote: Hello | None = None
        self.done = False
        self.encrypted = False
        # Whether the other side has refused this one and has proved that it knows the secret.
        self.is_refusal_proved = False
        self._key = secret or b""
        self._dialer = dialer
        self._expected = expected
        self._sent = local.encode()
        self._heard = b""

    def opening(self) -> bytes:
        """Return the body of the first frame that a dialer sends: the description of the dialer's node."""
        return self._sent

    def receive(self, body: bytes) -> bytes | None:
        """Check one frame's body from the other side of the handshake; return the body to answer with, None for no answer."""
        fields = _decode(body)
        if fields[0] == _REFUSED and self._dialer:
            proof = fields[2] if len(fields) > 2 else None
            self.is_refusal_proved = type(proof) is bytes and hmac.compare_digest(proof, self._proof(_REFUSER))
            raise PeerRefused(_readable(fields))
        if self.remote is None:
            self.remote = Hello.of(fields)
            self._heard = body
            self._check(self.remote)
            return _encode(_PROOF, self._proof(_DIALER)) if self._dialer else self._sent
        self._check_proof(fields)
        self.done = True
        return None if self._dialer else _encode(_PROOF, self._proof(_LISTENER))

    def refusal(self, reason: str) -> bytes:
        """Return the body of the frame by which a listener refuses the dialer, with ``reason``.

        If the dialer has proved that it knows the cluster's secret, the frame proves that the listener knows the secret, too:
        then the dialer may act on the refusal.
        """
        return _encode(_REFUSED, reason, *([self._proof(_REFUSER)] if self.done else []))

    def _check(self, remote: Hello) -> None:
        local = self.local
        if remote.secured != local.secured:
            has, lacks = ("there", "here") if remote.secured else ("here", "there")
            raise Refusal(f"a cluster secret is set {has} and none {lacks}: give every node the same")
        if remote.certified and local.certified and not self.encrypted:
            raise Refusal(
                "both sides have certificates and the connection is plain: something between them keeps TLS away, or ended the "
                "TLS connection before this one"
            )
        # A node may ask who lives at an address and find itself there, under another spelling.
        asks_itself = remote.epoch == local.epoch and PROBE in (remote.purpose, local.purpose)
        if remote.node_id == local.node_id and remote.incarnation == local.incarnation and not asks_itself:
            raise Refusal(f"both sides are node {local.node_id!r}: the address is its own, or its data was copied")
        if self._expected is not None and remote.node_id != self._expected:
            raise Refusal(f"node {remote.node_id!r} lives there, not {self._expected!r}")

    def _check_proof(self, fields: list[Any]) -> None:
        if fields[0] != _PROOF or len(fields) != 2 or type(fields[1]) is not bytes:
            raise FrameError("no proof after the hello")
        if not hmac.compare_digest(fields[1], self._proof(_LISTENER if self._dialer else _DIALER)):
            raise Refusal("the cluster secrets differ: give every node the same")

    def _proof(self, role: bytes) -> bytes:
        first, second = (self._sent, self._heard) if self._dialer else (self._heard, self._sent)
        # The length keeps the border between the two hellos from being moved.
        return hmac.digest(self._key, role + HEADER.pack(len(first)) + first + second, hashlib.sha256)


def failure(error: Exception) -> PeerUnreachable:
    """Return the exception to raise in the caller that dials a peer, when the handshake has failed with ``error``."""
    if isinstance(error, PeerUnreachable):
        return error
    if isinstance(error, Refusal):
        return PeerRefused(str(error))
    return PeerUnreachable(f"no CacheFlow peer answers there: {error}")


def is_cluster_id(value: object) -> TypeGuard[str]:
    """True if ``value`` can be a cluster's id; "" stands for no cluster."""
    return _matches(_NAME_OR_NONE, value)


def _encode(kind: str, *values: str | bytes) -> bytes:
    body: bytes = msgpack.packb((kind, *values))
    return body


def _decode(body: bytes) -> list[Any]:
    try:
        fields = msgpack.unpackb(body, max_str_len=1024, max_bin_len=64, max_array_len=64, max_map_len=0, max_ext_len=0)
    except Exception as error:  # msgpack raises a dozen kinds; all mean the same here
        raise FrameError(f"not a handshake: {error or type(error).__name__}") from None
    if type(fields) is not list or not fields or type(fields[0]) is not str:
        raise FrameError("not a handshake")
    return fields


def _readable(fields: list[Any]) -> str:
    """Return why a peer refuses this node, from the fields of the peer's frame, as one line of printable text for the log."""
    reason = fields[1] if len(fields) > 1 and type(fields[1]) is str else "no reason given"
    return "".join(char if char.isprintable() else "?" for char in reason[:300])


def _matches(pattern: re.Pattern[str], value: object) -> bool:
    return type(value) is str and pattern.fullmatch(value) is not None
