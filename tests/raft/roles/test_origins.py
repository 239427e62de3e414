"""Whose a block is: a leader takes from another node what is that node's own."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest

from cacheflow.machine.language import commands as c
from cacheflow.machine.state.sessions import Sessions
from cacheflow.raft.guards import BadMessage
from cacheflow.raft.roles.origins import check_origin
from cacheflow.raft.transport.network import Peer

PEER = Peer("b", "its disk", "h:1", "cluster", "an epoch", start=3)
OWN = c.open_session("b", "its disk", 3, "nonce")
SET = c.set_("k", b"v", 1)


def sessions() -> Sessions:
    table = Sessions()
    assert [table.open(member_id, 1, "x", 1) for member_id in ("a", "b")] == [1, 2]
    return table


@pytest.mark.parametrize(
    "block",
    [
        c.encode_block(2, 1, 1, [SET]),
        c.encode_block(0, 0, 0, [OWN]),
        c.encode_block(0, 0, 0, [c.noop(), OWN]),
        c.encode_block(0, 0, 0, [c.recency([("k", 1)])]),
        c.encode_block(0, 0, 0, []),
    ],
)
def test_a_nodes_own_is_taken(block: bytes) -> None:
    check_origin(block, PEER, sessions())


def test_a_session_that_is_closed_is_the_machines_to_tell_and_one_to_come_is_nobodys() -> None:
    table = sessions()
    table.close_of("a")
    check_origin(c.encode_block(1, 1, 1, [SET]), PEER, table)
    with pytest.raises(BadMessage, match="never opened"):
        check_origin(c.encode_block(3, 1, 1, [SET]), PEER, table)
    # A new leader may not have applied its opening yet.
    check_origin(c.encode_block(3, 1, 1, [SET]), PEER, table, is_settled=False)


def signed(number: int, *fields: Any) -> bytes:
    """Pack a block whose session number is an int of 8 bits with a sign."""
    return b"\x95\xd0" + bytes([number]) + b"".join(msgpack.packb(field) for field in fields)


@pytest.mark.parametrize(
    "block",
    [
        c.encode_block(1, 1, 1, [SET]),
        signed(1, 1, 1, 0, [SET]),
        c.encode_block(0, 0, 0, [SET]),
        c.encode_block(0, 0, 0, [c.recency([]), c.members("c", [])]),
        c.encode_block(0, 0, 0, [c.configure({"max_items": 1})]),
        *(
            c.encode_block(0, 0, 0, [c.recency([]), c.open_session(*who, "nonce")])
            for who in (("a", "its disk", 3), ("b", "another", 3), ("b", "its disk", 2), ("b", "its disk", 4))
        ),
        c.encode_block(0, 0, 0, [(c.OPEN_SESSION,)]),
        c.encode_block(0, 0, 0, [()]),
        msgpack.packb((0, 0, 0, 0, [7])),
        b"",
        b"\xc1",
        msgpack.packb(0),
    ],
)
def test_what_is_anothers_is_refused(block: bytes) -> None:
    with pytest.raises(BadMessage):
        check_origin(block, PEER, sessions())
