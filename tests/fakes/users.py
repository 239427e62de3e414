"""Users without files."""

from __future__ import annotations

import hashlib

from cacheflow.access.roles import DEFAULT_NAME, Role, User
from cacheflow.access.users import Access


class MemoryAccess(Access):
    """The users in ``people``, as (name, role, token); a change counts from the next ``reload`` on."""

    def __init__(self, *people: tuple[str, Role, bytes]) -> None:
        self.people = list(people)
        super().__init__()

    def _read(self) -> dict[bytes, User]:
        digests = [hashlib.sha256(token).digest() for _, _, token in self.people]
        return {digest: User(name, role, digest) for digest, (name, role, _) in zip(digests, self.people, strict=True)}


def access_of(token: bytes) -> Access:
    """The one token of --api-token-file."""
    return MemoryAccess((DEFAULT_NAME, Role.ADMIN, token))
