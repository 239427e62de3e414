"""The specification (OpenAPI 3.1) of the REST API. A test fails when a route of the URL map is missing here."""

from __future__ import annotations

from typing import Any

from cacheflow import values
from cacheflow.access.roles import Role
from cacheflow.arguments import TTL_S_MAX
from cacheflow.config import ROLES
from cacheflow.machine.state.settings import MAX_BYTES_MIN, REPLICAS_MAX, VALUE_BYTES_MAX
from cacheflow.rest.page_files import INDEX, page_files
from cacheflow.rest.request.auth import NEEDS
from cacheflow.rest.request.checks import MOMENT_S_MAX
from cacheflow.rest.request.context import RestConfig
from cacheflow.verbs import OPS_MAX

Json = dict[str, Any]

_STRING: Json = {"type": "string"}
_INTEGER: Json = {"type": "integer", "format": "int64"}
_BOOLEAN: Json = {"type": "boolean"}
_SECONDS: Json = {"type": "number", "exclusiveMinimum": 0, "maximum": TTL_S_MAX, "description": "seconds"}
_SECONDS_OR_NULL: Json = {**_SECONDS, "type": ["number", "null"], "description": "seconds; null: for ever"}
# The seconds that an entry still has may be none, for it ends while it is read.
_SECONDS_LEFT: Json = {"type": ["number", "null"], "minimum": 0, "description": "seconds left; null: for ever"}
# A query parameter that may stand without a value: ?raw.
_FLAG: Json = {"enum": ["true", "false", "1", "0", ""], "description": "alone it is true"}
_VERSION: Json = {**_INTEGER, "minimum": 1}
_BYTES: Json = {"*/*": {"schema": {"description": "the value, byte for byte"}}}
# A key of 1024 bytes may have as few as 256 characters; a schema counts these.
_KEY_TEXT: Json = {
    "type": "string",
    "minLength": 1,
    "maxLength": values.KEY_BYTES_MAX,
    "pattern": r"^[^\u0000-\u001f\u007f-\u009f]*$",
}
_PREFIX_TEXT: Json = {**_KEY_TEXT, "minLength": 0}
_KEY = {
    "name": "key",
    "in": "path",
    "required": True,
    "description": "1 to 1024 bytes of UTF-8 without control characters, percent-encoded; '/' may stand as it is",
    "schema": _KEY_TEXT,
}

_FAILURES = {
    400: "The request is wrong; nothing was proposed",
    401: "A token is missing, or nobody has it",
    403: "A role that is too low, a web page of another site, or a Host that is not this node's",
    404: "Not found",
    409: "Conflict",
    410: "What has happened since the position is not known here any more, or never happened: list the keys anew",
    412: "A precondition failed",
    413: "Too large",
    415: "The body is not said to be JSON",
    422: "The Idempotency-Key, or the number in its scope, came before with another request",
    503: "Certainly not applied: no leader, not ready or overloaded; safe to repeat after Retry-After",
    507: "The node's disk has no room for the backup",
    504: "The outcome is unknown: no answer came in time, or what became of it before, or its answer, is not known any more",
}


# The method whose role each operation needs.
_METHODS = {"get": "GET", "head": "GET", "put": "PUT", "post": "POST", "delete": "DELETE", "patch": "PATCH"}


