"""Servers of others, started for a suite: the control that it is written for, or what else it needs."""

from __future__ import annotations

import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager

from conformance.fetching import Unavailable, program

from cacheflow.cli.launcher import free_ports

# Seconds for a server to listen.
SERVER_S = 10.0


@contextmanager
def server(name: str) -> Iterator[int]:
    """Start redis-server or memcached, by its name, and yield its port. Raises Unavailable."""
    found = program(name, "redis-server" if name == "redis-server" else "memcached")
    (port,) = free_ports(1)
    with tempfile.TemporaryDirectory() as folder:
        if name == "redis-server":
            command = [found, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", folder]
        else:
            command = [found, "-p", str(port), "-l", "127.0.0.1", "-u", "nobody"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            deadline = time.monotonic() + SERVER_S
            while not _listens(port):
                if process.poll() is not None or time.monotonic() > deadline:
                    raise Unavailable(f"{name} does not listen")
                time.sleep(0.02)
            yield port
        finally:
            process.terminate()
            process.wait()


def _listens(port: int) -> bool:
    with socket.socket() as asked:
        return asked.connect_ex(("127.0.0.1", port)) == 0
