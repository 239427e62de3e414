"""``/cache``: one key, many keys, batches. No try/except here: problems.py turns every error into its answer."""

from __future__ import annotations

from json.encoder import encode_basestring as json_string
from typing import Any

from flask import Blueprint, request

from cacheflow import values
from cacheflow.errors import InvalidRequest, KeyNotFound, PreconditionFailed, ValueTooLarge
from cacheflow.machine import commands
from cacheflow.outcomes import error_of, ttl_to_ms
from cacheflow.rest import checks
from cacheflow.rest.answers import JSON_TYPE, Answer, json_answer, raw_type, seconds_json, value_members
from cacheflow.rest.batch import BatchParser, render_results
from cacheflow.rest.bodies import is_json, parse_json, parse_object, read_body
from cacheflow.rest.context import Services
from cacheflow.rest.headers import (
    UNCONDITIONAL,
    Condition,
    idempotency_key,
    prefers_raw,
    read_condition,
    write_condition,
)
from cacheflow.rest.paths import Query, decode_key, parse_query
from cacheflow.results import Item, SetResult

KEYS_DEFAULT = 1000
# With keys of 1 KiB that is an answer of 10 MiB.
KEYS_MAX = 10_000
CONSISTENCY_LEVELS = ("local", "bounded", "linearizable")

# An entry changes whenever somebody writes: nobody may keep an answer without asking again, which the ETag makes cheap.
_NO_CACHE = ("Cache-Control", "no-cache")
_VARY = ("Vary", "Accept")
# A stored page must not run as a part of this origin, where the dashboard lives.
_RAW_GUARDS = (("X-Content-Type-Options", "nosniff"), ("Content-Security-Policy", "sandbox"))


