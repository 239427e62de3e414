"""The command ``cacheflow nodes``: who the members are and what is changing, and the changes that an operator makes.

A node is named by its id or by the beginning of it, if no other member's begins so: ids that nobody chose are UUIDs.
"""

from __future__ import annotations

import contextlib
from typing import Any, Final

import click

from cacheflow.cli import texts
from cacheflow.cli.options import client_of, client_options, connection_options
from cacheflow.cli.printing import print_json, print_table
from cacheflow.client.client import CacheClient
from cacheflow.errors import CacheFlowError, InvalidRequest, MemberUnknown

# Seconds for the leader, which alone knows how far the others are behind: without its answer the table lacks that.
LEADER_WITHIN_S: Final = 2.0


@click.group(invoke_without_command=True)
@connection_options
@click.pass_context
def nodes(context: click.Context, /, as_json: bool, **told: Any) -> int:
    """Print the members of the cluster, with pending changes. The commands below change who is a member, and who votes."""
    if context.invoked_subcommand is not None:
        if any(context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE for name in context.params):
            raise click.UsageError(
                f"give the options behind the command: cacheflow nodes {context.invoked_subcommand} ID ..."
            )
        return 0
    with client_of(**told) as client:
        status = client.status()
    members = _with_lags(status, told)
    if as_json:
        print_json(members)
    else:
        print_table([_row(member, members, status) for member in members])
    return 0


_node_id = click.argument("node_id", type=texts.text, metavar="ID")


@nodes.command()
@_node_id
@client_options
def remove(client: CacheClient, node_id: str, as_json: bool) -> int:
    """Remove a member for good. It stays out, even if it is started again; exit code 1 when there is no such member."""
    found = _named(client, node_id)
    # The node was a member a moment ago: if it is unknown now, a first request has removed it, and its answer was lost.
    with contextlib.suppress(MemberUnknown):
        client.remove_node(found)
    return _tell(as_json, {"id": found, "status": "removed"}, f"{found} is removed")


@nodes.command()
@_node_id
@client_options
def promote(client: CacheClient, node_id: str, as_json: bool) -> int:
    """Give a member a vote. A member that votes already stays as it is."""
    found = _named(client, node_id)
    return _tell(as_json, client.promote_node(found), f"{found} is a voter")


@nodes.command()
@_node_id
@client_options
def demote(client: CacheClient, node_id: str, as_json: bool) -> int:
    """Take away a member's vote: it goes on serving. A member without a vote stays as it is."""
    found = _named(client, node_id)
    return _tell(as_json, client.demote_node(found), f"{found} is no voter")


@nodes.command()
@click.argument("node_id", type=texts.text, metavar="[ID]", required=False)
@client_options
def transfer(client: CacheClient, node_id: str | None, as_json: bool) -> int:
    """Have the leader hand leadership to a voter: to ID, or to the one whose log is most complete."""
    leader = client.transfer_leadership(None if node_id is None else _named(client, node_id))
    return _tell(as_json, {"leader": leader}, f"{leader} leads")


def _tell(as_json: bool, document: dict[str, Any], text: str) -> int:
    if as_json:
        print_json(document)
    else:
        click.echo(text)
    return 0


def _named(client: CacheClient, given: str) -> str:
    """Return the id of the member that ``given`` names: the whole id, or the beginning of one id only.

    Raises MemberUnknown; InvalidRequest if several ids begin with ``given``.
    """
    ids = [str(member["id"]) for member in client.nodes()]
    if given in ids:
        return given
    found = sorted(each for each in ids if given and each.startswith(given))
    if len(found) > 1:
        raise InvalidRequest(f"{given!r} may be {' or '.join(found)}")
    if not found:
        raise MemberUnknown(f"no member is called {given!r}, nor begins so; there are {', '.join(sorted(ids))}")
    return found[0]


def _with_lags(status: dict[str, Any], told: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the members in ``status``, a node's view of the cluster, each with its lag, as the leader knows that.

    told: the command's options by name: the nodes' URLs, the timeout, and the files of the token and of the CA.
    """
    members: list[dict[str, Any]] = status["members"]
    leading = [member for member in members if member["role"] == "leader" and member["address"]]
    if not leading or leading[0]["id"] == status["node_id"]:
        return members
    url = _url_beside(leading[0]["address"], told["urls"])
    try:
        with client_of(**{**told, "urls": (url,), "timeout": min(LEADER_WITHIN_S, told["timeout"])}) as client:
            lags = {member["id"]: member["lag"] for member in client.status()["members"]}
    except CacheFlowError:
        # The leader may be reachable for nodes alone, or have died just now: the lags are left out.
        return members
    return [{**member, "lag": lags.get(member["id"])} for member in members]


def _url_beside(address: str, urls: tuple[str, ...]) -> str:
    """Return the URL of the member at ``address``, a host:port, with the scheme of the nodes' ``urls`` in a command."""
    if "://" in address:
        return address
    scheme = "https" if urls and urls[0].startswith("https://") else "http"
    return f"{scheme}://{address}"


def _row(member: dict[str, Any], members: list[dict[str, Any]], status: dict[str, Any]) -> dict[str, Any]:
    """Return a member of the cluster as one row of the table that the command prints for people."""
    seen_s = member["last_seen"]
    change = member.get("change") or {}
    return {
        "id": member["id"],
        "address": member["address"],
        "role": role_of(member, members, (status.get("configuration") or {}).get("replicas")),
        "status": member["status"],
        "lag": member.get("lag"),
        "seen": "never" if seen_s is None else f"{seen_s:.0f} s ago",
        "level": member.get("level"),
        "build": member.get("build"),
        "change": change_text(change),
    }


def role_of(member: dict[str, Any], members: list[dict[str, Any]], replicas: int | None) -> str:
    """Return what ``member`` is in the cluster: leader, voter, observer, learner (about to get a vote) or spare.

    replicas: how many nodes beside the leader are to vote; None if that is unknown.
    """
    if member["role"] == "leader":
        return "leader"
    if member.get("voter"):
        return "voter"
    if member.get("observer"):
        return "observer"
    voters = sum(1 for each in members if each.get("voter"))
    # Whoever has no vote while one is missing is about to get it.
    return "learner" if replicas is not None and voters <= replicas else "spare"


def change_text(change: dict[str, Any]) -> str:
    """Return ``change``, what is under way for a member, as text for people: what it is, and in how many seconds it is due.

    A member is replaced once there is a spare for that.
    """
    what, due = change.get("what"), change.get("due")
    if due is None:
        return "replacement: no spare" if what == "replacement" else what or ""
    return f"{what or ''} in {max(due, 0.0):.0f} s".strip()