def specification(config: RestConfig) -> Json:
    """Return the OpenAPI document of the REST API for an application with the settings ``config``."""
    item = _item_paths()
    document: Json = {
        "openapi": "3.1.0",
        "info": {
            "title": "CacheFlow",
            "version": "1",
            "description": "A Raft-replicated cache. Every answer names X-Raft-Index, X-Raft-Term, X-Served-By and "
            "X-Request-Id, the request's own or a new one, by which the node's log names the request; "
            "every error is application/problem+json (RFC 9457). Times are seconds.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "paths": {
            "/cache/{key}": item,
            # Only POST knows these paths; to the other methods they are keys like any other.
            "/cache/{key}/incr": {**item, **_incr_path()},
            "/cache/{key}/touch": {**item, **_touch_path()},
            "/cache/_batch": {**item, "parameters": [], **_batch_path()},
            "/cache": _many_paths(),
            "/watch": _watch_path(),
            "/scopes": _scopes_path(),
            **_cluster_paths(),
            **_backup_paths(),
            **_monitoring_paths(),
            **_page_paths(),
        },
        "components": {
            "schemas": {"Problem": _PROBLEM},
            "responses": {f"Problem{status}": _problem_response(status) for status in _FAILURES},
        },
    }
    if config.access is not None:
        document["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        document["security"] = [{"token": []}]
        for path, operations in document["paths"].items():
            for method in operations.keys() & _METHODS.keys():
                # A path that only another method knows has the very operation of the route that it is for this one.
                needed = NEEDS.get(f"{_METHODS[method]} {path}")
                if needed is not None:
                    operations[method]["security"] = [] if needed == Role.NOBODY else [{"token": [needed.word]}]
    return document


_PROBLEM: Json = {
    "type": "object",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string", "examples": ["urn:cacheflow:no-leader"]},
        "title": _STRING,
        "status": {"type": "integer"},
        "detail": _STRING,
        "key": {"type": "string", "description": "the key, where there is one"},
        "leader": {"type": "string", "description": "the leader's node id, when known"},
        "version": {"type": "integer", "description": "412: the present version, 0 when absent"},
        "index": {"type": "integer", "description": "the operation of a batch"},
        "outcome": {"enum": ["not applied", "unknown", "applied"]},
        "oldest": {"type": "string", "description": "410: the oldest position that is known"},
        "incident": {"type": "string", "description": "500: what to look for in the node's log"},
    },
}


def _problem_response(status: int) -> Json:
    retry_after = {"headers": {"Retry-After": {"description": "seconds", "schema": {"type": "integer"}}}}
    return {
        "description": _FAILURES[status],
        "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
        **(retry_after if status == 503 else {}),
    }


def _object(properties: Json, required: tuple[str, ...] | None = None) -> Json:
    return {"type": "object", "properties": properties, "required": list(properties if required is None else required)}


def _json(schema: Json) -> Json:
    return {"application/json": {"schema": schema}}


def _query(name: str, schema: Json, description: str) -> Json:
    empty = {"allowEmptyValue": True} if schema is _FLAG else {}
    return {"name": name, "in": "query", "description": description, **empty, "schema": schema}


def _header(name: str, pattern: str, description: str) -> Json:
    schema = {"type": "string", "pattern": f"^(?:{pattern})$"}
    return {"name": name, "in": "header", "description": description, "schema": schema}


_TAGS = r'\*|(W/)?"[!#-~]*"(, ?(W/)?"[!#-~]*"){0,63}'
_IF_MATCH = _header("If-Match", _TAGS, 'a version in quotes, such as "7" (a list: any of them), or *: the key exists')
_REPEATABLE = [
    _header(
        "Idempotency-Key",
        "[!-~]([ -~]{0,254}[!-~])?",
        "1 to 256 printable ASCII characters; kept 10 minutes, or as far as the metric tells",
    ),
    _header(
        "Idempotency-Age",
        "[0-9]{1,15}",
        "milliseconds since the first try with this Idempotency-Key: 504 when that may not be known any more",
    ),
    _header(
        "Idempotency-Scope",
        "[1-9][0-9]{0,17}-[0-9a-f]{16}; ?number=[1-9][0-9]{0,17}; ?lowest=[1-9][0-9]{0,17}",
        "SCOPE; number=N; lowest=M: write N of a scope; M: the lowest that still waits for its answer; instead of a key",
    ),
]
_ETAG: Json = {"ETag": {"description": "the version in quotes", "schema": _STRING}}
_CONSISTENCY: list[Json] = [
    _query("consistency", {"enum": ["local", "bounded", "linearizable"], "default": "local"}, "how fresh"),
    _query("max_staleness", _SECONDS, "with consistency=bounded: not older than this, else 503"),
    _query("peek", _FLAG, "does not count as a use"),
    _query("recency", {"enum": ["strict"]}, "counts exactly, through the log"),
]
_ITEM = _object(
    {
        "key": _STRING,
        "value": {"description": "any JSON; bytes as base64; a hash as an object of texts, a set as an array of texts"},
        "encoding": {"const": "base64", "description": "with bytes; with a hash or set that has other than UTF-8"},
        "type": {"enum": ["hash", "set"], "description": "only with these"},
        "content_type": {"type": "string", "description": "only with bytes"},
        "ttl": _SECONDS_LEFT,
        "version": _VERSION,
    },
    ("key", "value", "ttl", "version"),
)


