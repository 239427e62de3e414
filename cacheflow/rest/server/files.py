"""Files over HTTP: backups on their way out, and in, that must neither fill the memory nor keep a thread or the poll loop.

1. A file goes out in bounded pieces, one a turn of the poll loop, as far as its client takes it.
2. An upload goes into a file on the node's own disk while it comes. Only who shows the token of an admin may send so much, and
   only as much as that disk has to spare; for everybody else the limits of all requests hold.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO, Final

from waitress.buffers import FileBasedBuffer, ReadOnlyFileBasedBuffer

# Bytes of a file that one turn of the poll loop sends to one client: some tenths of a millisecond.
SENT_A_TURN_BYTES: Final = 512 * 1024
# The path to which bodies may be posted that are longer than others, and are kept in a file.
UPLOAD_PATH: Final = "/restore"


class SentFile(ReadOnlyFileBasedBuffer):  # type: ignore[misc]
    """A file that waitress sends to a client, a part in each turn of the poll loop, so that other clients are served, too.

    waitress keeps it in its list of output buffers.
    """

    # The bytes of one of waitress' own buffers, which are looked at when nothing is to be sent any more.
    buf = None
    _sent = 0

    def get(self, numbytes: int = -1, skip: bool = False) -> bytes:
        """Return the next ``numbytes`` bytes of the file; none when this turn of the poll loop has sent its part of the file.

        waitress takes that for a full socket, and comes back in the next turn.
        """
        if self._sent >= SENT_A_TURN_BYTES:
            self._sent = 0
            return b""
        return super().get(numbytes, skip)  # type: ignore[no-any-return]

    def skip(self, numbytes: int, allow_prune: int = 0) -> None:
        """Note that the client has taken the next ``numbytes`` bytes of the file."""
        super().skip(numbytes, allow_prune)
        self._sent += numbytes


class Uploads:
    """The uploads (request bodies) that an HTTP server writes into files while they arrive.

    allows: returns whether an Authorization header is an admin's.  new_file: makes an empty file.
    room: returns how many bytes such a file may have.
    """

    def __init__(
        self, allows: Callable[[str], bool], new_file: Callable[[], BinaryIO], room: Callable[[], int]
    ) -> None:
        self._allows = allows
        self._new_file = new_file
        self._room = room

    def begin(self, parser: Any, headers: Mapping[str, str]) -> bool:
        """Have the body of an HTTP request written into a file, if the client may upload; return whether that is so.

        parser: the request's parser, which has read the header but not the body.  headers: the request's headers.
        """
        if parser.command != "POST" or parser.body_rcv is None:
            return False
        if not self._allows(headers.get("AUTHORIZATION", "")):
            return False
        try:
            file = self._new_file()
        except OSError:
            return False
        parser.adj = copy.copy(parser.adj)
        parser.adj.max_request_body_size = self._room() + 1
        parser.body_rcv.buf = FileBasedBuffer(file)
        return True
