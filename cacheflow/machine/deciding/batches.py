"""Batches: runs commands that hold other commands: one by one, all or none, or only if what was read still holds.

The inner commands are commands on one key. A batch decides and carries out one after the other; an atomic batch decides
all of them before the first takes place; GUARDED compares versions and expiries first and is then a batch of either sort.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import Any, Final

from cacheflow.machine.deciding.carry_out import carry_out, decide
from cacheflow.machine.deciding.decisions import DECIDE, UNDECIDED, after
from cacheflow.machine.deciding.fast_delete import delete_plainly
from cacheflow.machine.deciding.fast_set import new_keys, set_plainly
from cacheflow.machine.deciding.field_decisions import FIELD_DECISIONS, KINDS_OF_FIELDS, searched_bytes
from cacheflow.machine.deciding.plans import EXTEND, USE, WRITE, Decision, Malformed
from cacheflow.machine.language import commands as c
from cacheflow.machine.language.commands import Result
from cacheflow.machine.state.contents import Contents
from cacheflow.machine.state.entries import (
    APPENDED_BYTES_MAX,
    DATA,
    EXPIRES_AT_MS,
    KEY_BYTES_MAX,
    META,
    VERSION,
    Entry,
    entry_bytes,
    key_bytes,
)

BATCH_COMMANDS_MAX: Final = 10_000
# Bytes that the APPENDs of one batch may copy: a short command copies a long value, and ten thousand of them must fill
# neither the memory nor the time of a node.
EXTENDED_PER_BATCH_BYTES_MAX: Final = 4 * APPENDED_BYTES_MAX
# Bytes of the entries that the GETs of one batch may answer: one of the largest value, or many small ones. The results are kept
# and go into snapshots, where the same value is written once for each GET.
READ_PER_BATCH_BYTES_MAX: Final = APPENDED_BYTES_MAX + 64 * 1024
# What the commands on fields in one batch, and the SETs of whole hashes, may search: 7 ms, for nothing is cut in the middle of an
# entry.
SEARCHED_PER_BATCH_BYTES_MAX: Final = 16 * 1024 * 1024

# The statuses with which a command fails an atomic batch.
_FAILURES: Final = (c.PRECONDITION, c.NOT_AN_INTEGER, c.TOO_LARGE, c.MALFORMED, c.WRONG_KIND)
# The commands that fail an atomic batch when their key is absent; a GET, and a DELETE of any version, succeed without it.
_NEED_THE_KEY: Final = (c.INCR, c.TOUCH, c.APPEND, c.COUNT, c.EXPIRE)


class Batches:
    """Runs BATCH and GUARDED commands, which hold lists of other commands; ``contents`` are the cache's items.

    A GUARDED command runs its list only if some keys still have given versions and expiries. Not safe for concurrent use.
    """

    def __init__(self, contents: Contents) -> None:
        self._contents = contents
        # The commands on one key that the present entry may hold: those of its level.
        self.known: Mapping[int, object] = DECIDE
        # Bytes that the present batch may still copy to extend values, that its GETs may still answer, and that may be searched.
        self._extended_left = self._read_left = self._searched_left = 0

    def batch(self, command: list[Any]) -> Result:
        """Run a BATCH command, which holds commands on one key each, and return the result of the BATCH.

        An atomic batch runs all of them or none.
        """
        _, atomic, commands = command
        if type(atomic) is not bool:
            raise Malformed("a batch begins with a flag")
        _check_commands(commands)
        return self._atomic(commands) if atomic else self._one_by_one(commands)

    def guarded(self, command: list[Any]) -> Result:
        """Run a GUARDED command, which holds commands and conditions that some keys must meet; return the commands' results.

        If a condition fails, no command takes place; then returns PRECONDITION and the condition's number, from 0 on.
        """
        _, conditions, commands, atomic = command
        if type(atomic) is not bool:
            raise Malformed("a guarded batch ends with a flag")
        _check_commands(commands)
        _check_conditions(conditions)
        for position, (key, version, expires_at_ms) in enumerate(conditions):
            entry = self._contents.find(key)
            present = (0, 0) if entry is None else (entry[VERSION], entry[EXPIRES_AT_MS])
            if present != (version, expires_at_ms):
                return [c.PRECONDITION, position]
        return self._atomic(commands) if atomic else self._one_by_one(commands)

    def _begin(self) -> None:
        self._extended_left, self._read_left = EXTENDED_PER_BATCH_BYTES_MAX, READ_PER_BATCH_BYTES_MAX
        self._searched_left = SEARCHED_PER_BATCH_BYTES_MAX

    def _one_by_one(self, commands: list[Any]) -> Result:
        self._begin()
        results: list[Result] = []
        set_plainly(self._contents, commands, results)
        if not results:
            delete_plainly(self._contents, commands, results)
        for one in islice(commands, len(results), None):
            decision = self._decided(one, {})
            results.append(decision if isinstance(decision, list) else carry_out(self._contents, decision))
        return [c.OK, results]

    def _atomic(self, commands: list[Any]) -> Result:
        """Run ``commands``, the commands of an atomic batch, all or none, and return the batch's result.

        Each command is decided as if the earlier ones had taken place; all are carried out only when none of them has failed.
        """
        new = new_keys(self._contents, commands)
        if new is not None:
            return self._all_set(commands, new)
        self._begin()
        overlay: dict[str, Entry | None] = {}
        decisions: list[Decision] = []
        for position, one in enumerate(commands):
            decision = self._decided(one, overlay)
            if isinstance(decision, list):
                status = decision[0]
                if status in _FAILURES or (status == c.MISSING and one[0] in _NEED_THE_KEY):
                    if status == c.PRECONDITION and decision[1] == UNDECIDED:
                        decision[1] = 0
                    return [c.ABORTED, position, decision]
            else:
                key = one[1]
                overlay[key] = after(decision, overlay[key] if key in overlay else self._contents.find(key))
            decisions.append(decision)
        # A command may evict what an earlier one wrote, so results name versions as they were given, not as they are found.
        versions: dict[str, int] = {}
        results = []
        for decision in decisions:
            if isinstance(decision, list):
                results.append(decision)
                continue
            result = carry_out(self._contents, decision)
            key = decision[1]
            if decision[0] in (WRITE, EXTEND):
                versions[key] = result[1]
            else:
                where = 4 if decision[0] == USE else 1
                if result[where] == UNDECIDED:
                    result[where] = versions[key]
            results.append(result)
        return [c.OK, results]

    def _all_set(self, commands: list[Any], new: list[bool]) -> Result:
        """Run ``commands``, SETs of an atomic batch that cannot fail, and return the batch's result.

        new: tells for each of these commands whether it writes a key that was absent.
        """
        contents = self._contents
        results: list[Result] = []
        set_plainly(contents, commands, results)
        # What was to be evicted for an earlier SET was there all the same when the batch was decided.
        for result, is_new in zip(results, new, strict=False):
            result[2] = is_new
        for command, is_new in islice(zip(commands, new, strict=True), len(results), None):
            results.append(carry_out(contents, (WRITE, *command[1:5], 0, is_new)))
        return [c.OK, results]

    def _decided(self, command: Any, overlay: dict[str, Entry | None]) -> Decision:
        try:
            if type(command) is not list or type(command[0]) is not int or command[0] not in self.known:
                raise Malformed("a batch holds commands on one key only")
            if command[0] in FIELD_DECISIONS or (command[0] == c.SET and command[3] in KINDS_OF_FIELDS):
                key = command[1]
                entry = overlay[key] if key in overlay else self._contents.get(key)
                self._searched_left -= searched_bytes(entry, command)
                if self._searched_left < 0:
                    return [c.TOO_LARGE, "a batch changes fields of large hashes or sets too often; send fewer at once"]
            if command[1] in overlay:
                contents = self._contents
                decision = DECIDE[command[0]](overlay[command[1]], command, contents.now_ms, contents.bytes_max)
            else:
                decision = decide(self._contents, command)
        except Malformed as error:
            return [c.MALFORMED, str(error)]
        except (MemoryError, RecursionError):
            raise
        except Exception:
            return [c.MALFORMED, "not a well-formed command"]
        if decision[0] == EXTEND and isinstance(decision, tuple):
            self._extended_left -= len(decision[2])
            if self._extended_left < 0:
                return [c.TOO_LARGE, f"a batch cannot add to values of more than {EXTENDED_PER_BATCH_BYTES_MAX} bytes"]
        elif decision[0] == USE and isinstance(decision, tuple):
            _, key, entry = decision
            self._read_left -= entry_bytes(key, entry[DATA], entry[META])
            if self._read_left < 0:
                return [c.TOO_LARGE, f"a batch reads at most {READ_PER_BATCH_BYTES_MAX} bytes; read this key by itself"]
        return decision


def _check_commands(commands: Any) -> None:
    if type(commands) is not list or len(commands) > BATCH_COMMANDS_MAX:
        raise Malformed(f"a batch holds a list of at most {BATCH_COMMANDS_MAX} commands")


def _check_conditions(conditions: Any) -> None:
    if type(conditions) is not list or len(conditions) > BATCH_COMMANDS_MAX:
        raise Malformed(f"the conditions are a list of at most {BATCH_COMMANDS_MAX}")
    for condition in conditions:
        if type(condition) is not list or len(condition) != 3:
            raise Malformed("a condition is a key, a version and an expiry")
        key, version, expires_at_ms = condition
        if type(key) is not str or not 0 < key_bytes(key) <= KEY_BYTES_MAX:
            raise Malformed(f"a key is a text of 1 to {KEY_BYTES_MAX} bytes")
        for number in (version, expires_at_ms):
            if type(number) is not int or number < 0:
                raise Malformed("the version or the expiry is not a number")
