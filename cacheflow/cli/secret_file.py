"""A cluster's secret in a file, made at random at its first use and kept from then on."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path
from typing import Final

from cacheflow.config import read_secret
from cacheflow.errors import ConfigError

# Random bytes in a secret: as many as the key of the handshake's HMAC-SHA256 can use.
SECRET_BYTES: Final = 32


def make_secret(path: Path) -> None:
    """Create a file with a random secret at ``path`` for this user only; keep one that is there already. Raises ConfigError."""
    try:
        if not os.path.lexists(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            _write_new(path)
    except OSError as error:
        raise ConfigError(
            f"a secret cannot be made in {path}: {error.strerror}; give another --data-dir, or --cluster-secret-file"
        ) from None
    read_secret(path, "--cluster-secret-file")


def _write_new(path: Path) -> None:
    """Write a new secret to ``path``, as a whole or not at all; keep a file that another process has made meanwhile."""
    unfinished = path.with_name(f"{path.name}.{secrets.token_hex(8)}.new")
    handle = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.write(handle, f"{secrets.token_hex(SECRET_BYTES)}\n".encode())
        os.fsync(handle)
        with contextlib.suppress(FileExistsError):
            os.link(unfinished, path)
    finally:
        os.close(handle)
        unfinished.unlink()
