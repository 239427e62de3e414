"""StoreWatch: a watch of a node in this process."""

from __future__ import annotations

import threading
from collections import deque
from typing import Final

from cacheflow.contract import Told
from cacheflow.errors import PositionGone
from cacheflow.forms.form import Form
from cacheflow.node.watching import Watching
from cacheflow.results import Change
from cacheflow.watching.watch import WAITING_MAX, Watch

# Seconds between two looks, while nothing changes, at whether the node may still tell what changes, and how far it is.
LOOK_EVERY_S: Final = 1.0


class StoreWatch(Watch):
    """A watch of the node in this process: tells the changes of keys that begin with ``prefix`` as the node applies them.

    since: the position after which changes are told; None: from now on. Raises NotReady when the node is not ready any more, or
    has heard no leader for so long that it cannot tell what changes.
    """

    def __init__(self, form: Form, watching: Watching, prefix: str, since: str | None) -> None:
        super().__init__(form)
        self.prefix = form.under(prefix)
        self._watching = watching
        # Guards what follows: the event loop fills it, and a thread of the application takes it.
        self._changed = threading.Condition()
        self._came: deque[Told] = deque()
        self._full = False
        # The oldest position that the node knew when it had told that changes were missed; None before.
        self._oldest: str | None = None
        # A position behind all changes so far, as long as none has come since; "" for none.
        self._reached = ""
        self._closed = False
        self.position = watching.follow(self, since)

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._came.clear()
            self._changed.notify()
        self._watching.unfollow(self)

    def _next(self) -> Change:
        with self._changed:
            while not self._came:
                if self._closed:
                    raise StopIteration
                if self._oldest is not None:
                    text = "this watch was too slow, or the contents were replaced; list the keys anew"
                    raise PositionGone(text, self._oldest)
                if self._reached:
                    self.position, self._reached = self._reached, ""
                    self.on_quiet(self.position)
                if not self._changed.wait(LOOK_EVERY_S):
                    self._watching.check()
                    self._watching.on_loop(self._look)
            change = self._came.popleft().change
            self.position = change.position
            if self._full and len(self._came) < WAITING_MAX // 2:
                self._full = False
                self._watching.go_on(self)
            return change

    # Follower, on the event loop

    def take(self, changes: list[Told]) -> bool:
        """Keep ``changes`` of keys for the application; return False if so many wait for it that no more should come now."""
        with self._changed:
            if not self._closed:
                self._came += changes
                self._reached = ""
                self._full = len(self._came) >= WAITING_MAX
                self._changed.notify()
            return not self._full

    def missed(self) -> None:
        """Note that changes were missed: once the application has taken those that came before, it gets a PositionGone."""
        oldest = self._watching.feed.oldest()
        with self._changed:
            self._oldest = oldest
            self._changed.notify()

    def _look(self) -> None:
        """Note the position up to which the node has told everything, if all of that was taken."""
        position = self._watching.feed.told_position(self)
        with self._changed:
            if position is not None and not self._came:
                self._reached = position
                self._changed.notify()