def cache_blueprint(services: Services) -> Blueprint:
    """The routes below ``/cache``. A view's ``raw_key`` is the path's bytes (see routing.py)."""
    blueprint = Blueprint("cache", __name__)
    store, gate, config = services.store, services.gate, services.config
    body_bytes_max = config.body_bytes_max
    batch_parser = BatchParser(config.max_value_bytes)

    @blueprint.get("/cache/<path:raw_key>", endpoint="get")
    def get(raw_key: str) -> Answer:
        environ = request.environ
        key = decode_key(raw_key, environ)
        query = parse_query(environ)
        item = _read(services, key, query) if query else store.read(key)
        if item is None:
            raise KeyNotFound("the key is absent")
        headers = services.raft_headers()
        headers += (("ETag", f'"{item.version}"'), _NO_CACHE, _VARY)
        if "HTTP_IF_NONE_MATCH" in environ or "HTTP_IF_MATCH" in environ:
            ends = read_condition(environ, item.version)
            if ends == 304:
                return Answer(b"", 304, headers)
            if ends == 412:
                raise PreconditionFailed(f"the key is at version {item.version}", item.version)
        media_type = raw_type(item)
        if checks.flag(query, "raw") or prefers_raw(environ.get("HTTP_ACCEPT"), media_type):
            headers.append(("Content-Type", media_type))
            headers += _RAW_GUARDS
            return Answer(item.data, 200, headers)
        headers.append(JSON_TYPE)
        return Answer(_item_json(item), 200, headers)

    @blueprint.put("/cache/<path:raw_key>", endpoint="put")
    def put(raw_key: str) -> Answer:
        environ = request.environ
        key = decode_key(raw_key, environ)
        query = parse_query(environ)
        body = read_body(environ, body_bytes_max)
        content_type = environ.get("CONTENT_TYPE") or None
        value: Any = body
        ttl = checks.seconds(query, "ttl")
        if is_json(content_type):
            content_type = None
            value, ttl = _parse_put(body, ttl)
        _check_size(value, len(body), config.max_value_bytes)
        keep_ttl = checks.flag(query, "keep_ttl")
        if keep_ttl and ttl is not None:
            raise InvalidRequest("ttl and keep_ttl exclude each other")
        condition = write_condition(environ)
        client_key = idempotency_key(environ)
        with gate:
            if condition is UNCONDITIONAL:
                written = store.set(
                    key, value, ttl=ttl, keep_ttl=keep_ttl, content_type=content_type, idempotency_key=client_key
                )
            else:
                written = _set_conditionally(services, condition, key, value, ttl, keep_ttl, content_type, client_key)
        headers = services.raft_headers()
        headers += (("ETag", f'"{written.version}"'), JSON_TYPE)
        text = (
            f'{{"key":{json_string(key)},"version":{written.version},"ttl":{seconds_json(_told(ttl, written.ttl_s))}}}'
        )
        return Answer(text.encode(), 201 if written.created else 200, headers)

    @blueprint.delete("/cache/<path:raw_key>", endpoint="delete")
    def delete(raw_key: str) -> Answer:
        environ = request.environ
        key = decode_key(raw_key, environ)
        condition = write_condition(environ)
        if condition.absent:
            raise InvalidRequest("If-None-Match makes no sense with DELETE")
        client_key = idempotency_key(environ)
        with gate:
            only_if = _one_version(services, condition, key, client_key)
            deleted = store.delete(key, only_if_version=only_if, idempotency_key=client_key)
        if not deleted:
            # RFC 9110, 13.1.1: what is absent fails If-Match, whatever that names.
            raise PreconditionFailed("the key is absent") if condition.present else KeyNotFound("the key is absent")
        return json_answer({"key": key, "deleted": True}, services.raft_headers())

    @blueprint.post("/cache/<path:raw_key>/incr", endpoint="incr")
    def incr(raw_key: str) -> Answer:
        environ = request.environ
        key = decode_key(raw_key, environ)
        fields = parse_object(read_body(environ, body_bytes_max))
        checks.known_fields(fields, ("delta", "initial", "ttl"))
        initial = fields.get("initial")
        if initial is not None:
            checks.int64(initial, "initial")
        delta = checks.int64(fields.get("delta", 1), "delta")
        ttl = checks.ttl_or_none(fields.get("ttl"))
        client_key = idempotency_key(environ)
        with gate:
            counted = store.incr(key, delta, initial=initial, ttl=ttl, idempotency_key=client_key)
        return json_answer({"key": key, "value": int(counted), "version": counted.version}, services.raft_headers())

    @blueprint.post("/cache/<path:raw_key>/touch", endpoint="touch")
    def touch(raw_key: str) -> Answer:
        environ = request.environ
        key = decode_key(raw_key, environ)
        fields = parse_object(read_body(environ, body_bytes_max))
        checks.known_fields(fields, ("ttl",))
        if "ttl" not in fields:
            raise InvalidRequest('"ttl" is needed: seconds, or null for none')
        ttl = checks.ttl_or_none(fields["ttl"])
        client_key = idempotency_key(environ)
        with gate:
            present = store.touch(key, ttl, idempotency_key=client_key)
        if not present:
            raise KeyNotFound(f"{key!r} is absent")
        return json_answer({"key": key, "ttl": _told(ttl, None)}, services.raft_headers())

    @blueprint.post("/cache/_batch", endpoint="batch")
    def batch() -> Answer:
        environ = request.environ
        fields = parse_object(read_body(environ, body_bytes_max))
        checks.known_fields(fields, ("ops", "atomic"))
        atomic = fields.get("atomic", False)
        if type(atomic) is not bool:
            raise InvalidRequest("atomic is true or false")
        parsed = batch_parser.parse(fields.get("ops"))
        client_key = idempotency_key(environ)
        with gate:
            results = store.batch(parsed, atomic=atomic, idempotency_key=client_key)
        body = render_results(parsed, results)
        return Answer(body, 200, [*services.raft_headers(), JSON_TYPE])

    @blueprint.get("/cache", endpoint="keys")
    def keys() -> Answer:
        query = parse_query(request.environ)
        limit = checks.integer(query, "limit", 1, KEYS_MAX) or KEYS_DEFAULT
        found, cursor = store.keys_page(checks.prefix(query) or "", limit, query.get("cursor") or None)
        return json_answer({"keys": found, "cursor": cursor}, services.raft_headers())

    @blueprint.delete("/cache", endpoint="clear")
    def clear() -> Answer:
        environ = request.environ
        query = parse_query(environ)
        everything, prefix = checks.flag(query, "all"), checks.prefix(query)
        if everything == bool(prefix):
            raise InvalidRequest("give either ?prefix=, not empty, or ?all=true")
        client_key = idempotency_key(environ)
        with gate:
            deleted = store.delete_prefix(prefix or "", idempotency_key=client_key)
        return json_answer({"deleted": deleted}, services.raft_headers())

    return blueprint


def _told(ttl_s: float | None, left_s: float | None) -> float | None:
    """The TTL in a write's answer: what was set, as the log counts it; what is left only where it was kept."""
    return left_s if ttl_s is None else ttl_to_ms(ttl_s) / 1000


def _item_json(item: Item) -> bytes:
    return (
        f'{{"key":{json_string(item.key)},{value_members(item.data, item.kind, item.meta)}'
        f',"ttl":{seconds_json(item.ttl_s)},"version":{item.version}}}'
    ).encode()


