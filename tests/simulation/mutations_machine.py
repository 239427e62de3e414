"""Promises of the cache itself taken away: outcomes, sessions, total apply, versions, eviction, digest."""

from __future__ import annotations

from hashlib import blake2b
from typing import Any

import pytest
from simulation import bulk

from cacheflow.errors import NoLeader
from cacheflow.machine import image, machine
from cacheflow.machine.deciding import batches, carry_out, decisions, field_decisions, repeats
from cacheflow.machine.deciding.decisions import DECIDE
from cacheflow.machine.deciding.plans import EMPTY, WRITE
from cacheflow.machine.image import DIGEST_BYTES
from cacheflow.machine.language import commands as c
from cacheflow.machine.language import fields
from cacheflow.machine.machine import CacheMachine
from cacheflow.machine.state.condemnations import Condemnations
from cacheflow.machine.state.contents import Contents
from cacheflow.machine.state.entries import EXPIRES_AT_MS
from cacheflow.machine.state.scopes import Scopes
from cacheflow.machine.state.sessions import Sessions
from cacheflow.node.assembly import LocalNode
from cacheflow.node.past import Past
from cacheflow.node.proposals import Proposals
from cacheflow.raft.roles.leader import Leading


def call_it_not_done_when_the_leader_changes(patch: pytest.MonkeyPatch) -> None:
    """Let writes sent to an old leader end as certainly failed, whether they are applied or not."""
    route_changed = Proposals.route_changed

    def _route_changed(self: Any, has_route: bool) -> None:
        for proposal in self._sent:
            self._finish(proposal, NoLeader("the leader changed"))
        route_changed(self, has_route)

    patch.setattr(Proposals, "route_changed", _route_changed)


def keep_the_places_of_removals_that_are_counted(patch: pytest.MonkeyPatch) -> None:
    """Let a removal's call, told how many keys there were, still count as one that waits."""
    tell_counts = Proposals.tell_counts

    def _tell_counts(self: Any, contents: Contents) -> None:
        pending = self.pending
        tell_counts(self, contents)
        self.pending = pending

    patch.setattr(Proposals, "tell_counts", _tell_counts)


def answer_every_read_of_a_batch(patch: pytest.MonkeyPatch) -> None:
    """Let the answers of one batch be as large as they may get."""
    begin = batches.Batches._begin

    def _begin(self: Any) -> None:
        begin(self)
        self._read_left = 2**62

    patch.setattr(batches.Batches, "_begin", _begin)


def read_in_the_middle_of_an_entry(patch: pytest.MonkeyPatch) -> None:
    """Let several keys be read whatever is being applied."""
    patch.setattr(CacheMachine, "lookup_all", lambda self, keys, now_ms: [self.lookup(key, now_ms) for key in keys])


def delete_at_any_version_what_is_absent(patch: pytest.MonkeyPatch) -> None:
    """Let a DELETE that names a version find nothing where it should fail, because its key is absent."""
    delete = decisions.DECIDE[c.DELETE]

    def _delete(entry: Any, command: list[Any], *rest: Any) -> Any:
        return [c.MISSING] if entry is None else delete(entry, command, *rest)

    patch.setitem(decisions.DECIDE, c.DELETE, _delete)


def write_whatever_has_become_of_what_was_read(patch: pytest.MonkeyPatch) -> None:
    """Let a guarded batch take place under every condition."""
    guarded = batches.Batches.guarded
    patch.setattr(batches.Batches, "guarded", lambda self, command: guarded(self, [command[0], [], *command[2:]]))


def forget_the_expiry_that_was_read(patch: pytest.MonkeyPatch) -> None:
    """Let a guarded batch take place where only the versions are as they were."""
    guarded = batches.Batches.guarded

    def _guarded(self: Any, command: list[Any]) -> c.Result:
        found = [(key, version, self._contents.find(key)) for key, version, _ in command[1]]
        conditions = [[key, version, 0 if entry is None else entry[EXPIRES_AT_MS]] for key, version, entry in found]
        return guarded(self, [command[0], conditions, *command[2:]])

    patch.setattr(batches.Batches, "guarded", _guarded)


