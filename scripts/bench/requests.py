"""The costliest request of every command of every front, by name: what row ``holds`` asks, and a test that misses none.

Items are called ``key:0``, ``key:1`` and so on; what a request writes is called otherwise.
"""

from __future__ import annotations

import hashlib
import json
from typing import Final

from cacheflow.files.backup import BackupMeta, Item, written

# The most keys of a request over RESP, of one that writes, of one that removes, of a script, and of one over memcached; the
# operations of a batch over HTTP.
MANY: Final = 5000
WRITTEN: Final = 1000
REMOVED: Final = 1000
SCRIPTED: Final = 2000
MANY_MEMCACHED: Final = 5000
OPERATIONS: Final = 1000
# Requests in one piece of input.
PIPELINED: Final = 300
Requests = dict[str, bytes]
# Scripts that look at all of their keys, list all that there are, and write as much as they may.
_LOOKS: Final = "for _, key in ipairs(KEYS) do redis.call('GET', key) end return redis.call('KEYS', '*')"
_WRITES: Final = """for _, key in ipairs(KEYS) do redis.call('GET', key) end
for n = 1, 500 do redis.call('SET', 'other:' .. n, n) end"""


def words(*parts: str | bytes) -> bytes:
    """A request over RESP."""
    raw = [part.encode() if isinstance(part, str) else part for part in parts]
    return b"*%d\r\n%b" % (len(raw), b"".join([b"$%d\r\n%b\r\n" % (len(part), part) for part in raw]))


