"""The routes of ``/cache``: one key, many keys, batches. Views raise errors; problems.py turns them into answers."""

from __future__ import annotations

from collections.abc import Generator
from json.encoder import encode_basestring as json_string
from typing import Any

from flask import Blueprint, request

from cacheflow import verbs
from cacheflow.access.roles import Role
from cacheflow.arguments import KEYS_MAX, KEYS_PAGE, check_read, check_size, known_fields, shown
from cacheflow.contract import DATA, RestStore
from cacheflow.errors import InvalidRequest, KeyNotFound, PreconditionFailed
from cacheflow.machine.language import commands
from cacheflow.machine.language.commands import Command, Result
from cacheflow.operations import value_members
from cacheflow.rest.answers import JSON_TYPE, Answer, json_answer, raw_of, seconds_json
from cacheflow.rest.long_answers import IN_TURN_BYTES_MIN, LONG_BYTES_MIN, LongAnswer, long_json
from cacheflow.rest.request import checks
from cacheflow.rest.request.auth import require
from cacheflow.rest.request.bodies import is_json, parse_json, read_body, read_object
from cacheflow.rest.request.context import Services
from cacheflow.rest.request.headers import (
    UNCONDITIONAL,
    Condition,
    prefers_raw,
    read_condition,
    repeatable,
    write_condition,
)
from cacheflow.rest.request.paths import Query, decode_key, parse_query
from cacheflow.rest.request.waiting import BARRIER, IN_TURN, Steps, run_one, waits
from cacheflow.rest.routes.batch import parse_batch, render_results, result_of_reads
from cacheflow.results import Item
from cacheflow.verbs import seconds_left

# An entry changes whenever somebody writes: nobody may keep an answer without asking again, which the ETag makes cheap.
_NO_CACHE = ("Cache-Control", "no-cache")
_VARY = ("Vary", "Accept")
# The parameters of a query that say how to read.
_READ_OPTIONS = frozenset(("consistency", "max_staleness", "peek", "recency"))
# A stored page must not run as a part of this origin, where its scripts could call the API.
_RAW_GUARDS = (("X-Content-Type-Options", "nosniff"), ("Content-Security-Policy", "sandbox"))