def _read(services: Services, key: str, query: Query) -> Item | None:
    """A read as its query asks for."""
    consistency = query.get("consistency")
    max_staleness_s = checks.seconds(query, "max_staleness")
    if consistency is None:
        consistency = "local" if max_staleness_s is None else "bounded"
    elif consistency not in CONSISTENCY_LEVELS:
        raise InvalidRequest(f"consistency is one of {', '.join(CONSISTENCY_LEVELS)}, not {checks.shown(consistency)}")
    if (consistency == "bounded") != (max_staleness_s is not None):
        raise InvalidRequest("consistency=bounded and max_staleness=SECONDS go together")
    recency = query.get("recency")
    if recency not in (None, "strict"):
        raise InvalidRequest(f"recency is strict or absent, not {checks.shown(recency)}")
    peek, strict = checks.flag(query, "peek"), recency == "strict"
    if peek and strict:
        raise InvalidRequest("peek (count not) and recency=strict (count exactly) exclude each other")
    store = services.store
    if consistency == "linearizable" or strict:
        with services.gate:
            return store.read(
                key, consistency=consistency, max_staleness_s=max_staleness_s, count=not peek, strict=strict
            )
    return store.read(key, consistency=consistency, max_staleness_s=max_staleness_s, count=not peek)


def _parse_put(body: bytes, query_ttl: float | None) -> tuple[Any, float | None]:
    """(value, ttl) of the JSON envelope. An empty body is no envelope."""
    fields = parse_json(body)
    if type(fields) is not dict:
        raise InvalidRequest('the body must be a JSON object with "value"')
    if "value" not in fields:
        raise InvalidRequest('"value" is missing')
    value = fields["value"]
    if len(fields) == 1:
        return value, query_ttl
    checks.known_fields(fields, ("value", "ttl"))
    if query_ttl is not None:
        raise InvalidRequest("ttl is given twice, in the query and in the body")
    return value, checks.ttl_or_none(fields["ttl"])


# 1e15 becomes 1000000000000000.0: so much longer can the canonical spelling be than the one sent.
_JSON_GROWTH_MAX = 4


def _check_size(value: Any, body_bytes: int, value_bytes_max: int) -> None:
    """Refuse a value over the limit. Small bodies, which cannot hold one, are let through unmeasured."""
    if body_bytes * _JSON_GROWTH_MAX > value_bytes_max:
        size = len(values.encode(value)[1])
        if size > value_bytes_max:
            raise ValueTooLarge(f"the value has {size} bytes; the most is {value_bytes_max}")


def _set_conditionally(
    services: Services,
    condition: Condition,
    key: str,
    value: Any,
    ttl: float | None,
    keep_ttl: bool,
    content_type: str | None,
    client_key: str | None,
) -> SetResult:
    store = services.store
    if not condition.present or condition.versions is not None:
        return store.set(
            key,
            value,
            ttl=ttl,
            keep_ttl=keep_ttl,
            only_if_absent=condition.absent,
            only_if_version=_one_version(services, condition, key, client_key),
            content_type=content_type,
            idempotency_key=client_key,
        )
    # If-Match: * (any version will do) is a command of its own.
    kind, data = values.encode(value)
    ttl_for_log = commands.TTL_KEEP if keep_ttl else ttl_to_ms(ttl)
    command = commands.set_(key, data, kind, content_type, ttl_for_log, commands.IF_PRESENT)
    result = _run_one(services, command if client_key is None else commands.idempotent(client_key, command))
    if keep_ttl:
        item = store.read(key, count=False)
        ttl = item.ttl_s if item is not None else None
    return SetResult(version=result[1], created=False, ttl_s=ttl)


def _one_version(services: Services, condition: Condition, key: str, client_key: str | None) -> int | None:
    """The version that a write must find. Of several, the one the key has now: the write itself compares again."""
    versions = condition.versions
    if versions is None:
        return None
    if len(versions) == 1:
        return versions[0]
    if versions and client_key is not None:
        raise InvalidRequest("with an Idempotency-Key, If-Match takes one version: a retry must be the same command")
    item = services.store.read(key, consistency="linearizable" if versions else "local", count=False)
    if item is None or item.version not in versions:
        raise PreconditionFailed("no version in If-Match is the key's", item.version if item is not None else 0)
    return item.version


def _run_one(services: Services, command: commands.Command) -> commands.Result:
    [result] = services.store.run([command])
    if result[0] != commands.OK:
        raise error_of("", result)
    return result
