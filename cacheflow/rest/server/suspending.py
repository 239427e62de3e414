"""The interface by which an application tells its HTTP server that a request waits; both sides know only this.

A server that can put a request aside says so with ``SUSPENDS`` in the environ. The application may then throw
``Suspended`` instead of answering; the server lets go of the request's thread and goes on with it when told to. Such a
server can also hand over a connection (``TakenOver``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication, WSGIEnvironment

    Wake = Callable[[], None]
    Resume = Callable[[WSGIApplication], Wake]

# Counts and logs an answer: with its status, and the length of its body.
Answered = Callable[[int, int], None]

# The key in the environ by which a server says that it can put a request aside.
SUSPENDS: Final = "cacheflow.suspends"


class Suspended(BaseException):
    """Raised by an application to put its HTTP request aside until a result comes.

    It is no Exception, so that no code on the way to the server takes it for an error.
    begin: called by the server, once the request holds no thread any more, with a function ``resume``. Any thread may call
    ``resume`` once, with the WSGI application that goes on with the request. ``resume`` returns a function, to be called once,
    that has the server do so: before that call the server does not go on, even if it is awake.
    in_turn: True if the answer is long: such requests go on one after the other when they are resumed.
    """

    def __init__(self, begin: Callable[[Resume], None], in_turn: bool = False) -> None:
        super().__init__()
        self.begin = begin
        self.in_turn = in_turn


class TakenOver(BaseException):
    """Raised by an application, instead of an answer, to have the client's connection itself from now on.

    begin: called by the server in its reading thread, when it has let go of the connection, with the connected, non-blocking
    socket (or what stands for it under TLS); the headers that the server would have added to an answer; and a function that
    counts and logs the answer, to be called once it is given, in any thread, with its status and the length of its body.
    environ: what the application was given; the server adds it.
    """

    def __init__(self, begin: Callable[[Any, list[tuple[str, str]], Answered], None]) -> None:
        super().__init__()
        self.begin = begin
        self.environ: WSGIEnvironment | None = None
