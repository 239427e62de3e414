"""Metrics in the format that Prometheus reads (text format 0.0.4)."""

from __future__ import annotations

import math
from collections.abc import Mapping

PREFIX = "cacheflow_"

# The explanation of each metric for people; one that is missing here is explained by the words of its name.
HELP: Mapping[str, str] = {
    "items": "Living keys of all databases. What is past its expiry, or removed by a prefix, counts until it is swept.",
    "items_to_sweep": "Removed keys that still take their room.",
    "condemnations": "Removals by prefix or of whole databases that are not swept yet.",
    "bytes": "Bytes held, by formula: key, value and a constant for each entry.",
    "max_items": "Limit of keys; 0 is none.",
    "max_bytes": "Limit of bytes; 0 is none.",
    "revision": "The machine's revision: one for every key written or removed.",
    "hits_total": "Reads on this node that found their key.",
    "misses_total": "Reads on this node that did not.",
    "sets_total": "Keys written, as applied here.",
    "deletes_total": "Keys removed by request, as applied here.",
    "evicted_total": "Keys removed for space, as applied here.",
    "expired_total": "Keys removed for time, as applied here.",
    "feed_bytes": "Bytes of the latest effects of the log, kept for those who follow.",
    "feed_effects": "Effects of the log that are kept for those who follow.",
    "followers": "Watches of this node, over HTTP and in this process.",
    "followers_missed_total": "Watches that were told that changes are missing.",
    "followers_told_total": "Changes told, once for each watch.",
    "is_leader": "1 on the leader.",
    "has_leader": "1 when this node knows a leader.",
    "ready": "1 when this node passes its readiness checks.",
    "term": "Raft term.",
    "commit_index": "Highest log index known to be committed.",
    "applied_index": "Highest log index applied here.",
    "durable_index": "Highest log index that is on this node's disk.",
    "log_entries": "Entries in the log since the last snapshot.",
    "journal_bytes": "Space that the journal takes on this node's disk.",
    "snapshot_age_seconds": "Seconds since this node built a snapshot or took one over, or started.",
    "snapshot_failures_total": "Snapshots that this node could not build.",
    "in_doubt": "1 while this node's contents may be wrong and are checked.",
    "reloads_total": "Times that the contents were wrong and were loaded from this node's disk.",
    "members_down": "Members that do not answer.",
    "voters": "Members that vote.",
    "observers": "Members that never vote unless they are promoted.",
    "disk_hung": "1 while this node's disk does not answer.",
    "failed": "1 when this node's disk failed and it takes no further part.",
    "removed": "1 when this node was removed from the cluster.",
    "level": "Feature level that is in force, as applied here.",
    "build_level": "Highest feature level that this node's build knows.",
    "unknown_messages_total": "Messages of other nodes that this build does not know, and dropped.",
    "leader_changes_total": "Changes of leader that this node saw.",
    "idempotency_window_seconds": "How far back idempotency keys are known: 600, or less when they are more than is kept.",
    "scopes": "Scopes that clients have opened for the writes that they number.",
    "pending_commands": "Commands of this node that wait for their outcome.",
    "members": "Members of the cluster.",
    "peer_lag": "Log entries that a peer is behind the leader.",
    "channels": "Channels of the RESP port that somebody on this node has subscribed to.",
    "channel_patterns": "Patterns of channels, likewise.",
    "subscriptions": "Subscriptions of all clients of this node.",
    "subscribers_unread_bytes": "Bytes of published messages that subscribers have not taken.",
    "subscribers_ended_total": "Subscribers that were ended because they did not take what was published.",
    "published_total": "Messages that clients of this node have published.",
    "published_unsent_total": "Parts of them, by peer, that were not sent: no connection, or too much waited for it.",
    "published_lost_total": "Messages of other nodes that were lost here, because too many came at once.",
    "tracking_clients": "Clients of the RESP port that are told which keys have changed that they keep.",
    "tracking_keys": "Keys that these clients have read and may keep.",
    "tracking_reads": "The same keys, once for each client that has read one.",
    "tracking_bytes": "What these take of this node's memory, by formula.",
    "tracking_prefixes": "Prefixes of keys of whose changes some of these clients are told.",
    "tracking_invalidations_total": "Messages to these clients that keys have changed.",
    "tracking_evicted_total": "Keys that they were told to forget because this node notes no more.",
    "tracking_forgotten_total": "Times that all of them were told to forget everything.",
    "unsent_bytes": "Bytes of answers that clients have not taken.",
    "unsent_ended_total": "Clients that were ended for taking nothing while these were too many.",
    "unfinished_bytes": "Bytes of long requests that clients have not ended.",
    "unfinished_ended_total": "Clients that were ended for sending nothing while these were too many.",
    "wire_connections": "Open connections of a wire protocol's port.",
    "wire_connections_max": "How many there may be.",
    "wire_connections_total": "Connections that were let in.",
    "wire_refused_total": "Connections turned away because too many were open.",
    "wire_requests_total": "Requests of that protocol.",
    "users": "Users whose tokens this node knows.",
    "users_outdated": "1 while the users of before count, because what their file says now is refused.",
    "access_refused_total": "Requests refused for want of a known token, or of a role that is high enough.",
    "tls_certificate_days_left": "Days until this node's certificate ends.",
    "tls_handshakes_open": "TLS handshakes that are under way on a port.",
    "tls_handshakes_total": "TLS handshakes of a port that were done.",
    "tls_handshakes_failed_total": "TLS handshakes of a port that failed.",
    "tls_plain_connections_total": "Connections to a port that spoke no TLS.",
    "http_waiting_requests": "HTTP requests that wait for the cluster now.",
    "http_waiting_requests_max": "How many may.",
    "http_refused_total": "HTTP requests turned away because too many waited.",
}


def prometheus_text(metrics: Mapping[str, float]) -> str:
    """Return ``metrics`` in Prometheus' text format, with one HELP and one TYPE line for all samples of one name.

    metrics: values by name and labels, such as ``{"items": 3, 'peer_lag{peer="b"}': 0}``.
    """
    families: dict[str, list[str]] = {}
    for name, value in metrics.items():
        family = name.partition("{")[0]
        families.setdefault(family, []).append(f"{PREFIX}{name} {_number(value)}")
    lines: list[str] = []
    for family, samples in sorted(families.items()):
        meaning = HELP.get(family) or family.replace("_", " ").capitalize() + "."
        kind = "counter" if family.endswith("_total") else "gauge"
        lines.append(f"# HELP {PREFIX}{family} {meaning}")
        lines.append(f"# TYPE {PREFIX}{family} {kind}")
        lines += samples
    return "\n".join(lines) + "\n"


def _number(value: float) -> str:
    if math.isfinite(value):
        return repr(int(value)) if value == int(value) else repr(float(value))
    return "NaN" if math.isnan(value) else "+Inf" if value > 0 else "-Inf"
