"""The error tree. The HTTP status stands on the class; one error handler turns any of them into an answer.

CacheFlowError                500
├─ ConfigError                     at start only: a setting, a port, a directory, a damaged file
│  └─ NewerCacheFlow               also later: what is here or comes needs a newer build than this one
├─ InvalidRequest             400  nothing was proposed
│  ├─ BadBackup               400  no backup, or a damaged one
│  ├─ ValueTooLarge           413  also a ValueError
│  └─ IdempotencyKeyReused    422  the key came before with another command
├─ KeyNotFound                404  also a KeyError
├─ MemberUnknown              404  no member has that node id
├─ NotAnInteger               409  incr on something else, or past 64 bits
├─ MemberConflict             409  the node id lives elsewhere, or the member cannot be spared now
├─ LevelConflict              409  the feature level cannot become that one, or is too low for what is asked
├─ RestoreConflict            409  another restore has begun, or this one was given up
├─ PositionGone            410  what happened since a watch's position is not known here any more, or never was
├─ NoRoom                     507  the node's disk has no room for a backup
├─ PreconditionFailed         412  If-Match, If-None-Match, add, compare-and-set
├─ UnreadableValue                 in clients: the serializer cannot read the bytes that are marked as its own
└─ ReplicationError           503
   ├─ NotCommitted            503  certainly not applied: safe to retry (Retry-After)
   │  ├─ NoLeader
   │  ├─ NotReady                  this node may not answer reads yet, or not as fresh as asked
   │  ├─ NoCluster                 this node belongs to no cluster yet, so it can register nobody
   │  └─ Overloaded
   └─ OutcomeUnknown          504  it was sent and no answer came in time
      ├─ AnswerNotKept             it took place, and its answer is not known any more
      └─ OutcomeForgotten          it came again, or late, and what became of it before is not known any more
"""

from __future__ import annotations

from typing import Final

# The type of the problem document with which a port that speaks HTTPS answers a client that does not. No request was read.
HTTPS_ONLY: Final = "urn:cacheflow:https-only"


class CacheFlowError(Exception):
    """The base class of every error that this package raises on purpose.

    request_id: the id (X-Request-Id) of the HTTP request that failed, by which the node's log names it; "" where there was none.
    """

    http_status = 500
    title = "Internal error"
    request_id = ""


class ConfigError(CacheFlowError):
    """Raised when a node cannot start as configured. The message names the setting or file and says what to do."""

    title = "Configuration error"


class NewerCacheFlow(ConfigError):
    """Raised when a newer CacheFlow wrote the data on this disk, or what the cluster sends; nothing was changed."""

    title = "Newer CacheFlow"

    @classmethod
    def wrote(cls, what: str, found: int, known: int, *, number: str = "level") -> NewerCacheFlow:
        """Return the error for ``what``, a file or message, that a newer CacheFlow wrote.

        found: the number of the level or format of ``what``.  known: the highest such number that this build knows.
        """
        return cls(
            f"{what} was written by a newer CacheFlow ({number} {found}; this build knows {known}): install that one or a "
            "later one and start this node again; nothing was changed"
        )


class InvalidRequest(CacheFlowError, ValueError):
    """Raised for a request that is invalid in any state of the cache; nothing was written."""

    http_status = 400
    title = "Invalid request"


class BadBackup(InvalidRequest):
    """Raised for bytes that are no backup, or a damaged one; nothing was changed. The message says where the damage is."""

    title = "Bad backup"


class ValueTooLarge(InvalidRequest):
    """Raised for a value over the setting ``max_value_bytes`` or the whole cache's limit, or a call too large for the log."""

    http_status = 413
    title = "Value too large"


class IdempotencyKeyReused(InvalidRequest):
    """Raised when a request has the Idempotency-Key of an earlier request but asks for something else."""

    http_status = 422
    title = "Idempotency key reused"


class KeyNotFound(CacheFlowError, KeyError):
    """Raised when the key of a request is absent, expired or evicted."""

    http_status = 404
    title = "Key not found"

    def __str__(self) -> str:  # KeyError shows the repr of its argument
        return str(self.args[0]) if self.args else self.title


class NotAnInteger(CacheFlowError):
    """Raised when an increment finds a value that is no decimal 64-bit integer, or the sum would exceed 64 bits."""

    http_status = 409
    title = "Not an integer"


class MemberUnknown(CacheFlowError):
    """Raised when no member of the cluster has the node id in a request."""

    http_status = 404
    title = "Member unknown"


class MemberConflict(CacheFlowError):
    """Raised when a node id belongs to another living node, or the cluster would lose its majority without a member."""

    http_status = 409
    title = "Member conflict"


class LevelConflict(CacheFlowError):
    """Raised when the feature level cannot be raised to the one asked for, or a request needs a higher one than is in force."""

    http_status = 409
    title = "Level conflict"


class RestoreConflict(CacheFlowError):
    """Raised when a restore cannot go on, because another restore has begun since, or somebody has given this one up."""

    http_status = 409
    title = "Restore conflict"


class PositionGone(CacheFlowError):
    """Raised when a watch cannot go on: the changes since its position are not kept any more, or never happened here.

    oldest: the oldest position from which the node can tell changes; "" if that is unknown.
    """

    http_status = 410
    title = "Position gone"

    def __init__(self, message: str, oldest: str = "") -> None:
        super().__init__(message)
        self.oldest = oldest


class NoRoom(CacheFlowError):
    """Raised when the disk of a node has no room for a backup that is to be made or restored there."""

    http_status = 507
    title = "No room"


class PreconditionFailed(CacheFlowError):
    """Raised when a key is not in the state that a write asked for. version: the key's present one, 0 if it is absent."""

    http_status = 412
    title = "Precondition failed"

    def __init__(self, message: str, version: int = 0) -> None:
        super().__init__(message)
        self.version = version


class UnreadableValue(CacheFlowError):
    """Raised by a cache with a serializer for a stored value of that serializer's content type which it cannot decode."""

    title = "Unreadable value"


class ReplicationError(CacheFlowError):
    """Raised when a command was not replicated, or when its outcome is not known."""

    http_status = 503
    title = "Replication error"


class NotCommitted(ReplicationError):
    """Raised when a command was certainly not applied: it is safe to send again after ``retry_after_s`` seconds."""

    title = "Not committed"

    def __init__(self, message: str, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class NoLeader(NotCommitted):
    """Raised when no leader of the cluster is known: an election may be in progress, or a majority of nodes is down."""

    title = "No leader"


class NotReady(NotCommitted):
    """Raised by a node that is stopped, takes no writes, or cannot answer a read with the consistency asked for."""

    title = "Not ready"


class NoCluster(NotCommitted):
    """Raised by a node that belongs to no cluster yet.

    raft_address: where other nodes reach that node, for those that are about to found a cluster with it.
    """

    title = "No cluster"

    def __init__(self, raft_address: str) -> None:
        super().__init__("this node belongs to no cluster yet")
        self.raft_address = raft_address


class Overloaded(NotCommitted):
    """Raised when a node refuses a request because too many other requests are waiting on that node already."""

    title = "Overloaded"


class OutcomeUnknown(ReplicationError):
    """Raised when a write was sent and no answer came in time: it may or may not have been applied."""

    http_status = 504
    title = "Outcome unknown"


class AnswerNotKept(OutcomeUnknown):
    """Raised when a write has taken place, and what its answer was is not known any more: asking again does not help."""

    title = "Answer not kept"


class OutcomeForgotten(OutcomeUnknown):
    """Raised when a write sent again was not applied now, nor will be; whether an earlier try was applied is not known."""

    title = "Outcome forgotten"
