"""Watching: what fronts need to let clients follow the changes of a node's contents."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from cacheflow.contract import Follower
from cacheflow.errors import NotReady, PositionGone
from cacheflow.net.slices import Slices
from cacheflow.node import status
from cacheflow.node.assembly import LocalNode
from cacheflow.node.engine import Engine
from cacheflow.node.feed import Feed
from cacheflow.node.positions import parse


class Watching:
    """Lets fronts tell clients the changes of a node's contents. Any thread may call a method unless its text forbids that.

    A follower is an object that is told the changes for a client; a position is a place in the log, as clients know it.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @property
    def _local(self) -> LocalNode:
        if not self._engine.running:
            raise NotReady(self._engine.stopped)
        return self._engine.local

    @property
    def feed(self) -> Feed:
        """The object that keeps the node's latest changes and tells them to followers; for the event loop alone."""
        return self._local.feed

    @property
    def slices(self) -> Slices:
        """The scheduler of long work on the event loop, for the event loop alone."""
        return self._engine.ports.slices

    def position(self) -> str:
        """Return the position (place in the log) behind everything that this node has applied. Raises NotReady."""
        return self._local.feed.position()

    def check(self) -> None:
        """Raise NotReady if this node cannot tell the cluster's changes: it may not be read, or has long heard no leader."""
        local = self._local
        if not local.may_read:
            raise NotReady(f"this node answers no reads: {status.why_no_reads(local)}")
        if not local.is_in_touch:
            raise NotReady("this node has heard no leader for too long to tell what changes; ask another one")

    def is_behind(self, since: str) -> bool:
        """True if this node has not applied the log up to ``since``, a position (place in the log), yet.

        Raises InvalidRequest, NotReady.
        """
        return parse(since).entry > self._local.node.last_applied

    def check_since(self, since: str) -> None:
        """Raise PositionGone if this node surely cannot tell all changes since the position (place in the log) ``since``.

        It waits for nothing: the event loop may find out more when it begins to tell. If the node is behind the position a
        barrier must have been waited for. Raises InvalidRequest, NotReady.
        """
        self._local.feed.check(parse(since))
        if self.is_behind(since):
            raise PositionGone(
                "this position is ahead of this cluster: it is another one's; list the keys anew",
                self._local.feed.oldest(),
            )

    def follow(self, follower: Follower, since: str | None) -> str:
        """Begin to tell ``follower``, on the event loop, all changes behind the position ``since``; None: those to come.

        A position is a place in the log. Returns the one behind which the follower is told everything. Waits until the event
        loop has looked. Raises PositionGone, InvalidRequest, NotReady.
        """
        if since is not None:
            self.check_since(since)
        return self._engine.call(lambda: self._local.feed.follow(follower, since))

    def unfollow(self, follower: Follower) -> None:
        """Have the event loop soon stop telling ``follower``, which stands for a client, the changes of the cache."""
        self.on_loop(lambda: self._local.feed.unfollow(follower))

    def go_on(self, follower: Follower) -> None:
        """Have the event loop tell ``follower`` the changes that it lacks: it had taken no more, and can do so now."""
        self.on_loop(lambda: self._local.feed.go_on(follower))

    def on_loop(self, call: Callable[[], None]) -> None:
        """Have the event loop call the function ``call`` soon; do nothing if the node is stopped."""
        self._engine.on_loop(call)

    def adopt(self, sock: Any, make: Callable[[], asyncio.Protocol]) -> None:
        """Have the event loop serve the client on the socket ``sock`` with the asyncio protocol that ``make`` returns."""
        self._engine.adopt(sock, make)
