"""NodeConfig: all settings of one node, in one frozen dataclass that is checked once.

Where a value comes from (flag, ``CACHEFLOW_*``, TOML file, default: in that order) is decided by cli/settings.py.
Times are seconds here and milliseconds inside the machine.
"""

from __future__ import annotations

import codecs
import functools
import hashlib
import hmac
import ipaddress
import re
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlsplit

from cacheflow.errors import ConfigError

EVICTION_POLICIES = ("lru", "lfu")
FSYNC_MODES = ("always", "interval", "never")
PEER_TLS_MODES = ("prefer", "require")
LOG_LEVELS = ("debug", "info", "warning", "error")
LOG_FORMATS = ("text", "json")
# The letters of Redis' setting notify-keyspace-events.
KEYSPACE_EVENTS = "KEAg$lshzxetdmn"
VOTER, OBSERVER = "voter", "observer"
ROLES = (VOTER, OBSERVER)
# The port of the peer protocol minus that of HTTP, unless the settings say otherwise.
RAFT_PORT_OFFSET = 1000
_KEYSPACE_EVENTS = re.compile(f"[{re.escape(KEYSPACE_EVENTS)}]+")
_NODE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
# Longer secrets add nothing, and a header has 16 KiB for everything.
_SECRET_BYTES_MAX = 4096
_SECRET = re.compile(rb"[ -~]{16,}")
# As much of a URL as could be a token that somebody forgot to escape.
_USER_INFO = re.compile(r"//.*@")
_HOST_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,252}")
# What a browser calls a site: scheme, host and perhaps a port, or "null" for a file.
_ORIGIN = re.compile(r"\*|null|https?://[^\s/?#@]+")
# The log's integers have 64 bits.
_LIMIT_MAX = 2**63 - 1
_HOST_RULE = "must be a host name or an IP address alone: no port, no brackets, no http://"