def resp(many: int = MANY, written: int = WRITTEN, removed: int = REMOVED, pipelined: int = PIPELINED) -> Requests:
    """By the command's name; EXEC stands for the transaction before it."""
    keys = [f"key:{number}" for number in range(many)]
    others = [f"other:{number}" for number in range(many)]
    pairs = [part for key in others[:written] for part in (key, "value")]
    present = b"".join([words("set", key, "value") for key in others[:removed]])
    # Ten thousand fields, which are all that one command changes several of.
    several = [part for number in range(1000) for part in (f"field:{number}", "value")]
    names = several[::2]
    many_fields = b"".join(
        [words("hset", "other:h", *[f"{turn}:{part}" for part in several]) for turn in range(9)]
    ) + words("hset", "other:h", *several)
    members = b"".join(
        [
            words("sadd", f"other:s{place}", *[f"{turn}:{name}" for name in names])
            for turn in range(10)
            for place in "12"
        ]
    )
    some = {
        **{
            name: words(name, "key:1") for name in ("get", "strlen", "type", "ttl", "pttl", "expiretime", "pexpiretime")
        },
        **{name: words(name, "key:1", "0", "-1") for name in ("getrange", "substr")},
        **{name: words(name, *keys) for name in ("mget", "exists", "touch")},
        "watch": words("watch", *keys[:written]),
        # What is to be removed is there.
        **{name: present + words(name, *others[:removed]) for name in ("del", "unlink")},
        **{name: words(name, *pairs) for name in ("mset", "msetnx")},
        **{name: words(name, "other:a", "value") for name in ("set", "getset", "setnx", "append")},
        **{name: words(name, "other:a") for name in ("getdel", "getex", "persist")},
        **{name: words(name, "other:n") for name in ("incr", "decr")},
        **{name: words(name, "other:n", "7") for name in ("incrby", "decrby", "incrbyfloat")},
        **{name: words(name, "other:a", "1000", "value") for name in ("setex", "psetex")},
        **{name: words(name, "other:a", "4000000000") for name in ("expire", "pexpire", "expireat", "pexpireat")},
        **{name: words(name, "other:a", "other:b") for name in ("rename", "renamenx", "copy")},
        "setrange": words("setrange", "other:a", "1000000", "value"),
        "scan": words("scan", "0", "count", "10000", "match", "*1*2*3*") * pipelined,
        "keys": words("keys", "*"),
        "randomkey": words("randomkey") * pipelined,
        "dbsize": words("dbsize") * pipelined,
        "ping": words("ping") * pipelined,
        "echo": words("echo", b"x" * 1_000_000),
        "select": words("select", "0"),
        "time": words("time"),
        "info": words("info") * pipelined,
        "config": words("config", "get", *["*" * 1000] * 100),
        "command": words("command", "info", *["get"] * 100) * pipelined,
        "wait": words("wait", "1", "0") * pipelined,
        "slowlog": words("slowlog", "get", "-1") * pipelined,
        "latency": words("latency", "histogram") * pipelined,
        "client": (words("client", "list") + words("client", "kill", "addr", "192.0.2.1:1")) * pipelined,
        **{name: words(name, verb, "key:1") for name, verb in (("object", "encoding"), ("memory", "usage"))},
        **{name: words(name) for name in ("readonly", "readwrite", "reset", "unwatch", "flushdb", "flushall")},
        "auth": words("auth", "default", "x" * 1000),
        "hello": words("hello", "3"),
        "quit": words("quit"),
        **{name: words(name, *keys) for name in ("subscribe", "ssubscribe")},
        **{
            name: words("subscribe", *keys) + words(name, *keys)
            for name in ("unsubscribe", "punsubscribe", "sunsubscribe")
        },
        "psubscribe": words("psubscribe", *keys[: written - 1]),
        **{name: words(name, "a channel", b"x" * 1_000_000) for name in ("publish", "spublish")},
        "pubsub": words("pubsub", "channels", "*1*2*3*") * pipelined + words("pubsub", "numsub", *keys) * 20,
        "multi": words("multi") + words("keys", "*") * 20 + words("scan", "0", "count", "10000") * 20 + words("exec"),
        "exec": words("multi")
        + b"".join([words("get", key) for key in keys[: 2 * written]])
        + words("exec")
        + words("multi")
        + b"".join([words("set", key, "v") for key in others[:written]])
        + words("exec"),
        **{name: words(name, _LOOKS, str(SCRIPTED), *keys[:SCRIPTED]) for name in ("eval", "eval_ro")},
        **{
            name: words("script", "load", _WRITES)
            + words(name, hashlib.sha1(_WRITES.encode()).hexdigest(), str(SCRIPTED), *keys[:SCRIPTED])
            for name in ("evalsha", "evalsha_ro")
        },
        "hset": many_fields,
        "hmset": many_fields + words("hmset", "other:h", *several),
        **{name: many_fields + words(name, "other:h", *names) for name in ("hmget", "hdel")},
        **{name: many_fields + words(name, "other:h") for name in ("hgetall", "hkeys", "hvals", "hlen")},
        **{name: many_fields + words(name, "other:h", "field:9") for name in ("hget", "hexists", "hstrlen")},
        **{name: many_fields + words(name, "other:h", "n", "7") for name in ("hsetnx", "hincrby", "hincrbyfloat")},
        "hscan": many_fields + words("hscan", "other:h", "0", "match", "*1*2*3*"),
        "hrandfield": many_fields + words("hrandfield", "other:h", "-10000", "withvalues"),
        "sadd": members,
        **{name: members + words(name, "other:s1", *names) for name in ("srem", "smismember")},
        **{name: members + words(name, "other:s1") for name in ("smembers", "scard")},
        "sismember": members + words("sismember", "other:s1", "field:9"),
        "sscan": members + words("sscan", "other:s1", "0", "match", "*1*2*3*"),
        "srandmember": members + words("srandmember", "other:s1", "-10000"),
        "spop": members + words("spop", "other:s1", "1000"),
        **{name: members + words(name, *["other:s1", "other:s2"] * 20) for name in ("sunion", "sinter", "sdiff")},
        "sintercard": members + words("sintercard", "40", *["other:s1", "other:s2"] * 20),
        "smove": members + words("smove", "other:s1", "other:s3", "field:9"),
        **{
            name: members + words(name, "other:s3", "other:s1") for name in ("sunionstore", "sinterstore", "sdiffstore")
        },
        "script": words("script", "exists", *["0" * 40] * 100) * pipelined,
        "discard": words("multi") + b"".join([words("set", key, "v") for key in others[:written]]) + words("discard"),
    }
    return some


def memcached(many: int = MANY_MEMCACHED) -> Requests:
    """By the command's name."""
    keys = " ".join(str(number) for number in range(many))
    value = b"9" * 1000
    return {
        **{name: f"{name} {keys}\r\n".encode() for name in ("get", "gets")},
        **{name: f"{name} 100 {' '.join(keys.split()[:500])}\r\n".encode() for name in ("gat", "gats")},
        **{
            name: b"%b other:m 0 0 1000\r\n%b\r\n" % (name.encode(), value)
            for name in ("set", "add", "replace", "append", "prepend")
        },
        "cas": b"cas other:m 0 0 1000 1\r\n%b\r\n" % value,
        "delete": b"delete other:m\r\n",
        "touch": b"touch other:m 100\r\n",
        "incr": b"set other:n 0 0 1\r\n1\r\nincr other:n 1\r\n",
        "decr": b"decr other:n 1\r\n",
        "flush_all": b"flush_all\r\n",
        "version": b"version\r\n" * 1000,
        "verbosity": b"verbosity 1\r\n" * 1000,
        "stats": b"stats\r\n" * 1000,
        "consistency": b"consistency linearizable\r\nget key:1\r\nconsistency local\r\n",
        "quit": b"quit\r\n",
        "mg": b"mg key:1 v t s c f k\r\n" * 500,
        "ms": b"ms other:m S1000\r\n%b\r\n" % value,
        "md": b"md other:m I T30\r\n",
        "ma": b"ma other:n N0 J1\r\n",
        "me": b"me key:1\r\n" * 500,
        "mn": b"mn\r\n" * 3000,
    }


