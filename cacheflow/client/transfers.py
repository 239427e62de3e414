"""Transfers: backups on their way between a file and a node, in pieces, however large they are.

One node is asked, once: a backup that broke off is begun again by whoever wants it.
"""

from __future__ import annotations

import contextlib
import functools
import http.client
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, Final

from cacheflow.client.exchange import Answer, NodeHttp, NotSent
from cacheflow.client.failover import problem_of
from cacheflow.errors import NotCommitted, OutcomeUnknown
from cacheflow.net.tls.trust import trusting

# Seconds in which nothing may come: a node makes a backup before it sends any of it, and answers when all is restored.
SILENT_S: Final = 3600.0
PIECE_BYTES: Final = 256 * 1024

Told = Callable[[int], object]


class Transfers:
    """Makes backups of a cluster, and restores them, through one node. Safe for concurrent use.

    url: that node's address.  token: of an admin.
    ca: a file with the CA of the node's certificate; None: CAs count that the system trusts.
    """

    def __init__(self, url: str, token: str | None = None, ca: str | os.PathLike[str] | None = None) -> None:
        self._node = NodeHttp(url, functools.cache(lambda: trusting(ca)))
        self._headers = {} if token is None else {"Authorization": f"Bearer {token}"}

    def fetch(self, file: BinaryIO, begin: Callable[[int], Told]) -> None:
        """Write a backup, made by the node, to ``file``. Raises NotCommitted if the node makes none, or breaks off.

        begin: is called with the backup's length in bytes; returns a function, called with the length of each piece that came.
        """
        with self._connected() as (connection, prefix):
            connection.request("GET", prefix + "/backup", headers=self._headers)
            response = connection.getresponse()
            if response.status != 200:
                raise problem_of(_answer(response, self._node.url))
            missing = response.length or 0
            told = begin(missing)
            while missing and (piece := response.read(min(missing, PIECE_BYTES))):
                file.write(piece)
                told(len(piece))
                missing -= len(piece)
            if missing:
                raise NotCommitted(f"{self._node.url} broke off, with {missing} bytes of the backup missing")

    def send(self, file: BinaryIO, *, online: bool, told: Told) -> dict[str, Any]:
        """Have the node restore the backup in ``file``; return the node's answer, given when all is restored.

        told: a function, called with the length of each piece that was sent.
        Raises the error that the node answers; OutcomeUnknown when no answer came.
        """
        size = file.seek(0, os.SEEK_END)
        file.seek(0)

        def pieces() -> Iterator[bytes]:
            while piece := file.read(PIECE_BYTES):
                yield piece
                told(len(piece))

        with self._connected() as (connection, prefix):
            target = prefix + "/restore" + ("?online" if online else "")
            headers = {**self._headers, "Content-Length": str(size), "Content-Type": "application/x-cacheflow-backup"}
            # A node that refuses says so at once, and may close before it has taken everything.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                connection.request("POST", target, pieces(), headers)
            answer = _answer(connection.getresponse(), self._node.url)
            if answer.status != 200:
                raise problem_of(answer)
            document: dict[str, Any] = answer.json()
            return document

    def give_up(self) -> bool:
        """Have the cluster give up the restore that is under way; return False if there is none."""
        with self._connected() as (connection, prefix):
            connection.request("DELETE", prefix + "/restore", headers=self._headers)
            answer = _answer(connection.getresponse(), self._node.url)
            if answer.status != 200:
                raise problem_of(answer)
            return bool(answer.json()["given_up"])

    @contextlib.contextmanager
    def _connected(self) -> Iterator[tuple[http.client.HTTPConnection, str]]:
        try:
            connection, prefix = self._node.connect(SILENT_S)
        except NotSent as error:
            raise NotCommitted(f"no node answered: {self._node.url}: {error}") from None
        try:
            yield connection, prefix
        except (OSError, http.client.HTTPException) as error:
            raise OutcomeUnknown(f"{self._node.url} broke off: {error or type(error).__name__}") from None
        finally:
            connection.close()


def _answer(response: http.client.HTTPResponse, url: str) -> Answer:
    return Answer(response.status, response.headers, response.read(1 << 20), url)


def write_whole(path: Path, fill: Callable[[BinaryIO], object]) -> None:
    """Put what the function ``fill`` writes in the place of the file ``path``; if an error is raised the old file stays."""
    part = path.with_name(path.name + ".part")
    try:
        with part.open("w+b") as file:
            fill(file)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            part.unlink()
        raise


def near(nodes: list[dict[str, Any]], scheme: str) -> str | None:
    """Return the address of a follower that is up, by ``nodes``, the list of the cluster's members; None if there is none."""
    for node in nodes:
        address = node.get("address")
        if node.get("role") == "follower" and node.get("status") == "up" and type(address) is str and address:
            return address if "//" in address else f"{scheme}://{address}"
    return None
