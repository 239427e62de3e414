"""Peers: what a node knows of the other members: their logs' progress, which are down, when they were last heard.

The leader keeps the progress of each follower. It is in one of three states. PROBE: after a change of leader, a rejection
or a new connection it gets empty messages until one of them is verified. REPLICATE: entries are streamed, several messages
ahead of their acknowledgements (dissertation 10.2.1). SNAPSHOT: it needs what the log no longer has; it gets no
entries until it has a snapshot.

Not safe for concurrent use: the event loop owns it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from cacheflow.raft.links import Links
from cacheflow.raft.membership.configuration import Configurations

# The states of a follower (see the module).
PROBE, REPLICATE, SNAPSHOT = "probe", "replicate", "snapshot"
# The answer to a message without entries that has not come after so long does not come any more.
LOST_AFTER_MS = 5000
# A member whose last answer is older than this is shown as down, although its connection stands.
DOWN_AFTER_MS = 1500


@dataclass(slots=True)
class Progress:
    """What a leader knows of one follower. Times are in milliseconds, by the leader's monotonic clock.

    Always 0 <= match_index < next_index, and messages are in flight only in the state REPLICATE, in which entries are sent
    without waiting for answers. match_index: up to this index the follower has the leader's log durably.  next_index: that of
    the next entry to send to the follower.
    """

    next_index: int
    match_index: int = 0
    state: str = PROBE
    inflight: deque[tuple[int, int]] = field(default_factory=deque)
    inflight_bytes: int = 0
    # When the newest message that it has answered was sent.
    acked_at_ms: int = 0
    # Its own clock in its newest answer, and when that came: lets it bound how old its contents are.
    peer_clock_ms: int = 0
    peer_clock_at_ms: int = 0
    # When it was last told how long ago the other followers were heard.
    told_seen_at_ms: int = 0
    # When a message without entries was sent that it has not answered; 0 if there is none. It answers those at once, while
    # entries wait for its disk: so they tell how far away it is.
    asked_at_ms: int = 0
    # The seconds from such a message to its answer, smoothed; None before the first answer.
    round_trip_s: float | None = None
    # The newest commit index that it was sent.
    sent_commit: int = 0
    # Another incarnation is another disk: nothing of what the one before had verified holds for it.
    incarnation: str = ""

    def asked(self, at_ms: int) -> None:
        """Note that a follower was sent a message without entries at ``at_ms``, unless it still owes the answer to another."""
        if not self.asked_at_ms or at_ms - self.asked_at_ms > LOST_AFTER_MS:
            self.asked_at_ms = at_ms

    def answered(self, at_ms: int, now_ms: int) -> None:
        """Note that at ``now_ms`` a follower's answer to a message came that was sent at ``at_ms``."""
        if self.asked_at_ms and at_ms == self.asked_at_ms:
            self.asked_at_ms = 0
            took_s = (now_ms - at_ms) / 1000
            # As TCP smooths (RFC 6298). Each time is whole milliseconds, and their mean is exact.
            self.round_trip_s = (
                took_s if self.round_trip_s is None else self.round_trip_s + (took_s - self.round_trip_s) / 8
            )

    def probe_from(self, next_index: int) -> None:
        """Forget the messages in flight to a follower; search from ``next_index`` for where its log departs from the leader's.

        A follower that waits for a snapshot still waits.
        """
        self.next_index = next_index
        if self.state != SNAPSHOT:
            self.state = PROBE
        self.inflight.clear()
        self.inflight_bytes = 0

    def need_snapshot(self) -> None:
        """Note that a follower needs a snapshot of the state machine, and is sent no entries until it has one."""
        self.state = SNAPSHOT
        self.inflight.clear()
        self.inflight_bytes = 0

    def installed(self, index: int) -> None:
        """Note that a follower has installed a snapshot up to ``index``, and find out where its log ends behind that index."""
        self.state = PROBE
        self.match_index = max(self.match_index, index)
        self.probe_from(self.match_index + 1)

    def verified(self, match_index: int, first_index: int) -> None:
        """Note that a follower's log equals the leader's up to ``match_index``. first_index: where the leader's log begins."""
        # A follower that waits for a snapshot because of a hole may have got the entries themselves, from another leader.
        if self.state != SNAPSHOT or match_index >= first_index:
            self.state = REPLICATE
        self.match_index = max(self.match_index, match_index)
        # Never back on an acknowledgement: what follows is in flight already (audit 1).
        self.next_index = max(self.next_index, match_index + 1)
        while self.inflight and self.inflight[0][0] <= match_index:
            self.inflight_bytes -= self.inflight.popleft()[1]


