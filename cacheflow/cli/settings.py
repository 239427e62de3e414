"""Settings of a node: from flags, CACHEFLOW_* variables and a TOML file to one NodeConfig.

Flag, environment, file, default: in that order. Every error names the setting and where its value came from.
"""

from __future__ import annotations

import codecs
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cacheflow.config import RAFT_PORT_OFFSET, NodeConfig
from cacheflow.errors import ConfigError

ENVIRONMENT_PREFIX: Final = "CACHEFLOW_"
# The most bytes of a settings file: it has some thirty lines, and a wrong path may name a disk or a pipe.
FILE_BYTES_MAX: Final = 1024 * 1024


@dataclass(frozen=True)
class Setting:
    """One setting of a node, which can be given as a flag, an environment variable or a line of a TOML file.

    name: the setting's name in the flag and the file.  field: its attribute in NodeConfig.
    parse: makes the setting's value from a text; raises ValueError that says what is allowed.
    """

    name: str
    field: str
    parse: Callable[[str], Any]
    help: str
    metavar: str
    many: bool = False
    # The flag stands alone, and means true.
    switch: bool = False

    @property
    def flag(self) -> str:
        """The setting's command-line flag, such as ``--max-items``."""
        return f"--{self.name}"

    @property
    def variable(self) -> str:
        """The setting's environment variable, such as ``CACHEFLOW_MAX_ITEMS``."""
        return ENVIRONMENT_PREFIX + self.name.upper().replace("-", "_")


def _number(kind: Callable[[str], Any], rule: str) -> Callable[[str], Any]:
    def parse(text: str) -> Any:
        try:
            # Python also takes "8_080", and the digits of other scripts.
            if not text.isascii() or "_" in text:
                raise ValueError
            return kind(text)
        except ValueError:
            raise ValueError(rule) from None

    return parse


_integer = _number(int, "must be a whole number")
_integer_or_none = _number(lambda text: None if text.lower() == "none" else int(text), "must be a whole number or none")
_seconds = _number(float, "must be a number of seconds")
_milliseconds = _number(float, "must be a number of milliseconds")


def _port(text: str) -> int:
    if "://" in text:
        raise ValueError(
            "must be a port; Kubernetes sets this for a service of that name: rename the service, "
            "or have enableServiceLinks: false in the pod"
        )
    port: int = _integer(text)
    return port