def _call(summary: str, answers: dict[int, Json], failures: tuple[int, ...], **rest: Any) -> Json:
    responses: Json = {str(status): answer for status, answer in answers.items()}
    takes_json = tuple(rest.get("requestBody", {}).get("content", ())) == ("application/json",)
    for status in sorted({*failures, 403, *((415,) if takes_json else ())}):
        responses[str(status)] = {"$ref": f"#/components/responses/Problem{status}"}
    responses["default"] = {"description": "Any other error, as application/problem+json"}
    return {"summary": summary, **rest, "responses": responses}


def _answer(description: str, schema: Json, headers: Json | None = None) -> Json:
    return {"description": description, "content": _json(schema), **({"headers": headers} if headers else {})}


def _body(schema: Json, required: bool = True) -> Json:
    return {"required": required, "content": _json({**schema, "additionalProperties": False})}


_NOT_MODIFIED: Json = {"description": "Still at that version", "headers": _ETAG}
_UNCHANGED: Json = {"description": "The client has this file already"}
_WRITE_FAILURES = (400, 401, 413, 422, 503, 504)


def _item_paths() -> Json:
    written = _object({"key": _STRING, "version": _VERSION, "ttl": _SECONDS_LEFT})
    envelope = _object({"value": {"description": "any JSON"}, "ttl": _SECONDS_OR_NULL}, ("value",))
    read_parameters = [
        _query("raw", _FLAG, "answer the bytes, with their Content-Type"),
        *_CONSISTENCY,
        _header("If-None-Match", _TAGS, "versions in quotes, or *: 304 when the key is at one of them"),
    ]
    bare: Json = {"description": "with ?raw: a value that is JSON, by itself"}
    found = _answer(
        "The entry; its bytes with ?raw or an Accept that prefers their type to JSON", {"anyOf": [_ITEM, bare]}, _ETAG
    )
    found["content"].update(_BYTES)
    return {
        "parameters": [_KEY],
        "get": _call(
            "Read a key", {200: found, 304: _NOT_MODIFIED}, (400, 401, 404, 412, 503, 504), parameters=read_parameters
        ),
        "head": _call(
            "Whether a key exists", {200: {"description": "It does", "headers": _ETAG}}, (400, 401, 404, 503, 504)
        ),
        "put": _call(
            "Write a key",
            {200: _answer("Replaced", written, _ETAG), 201: _answer("Created", written, _ETAG)},
            (*_WRITE_FAILURES, 412),
            parameters=[
                _query("ttl", _SECONDS, "of the new value, when the body does not say"),
                _query("keep_ttl", _FLAG, "keep the TTL of the value replaced"),
                _header("If-None-Match", r"\*", "*: only when the key is absent"),
                _IF_MATCH,
                *_REPEATABLE,
            ],
            requestBody={
                "required": True,
                "description": "At most the setting max_value_bytes of value",
                "content": {**_json(envelope), **_BYTES},
            },
        ),
        "delete": _call(
            "Remove a key",
            {200: _answer("Removed", _object({"key": _STRING, "deleted": {"const": True}}))},
            (*_WRITE_FAILURES, 404, 412),
            parameters=[_IF_MATCH, *_REPEATABLE],
        ),
    }


