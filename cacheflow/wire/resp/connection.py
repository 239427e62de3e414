"""RespConnection: one client that speaks RESP. It finds each request's command, runs it, or queues it after MULTI.

GET, SET, INCR and DEL of one key have ways of their own here, alone and in a row: they are nearly everything a cache is
asked, and the general way costs a GET half of its speed.
"""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Callable
from itertools import repeat
from typing import Final

from cacheflow import values
from cacheflow.access.roles import Role
from cacheflow.contract import DATA, KIND
from cacheflow.errors import NotReady, ReplicationError
from cacheflow.machine.deciding.field_decisions import FIELD_DECISIONS, growth_of, work_of
from cacheflow.machine.language import commands as c
from cacheflow.machine.language.commands import Command, Result
from cacheflow.machine.language.databases import MARK_BYTE
from cacheflow.measuring.request_times import OK as OUTCOME_OK
from cacheflow.measuring.request_times import UNKNOWN
from cacheflow.wire.connection import REPLY_BYTES_MAX, REQUESTS_MAX, Connection
from cacheflow.wire.resp.arguments import database_named, key_of
from cacheflow.wire.resp.commands.keys import OTHER_DATABASE
from cacheflow.wire.resp.commands.strings import counted, failed, get
from cacheflow.wire.resp.commands.transaction import COMMANDS_MAX, run_steps
from cacheflow.wire.resp.gets import bulks_of, note_gets
from cacheflow.wire.resp.parser import WORD_BYTES, Request
from cacheflow.wire.resp.replies import OK, ONE, QUEUED, ZERO, CommandError, error, failure
from cacheflow.wire.resp.rows import GET, LONE_GETS, SET, is_part_of_set, keys_of_gets, lone_set, pairs_of_sets
from cacheflow.wire.resp.session import (
    WORDS_MAX,
    Finish,
    Read,
    RespSession,
    Shared,
    Spec,
    no_permission,
    wrong_arity,
)
from cacheflow.wire.streams import WHOLE_BYTES_MAX, Reply

# Commands that are carried out at once also inside MULTI.
_NEVER_QUEUED: Final = frozenset(("exec", "discard", "multi", "watch", "quit", "reset"))
# The only commands of a client of RESP2 that has subscribed to channels.
_BESIDE_MESSAGES: Final = frozenset(
    (
        *("subscribe", "unsubscribe", "psubscribe", "punsubscribe", "ssubscribe", "sunsubscribe"),
        *("ping", "quit", "reset"),
    )
)
# Commands behind which requests go to another database, or have another user.
_WHERE_AND_WHO: Final = frozenset(("select", "auth"))
_NO_DATABASE: Final = "ERR no database is selected, because the last SELECT failed: send SELECT with 0 to 15, or RESET"
# Commands that are refused for a reason of their own.
_REFUSED: Final = {
    b"move": OTHER_DATABASE,
    b"swapdb": "ERR SWAPDB is not served: no command changes the number of a database",
}
# The first words of a browser that a page has made to talk to this port.
_HTTP: Final = (b"POST", b"HOST:")
_NAMED_IN_ERROR: Final = 128
_WITH_SUBCOMMANDS: Final = frozenset(("client", "command", "config", "memory", "object", "pubsub", "script"))


