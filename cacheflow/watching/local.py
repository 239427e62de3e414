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

# Seconds between two looks at whether the node still runs while nothing changes.
LOOK_EVERY_S: Final = 1.0


class StoreWatch(Watch):
    """A watch of the node in this process: tells the changes of keys that begin with ``prefix`` as the node applies them.

    since: the position after which changes are told; None: from now on. Raises NotReady when the node is not ready any more.
    """

    def __init__(self, form: Form, watching: Watching, prefix: str, since: str | None) -> None:
        super().__init__(form)
        self.prefix = form.under(prefix)
        self._watching = watching
        # Guards what follows: the event loop fills it, and a thread of the application takes it.
        self._changed = threading.Condition()
        self._came: deque[Told] = deque()
        self._full = False
        self._missed = False
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
                if self._missed:
                    raise PositionGone("this watch was too slow, or the contents were replaced; list the keys anew")
                if not self._changed.wait(LOOK_EVERY_S):
                    self._watching.check_readable()
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
                self._full = len(self._came) >= WAITING_MAX
                self._changed.notify()
            return not self._full

    def missed(self) -> None:
        """Note that changes were missed: once the application has taken those that came before, it gets a PositionGone."""
        with self._changed:
            self._missed = True
            self._changed.notify()
