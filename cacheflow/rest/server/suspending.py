"""The interface by which an application tells its HTTP server that a request waits; both sides know only this.

A server that can put a request aside says so with ``SUSPENDS`` in the environ. The application may then throw
``Suspended`` instead of answering; the server lets go of the request's thread and goes on with it when told to.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

    Wake = Callable[[], None]
    Resume = Callable[[WSGIApplication], Wake]

# The key in the environ by which a server says that it can put a request aside.
SUSPENDS: Final = "cacheflow.suspends"


class Suspended(BaseException):
    """Raised to put a request aside. It is no Exception: nobody between application and server may take it for an error.

    begin: called by the server once it has let go of the request, with ``resume``. Any thread may call that, once, with
    the application to go on with; what it returns wakes the server, and may be called once for many requests.
    """

    def __init__(self, begin: Callable[[Resume], None]) -> None:
        super().__init__()
        self.begin = begin