@dataclass(frozen=True, kw_only=True)
class NodeConfig:
    """The settings of one node. Raises ConfigError that names the invalid setting."""

    # The address to listen on: loopback unless a secret and tokens are given, so that no stranger writes into the cache.
    host: str = "127.0.0.1"
    port: int = 8080
    # The host under which others reach this node; None: ``host``.
    advertise: str | None = None
    # The port of the peer protocol; None: port + RAFT_PORT_OFFSET.
    raft_port: int | None = None
    # Ports of memcached's protocol and RESP on ``host``; None: not served, 0: a port that the system chooses.
    memcached_port: int | None = None
    resp_port: int | None = None
    # Which changes of keys the RESP port publishes on channels, as Redis' flags; None: none.
    notify_keyspace_events: str | None = None
    # The node's id; None: a random UUID, kept in the data directory.
    node_id: str | None = None
    # HTTP addresses of members to join through; empty: a node without data founds a cluster when it hears of none.
    seed: tuple[str, ...] = ()
    # A node without data founds a cluster at once: for a first start that knows that there is none.
    bootstrap: bool = False
    # Begin with this backup, where the node founds its cluster.
    restore: Path | None = None
    # So many nodes found a cluster together, each with all of them as seeds; None: nodes with seeds only join.
    bootstrap_expect: int | None = None
    # Raft addresses of all founding nodes, for embedded use without HTTP.
    peers: tuple[str, ...] = ()
    # The role with which this node joins a cluster; there it is changed by promoting and demoting.
    role: str = VOTER
    # Seconds after which this node, as leader, gives the vote of a voter that is down to another member; 0: never. So long
    # that a machine can start again meanwhile.
    replace_after_s: float = 300.0
    # Policy, limits, replicas and max_value_bytes are replicated: those of a cluster's first node count.
    eviction: str = "lru"
    max_items: int | None = 1000
    max_bytes: int | None = None
    replicas: int = 2
    data_dir: Path = Path("data")
    persistence: bool = True
    # When the journal is flushed. always: on a majority before an answer. interval: once a second. never: left to the system.
    fsync: str = "always"
    # Seconds that a write waits for its outcome.
    request_timeout_s: float = 10.0
    # Go out of the membership when the node is closed, so that nobody waits for a node that does not come back.
    leave: bool = False
    # Seconds between "not ready" and closed ports, in which load balancers take the server out. An embedded node has none.
    drain_s: float = 0.0
    # The largest value, in memcached's and etcd's order of magnitude: a larger one stalls every other write behind it.
    max_value_bytes: int = 1024 * 1024
    # Threads that serve HTTP: 40 waiting ones cost 0.3 MB each and keep 16 to 64 keep-alive connections busy.
    http_threads: int = 40
    cluster_secret_file: Path | None = None
    api_token_file: Path | None = None
    # A file of users, with the role of each; the same file on every node (access/users_file.py).
    users_file: Path | None = None
    # This node's certificate and its key, in PEM: with them all ports of clients speak TLS and nothing else.
    tls_cert: Path | None = None
    tls_key: Path | None = None
    # The CA that has signed the certificates of all nodes: with it connections between nodes are encrypted, too.
    tls_ca: Path | None = None
    # prefer: plain connections with nodes that have no certificates; require: none. None: prefer where there is a CA.
    peer_tls: str | None = None
    # Names under which browsers may call this node, beside its own; other sites whose pages may.
    allow_host: tuple[str, ...] = ()
    allow_origin: tuple[str, ...] = ()
    # What a server's process writes to stderr, and how. An embedded node leaves the logging of its host alone.
    log_level: str = "info"
    log_format: str = "text"
    # A follower campaigns after 1 to 2 times this without a leader, and at once when its connection to the leader breaks.
    election_timeout_s: float = 1.0
    heartbeat_s: float = 0.1
    # A request that takes so many milliseconds or more is kept in the slow log; 0: all are, negative: none is, as in Redis. Most
    # take one, a write on a slow disk ten.
    slow_ms: float = 50.0
    # Have the garbage collector look at the newest objects ten times a second while writes come, so that it need not look at a
    # million entries at once: for a process that does nothing else. It would look at an application's objects, too.
    collect_garbage: bool = False

    def __post_init__(self) -> None:
        self._check("host", _is_host(self.host), _HOST_RULE)
        self._check("advertise", self.advertise is None or _is_host(self.advertise), _HOST_RULE)
        self._check("port", 0 <= self.port <= 65535, "must be 0 to 65535")
        for name in ("raft_port", "memcached_port", "resp_port"):
            port = getattr(self, name)
            self._check(name, port is None or 0 <= port <= 65535, "must be 0 to 65535")
        self._check(
            "notify_keyspace_events",
            self.notify_keyspace_events is None or _KEYSPACE_EVENTS.fullmatch(self.notify_keyspace_events) is not None,
            f"must be some of the letters {KEYSPACE_EVENTS}, as in Redis",
        )
        told = [port for port in (self.memcached_port, self.resp_port, self.port, self.raft_listen_port) if port]
        for name in ("memcached_port", "resp_port"):
            self._check(name, told.count(getattr(self, name)) <= 1, "is taken by another port of this node")
        self._check(
            "raft_port",
            self.raft_port is not None or self.port + RAFT_PORT_OFFSET <= 65535,
            f"is needed: port + {RAFT_PORT_OFFSET} is over 65535",
        )
        self._check(
            "node_id",
            self.node_id is None or _NODE_ID.fullmatch(self.node_id) is not None,
            "must be 1 to 63 letters, digits, dots, dashes or underscores",
        )
        self._check("eviction", self.eviction in EVICTION_POLICIES, "must be lru or lfu")
        for name, least in (("max_items", 1), ("max_bytes", 1024)):
            limit = getattr(self, name)
            self._check(name, limit is None or least <= limit <= _LIMIT_MAX, f"must be {least} to {_LIMIT_MAX}")
        self._check("role", self.role in ROLES, "must be voter or observer")
        founds = self.bootstrap or self.bootstrap_expect is not None
        self._check(
            "role", self.role == VOTER or not founds, "must be voter to found a cluster: join it with --seed alone"
        )
        self._check(
            "replace_after_s", 0 <= self.replace_after_s <= 10**7, "must be 0, for never, or at most 10000000 seconds"
        )
        self._check("replicas", 0 <= self.replicas <= 8, "must be 0 to 8")
        self._check("fsync", self.fsync in FSYNC_MODES, "must be always, interval or never")
        self._check("request_timeout_s", 0 < self.request_timeout_s <= 3600, "must be above 0 and at most 3600")
        self._check("drain_s", 0 <= self.drain_s <= 3600, "must be 0 to 3600")
        self._check("max_value_bytes", 1 <= self.max_value_bytes <= 64 * 1024 * 1024, "must be 1 to 67108864 (64 MiB)")
        self._check("http_threads", self.http_threads >= 4, "must be at least 4")
        self._check("log_level", self.log_level in LOG_LEVELS, "must be debug, info, warning or error")
        self._check("log_format", self.log_format in LOG_FORMATS, "must be text or json")
        self._check("election_timeout_s", 0.1 <= self.election_timeout_s <= 60, "must be 0.1 to 60")
        self._check(
            "heartbeat_s",
            0.01 <= self.heartbeat_s < self.election_timeout_s / 3,
            "must be below a third of the election timeout",
        )
        self._check(
            "slow_ms", -1 <= self.slow_ms <= 3_600_000, "must be 0, for all requests, -1, for none, or at most 3600000"
        )
        self._check("tls_cert", self.tls_cert is None or self.tls_key is not None, "needs its --tls-key")
        self._check("tls_key", self.tls_key is None or self.tls_cert is not None, "needs its --tls-cert")
        self._check("tls_ca", self.tls_ca is None or self.tls_cert is not None, "needs --tls-cert and --tls-key")
        self._check("peer_tls", self.peer_tls in (None, *PEER_TLS_MODES), "must be prefer or require")
        self._check(
            "peer_tls",
            self.peer_tls is None or self.tls_ca is not None,
            "needs --tls-ca",
        )
        for host in self.allow_host:
            self._check("allow_host", _is_host(host), _HOST_RULE)
        for origin in self.allow_origin:
            self._check(
                "allow_origin", _ORIGIN.fullmatch(origin) is not None, "must be as https://app.example.com, or *"
            )
        for url in self.seed:
            self._check("seed", _is_url(url), "must start with http:// or https://, and name a host and perhaps a port")
        self._check(
            "bootstrap_expect",
            self.bootstrap_expect is None or 1 <= self.bootstrap_expect <= len(self.seed) + 1,
            "needs the URLs of all founding nodes as seeds, the same on each of them",
        )
        self._check(
            "bootstrap", not self.bootstrap or self.bootstrap_expect is None, "cannot stand beside --bootstrap-expect"
        )
        self._check(
            "restore", self.restore is None or self.bootstrap, "needs --bootstrap: the first node begins with it"
        )
        if not is_loopback(self.host):
            self._check(
                "host",
                self.cluster_secret_file is not None and (self.api_token_file or self.users_file) is not None,
                "leaves loopback: give --cluster-secret-file, and --users-file or --api-token-file, so that only those who hold "
                "what is in them get in, and --tls-cert, --tls-key and --tls-ca, so that nobody on the way can read them",
            )
        self._check(
            "users_file",
            self.users_file is None or self.cluster_secret_file is not None,
            "needs --cluster-secret-file: without it whoever reaches the port between nodes writes as a node does",
        )
        self._check(
            "advertise",
            not _is_any_address(self.advertise or self.host),
            f"is needed beside --host {self.host}: the name or address under which others reach this node",
        )

    def _check(self, name: str, valid: bool, rule: str) -> None:
        if not valid:
            raise ConfigError(f"{name.replace('_', '-')} = {getattr(self, name)!r}: {rule}")

    @property
    def leaves_plain(self) -> bool:
        """True if, with these settings, this node may send data to other machines that is not encrypted."""
        return not is_loopback(self.host) and (self.tls_ca is None or self.peer_tls != "require")

    @property
    def raft_listen_port(self) -> int:
        """The port on which the peer protocol listens; 0 if the system is to choose it."""
        if self.raft_port is None:
            return self.port + RAFT_PORT_OFFSET if self.port else 0
        return self.raft_port

    @classmethod
    def of(cls, **settings: Any) -> NodeConfig:
        """Return a node's configuration made of ``settings``, values by name.

        Raises ConfigError, which names an unknown or invalid setting.
        """
        known = {field.name for field in fields(cls)}
        for name in settings:
            if name not in known:
                raise ConfigError(f"unknown setting {name!r}")
        return cls(**settings)


