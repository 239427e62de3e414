"""A process between the nodes that loses what it is told to lose: one gate for each directed pair of nodes.

Lines of JSON on stdin are orders, each answered by a line on stdout; the end of stdin ends it.

    {"relay": [node_id, host, port, behind_host]}   listen on host:port for node_id, which listens on behind_host:port
    {"cut": [[from, to], ...]}                      let nothing pass between these, and everything between all others

An argument is the bytes a second that get through in each direction of a connection; by default as many as come.

Who dials is read from its first frame, the hello. Behind a closed gate connections stay open, and neither bytes nor
their ends get through: for both sides this is silence. What waited there follows when the gate opens.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import sys
from collections import defaultdict
from collections.abc import Callable

import msgpack

from cacheflow.raft.transport.frames import HEADER
from cacheflow.raft.transport.handshake import HANDSHAKE_BYTES_MAX, Hello

CHUNK_BYTES = 256 * 1024
# The same where only so many bytes a second get through: what lies in the proxy is late.
NARROW_CHUNK_BYTES = 16 * 1024


def _open_gate() -> asyncio.Event:
    gate = asyncio.Event()
    gate.set()
    return gate


class Proxy:
    """All relays and gates. Not safe for concurrent use: its event loop owns it. bytes_per_s: None for any number."""

    def __init__(self, bytes_per_s: int | None) -> None:
        self._bytes_per_s = bytes_per_s
        self._chunk_bytes = CHUNK_BYTES if bytes_per_s is None else NARROW_CHUNK_BYTES
        self._gates: defaultdict[tuple[str, str], asyncio.Event] = defaultdict(_open_gate)

    async def relay(self, node_id: str, host: str, port: int, behind: str) -> None:
        """Listen for ``node_id``."""

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                await self._carry(node_id, (behind, port), reader, writer)
            except (OSError, ValueError, asyncio.IncompleteReadError):
                pass  # the dialer sees its connection end, as it would without a proxy
            finally:
                writer.close()

        listening = socket.create_server((host, port))
        if self._bytes_per_s is not None:
            # Accepted sockets have it from the listening one.
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._chunk_bytes)
        await asyncio.start_server(serve, sock=listening, limit=self._chunk_bytes)

    def cut(self, pairs: list[tuple[str, str]]) -> None:
        """Close the gates of ``pairs`` and open all others."""
        for gate in self._gates.values():
            gate.set()
        for source, target in pairs:
            self._gates[source, target].clear()

    async def _carry(
        self, target: str, address: tuple[str, int], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        header = await reader.readexactly(HEADER.size)
        (length,) = HEADER.unpack(header)
        if length > HANDSHAKE_BYTES_MAX:
            raise ValueError("not a hello")
        body = await reader.readexactly(length)
        source = Hello.of(msgpack.unpackb(body)).node_id
        await self._gates[source, target].wait()
        onward_reader, onward = await asyncio.open_connection(*address, limit=self._chunk_bytes)
        onward.write(header + body)
        ways = (
            asyncio.ensure_future(self._pump(reader, onward, self._gates[source, target])),
            asyncio.ensure_future(self._pump(onward_reader, writer, self._gates[target, source])),
        )
        try:
            # The first end that gets through is the end of both ways.
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            onward.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, gate: asyncio.Event) -> None:
        clock = asyncio.get_running_loop().time
        free_s = clock()
        with contextlib.suppress(OSError):
            while data := await reader.read(self._chunk_bytes):
                await gate.wait()
                if self._bytes_per_s is not None:
                    free_s = max(free_s, clock()) + len(data) / self._bytes_per_s
                    await asyncio.sleep(free_s - clock())
                writer.write(data)
                await writer.drain()
        await gate.wait()


async def _obey(proxy: Proxy, read_line: Callable[[], str]) -> None:
    while line := await asyncio.to_thread(read_line):
        for order, given in json.loads(line).items():
            if order == "relay":
                await proxy.relay(*given)
            else:
                proxy.cut([(source, target) for source, target in given])
        print("done", flush=True)


if __name__ == "__main__":
    asyncio.run(_obey(Proxy(int(sys.argv[1]) if len(sys.argv) > 1 else None), sys.stdin.readline))
