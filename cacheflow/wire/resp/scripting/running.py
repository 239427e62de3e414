"""ScriptRun: the optimistic attempts of an EVAL, or of an EXEC with some, by the rules of ``wire/optimistic.py``.

1. An attempt runs the script in the scripts' thread, against this node's memory and the script's own writes. What the script
   leaves is one entry of the log, all or none, on condition that all it has read has still the version and expiry it had.
2. A script that has written nothing is confirmed by the log as well, for its reply rests on what it has read; only one that
   says of itself that it writes nothing is answered by this node's memory, as it is at one moment.
3. An error in the script undoes nothing, as in Redis: what it wrote before is proposed, and the reply is the error.
4. A script that is given up leaves nothing.
5. Nobody waits for ever: WAIT_S after it was asked for, a script begins no further attempt, and one that waits for its turn
   or for the thread is told that nothing has happened.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple

from cacheflow.contract import Outcome
from cacheflow.errors import NotCommitted, ReplicationError
from cacheflow.machine.language import commands as c
from cacheflow.machine.language.commands import Command, Result
from cacheflow.wire.connection import End
from cacheflow.wire.optimistic import Attempt, Attempts, Condition, unchanged
from cacheflow.wire.resp.commands.strings import failed
from cacheflow.wire.resp.overlay import work_in
from cacheflow.wire.resp.replies import CommandError
from cacheflow.wire.resp.scripting.caller import Caller
from cacheflow.wire.resp.scripting.catalogue import Script
from cacheflow.wire.resp.scripting.runner import Expired
from cacheflow.wire.resp.scripting.sandbox import Sandbox
from cacheflow.wire.resp.session import RespSession
from cacheflow.wire.streams import Reply

# As long as a node waits for a write by default.
WAIT_S: Final = 10.0
_NOT_WANTED: Final = CommandError("ERR nobody waits for the script any more")


def refused(result: Result) -> bytes:
    """Return the error reply for a script whose writes the state machine refused with ``result``."""
    return failed(result[2] if result[0] == c.ABORTED else result)


class Call(NamedTuple):
    """One call of a Lua script by a client.

    keys, arguments: the script's KEYS and ARGV.  writes: True if the script may write.
    database: the number of the database that is selected when the script begins.
    """

    script: Script
    keys: list[bytes]
    arguments: list[bytes]
    writes: bool
    database: int

    @property
    def places(self) -> list[bytes]:
        """The script's keys, each behind its database's number; scripts that have one of these in common run one by one."""
        return [b"%d:%b" % (self.database, key) for key in self.keys]

    def run(self, caller: Caller, sandbox: Sandbox, null: bytes, expired: Expired) -> bytes:
        """Run the script in the Lua interpreter ``sandbox`` and return the encoded reply.

        Raises GivenUp when the script needs too much time or memory.
        caller: answers the script's commands.  null: RESP's null, encoded.
        expired: a function that returns whether the script's time is over.
        """
        caller.writes, caller.database = self.writes, self.database
        script = self.script
        return sandbox.run(script.source, script.sha, self.keys, self.arguments, null, caller.call, expired)


# What gives the reply when everything has taken place; called on the event loop.
Render = Callable[[], Reply]
# What is run in the scripts' thread: it is given what answers commands.
Work = Callable[[Caller, Sandbox, Expired], Render]


class _Ran(NamedTuple):
    """The outcome of one attempt to run a script. failed: the error for which memory could not be read, None if it could.

    seen: the keys that were looked up in memory.  conditions: the conditions that these keys are still the same.
    effects: the commands that write what the script wrote.  render: the function that makes the reply.
    """

    failed: ReplicationError | None
    seen: list[str]
    conditions: list[Condition]
    effects: list[Command]
    render: Render


class ScriptRun(Attempts):
    """A run of scripts for the connection ``client``: attempt after attempt, until one has taken place. To be used once.

    work: the function that runs the scripts once.  keys: the keys that the scripts name.
    writes: True if the scripts may write.  notes: whether the client's tracking notes what they read.
    fixed: conditions from before (what WATCH has seen).
    lost: the reply when one of the conditions ``fixed`` does not hold.
    """

    def __init__(
        self,
        client: RespSession,
        work: Work,
        keys: Iterable[bytes],
        *,
        writes: bool,
        notes: bool,
        fixed: Sequence[Condition] = (),
        lost: bytes = b"",
    ) -> None:
        super().__init__(client, _not_at_once, refused, fixed, lost)
        self._session = client
        self._work = work
        self._keys = keys
        self._writes = writes
        self._notes = notes
        self._scripts = client.service.scripts
        # An entry with effects is on its way; no further attempt may begin; the reply was given, or nobody waits for it.
        self._is_proposed = self._is_late = self._is_over = False

    def begin(self, end: End) -> None:
        """Run the script once all earlier scripts that name one of its keys have ended.

        end: the function that is called with the reply.
        """

        def ended(reply: Reply) -> None:
            self._leave()
            end(reply)

        self._end = ended
        # The turn is known before it comes.
        self._turn = self._scripts.turns.enter(self._keys)
        self._call_off = self._scripts.runner.after(WAIT_S, lambda: self._step(self._give_up_waiting))
        self._turn.wait(lambda: self._step(self._attempt))

    def _leave(self) -> None:
        if not self._is_over:
            self._is_over = True
            self._call_off()
            # What is not in a circle is freed at once, with the script's arguments and what it has read.
            del self._end, self._call_off
            self._scripts.turns.leave(self._turn)

    def _step(self, call: Callable[..., None], *arguments: object) -> None:
        """Do one step of the script's run by calling the function ``call``, unless the run is over.

        If the client has gone, or an error in the step ends the client's connection, the scripts that wait for this one go on.
        """
        if self._is_over:
            return
        self._client.contained(self._end, call, *arguments)
        if self._client.is_gone:
            self._leave()

    def _give_up_waiting(self) -> None:
        self._is_late = True
        if not self._is_proposed:
            raise NotCommitted("too many scripts wait for their turn on this node, or others changed the same keys")

    def _attempt(self) -> None:
        if self._is_late:
            self._give_up_waiting()
        self._scripts.runner.start(self._run, lambda outcome: self._step(self._ran, outcome))

    def _run(self, sandbox: Sandbox, expired: Expired) -> _Ran | CommandError:
        """Run the scripts once, in the scripts' thread; return what they have read and would write, or an error."""
        # On a node with more scripts than it can run, it runs those that are still waited for.
        if self._client.is_gone or self._is_over:
            return _NOT_WANTED
        # The caller is gone at the end, in this thread, with all keys that its script has listed.
        caller = Caller(self._session, expired, writes=self._writes)
        try:
            render = self._work(caller, sandbox, expired)
            caller.check_size()
        except CommandError as wrong:
            return wrong
        overlay = caller.overlay
        effects = overlay.effects() if self._writes else []
        return _Ran(caller.failed, list(overlay.seen), overlay.conditions(), effects, render)

    def _ran(self, outcome: _Ran | CommandError) -> None:
        if isinstance(outcome, CommandError):
            self._end(outcome.reply)
            return
        failed, seen, conditions, effects, render = outcome
        if failed is not None:
            raise failed
        # Nothing of this run: that would be a circle.
        reply = functools.partial(_reply, self._session if self._notes else None, conditions, render)
        if self._writes:
            self._is_proposed = True
            work = work_in(self._client.store, effects)
            self._propose(Attempt(conditions, effects, lambda results: reply(), atomic=True, work=work))
            return
        lookup = self._client.store.lookup
        if [unchanged(key, lookup(key, count=False)) for key in seen] == conditions:
            self._end(reply())
        else:
            self._attempt_again()

    def _done(self, outcome: Outcome) -> Callable[[], None]:
        def settle() -> None:
            self._is_proposed = False
            self._settle(outcome)

        return lambda: self._step(settle)


def _reply(reader: RespSession | None, conditions: Sequence[Condition], render: Render) -> Reply:
    """Return the reply to a script, once it has taken place.

    reader: the client whose tracking notes what the script has seen when ``conditions`` held; None if none does.
    """
    if reader is not None:
        reader.has_seen(conditions)
    return render()


def _not_at_once() -> bytes:
    raise NotImplementedError("a script decides in a thread of its own")
