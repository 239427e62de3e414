"""Headers: fields of the leader's append messages beside the log: times, which members are down, the contents' digest.

Not safe for concurrent use: the event loop owns it.
"""

from __future__ import annotations

from typing import Any

from cacheflow.raft.core import Core
from cacheflow.raft.links import Links
from cacheflow.raft.message_types import AppendEntries
from cacheflow.raft.peers import Peers, Progress
from cacheflow.raft.replica import Replica
from cacheflow.raft.seams import Clock

# Pause between two messages that tell a follower when the other followers were last heard.
TELL_SEEN_MS = 1000


class Headers:
    """Makes the fields of a leader's append messages that are not about the log: times, which members are down, a digest."""

    def __init__(self, core: Core, links: Links, clock: Clock, peers: Peers, replica: Replica) -> None:
        self._core = core
        self._links = links
        self._clock = clock
        self._peers = peers
        self._replica = replica

    def common(self) -> dict[str, Any]:
        """Return those fields of the leader's next append messages that are the same for all followers."""
        core = self._core
        machine = self._replica.machine
        now_ms = self._links.now_ms()
        return {
            "type": "append_entries",
            "term": core.term,
            "commit_index": core.commit_index,
            "time": self._clock.now_ms(),
            "at": now_ms,
            # Lets a follower bound how old its contents are, by its own clock alone.
            "age": now_ms - self._peers.quorum_at_ms(core.voter_ids, now_ms),
            "down": self._peers.down,
            "digest": [machine.applied_index, machine.digest],
        }

    def message_for(self, header: dict[str, Any], progress: Progress) -> AppendEntries:
        """Return the append message for one follower: the fields in ``header``, the same for all, and this follower's own.

        progress: what the leader knows of that follower.
        """
        now_ms = header["at"]
        message: Any = header.copy()
        # Until its no-op is committed a leader does not know what is committed, so no follower may call itself fresh by it.
        message["clock"] = progress.peer_clock_ms if self._core.has_settled else 0
        message["hold"] = now_ms - progress.peer_clock_at_ms
        if now_ms - progress.told_seen_at_ms >= TELL_SEEN_MS:
            # Followers do not hear each other, so the leader tells them.
            progress.told_seen_at_ms = now_ms
            known = self._peers.progress.items()
            message["seen"] = {node_id: now_ms - other.acked_at_ms for node_id, other in known if other.acked_at_ms}
        made: AppendEntries = message
        return made