def write_a_field_over_the_others(patch: pytest.MonkeyPatch) -> None:
    """Let a field that is written be the only one of its hash."""
    with_fields = fields.with_fields
    patch.setattr(fields, "with_fields", lambda data, pairs: with_fields(b"", pairs))


def write_a_field_that_is_there(patch: pytest.MonkeyPatch) -> None:
    """Let a write of a field for where it is absent take place where it is not."""
    patch.setattr(fields, "has", lambda data, field: False)


def keep_a_hash_without_fields(patch: pytest.MonkeyPatch) -> None:
    """Let the key of a hash stay when its last field goes."""
    decide = field_decisions.decide_remove_fields

    def _decide(entry: Any, command: list[Any], now_ms: int, bytes_max: float) -> Any:
        decision = decide(entry, command, now_ms, bytes_max)
        if decision[0] == EMPTY and isinstance(decision, tuple):
            return (WRITE, decision[1], b"", entry[1], None, entry[EXPIRES_AT_MS], decision[2])
        return decision

    patch.setitem(DECIDE, c.REMOVE_FIELDS, _decide)


def guess_the_size_of_a_call_without_its_keys(patch: pytest.MonkeyPatch) -> None:
    """Take a command for 64 bytes and its value, and number and send blocks of whatever size."""
    patch.setattr(c, "size_of", _guessed)
    patch.setattr(bulk, "SENT_BYTES_MAX", 2**62)


def _guessed(command: c.Command) -> int:
    if command[0] == c.BATCH:
        return 64 + sum(map(_guessed, command[2]))
    return 64 + len(command[2]) if command[0] == c.SET else 64


def wait_for_ever_for_a_lost_answer(patch: pytest.MonkeyPatch) -> None:
    """Let writes that were sent have no deadline, and send none again."""

    def expire(self: Any) -> None:
        sent, self._sent = self._sent, type(self._sent)()
        self._end_overdue(self._clock())
        self._sent = sent
        self.flush()

    patch.setattr(Proposals, "expire", expire)


def apply_a_block_as_often_as_it_comes(patch: pytest.MonkeyPatch) -> None:
    """Leave out the session's check for duplicates."""

    def _run_block(
        self: Any, session_id: int, first: int, lowest: int, until_ms: int, commands: list[Any]
    ) -> list[Any]:
        session = self.sessions.find(session_id)
        if session is not None:
            session.last = max(session.last, first + len(commands) - 1)
        return [self._run(command) for command in commands]

    patch.setattr(CacheMachine, "_run_block", _run_block)


def raise_inside_apply(patch: pytest.MonkeyPatch) -> None:
    """Let a malformed command raise inside ``apply``, on every node and at every try."""

    def _run(self: Any, command: Any) -> Any:
        if command[0] in (c.SET, c.DELETE, c.INCR, c.TOUCH, c.GET):
            decision = carry_out.decide(self.contents, command)
            return decision if isinstance(decision, list) else carry_out.carry_out(self.contents, decision)
        return self.other_commands[command[0]](self, command)

    patch.setattr(CacheMachine, "_run", _run)


def _go_the_general_way(patch: pytest.MonkeyPatch) -> None:
    """Turn off the fast ways, so that all writes go through ``Contents.write`` and all removals through ``remove``."""
    for module in (batches, machine):
        for way in ("set_plainly", "delete_plainly"):
            patch.setattr(module, way, lambda contents, commands, results: None)


def take_the_log_index_as_version(patch: pytest.MonkeyPatch) -> None:
    """Take the log index as version: two writes of one key in one entry have the same."""
    apply, write = CacheMachine.apply, Contents.write

    def _apply(self: Any, index: int, payload: bytes) -> Any:
        self.contents.index = index
        return apply(self, index, payload)

    def _write(self: Any, key: str, data: bytes, kind: int, meta: Any, expires_at_ms: int) -> int:
        revision = self.revision
        self.revision = self.index - 1
        version = write(self, key, data, kind, meta, expires_at_ms)
        self.revision = max(revision, version)
        return version

    _go_the_general_way(patch)
    patch.setattr(CacheMachine, "apply", _apply)
    patch.setattr(Contents, "write", _write)