def http(many: int = OPERATIONS) -> Requests:
    """By the operation's method and path in the specification."""

    def request(method: str, path: str, body: object = None, kind: str = "application/json") -> bytes:
        data = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        typed = f"Content-Type: {kind}\r\n" if data else ""
        return (
            f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n{typed}Content-Length: {len(data)}\r\n\r\n".encode() + data
        )

    sets = [{"op": "set", "key": f"other:{number}", "value": "v"} for number in range(many)]
    kept: list[Item] = [[f"kept:{number}", b"value", 0, None, 0] for number in range(10 * many)]
    backup = written(BackupMeta(index=1, term=1, cluster_id="another", now_ms=0, revision=1, items=len(kept)), kept)
    # A path that one method has for itself is that of a key, or of a node, to all others.
    own = {
        "/cache/_batch": "/cache/_batch",
        "/cache/{key}/incr": "/cache/o/incr",
        "/cache/{key}/touch": "/cache/o/touch",
    }
    return {
        **{f"GET {path}": request("GET", spelled) for path, spelled in own.items()},
        **{f"PUT {path}": request("PUT", spelled, b"value", "text/plain") for path, spelled in own.items()},
        **{f"DELETE {path}": request("DELETE", spelled) for path, spelled in own.items()},
        **{f"DELETE {path}": request("DELETE", path) for path in ("/nodes/list", "/nodes/register")},
        "GET /cache/{key}": request("GET", "/cache/key:1"),
        "PUT /cache/{key}": request("PUT", "/cache/other:h", b"x" * 1_000_000, "text/plain"),
        "DELETE /cache/{key}": request("DELETE", "/cache/other:h"),
        "POST /cache/{key}/incr": request("POST", "/cache/other:i/incr", {"delta": 1}),
        "POST /cache/{key}/touch": request("POST", "/cache/other:i/touch", {"ttl": 100}),
        "POST /cache/_batch": request("POST", "/cache/_batch", {"ops": sets}),
        "GET /cache": request("GET", "/cache?prefix=key:9&limit=10000"),
        "GET /watch": request("GET", "/watch"),
        "DELETE /cache": request("DELETE", "/cache?prefix=other:"),
        "POST /scopes": request("POST", "/scopes", {}),
        "GET /nodes/list": request("GET", "/nodes/list"),
        "POST /nodes/register": request("POST", "/nodes/register", {"id": "x", "address": "127.0.0.1:1"}),
        "DELETE /nodes/{id}": request("DELETE", "/nodes/nobody"),
        "POST /nodes/{id}/promote": request("POST", "/nodes/nobody/promote"),
        "POST /nodes/{id}/demote": request("POST", "/nodes/nobody/demote"),
        "GET /cluster/status": request("GET", "/cluster/status"),
        "POST /cluster/leader": request("POST", "/cluster/leader", {}),
        "POST /cluster/level": request("POST", "/cluster/level", {"level": 1}),
        "GET /cluster/settings": request("GET", "/cluster/settings"),
        # Nothing that would change what the other requests find.
        "PATCH /cluster/settings": request("PATCH", "/cluster/settings", {"max_value_bytes": 1024 * 1024}),
        "GET /cluster/digest": request("GET", "/cluster/digest?full"),
        "GET /livez": request("GET", "/livez?verbose"),
        "GET /readyz": request("GET", "/readyz?verbose"),
        "GET /metrics": request("GET", "/metrics"),
        "GET /slow": request("GET", "/slow"),
        "GET /backup": request("GET", "/backup"),
        "POST /restore": request("POST", "/restore", b"".join(backup), "application/x-cacheflow-backup"),
        "DELETE /restore": request("DELETE", "/restore"),
        "GET /history": request("GET", "/history"),
        "GET /events": request("GET", "/events"),
        "GET /openapi.json": request("GET", "/openapi.json"),
        "GET /": request("GET", "/"),
        "GET /page/{name}": request("GET", "/page/vendor/uPlot.iife.min.js"),
    }
