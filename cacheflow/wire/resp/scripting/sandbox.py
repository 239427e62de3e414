"""Sandbox: a Lua interpreter in which one script at a time runs, within bounds and without a way out.

1. Byte strings are all that crosses between Python and Lua: no Python object is ever in reach of a script.
2. The functions that Lua calls here never raise: an exception would be such an object.
3. Memory is bounded while Lua runs, and not while Python puts something into it: Lua could tell a failure there to nobody,
   and would leave with the interpreter's lock.

Everything else that bounds a script is in ``lua/sandbox.lua``. Not safe for concurrent use: one thread makes a sandbox and
uses it. Python's interpreter lock is free while Lua runs.
"""

from __future__ import annotations

import hashlib
import logging
import weakref
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from cacheflow.wire.resp.replies import bulks, error

logger = logging.getLogger("cacheflow.script")

# Bytes that one script may use beside its keys, its arguments and what the interpreter itself needs.
MEMORY_BYTES_MAX: Final = 32 * 1024 * 1024
MISSING: Final = "ERR scripts need lupa, which is not installed on this node: pip install 'cacheflow[lua]'"
_LEVELS: Final = {b"0": logging.DEBUG, b"1": logging.DEBUG, b"2": logging.INFO, b"3": logging.WARNING}
_FOLDER: Final = Path(__file__).parent / "lua"

# A function that answers a Redis command, given as its words, with the encoded reply.
Call = Callable[[list[bytes]], bytes]


class GivenUp(Exception):
    """Raised when a script was ended because its time was over or its memory used up.

    The sandbox in which the script ran is not to be used again.
    """


@cache
def is_available() -> bool:
    """Return whether lupa, the Python package with the Lua interpreter, is installed; lupa is not loaded by this."""
    return find_spec("lupa") is not None


@cache
def _source(name: str) -> bytes:
    return (_FOLDER / f"{name}.lua").read_bytes()


def _refuse(*_: object) -> None:
    raise AttributeError("no attribute of a Python object is shown to a script")


class Sandbox:
    """A Lua interpreter that runs scripts, one after the other. It requires lupa, a Python package that may be absent."""

    def __init__(self) -> None:
        # Lua 5.1 is the version of Redis' scripts. Only who runs scripts loads it, and only where it is installed.
        from lupa import lua51

        self._lua: Any = lua51.LuaRuntime(
            encoding=None,
            register_eval=False,
            register_builtins=False,
            unpack_returned_tuples=False,
            attribute_filter=_refuse,
            max_memory=0,
        )
        self._base_bytes = 0
        self._call: Call = _nothing
        self._expired: Callable[[], bool] = _never
        self._is_over = False
        new_cjson, null = self._lua.execute(_source("cjson"))
        parts = (new_cjson, null, self._lua.execute(_source("cmsgpack")), self._lua.execute(_source("bit")))
        own = weakref.proxy(self)
        # Lua keeps these, and a sandbox that is dropped is freed at once, with all that its script held: no garbage of a server
        # waits longer than that of a circle.
        called = (lambda *words: own._answer(*words), lambda: own._limit(), lambda: own._over())
        self._run, self._check = self._lua.execute(_source("sandbox"), *called, *parts)

    def check(self, source: bytes, sha: bytes) -> bytes:
        """Return the error for which the Lua script ``source`` cannot be compiled; empty for none. sha: the script's SHA-1."""
        wrong: bytes = self._check(source, sha)
        return wrong

    def run(
        self,
        source: bytes,
        sha: bytes,
        keys: list[bytes],
        arguments: list[bytes],
        null: bytes,
        call: Call,
        expired: Callable[[], bool],
    ) -> bytes:
        """Run the Lua script ``source`` and return its encoded reply. Raises GivenUp when it needs too much time or memory.

        sha: the script's SHA-1, by which the compiled script is kept.  null: RESP's null, encoded.
        call: a function that does the Redis commands that the script calls.
        expired: a function that returns whether the script's time is over.
        """
        self._call, self._expired = call, expired
        self._lua.set_max_memory(0)
        self._base_bytes = self._lua.get_memory_used()
        reply = b""
        try:
            reply = self._run(source, sha, bulks(keys), bulks(arguments), null)
        except Exception as ended:
            if not self._is_over:
                raise GivenUp(f"it used more than {MEMORY_BYTES_MAX} bytes of memory") from ended
        finally:
            self._call, self._expired = _nothing, _never
            self._lua.set_max_memory(0)
        if self._is_over:
            # Also when the script came to an end: the error was raised in a coroutine of its, and could not be raised again.
            raise GivenUp("its time is over")
        return reply

    # What Lua calls; none of these raises -------------------------------------------------------------------------------

    def _answer(self, what: bytes, *words: bytes) -> bytes:
        try:
            if what == b"call":
                answer = self._call(list(words))
            elif what == b"sha1":
                answer = hashlib.sha1(words[0], usedforsecurity=False).hexdigest().encode()
            else:
                logger.log(_LEVELS[words[0]], "a script says: %s", words[1].decode("utf-8", "backslashreplace"))
                answer = b""
        except Exception:
            logger.exception("a command of a script stumbled")
            answer = error("ERR the command failed inside this node; its log says why")
        self._lua.set_max_memory(0)
        return answer

    def _limit(self) -> None:
        # What the arguments take is counted from the first call on: they are there when it comes.
        self._lua.set_max_memory(self._base_bytes + MEMORY_BYTES_MAX)

    def _over(self) -> bool:
        self._is_over = self._is_over or self._expired()
        return self._is_over


def _nothing(words: list[bytes]) -> bytes:
    return error("ERR no script runs")


def _never() -> bool:
    return False
