"""The command ``cacheflow recover``: what is on the disks of stopped nodes, and a new cluster of what is left of one."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import Any

import click

from cacheflow.cli import texts
from cacheflow.cli.printing import print_json, print_table
from cacheflow.errors import ConfigError
from cacheflow.machine.state.settings import Member
from cacheflow.raft.log.datadir import DataDirectory
from cacheflow.raft.log.disk import Disk
from cacheflow.raft.log.reading import flush_log
from cacheflow.raft.membership.recovery import Recovery, write_recovery
from cacheflow.raft.recovering import Found, decide_alone, decide_with, latest_of, look, read_rows

UNKNOWABLE = (
    "Only this disk was looked at: what only the lost nodes had acknowledged is gone, and this disk cannot know what "
    "that was."
)


@click.command()
@click.argument("directories", nargs=-1, required=True, type=texts.path, metavar="DATA_DIR...")
@click.option("--show", is_flag=True, help="Only show what is there; of several, name the latest.")
@click.option(
    "--force-new-cluster", is_flag=True, help="Make a new cluster of this node's data, in the place of the old."
)
@click.option(
    "--peers", type=texts.path, metavar="FILE", help="With the members that it names, whose data are there, too."
)
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--json", "as_json", is_flag=True, help="JSON for programs instead of text for people.")
def recover(
    directories: tuple[Path, ...], show: bool, force_new_cluster: bool, peers: Path | None, yes: bool, as_json: bool
) -> int:
    """Bring back a cluster that has lost its majority, from the data of a stopped node.

    --force-new-cluster makes of DATA_DIR, from the node's next start on, a cluster of that node alone. Everything in its log
    counts as committed. Start it, and let other nodes join with empty data directories and --seed. With --peers run it on the
    data of every node that the file names, with the same file, before any of them is started:

    [{"id": "n1", "raft_address": "10.0.0.1:9080"}, ...]

    Members of the old cluster that come back are refused, told why, and stop.
    """
    if show == force_new_cluster:
        raise click.UsageError("give --show or --force-new-cluster")
    if peers is not None and show:
        raise click.UsageError("--peers goes with --force-new-cluster")
    with contextlib.ExitStack() as locks:
        data = [locks.enter_context(_opened(path)) for path in directories]
        if force_new_cluster:
            # What counts as committed must not be in the system's memory alone.
            for each in data:
                flush_log(Disk(), each.path)
        found = [look(Disk(), each.path, each.node_id, each.incarnation) for each in data]
        latest = latest_of(found)
        if show:
            _show(directories, found, latest, as_json)
            return 0
        if len(found) > 1:
            name = directories[found.index(latest)]
            raise ConfigError(f"{name} has the latest log of these, {_position(latest)}: give it alone")
        decision = decide_alone(found[0], os.urandom) if peers is None else decide_with(found[0], read_rows(peers))
        if not yes:
            _ask(directories, found, decision, as_json)
        write_recovery(Disk(), data[0].path, decision)
    _tell(decision, as_json)
    return 0


def _opened(path: Path) -> DataDirectory:
    """Lock and return the data directory of a stopped node at ``path``.

    Raises ConfigError if there is no data directory, or a node uses it.
    """
    if not (path / "identity").is_file():
        raise ConfigError(f"{path} is no data directory of a node: it has no file identity")
    return DataDirectory(path, to_start=False)


def _show(directories: tuple[Path, ...], found: list[Found], latest: Found, as_json: bool) -> None:
    name = str(directories[found.index(latest)])
    if as_json:
        rows = [{"data_dir": str(path), **_described(each)} for path, each in zip(directories, found, strict=True)]
        print_json({"nodes": rows, "latest": name})
        return
    for path, each in zip(directories, found, strict=True):
        click.echo(f"{path}")
        described = _described(each)
        members = described.pop("members")
        print_table([{"name": key.replace("_", " "), "value": value} for key, value in described.items()])
        print_table(members)
        click.echo(
            f"entries up to {each.committed} were committed for certain; of {_behind(each)} behind them this disk does not know\n"
        )
    if len(found) > 1:
        click.echo(f"the latest log is in {name}: {_position(latest)}")
    click.echo(UNKNOWABLE)


def _described(found: Found) -> dict[str, Any]:
    pending = found.decision
    return {
        "node_id": found.node_id,
        "cluster_id": found.cluster_id,
        "replaced": ", ".join(found.replaced),
        "recovered_as": pending.cluster_id if pending is not None and pending.cluster_id != found.cluster_id else "",
        "term": found.term,
        "last_term": found.last_term,
        "index": found.index,
        "committed": found.committed,
        "uncommitted": found.index - found.committed,
        "digest": found.digest.hex(),
        "revision": found.revision,
        "items": found.items,
        "level": found.level,
        "members": [_row(member) for _, member in sorted(found.table.members.items())],
    }


def _row(member: Member) -> dict[str, Any]:
    return {
        "id": member.id,
        "raft_address": member.raft_address,
        "address": member.address,
        "voter": member.voter,
        "observer": member.observer,
        "incarnation": member.incarnation,
    }


def _position(found: Found) -> str:
    return f"term {found.last_term}, index {found.index}"


def _behind(found: Found) -> str:
    count = found.index - found.committed
    return f"{count} {'entry' if count == 1 else 'entries'}"


def _ask(directories: tuple[Path, ...], found: list[Found], decision: Recovery, as_json: bool) -> None:
    """Ask the user to confirm the recovery. Raises ConfigError if no terminal is there to ask at, click.Abort for a no."""
    if not sys.stdin.isatty():
        raise ConfigError("--force-new-cluster asks first, and there is no terminal: give --yes")
    if not as_json:
        _show(directories, found, found[0], as_json)
    members = ", ".join(f"{member.id} at {member.raft_address}" for member in decision.table.members.values())
    click.echo(
        f"All {found[0].index} entries of this log will count as committed. Cluster {found[0].cluster_id} ends: its "
        f"other members are refused and stop when they come back. A new cluster begins, of {members}.",
        err=True,
    )
    click.confirm("Make a new cluster?", abort=True, err=True)


def _tell(decision: Recovery, as_json: bool) -> None:
    members = decision.table.members
    if as_json:
        rows = [_row(member) for member in members.values()]
        print_json({"cluster_id": decision.cluster_id, "replaced": list(decision.replaced), "members": rows})
        return
    click.echo(f"cluster {decision.cluster_id} takes the place of {decision.replaced[-1]} at this node's next start")
    if len(members) > 1:
        click.echo(f"run the same on the data of each of {', '.join(members)}, before any of them is started")
    else:
        click.echo("start it now; other nodes join with empty data directories and --seed")
