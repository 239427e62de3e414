"""The nodes of a cluster, asked at once: each by a thread of its own, so that none which hangs holds up the others.

The nodes that were named are asked first; the members that they list are asked as soon as one of them has answered.
"""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from cacheflow.cli.monitor.answers import MEMBERS_MAX, Answered, Silent, metrics_of, reasons_of, status_of, text
from cacheflow.cli.monitor.overview import Answers, places
from cacheflow.client.client import authorization, check_timeout
from cacheflow.client.exchange import Answer, NoAnswer, NodeHttp, NotSent, Request
from cacheflow.client.failover import problem_of
from cacheflow.client.timed import left_s
from cacheflow.errors import CacheFlowError, InvalidRequest
from cacheflow.net.tls.trust import check_is_of_use, trusting

# The most bytes of one answer: a thousand times as many as a small cluster's, and nothing that fills this machine's memory.
ANSWER_BYTES_MAX: Final = 8 << 20


class Look(NamedTuple):
    """What is known of one node. now: its latest answer, or why there is none.  before: its last answer before that one.

    times: how often it was asked.
    """

    now: Answered | Silent
    before: Answered | None
    times: int


class Cluster:
    """The nodes of one cluster, asked by threads. Safe for concurrent use.

    urls: addresses of one or more nodes.  token, ca: as for ``CacheClient``.  within_s: seconds for one node to answer.
    every_s: seconds from one question to a node to the next; None: each node is asked once.
    Raises InvalidRequest for a wrong address, ConfigError for a CA that is of no use.
    """

    def __init__(
        self, urls: Sequence[str], token: str | None, ca: Path | None, within_s: float, every_s: float | None = None
    ) -> None:
        trusted = functools.cache(lambda: trusting(ca))
        self._make: Callable[[str], NodeHttp] = lambda url: NodeHttp(url, trusted)
        given = [self._make(url) for url in urls]
        check_is_of_use(ca, [node.url for node in given])
        # With their scheme, as the members' addresses will have it.
        self.given = list(dict.fromkeys(node.url for node in given))
        self._headers = authorization(token)
        check_timeout(within_s)
        self._within_s = within_s
        self._every_s = every_s
        # Guards the two below; notified whenever a node has answered or has failed to.
        self._changed = threading.Condition()
        self._looks: dict[str, Look] = {}
        self._asked: set[str] = set()
        self._ended = threading.Event()
        # How often any node has answered or has failed to: whoever shows them sees whether there is something new.
        self.changes = 0
        for url in self.given:
            self._begin(url)

    def close(self) -> None:
        """Ask no node any more. Threads that wait for an answer end when it comes, or with the process."""
        self._ended.set()

    def looks(self) -> dict[str, Look]:
        """Return what is known of each node that has answered, or has failed to, by URL."""
        with self._changed:
            return dict(self._looks)

    def wait_first(self, until_s: float) -> None:
        """Wait until a node has answered, or all that are known have failed to, but only until ``until_s``, a monotonic time."""
        with self._changed:
            self._changed.wait_for(
                lambda: any(isinstance(look.now, Answered) for look in self._looks.values()) or self._are_known(1),
                max(until_s - time.monotonic(), 0.0),
            )

    def wait(self, times: int, until_s: float) -> dict[str, Look]:
        """Wait until each node was asked ``times`` times, but only until ``until_s``, a monotonic time; return the looks."""
        with self._changed:
            self._changed.wait_for(lambda: self._are_known(times), max(until_s - time.monotonic(), 0.0))
            return dict(self._looks)

    def _are_known(self, times: int) -> bool:
        """True if each node was asked ``times`` times. The caller holds the lock."""
        looks = [self._looks.get(url) for url in self._asked]
        return all(look is not None and look.times >= times for look in looks)

    def _begin(self, url: str) -> None:
        """Begin to ask the node at ``url``, if it is not asked already."""
        with self._changed:
            if url in self._asked or len(self._asked) >= MEMBERS_MAX + len(self.given):
                return
            try:
                node = self._make(url)
            except InvalidRequest:
                return
            self._asked.add(url)
        threading.Thread(target=self._follow, args=(node,), name="cacheflow-look", daemon=True).start()

    def _follow(self, node: NodeHttp) -> None:
        """Ask ``node`` until it is no member any more, or once."""
        while not self._ended.is_set():
            began = time.monotonic()
            found = ask(node, self._headers, self._within_s)
            with self._changed:
                last = self._looks.get(node.url)
                before = None
                if last is not None:
                    before = last.now if isinstance(last.now, Answered) else last.before
                self._looks[node.url] = Look(found, before, 1 if last is None else last.times + 1)
                wanted = places(latest(self._looks), self.given)
                if node.url not in wanted:
                    del self._looks[node.url]
                    self._asked.discard(node.url)
            for url in wanted:
                self._begin(url)
            with self._changed:
                self.changes += 1
                self._changed.notify_all()
            if self._every_s is None or node.url not in wanted:
                break
            self._ended.wait(max(began + self._every_s - time.monotonic(), 0.0))
        node.close()


def latest(looks: Mapping[str, Look]) -> Answers:
    """Return the latest answer of each node, by URL."""
    return {url: look.now for url, look in looks.items()}


def ask(node: NodeHttp, headers: Mapping[str, str], within_s: float) -> Answered | Silent:
    """Return what ``node`` answers to what is asked here, or why it gives no answer. headers: those of each request.

    within_s: seconds for all of it.
    """
    deadline = time.monotonic() + within_s

    def get(target: str) -> Answer:
        return node.exchange(Request("GET", target, None, headers, write=False), left_s(deadline), ANSWER_BYTES_MAX)

    try:
        answer = get("/cluster/status")
        if answer.status != 200:
            return Silent(node.url, text(str(problem_of(answer))) or "", answer.status in (401, 403))
        found = status_of(answer.json())
        if found is None:
            return Silent(node.url, "what answers there is no CacheFlow node")
        measured = get("/metrics?format=json")
        at_s = time.monotonic()
        metrics = metrics_of(measured.json()) if measured.status == 200 else {}
        health = get("/readyz")
    except (NotSent, NoAnswer, CacheFlowError) as error:
        return Silent(node.url, text(str(error)) or type(error).__name__)
    return Answered(node.url, at_s, *found, metrics, None if health.status == 200 else reasons_of(health.body))