def _incr_path() -> Json:
    step = _object({"delta": {**_INTEGER, "default": 1}, "initial": _INTEGER, "ttl": _SECONDS_OR_NULL}, ())
    counted = _object({"key": _STRING, "value": _INTEGER, "version": _VERSION, "ttl": _SECONDS_LEFT})
    return {
        "parameters": [_KEY],
        "post": _call(
            "Add to an integer; keeps the TTL of an existing key, creates with initial + delta",
            {200: _answer("Counted", counted)},
            (*_WRITE_FAILURES, 404, 409),
            parameters=[*_REPEATABLE],
            requestBody=_body(step, required=False),
        ),
    }


def _touch_path() -> Json:
    return {
        "parameters": [_KEY],
        "post": _call(
            "Give a key a new TTL",
            {200: _answer("Touched", _object({"key": _STRING, "ttl": _SECONDS_OR_NULL}))},
            (*_WRITE_FAILURES, 404),
            parameters=[*_REPEATABLE],
            requestBody=_body(_object({"ttl": _SECONDS_OR_NULL})),
        ),
    }


def _batch_path() -> Json:
    op = _object(
        {
            "op": {"enum": ["set", "get", "delete", "incr", "touch", "cas", "add"]},
            "key": _KEY_TEXT,
            "value": {"description": "set, add, cas: any JSON"},
            "encoding": {"const": "base64", "description": "the value is base64 of bytes"},
            "content_type": {"type": "string", "description": "of the bytes"},
            "ttl": _SECONDS_OR_NULL,
            "keep_ttl": _BOOLEAN,
            "version": {**_VERSION, "description": "cas; delete only at that version"},
            "delta": _INTEGER,
            "initial": _INTEGER,
        },
        ("op", "key"),
    )
    op["additionalProperties"] = False
    ops = {"type": "array", "minItems": 1, "maxItems": OPS_MAX, "items": op}
    result = _object(
        {
            "status": {"enum": [200, 201, 400, 404, 409, 412, 413]},
            "key": _STRING,
            "value": {},
            "encoding": {"const": "base64"},
            "type": {"enum": ["hash", "set"]},
            "content_type": _STRING,
            "version": _INTEGER,
            "deleted": {"const": True},
            "detail": _STRING,
        },
        ("status", "key"),
    )
    return {
        "post": _call(
            "Several operations in one log entry; of nothing but get, and without an Idempotency header, a read at one moment",
            {200: _answer("One result an operation", _object({"results": {"type": "array", "items": result}}))},
            (*_WRITE_FAILURES, 404, 409, 412),
            parameters=[*_REPEATABLE, *_CONSISTENCY],
            requestBody=_body(_object({"ops": ops, "atomic": {**_BOOLEAN, "description": "all or nothing"}}, ("ops",))),
        ),
    }


def _many_paths() -> Json:
    listed = _object({"keys": {"type": "array", "items": _STRING}, "cursor": {"type": ["string", "null"]}})
    prefix = _query("prefix", _PREFIX_TEXT, "what the keys begin with")
    limit = {"type": "integer", "minimum": 1, "maximum": 10_000, "default": 1000}
    return {
        "get": _call(
            "List keys",
            {200: _answer("Keys; cursor: where to go on, null at the end", listed, _WATCH_POSITION)},
            (400, 401, 503),
            parameters=[
                prefix,
                _query("limit", limit, "the most keys"),
                _query("cursor", _STRING, "from an answer"),
            ],
        ),
        "delete": _call(
            "Remove keys by prefix, or all",
            {200: _answer("Removed", _object({"deleted": _INTEGER}))},
            (400, 401, 422, 503, 504),
            parameters=[prefix, _query("all", _FLAG, "everything"), *_REPEATABLE],
        ),
    }


_POSITION: Json = {"type": "string", "pattern": "^[A-Za-z0-9_-]{31}$"}
_WATCH_POSITION: Json = {
    "X-Watch-Position": {
        "description": "since this a watch tells every change that the list may lack",
        "schema": _POSITION,
    }
}