def _boolean(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError("must be true or false")
    return text.lower() == "true"


def path(text: str) -> Path:
    """Return the path ``text``, where a leading ``~`` means the user's home. Raises ValueError that says what is allowed."""
    if not text or "\0" in text:
        raise ValueError("must be a path: not empty, and without NUL")
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise ValueError(
            "begins with the home of a user whom this machine does not know; write ./~ for that name"
        ) from None


def named_path(text: str, name: str) -> Path:
    """Return the path ``text``, where a leading ``~`` means the user's home.

    Raises ConfigError that names the setting ``name``, in which the text stood.
    """
    try:
        return path(text)
    except ValueError as error:
        raise ConfigError(f"{name} = {text!r}: {error}") from None


SETTINGS: Final = (
    Setting("host", "host", str, "Address to listen on.", "HOST"),
    Setting("port", "port", _port, "Port of the HTTP API.", "PORT"),
    Setting("advertise", "advertise", str, "How others reach this node; the host unless told.", "HOST"),
    Setting(
        "raft-port", "raft_port", _port, f"Port of the peer protocol; port + {RAFT_PORT_OFFSET} unless told.", "PORT"
    ),
    Setting("memcached-port", "memcached_port", _port, "Port of memcached's protocol; none unless told.", "PORT"),
    Setting("resp-port", "resp_port", _port, "Port of Redis' protocol (RESP); none unless told.", "PORT"),
    Setting(
        "notify-keyspace-events",
        "notify_keyspace_events",
        str,
        "Changes of keys that the RESP port publishes, as in Redis: KEA for all; none unless told.",
        "FLAGS",
    ),
    Setting("node-id", "node_id", str, "A random one, kept in the data directory, unless told.", "ID"),
    Setting("seed", "seed", str, "A member to join through; repeatable.", "URL", many=True),
    Setting("bootstrap", "bootstrap", _boolean, "Found a cluster at once when there is no data.", "", switch=True),
    Setting("restore", "restore", path, "Beside --bootstrap: begin with this backup.", "FILE"),
    Setting(
        "bootstrap-expect",
        "bootstrap_expect",
        _integer,
        "Found a cluster together with the seeds, once so many nodes without data have met.",
        "N",
    ),
    Setting("role", "role", str, "voter, or observer: never votes unless it is promoted.", "ROLE"),
    Setting(
        "replace-after",
        "replace_after_s",
        _seconds,
        "Seconds after which a voter that is down loses its vote to another node; 0: never.",
        "S",
    ),
    Setting("eviction", "eviction", str, "lru or lfu; the first node of a cluster decides.", "POLICY"),
    Setting("max-items", "max_items", _integer_or_none, "Entries before eviction, or none.", "N"),
    Setting("max-bytes", "max_bytes", _integer_or_none, "Bytes before eviction, or none.", "N"),
    Setting("replicas", "replicas", _integer, "Copies beside the leader's.", "N"),
    Setting("data-dir", "data_dir", path, "Where log and snapshots are kept.", "DIR"),
    Setting("persistence", "persistence", _boolean, "false: keep log and snapshots in memory.", "BOOL"),
    Setting("fsync", "fsync", str, "always, interval or never: what an acknowledgement means.", "MODE"),
    Setting("request-timeout", "request_timeout_s", _seconds, "Seconds a write waits for its outcome.", "S"),
    Setting("drain", "drain_s", _seconds, "Seconds at the end between not ready and closed ports.", "S"),
    Setting("leave", "leave", _boolean, "Go out of the membership at the end.", "", switch=True),
    Setting(
        "max-value-bytes", "max_value_bytes", _integer, "Largest value taken; the first node of a cluster decides.", "N"
    ),
    Setting("log-level", "log_level", str, "debug, info, warning or error: the least that is logged.", "LEVEL"),
    Setting("log-format", "log_format", str, "text for people, or json: one object a line.", "FORMAT"),
    Setting("http-threads", "http_threads", _integer, "Requests served at the same time.", "N"),
    Setting("election-timeout", "election_timeout_s", _seconds, "Seconds without a leader before an election.", "S"),
    Setting("heartbeat", "heartbeat_s", _seconds, "Seconds between two signs of life of the leader.", "S"),
    Setting(
        "slow-ms",
        "slow_ms",
        _milliseconds,
        "Milliseconds from which on a request is kept in the slow log; 0: all, -1: none.",
        "MS",
    ),
    Setting("cluster-secret-file", "cluster_secret_file", path, "What the nodes of a cluster share.", "FILE"),
    Setting("allow-host", "allow_host", str, "A name under which browsers may call; repeatable.", "NAME", many=True),
    Setting("allow-origin", "allow_origin", str, "A site whose pages may call; repeatable.", "URL", many=True),
    Setting("api-token-file", "api_token_file", path, "A token for clients, on every port; an admin's.", "FILE"),
    Setting("users-file", "users_file", path, "Tokens' hashes and roles, the same on every node.", "FILE"),
    Setting("tls-cert", "tls_cert", path, "Certificate of this node; clients' ports speak TLS then.", "FILE"),
    Setting("tls-key", "tls_key", path, "Its key.", "FILE"),
    Setting("tls-ca", "tls_ca", path, "CA of all nodes' certificates; nodes talk by TLS then.", "FILE"),
    Setting("peer-tls", "peer_tls", str, "prefer or require: whether nodes without TLS may talk.", "MODE"),
)
_BY_NAME: Final = {setting.name: setting for setting in SETTINGS}


def load(flags: Mapping[str, Any], environment: Mapping[str, str], file: Path | None = None) -> NodeConfig:
    """Return the NodeConfig given by command-line flags, else by environment variables, else by a TOML file, else by default.

    flags: values by setting name: a text, a tuple of texts for a setting that may be repeated, None or () for one not given.
    file: the file of --config; None: that of the variable CACHEFLOW_CONFIG, if it is set.
    Raises ConfigError, which names what is wrong.
    """
    if file is None and (named := environment.get(ENVIRONMENT_PREFIX + "CONFIG", "").strip()):
        file = named_path(named, f"{ENVIRONMENT_PREFIX}CONFIG")
    told = read_file(file) if file is not None else {}
    chosen: dict[str, Any] = {}
    sources: dict[str, tuple[Setting, str]] = {}
    for setting in SETTINGS:
        given: Any = flags.get(setting.name)
        if given not in (None, ()):
            source = "the command line"
        elif environment.get(setting.variable, "").strip():
            # An empty variable, or one of blanks, is an unset one: container files can hardly leave one out.
            given, source = environment[setting.variable], setting.variable
        elif setting.name in told:
            given, source = told[setting.name], str(file)
        else:
            continue
        chosen[setting.field] = _parsed(setting, given, source)
        sources[setting.field] = setting, source
    try:
        return NodeConfig(**chosen)
    except ConfigError as error:
        raise ConfigError(_with_source(str(error), sources)) from None


def read_file(file: Path) -> dict[str, Any]:
    """Return the settings in the TOML file ``file``, as values by setting name. Raises ConfigError."""
    try:
        with file.open("rb") as opened:
            data = opened.read(FILE_BYTES_MAX + 1)
        if len(data) > FILE_BYTES_MAX:
            raise ValueError(f"it has more than {FILE_BYTES_MAX} bytes")
        # Editors on Windows begin a file with a byte order mark.
        table = tomllib.loads(data.removeprefix(codecs.BOM_UTF8).decode())
    except OSError as error:
        raise ConfigError(f"--config = {str(file)!r}: cannot be read ({error.strerror})") from None
    except RecursionError:
        raise ConfigError(f"--config = {str(file)!r}: is not TOML: it is nested too deeply") from None
    except ValueError as error:
        raise ConfigError(f"--config = {str(file)!r}: is not TOML: {error}") from None
    told = {name.replace("_", "-"): value for name, value in table.items()}
    if len(told) < len(table):
        twice = next(name for name in table if "_" in name and name.replace("_", "-") in table)
        raise ConfigError(f"{twice.replace('_', '-')!r} is given twice (from {file}), once with - and once with _")
    for name in told:
        if name not in _BY_NAME:
            raise ConfigError(f"unknown setting {name!r} (from {file}); known are {', '.join(sorted(_BY_NAME))}")
    return told


def _parsed(setting: Setting, given: Any, source: str) -> Any:
    try:
        if setting.many:
            several = given.replace(",", " ").split() if isinstance(given, str) else given
            if not isinstance(several, (list, tuple)) or (isinstance(given, str) and not several):
                raise ValueError("must be a list of texts")
            return tuple(setting.parse(_text(one)) for one in several)
        return setting.parse(_text(given))
    except ValueError as error:
        raise ConfigError(f"{setting.flag} = {given!r} (from {source}): {error}") from None


def _text(given: Any) -> str:
    """Return ``value``, read from a TOML file, as the text that would stand for it on a command line."""
    if isinstance(given, bool):
        return str(given).lower()
    if isinstance(given, (str, int, float, Path)):
        return str(given)
    raise ValueError("must be one value")


def _with_source(message: str, sources: Mapping[str, tuple[Setting, str]]) -> str:
    """Return ``message``, an error about a field of NodeConfig, with the setting's flag in the place of the field's name.

    The result also says where the wrong value came from. sources: (setting, where its value came from) by field name.
    """
    shown, equals, rest = message.partition(" = ")
    field = shown.replace("-", "_")
    value, colon, rule = rest.partition(": ")
    if not equals or not colon:
        return message
    if field in sources:
        setting, source = sources[field]
        return f"{setting.flag} = {value} (from {source}): {rule}"
    flag = next((setting.flag for setting in SETTINGS if setting.field == field), shown)
    return f"{flag} = {value} (the default): {rule}"
