"""Members: the nodes that a client knows, those that it learns of, and which of them it asks first.

1. A client goes on with the node that has answered. It moves without need only to a node that is nearer, when no call is under
   way and that node has applied everything that this client has seen: so it reads what it wrote, and never an older value.
2. What a node says of the others is checked: addresses of the same scheme, and not so many that trying them takes for ever.
3. Looking for others happens in a thread of its own, of which no call waits, at most every 30 s. A client that calls asks for the
   list that often, too, whatever happens: where all nodes that it knew are replaced by new ones, it knows these in time.
4. When no node serves a call, one that refuses is asked for the list at once: it may be the last that knows where its cluster is.
"""

from __future__ import annotations

import ipaddress
import os
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

from cacheflow.client.exchange import Answer, NoAnswer, NodeHttp, NotSent, Request
from cacheflow.config import is_loopback, join_address, split_address
from cacheflow.errors import CacheFlowError, InvalidRequest

# Seconds from one look for other members to the next.
LOOK_EVERY_S: Final = 30.0
# Seconds from one question for the list to the next while no node serves. Most elections end in less.
LEARN_AGAIN_S: Final = 1.0
# Seconds that a node has to answer a question of such a look: one that takes longer is not near.
LOOK_TIMEOUT_S: Final = 1.0
# The most members that are taken from a node's list: far more than a cluster has.
LEARNED_MAX: Final = 32
# A node is near when its answer takes at most so many times as long as the fastest one's, and so many seconds more: two nodes of
# one data centre differ by less, and one of another by more.
NEAR_TIMES: Final = 2.0
NEAR_S: Final = 0.001
# Times that a nearer node is asked whether it has caught up with this client, and the pause between two of them.
MOVE_TRIES: Final = 3
MOVE_PAUSE_S: Final = 0.05


class Members:
    """The nodes that one client may ask. Safe for concurrent use, also after a fork.

    given: the nodes' URLs from the application, at least one.  make: makes a node object of a URL; raises InvalidRequest.
    discover: whether nodes are asked for the list of members.  headers: the headers of that request.
    """

    def __init__(
        self, given: Sequence[NodeHttp], make: Callable[[str], NodeHttp], headers: Mapping[str, str], discover: bool
    ) -> None:
        self._given = tuple(given)
        self._make = make
        self._headers = headers
        self._discover = discover
        self.nodes = self._given
        # Whose answers come fast, as far as that is known; any of them is as good as the others.
        self._near: frozenset[NodeHttp] = frozenset()
        # A node of this machine needs no measuring.
        local = [node for node in given if is_loopback(_host(node.url))]
        self._first = local[0] if local else given[0]
        self._looked_at: float | None = None
        # When a node was last asked for the list of members.
        self._learned_at = time.monotonic()
        # The highest index of the log that an answer to this client has named.
        self._index_seen = 0
        self._start()

    def _start(self) -> None:
        # Guards the two below, and the change of the first node together with them.
        self._lock = threading.Lock()
        self._under_way = 0
        self._looking = False
        # Last: another thread of a forked child that sees this process's id must find nothing of the parent's any more.
        self._pid = os.getpid()

    def begin(self) -> None:
        """Count one more call of this client as under way."""
        if self._pid != os.getpid():
            self._start()
        with self._lock:
            self._under_way += 1

    def end(self) -> None:
        """Count one call less of this client as under way, as that call has ended."""
        with self._lock:
            self._under_way -= 1

    def in_turn(self, nodes: Sequence[NodeHttp]) -> Iterator[NodeHttp]:
        """Yield ``nodes`` in the order in which a call tries them: the one that answered last, fast ones, the rest.

        Nodes that are equally fast come in random order, so that the clients of a dead node spread over the others.
        """
        first = self._first
        yield first
        others = [node for node in nodes if node is not first]
        random.shuffle(others)
        others.sort(key=lambda node: node not in self._near)
        yield from others

    def answered(self, node: NodeHttp, answer: Answer, *, others_failed: bool) -> None:
        """Note that ``node`` has answered a call, so that the next call tries that node first.

        If this client has seen an answer with a higher log index, ``node`` becomes first only if others_failed is True: other
        nodes, asked earlier in this call, gave no answer or refused.
        """
        index = _index_of(answer)
        with self._lock:
            # A node that this client has left meanwhile may be cut off: its late answer is no reason to go back to it.
            if others_failed or index >= self._index_seen:
                self._first = node
            self._index_seen = max(self._index_seen, index)
        if others_failed or self._looked_at is None:
            self._look_soon(node)
        elif time.monotonic() - self._learned_at >= LOOK_EVERY_S:
            self._learn_soon(node, LOOK_EVERY_S)

    def refused(self, node: NodeHttp) -> None:
        """Note that no node served a call, and that ``node`` refused the call; soon ask this node who the members are now."""
        self._learn_soon(node, LEARN_AGAIN_S)

    # Looking for others

    def _look_soon(self, asked: NodeHttp) -> None:
        with self._lock:
            now = time.monotonic()
            if self._looked_at is not None and now - self._looked_at < LOOK_EVERY_S:
                return
            if not self._begin_looking(now):
                return
            self._looked_at = now
        self._in_thread(self._look, asked)

    def _learn_soon(self, asked: NodeHttp, every_s: float) -> None:
        with self._lock:
            now = time.monotonic()
            if now - self._learned_at < every_s or not self._begin_looking(now):
                return
        self._in_thread(self._learn_alone, asked)

    def _begin_looking(self, now: float) -> bool:
        """Return whether a thread may look for members now; if so, note that one does. The caller holds this object's lock."""
        if self._looking or not self._discover:
            return False
        self._looking = True
        self._learned_at = now
        return True

    def _in_thread(self, look: Callable[[NodeHttp], None], asked: NodeHttp) -> None:
        # The application may end while it looks.
        looker = threading.Thread(target=look, args=(asked,), name="cacheflow-members", daemon=True)
        try:
            looker.start()
        except RuntimeError:  # the system has no thread left, or the interpreter ends
            # The call that is under way has its answer all the same.
            self._looking = False

    def _look(self, asked: NodeHttp) -> None:
        try:
            self._learn(asked)
            self._near = self._nearest()
            if self._near and self._first not in self._near:
                self._move_to(random.choice(list(self._near)))
        finally:
            self._looking = False

    def _learn_alone(self, asked: NodeHttp) -> None:
        try:
            self._learn(asked)
        finally:
            self._looking = False

    def _learn(self, asked: NodeHttp) -> None:
        answer = _asked(asked, "/nodes/list", self._headers)
        if answer is None or answer.status != 200:
            return
        try:
            listed = answer.json()
        except CacheFlowError:
            return
        known = {node.url: node for node in self.nodes}
        learned: list[NodeHttp] = []
        for url in addresses_in(listed, asked.url):
            node = known.get(url)
            if node is None:
                try:
                    node = self._make(url)
                except InvalidRequest:
                    continue
            if node not in self._given:
                learned.append(node)
        # At once: calls go on meanwhile.
        self.nodes = (*self._given, *learned)

    def _nearest(self) -> frozenset[NodeHttp]:
        took_s: dict[NodeHttp, float] = {}
        for node in self.nodes:
            # The first question may have to open a connection.
            for _ in range(2):
                began = time.monotonic()
                if not _ready(node):
                    took_s.pop(node, None)
                    break
                took_s[node] = 0.0 if is_loopback(_host(node.url)) else time.monotonic() - began
        if not took_s:
            return frozenset()
        limit_s = min(took_s.values()) * NEAR_TIMES + NEAR_S
        return frozenset(node for node, seconds in took_s.items() if seconds <= limit_s)

    def _move_to(self, node: NodeHttp) -> None:
        for _ in range(MOVE_TRIES):
            answer = _asked(node, "/readyz", {})
            if answer is None or answer.status != 200:
                return
            with self._lock:
                if not self._under_way and _index_of(answer) >= self._index_seen:
                    self._first = node
                    return
            time.sleep(MOVE_PAUSE_S)


