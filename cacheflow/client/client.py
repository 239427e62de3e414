"""CacheClient: a cluster over HTTP, with the verbs of the embedded store.

Every write has a number in a scope of this client's, or the caller's own Idempotency-Key, the same on every retry: a write whose
connection broke is sent again and never counts twice. How nodes are chosen and retried is the business of ``failover``.
"""

from __future__ import annotations

import functools
import json
import os
import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any, Final
from urllib.parse import quote

from cacheflow import arguments, verbs
from cacheflow.aio.threads import Threads
from cacheflow.arguments import KEYS_PAGE
from cacheflow.client.exchange import Answer, Request
from cacheflow.client.failover import Nodes, check_is_ours, problem_document, problem_of
from cacheflow.client.http_commands import (
    JSON_TYPE,
    put_found,
    query_of,
    refusal_of,
    request_of,
    request_to_read,
    result_of,
    stored_of,
    target_of,
    value_of,
)
from cacheflow.client.scopes import Scopes
from cacheflow.client.watching import ClientWatch
from cacheflow.errors import CacheFlowError, InvalidRequest, NotCommitted, OutcomeForgotten, OutcomeUnknown
from cacheflow.faces import AsyncFace, Face, in_thread
from cacheflow.forms.form import Form
from cacheflow.machine.language import commands
from cacheflow.machine.language.commands import Command, Result
from cacheflow.results import ClusterSettings, Digest, Item
from cacheflow.watching.watch import Watch

# Seconds for a call: a node waits 10 s for an outcome (--request-timeout); the rest is for the way and one more node.
TIMEOUT_S_DEFAULT: Final = 15.0
# The longest that a call may wait: a day, which every system's clock can count.
TIMEOUT_S_MAX: Final = 86_400.0
# Scopes that one write is tried in: the cluster may have closed the first one, and the next ones only if it is out of its mind.
SCOPES_TRIED_MAX: Final = 3
_SCOPE_NAME: Final = re.compile(r"[\x21-\x3a\x3c-\x7e]{1,100}")


def authorization(token: str | None) -> dict[str, str]:
    """Return the header of an HTTP request that shows ``token``; none without one. Raises InvalidRequest for what is no token."""
    if token is None:
        return {}
    if not (isinstance(token, str) and token.isascii() and token.isprintable() and token and token == token.strip()):
        # Not shown: it may be the real one with a line's end behind it.
        raise InvalidRequest("a token is printable ASCII; strip what was read from a file")
    return {"Authorization": f"Bearer {token}"}


def check_timeout(timeout_s: float) -> None:
    """Raise InvalidRequest unless ``timeout_s`` is a number of seconds that a call may take."""
    if type(timeout_s) not in (int, float) or not 0 < timeout_s <= TIMEOUT_S_MAX:
        raise InvalidRequest(
            f"timeout_s = {arguments.shown(timeout_s)}: must be a number above 0 and at most {TIMEOUT_S_MAX}"
        )


