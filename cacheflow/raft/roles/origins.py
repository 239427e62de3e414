"""Whose a block is: what another node sends to the leader is of its own session, or one of the few things outside any.

A process that is dead, or a wrong one, must not answer for a member: a number used up in another node's session silences that
node, and a session opened in its name ends the one it has.
"""

from __future__ import annotations

from typing import Final

from cacheflow.machine.language import commands
from cacheflow.machine.language.commands import CodecError
from cacheflow.machine.state.sessions import Sessions
from cacheflow.raft import guards
from cacheflow.raft.transport.network import Peer

# How the usual block outside any session begins, that of uses counted by local reads: it is known without being unpacked.
_USES: Final = commands.encode_block(0, 0, 0, [commands.recency([])])[:-1]


def check_origin(block: bytes, peer: Peer, sessions: Sessions, is_settled: bool = True) -> None:
    """Raise BadMessage if ``peer``, a node, has no right to propose ``block``, for example one of another node's session.

    sessions: the sessions in the leader's state machine.  is_settled: that machine has applied all entries of earlier terms,
    so that it holds every session that was opened.
    """
    session_id = commands.session_of(block)
    if session_id:
        session = sessions.find(session_id)
        if session is not None and session.member_id != peer.node_id:
            raise guards.BadMessage(f"propose: a block of a session of {session.member_id}'s")
        if session is None and is_settled and session_id > sessions.latest_id:
            # The block would use up numbers of whoever is given this session next.
            raise guards.BadMessage("propose: a block of a session that was never opened")
        return
    if block.startswith(_USES):
        return
    try:
        session_id, *_, inside = commands.decode_block(block)
        ops = [command[0] for command in inside]
        opened = [tuple(command[1:4]) for command in inside if command[0] == commands.OPEN_SESSION]
    except (CodecError, TypeError, LookupError):
        raise guards.BadMessage("propose: what is no block") from None
    if session_id or any(op not in (commands.OPEN_SESSION, commands.RECENCY, commands.NOOP) for op in ops):
        raise guards.BadMessage("propose: outside a session there are openings, uses and no-ops")
    if any(opening != (peer.node_id, peer.incarnation, peer.start) for opening in opened):
        raise guards.BadMessage("propose: a session opened for another node or another start")