def evict_after_insert(patch: pytest.MonkeyPatch) -> None:
    """Evict after the insertion of a key instead of before: in a full LFU cache the newcomer goes."""
    make_room, write = Contents.make_room, Contents.write

    def _write(self: Any, *arguments: Any) -> int:
        version = write(self, *arguments)
        make_room(self, "", 0, 0)
        return version

    _go_the_general_way(patch)
    patch.setattr(Contents, "make_room", lambda self, protected, items, size: None)
    patch.setattr(Contents, "write", _write)


def digest_entries_alone(patch: pytest.MonkeyPatch) -> None:
    """Compute the digest over what was applied, not over its effects: nodes that differ have the same one."""
    apply = CacheMachine.apply

    def _apply(self: Any, index: int, payload: bytes) -> Any:
        digest = blake2b(self.digest + payload, digest_size=DIGEST_BYTES).digest()
        settled = apply(self, index, payload)
        self.digest = digest
        self._note_digest(index)
        return settled

    patch.setattr(CacheMachine, "apply", _apply)


def keep_only_the_highest_number_of_a_session(patch: pytest.MonkeyPatch) -> None:
    """Take any number above the last for the next one: a lost block counts as done; several blocks travel at once."""

    def _run_block(
        self: Any, session_id: int, first: int, lowest: int, until_ms: int, commands: list[Any]
    ) -> list[Any]:
        if session_id == 0:
            return [self._run(command) for command in commands]
        session = self.sessions.find(session_id)
        if session is None:
            return [[c.UNKNOWN_SESSION] for _ in commands]
        kept = self.__dict__.setdefault("kept", {})
        results = []
        for number, command in enumerate(commands, first):
            if number > session.last:
                kept[session_id, number] = self._run(command)
                session.last = number
            results.append(kept.get((session_id, number), [c.OK, self.revision, 0, 0]))
        return results

    flush = Proposals.flush

    def _flush(self: Any) -> None:
        """Send what is queued like ``Proposals.flush``, without waiting for the answer to the block before."""
        flush(self)
        while self._has_route and self._session and self._unsent and not self._resend_due:
            proposal = self._unsent.popleft()
            proposal.first = self._next_number
            self._next_number += len(proposal.commands)
            self._sent.append(proposal)
            self._resend_due = not self._send(proposal.first, proposal.commands, proposal.deadline)

    patch.setattr(CacheMachine, "_run_block", _run_block)
    patch.setattr(Proposals, "flush", _flush)


def forget_the_numbers_of_a_scope(patch: pytest.MonkeyPatch) -> None:
    """Let a scope keep no result: what is sent again is done again."""
    patch.setattr(Scopes, "keep", lambda self, scope_id, scope, number, command_print, result: None)


def drop_what_a_scope_keeps_and_leave_its_floor(patch: pytest.MonkeyPatch) -> None:
    """Let a scope drop results for its client or its size without a trace: what comes late is done again."""
    keep, raise_floor = Scopes.keep, Scopes.raise_floor

    def _keep(self: Any, scope_id: int, scope: Any, *arguments: Any) -> None:
        floor = scope.floor
        keep(self, scope_id, scope, *arguments)
        scope.floor = floor

    def _raise_floor(self: Any, scope_id: int, scope: Any, lowest: int) -> None:
        floor = scope.floor
        raise_floor(self, scope_id, scope, lowest)
        scope.floor = floor

    patch.setattr(Scopes, "keep", _keep)
    patch.setattr(Scopes, "raise_floor", _raise_floor)


def let_a_write_take_place_however_late(patch: pytest.MonkeyPatch) -> None:
    """Send again what its caller was told is unknown, and set blocks no last moment."""

    def _resend(self: Any) -> None:
        rest = [command for one in self._sent for command in one.commands[len(one.results) :]]
        self._resend_due = bool(rest) and not self._send(self._lowest(), rest, 1.0)

    patch.setattr(Proposals, "_last_moment_ms", lambda self, deadline: 0)
    patch.setattr(Proposals, "_resend", _resend)


