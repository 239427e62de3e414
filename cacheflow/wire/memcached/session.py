"""MemcachedSession: a connection of memcached's protocol as commands see it, with the state that they keep in it."""

from __future__ import annotations

from collections.abc import Callable

from cacheflow.access.roles import Role, User
from cacheflow.access.users import Access
from cacheflow.contract import WireStore as Store
from cacheflow.measuring.request_times import RequestTimes
from cacheflow.net.slices import Slices
from cacheflow.wire.connection import Connection
from cacheflow.wire.memcached import lines
from cacheflow.wire.memcached.fetch import Fetch
from cacheflow.wire.port import WirePort

# The bytes of a request beside its value: a command line, and as much again.
_OVERHEAD_BYTES = 2 * lines.LINE_BYTES_MAX


class Shared:
    """The settings that all connections of memcached's port share.

    access: the users, one of whose tokens clients must show; None if they need none.
    times: where answered requests are counted, with the time that their answers took.
    slices: limits how much of each turn long work may take; shared with the other ports of the event loop.
    """

    port: WirePort

    def __init__(
        self,
        version: str,
        value_bytes_max: int,
        access: Access | None,
        wall_s: Callable[[], float],
        times: RequestTimes,
        slices: Slices | None = None,
    ) -> None:
        self.times = times
        self.version = version
        self.slices = Slices() if slices is None else slices
        self.limit_values(value_bytes_max)
        self.access = access
        self.wall_s = wall_s

    def limit_values(self, bytes_max: int) -> int:
        """Take values of up to ``bytes_max`` bytes from now on; return the most bytes of a request, which follows from that."""
        self.value_bytes_max = bytes_max
        self.request_bytes_max = max(bytes_max, lines.KEYS_LINE_BYTES_MAX) + _OVERHEAD_BYTES
        return self.request_bytes_max


class MemcachedSession(Connection):
    """The base class of memcached connections: what the functions that carry out commands use of a connection.

    That is the client's role, the port's settings, and the get that is being answered.
    """

    def __init__(self, store: Store, shared: Shared, on_closed: Callable[[Connection], None]) -> None:
        super().__init__(store, shared.request_bytes_max, on_closed, shared.slices, shared.times)
        self.shared = shared
        self.wall_s = shared.wall_s
        self.admit(None)
        # The number of bytes behind the line that are still to come of a value that was refused, and thrown away.
        self.skip = 0
        # The get at the start of the input whose reply is given in parts, as replies may be given; None when there is none.
        self.fetch: Fetch | None = None
        # The words of the latest request's line.
        self.words: list[bytes] = []

    def outcome(self, reply: bytes) -> str:
        return lines.outcome_of(reply)

    def key_bytes(self, command: str, about: list[bytes]) -> int | None:
        """Return the length of the first key of a request with the words ``about``, its line; None if there is none."""
        place = lines.KEY_PLACES.get(command, 1)
        return len(about[place]) if place and len(about) > place else None

    def admit(self, user: User | None) -> None:
        """Let this client act as ``user``, whose token it has shown; None: it has shown no token."""
        stranger = Role.ADMIN if self.shared.access is None else Role.NOBODY
        role = stranger if user is None else user.role
        self.user = user
        self.may_read = role >= Role.READ
        self.may_write = role >= Role.WRITE

    def is_admitted(self) -> bool:
        return self.user is None or self.shared.access is None or self.shared.access.is_current(self.user)

    def forbidden(self, name: bytes) -> bytes:
        """Return the error reply to the command ``name``, for which this client's role is too low, and count the refusal."""
        if self.shared.access is not None:
            self.shared.access.refuse("memcached", role=True)
        return b"CLIENT_ERROR %b needs the role write\r\n" % name


Handler = Callable[[MemcachedSession, list[bytes]], None]