def addresses_in(listed: Any, told_by: str) -> list[str]:
    """Return the URLs of the members in ``listed``, the JSON of a node's list of members; told_by: that node's own URL.

    Leaves out what is no address; URLs of another scheme than told_by (a token sent there could be read on the way); loopback
    addresses if that node is on another machine; and all beyond LEARNED_MAX.
    """
    scheme = urlsplit(told_by).scheme
    found: list[str] = []
    for row in listed[:LEARNED_MAX] if isinstance(listed, list) else []:
        address = row.get("address") if isinstance(row, dict) else None
        if not isinstance(address, str):
            continue
        own, separator, rest = address.partition("://")
        if separator and own != scheme:
            continue
        try:
            host, port = split_address(rest if separator else address)
        except ValueError:
            continue
        if not port or _is_nowhere(host) or (is_loopback(host) and not is_loopback(_host(told_by))):
            continue
        url = f"{scheme}://{join_address(host, port)}"
        if url not in found:
            found.append(url)
    return found


def _is_nowhere(host: str) -> bool:
    """Return whether ``host`` is an address that belongs to no single machine: 0.0.0.0, or one of a multicast group."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return address.is_unspecified or address.is_multicast


def _host(url: str) -> str:
    return urlsplit(url).hostname or ""


def _asked(node: NodeHttp, target: str, headers: Mapping[str, str]) -> Answer | None:
    try:
        return node.exchange(Request("GET", target, None, headers, write=False), LOOK_TIMEOUT_S)
    except (NotSent, NoAnswer):
        return None


def _ready(node: NodeHttp) -> bool:
    answer = _asked(node, "/readyz", {})
    return answer is not None and answer.status == 200


def _index_of(answer: Answer) -> int:
    """Return the log index in the header X-Raft-Index of a node's HTTP ``answer``; 0 if there is none."""
    text = answer.headers.get("X-Raft-Index") or ""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else 0