def cache_blueprint(services: Services) -> Blueprint:
    """Return the Flask blueprint of the routes at and below ``/cache``.

    The argument ``raw_key`` of its views is the key in the path, each byte as one character (see routing.py).
    """
    blueprint = Blueprint("cache", __name__)
    store, limits = services.store, services.limits

    @blueprint.get("/cache/<path:raw_key>", endpoint="get")
    @waits(services)
    def get(raw_key: str) -> Steps:
        environ = request.environ
        key = decode_key(raw_key, environ)
        query = parse_query(environ)
        if query:
            raw = checks.flag(query, "raw")
            item = yield from _read(store, key, query)
        else:
            raw, item = False, store.get_item(key)
        has_condition = "HTTP_IF_NONE_MATCH" in environ or "HTTP_IF_MATCH" in environ
        if (
            item is not None
            and len(item.data) >= IN_TURN_BYTES_MIN
            # A 304 or 412 is a short answer.
            and not (has_condition and read_condition(environ, item.version))
        ):
            # Nobody keeps the value while this request waits, perhaps behind hundreds.
            item = None
            yield IN_TURN
            item = _read_again(store, key, query)
        if item is None:
            raise KeyNotFound("the key is absent")
        headers = services.raft_headers()
        headers += (("ETag", f'"{item.version}"'), _NO_CACHE, _VARY)
        if has_condition:
            ends = read_condition(environ, item.version)
            if ends == 304:
                return Answer(b"", 304, headers)
            if ends == 412:
                raise PreconditionFailed(f"the key is at version {item.version}", item.version)
        media_type, body = raw_of(item)
        if raw or prefers_raw(environ.get("HTTP_ACCEPT"), media_type):
            headers.append(("Content-Type", media_type))
            headers += _RAW_GUARDS
            return Answer(body, 200, headers)
        headers.append(JSON_TYPE)
        if len(item.data) >= LONG_BYTES_MIN:
            return LongAnswer(long_json(item), headers)
        return Answer(_item_json(item), 200, headers)

    @blueprint.put("/cache/<path:raw_key>", endpoint="put")
    @waits(services)
    def put(raw_key: str) -> Steps:
        environ = request.environ
        key = decode_key(raw_key, environ)
        query = parse_query(environ)
        body = read_body(environ, limits.body_bytes_max)
        content_type = environ.get("CONTENT_TYPE") or None
        value: Any = body
        ttl, keep_ttl = (checks.seconds(query, "ttl"), checks.flag(query, "keep_ttl")) if query else (None, False)
        if is_json(content_type):
            content_type = None
            value, ttl = _parse_put(body, ttl)
        command = verbs.write(key, value, ttl, keep_ttl, content_type)
        check_size(command, limits.value_bytes_max)
        condition = write_condition(environ)
        repeat = repeatable(environ, store.first_index)
        if condition is not UNCONDITIONAL:
            command = (*command[:6], *(yield from _write_condition(store, condition, key, repeat)))
        _, version, created, expires_at_ms = yield from run_one(key, command, repeat)
        # The TTL that was set, in milliseconds as the log has it; with keep_ttl what is left of the old one.
        ttl_ms = command[5]
        ttl = seconds_left(expires_at_ms, store.now_ms()) if ttl_ms < 0 else ttl and ttl_ms / 1000
        headers = services.raft_headers()
        headers += (("ETag", f'"{version}"'), JSON_TYPE)
        text = f'{{"key":{json_string(key)},"version":{version},"ttl":{seconds_json(ttl)}}}'
        return Answer(text.encode(), 201 if created else 200, headers)

    @blueprint.delete("/cache/<path:raw_key>", endpoint="delete")
    @waits(services)
    def delete(raw_key: str) -> Steps:
        environ = request.environ
        key = decode_key(raw_key, environ)
        condition = write_condition(environ)
        if condition.absent:
            raise InvalidRequest("If-None-Match makes no sense with DELETE")
        repeat = repeatable(environ, store.first_index)
        only_if = yield from _one_version(store, condition, key, repeat)
        try:
            yield from run_one(key, verbs.delete_command(key, only_if), repeat)
        except KeyNotFound:
            # RFC 9110, 13.1.1: what is absent fails If-Match, whatever that names.
            if condition.present:
                raise PreconditionFailed("the key is absent") from None
            raise
        return json_answer({"key": key, "deleted": True}, services.raft_headers())

    @blueprint.post("/cache/<path:raw_key>/incr", endpoint="incr")
    @waits(services)
    def incr(raw_key: str) -> Steps:
        environ = request.environ
        key = decode_key(raw_key, environ)
        fields = read_object(environ, limits.body_bytes_max)
        known_fields(fields, ("delta", "initial", "ttl"))
        command = verbs.incr_command(key, fields.get("delta", 1), fields.get("initial"), fields.get("ttl"))
        _, version, number, expires_at_ms = yield from run_one(key, command, repeatable(environ, store.first_index))
        ttl = seconds_left(expires_at_ms, store.now_ms())
        return json_answer({"key": key, "value": number, "version": version, "ttl": ttl}, services.raft_headers())

    @blueprint.post("/cache/<path:raw_key>/touch", endpoint="touch")
    @waits(services)
    def touch(raw_key: str) -> Steps:
        environ = request.environ
        key = decode_key(raw_key, environ)
        fields = read_object(environ, limits.body_bytes_max)
        known_fields(fields, ("ttl",))
        if "ttl" not in fields:
            raise InvalidRequest('"ttl" is needed: seconds, or null for none')
        command = verbs.touch_command(key, fields["ttl"])
        yield from run_one(key, command, repeatable(environ, store.first_index))
        return json_answer({"key": key, "ttl": command[2] / 1000 if command[2] else None}, services.raft_headers())

    @blueprint.post("/cache/_batch", endpoint="batch")
    @waits(services)
    def batch() -> Steps:
        environ = request.environ
        fields = read_object(environ, limits.body_bytes_max)
        known_fields(fields, ("ops", "atomic"))
        atomic = fields.get("atomic", False)
        if type(atomic) is not bool:
            raise InvalidRequest("atomic is true or false")
        parsed = parse_batch(fields.get("ops"), limits.value_bytes_max)
        repeat = repeatable(environ, store.first_index)
        query = parse_query(environ)
        # What is to be done once is kept in the log, even if it only reads.
        if repeat is not None or any(command[0] != commands.GET for command in parsed):
            require(environ, Role.WRITE)
            if not _READ_OPTIONS.isdisjoint(query):
                raise InvalidRequest("consistency, max_staleness, peek and recency are for a batch of nothing but get")
            result = yield from run_one("", commands.batch(parsed, atomic), repeat)
        else:
            result = yield from _read_many(store, parsed, atomic, query)
        results = [result] if result[0] == commands.ABORTED else result[1]
        return Answer(render_results(parsed, results), 200, [*services.raft_headers(), JSON_TYPE])

    @blueprint.get("/cache", endpoint="keys")
    def keys() -> Answer:
        query = parse_query(request.environ)
        limit = checks.integer(query, "limit", 1, KEYS_MAX) or KEYS_PAGE
        # Before the first key is looked at: a watch from there on tells every change that the list may lack.
        position = store.watching.position()
        found, cursor = store.keys_page(checks.prefix(query) or "", limit, query.get("cursor") or None)
        headers = [*services.raft_headers(), ("X-Watch-Position", position)]
        return json_answer({"keys": found, "cursor": cursor}, headers)

    @blueprint.delete("/cache", endpoint="clear")
    @waits(services)
    def clear() -> Steps:
        environ = request.environ
        query = parse_query(environ)
        everything, prefix = checks.flag(query, "all"), checks.prefix(query)
        if everything == bool(prefix):
            raise InvalidRequest("give either ?prefix=, not empty, or ?all=true")
        command = commands.delete_prefix(prefix) if prefix else commands.clear_database(0, counted=True)
        _, deleted = yield from run_one("", command, repeatable(environ, store.first_index))
        return json_answer({"deleted": deleted}, services.raft_headers())

    return blueprint


