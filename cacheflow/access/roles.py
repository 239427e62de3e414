"""Roles, and the users who have them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Final


class Role(IntEnum):
    """The roles of clients, in ascending order: a client may do what its own role and the lower roles allow."""

    # The role of a client that has shown no token: health checks alone.
    NOBODY = 0
    READ = 1
    WRITE = 2
    # Members, leadership, and other clients' connections.
    ADMIN = 3

    @property
    def word(self) -> str:
        """The name of this role in lower case, as it stands in files of users and in messages."""
        return self.name.lower()


# The roles that a user can have, by the word in the file.
ROLES: Final[Mapping[str, Role]] = {role.word: role for role in Role if role is not Role.NOBODY}
# The name of the user who shows the token of --api-token-file, and of any user for a Redis client that gives no name.
DEFAULT_NAME: Final = "default"


@dataclass(frozen=True, slots=True)
class User:
    """A user, whose token the node knows. digest: the SHA-256 of that token."""

    name: str
    role: Role
    digest: bytes