def split_address(address: str) -> tuple[str, int]:
    """Return (host, port) of the text ``host:port`` or ``[IPv6 address]:port``. Raises ValueError for any other text."""
    host, colon, port = address.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(f"{address!r}: an IPv6 address needs brackets")
    if not (colon and host and port.isascii() and port.isdigit() and len(port) <= 5 and int(port) <= 65535):
        raise ValueError(f"{address!r} is not host:port")
    if not host.isprintable() or any(char in host for char in "/ @?#"):
        raise ValueError(f"{address!r} names no host")
    return host, int(port)


def join_address(host: str, port: int) -> str:
    """Return ``host`` and ``port`` as the text ``host:port``, with brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def split_url(url: str) -> SplitResult:
    """Return the parts of the URL of a node's HTTP API. Raises ValueError for a text that is no such URL."""
    if not url.isprintable() or " " in url:
        raise ValueError(f"{hidden(url)!r} has blanks or control characters")
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and parts.hostname and not parts.query and not parts.fragment
    except ValueError:
        good = False
    if not good:
        raise ValueError(f"{hidden(url)!r} is not a node's address such as http://127.0.0.1:8080")
    try:
        _ = parts.port
    except ValueError:
        raise ValueError(f"{hidden(url)!r}: the port is not a number up to 65535") from None
    return parts