def _item_json(item: Item) -> bytes:
    return (
        f'{{"key":{json_string(item.key)},{value_members(item.data, item.kind, item.meta)}'
        f',"ttl":{seconds_json(item.ttl_s)},"version":{item.version}}}'
    ).encode()


def _read(store: RestStore, key: str, query: Query) -> Generator[list[Command], list[Result], Item | None]:
    """Read ``key`` with the consistency that the parameters ``query`` of an HTTP request ask for.

    A generator: it first yields a GET command to be replicated, or BARRIER, to wait until this node has applied all writes
    acknowledged so far, or nothing. It returns the key's item, or None for an absent key.
    """
    consistency, max_staleness, peek, strict = _read_options(query)
    if strict:
        [result] = yield [commands.get(key)]
        return verbs.item_of(key, result, store.now_ms())
    if consistency == "linearizable":
        yield BARRIER
        return store.read_applied(key, peek=peek)
    return store.get_item(key, consistency=consistency, max_staleness=max_staleness, peek=peek)


def _read_again(store: RestStore, key: str, query: Query) -> Item | None:
    """Return the present item of ``key``, None for an absent key, for an HTTP read that has looked the key up before.

    query: the parameters of the HTTP request, which tell the consistency.
    """
    consistency, max_staleness, _, strict = _read_options(query)
    return store.read_again(key, applied=strict or consistency == "linearizable", max_staleness=max_staleness)


