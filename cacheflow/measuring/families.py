"""What each metric of a node means: a table of all, by name. docs/metrics.md has the same, in the same order."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, NamedTuple, TypeAlias

Kind: TypeAlias = Literal["counter", "gauge", "histogram", "info"]


class Family(NamedTuple):
    """All metrics of one name: their kind, their meaning for people, and the names of the labels that tell them apart."""

    kind: Kind
    meaning: str
    labels: tuple[str, ...] = ()


PEER: Final = ("peer",)
PORT: Final = ("port",)

FAMILIES: Final[Mapping[str, Family]] = {
    # The cache.
    "items": Family(
        "gauge",
        "Living keys of all databases. What is past its expiry, or removed by a prefix, counts until it is swept.",
    ),
    "items_to_sweep": Family("gauge", "Removed keys that still take their room."),
    "condemnations": Family("gauge", "Removals by prefix or of whole databases that are not swept yet."),
    "bytes": Family("gauge", "Bytes held, by formula: key, value and a constant for each entry."),
    "max_items": Family("gauge", "Limit of keys; 0 is none."),
    "max_bytes": Family("gauge", "Limit of bytes; 0 is none."),
    "revision": Family("gauge", "The machine's revision: one for every key written or removed."),
    "hits_total": Family("counter", "Reads of this node's memory that found their key."),
    "misses_total": Family("counter", "Reads of this node's memory that did not."),
    "sets_total": Family("counter", "Keys written, in the life of the cache, as applied here."),
    "deletes_total": Family("counter", "Keys removed by request, in the life of the cache, as applied here."),
    "evicted_total": Family("counter", "Keys removed for space, in the life of the cache, as applied here."),
    "expired_total": Family("counter", "Keys removed for time, in the life of the cache, as applied here."),
    "scopes": Family("gauge", "Scopes that clients have opened for the writes that they number."),
    "idempotency_window_seconds": Family(
        "gauge", "How far back idempotency keys are known: 600, or less when they are more than is kept."
    ),
    "feed_bytes": Family("gauge", "Bytes of the latest effects of the log, kept for those who follow."),
    "feed_effects": Family("gauge", "Effects of the log that are kept for those who follow."),
    "followers": Family(
        "gauge", "Those who follow: watches over HTTP and in this process, and keyspace notifications as one."
    ),
    "followers_missed_total": Family("counter", "Times that one who follows could not be told all changes."),
    "followers_told_total": Family("counter", "Changes told, once for each who follows."),
    # The cluster.
    "is_leader": Family("gauge", "1 on the leader."),
    "has_leader": Family("gauge", "1 when this node knows a leader."),
    "ready": Family("gauge", "1 when this node passes its readiness checks."),
    "readiness_check": Family("gauge", "1 when this one of them passes; /readyz?verbose has the words.", ("check",)),
    "term": Family("gauge", "Raft term."),
    "commit_index": Family("gauge", "Highest log index known to be committed."),
    "applied_index": Family("gauge", "Highest log index applied here."),
    "durable_index": Family("gauge", "Highest log index that is on this node's disk."),
    "lag": Family("gauge", "Entries that the leader has told to be committed and that are not applied here."),
    "staleness_seconds": Family("gauge", "How old this node's contents may be; +Inf as long as that is not known."),
    "leader_changes_total": Family("counter", "Elections of a leader that this node saw, of the same one again, too."),
    "members": Family("gauge", "Members of the cluster."),
    "members_down": Family("gauge", "Members that do not answer."),
    "voters": Family("gauge", "Members that vote."),
    "voters_up": Family("gauge", "Members that vote and answer."),
    "voters_wanted": Family("gauge", "Members that are to vote: replicas + 1."),
    "failure_tolerance": Family(
        "gauge", "How many more voters may fail before a majority is lost; below 0: how many a majority lacks."
    ),
    "observers": Family("gauge", "Members that never vote unless they are promoted."),
    "peer_lag": Family("gauge", "On the leader: log entries that a peer has not acknowledged.", PEER),
    "peer_connected": Family("gauge", "1 while there is a connection on which to send to a peer.", PEER),
    "peer_round_trip_seconds": Family(
        "gauge", "On the leader: time from a message without entries to a peer until its answer, smoothed.", PEER
    ),
    "peer_silent_seconds": Family("gauge", "Seconds since this node or its leader heard a peer.", PEER),
    "peer_sent_bytes_total": Family("counter", "Bytes written to connections to a peer, before encryption.", PEER),
    "peer_received_bytes_total": Family(
        "counter", "Bytes that came on connections from a peer, after decryption.", PEER
    ),
    "peer_unsent_bytes": Family("gauge", "Bytes that wait to be sent to a peer.", PEER),
    "level": Family("gauge", "Feature level that is in force, as applied here."),
    "build_level": Family("gauge", "Highest feature level that this node's build knows."),
    "unknown_messages_total": Family("counter", "Messages of other nodes that this build does not know, and dropped."),
    "failed": Family("gauge", "1 when this node's disk failed and it takes no further part."),
    "removed": Family("gauge", "1 when this node was removed from the cluster."),
    "in_doubt": Family("gauge", "1 while this node's contents may be wrong and are checked."),
    "digest_differences_total": Family(
        "counter", "Times that this node's contents differed from another node's, or from what its own disk holds."
    ),
    "reloads_total": Family("counter", "Times that the contents were wrong and were loaded from this node's disk."),
    # The work of this node.
    "entry_apply_seconds": Family("histogram", "Time to apply an entry of the log to the contents."),
    "entry_commit_seconds": Family(
        "histogram", "On the leader: time from appending an entry to the log until it is committed."
    ),
    "journal_flush_seconds": Family(
        "histogram", "Time of a write to the journal, with its flush where --fsync asks for one."
    ),
    "loop_turn_seconds": Family("histogram", "Time for which a turn of the event loop held it."),
    "loop_turn_age_seconds": Family(
        "gauge", "Seconds since the present turn of the event loop began; 0 while it waits."
    ),
    "snapshot_build_seconds": Family("histogram", "Time to build a snapshot."),
    "proposals_total": Family(
        "counter",
        "Calls that write, and linearizable reads, by their end: answered; no_leader, overloaded, not_ready and "
        "not_committed have certainly not taken place, and what became of unknown nobody knows.",
        ("outcome",),
    ),
    "pending_commands": Family("gauge", "Commands of this node that wait for their outcome."),
    "pending_commands_max": Family("gauge", "How many may."),
    "pending_bytes": Family("gauge", "Bytes of these commands."),
    "pending_bytes_max": Family("gauge", "How many they may be."),
    # The disk.
    "log_entries": Family("gauge", "Entries in the log since the last snapshot."),
    "journal_bytes": Family("gauge", "Space that the journal takes on this node's disk."),
    "disk_free_bytes": Family("gauge", "Free bytes of the disk with this node's data directory, looked up every 5 s."),
    "disk_size_bytes": Family("gauge", "Size of that disk."),
    "disk_hung": Family("gauge", "1 while this node's disk does not answer."),
    "disk_wait_seconds": Family("gauge", "Seconds for which the disk has flushed nothing, though records wait."),
    "snapshot_age_seconds": Family("gauge", "Seconds since this node built a snapshot or took one over, or started."),
    "snapshot_bytes": Family("gauge", "Size of this node's newest snapshot; 0 is none."),
    "snapshot_failures_total": Family("counter", "Snapshots that this node could not build."),
    "snapshots_sent_total": Family("counter", "Snapshots that this node, as leader, has sent to another one."),
    "snapshots_received_total": Family("counter", "Snapshots of a leader that this node has taken over."),
    "snapshot_receive_failures_total": Family(
        "counter", "Snapshots of a leader that came and could not be taken over."
    ),
    # Clients.
    "request_seconds": Family(
        "histogram",
        "Time from the end of a client's request until its answer was handed to the system. Their count is that of the requests.",
        ("front", "command", "outcome"),
    ),
    "http_waiting_requests": Family("gauge", "HTTP requests that wait for the cluster now."),
    "http_waiting_requests_max": Family("gauge", "How many may."),
    "http_refused_total": Family("counter", "HTTP requests turned away because too many waited."),
    "wire_connections": Family("gauge", "Open connections of a wire protocol's port.", PORT),
    "wire_connections_max": Family("gauge", "How many there may be.", PORT),
    "wire_accepted_total": Family("counter", "Connections that were let in.", PORT),
    "wire_refused_total": Family("counter", "Connections turned away because too many were open.", PORT),
    "wire_overdue_total": Family("counter", "Connections ended in the middle of a request that took too long.", PORT),
    "wire_requests_total": Family("counter", "Requests of that protocol.", PORT),
    "unsent_bytes": Family("gauge", "Bytes of answers that clients have not taken."),
    "unsent_bytes_max": Family("gauge", "From how many on clients that take nothing are ended."),
    "unsent_ended_total": Family("counter", "Clients that were ended for taking nothing while these were too many."),
    "unfinished_bytes": Family("gauge", "Bytes of long requests that clients have not ended."),
    "unfinished_bytes_max": Family("gauge", "From how many on long requests wait for each other."),
    "unfinished_ended_total": Family(
        "counter", "Clients that were ended for sending nothing while these were too many."
    ),
    "channels": Family("gauge", "Channels of the RESP port that somebody on this node has subscribed to."),
    "channel_patterns": Family("gauge", "Patterns of channels, likewise."),
    "subscriptions": Family("gauge", "Subscriptions of all clients of this node."),
    "subscribers_unread_bytes": Family("gauge", "Bytes of published messages that subscribers have not taken."),
    "subscribers_ended_total": Family(
        "counter", "Subscribers that were ended because they did not take what was published."
    ),
    "published_total": Family("counter", "Messages that clients of this node have published."),
    "published_unsent_total": Family(
        "counter", "Parts of them, by peer, that were not sent: no connection, or too much waited for it."
    ),
    "published_lost_total": Family(
        "counter", "Messages of other nodes that were lost here, because too many came at once."
    ),
    "tracking_clients": Family(
        "gauge", "Clients of the RESP port that are told which keys have changed that they keep."
    ),
    "tracking_keys": Family("gauge", "Keys that these clients have read and may keep."),
    "tracking_reads": Family("gauge", "The same keys, once for each client that has read one."),
    "tracking_bytes": Family("gauge", "Bytes that this node keeps to know which client has read which key."),
    "tracking_prefixes": Family("gauge", "Prefixes of keys of whose changes some of these clients are told."),
    "tracking_invalidations_total": Family("counter", "Messages to these clients that keys have changed."),
    "tracking_evicted_total": Family("counter", "Keys that they were told to forget because this node notes no more."),
    "tracking_forgotten_total": Family("counter", "Times that all of them were told to forget everything."),
    "users": Family("gauge", "Users whose tokens this node knows; absent where nobody needs a token."),
    "users_outdated": Family(
        "gauge", "1 while the users of before count, because what their file says now is refused."
    ),
    "access_refused_total": Family(
        "counter", "Requests refused for want of a known token, or of a role that is high enough.", ("port", "reason")
    ),
    "tls_certificate_days_left": Family("gauge", "Days until this node's certificate ends; absent without one."),
    "tls_handshakes_open": Family("gauge", "TLS handshakes that are under way on a port.", PORT),
    "tls_handshakes_total": Family("counter", "TLS handshakes of a port that were done.", PORT),
    "tls_handshakes_failed_total": Family("counter", "TLS handshakes of a port that failed.", PORT),
    "tls_plain_connections_total": Family("counter", "Connections to a port that spoke no TLS.", PORT),
    # What the node and its build are called.
    "node_info": Family(
        "info", "1: the node's id, and its cluster's, which is empty while it has none.", ("node", "cluster")
    ),
    "build_info": Family(
        "info",
        "1: the version of CacheFlow, the highest feature level that it knows, and Python's version.",
        ("version", "level", "python"),
    ),
}
