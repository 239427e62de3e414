"""Users: who may use a node's ports, and what for. Every front asks an ``Access`` what a token allows.

1. A token is known by its SHA-256 alone, and looked up by that: how long it takes tells nothing about a token.
2. The file of users is the same on every node, and read again when the node is told to. A new file that is wrong changes nothing:
   the users of before stay, and the log, ``/readyz?verbose`` and a metric say so.
"""

from __future__ import annotations

import hashlib
import logging
import threading
from pathlib import Path
from typing import Final

from cacheflow.access.roles import DEFAULT_NAME, Role, User
from cacheflow.access.users_file import read_users
from cacheflow.config import NodeConfig, read_secret
from cacheflow.errors import ConfigError
from cacheflow.measuring.metrics import labelled

logger = logging.getLogger(__name__)

# The fewest characters of a user's token: 128 random bits in base64. Whoever reads the file could guess a shorter one.
TOKEN_CHARS_MIN: Final = 22
# The names, in the metrics, of the ports at which users show their tokens.
PORTS: Final = ("http", "memcached", "resp")


class Access:
    """The users that one node knows, each found by the token that a client shows. Any thread may use this object.

    token_file: holds the one token of --api-token-file, whose user is an admin.  users_file: the file of users.
    Raises ConfigError when a file is wrong.
    """

    def __init__(self, token_file: Path | None = None, users_file: Path | None = None) -> None:
        self._token_file = token_file
        self._users_file = users_file
        self._by_digest = self._read()
        # True while what the files say is refused.
        self._outdated = False
        self._refused = {(port, reason): 0 for port in PORTS for reason in ("token", "role")}
        self._lock = threading.Lock()  # guards _refused

    @classmethod
    def of(cls, config: NodeConfig) -> Access | None:
        """Return the users of a node with the settings ``config``; None if no client needs a token. Raises ConfigError."""
        if config.api_token_file is None and config.users_file is None:
            return None
        return cls(config.api_token_file, config.users_file)

    def user_of(self, token: bytes) -> User | None:
        """Return the user who has ``token``, or None for a token that nobody has."""
        user = self._by_digest.get(hashlib.sha256(token).digest())
        if user is not None and len(token) < TOKEN_CHARS_MIN and user.name != DEFAULT_NAME:
            return None
        return user

    def has_user(self, name: str) -> bool:
        """True if this node knows a user called ``name``."""
        return any(user.name == name for user in self._by_digest.values())

    def is_current(self, user: User) -> bool:
        """True if ``user`` is still one of this node's users, with the same name, role and token."""
        return self._by_digest.get(user.digest) == user

    def reload(self) -> bool:
        """Read the files of users again; return False if a file is wrong: then the users known before stay."""
        try:
            self._by_digest = self._read()
        except ConfigError as error:
            self._outdated = True
            logger.error("the users of before stay: %s", error)
            return False
        self._outdated = False
        logger.info("%d users were read", len(self._by_digest))
        return True

    def refuse(self, port: str, role: bool = False) -> None:
        """Count, for the metrics, a refused request at ``port``, one of PORTS.

        role: True if the request was refused for its user's role, False if for want of a known token.
        """
        with self._lock:
            self._refused[port, "role" if role else "token"] += 1

    def check(self) -> tuple[str, bool, str]:
        """Return the readiness check (name, passed, detail) of the users' files. The check always passes.

        When a file has become wrong, the node goes on with the users that it knows. Anybody may ask for the check, so the
        detail names neither the file nor the mistake.
        """
        return (
            "users",
            True,
            "those of before: the new file is refused, the log says why" if self._outdated else "as told",
        )

    def metrics(self) -> dict[str, float]:
        """Return the metrics of this node's users, by name: how many users there are, and how many requests were refused."""
        refused = {
            labelled("access_refused_total", port=port, reason=reason): count
            for (port, reason), count in self._refused.items()
        }
        return {"users": len(self._by_digest), "users_outdated": int(self._outdated), **refused}

    def _read(self) -> dict[bytes, User]:
        users = {} if self._users_file is None else read_users(self._users_file)
        token = read_secret(self._token_file, "api-token-file")
        if token is not None:
            digest = hashlib.sha256(token).digest()
            if digest in users:
                raise ConfigError(
                    "api-token-file: its token is one of --users-file, too; each user needs a token of its own"
                )
            users[digest] = User(DEFAULT_NAME, Role.ADMIN, digest)
        return users
