"""Promise: the place that a reply has in the queue of one connection's replies, before it is known or made."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cacheflow.wire.streams import Reply

# What a request is measured by: (command, moment of its arrival, number of requests, what tells its key, reply or None). The
# key is looked at if the request was slow; a reply stands there if the client is not told that its request has failed.
Call = tuple[str, float, int, Any, bytes | None]

# The reply; or a function that makes it in its turn, or puts another promise in its own's place and returns None; or
# ``(render, results)``: no second copy of results; None while unknown.
Answer = Reply | Callable[[], Reply | None] | tuple[Callable[[Any], Reply], Any] | None


class Promise:
    """A place in the queue of one connection's replies. The reply there may answer several requests.

    answer: the reply, or the function that makes it (perhaps with that function's argument); None until the reply is known.
    call: the request that is answered once this reply is given; None if this is a part of a reply, or nothing to measure.
    """

    __slots__ = ("answer", "call")

    def __init__(self, answer: Answer = None, call: Call | None = None) -> None:
        self.answer = answer
        self.call = call
