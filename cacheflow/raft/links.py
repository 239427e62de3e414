"""Links: how one node sends messages to others: at once, or once its journal is durable.

What promises nothing is sent at once. A vote and an acknowledgement are promises: they are held until the journal is durable
up to the place where they were made (dissertation 10.2.1).

Not safe for concurrent use: the event loop owns it.
"""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cacheflow.raft.log.journal import Journal
from cacheflow.raft.message_types import Sent
from cacheflow.raft.transport.network import Network

# Messages that wait for the disk at most. While it works there are a few; while it hangs more of them say nothing new.
HELD_MAX = 1000


@dataclass(frozen=True, slots=True)
class Route:
    """The way from this node to its leader: leader, term and connection. On a change, unanswered proposals are sent again."""

    leader_id: str
    term: int
    connection: int


class Links:
    """Sends a node's messages, at once or only when the node's journal is durable; also knows the route to the leader."""

    def __init__(self, passed: Callable[[], float], network: Network, journal: Journal) -> None:
        # Sends a message that promises nothing, at once; returns False when the network does not take it.
        self.send = network.send
        # Whether there is a connection to the node with an id on which messages can be sent.
        self.is_connected = network.is_connected
        # The bytes that wait here for the node with an id.
        self.backlog = network.backlog
        # The route to the leader; None while there is none.
        self.route: Route | None = None
        # How often a node was seen to lead a new term; and the latest such term, also while no leader is known. It counts if
        # the same node is elected again, too: clients have waited.
        self.leader_changes = 0
        self._led_term = 0
        # {node id: how often the connection to it has been opened}: another connection is another route.
        self.connections: dict[str, int] = {}
        self._passed = passed
        self._journal = journal
        # (journal position, call): calls that wait until the journal is durable up to that position.
        self.held: deque[tuple[int, Callable[[], Any]]] = deque()

    def follow(self, route: Route | None) -> None:
        """Use ``route`` from now on as the way to the leader; None if there is none."""
        if route is not None and route.term != self._led_term:
            self._led_term = route.term
            self.leader_changes += 1
        self.route = route

    def now_ms(self) -> int:
        """Return this process's monotonic clock in milliseconds."""
        return int(self._passed() * 1000)

    def hold(self, send: Callable[[], Any]) -> None:
        """Call the function ``send`` once all of the journal's records so far are durable; waiting calls keep their order."""
        if self._journal.durable_position >= self._journal.position and not self.held:
            send()
        else:
            self.held.append((self._journal.position, send))

    def hold_message(self, node_id: str, message: Sent, complete: Callable[[], None] | None = None) -> None:
        """Send ``message`` to ``node_id`` once all records written to the journal so far are durable.

        The message is dropped if too many calls (HELD_MAX) wait for the journal already.
        complete: called right before the message is sent, to add what has to be as of that moment.
        """
        if self._journal.durable_position >= self._journal.position and not self.held:
            if complete is not None:
                complete()
            self.send(node_id, message)
        elif len(self.held) < HELD_MAX:
            if complete is not None:
                self.held.append((self._journal.position, complete))
            self.held.append((self._journal.position, functools.partial(self.send, node_id, message)))

    def release(self) -> None:
        """Make the calls (such as sending a vote) that waited for those journal records which are durable now."""
        durable = self._journal.durable_position
        while self.held and self.held[0][0] <= durable:
            self.held.popleft()[1]()
