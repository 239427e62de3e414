"""``hashkey``: str keys for ``cachetools.cached(cache, key=cacheflow.hashkey)``."""

from __future__ import annotations

from collections.abc import Hashable
from hashlib import blake2b


def hashkey(*args: Hashable, **kwargs: Hashable) -> str:
    """A str key for a call's arguments, equal in every process; by their repr, so they need a stable one.

    Two calls get one key when types, values and names are the same.
    """
    text = repr((args, sorted(kwargs.items())))
    return f"call:{blake2b(text.encode('utf-8', 'surrogatepass'), digest_size=16).hexdigest()}"
