"""Promise: the place that a reply has in the queue of one connection's replies, before it is known or made."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cacheflow.wire.streams import Reply

# The reply; or a function that makes it in its turn; or ``(render, results)``: no second copy of results; None while unknown.
Answer = Reply | Callable[[], Reply] | tuple[Callable[[Any], Reply], Any] | None


class Promise:
    """A place in the queue of one connection's replies. The reply there may answer several requests.

    answer: the reply, or the function that makes it (perhaps with that function's argument); None until the reply is known.
    """

    __slots__ = ("answer",)

    def __init__(self, answer: Answer = None) -> None:
        self.answer = answer
