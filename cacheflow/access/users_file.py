"""The file of users: a line for each, ``NAME ROLE HASH``; HASH is the SHA-256 of the user's token in hexadecimal digits.

Empty lines and those that begin with ``#`` count for nothing, nor do a byte order mark and the kind of line ends. No
message shows what stands in a line: a token may have been written in the wrong place.
"""

from __future__ import annotations

import codecs
import hashlib
import os
import re
import secrets
import stat
from pathlib import Path
from typing import Final

from cacheflow.access.roles import DEFAULT_NAME, ROLES, Role, User
from cacheflow.errors import ConfigError

# Random bytes in a new token.
TOKEN_BYTES: Final = 32
# The beginning of each, for those who look for lost tokens, and because a ``-`` there would be an option to most programs.
TOKEN_PREFIX: Final = "cf_"
# Some ten thousand users: more is no file of users.
_FILE_BYTES_MAX: Final = 1024 * 1024
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_NAME_RULE: Final = (
    "must be 1 to 63 letters, digits, dots, dashes or underscores, "
    f"and not {DEFAULT_NAME!r}, which is the user of --api-token-file"
)
_HASH: Final = re.compile(r"[0-9A-Fa-f]{64}")


def new_token() -> str:
    """Return a new random token: printable ASCII without blanks, which cannot be taken for a SHA-256 in hexadecimal."""
    return TOKEN_PREFIX + secrets.token_urlsafe(TOKEN_BYTES)


def line_of(name: str, role: Role, token: str) -> str:
    """Return the line of the file of users for a user with ``name``, ``role`` and ``token``.

    Raises ConfigError for a name that no user can have.
    """
    if _NAME.fullmatch(name) is None or name == DEFAULT_NAME:
        raise ConfigError(f"name = {name[:80]!r}: {_NAME_RULE}")
    return f"{name} {role.word} {hashlib.sha256(token.encode()).hexdigest()}"


def read_users(path: Path) -> dict[bytes, User]:
    """Return a dictionary of the users in the file at ``path``, by the SHA-256 of their tokens.

    Raises ConfigError that names the line which is wrong.
    """

    def wrong(rule: str) -> ConfigError:
        return ConfigError(f"users-file = {str(path)!r}: {rule}")

    try:
        # A FIFO in its place must not stop a node, so it is opened without waiting.
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            mode = os.fstat(file.fileno()).st_mode
            data = file.read(_FILE_BYTES_MAX + 1) if stat.S_ISREG(mode) else b""
    except OSError as error:
        raise wrong(f"cannot be read ({error.strerror})") from None
    if not stat.S_ISREG(mode):
        raise wrong("is no regular file")
    if mode & stat.S_IWOTH:
        raise wrong("everybody on this machine may write to it, and so become an admin: chmod o-w")
    if len(data) > _FILE_BYTES_MAX:
        raise wrong(f"is over {_FILE_BYTES_MAX} bytes")
    try:
        text = data.removeprefix(codecs.BOM_UTF8).decode()
    except UnicodeDecodeError:
        raise wrong("is not UTF-8") from None
    users: dict[bytes, User] = {}
    line_of_name: dict[str, int] = {}
    line_of_digest: dict[bytes, int] = {}
    for number, line in enumerate(text.replace("\r\n", "\n").split("\n"), 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if len(words) != 3:
            raise wrong(
                f"line {number}: must be NAME ROLE HASH, as cacheflow token NAME ROLE prints; it has {len(words)} words"
            )
        name, role, hashed = words
        if _NAME.fullmatch(name) is None or name == DEFAULT_NAME:
            raise wrong(f"line {number}: the first word is the name; it {_NAME_RULE}")
        if role not in ROLES:
            raise wrong(f"line {number}: the second word is the role; it must be {', '.join(ROLES)}")
        if _HASH.fullmatch(hashed) is None:
            raise wrong(
                f"line {number}: the third word must be the SHA-256 of the token in 64 hexadecimal digits, "
                "never the token itself: cacheflow token NAME ROLE prints such a line"
            )
        digest = bytes.fromhex(hashed)
        if name in line_of_name:
            raise wrong(f"line {number}: has the name of line {line_of_name[name]}; each user has one line")
        if digest in line_of_digest:
            raise wrong(
                f"line {number}: has the hash of line {line_of_digest[digest]}; each user needs a token of its own"
            )
        line_of_name[name] = line_of_digest[digest] = number
        users[digest] = User(name, ROLES[role], digest)
    if not users:
        raise wrong("names no user; cacheflow token NAME ROLE prints a line for it")
    return users
