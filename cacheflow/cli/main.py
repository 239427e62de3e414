"""The command line of CacheFlow. Exit codes: 0 success; 1 no; 2 usage or configuration; 3 no node answered."""

from __future__ import annotations

import base64
import errno
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Final

import click

from cacheflow import values
from cacheflow.access.roles import ROLES
from cacheflow.access.users_file import line_of, new_token
from cacheflow.cli import bench as load
from cacheflow.cli import settings, texts
from cacheflow.cli.backup import backup, restore
from cacheflow.cli.cert import cert
from cacheflow.cli.cluster_settings import cluster_settings
from cacheflow.cli.demo import demo as demonstrate
from cacheflow.cli.demo import tour as show_around
from cacheflow.cli.dump import dump
from cacheflow.cli.dump import load as load_lines
from cacheflow.cli.importing import import_
from cacheflow.cli.launcher import LocalCluster, terminable
from cacheflow.cli.nodes import nodes
from cacheflow.cli.options import CA_OPTION, DEFAULT_URL, ca_of, client_options, token_of, urls_of
from cacheflow.cli.printing import Bar, print_json, print_table
from cacheflow.cli.recover import recover
from cacheflow.cli.status import status
from cacheflow.cli.top import top
from cacheflow.cli.watch import watch
from cacheflow.client.client import CacheClient
from cacheflow.config import NodeConfig, build_version
from cacheflow.errors import (
    CacheFlowError,
    ConfigError,
    InvalidRequest,
    KeyNotFound,
    NotAnInteger,
    PreconditionFailed,
    ReplicationError,
    ValueTooLarge,
)