class Peers:
    """What a node knows of the other members, from their messages or from what its leader tells of them."""

    def __init__(self, node_id: str, configurations: Configurations, links: Links) -> None:
        # {node id: how far that follower is}; it counts while this node leads.
        self.progress: dict[str, Progress] = {}
        # The ids of the members that do not answer the leader: as this node finds as leader, or as its leader says; and when
        # that was found or said.
        self.down: list[str] = []
        self._down_at_ms = 0
        # {node id: when that member was asked the first question that it has not answered}.
        self._asked_at_ms: dict[str, int] = {}
        # {node id: when a message of that member came last}, and the same as the leader told it, by this process's clock.
        self.heard_ms: dict[str, int] = {}
        self.seen_at_ms: dict[str, int] = {}
        self._node_id = node_id
        self._configurations = configurations
        self._links = links

    def set_followers(self, incarnations: Mapping[str, str], next_index: int) -> None:
        """Set who the leader's followers are, {id: incarnation}; what is known of those that stay is kept.

        next_index: the log index from which new followers are sent entries.
        """
        before, self.progress = self.progress, {}
        for node_id, incarnation in incarnations.items():
            progress = before.get(node_id)
            if progress is None or progress.incarnation != incarnation:
                progress = Progress(next_index, incarnation=incarnation)
            self.progress[node_id] = progress

    def heard(self, node_id: str) -> None:
        """Note that something has come from the member ``node_id``: a message, or a new connection."""
        self.heard_ms[node_id] = self._links.now_ms()

    def asked(self, node_id: str) -> None:
        """Note that the member ``node_id`` is sent a question that every voter which works answers at once."""
        if self._asked_at_ms.get(node_id, 0) <= self.heard_ms.get(node_id, 0):
            self._asked_at_ms[node_id] = self._links.now_ms()

    def set_down(self, node_ids: list[str]) -> None:
        """Set which members do not answer the leader, by their ids. All others answer it, whatever they owe this node."""
        self.down, self._down_at_ms = node_ids, self._links.now_ms()
        self._asked_at_ms = {node_id: at_ms for node_id, at_ms in self._asked_at_ms.items() if node_id in node_ids}

    def down_ids(self) -> set[str]:
        """Return the ids of the members that do not answer, as the leader says; without a leader, of those silent here."""
        if self._links.route is not None:
            return set(self.down) - {self._node_id}
        return self.silent_ids()

    def silent_ids(self) -> set[str]:
        """Return the ids of the members that do not answer, as far as this node can tell by itself.

        These are the members to which it has no connection; those that the leader called down and that this node has not heard
        since; and those that owe it an answer. That another member is silent means nothing: followers send each other nothing.
        """
        now_ms, silent = self._links.now_ms(), set()
        for node_id in self._configurations.latest.members:
            heard_ms, asked_ms = self.heard_ms.get(node_id, 0), self._asked_at_ms.get(node_id, 0)
            if node_id != self._node_id and (
                not self._links.is_connected(node_id)
                or (node_id in self.down and heard_ms <= self._down_at_ms)
                or (heard_ms < asked_ms < now_ms - DOWN_AFTER_MS)
            ):
                silent.add(node_id)
        return silent

    def last_seen_ms(self, node_id: str) -> int | None:
        """Return the milliseconds since this node or its leader last heard the member ``node_id``; None if neither has."""
        heard_ms = max(self.heard_ms.get(node_id, 0), self.seen_at_ms.get(node_id, 0))
        return max(0, self._links.now_ms() - heard_ms) if heard_ms else None

    def quorum_at_ms(self, voter_ids: Iterable[str], now_ms: int) -> int:
        """Return the latest moment since which a majority of the voters has answered this leader, in ms.

        The leader itself counts as having answered at ``now_ms``.
        """
        times = [now_ms]
        for node_id in voter_ids:
            progress = self.progress.get(node_id)
            times.append(progress.acked_at_ms if progress is not None else 0)
        times.sort(reverse=True)
        return times[len(times) // 2]
