"""Certificates for tests: a CA of their own, and what it signs, made as ``cacheflow cert`` makes them."""

from __future__ import annotations

import shutil
import ssl
from collections.abc import Sequence
from pathlib import Path

from cacheflow.cli import signing
from cacheflow.net.tls.certificates import Certificates
from cacheflow.net.tls.session import Session
from cacheflow.net.tls.trust import trusting

HERE = ("127.0.0.1", "localhost")


class Authority:
    """A CA, in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        signing.make_ca(folder, folder.name, 3650)
        self.folder = folder
        self.crt = folder / "ca.crt"

    def node(self, name: str = "node", hosts: Sequence[str] = HERE, days: int = 90) -> tuple[Path, Path]:
        """A node's certificate and key, new ones when there are some already. days: 0 is one that has ended."""
        return signing.make_node(self.folder, tuple(hosts), self.folder, name, days)

    def certificates(self, name: str = "node", hosts: Sequence[str] = HERE, ca: Path | None = None) -> Certificates:
        """What a node makes of its files. ca: the CA that it trusts, when it is another one."""
        return Certificates(*self.node(name, hosts), ca or self.crt)

    def flags(self, name: str = "node", *more: str) -> list[str]:
        """A node's command line."""
        cert, key = self.node(name)
        return ["--tls-cert", str(cert), "--tls-key", str(key), "--tls-ca", str(self.crt), *more]

    def trusted(self) -> ssl.SSLContext:
        """The context of a client that trusts this CA."""
        return trusting(self.crt)


def put_in_place(new: tuple[Path, Path], old: tuple[Path, Path]) -> None:
    """Put one certificate and key in the place of another."""
    for source, target in zip(new, old, strict=True):
        shutil.copy(source, target)


def met(client: ssl.SSLContext, server: ssl.SSLContext, host: str = "127.0.0.1") -> tuple[Session, Session]:
    """Two sessions, client and server, that have shaken hands in memory."""
    one, other = Session(client, server_side=False, host=host), Session(server, server_side=True)
    said = b""
    for _ in range(8):
        done = one.shake(said)
        done = other.shake(one.output()) and done
        said = other.output()
        if done:
            one.decrypt(said)
            return one, other
    raise AssertionError("no end of shaking hands")
