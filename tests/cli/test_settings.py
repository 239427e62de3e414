"""Where a node's settings come from."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from cacheflow.cli.settings import FILE_BYTES_MAX, SETTINGS, Setting, load
from cacheflow.config import NodeConfig, read_secret
from cacheflow.errors import ConfigError

# What a node needs to leave loopback.
OPEN = {"cluster-secret-file": "secret", "api-token-file": "token"}
TLS = {"tls-cert": "c", "tls-key": "k"}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "node.toml"
    file.write_text('port = 3\nmax-items = 30\nmax_bytes = 3000\npersistence = false\nseed = ["http://c"]\n')
    return file


@pytest.mark.parametrize("shown", [{"users-file": "users"}, {"api-token-file": "token"}])
def test_a_node_leaves_loopback_with_a_secret_and_users_or_a_token(shown: dict[str, str]) -> None:
    config = load({"host": "10.0.0.1", "cluster-secret-file": "secret", **shown}, {})
    assert (config.users_file, config.api_token_file) == tuple(
        Path(shown[name]) if name in shown else None for name in ("users-file", "api-token-file")
    )


def test_without_sources_everything_is_the_default() -> None:
    assert load({}, {}) == NodeConfig()


def test_a_flag_beats_the_environment_which_beats_the_file_which_beats_the_default(file: Path) -> None:
    environment = {"CACHEFLOW_PORT": "2", "CACHEFLOW_MAX_ITEMS": "20"}
    config = load({"port": "1"}, environment, file)
    assert (config.port, config.max_items, config.max_bytes, config.replicas) == (1, 20, 3000, 2)
    assert (config.persistence, config.seed) == (False, ("http://c",))


def test_the_file_can_be_named_in_the_environment(file: Path) -> None:
    assert load({}, {"CACHEFLOW_CONFIG": str(file)}).port == 3


def test_an_empty_variable_is_an_unset_one() -> None:
    assert load({}, {"CACHEFLOW_PORT": "", "CACHEFLOW_CONFIG": ""}).port == NodeConfig().port


def test_seeds_are_repeated_flags_or_a_list_in_one_variable() -> None:
    assert load({"seed": ("http://a", "http://b")}, {}).seed == ("http://a", "http://b")
    assert load({"seed": ()}, {"CACHEFLOW_SEED": "http://a, http://b"}).seed == ("http://a", "http://b")


def test_a_switch_is_a_flag_alone_or_a_word_elsewhere(tmp_path: Path) -> None:
    assert load({"bootstrap": True}, {}).bootstrap and load({}, {"CACHEFLOW_BOOTSTRAP": "true"}).bootstrap
    assert not load({"bootstrap": None}, {"CACHEFLOW_BOOTSTRAP": "false"}).bootstrap


@pytest.mark.parametrize("host", ["::1", "127.0.0.1", "localhost", "n1.example.com", "n-1"])
def test_a_node_may_be_reached_under_any_host(host: str) -> None:
    assert load({"advertise": host}, {}).advertise == host


def test_a_limit_can_be_switched_off() -> None:
    config = load({"max-items": "none"}, {"CACHEFLOW_MAX_BYTES": "4096"})
    assert (config.max_items, config.max_bytes) == (None, 4096)


def test_every_field_of_a_node_has_a_setting() -> None:
    known = {setting.field for setting in SETTINGS}
    # Raft addresses of all founders are for embedded use, which has no command line.
    assert {field.name for field in fields(NodeConfig)} - known <= {"peers", "collect_garbage"}
    assert known <= {field.name for field in fields(NodeConfig)}


@pytest.mark.parametrize(
    ("flags", "environment", "message"),
    [
        ({"port": "x"}, {}, r"--port = 'x' \(from the command line\): must be a whole number"),
        ({}, {"CACHEFLOW_PORT": "70000"}, r"--port = 70000 \(from CACHEFLOW_PORT\): must be 0 to 65535"),
        ({}, {"CACHEFLOW_REQUEST_TIMEOUT": "0"}, r"--request-timeout = 0.0 \(from CACHEFLOW_REQUEST_TIMEOUT\): must"),
        ({"persistence": "maybe"}, {}, r"--persistence = 'maybe' .*: must be true or false"),
        ({"max-items": "many"}, {}, r"--max-items = 'many' .*: must be a whole number or none"),
        ({"role": "learner"}, {}, r"--role = 'learner' .*: must be voter or observer"),
        (
            {"role": "observer", "bootstrap": "true"},
            {},
            r"--role = 'observer' .*: must be voter to found a cluster: join",
        ),
        ({"replace-after": "-1"}, {}, r"--replace-after = -1.0 .*: must be 0, for never, or at most 10000000"),
        ({"replace-after": "nan"}, {}, r"--replace-after = nan .*: must be 0, for never"),
        ({"fsync": "often"}, {}, r"--fsync = 'often' .*: must be always, interval or never"),
        ({"seed": ("host:1",)}, {}, r"--seed = \('host:1',\) .*: must start with http"),
        ({"host": "0.0.0.0"}, {}, r"--host = '0.0.0.0' .*: leaves loopback: give --cluster-secret-file"),
        ({"host": "0.0.0.0"}, {}, r"leaves loopback: .* and --tls-cert, --tls-key and --tls-ca, so that nobody"),
        ({"tls-cert": "c"}, {}, r"--tls-cert = .*'c'.* \(from the command line\): needs its --tls-key"),
        ({}, {"CACHEFLOW_TLS_KEY": "k"}, r"--tls-key = .*'k'.* \(from CACHEFLOW_TLS_KEY\): needs its --tls-cert"),
        ({"tls-ca": "a"}, {}, r"--tls-ca = .*'a'.*: needs --tls-cert and --tls-key"),
        ({**TLS, "tls-ca": "a", "peer-tls": "no"}, {}, r"--peer-tls = 'no' .*: must be prefer or require"),
        ({**TLS, "peer-tls": "require"}, {}, r"--peer-tls = 'require' .*: needs --tls-ca"),
        (
            {},
            {"CACHEFLOW_PORT": "tcp://10.0.0.1:80"},
            r"--port = .* \(from CACHEFLOW_PORT\): .*enableServiceLinks: false",
        ),
        ({"host": "[::1]"}, {}, r"--host = '\[::1\]' .*: must be a host name .* no brackets"),
        ({"advertise": "10.0.0.1:8080"}, {}, r"--advertise = '10.0.0.1:8080' .*: must be a host name .* no port"),
        ({"advertise": "http://n1"}, {}, r"--advertise = 'http://n1' .*: must be a host name"),
        ({"advertise": "8080"}, {}, r"--advertise = '8080' .*: must be a host name"),
        ({"advertise": "0.0.0.0"}, {}, r"--advertise = '0.0.0.0' .*: is needed beside --host"),
        (
            {"host": "0.0.0.0", "api-token-file": "token"},
            {},
            r"--host = .* leaves loopback: give --cluster-secret-file, and --users-file or --api-token-file",
        ),
        ({"host": "0.0.0.0", "cluster-secret-file": "secret"}, {}, r"--host = .* leaves loopback"),
        ({"users-file": "users"}, {}, r"--users-file = .* \(from the command line\): needs --cluster-secret-file"),
        ({**OPEN, "host": "0.0.0.0"}, {}, r"--advertise = None \(the default\): is needed beside --host 0.0.0.0"),
        ({**OPEN, "host": "::"}, {}, r"--advertise = None \(the default\): is needed beside --host ::"),
        ({"bootstrap-expect": "3", "seed": ("http://a",)}, {}, r"--bootstrap-expect = 3 .*: needs the URLs of all"),
        ({"bootstrap": True, "bootstrap-expect": "1"}, {}, r"--bootstrap = True .*: cannot stand beside"),
        ({"max-items": str(2**63)}, {}, r"--max-items = 9223372036854775808 .*: must be 1 to 9223372036854775807"),
        ({"max-bytes": str(2**63)}, {}, r"--max-bytes = 9223372036854775808 .*: must be 1024 to"),
        ({"seed": ("http://",)}, {}, r"--seed = .*: must start with http"),
        ({"seed": ("http://[::1",)}, {}, r"--seed = .*: must start with http"),
        ({"seed": ("http://a b",)}, {}, r"--seed = .*: must start with http"),
        ({"seed": ("http://a:x",)}, {}, r"--seed = .*: must start with http"),
        ({"port": "65000"}, {}, r"--raft-port = None \(the default\): is needed"),
        ({"heartbeat": "9"}, {}, r"--heartbeat = 9.0 .*: must be below a third"),
        ({"memcached-port": "70000"}, {}, r"--memcached-port = 70000 .*: must be 0 to 65535"),
        ({"resp-port": "8080"}, {}, r"--resp-port = 8080 .*: is taken by another port of this node"),
        ({"resp-port": "9080"}, {}, r"--resp-port = 9080 .*: is taken by another port of this node"),
        ({"memcached-port": "5", "resp-port": "5"}, {}, r"--memcached-port = 5 .*: is taken by another port"),
    ],
)
def test_a_bad_value_is_named_with_its_flag_and_its_source(
    flags: dict[str, Any], environment: dict[str, str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        load(flags, environment)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("port = 1.5", r"--port = 1.5 \(from .*node.toml\): must be a whole number"),
        ("port = [1]", r"--port = \[1\] \(from .*node.toml\): must be one value"),
        ("seed = 5", r"--seed = 5 \(from .*node.toml\): must be a list"),
        ("colour = 1", r"unknown setting 'colour' \(from .*node.toml\); known are .*max-items"),
        ("port =", r"--config = '.*node.toml': is not TOML"),
        ("[server]\nport = 1", r"unknown setting 'server'"),
        ("max-items = 5\nmax_items = 6", r"'max-items' is given twice \(from .*node.toml\)"),
        ('seed = ""', r"--seed = '' \(from .*node.toml\): must be a list"),
        ("port = 1979-05-27", r"--port = .* \(from .*node.toml\): must be one value"),
        ("port = true", r"--port = True \(from .*node.toml\): must be a whole number"),
        ("seed = [[1]]", r"--seed = .* \(from .*node.toml\): must be one value"),
        ("a = " + "[" * 3000, r"--config = '.*node.toml': is not TOML: it is nested too deeply"),
        ("port = " + "1" * 5000, r"--config = '.*node.toml': is not TOML"),
        ("#" * (FILE_BYTES_MAX + 1), r"--config = '.*node.toml': is not TOML: it has more than"),
    ],
)
def test_a_bad_file_is_named(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "node.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=message):
        load({}, {}, file)


def test_a_byte_order_mark_before_the_settings_is_no_setting(tmp_path: Path) -> None:
    file = tmp_path / "node.toml"
    file.write_bytes(b"\xef\xbb\xbfport = 7\r\n")
    assert load({}, {}, file).port == 7


def test_a_file_in_another_encoding_is_named(tmp_path: Path) -> None:
    file = tmp_path / "node.toml"
    file.write_bytes("port = 7".encode("utf-16"))
    with pytest.raises(ConfigError, match="is not TOML"):
        load({}, {}, file)


PATHS = [setting for setting in SETTINGS if "Path" in str(NodeConfig.__dataclass_fields__[setting.field].type)]


def given_everywhere(setting: Setting, text: str, tmp_path: Path) -> list[Callable[[], NodeConfig]]:
    """Calls that load ``text`` for a setting as a flag, from the environment and from a file."""
    file = tmp_path / "node.toml"
    file.write_text(f"{setting.name} = {json.dumps(text)}\n")
    # A file of users needs a secret, and a part of a certificate the others.
    needed = {"users-file": {"cluster-secret-file": "secret"}, "tls-cert": TLS, "tls-key": TLS, "tls-ca": TLS}
    needed["restore"] = {"bootstrap": "true"}
    beside = {name: value for name, value in needed.get(setting.name, {}).items() if name != setting.name}
    return [
        lambda: load(beside | {setting.name: text}, {}),
        lambda: load(beside, {setting.variable: text}),
        lambda: load(beside, {}, file),
    ]


@pytest.mark.parametrize("setting", PATHS, ids=lambda setting: setting.name)
def test_a_path_may_begin_with_the_user_s_home_wherever_it_is_given(
    setting: Setting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    for call in given_everywhere(setting, "~/cache", tmp_path):
        assert getattr(call(), setting.field) == Path("/home/me/cache")
    for call in given_everywhere(setting, "a~b", tmp_path):
        assert getattr(call(), setting.field) == Path("a~b")


@pytest.mark.parametrize("text", ["~nobody-of-that-name/x", "a\0b"])
@pytest.mark.parametrize("setting", PATHS, ids=lambda setting: setting.name)
def test_a_path_that_cannot_be_one_is_named(setting: Setting, text: str, tmp_path: Path) -> None:
    for call in given_everywhere(setting, text, tmp_path):
        with pytest.raises(ConfigError, match=rf"{setting.flag} = .* \(from "):
            call()


@pytest.mark.parametrize("setting", [each for each in SETTINGS if not each.switch], ids=lambda setting: setting.name)
def test_an_empty_value_is_an_error_except_in_the_environment(setting: Setting, tmp_path: Path) -> None:
    flag, _, file = given_everywhere(setting, "", tmp_path)
    with pytest.raises(ConfigError, match=f"{setting.flag} = "):
        load({setting.name: ("",)}, {}) if setting.many else flag()
    with pytest.raises(ConfigError, match=f"{setting.flag} = "):
        file()
    for empty in ("", "  "):
        assert load({}, {setting.variable: empty}) == NodeConfig()


@pytest.mark.parametrize("text", ["8_080", "\uff18\uff10\uff18\uff10", "8080 8081", "0x10"])
def test_a_number_is_written_in_decimal_digits(text: str) -> None:
    with pytest.raises(ConfigError, match="must be a whole number"):
        load({"port": text}, {})


def test_the_file_s_own_path_may_begin_with_the_user_s_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "node.toml").write_text("port = 9\n")
    assert load({}, {"CACHEFLOW_CONFIG": "~/node.toml"}).port == 9
    with pytest.raises(ConfigError, match="CACHEFLOW_CONFIG = "):
        load({}, {"CACHEFLOW_CONFIG": "~nobody-of-that-name/x"})


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--config = '.*absent.toml': cannot be read"):
        load({}, {}, tmp_path / "absent.toml")


@pytest.mark.parametrize("written", [b"%s", b"%s\n", b"%s\r\n", b"\xef\xbb\xbf%s\r\n", b"\n  %s \n\n"])
def test_a_secret_is_what_its_line_holds(tmp_path: Path, written: bytes) -> None:
    file = tmp_path / "secret"
    file.write_bytes(written % (b"0123456789abcdef" * 2))
    assert read_secret(file, "cluster-secret-file") == b"0123456789abcdef" * 2


@pytest.mark.parametrize(
    "written",
    [
        b"",
        b"too short\n",
        b"0123456789abcdef\nanother line\n",
        b"\xff" * 32,
        b"0123456789abcd\xc3\xa9",
        b"x" * 5000,
        b"\x00" * 32,
        "0123456789abcdef".encode("utf-16"),
    ],
)
def test_a_file_that_two_would_read_differently_is_no_secret(tmp_path: Path, written: bytes) -> None:
    file = tmp_path / "secret"
    file.write_bytes(written)
    with pytest.raises(ConfigError, match="one line of 16 to 4096 printable ASCII") as caught:
        read_secret(file, "cluster-secret-file")
    assert "0123456789" not in str(caught.value)


@pytest.mark.parametrize(
    ("more", "plain"),
    [
        ({"host": "127.0.0.1"}, False),
        ({}, True),
        (TLS, True),
        ({**TLS, "tls-ca": "a"}, True),
        ({**TLS, "tls-ca": "a", "peer-tls": "prefer"}, True),
        ({**TLS, "tls-ca": "a", "peer-tls": "require"}, False),
    ],
)
def test_it_is_known_whether_anything_leaves_the_machine_that_is_not_encrypted(
    more: dict[str, str], plain: bool
) -> None:
    assert load({"host": "10.0.0.1", **OPEN, **more}, {}).leaves_plain is plain