def open_a_session_for_any_start(patch: pytest.MonkeyPatch) -> None:
    """Open a session for whatever start asks for one, also for an earlier one than the last."""
    open_ = Sessions.open

    def _open(self: Any, member_id: str, start: int, nonce: str, level: int) -> int | None:
        present = self.find(self._by_member.get(member_id, 0))
        if present is not None and present.nonce != nonce:
            self.close_of(member_id)
        return open_(self, member_id, start, nonce, level)

    patch.setattr(Sessions, "open", _open)


def forget_what_is_condemned_when_reading(patch: pytest.MonkeyPatch) -> None:
    """Let readers and commands find what is condemned as long as it is in memory."""
    patch.setattr(Condemnations, "reader", lambda self, raw: raw.get)


def sweep_what_was_written_later(patch: pytest.MonkeyPatch) -> None:
    """Take every item of a condemned target for dead, whatever its version."""
    kills = Condemnations.kills

    def _kills(self: Any, key: str, version: int) -> bool:
        return kills(self, key, 0) or kills(self, key, version)

    patch.setattr(Condemnations, "kills", _kills)
    patch.setattr(Condemnations, "bury", lambda self, key, version, expires_at_ms: False)


def forget_what_is_condemned_at_a_restore(patch: pytest.MonkeyPatch) -> None:
    """Leave what is condemned out of snapshots."""
    records = image.records

    def _records(state: Any) -> Any:
        for record in records(state):
            if record[0] == image.NAME:
                record[2]["passing"] = record[2]["passed"] = 0
            if record[0] != image.CONDEMNATION:
                yield record

    patch.setattr(image, "records", _records)


def leave_what_is_to_go_to_the_next_write(patch: pytest.MonkeyPatch) -> None:
    """Let a leader propose no entries because something is to expire or to be swept."""
    patch.setattr(Leading, "_work_off", lambda self: None)


def begin_a_pass_again_at_a_restore(patch: pytest.MonkeyPatch) -> None:
    """Leave the place of the pass under way out of snapshots."""
    records = image.records

    def _records(state: Any) -> Any:
        for record in records(state):
            if record[0] == image.NAME:
                record[2]["passed"] = 0
            yield record

    patch.setattr(image, "records", _records)


def do_again_what_may_have_been_dropped(patch: pytest.MonkeyPatch) -> None:
    """Take an idempotency key that is not kept for a new one, however long ago it was tried first."""
    idempotent_ = repeats.idempotent

    def _idempotent(state: Any, run: Any, repeatable: Any, command: list[Any]) -> Any:
        return idempotent_(state, run, repeatable, [*command[:2], 0, command[3]])

    patch.setattr(machine, "idempotent", _idempotent)


def look_back_by_the_clusters_time(patch: pytest.MonkeyPatch) -> None:
    """Tell how long ago a command was tried first by the cluster's time, which may jump, in place of a node's own clock."""
    init = LocalNode.__init__

    def _init(self: Any, *arguments: Any) -> None:
        init(self, *arguments)
        self.past = Past(lambda: self.clock.now_ms() / 1000)

    patch.setattr(LocalNode, "__init__", _init)


def believe_that_nothing_was_before_a_start(patch: pytest.MonkeyPatch) -> None:
    """Take a command that was tried before its node had caught up for one that was tried when it had."""
    first_index = Past.first_index

    def _first_index(self: Any, age_ms: int) -> int:
        found = first_index(self, age_ms)
        return found if found > 1 else self._moments[0][1] + 1

    patch.setattr(Past, "first_index", _first_index)


def take_every_try_for_the_first(patch: pytest.MonkeyPatch) -> None:
    """Believe that a command was tried first when this node reads it, whatever its client says."""
    first_index = Past.first_index
    patch.setattr(Past, "first_index", lambda self, age_ms: first_index(self, 0))
