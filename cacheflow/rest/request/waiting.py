"""Views that wait for the cluster without occupying a thread.

Such a view is a generator: ``[result] = yield [command]`` replicates the command and goes on with its result, and
``yield BARRIER`` goes on once everything acknowledged before is applied here. What is refused or not answered in time
never comes back to the view: problems.py answers it. ``yield IN_TURN`` goes on when it is this request's turn to be
answered at length.

Our HTTP server can put a request aside (suspending.py): the view's thread is free at once, and when the
event loop has the answer the server goes on with the view where it stopped. Any other WSGI server is waited in.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Generator, Iterable
from typing import TYPE_CHECKING, Any, Final

from flask import Response, request

from cacheflow.errors import Overloaded
from cacheflow.machine.language import commands
from cacheflow.machine.language.commands import Command, Result
from cacheflow.rest.answers import Answer
from cacheflow.rest.problems import answer_error
from cacheflow.rest.request.context import Services
from cacheflow.rest.server.suspending import SUSPENDS, Suspended
from cacheflow.verbs import error_of

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

    from cacheflow.rest.server.suspending import Resume, Wake

# What a view yields to wait until everything acknowledged before is applied here.
BARRIER: Final[list[Command]] = []
# What a view yields before it makes a long answer, which then has its turn among all long ones; it must keep no value meanwhile.
IN_TURN: Final[list[Command]] = []
Steps = Generator[list[Command], list[Result], Answer]

# The largest body of a request that needs no thread: a larger one takes longer to parse than a hand-over to a thread.
AT_ONCE_BYTES_MAX: Final = 16 * 1024


def at_once(path: str, body_bytes: int) -> bool:
    """True if an HTTP request to ``path``, its body ``body_bytes`` long, is short work that waits only for the cluster.

    Such a request needs no thread of its own.
    """
    return path.startswith("/cache/") and body_bytes <= AT_ONCE_BYTES_MAX


def run_one(key: str, command: Command, repeat: Command | None) -> Generator[list[Command], list[Result], Result]:
    """Replicate ``command`` and return its result. A generator: a view calls it as ``result = yield from run_one(...)``.

    Raises the error that the result stands for; the error names ``key``.
    repeat: the first fields of a command that wraps ``command`` so that it takes place once; None: it is not wrapped.
    """
    [result] = yield [command if repeat is None else (*repeat, command)]
    if result[0] not in (commands.OK, commands.ABORTED):
        raise error_of(key, result)
    return result


def waits(services: Services) -> Callable[[Callable[..., Steps]], Callable[..., Response]]:
    """Return a decorator that turns a generator view into a Flask view.

    A generator view yields commands to be replicated, is resumed with their results, and returns its answer.
    """

    def decorate(view: Callable[..., Steps]) -> Callable[..., Response]:
        @functools.wraps(view)
        def start(**arguments: Any) -> Response:
            steps = view(**arguments)
            try:
                wanted = next(steps)
                if request.environ.get(SUSPENDS):
                    return Waiting(services, steps, wanted, arguments.get("raw_key"))
                while True:
                    results: list[Result] = []
                    if wanted is not IN_TURN:
                        with services.thread_gate:
                            results = services.store.run(wanted) if wanted is not BARRIER else services.store.barrier()
                    wanted = steps.send(results)
            except StopIteration as end:
                answer: Answer = end.value
                return answer

        return start

    return decorate


class Waiting(Response):
    """The Flask response of a view that waits for the results of its commands.

    Called as a WSGI application it goes on with the view if the results are there; else it puts the HTTP request aside.
    """

    def __init__(self, services: Services, steps: Steps, wanted: list[Command], raw_key: str | None) -> None:
        self._services = services
        self._steps = steps
        self._wanted = wanted
        self._raw_key = raw_key
        self._outcome: list[Result] | Exception | None = None

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        outcome, self._outcome = self._outcome, None
        if outcome is not None:
            try:
                if isinstance(outcome, Exception):
                    raise outcome
                self._wanted = self._steps.send(outcome)
            except StopIteration as end:
                answer: Answer = end.value
                return answer(environ, start_response)
            except Exception as error:
                return answer_error(error, self._services, environ, self._raw_key)(environ, start_response)
        raise Suspended(self._begin, self._wanted is IN_TURN)

    def _begin(self, resume: Resume) -> None:
        if self._wanted is IN_TURN:
            self._outcome = []
            resume(self)()
            return
        store, gate = self._services.store, self._services.gate

        def done(outcome: list[Result] | Exception) -> Wake:
            gate.leave()
            self._outcome = outcome
            return resume(self)

        try:
            gate.enter()
        except Overloaded as error:
            self._outcome = error
            resume(self)()
            return
        try:
            if self._wanted is BARRIER:
                store.submit_barrier(done)
            else:
                store.submit(self._wanted, done)
        except Exception as error:
            done(error)()
