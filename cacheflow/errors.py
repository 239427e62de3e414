"""The error tree. The HTTP status stands on the class; one error handler turns any of them into an answer.

CacheFlowError                500
├─ ConfigError                     at start only: a setting, a port, a directory, a damaged file
│  └─ NewerCacheFlow               also later: what is here or comes needs a newer build than this one
├─ InvalidRequest             400  nothing was proposed
│  ├─ ValueTooLarge           413  also a ValueError
│  └─ IdempotencyKeyReused    422  the key came before with another command
├─ KeyNotFound                404  also a KeyError
├─ MemberUnknown              404  no member has that node id
├─ NotAnInteger               409  incr on something else, or past 64 bits
├─ MemberConflict             409  the node id lives elsewhere, or the member cannot be spared now
├─ LevelConflict              409  the feature level cannot become that one, or is too low for what is asked
├─ PreconditionFailed         412  If-Match, If-None-Match, add, compare-and-set
└─ ReplicationError           503
   ├─ NotCommitted            503  certainly not applied: safe to retry (Retry-After)
   │  ├─ NoLeader
   │  ├─ NotReady                  this node may not answer reads yet, or not as fresh as asked
   │  ├─ NoCluster                 this node belongs to no cluster yet, so it can register nobody
   │  └─ Overloaded
   └─ OutcomeUnknown          504  it was sent and no answer came in time
      └─ OutcomeForgotten          it came again, or late, and what became of it before is not known any more
"""

from __future__ import annotations


class CacheFlowError(Exception):
    """The base class of every error that this package raises on purpose."""

    http_status = 500
    title = "Internal error"


class ConfigError(CacheFlowError):
    """The node cannot start as configured. The message names the setting or file and says what to do."""

    title = "Configuration error"


class NewerCacheFlow(ConfigError):
    """What is on this disk, or what the cluster sends, is of a newer CacheFlow than this one; nothing was changed."""

    title = "Newer CacheFlow"

    @classmethod
    def wrote(cls, what: str, found: int, known: int, *, number: str = "level") -> NewerCacheFlow:
        """Return the error for ``what`` was written. found, known: its level or format, and the highest that is known here."""
        return cls(
            f"{what} was written by a newer CacheFlow ({number} {found}; this build knows {known}): install that one or a "
            "later one and start this node again; nothing was changed"
        )


class InvalidRequest(CacheFlowError, ValueError):
    """The request itself is wrong; nothing was proposed."""

    http_status = 400
    title = "Invalid request"


class ValueTooLarge(InvalidRequest):
    """The value is larger than ``--max-value-bytes`` or than the whole cache may hold, or the call than one entry of the log."""

    http_status = 413
    title = "Value too large"


class IdempotencyKeyReused(InvalidRequest):
    """An Idempotency-Key came again with a different command."""

    http_status = 422
    title = "Idempotency key reused"


class KeyNotFound(CacheFlowError, KeyError):
    """The key is absent, expired or evicted."""

    http_status = 404
    title = "Key not found"

    def __str__(self) -> str:  # KeyError shows the repr of its argument
        return str(self.args[0]) if self.args else self.title


class NotAnInteger(CacheFlowError):
    """The stored value is not a decimal 64-bit integer, or the sum would leave 64 bits."""

    http_status = 409
    title = "Not an integer"


class MemberUnknown(CacheFlowError):
    """No member of the cluster has that node id."""

    http_status = 404
    title = "Member unknown"


class MemberConflict(CacheFlowError):
    """The node id belongs to another living node, or the cluster would lose its majority without that member."""

    http_status = 409
    title = "Member conflict"


class LevelConflict(CacheFlowError):
    """The cluster's feature level cannot be raised to that now, or what is asked needs a higher one than is in force."""

    http_status = 409
    title = "Level conflict"


class PreconditionFailed(CacheFlowError):
    """The key is not in the state that the write asked for. ``version`` is the present one, 0 when absent."""

    http_status = 412
    title = "Precondition failed"

    def __init__(self, message: str, version: int = 0) -> None:
        super().__init__(message)
        self.version = version


class ReplicationError(CacheFlowError):
    """The command was not replicated, or its outcome is not known."""

    http_status = 503
    title = "Replication error"


class NotCommitted(ReplicationError):
    """The command was certainly not applied: it is safe to send it again after ``retry_after_s`` seconds."""

    title = "Not committed"

    def __init__(self, message: str, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class NoLeader(NotCommitted):
    """No leader is known; an election may be under way, or a majority is down."""

    title = "No leader"


class NotReady(NotCommitted):
    """This node is stopped, takes no writes, or cannot answer a read at the level asked for."""

    title = "Not ready"


class NoCluster(NotCommitted):
    """This node belongs to no cluster yet. ``raft_address`` is where its peers reach it, for nodes that found together."""

    title = "No cluster"

    def __init__(self, raft_address: str) -> None:
        super().__init__("this node belongs to no cluster yet")
        self.raft_address = raft_address


class Overloaded(NotCommitted):
    """Too many requests wait already."""

    title = "Overloaded"


class OutcomeUnknown(ReplicationError):
    """The write was sent and no answer came in time: it may or may not have been applied."""

    http_status = 504
    title = "Outcome unknown"


class OutcomeForgotten(OutcomeUnknown):
    """The write was not applied now, nor will it be; whether an earlier try of it was is not known any more."""

    title = "Outcome forgotten"