def _watch_path() -> Json:
    events = {"description": "set, touch, delete, expire, evict, each with an id; gone where changes were missed"}
    last = {
        "name": "Last-Event-ID",
        "in": "header",
        "description": "as since, before which it counts",
        "schema": _POSITION,
    }
    return {
        "get": _call(
            "Follow the changes of keys as server-sent events (docs/watch.md)",
            {200: {"description": "Events without an end", "content": {"text/event-stream": {"schema": events}}}},
            (400, 401, 410, 503, 504),
            parameters=[
                _query("prefix", _PREFIX_TEXT, "what the keys begin with; all by default"),
                _query(
                    "since", {**_POSITION, "pattern": "^([A-Za-z0-9_-]{31})?$"}, "the position behind which to begin"
                ),
                last,
            ],
        )
    }


def _scopes_path() -> Json:
    return {
        "post": _call(
            "Open a scope: its writes are numbered by the client and take place once, however often they are sent again; closed "
            "when it was not used for 10 minutes",
            {201: _answer("Opened", _object({"scope": _STRING}))},
            (400, 401, 503, 504),
        ),
    }


_NAME: Json = {"type": "string", "minLength": 1, "maxLength": 1024}
_ADDRESS: Json = {"type": "string", "maxLength": 1024, "description": "host:port; empty: serves no HTTP"}


def _cluster_paths() -> Json:
    node = _object(
        {
            "id": _STRING,
            "address": _STRING,
            "status": {"enum": ["up", "down"]},
            "role": {"enum": ["leader", "follower"]},
            "raft_address": _STRING,
            "voter": {**_BOOLEAN, "description": "it votes now"},
            "observer": {**_BOOLEAN, "description": "it never votes unless it is promoted"},
            "change": {
                "description": "what is under way for it: what, since, due in seconds, as the leader tells; or null"
            },
            "last_seen": {},
        },
        ("id", "address", "status", "role"),
    )
    was_member = {**_BOOLEAN, "description": "it says that it has been one: refused when it was removed"}
    member = _object(
        {
            "id": _NAME,
            "address": _ADDRESS,
            "raft_address": _NAME,
            "was_member": was_member,
            "role": {"enum": list(ROLES), "description": "an observer never votes unless it is promoted"},
        },
        ("id", "address"),
    )
    node_id = {"name": "id", "in": "path", "required": True, "description": "a node id", "schema": _STRING}
    removal = _call(
        "Remove a member; refused (409) when the voters that remain could not reach a majority",
        {204: {"description": "Removed: committed"}},
        (401, 404, 409, 503, 504),
    )
    promotion = _call(
        "Give a member a vote, once it has caught up; refused (409) when replicas + 1 nodes vote already",
        {200: _answer("The member", node)},
        (401, 404, 409, 503, 504),
    )
    demotion = _call(
        "Make a member an observer; refused (409) when the voters that remain could not reach a majority",
        {200: _answer("The member", node)},
        (401, 404, 409, 503, 504),
    )
    # A member may be called "list" or "register".
    removal_by_name = {"delete": removal}
    registered = _object(
        {"id": _STRING, "address": _STRING, "raft_address": _STRING, "status": {"enum": ["joined", "known"]}}
    )
    return {
        "/nodes/list": {
            "get": _call("The members", {200: _answer("Nodes", {"type": "array", "items": node})}, (401,)),
            **removal_by_name,
        },
        "/nodes/register": {
            **removal_by_name,
            "post": _call(
                "Join a node; any node takes it",
                {200: _answer("Known already", registered), 201: _answer("Joined", registered)},
                (400, 401, 409, 503, 504),
                requestBody=_body(member),
            ),
        },
        "/nodes/{id}": {
            "parameters": [node_id],
            "delete": removal,
        },
        "/nodes/{id}/promote": {"parameters": [node_id], "post": promotion},
        "/nodes/{id}/demote": {"parameters": [node_id], "post": demotion},
        "/cluster/status": {
            "get": _call(
                "Leader, term, indexes, lag and configuration", {200: _answer("Status", {"type": "object"})}, (401,)
            )
        },
        "/cluster/leader": {
            "post": _call(
                "Hand leadership over",
                {200: _answer("The new leader", _object({"leader": _STRING}))},
                (400, 401, 503, 504),
                requestBody=_body(_object({"id": _NAME}, ()), required=False),
            )
        },
        "/cluster/level": {
            "post": _call(
                "Raise the feature level; refused (409) while a member does not know it",
                {200: _answer("The level in force", _object({"level": _INTEGER}))},
                (400, 401, 409, 503, 504),
                requestBody=_body(_object({"level": _VERSION})),
            )
        },
        "/cluster/settings": _settings_path(),
        "/cluster/digest": {
            "get": _call(
                "A digest over effects: equal on all nodes at an equal index",
                {200: _answer("The digest", _object({"index": _INTEGER, "digest": _STRING}))},
                (400, 401, 404),
                parameters=[
                    _query("index", {**_INTEGER, "minimum": 0}, "one of the last 10,000"),
                    _query("full", _FLAG, "hash the whole contents"),
                ],
            )
        },
    }


