"""The fuzzer finds what it looks for, and a short run of it finds nothing in three real nodes."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from random import Random

import pytest
from fuzz.__main__ import BAD_LINE, PORTS, main
from fuzz.grammar import Grammar, Malformed
from fuzz.http_api import Http
from fuzz.memcached import Memcached
from fuzz.mutating import mutated
from fuzz.resp import Resp
from fuzz.running import Conversation, Tally

INPUTS = 500
Wrong = Callable[[bytes], bytes]


@pytest.mark.parametrize("more", [[], ["--tls"]])
def test_a_short_run_finds_nothing(more: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["--inputs", str(INPUTS), "--seed", "7", *more]) == 0, capfd.readouterr().out
    told = capfd.readouterr().out
    assert all(f"{name}: " in told for name in PORTS)


def met(grammar: Grammar, answer: Wrong) -> str:
    """Hold a conversation with a server that answers whatever it reads by ``answer``; return what the fuzzer says of it."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(answer(data))
        writer.close()

    async def run() -> str:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        async with server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            try:
                return await Conversation(grammar, reader, writer, Tally(100), itertools.count()).hold(Random(1))
            finally:
                writer.close()

    return asyncio.run(asyncio.wait_for(run(), 20))


@pytest.mark.parametrize(
    ("grammar", "answer", "words"),
    [
        (Resp(), lambda _: b"+OK\r\n" * 99, "instead of the known answer"),
        (Resp(), lambda _: b"-ERR \n\r\n", "Bad simple string"),
        (Memcached(), lambda _: b"HD O9\r\n" * 99, "instead of the known answer"),
        (Memcached(), lambda _: b"what?\r\n", "what?"),
        (Memcached(), lambda _: b"VALUE k 0 1\r\nxyz\r\n", "without its end"),
        (Http(), lambda _: b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n" * 99, "instead of the known answer"),
        (Http(), lambda _: b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n" * 99, "500 Oops"),
        (Http(), lambda _: b"hello\r\n\r\n" * 99, "hello"),
    ],
)
def test_a_node_that_answers_wrongly_is_noticed(grammar: Grammar, answer: Wrong, words: str) -> None:
    with pytest.raises(Malformed, match=words.replace("?", r"\?")):
        met(grammar, answer)


@pytest.mark.parametrize("grammar", [Resp(), Memcached(), Http()])
def test_inputs_follow_from_the_seed_and_mutations_differ_from_what_they_were(grammar: Grammar) -> None:
    made = [[grammar.valid(random) for _ in range(200)] for random in (Random(3), Random(3))]
    assert made[0] == made[1]
    random = Random(4)
    changed = sum(mutated(data, random, grammar.tokens) != data for data, _ in made[0])
    assert changed > 150


@pytest.mark.parametrize(
    "line", ["Traceback (most recent call last):", "2026-11-29 ERROR asyncio: x", "Task exception was never retrieved"]
)
def test_a_line_of_a_defect_is_bad(line: str) -> None:
    assert BAD_LINE.search(line)
    assert not BAD_LINE.search("WARNING cacheflow.raft.node: dropped a message of stranger-1")
