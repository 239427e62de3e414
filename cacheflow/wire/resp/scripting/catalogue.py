"""Catalogue: the scripts that this node knows by the digest of their source, and what their first line says."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from typing import Final, NamedTuple

from cacheflow.wire.resp.replies import CommandError

# A script is compiled in one step that nothing interrupts: so much takes some milliseconds, or a fifth of a second where one
# expression or chain of conditions is that long, for which the compiler's time is quadratic.
SOURCE_BYTES_MAX: Final = 64 * 1024
SCRIPTS_MAX: Final = 1000
KEPT_BYTES_MAX: Final = 16 * 1024 * 1024
_FLAGS: Final = (b"no-writes", b"allow-oom", b"allow-stale", b"no-cluster", b"allow-cross-slot-keys")


class Script(NamedTuple):
    """A Lua script. source: its text without the ``#!`` line.  sha: the hexadecimal SHA-1 of the whole text.

    flags: the flags in the ``#!`` line, None for a script without that line.
    """

    source: bytes
    sha: bytes
    flags: tuple[bytes, ...] | None

    @property
    def only_reads(self) -> bool:
        """True if the script says by its flag ``no-writes`` that it writes nothing."""
        return self.flags is not None and b"no-writes" in self.flags


def script_of(text: bytes) -> Script:
    """Return the script whose whole text is ``text``. Raises CommandError if it is too long or its first line is wrong."""
    if len(text) > SOURCE_BYTES_MAX:
        raise CommandError(f"ERR a script has at most {SOURCE_BYTES_MAX} bytes")
    sha = hashlib.sha1(text, usedforsecurity=False).hexdigest().encode()
    if not text.startswith(b"#!"):
        return Script(text, sha, None)
    head, line_break, body = text.partition(b"\n")
    if not line_break:
        raise CommandError("ERR Invalid script shebang")
    engine, *options = head[2:].split()
    if engine != b"lua":
        raise CommandError(b"ERR Unexpected engine in script shebang: #!" + engine[:64])
    flags: tuple[bytes, ...] = ()
    for option in options:
        name, equals, value = option.partition(b"=")
        if name != b"flags" or not equals:
            raise CommandError(b"ERR Unknown lua shebang option: " + option[:64])
        flags = tuple(filter(None, value.split(b",")))
        for flag in flags:
            if flag not in _FLAGS:
                raise CommandError(b"ERR Unexpected flag in script shebang: " + flag[:64])
    # The line stays, empty, so that errors name the right one.
    return Script(line_break + body, sha, flags)


class Catalogue:
    """The Lua scripts that this node has been given, by SHA-1; of too many, the one used longest ago is dropped.

    The event loop owns it.
    """

    def __init__(self) -> None:
        self._scripts: OrderedDict[bytes, Script] = OrderedDict()
        self._bytes = 0

    def keep(self, script: Script) -> None:
        """Keep the Lua script ``script`` on this node, so that clients can call it by its SHA-1."""
        if script.sha not in self._scripts:
            self._scripts[script.sha] = script
            self._bytes += len(script.source)
        self._scripts.move_to_end(script.sha)
        while len(self._scripts) > SCRIPTS_MAX or self._bytes > KEPT_BYTES_MAX:
            _, gone = self._scripts.popitem(last=False)
            self._bytes -= len(gone.source)

    def find(self, sha: bytes) -> Script | None:
        """Return the Lua script with the SHA-1 ``sha``, or None if this node does not know it (any more)."""
        script = self._scripts.get(sha.lower())
        if script is not None:
            self._scripts.move_to_end(script.sha)
        return script

    def knows(self, sha: bytes) -> bool:
        """True if this node knows the Lua script with the SHA-1 ``sha``; to ask this does not count as a use of the script."""
        return sha.lower() in self._scripts

    def clear(self) -> None:
        """Drop all Lua scripts that clients have loaded into this node."""
        self._scripts.clear()
        self._bytes = 0