def _settings_path() -> Json:
    limit = {"type": ["integer", "null"], "minimum": 1, "description": "null: no limit"}
    changed: Json = {
        "max_items": limit,
        "max_bytes": {**limit, "minimum": MAX_BYTES_MIN},
        "eviction": {"enum": ["lru", "lfu"]},
        "replicas": {"type": "integer", "minimum": 0, "maximum": REPLICAS_MAX},
        "max_value_bytes": {"type": "integer", "minimum": 1, "maximum": VALUE_BYTES_MAX},
    }
    told = {**changed, "version": _INTEGER, "changed_by": _STRING, "changed_at": {"type": "number"}}
    told["replicas"] = {"type": ["integer", "null"]}
    settings = {200: _answer("The settings and their version", _object(told), _ETAG)}
    return {
        "get": _call("The settings that all nodes have", {**settings, 304: _NOT_MODIFIED}, (400, 401, 412, 503)),
        "patch": _call(
            "Change some of the settings; with If-Match only if they are at that version",
            settings,
            (*_WRITE_FAILURES, 412, 415),
            parameters=[_IF_MATCH, *_REPEATABLE],
            requestBody=_body(_object(changed, ())),
        ),
    }


def _backup_paths() -> Json:
    file: Json = {"application/x-cacheflow-backup": {"schema": {"description": "see docs/backup.md"}}}
    backup = _object({"index": _INTEGER, "cluster_id": _STRING, "revision": _INTEGER})
    restored = _object({"items": _INTEGER, "revision": _INTEGER, "backup": backup})
    return {
        "/backup": {
            "get": _call(
                "A consistent copy of the contents, as they were on this node at one index of the log",
                {200: {"description": "The backup", "content": file}},
                (401, 503, 507),
            )
        },
        "/restore": {
            "post": _call(
                "Replace the contents by a backup's; the nodes are not ready meanwhile, unless it is online",
                {200: _answer("The backup is restored", restored)},
                (400, 401, 409, 413, 503, 504, 507),
                parameters=[_query("online", _FLAG, "serve clients meanwhile, who see a part of the contents")],
                requestBody={"required": True, "content": file},
            ),
            "delete": _call(
                "Give up the restore that is under way; the contents stay as they are",
                {200: _answer("Whether there was one", _object({"given_up": _BOOLEAN}))},
                (401, 503, 504),
            ),
        },
    }