class RespConnection(RespSession):
    """One client's connection that speaks RESP. Not safe for concurrent use: the event loop owns it."""

    __slots__ = ("_gets", "_growth", "_pending", "_slow", "_table")

    def __init__(self, service: Shared, number: int, on_closed: Callable[[Connection], None]) -> None:
        super().__init__(service, number, on_closed)
        self._table = service.table
        # What each GET that is answered at once is noted in.
        self._gets = self.times.histogram("get")
        self._slow = self.times.slow
        self._pending: deque[Request] = deque()
        # The bytes of fields that this client's requests under way write, by key.
        self._growth: dict[str, int] = {}

    # Input ----------------------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        came_s = self._came_s = self._clock()
        if self._parser.holds:
            data = self._complete(data)
        if self.at_rest:
            head = LONE_GETS.get(len(data))
            if head is not None and data.startswith(head) and data.endswith(b"\r\n"):
                raw = data[len(head) : -2]
                answer = self._found(raw)
                if answer is not None:
                    self.requests += 1
                    self._transport.write(answer)
                    seconds = self._clock() - came_s
                    self._gets.note(seconds)
                    if seconds >= self._slow.from_s:
                        self.note_slow("get", OUTCOME_OK, seconds, raw)
                    return
            elif data.startswith(GET):
                data = self._answer_row_of_gets(data)
            elif data.startswith(SET) and self.plain_writes:
                data = self._take_sets(data)
        elif (
            self.linearizable and self.plain and not (self._promises or self._stalled or self._closing or self._pending)
        ):
            head = LONE_GETS.get(len(data))
            if head is not None and data.startswith(head) and data.endswith(b"\r\n"):
                self.requests += 1
                raw = data[len(head) : -2]
                self.read_alone(functools.partial(self._found_or_not, raw), "get", raw)
                return
        elif self.prefix and not self._pending and not self._parser.holds and super().may_rest():
            # The same for rows of a database above 0: a little slower, so that they cost database 0 nothing.
            if data.startswith(GET):
                data = self._answer_row_of_gets(data)
            elif data.startswith(SET) and self.role >= Role.WRITE:
                data = self._take_sets(data)
        if not data or self._closing:
            return
        self.at_rest = False
        try:
            requests = self._parser.feed(data)
            # Reads, with nothing before them, of a client that takes its answers: most of what a cache ever sees.
            if self.plain and not (self._promises or self._pending or self._stalled or self.linearizable):
                answered = self._answer_gets(requests)
                if answered:
                    self.requests += answered
                    self.asked("get", requests[0], answered)
                    del requests[:answered]
            self._pending.extend(requests)
        except Exception:
            self._stumbled()
        else:
            self._work()
            if self.queue:
                self._count_kept()

    def may_rest(self) -> bool:
        # The base class's method asks the same; a call of it would be one more for each request.
        return self.plain and not (
            self._promises
            or self._pending
            or self.linearizable
            or self._paused
            or self._stalled
            or self._closing
            or self._parser.holds
        )

    @property
    def is_due(self) -> bool:
        return not self._paused and (self._parser.holds or self.role == Role.NOBODY)

    def _found(self, raw: bytes) -> bytes | None:
        """Return the reply to a Redis GET of the key ``raw``, from memory.

        Returns None where GET has to be answered in a slower, general way: with an error, or with a long value.
        """
        try:
            key = raw.decode()
            entry = self.store.lookup(key)
        except (UnicodeDecodeError, NotReady):
            return None
        # The key of another database is spelled by a client of that one alone.
        if entry is not None and raw[0] != MARK_BYTE:
            value = entry[DATA]
            size = len(value)
            # A long value is not copied: it has a way of its own. So have hashes and sets.
            whole = size <= WHOLE_BYTES_MAX and entry[KIND] <= values.VALUE_MAX
            return b"$%d\r\n%b\r\n" % (size, value) if whole else None
        # Bytes that are no key are an error, not a miss.
        return self.null if 0 < len(raw) <= values.KEY_BYTES_MAX and key.isprintable() else None

    def _found_or_not(self, raw: bytes) -> Reply:
        answer = self._found(raw)
        return self._read(get, [b"GET", raw]) if answer is None else answer

    def _complete(self, data: bytes) -> bytes:
        """Add ``data``, input from this client, to the client's incomplete request; handle that request once it is complete.

        Returns the input behind the request.
        """
        try:
            requests, rest = self._parser.complete(data)
            self._pending.extend(requests)
        except Exception:
            self._stumbled()
            return b""
        self._work()
        self._count_kept()
        return rest

    def _answer_row_of_gets(self, data: bytes) -> bytes:
        """Answer a client's input ``data`` if it consists of GETs; return the input that is left to handle.

        That is an incomplete last GET, or all of ``data`` when another request is in it or this fast way cannot answer it.
        """
        keys = keys_of_gets(data)
        rest = b""
        if keys is None:
            # The last GET may not be complete.
            cut = data.rfind(GET)
            keys = keys_of_gets(data[:cut]) if cut > 0 else None
            if keys is None:
                return data
            rest = data[cut:]
        if self.prefix:
            keys = [self.prefix + key for key in keys]
        try:
            entries = self.store.lookup_all(keys, REPLY_BYTES_MAX)
        except NotReady:
            return data
        if entries is None:
            return data
        self.requests += len(keys)
        null = self.null
        answers, refused = bulks_of(entries)
        self._transport.write(b"".join([answer or null for answer in answers]))
        seconds = self._clock() - self._came_s
        note_gets(self.times, seconds, len(keys), refused)
        if seconds >= self._slow.from_s:
            self.note_slow("get", OUTCOME_OK, seconds, keys[0].removeprefix(self.prefix), len(keys))
        return rest

    def _take_sets(self, data: bytes) -> bytes:
        """Propose together the SETs of which a client's input ``data`` consists; return the input that is left to handle.

        That is an incomplete last SET, or all of ``data`` when another request is in it or this fast way cannot take it.
        """
        lone = lone_set(data)
        if lone is not None:
            key, value = lone
            if len(value) > self.service.value_bytes_max:
                return data
            self.requests += 1
            self.called, self.called_at = b"set", self.requests
            kind = values.TEXT if value.isascii() else values.kind_of(value)
            place = self.prefix + key if self.prefix else key
            self.write_row([(c.SET, place, value, kind, None, 0, 0, 0)], _set_answers, "set", key)
            return b""
        pairs = pairs_of_sets(data)
        rest = b""
        if pairs is None:
            # The last SET may not be complete. Any other command behind the SETs is one proposal with them.
            cut = data.rfind(SET)
            pairs = pairs_of_sets(data[:cut]) if cut > 0 and is_part_of_set(data[cut:]) else None
            if pairs is None:
                return data
            rest = data[cut:]
        keys, datas = pairs
        if len(keys) > REQUESTS_MAX or max(map(len, datas)) > self.service.value_bytes_max:
            return data
        self.requests += len(keys)
        self.called, self.called_at = b"set", self.requests
        first = keys[0]
        if self.prefix:
            keys = [self.prefix + key for key in keys]
        kinds = repeat(values.TEXT) if data.isascii() else map(values.kind_of, datas)
        self.write_row(
            [(c.SET, key, value, kind, None, 0, 0, 0) for key, value, kind in zip(keys, datas, kinds, strict=False)],
            _set_answers,
            "set",
            first,
        )
        return rest

    def _answer_gets(self, requests: list[Request]) -> int:
        """Answer the plain GETs at the start of the list ``requests``, up to the first other request; return their number."""
        output = self._output
        size = self._output_bytes
        answered = 0
        for request in requests:
            if request[0] not in GETS or len(request) != 2 or size >= REPLY_BYTES_MAX:
                break
            answer = self._found(request[1])
            if answer is None:
                break
            output.append(answer)
            size += len(answer)
            answered += 1
        self._output_bytes = size
        return answered

    def connection_lost(self, error: Exception | None) -> None:
        self._pending.clear()
        super().connection_lost(error)

    @property
    def has_input(self) -> bool:
        return bool(self._pending) or self._parser.fault is not None

    def advance(self) -> bool:
        pending = self._pending
        fault = self._parser.fault
        if not pending and fault is None:
            return False
        way = None
        while pending and self.goes_on:
            request = pending[0]
            way = FAST.get(request[0])
            if way is not None and self.plain_writes:
                pending.popleft()
                self.requests += 1
                way(self, request)
            elif self.rests():
                way = None
                break
            else:
                pending.popleft()
                self.requests += 1
                self._general(request)
        if way is not None:
            self.called, self.called_at = request[0], self.requests
        if fault is not None and self.goes_on:
            self.close(error(f"ERR Protocol error: {fault}".encode("latin-1", "replace")))
        return True

    def failure(self, failed: ReplicationError) -> bytes:
        # Writes that failed are not answered one by one, so nothing else takes their growth away.
        self._growth.clear()
        return failure(failed)

    def _general(self, request: Request) -> None:
        name = request[0]
        spec = self._table.get(name) or self._table.get(name.lower())
        words = request
        self.called_at = self.requests
        if spec is not None:
            self.called = name
        try:
            if spec is None:
                self._unknown(request)
            elif not spec.takes(len(request)):
                raise CommandError(wrong_arity(spec.name))
            elif self.role < spec.needs:
                raise self._denied(spec)
            elif self.confined and spec.name not in _BESIDE_MESSAGES:
                raise CommandError(_not_beside_messages(spec, request))
            elif len(request) > WORDS_MAX and len(request) > spec.words_max:
                raise CommandError(f"ERR a request of {spec.name.upper()} has at most {_most(spec)}")
            else:
                if self.selected != 0:
                    request = self._placed(spec, request)
                if self.queue is not None and spec.name not in _NEVER_QUEUED:
                    self._enqueue(spec, request)
                    # It is a part of EXEC.
                    return
                self._run(spec, request)
        except CommandError as wrong:
            if spec is not None and spec.name in _WHERE_AND_WHO:
                self._leave(spec.name)
            # An unknown command counts too: a transaction with a mistake in it does not take place.
            self.refused = self.refused or (self.queue is not None and (spec is None or spec.name not in _NEVER_QUEUED))
            self.reply(wrong.reply)
        except ReplicationError as failed_:
            self.reply(failure(failed_))
        if self.tracker is not None and self.queue is None and spec is not None and spec.name != "client":
            # CLIENT CACHING was about this command, or about the transaction that it ends.
            self.cache_next(None)
        self.asked(UNKNOWN if spec is None else spec.name, words)

    def _denied(self, spec: Spec) -> CommandError:
        """Return the error for the Redis command ``spec``, which this client's role does not allow, and count the refusal."""
        if self.role == Role.NOBODY:
            self.service.refused()
            return CommandError("NOAUTH Authentication required.")
        return no_permission(self, spec.name, spec.needs)

    def _placed(self, spec: Spec, request: Request) -> Request:
        """Return a client's ``request`` with the prefix of the selected database before each key.

        Raises CommandError for a request about keys when the client has no database, because its last SELECT has failed.
        """
        if self.selected is None:
            if spec.reads_keys:
                raise CommandError(_NO_DATABASE)
            return request
        return spec.placed_in(self.selected, request)

    def _leave(self, name: str) -> None:
        """Take the selected database from this client after a failed SELECT, or the client's user after a failed AUTH.

        Requests that the client has sent already were meant for the database or the user that it asked for.
        name: the failed command's name.
        """
        if name == "select":
            self.leave_database()
        elif self.service.access is not None:
            self.admit(None)

    def _unknown(self, request: Request) -> None:
        name = request[0]
        if name.upper() in _HTTP:
            self._pending.clear()
            self.close()
            return
        refusal = _REFUSED.get(name.lower())
        if refusal is not None:
            raise CommandError(refusal)
        listed = b""
        for argument in request[1:]:
            if len(listed) >= _NAMED_IN_ERROR:
                break
            listed += b"'%b' " % argument[: _NAMED_IN_ERROR - len(listed)]
        raise CommandError(b"ERR unknown command '%b', with args beginning with: %b" % (name[:_NAMED_IN_ERROR], listed))

    def _enqueue(self, spec: Spec, request: Request) -> None:
        queue = self.queue
        assert queue is not None
        if spec.control is not None and spec.read is None and spec.local is None and not spec.script:
            raise CommandError(f"ERR {spec.name.upper()} is not served inside MULTI")
        if spec.name in ("flushall", "flushdb"):
            raise CommandError(f"ERR {spec.name.upper()} is not served inside MULTI")
        if spec.name == "client" and request[1].upper() in (b"TRACKING", b"CACHING"):
            # The keys that the transaction reads would be noted, or not, as it was before.
            raise CommandError(f"ERR CLIENT {request[1].upper().decode()} is not served inside MULTI")
        if spec.name == "select":
            self.selected = database_named(request[1])
        # Each word takes more memory than its bytes.
        size = sum(map(len, request)) + WORD_BYTES * len(request)
        if len(queue) >= COMMANDS_MAX or self._queued_bytes + size > self._request_bytes_max:
            raise CommandError(
                f"ERR a transaction has at most {COMMANDS_MAX} commands and {self._request_bytes_max} bytes"
            )
        self._queued_bytes += size
        queue.append((spec, request))
        self.reply(QUEUED)

    def _run(self, spec: Spec, request: Request) -> None:
        if spec.control is not None:
            spec.control(self, request)
        elif spec.read is not None:
            if self.notes and "readonly" in spec.flags:
                self.read(functools.partial(self._read_and_note, spec, request))
            else:
                self.read(functools.partial(self._read, spec.read, request))
        elif spec.local is not None:
            self.answer(spec.local(self, request))
        elif spec.steps:
            run_steps(self, spec, request)
        else:
            assert spec.plan is not None
            commands, finish = spec.plan(self, self.store.lookup, request)
            if len(commands) == 1:
                command = commands[0]
                if command[0] in FIELD_DECISIONS:
                    self._write_fields(command, finish)
                else:
                    self.write(command, lambda result: finish([result]))
            else:
                self.write(c.batch(commands, spec.name == "mset"), functools.partial(_batch, finish))

    def _write_fields(self, command: Command, finish: Finish) -> None:
        """Replicate ``command`` on fields of a hash or set; answer this client with what ``finish`` makes of the result."""
        key = command[1]
        grown = self._growth.get(key, 0)
        size = growth_of(command)
        if size:
            self._growth[key] = grown + size

        def answer(result: Result) -> Reply:
            left = self._growth.get(key, 0) - size
            if left > 0:
                self._growth[key] = left
            else:
                self._growth.pop(key, None)
            return finish([result])

        self.write(command, answer, work_of(self.store.peek(key), command, grown))

    def _read(self, answer: Read, request: Request) -> Reply:
        try:
            return answer(self, self.store.lookup, request)
        except CommandError as wrong:
            return wrong.reply
        except ReplicationError as failed_:
            return failure(failed_)

    def _read_and_note(self, spec: Spec, request: Request) -> Reply:
        """Return the reply to a client's ``request``, which reads, and note for its tracking which keys it has read."""
        assert spec.read is not None
        reply = self._read(spec.read, request)
        self.has_read(spec.keys_in(request))
        return reply

    # The fast ways for writes -----------------------------------------------------------------------------------------------

    def _key(self, raw: bytes) -> str | None:
        """Return the cache's key for ``raw``, the bytes of a key in a client's request.

        For bytes that are no valid key reply with an error and return None.
        """
        try:
            return key_of(raw)
        except CommandError as wrong:
            self.reply(wrong.reply)
            return None

    def _set(self, request: Request) -> None:
        if len(request) != 3 or len(request[2]) > self.service.value_bytes_max:
            self._general(request)
            return
        key = self._key(request[1])
        if key is not None:
            data = request[2]
            kind = values.TEXT if data.isascii() else values.kind_of(data)
            self.write((c.SET, key, data, kind, None, 0, 0, 0), _set_answer)
        self.asked("set", request)

    def _incr(self, request: Request) -> None:
        if len(request) != 2:
            self._general(request)
            return
        key = self._key(request[1])
        if key is not None:
            self.write((c.INCR, key, 1, 0, 0), counted)
        self.asked("incr", request)

    def _del(self, request: Request) -> None:
        if len(request) != 2:
            self._general(request)
            return
        key = self._key(request[1])
        if key is not None:
            self.write((c.DELETE, key, 0), _delete_answer)
        self.asked("del", request)


