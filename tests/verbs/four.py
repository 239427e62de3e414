"""One real node, the four classes that reach it, and what can be compared of their answers."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import math
import re
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cacheflow.aio.store import AsyncReplicatedStore
from cacheflow.client.client import AsyncCacheClient, CacheClient
from cacheflow.forms.form import PLAIN, Form
from cacheflow.opening.formed import AsyncFormedCache, FormedCache
from cacheflow.rest import HttpServer, RestConfig, at_once, body_bytes_max, create_app, turn_away
from cacheflow.results import ClusterSettings, Digest, IncrResult, Item, SetResult
from cacheflow.store import ReplicatedStore
from cacheflow.watching.watch import AsyncWatch, Watch

CLASSES = (ReplicatedStore, AsyncReplicatedStore, CacheClient, AsyncCacheClient)
# What a class has beside the verbs: a node's life and its parts, and where a client's nodes are.
OWN: dict[type, set[str]] = {
    ReplicatedStore: {
        *("handshakes", "on_loop", "value_bytes_max", "on_value_limit"),
        *("start", "serve", "wait_ready", "retire", "leave", "freeze_what_is_there"),
        *("run", "submit", "submit_barrier", "barrier"),
        *(
            "lookup",
            "lookup_all",
            "read_again",
            "read_many",
            "copy_keys",
            "live",
            "peek",
            "count_of",
            "expiring_of",
            "uses_of",
            "unfinished",
            "unsent",
            "slices",
            "channels",
            "feed",
            "tracking",
            "slow_log",
            "events",
        ),
        *("now_ms", "first_index", "read_applied", "position", "metrics", "liveness", "readiness"),
        "register",
    },
    AsyncReplicatedStore: {"retire", "leave"},
    CacheClient: {"urls"},
    AsyncCacheClient: {"urls"},
}
VALUE_BYTES_MAX = 100_000


def own_verbs(kind: type) -> set[str]:
    return {name for name in dir(kind) if not name.startswith("_")} - OWN.get(kind, set())


VERBS = sorted(set().union(*map(own_verbs, CLASSES)))


@dataclass
class Four:
    """One node and what reaches it. call: a verb of a class, with whatever it answers collected."""

    # The node's own cache, in the form of the others.
    store: Any
    faces: dict[str, Any]
    runner: asyncio.Runner
    form: Form = PLAIN

    def formed(self, form: Form) -> Four:
        """The same four in ``form``, under the same names."""
        kinds = {name: AsyncFormedCache if name.startswith("Async") else FormedCache for name in self.faces}
        faces = {name: kinds[name](face, form) for name, face in self.faces.items()}
        return Four(FormedCache(self.store, form), faces, self.runner, form)

    def call(self, name: str, verb: str, *args: Any, **kwargs: Any) -> Any:
        async def collected(answer: Any) -> Any:
            if isinstance(answer, AsyncIterator):
                return [each async for each in answer]
            answer = await answer
            if isinstance(answer, AsyncWatch):
                await answer.close()
            return answer

        answer = getattr(self.faces[name], verb)(*args, **kwargs)
        if name.startswith("Async"):
            return self.runner.run(collected(answer))
        if isinstance(answer, Watch):
            answer.close()
        return list(answer) if verb in ("keys", "values", "items") else answer


@contextlib.contextmanager
def running(folder: Path) -> Iterator[Four]:
    """Run one node with its HTTP port, and the four classes that reach it."""
    with asyncio.Runner() as runner:
        twin = AsyncReplicatedStore(
            node_id="a",
            raft_address="127.0.0.1:0",
            bootstrap=True,
            data_dir=folder,
            max_items=5000,
            max_value_bytes=VALUE_BYTES_MAX,
            fsync="never",
        )
        store = twin.store
        rest = RestConfig(threads=8)
        app = create_app(store, rest)
        http = HttpServer(
            app,
            "127.0.0.1",
            0,
            threads=rest.threads,
            body_bytes_max=body_bytes_max(VALUE_BYTES_MAX),
            refusal_headers=app.services.raft_headers,
            turn_away=functools.partial(turn_away, app.services),
            at_once=at_once,
        )
        runner.run(twin.__aenter__())
        http.start()
        url = f"http://127.0.0.1:{http.port}"
        client, async_client = CacheClient(url), AsyncCacheClient(url)
        faces = {type(face).__name__: face for face in (store, twin, client, async_client)}
        try:
            yield Four(store, faces, runner)
        finally:
            client.close()
            runner.run(async_client.close())
            http.stop()
            runner.run(twin.close())


def comparable(answer: Any) -> Any:
    """An answer without what differs from call to call: versions, and the seconds that a TTL has lost."""
    if isinstance(answer, SetResult):
        return ("set", answer.created, answer.ttl_s and 10 * math.ceil(answer.ttl_s / 10))
    if isinstance(answer, IncrResult):
        assert answer.version > 0
        return ("incr", int(answer), answer.ttl_s and 10 * math.ceil(answer.ttl_s / 10))
    if isinstance(answer, Item):
        assert answer.version > 0
        own = isinstance(answer.meta, str) and answer.meta.startswith("application/x-cacheflow")
        meta = None if own else answer.meta
        return (answer.key, answer.value, meta, answer.ttl_s and 10 * math.ceil(answer.ttl_s / 10))
    if isinstance(answer, (Digest, ClusterSettings)):
        return type(answer)
    if isinstance(answer, list) and answer and isinstance(answer[0], dict):
        changing: dict[str, Callable[[Any], Any]] = {"version": lambda version: version > 0, "detail": message}
        return [{name: changing.get(name, lambda each: each)(each) for name, each in one.items()} for one in answer]
    return answer


def message(error: object) -> str:
    return re.sub(r"version \d+", "version N", str(error))