# The exit codes (see the module); the last is the shell's for SIGINT.
NO: Final = 1
USAGE: Final = 2
NOBODY: Final = 3
INTERRUPTED: Final = 130
DEFAULT_BASE_PORT: Final = 8080
# Lets a command take flags that it does not know, and hand them to nodes.
PASS_ON: Final = {"ignore_unknown_options": True}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program's command line ``arguments`` (None: sys.argv) and return the exit code.

    An error is printed as one line on stderr.
    """
    texts.escape_output()
    given = texts.as_utf8(sys.argv[1:] if arguments is None else arguments)
    if not given or (given[0].startswith("-") and given[0] not in ("--help", "-h", "--version")):
        given.insert(0, "serve")
    try:
        code = commands.main(given, prog_name="cacheflow", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except click.UsageError as error:
        error.show()
        return USAGE
    except click.ClickException as error:
        return _complain(error.format_message(), USAGE)
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except BrokenPipeError:
        # The reader (head, less) has seen enough; Python must not complain at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (KeyNotFound, PreconditionFailed, NotAnInteger) as error:
        return _complain(str(error), NO)
    except (ConfigError, InvalidRequest, ValueTooLarge) as error:
        return _complain(str(error), USAGE)
    except ReplicationError as error:
        return _complain(_with_request(error), NOBODY)
    except CacheFlowError as error:
        return _complain(_with_request(error), NO)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return _complain(f"a port is taken: {error}", USAGE)
        return _complain(str(error), USAGE)


def _with_request(error: CacheFlowError) -> str:
    """Return the message of ``error``, with the id under which the log of a node names the request, if one has answered."""
    return f"{error} [request {error.request_id}]" if error.request_id else str(error)


def _complain(message: str, code: int) -> int:
    click.echo(f"cacheflow: {message}", err=True)
    return code


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(build_version(), prog_name="cacheflow")
def commands() -> None:
    """A Raft-consistent, replicated cache. Without a command: serve."""


commands.add_command(cert)
commands.add_command(backup)
commands.add_command(restore)
commands.add_command(dump)
commands.add_command(load_lines)
commands.add_command(import_)
commands.add_command(recover)
commands.add_command(nodes)
commands.add_command(status)
commands.add_command(top)
commands.add_command(cluster_settings)
commands.add_command(watch)


# Nodes


def _node_options(command: Callable[..., Any]) -> Callable[..., Any]:
    defaults = {each.name: each.default for each in fields(NodeConfig)}
    for setting in reversed(settings.SETTINGS):
        default = defaults[setting.field]
        shown = "" if default in (None, ()) else f"  [default: {str(default).lower()}]"
        if setting.switch:
            command = click.option(setting.flag, setting.field, is_flag=True, default=None, help=setting.help)(command)
            continue
        command = click.option(
            setting.flag, setting.field, multiple=setting.many, metavar=setting.metavar, help=setting.help + shown
        )(command)
    return command


@commands.command()
@click.option("--config", type=texts.path, metavar="FILE", help="TOML file with the same names.")
@_node_options
def serve(config: Path | None, **flags: Any) -> int:
    """Run one node until SIGTERM or Ctrl-C. Every flag is also CACHEFLOW_<FLAG> in the environment."""
    given = {setting.name: flags[setting.field] for setting in settings.SETTINGS}
    node = settings.load(given, os.environ, config)
    # Here, not above: Flask and Raft take a while to load, and the other commands need neither.
    from cacheflow.cli import server

    return server.run(node)


def _cluster_options(command: Callable[..., Any]) -> Callable[..., Any]:
    options: list[Callable[..., Any]] = [
        click.option("--nodes", default=3, show_default=True, help="How many nodes."),
        click.option("--api-token-file", type=texts.path, help="Token of the nodes' HTTP API."),
        click.argument("flags", nargs=-1, type=click.UNPROCESSED),
    ]
    for option in options:
        command = option(command)
    return command


@commands.command(context_settings=PASS_ON)
@_cluster_options
@click.option("--base-port", default=DEFAULT_BASE_PORT, show_default=True, help="HTTP ports: this one and up.")
@click.option("--data-dir", default=Path("data"), show_default=True, type=texts.path, help="Data.")
@click.option("--tour", is_flag=True, help="Write and read one key, and print what to try.")
def cluster(
    nodes: int, base_port: int, data_dir: Path, tour: bool, api_token_file: Path | None, flags: tuple[str, ...]
) -> int:
    """Run a cluster on this machine until Ctrl-C. Other flags, those of the command serve, are handed to every node.

    --memcached-port and --resp-port are node 1's; the other nodes get the ports after it.
    """
    token, passed = _token_and_flags(api_token_file, flags)
    with terminable():
        try:
            with LocalCluster(nodes, data_dir, base_port=base_port, flags=passed, token=token, say=_say) as running:
                _bring_up(running)
                if tour:
                    show_around(running, _say, token)
                _say("Ctrl-C ends the cluster.")
                running.supervise()
                return NO
        except KeyboardInterrupt:
            return 0


@commands.command(context_settings=PASS_ON)
@_cluster_options
@click.option("--keep", is_flag=True, help="Go on running afterwards, until Ctrl-C.")
def demo(nodes: int, keep: bool, api_token_file: Path | None, flags: tuple[str, ...]) -> int:
    """Show a small cluster in a temporary folder: a write, a read on another node, and the death of the leader."""
    token, passed = _token_and_flags(api_token_file, flags)
    with terminable(), tempfile.TemporaryDirectory(prefix="cacheflow-demo-") as folder:
        try:
            with LocalCluster(nodes, Path(folder), flags=passed, token=token, say=_say) as running:
                _bring_up(running)
                demonstrate(running, _say, token)
                if keep:
                    _say(
                        f"Still running: {' '.join(running.urls)}; their secret: {running.secret_file}; Ctrl-C ends it."
                    )
                    running.supervise()
            return 0
        except KeyboardInterrupt:
            return 0 if keep else INTERRUPTED


def _bring_up(running: LocalCluster) -> None:
    started = time.perf_counter()
    running.start()
    members = running.wait_ready()
    _say(f"{len(running.children)} nodes ready after {time.perf_counter() - started:.1f} s")
    roles = {node.get("id"): node.get("role", "") for node in members}
    rows = [
        {"id": node.node_id, "url": node.url}
        | {flag.removeprefix("--"): port for flag, port in node.wire_ports.items()}
        | {"role": roles.get(node.node_id, "")}
        for node in running.children
    ]
    print_table(rows)


def _token_and_flags(file: Path | None, flags: tuple[str, ...]) -> tuple[str | None, list[str]]:
    """Return (the API token, the command-line flags for the nodes, which name the file of that token).

    file: the path in --api-token-file, None if it is not given."""
    if file is None:
        return token_of(None), list(flags)
    return token_of(file), [*flags, "--api-token-file", str(file)]


def _say(line: str) -> None:
    click.echo(line)
    sys.stdout.flush()


# Talking to a node


@commands.command()
@click.argument("key", type=texts.text)
@click.option("--consistency", type=click.Choice(["local", "bounded", "linearizable"]), help="How fresh.")
@click.option("--max-staleness", type=float, help="Seconds, with --consistency bounded.")
@client_options
def get(client: CacheClient, key: str, consistency: str | None, max_staleness: float | None, as_json: bool) -> int:
    """Print the value of KEY: text and bytes as they are, anything else as JSON. Exit code 1 when KEY is absent."""
    consistency = consistency or ("local" if max_staleness is None else "bounded")
    item = client.get_item(key, consistency=consistency, max_staleness=max_staleness)
    if item is None:
        raise KeyNotFound(f"{key!r} is absent")
    if as_json:
        shown = {"key": key, "value": None, "ttl": item.ttl_s, "version": item.version}
        if item.kind > values.VALUE_MAX:
            shown["value"], is_base64 = values.json_of_fields(item.kind, item.data)
            shown |= {"type": values.NAMES[item.kind]} | ({"encoding": "base64"} if is_base64 else {})
        elif item.kind == values.BYTES:
            shown |= {"value": base64.b64encode(item.data).decode(), "encoding": "base64"}
        else:
            shown["value"] = item.value
        print_json(shown)
    elif item.kind > values.VALUE_MAX:
        print_json(values.json_of_fields(item.kind, item.data)[0])
    else:
        out = sys.stdout.buffer
        out.write(item.data + (b"" if item.kind == values.BYTES else b"\n"))
        out.flush()
    return 0


@commands.command(name="set")
@click.argument("key", type=texts.text)
@click.argument("value")
@click.option("--ttl", type=float, help="Seconds until it expires.")
@click.option("--type", "kind", type=click.Choice(["text", "json", "bytes"]), default="text", show_default=True)
@click.option("--if-absent", is_flag=True, help="Only if the key is absent; exit code 1 otherwise.")
@click.option("--if-version", type=int, help="Only if the key is at this version; exit code 1 otherwise.")
@client_options
def set_(
    client: CacheClient,
    key: str,
    value: str,
    ttl: float | None,
    kind: str,
    if_absent: bool,
    if_version: int | None,
    as_json: bool,
) -> int:
    """Set KEY to VALUE; a VALUE of - is read from standard input."""
    written = client.set(key, _told_value(value, kind), ttl=ttl, only_if_absent=if_absent, only_if_version=if_version)
    if as_json:
        print_json({"key": key, "version": written.version, "created": written.created, "ttl": written.ttl_s})
    else:
        click.echo(f"{'created' if written.created else 'replaced'}, version {written.version}")
    return 0


def _told_value(text: str, kind: str) -> Any:
    data = sys.stdin.buffer.read() if text == "-" else text.encode("utf-8", "surrogateescape")
    if kind == "bytes":
        return data
    try:
        return json.loads(data) if kind == "json" else data.decode()
    except ValueError as error:
        raise InvalidRequest(f"the value is not {kind}: {error}") from None


@commands.command()
@click.argument("keys", nargs=-1, required=True, type=texts.text)
@client_options
def delete(client: CacheClient, keys: tuple[str, ...], as_json: bool) -> int:
    """Delete KEYS. Exit code 1 when none of them was there."""
    deleted = sum(client.delete(key) for key in keys)
    if as_json:
        print_json({"deleted": deleted})
    else:
        click.echo(f"{deleted} deleted")
    return 0 if deleted else NO


@commands.command(context_settings=PASS_ON)
@click.argument("key", type=texts.text)
@click.argument("delta", type=int, default=1)
@click.option("--initial", type=int, help="Where an absent key starts; without it that is exit code 1.")
@click.option("--ttl", type=float, help="Seconds until a new key expires.")
@client_options
def incr(client: CacheClient, key: str, delta: int, initial: int | None, ttl: float | None, as_json: bool) -> int:
    """Add DELTA (1 unless told, may be negative) to the integer at KEY and print the sum."""
    value = client.incr(key, delta, initial=initial, ttl=ttl)
    if as_json:
        print_json({"key": key, "value": value})
    else:
        click.echo(value)
    return 0


@commands.command()
@click.argument("prefix", default="", type=texts.text)
@client_options
def keys(client: CacheClient, prefix: str, as_json: bool) -> int:
    """Print the keys that start with PREFIX, one a line."""
    if as_json:
        print_json(list(client.keys(prefix)))
    else:
        for key in client.keys(prefix):
            click.echo(key)
    return 0


@commands.command()
@click.argument("number", type=int, required=False)
@client_options
def level(client: CacheClient, number: int | None, as_json: bool) -> int:
    """Print the cluster's feature level. With NUMBER raise it: after that no older CacheFlow can run in the cluster."""
    in_force = client.status()["level"] if number is None else client.raise_level(number)
    if as_json:
        print_json({"level": in_force})
    else:
        click.echo(in_force)
    return 0