class CacheClient(Face):
    """A client of a replicated cache over HTTP, a mapping with more methods. Safe for concurrent use, also after a fork.

    urls: addresses of one or more nodes.
    timeout_s: seconds for a call, fail-over included, or for each part of one that takes several requests.
    token: the content of the nodes' --api-token-file.  ca: a file with the CA of the nodes' certificates; None: CAs count that
    the system trusts.  discover: ask a node for the other members, and use these too; False behind a NAT, where the
    addresses by which nodes know each other lead nowhere.  Values are str, bytes or anything JSON can hold; keys are str.
    Raises NotCommitted (certainly not applied), OutcomeUnknown (a write may have been applied), InvalidRequest.
    """

    def __init__(
        self,
        urls: str | Iterable[str],
        timeout_s: float = TIMEOUT_S_DEFAULT,
        token: str | None = None,
        ca: str | os.PathLike[str] | None = None,
        discover: bool = True,
    ) -> None:
        check_timeout(timeout_s)
        self._timeout_s = timeout_s
        self._headers = authorization(token)
        each = [urls] if isinstance(urls, str) else list(arguments.each_of(urls, "addresses of nodes"))
        self._nodes = Nodes(each, timeout_s, ca, self._headers, arguments.flag(discover, "discover"))
        # No method of this object: when nobody has it any more its connections end, without the garbage collector.
        self._scopes = Scopes(functools.partial(_open_scope, self._nodes, self._headers))

    @property
    def urls(self) -> list[str]:
        """The addresses of the cluster's nodes, in the order in which this client got them."""
        return self._nodes.urls

    def close(self) -> None:
        """Close this client's idle connections to the nodes; the client can still be used afterwards."""
        self._nodes.close()

    def __enter__(self) -> CacheClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Reads

    def get_item(
        self,
        key: str,
        *,
        consistency: str = "local",
        max_staleness: float | None = None,
        peek: bool = False,
        strict: bool = False,
    ) -> Item | None:
        document = self._document(key, consistency, max_staleness, peek, strict)
        if document is None:
            return None
        kind, data = stored_of(document)
        return Item(key, data, kind, document.get("content_type"), document["version"], document.get("ttl"))

    def get(
        self,
        key: str,
        default: Any = None,
        *,
        consistency: str = "local",
        max_staleness: float | None = None,
        peek: bool = False,
        strict: bool = False,
    ) -> Any:
        document = self._document(key, consistency, max_staleness, peek, strict)
        return default if document is None else value_of(document)

    def _document(
        self, key: str, consistency: str, max_staleness: float | None, peek: bool, strict: bool
    ) -> dict[str, Any] | None:
        arguments.check_read(consistency, max_staleness, peek, strict)
        query = query_of(
            consistency=None if consistency == "local" else consistency,
            max_staleness=max_staleness,
            peek=peek,
            recency="strict" if strict else None,
        )
        answer = self._found("GET", target_of(key) + query)
        document: dict[str, Any] | None = None if answer is None else answer.json()
        return document

    def _get_many(
        self, form: Form, keys: Iterable[str], consistency: str, max_staleness: float | None, peek: bool
    ) -> dict[str, Any]:
        blocks = verbs.keys_to_read(form, keys, consistency, max_staleness, peek)
        query = query_of(
            consistency=None if consistency == "local" else consistency, max_staleness=max_staleness, peek=peek
        )
        found: dict[str, Any] = {}
        blocks.reverse()
        while blocks:
            block = blocks.pop()
            answer = self._nodes.call(request_to_read(block, query, self._headers))
            if answer.status != 200:
                raise problem_of(answer)
            # What is too much for one answer is asked for again: each answer has at least the first of its keys.
            rest = put_found(found, form, block, answer.json()["results"])
            if rest:
                blocks.append(rest)
        return found

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and self._found("HEAD", target_of(key) + "?peek=true") is not None

    def keys_page(
        self, prefix: str = "", limit: int = KEYS_PAGE, cursor: str | None = None
    ) -> tuple[list[str], str | None]:
        arguments.check_page(prefix, limit, cursor)
        page = self._ask("/cache" + query_of(prefix=prefix or None, limit=limit, cursor=cursor))
        return page["keys"], page.get("cursor") or None

    def _watch(self, form: Form, prefix: str, since: str | None) -> Watch:
        return ClientWatch(form, self._nodes, self._headers, prefix, since)

    # The cluster

    def nodes(self) -> list[dict[str, Any]]:
        """Return the members of the cluster as the answering node sees them, one dictionary each."""
        return list(self._ask("/nodes/list"))

    def status(self) -> dict[str, Any]:
        """Return the answering node's view of the cluster: leader, term, indexes, lag and configuration."""
        return dict(self._ask("/cluster/status"))

    def transfer_leadership(self, node_id: str | None = None) -> str:
        """Hand leadership to the voter ``node_id``, or to the most complete one; return the id of the new leader.

        A node that leads already stays the leader. Raises InvalidRequest (no such voter), NotCommitted, OutcomeUnknown.
        """
        told = {} if node_id is None else {"id": arguments.check_node_id(node_id)}
        headers = {**JSON_TYPE, **self._headers}
        answer = self._nodes.call(Request("POST", "/cluster/leader", json.dumps(told).encode(), headers, write=True))
        if answer.status >= 300:
            raise problem_of(answer)
        leader: str = answer.json()["leader"]
        return leader

    def digest(self, *, index: int | None = None, full: bool = False) -> Digest | None:
        """Return the answering node's digest over effects, now or at log index ``index``; None if the node does not know it.

        full: return the digest of the whole contents as they are now.
        """
        arguments.check_digest(index, full)
        answer = self._found("GET", "/cluster/digest" + query_of(index=index, full=full))
        return None if answer is None else Digest(**answer.json())

    def remove_node(self, node_id: str) -> None:
        """Remove the member ``node_id`` from the cluster. Raises MemberUnknown, MemberConflict (the cluster needs it now).

        If the first answer gets lost and the request is sent again, the member may be unknown by then.
        """
        target = "/nodes/" + quote(arguments.check_node_id(node_id), safe="")
        answer = self._nodes.call(Request("DELETE", target, None, self._headers, write=True))
        if answer.status >= 300:
            raise problem_of(answer)

    def promote_node(self, node_id: str) -> dict[str, Any]:
        """Give the member ``node_id`` a vote, and return the member as ``nodes`` shows it. A voter stays as it is.

        Raises MemberUnknown, MemberConflict (replicas + 1 vote already), NotCommitted (also when it does not catch up in time).
        """
        return self._change_vote(node_id, "promote")

    def demote_node(self, node_id: str) -> dict[str, Any]:
        """Make the member ``node_id`` an observer, which votes no more until it is promoted; return the member.

        Raises MemberUnknown, MemberConflict (the cluster needs its vote now).
        """
        return self._change_vote(node_id, "demote")

    def _change_vote(self, node_id: str, change: str) -> dict[str, Any]:
        target = f"/nodes/{quote(arguments.check_node_id(node_id), safe='')}/{change}"
        answer = self._nodes.call(Request("POST", target, None, self._headers, write=True))
        if answer.status >= 300:
            raise problem_of(answer)
        return dict(answer.json())

    def raise_level(self, level: int) -> int:
        """Raise the cluster's feature level to ``level``, which cannot be undone; return the level in force.

        Raises LevelConflict, InvalidRequest.
        """
        verbs.raise_level_command(level)
        body = json.dumps({"level": level}).encode()
        answer = self._write(Request("POST", "/cluster/level", body, JSON_TYPE, write=True), None)
        if answer.status >= 300:
            raise problem_of(answer)
        in_force: int = answer.json()["level"]
        return in_force

    def settings(self) -> ClusterSettings:
        """Return the settings that all nodes of the cluster have, as the answering node knows them."""
        return _settings_in(self._ask("/cluster/settings"))

    def change_settings(self, /, *, only_if_version: int | None = None, **changes: Any) -> ClusterSettings:
        """Change settings of the whole cluster, given as keyword arguments, and return all settings.

        only_if_version: change nothing unless the settings are at this version.
        Raises InvalidRequest (which names the setting), PreconditionFailed, NotCommitted, OutcomeUnknown.
        """
        verbs.settings_command(changes, only_if_version)
        headers = JSON_TYPE if only_if_version is None else {**JSON_TYPE, "If-Match": f'"{only_if_version}"'}
        body = json.dumps(changes).encode()
        answer = self._write(Request("PATCH", "/cluster/settings", body, headers, write=True), None)
        if answer.status >= 300:
            raise problem_of(answer)
        return _settings_in(answer.json())

    # On the wire

    def _replicate(self, command: Command) -> tuple[Result, int]:
        client_key = None
        if command[0] == commands.IDEMPOTENT:
            _, client_key, _, command = command
        request = request_of(command)
        if client_key is None and command[0] == commands.BATCH and all(each[0] == commands.GET for each in command[2]):
            # Reads may be done as often as one likes, and their answers need not be kept. A batch's are one log entry.
            headers = {**request.headers, **self._headers}
            answer = self._nodes.call(
                request._replace(target=request.target + "?recency=strict", headers=headers, write=False)
            )
        else:
            answer = self._write(request, client_key)
        if answer.status >= 300:
            return refusal_of(problem_of(answer), problem_document(answer), command), 0
        return result_of(command, answer.status, answer.json()), 0

    def _write(self, request: Request, client_key: str | None) -> Answer:
        """Send ``request``, a write, to nodes until one of them answers, and return that answer.

        client_key: the caller's Idempotency-Key; None: this client numbers the write. Raises NotCommitted, OutcomeUnknown.
        """
        headers = {**request.headers, **self._headers}
        if client_key is not None:
            return self._nodes.call(request._replace(headers={**headers, "Idempotency-Key": client_key}))
        deadline = time.monotonic() + self._timeout_s
        for _ in range(SCOPES_TRIED_MAX):
            scope = self._scopes.present(deadline)
            number, lowest = scope.take()
            header = f"{scope.name}; number={number}; lowest={lowest}"
            try:
                return self._nodes.call(request._replace(headers={**headers, "Idempotency-Scope": header}), deadline)
            except OutcomeForgotten:
                # The only try came too late for its scope, in which nothing is done any more: it may go into another one.
                self._scopes.leave(scope)
            finally:
                scope.told(number)
        raise NotCommitted("the cluster closed every scope before the write came; it was not applied")

    def _found(self, method: str, target: str) -> Answer | None:
        """Send a read over HTTP; return the answer if it is a success, None if it is a CacheFlow node's 404.

        Raises, for every other answer, the error that this answer stands for.
        """
        answer = self._nodes.call(Request(method, target, None, self._headers, write=False))
        if answer.status == 404:
            check_is_ours(answer)
            return None
        if answer.status != 200:
            raise problem_of(answer)
        return answer

    def _ask(self, target: str) -> Any:
        answer = self._nodes.call(Request("GET", target, None, self._headers, write=False))
        if answer.status != 200:
            raise problem_of(answer)
        return answer.json()