def _most(spec: Spec) -> str:
    """Return how much a request for the Redis command ``spec`` may hold at most, as text for people, such as ``5000 keys``."""
    if spec.names:
        return f"{spec.words_max - spec.names} channels"
    if spec.fields:
        return f"{c.FIELDS_AT_ONCE_MAX} fields"
    return f"{spec.keys_max} keys" if spec.keys_max else f"{spec.words_max} words"


def _not_beside_messages(spec: Spec, request: Request) -> bytes:
    """Return Redis' error for a command that a client of RESP2 with subscriptions may not give."""
    name = spec.name.encode()
    if spec.name in _WITH_SUBCOMMANDS and len(request) > 1:
        name += b"|" + request[1][:_NAMED_IN_ERROR].lower()
    return (
        b"ERR Can't execute '%b': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this context"
        % name
    )


def _set_answer(result: Result) -> bytes:
    return OK if result[0] == c.OK else failed(result)


def _set_answers(results: list[Result]) -> bytes:
    return b"".join([OK if result[0] == c.OK else failed(result) for result in results])


def _delete_answer(result: Result) -> bytes:
    status = result[0]
    return ONE if status == c.OK else ZERO if status == c.MISSING else failed(result)


def _batch(finish: Finish, result: Result) -> Reply:
    if result[0] == c.OK:
        return finish(result[1])
    return failed(result[2] if result[0] == c.ABORTED else result)


FAST: Final[dict[bytes, Callable[[RespConnection, Request], None]]] = {
    spelling: way
    for name, way in (
        ("set", RespConnection._set),
        ("incr", RespConnection._incr),
        ("del", RespConnection._del),
    )
    for spelling in (name.encode(), name.upper().encode(), name.title().encode())
}
GETS: Final = frozenset((b"get", b"GET", b"Get"))