def _read_many(
    store: RestStore, reads: list[Command], atomic: bool, query: Query
) -> Generator[list[Command], list[Result], Result]:
    """Return the result that a batch of the GET commands ``reads`` has, read from memory at one moment.

    A generator: it first yields a command to be replicated, or BARRIER, to wait until this node has applied all writes
    acknowledged so far, or nothing.
    query: the parameters of the HTTP request, which tell the consistency.
    """
    consistency, max_staleness, peek, strict = _read_options(query)
    if strict:
        return (yield from run_one("", commands.batch(reads, atomic), None))
    applied = consistency == "linearizable"
    if applied:
        yield BARRIER
    keys = [key for _, key in reads]
    entries = store.read_many(keys, applied=applied, max_staleness=max_staleness, peek=peek)
    if sum(len(entry[DATA]) for entry in entries if entry is not None) >= IN_TURN_BYTES_MIN:
        # As in ``get``.
        entries = []
        yield IN_TURN
        entries = store.read_many(keys, applied=applied, max_staleness=max_staleness, again=True)
    return result_of_reads(entries, atomic)


def _read_options(query: Query) -> tuple[str, float | None, bool, bool]:
    """Return (consistency, max_staleness, peek, strict) as the parameters ``query`` of a read over HTTP name them, checked."""
    consistency = query.get("consistency")
    max_staleness = checks.seconds(query, "max_staleness")
    if consistency is None:
        consistency = "local" if max_staleness is None else "bounded"
    recency = query.get("recency")
    if recency not in (None, "strict"):
        raise InvalidRequest(f"recency is strict or absent, not {shown(recency)}")
    peek, strict = checks.flag(query, "peek"), recency == "strict"
    check_read(consistency, max_staleness, peek, strict)
    return consistency, max_staleness, peek, strict


def _parse_put(body: bytes, query_ttl: float | None) -> tuple[Any, float | None]:
    """Return (value, ttl) from ``body``, the JSON body of a PUT. Raises InvalidRequest, also for an empty body.

    query_ttl: the TTL in the URL's query, used if the body has none.
    """
    fields = parse_json(body)
    if type(fields) is not dict:
        raise InvalidRequest('the body must be a JSON object with "value"')
    if "value" not in fields:
        raise InvalidRequest('"value" is missing')
    value = fields["value"]
    if len(fields) == 1:
        return value, query_ttl
    known_fields(fields, ("value", "ttl"))
    if query_ttl is not None:
        raise InvalidRequest("ttl is given twice, in the query and in the body")
    return value, fields["ttl"]


def _write_condition(
    store: RestStore, condition: Condition, key: str, repeat: Command | None
) -> Generator[list[Command], list[Result], tuple[int, int]]:
    """Return (when, version), the arguments of the command SET that express ``condition``, a condition for writing ``key``.

    A generator: if the condition names several versions, it yields BARRIER, to wait until this node has applied all writes
    acknowledged so far. repeat: not None if the write may be sent again; several versions are refused then.
    """
    if condition.absent:
        return commands.IF_ABSENT, 0
    version = yield from _one_version(store, condition, key, repeat)
    return (commands.IF_PRESENT, 0) if version is None else (commands.IF_VERSION, version)


def _one_version(
    store: RestStore, condition: Condition, key: str, repeat: Command | None
) -> Generator[list[Command], list[Result], int | None]:
    """Return the version that ``key`` must have by ``condition`` for a write to take place, or None for any version.

    A generator: if the condition names several versions, it yields BARRIER, to wait until this node has applied all writes
    acknowledged so far, and returns the key's version then, which the write is to compare again.
    repeat: not None if the write may be sent again; several versions are refused then.
    """
    versions = condition.versions
    if versions is None:
        return None
    if len(versions) == 1:
        return versions[0]
    if versions and repeat is not None:
        raise InvalidRequest(
            "with an Idempotency-Key or -Scope, If-Match takes one version: a retry must be the same command"
        )
    if versions:
        yield BARRIER
        item = store.read_applied(key, peek=True)
    else:
        item = store.get_item(key, peek=True)
    if item is None or item.version not in versions:
        raise PreconditionFailed("no version in If-Match is the key's", item.version if item is not None else 0)
    return item.version
