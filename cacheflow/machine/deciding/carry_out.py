"""Decides commands on one key by decisions.py, and carries out the resulting plans."""

from __future__ import annotations

from typing import Any

from cacheflow.machine.deciding.decisions import DECIDE
from cacheflow.machine.deciding.plans import EMPTY, EXTEND, REMOVE, USE, WRITE, Decision, Malformed, Plan
from cacheflow.machine.language import commands as c
from cacheflow.machine.language.commands import Result
from cacheflow.machine.state.contents import Contents
from cacheflow.machine.state.entries import DATA, EXPIRES_AT_MS, KEY_BYTES_MAX, key_bytes


def decide(contents: Contents, command: list[Any]) -> Decision:
    """Decide ``command``, which is on one key, without any change: return its final result, or a plan.

    contents: the cache's items. Raises Malformed, or any other exception for a senseless command.
    """
    key = command[1]
    if type(key) is not str or not 0 < key_bytes(key) <= KEY_BYTES_MAX:
        raise Malformed(f"a key is a text of 1 to {KEY_BYTES_MAX} bytes")
    entry = contents.get(key)
    if entry is not None and 0 < entry[EXPIRES_AT_MS] <= contents.now_ms:
        entry = None
    return DECIDE[command[0]](entry, command, contents.now_ms, contents.bytes_max)


def carry_out(contents: Contents, plan: Plan) -> Result:
    """Change ``contents``, the cache's items, as ``plan`` says, and return the result of the command that was planned.

    Only here do commands on one key take effect.
    """
    what = plan[0]
    if what == WRITE:
        _, key, data, kind, meta, expires_at_ms, told = plan
        return [c.OK, contents.write(key, data, kind, meta, expires_at_ms), told, expires_at_ms]
    if what == EXTEND:
        _, key, data, kind, meta, expires_at_ms, told, effect, change, flag = plan
        version = contents.extend(key, data, kind, meta, expires_at_ms, effect, change, flag)
        return [c.OK, version, told, expires_at_ms]
    if what == USE:
        contents.use(plan[1], 1)
        contents.read_bytes += len(plan[2][DATA])
        return [c.OK, *plan[2]]
    if what == REMOVE:
        return [c.OK, contents.remove(plan[1])]
    if what == EMPTY:
        return [c.OK, contents.remove(plan[1]), plan[2], 0]
    contents.retime(plan[1], plan[2])
    return [c.OK, plan[3], plan[2]]