def _monitoring_paths() -> Json:
    text: Json = {"text/plain": {"schema": _STRING}}
    verbose = [_query("verbose", _FLAG, "a line a check")]

    def health(summary: str) -> Json:
        passed, failed = {"description": "ok", "content": text}, {"description": "A line a check", "content": text}
        return {"get": _call(summary, {200: passed, 503: failed}, (400,), parameters=verbose)}

    request = _object(
        {
            "id": _INTEGER,
            "time": {"type": "number", "description": "when it was answered, in seconds since 1970"},
            "front": {"enum": ["http", "resp", "memcached"]},
            "command": _STRING,
            "outcome": {"enum": ["ok", "refused", "error"]},
            "duration_ms": {"type": "number"},
            "key_bytes": {"type": ["integer", "null"], "description": "the length of its first key"},
            "requests": {**_INTEGER, "description": "how many of these came, and were answered, together"},
            "client": {"type": ["string", "null"]},
            "request_id": {"type": ["string", "null"], "description": "the X-Request-Id of an HTTP answer"},
        }
    )
    slow = _object({"slow_ms": {"type": "number"}, "slow": {"type": "array", "items": request}})
    scraped: Json = {**text, "application/openmetrics-text": {"schema": _STRING}}
    measured = {"description": "Metrics", "content": {**scraped, **_json({"type": "object"})}}
    return {
        "/livez": health("503 when only a restart mends this node; needs no leader"),
        "/readyz": health("Ready to serve; needs a leader"),
        "/metrics": {
            "get": _call(
                "Metrics, for Prometheus or as JSON",
                {200: measured},
                (400, 401),
                parameters=[_query("format", {"enum": ["prometheus", "json"]}, "instead of Accept")],
            )
        },
        **_past_paths(),
        "/slow": {"get": _call("The requests that took long lately", {200: _answer("Newest first", slow)}, (401, 403))},
        "/openapi.json": {"get": _call("This document", {200: _answer("OpenAPI 3.1", {"type": "object"})}, (401,))},
    }


def _past_paths() -> Json:
    numbers: Json = {"type": "array", "items": {"type": ["number", "null"]}}
    samples = _object(
        {
            "now": {"type": "number", "description": "seconds since 1970"},
            "every": {"type": "integer", "description": "seconds between two samples"},
            "times": {"type": "array", "items": {"type": "number"}, "description": "oldest first"},
            "series": {
                "type": "object",
                "description": "one number for each of the times, null where it is not known: rates a second, ms, gauges",
                "properties": {"lag": {"type": "object", "additionalProperties": numbers, "description": "by peer"}},
                "additionalProperties": numbers,
            },
        }
    )
    event = _object(
        {
            "number": {
                **_INTEGER,
                "description": "grows by one with each event, by more where the node was started again",
            },
            "at": {"type": "number", "description": "seconds since 1970"},
            "what": {"enum": ["node", "leader", "member", "alarm", "settings", "level", "restore", "contents"]},
            "text": {"type": "string", "description": "a sentence for people"},
            "about": {"type": ["string", "null"], "description": "the id of the node that it is about"},
        }
    )
    events = _object({"events": {"type": "array", "items": event}, "next": _INTEGER})
    return {
        "/history": {
            "get": _call(
                "What this node has measured of itself in the last hour",
                {200: _answer("Samples", samples)},
                (400, 401),
                parameters=[
                    _query(
                        "since",
                        {"type": "number", "minimum": 0, "maximum": MOMENT_S_MAX},
                        "only samples later than this moment",
                    )
                ],
            )
        },
        "/events": {
            "get": _call(
                "The latest events of this node: leaders, members, failing checks, settings",
                {200: _answer("Events, oldest first; next: what to give as since to go on", events)},
                (400, 401),
                parameters=[_query("since", {**_INTEGER, "minimum": 0}, "only events from this number on")],
            )
        },
    }


def _page_paths() -> Json:
    html, directory = {"text/html": {"schema": _STRING}}, _json(_object({"service": _STRING, "specification": _STRING}))
    files = {name: file for name, file in page_files().items() if name != INDEX}
    kinds = sorted({file.media_type.partition(";")[0] for file in files.values()})
    name = {"name": "name", "in": "path", "required": True, "schema": {"enum": sorted(files)}}
    return {
        "/": {
            "get": _call(
                "The page, for who prefers HTML to JSON; for others where this document is",
                {200: {"description": "The page, or what this is", "content": {**html, **directory}}, 304: _UNCHANGED},
                (400,),
            )
        },
        "/page/{name}": {
            "parameters": [name],
            "get": _call(
                "A file of the page",
                {
                    200: {"description": "The file", "content": {kind: {"schema": _STRING} for kind in kinds}},
                    304: _UNCHANGED,
                },
                (400, 404),
            ),
        },
    }