def _settings_in(document: Mapping[str, Any]) -> ClusterSettings:
    """Return the cluster's settings in ``document``, a node's JSON, without those that this build does not know."""
    return ClusterSettings(**{each.name: document[each.name] for each in fields(ClusterSettings)})


def _open_scope(nodes: Nodes, headers: Mapping[str, str], deadline: float) -> str:
    """Have one of ``nodes`` open a scope, which numbers a client's writes; return the scope's name.

    Raises NotCommitted, or the error that a node has answered.
    """
    try:
        answer = nodes.call(Request("POST", "/scopes", None, headers, write=False), deadline)
    except OutcomeUnknown as error:
        raise NotCommitted(f"no scope could be opened, and the write was not sent: {error}") from None
    if answer.status != 201:
        check_is_ours(answer)
        raise problem_of(answer)
    name = answer.json().get("scope")
    if type(name) is not str or not _SCOPE_NAME.fullmatch(name):
        raise CacheFlowError(f"{answer.url} opened a scope without a name")
    return name


class AsyncCacheClient(AsyncFace):
    """CacheClient for asyncio: the same methods as coroutines, on any event loop; requests run in the client's own threads.

    A call that is cancelled before its request is sent is never sent; a request already sent goes on to its end.
    """

    def __init__(
        self,
        urls: str | Iterable[str],
        timeout_s: float = TIMEOUT_S_DEFAULT,
        token: str | None = None,
        ca: str | os.PathLike[str] | None = None,
        discover: bool = True,
    ) -> None:
        self._client = self._blocking = CacheClient(urls, timeout_s, token, ca, discover)
        self._threads = Threads(timeout_s)

    @property
    def urls(self) -> list[str]:
        """The addresses of the cluster's nodes, in the order in which this client got them."""
        return self._client.urls

    async def close(self) -> None:
        """Close this client's idle connections to the nodes; the client can still be used afterwards."""
        self._client.close()
        self._threads.close()

    async def __aenter__(self) -> AsyncCacheClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    get = in_thread(CacheClient.get)
    get_item = in_thread(CacheClient.get_item)
    keys_page = in_thread(CacheClient.keys_page)
    nodes = in_thread(CacheClient.nodes)
    status = in_thread(CacheClient.status)
    digest = in_thread(CacheClient.digest)
    transfer_leadership = in_thread(CacheClient.transfer_leadership)
    remove_node = in_thread(CacheClient.remove_node)
    promote_node = in_thread(CacheClient.promote_node)
    demote_node = in_thread(CacheClient.demote_node)
    raise_level = in_thread(CacheClient.raise_level)
    settings = in_thread(CacheClient.settings)
    change_settings = in_thread(CacheClient.change_settings)
    _get_many = in_thread(CacheClient._get_many)
    _replicate = in_thread(CacheClient._replicate)
