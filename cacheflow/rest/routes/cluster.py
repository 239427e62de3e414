"""The routes of ``/nodes`` and ``/cluster``: members, leadership, and digests of the contents."""

from __future__ import annotations

from flask import Blueprint, request

from cacheflow.arguments import check_digest, known_fields, shown
from cacheflow.config import RAFT_PORT_OFFSET, ROLES, VOTER, join_address, split_address
from cacheflow.errors import InvalidRequest
from cacheflow.machine.language.commands import INT64_MAX
from cacheflow.rest.answers import Answer, json_answer
from cacheflow.rest.problems import Problem
from cacheflow.rest.request import checks
from cacheflow.rest.request.bodies import read_object
from cacheflow.rest.request.context import Services
from cacheflow.rest.request.paths import parse_query


def cluster_blueprint(services: Services) -> Blueprint:
    """Return the Flask blueprint of the routes below ``/nodes`` and ``/cluster``."""
    blueprint = Blueprint("cluster", __name__)
    store, gate = services.store, services.thread_gate

    @blueprint.get("/nodes/list", endpoint="nodes")
    def nodes() -> Answer:
        return json_answer(store.nodes(), services.raft_headers())

    @blueprint.post("/nodes/register", endpoint="register")
    def register() -> Answer:
        fields = read_object(request.environ, services.limits.body_bytes_max)
        known_fields(fields, ("id", "address", "raft_address", "was_member", "role"))
        node_id = checks.text_field(fields, "id")
        if "raft_address" not in fields:
            address = checks.text_field(fields, "address")
            raft_address = _raft_address_beside(address)
        else:
            raft_address = checks.text_field(fields, "raft_address")
            _split(raft_address, "raft_address")
            # An empty address is that of an embedded node, which serves no HTTP.
            address = "" if fields.get("address") == "" else checks.text_field(fields, "address")
            if address:
                _split(address, "address")
        was_member = fields.get("was_member", False)
        if type(was_member) is not bool:
            raise InvalidRequest(f'"was_member" is true or false, not {shown(was_member)}')
        role = fields.get("role", VOTER)
        if type(role) is not str or role not in ROLES:
            raise InvalidRequest(f'"role" is voter or observer, not {shown(role)}')
        with gate:
            joined = store.register(node_id, address, raft_address, was_member, role)
        member = {"id": node_id, "address": address, "raft_address": raft_address}
        return json_answer(
            {**member, "status": "joined" if joined else "known"}, services.raft_headers(), 201 if joined else 200
        )

    @blueprint.delete("/nodes/<raw_id>", endpoint="remove")
    def remove(raw_id: str) -> Answer:
        with gate:
            store.remove_node(raw_id)
        return Answer(b"", 204, services.raft_headers())

    @blueprint.post("/nodes/<raw_id>/promote", endpoint="promote")
    def promote(raw_id: str) -> Answer:
        with gate:
            return json_answer(store.promote_node(raw_id), services.raft_headers())

    @blueprint.post("/nodes/<raw_id>/demote", endpoint="demote")
    def demote(raw_id: str) -> Answer:
        with gate:
            return json_answer(store.demote_node(raw_id), services.raft_headers())

    @blueprint.get("/cluster/status", endpoint="status")
    def status() -> Answer:
        # What is wrong with this node, beside what it knows of the others: whoever looks at one wants to see both.
        ready = [{"name": name, "passed": passed, "detail": detail} for name, passed, detail in services.readiness()]
        return json_answer({**store.status(), "checks": ready}, services.raft_headers())

    @blueprint.post("/cluster/leader", endpoint="leader")
    def leader() -> Answer:
        fields = read_object(request.environ, services.limits.body_bytes_max)
        known_fields(fields, ("id",))
        node_id = checks.text_field(fields, "id") if "id" in fields else None
        with gate:
            new_leader = store.transfer_leadership(node_id)
        return json_answer({"leader": new_leader}, services.raft_headers())

    @blueprint.post("/cluster/level", endpoint="level")
    def level() -> Answer:
        fields = read_object(request.environ, services.limits.body_bytes_max)
        known_fields(fields, ("level",))
        with gate:
            in_force = store.raise_level(fields.get("level"))
        return json_answer({"level": in_force}, services.raft_headers())

    @blueprint.get("/cluster/digest", endpoint="digest")
    def digest() -> Answer:
        query = parse_query(request.environ)
        index, full = checks.integer(query, "index", 0, INT64_MAX), checks.flag(query, "full")
        check_digest(index, full)
        if full:
            with gate:  # hashing a large cache takes seconds
                found = store.digest(full=True)
        else:
            found = store.digest(index=index)
        if found is None:
            raise Problem(
                "the digest of this index is not known here: not applied yet, or longer ago than 10,000 entries",
                status=404,
                title="Digest not known",
                kind="urn:cacheflow:digest-not-known",
            )
        return json_answer({"index": found.index, "digest": found.digest}, services.raft_headers())

    return blueprint


def _split(address: str, name: str) -> tuple[str, int]:
    """Return (host, port) of the text ``address``: ``host:port``, ``[::1]:port``, or an http URL of these.

    Raises InvalidRequest that names the JSON field ``name``, in which the address stood.
    """
    try:
        host, port = split_address(address.removeprefix("http://").removeprefix("https://").rstrip("/"))
        if port:
            return host, port
    except ValueError:
        pass
    raise InvalidRequest(f'"{name}" is host:port, not {shown(address)}')


def _raft_address_beside(address: str) -> str:
    """Return the default Raft address of a node that serves HTTP at ``address``: the same host, its port + RAFT_PORT_OFFSET.

    Raises InvalidRequest when there is no such port.
    """
    host, port = _split(address, "address")
    if port + RAFT_PORT_OFFSET > 65535:
        raise InvalidRequest(f'"raft_address" is needed: the port of "address" + {RAFT_PORT_OFFSET} is over 65535')
    return join_address(host, port + RAFT_PORT_OFFSET)