def hidden(url: str) -> str:
    """Return ``url`` as a message may show it: asterisks replace a user name and token, even if they are not escaped."""
    return _USER_INFO.sub("//***@", url)


def _is_url(text: str) -> bool:
    try:
        split_url(text)
    except ValueError:
        return False
    return True


def _is_host(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        # The last label of a name is no number: that is a port, or an address with a slip.
        return _HOST_NAME.fullmatch(text) is not None and not text.rpartition(".")[2].isdigit()
    return True


def _is_any_address(host: str) -> bool:
    """Return whether ``host`` is the address that stands for all of a machine's addresses (0.0.0.0, ::)."""
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False


def is_loopback(host: str) -> bool:
    """Return whether ``host`` is a loopback address, which only this machine can reach."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def read_secret(path: Path | None, setting: str) -> bytes | None:
    """Return the secret in the file at ``path``; None without a path. Everything that uses a secret reads its file this way.

    Blanks and ends of lines around the secret, and a byte order mark, do not count. Raises ConfigError, which names
    ``setting``, for a file that cannot be read or holds anything but one line of printable ASCII, at least 16 characters. No
    message shows the secret.
    """
    if path is None:
        return None
    try:
        with path.open("rb") as file:
            data = file.read(_SECRET_BYTES_MAX + 1)
    except OSError as error:
        raise ConfigError(f"{setting} = {str(path)!r}: cannot be read ({error.strerror})") from None
    secret = data.removeprefix(codecs.BOM_UTF8).strip()
    if not _SECRET.fullmatch(secret) or len(data) > _SECRET_BYTES_MAX:
        raise ConfigError(
            f"{setting} = {str(path)!r}: must be one line of 16 to {_SECRET_BYTES_MAX} printable ASCII characters, "
            f"as openssl rand -hex 32 prints; this file has {len(secret)} bytes"
            + (" and several lines" if b"\n" in secret else "")
        )
    return secret


def join_token(secret: bytes) -> bytes:
    """Return the token, derived from the cluster's ``secret``, that a node shows when it asks to be registered as a member.

    Whoever learns the token can only make members dial addresses: a node that answers there must prove that it knows the
    secret.
    """
    return hmac.digest(secret, b"cacheflow: POST /nodes/register", hashlib.sha256).hex().encode()


@functools.cache
def build_version() -> str:
    """Return the version of the CacheFlow that is installed here, as text for people."""
    # This module takes long to import, and who only talks to nodes needs none.
    from importlib import metadata

    try:
        return metadata.version("cacheflow")
    except metadata.PackageNotFoundError:
        return "unknown (runs from its source folder)"
