"""Transactions, and single commands that read memory and propose writes that depend on it.

Whatever takes place does so in one entry of the log, under the condition that every key that was looked at still has the
version and expiry that were seen. When one has not, optimistic.py has them look again.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterator, Sequence
from typing import Final

from cacheflow.contract import DATA, VERSION, Entry
from cacheflow.errors import ReplicationError
from cacheflow.machine.language import commands as c
from cacheflow.machine.language.commands import Command, Result
from cacheflow.wire.connection import End
from cacheflow.wire.optimistic import Attempt, Attempts, Condition, unchanged
from cacheflow.wire.resp.arguments import keys_of
from cacheflow.wire.resp.commands.scripts import run_transaction
from cacheflow.wire.resp.commands.strings import ANSWER_BYTES_MAX, failed
from cacheflow.wire.resp.field_replies import SLICE_BYTES
from cacheflow.wire.resp.overlay import Overlay, work_in
from cacheflow.wire.resp.replies import CommandError, error, failure, replies_array, said_in_pieces
from cacheflow.wire.resp.session import (
    KEYS_MAX,
    WRITES_MAX,
    Arguments,
    Find,
    Finish,
    Plan,
    Queue,
    Read,
    RespSession,
    Spec,
    Watched,
)
from cacheflow.wire.streams import Reply, Stream, size_of

# The most commands of a transaction.
COMMANDS_MAX: Final = 2000
# Commands whose replies are made in slices, at least.
_IN_SLICES: Final = 64
TOO_MANY: Final = CommandError(f"ERR a transaction reads at most {KEYS_MAX} keys")
# No exception that is raised again and again: it would keep what it was raised in.
TOO_MANY_WRITES: Final = f"ERR a transaction that writes or watches changes and reads at most {WRITES_MAX} keys"
_TOO_LONG: Final = f"ERR the answers are larger than {ANSWER_BYTES_MAX} bytes"
# What the commands of one transaction may search in large hashes and sets before they are proposed, as the state machine counts;
# and how often one that makes a set of others counts their bytes.
SEARCHED_BYTES_MAX: Final = 16 * 1024 * 1024
_COMBINED_COUNTS: Final = 8
TOO_MUCH: Final = "ERR a transaction changes or copies large hashes or sets too often; send fewer at once"
# The groups of commands that may search a megabyte for a short reply.
_OF_FIELDS: Final = ("hash", "set")


def run_steps(connection: RespSession, spec: Spec, arguments: Arguments) -> None:
    """Answer a Redis command that reads memory and then writes; if what it read changes before the write, try again.

    spec: the command's row in the table of commands.  arguments: the words of the request.
    """
    planner = spec.plan
    assert planner is not None

    def decide() -> Attempt:
        overlay = Overlay(connection.store, connection.store.now_ms())
        try:
            commands, finish = planner(connection, overlay.find, arguments)
        except CommandError as wrong:
            # A refusal rests on what was seen too: it holds only on the same conditions.
            commands, finish = [], functools.partial(_said, wrong.reply)
        # All or none: what a key is to be taken away for must find its place.
        return Attempt(overlay.conditions(), commands, finish, atomic=True, work=work_in(connection.store, commands))

    def refused(result: Result) -> bytes:
        return failed(result[2] if result[0] == c.ABORTED else result)

    connection.exclusive(Attempts(connection, decide, refused).begin)


def _said(reply: Reply, results: Sequence[Result]) -> Reply:
    return reply


def execute(connection: RespSession, queue: Queue, watched: Watched, selected: int | None) -> None:
    """Answer the Redis command EXEC: run all queued commands at one moment, unless a watched key has changed.

    queue: the commands since MULTI.  watched: key -> the condition that the key is as it was at WATCH.
    selected: the number of the database that the last SELECT among the commands has chosen; without a SELECT, the number of
    the connection's database.
    """
    notes = connection.compares
    steps = any(spec.steps for spec, _ in queue)
    selects = any(spec.name == "select" for spec, _ in queue)
    if selects:
        # Which database is right is known when the transaction has taken place or not: what is sent behind it waits for that.
        connection.leave_database()
    if any(spec.script for spec, _ in queue):

        def begin_scripts(end: End) -> None:
            told = functools.partial(_moved, connection, selected, end) if selects else end
            try:
                run = run_transaction(connection, queue, _fixed(watched), notes, _bounded)
            except CommandError as wrong:
                told(wrong.reply)
            else:
                run.begin(told)

        # A script may look at what no condition guards, such as the number of keys.
        connection.behind_barrier(begin_scripts)
    elif not watched and not any(spec.plan for spec, _ in queue):
        if selects:
            connection.behind_barrier(
                lambda end: _moved(connection, selected, end, _read_all(connection, queue, notes))
            )
        else:
            connection.read(functools.partial(_read_all, connection, queue, notes))
    elif not watched and not steps and not selects:
        commands, finish = _prepare(connection, queue, None, notes)
        work = work_in(connection.store, commands)
        connection.write(c.guarded([], commands), functools.partial(_settled, finish), work)
    else:

        def decide() -> Attempt | bytes:
            overlay = Overlay(connection.store, connection.store.now_ms())
            try:
                commands, finish = _prepare(connection, queue, overlay if steps else None, notes)
            except CommandError as wrong:
                return wrong.reply
            return Attempt(overlay.conditions(), commands, finish, work=work_in(connection.store, commands))

        def begin(end: End) -> None:
            told = functools.partial(_moved, connection, selected, end) if selects else end
            Attempts(connection, decide, failed, _fixed(watched), connection.null_array).begin(told)

        connection.exclusive(begin)


def _fixed(watched: Watched) -> list[Condition]:
    """Return the conditions for a transaction: each watched key is still as it was at WATCH.

    Not to be called before all earlier WATCH requests are answered.
    watched: key -> its condition, or None where WATCH failed and its client was told so; such a key has to be absent.
    """
    return [seen or unchanged(key, None) for key, seen in watched.items()]


def _moved(connection: RespSession, selected: int | None, end: End, reply: Reply) -> None:
    """Answer EXEC of a transaction with a SELECT: call ``end`` with ``reply``, the answer, and set the connection's database.

    After a success the database is ``selected``, the last SELECT's. If a watched key has changed, the database stays;
    behind an error the connection has no database until a SELECT succeeds.
    """
    if reply == connection.null_array:
        connection.use_database(connection.database)
    elif selected is not None and not (isinstance(reply, bytes) and reply.startswith(b"-")):
        connection.use_database(selected)
    end(reply)


def _settled(finish: Finish, result: Result) -> Reply:
    return finish(result[1]) if result[0] == c.OK else failed(result)


def _read_all(connection: RespSession, queue: Queue, notes: bool) -> Reply:
    """Return the reply to EXEC of a transaction that only reads and watches no key.

    All keys that the transaction names are looked up at one moment.  notes: whether the client's tracking notes them.
    """
    raws = [raw for spec, arguments in queue for raw in spec.keys_in(arguments)]
    if len(raws) > KEYS_MAX:
        return TOO_MANY.reply
    find = connection.store.lookup
    searches = _Searches()
    if notes:
        connection.has_read(raws)
    try:
        if len(queue) >= _IN_SLICES and all(spec.group == "string" for spec, _ in queue):
            return _read_strings(connection, queue, searches)
        return _bounded([_answer(connection, spec, find, arguments, searches) for spec, arguments in queue])
    except ReplicationError as unreadable:
        return failure(unreadable)


def _read_strings(connection: RespSession, queue: Queue, searches: _Searches) -> Reply:
    """Return the reply to EXEC of commands that read strings: keys are looked up now, the reply's parts made when it is sent.

    Raises ReplicationError.
    """
    raws = [raw for spec, arguments in queue for raw in spec.keys_in(arguments)]
    try:
        keys = keys_of(raws)
    except CommandError:
        # One command's error is its own reply, and what it names is not looked up.
        lookup = connection.store.lookup
        return _bounded([_answer(connection, spec, lookup, arguments, searches) for spec, arguments in queue])
    found = dict(zip(keys, connection.store.lookup_all(keys, sys.maxsize) or (), strict=True))

    def find(key: str, *, count: bool = True) -> Entry | None:
        return found[key]

    def pieces() -> Iterator[bytes]:
        left = ANSWER_BYTES_MAX
        yield b"*%d\r\n" % len(queue)
        for spec, arguments in queue:
            reply = _answer(connection, spec, find, arguments, searches)
            if size_of(reply) > left:
                reply = error(_TOO_LONG)
            left -= size_of(reply)
            if isinstance(reply, bytes):
                yield reply
            else:
                yield from reply.pieces

    return Stream(pieces(), sum([len(entry[DATA]) for entry in found.values() if entry is not None]))


class _Searches:
    """An object that makes those replies of one transaction for which hashes and sets have to be searched.

    Keys are looked up when the transaction takes place. A reply about large hashes or sets is made later, when EXEC's
    answer is sent.
    """

    def __init__(self) -> None:
        # What is counted as held already, by key and version; and what the replies may still have.
        self._counted: set[tuple[str, int]] = set()
        self._left = ANSWER_BYTES_MAX

    def answer(self, connection: RespSession, read: Read, find: Find, spec: Spec, arguments: Arguments) -> Reply:
        """Return the reply to a Redis command on fields of hashes or sets; a reply about large ones is made later, in pieces.

        read: the function that answers the command.  find: the function that looks up a key. Raises CommandError.
        """
        found = {key: find(key) for key in keys_of(spec.keys_in(arguments))}
        size = held = 0
        for key, entry in found.items():
            if entry is not None:
                size += len(entry[DATA])
                if (key, entry[VERSION]) not in self._counted:
                    held += len(entry[DATA])

        def seen(key: str, *, count: bool = True) -> Entry | None:
            return found[key]

        if size <= SLICE_BYTES:
            return read(connection, seen, arguments)
        self._counted.update((key, entry[VERSION]) for key, entry in found.items() if entry is not None)

        def made() -> Iterator[bytes]:
            reply = read(connection, seen, arguments)
            if size_of(reply) > self._left:
                raise CommandError(_TOO_LONG)
            self._left -= size_of(reply)
            if isinstance(reply, bytes):
                yield reply
            else:
                yield from reply.pieces

        return Stream(said_in_pieces(made()), held)


def _answer(connection: RespSession, spec: Spec, find: Find, arguments: Arguments, searches: _Searches) -> Reply:
    """Return the reply to a command of a transaction that writes nothing; if the command fails, the reply is the error.

    The reply to a command that names no key (KEYS, INFO, CLIENT LIST), or that searches a large hash, may take long: such
    a reply is made only when it is to be sent in EXEC's answer. find: the function by which the command looks entries up.
    """

    def made() -> Iterator[bytes]:
        reply = spec.read(connection, find, arguments) if spec.read is not None else _local(connection, spec, arguments)
        if isinstance(reply, bytes):
            yield reply
        else:
            yield from reply.pieces

    if not spec.keys[0]:
        return Stream(said_in_pieces(made()))
    try:
        assert spec.read is not None
        if spec.group in _OF_FIELDS:
            return searches.answer(connection, spec.read, find, spec, arguments)
        return spec.read(connection, find, arguments)
    except CommandError as wrong:
        return wrong.reply


def _local(connection: RespSession, spec: Spec, arguments: Arguments) -> Reply:
    assert spec.local is not None
    return spec.local(connection, arguments)


def _bounded(replies: list[Reply]) -> Reply:
    """Return one RESP array of ``replies``; an error replaces each that would make the array exceed ANSWER_BYTES_MAX."""
    size = 0
    for position, reply in enumerate(replies):
        size += size_of(reply)
        if size > ANSWER_BYTES_MAX:
            replies[position] = error(_TOO_LONG)
            size -= size_of(reply)
    return replies_array(replies, size)


def _prepare(connection: RespSession, queue: Queue, overlay: Overlay | None, notes: bool) -> Plan:
    """Return the state machine's commands for a transaction, and the function that makes EXEC's reply from their results.

    queue: the requests since MULTI.
    overlay: shows each request the entries as the earlier requests will leave them; if None, all see this node's memory.
    notes: whether the client's tracking notes the keys that are read. Raises CommandError if there are too many commands.
    """
    commands: list[Command] = []
    parts: list[tuple[int, int, Finish]] = []
    find = connection.store.lookup if overlay is None else overlay.find
    searches = _Searches()
    for spec, arguments in queue:
        try:
            if spec.plan is not None:
                own, finish = spec.plan(connection, find, arguments)
            else:
                keys = keys_of(spec.keys_in(arguments))
                own = [c.get(key) for key in keys]
                finish = functools.partial(_answer_found, connection, spec, arguments, keys, searches, notes)
        except CommandError as wrong:
            own, finish = [], functools.partial(_said, wrong.reply)
        if overlay is not None:
            if spec.steps and spec.group == "set" and spec.keys[1] < 0:
                sources = map(overlay.find, dict.fromkeys(keys_of(spec.keys_in(arguments)[1:])))
                overlay.searched += _COMBINED_COUNTS * sum([len(entry[DATA]) for entry in sources if entry is not None])
            overlay.expect(own)
            if overlay.searched > SEARCHED_BYTES_MAX:
                raise CommandError(TOO_MUCH)
        parts.append((len(commands), len(commands) + len(own), finish))
        commands.extend(own)
    if len(commands) > WRITES_MAX:
        raise CommandError(TOO_MANY_WRITES)

    def finish_all(results: Sequence[Result]) -> Reply:
        return _bounded([finish(results[start:end]) for start, end, finish in parts])

    return commands, finish_all


def _answer_found(
    connection: RespSession,
    spec: Spec,
    arguments: Arguments,
    keys: list[str],
    searches: _Searches,
    notes: bool,
    results: Sequence[Result],
) -> Reply:
    """Return the reply to a reading command in a transaction that also writes.

    notes: whether the client's tracking notes the keys.
    results: the state machine's results of GETs of ``keys``, the command's keys.
    """
    for result in results:
        if result[0] == c.TOO_LARGE:
            return failed(result)
    entries: dict[str, Entry | None] = {
        key: (result[1], result[2], result[3], result[4], result[5]) if result[0] == c.OK else None
        for key, result in zip(keys, results, strict=True)
    }

    if notes:
        connection.has_seen([unchanged(key, entry) for key, entry in entries.items()])

    def find(key: str, *, count: bool = True) -> Entry | None:
        return entries[key]

    return _answer(connection, spec, find, arguments, searches)