@commands.command("token")
@click.argument("name")
@click.argument("role", type=click.Choice(list(ROLES)))
@click.option("--json", "as_json", is_flag=True, help="JSON for programs instead of text for people.")
def make_token(name: str, role: str, as_json: bool) -> int:
    """Make a token for the user NAME, and the line for it in the nodes' --users-file. The token is shown only now."""
    token = new_token()
    line = line_of(name, ROLES[role], token)
    if as_json:
        print_json({"name": name, "role": role, "token": token, "line": line})
    else:
        click.echo(f"token, for a file of {name}'s:  {token}\nline for --users-file:  {line}")
    return 0


# Load


@commands.command(context_settings=PASS_ON)
@click.option("--ops", default=5000, show_default=True, help="Operations; with --trace at most so many requests.")
@click.option("--clients", type=int, help="Connections that wait for their answers. [default: 8; with --trace 1]")
@click.option("--value-bytes", default=100, show_default=True, help="Size of a value.")
@click.option("--write-ratio", default=0.5, show_default=True, help="Share of writes, 0 to 1.")
@click.option("--batch", default=1, show_default=True, help="Writes in one request.")
@click.option("--keys", "key_count", default=1000, show_default=True, help="Different keys.")
@click.option("--trace", type=texts.path, help="Replay big-endian 32-bit keys (.xz or plain).")
@click.option("--strict", is_flag=True, help="With --trace: count every read exactly, through the log.")
@click.option("--nodes", "node_count", type=int, help="Start so many nodes for it in a temporary folder.")
@click.option("--json", "as_json", is_flag=True, help="JSON for programs instead of text for people.")
@click.option("--api-token-file", type=texts.path, help="Token for the HTTP API.")
@CA_OPTION
@click.option(
    "--url", "urls", multiple=True, type=texts.text, metavar="URL", help="A node; repeatable: load is spread over all."
)
@click.argument("flags", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def bench(
    context: click.Context, /, node_count: int | None, urls: tuple[str, ...], flags: tuple[str, ...], **options: Any
) -> int:
    """Measure reads and writes.

    With --nodes, start nodes for that, with the other flags: those of the command serve, such as --max-items.
    """
    if node_count is None:
        if flags:
            raise click.UsageError(f"{flags[0]!r} is unknown; flags for nodes need --nodes")
        return _measure(urls_of(urls) or [DEFAULT_URL], _given(context), **(options | {"ca": ca_of(options["ca"])}))
    if urls:
        raise click.UsageError("give --url (measure what runs) or --nodes (start some), not both")
    if options["ca"] is not None:
        raise click.UsageError("--ca is for nodes that run (--url); those of --nodes are trusted by their --tls-ca")
    with terminable(), tempfile.TemporaryDirectory(prefix="cacheflow-bench-") as folder:
        # The nodes' log would spoil the progress bar; a node that does not start is reported all the same.
        token, passed = _token_and_flags(options["api_token_file"], flags)
        quiet = LocalCluster(node_count, Path(folder), flags=passed, token=token, say=lambda _: None)
        with quiet as running:
            running.start()
            running.wait_ready()
            return _measure(running.urls, _given(context), **(options | {"ca": running.ca}))


def _given(context: click.Context) -> set[str]:
    """Return the names of the options that were given on the command line, not by default."""
    return {
        name for name in context.params if context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
    }


def _measure(
    urls: list[str],
    given: set[str],
    *,
    ops: int,
    clients: int | None,
    value_bytes: int,
    write_ratio: float,
    batch: int,
    key_count: int,
    trace: Path | None,
    strict: bool,
    as_json: bool,
    api_token_file: Path | None,
    ca: Path | None,
) -> int:
    token = token_of(api_token_file)
    if trace is None:
        with Bar(ops) as bar:
            report = load.run_load(
                urls,
                ops,
                clients=8 if clients is None else clients,
                value_bytes=value_bytes,
                write_ratio=write_ratio,
                batch=batch,
                keys=key_count,
                token=token,
                ca=ca,
                progress=bar.advance,
            )
    else:
        requests = load.read_trace(trace)
        requests = requests[:ops] if "ops" in given else requests
        with Bar(len(requests)) as bar:
            report = load.replay(
                urls,
                requests,
                clients=1 if clients is None else clients,
                value_bytes=value_bytes,
                strict=strict,
                token=token,
                ca=ca,
                progress=bar.advance,
            )
    _print_report(report, as_json, trace is not None)
    if not any(tally.ops for tally in report.tallies.values()):
        return _complain(f"no node answered: {report.first_error}", NOBODY)
    return 0 if report.first_error is None else NO


def _print_report(report: load.Report, as_json: bool, is_trace: bool) -> None:
    summary: dict[str, Any] = {"elapsed_s": round(report.elapsed_s, 3), "first_error": report.first_error}
    total = sum(tally.ops for tally in report.tallies.values())
    summary["ops_per_s"] = round(total / report.elapsed_s, 1) if report.elapsed_s else 0.0
    if report.hits + report.misses:
        summary |= {"hits": report.hits, "misses": report.misses, "hit_ratio": round(report.hit_ratio, 4)}
    if as_json:
        print_json({"kinds": report.rows(), **summary})
        return
    print_table(report.rows())
    click.echo(f"{total} operations in {report.elapsed_s:.2f} s: {summary['ops_per_s']:,.0f} a second")
    if is_trace:
        requests = report.hits + report.misses
        click.echo(
            f"hit ratio {report.hit_ratio:.2%} ({report.hits} of {requests}), "
            f"{requests / report.elapsed_s:,.0f} requests a second"
        )
    if report.first_error is not None:
        click.echo(f"first error: {report.first_error}")
