"""Backup files: all living items of a cluster at one index of its log, as bytes and back; docs/backup.md is the format.

1. Whatever comes from a file is hostile until ``checked`` has read all of it: nothing is changed before.
2. A file says what it is of: index, term, cluster, group, time and revision. It has no sessions, members or settings, so any
   cluster takes it.
3. Items stand in the order of eviction, the next victim first, so a smaller cache keeps the most useful ones.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, BinaryIO, Final

import msgpack

from cacheflow import values
from cacheflow.errors import BadBackup, CacheFlowError, InvalidRequest, NewerCacheFlow, ValueTooLarge
from cacheflow.files.frames import BrokenFrames, framed, unframed
from cacheflow.machine.language.commands import INT64_MAX
from cacheflow.machine.language.databases import PREFIXES, database_of
from cacheflow.machine.language.restored import problem_of
from cacheflow.machine.state.entries import entry_bytes

MAGIC: Final = b"CFBACKUP"
FORMAT: Final = 1
# Bytes of a frame: so few that a reader needs no memory to speak of, so many that the checks cost little.
FRAME_BYTES: Final = 256 * 1024
# The most bytes of one item: the largest value that any cluster may take (config.py), its key, and room for the rest.
ITEM_BYTES_MAX: Final = 64 * 1024 * 1024 + 64 * 1024
# Revisions that a file may have: so far below the end of all numbers that a restore's own raises fit.
REVISION_MAX: Final = 2**60
# memcached's flags, the only numbers that stand beside a value.
_FLAGS_MAX: Final = 2**32 - 1
_HEADER_BYTES_MAX: Final = 4096

# [key, data, kind, meta, expires_at_ms], as in machine/language/restored.py.
Item = Sequence[Any]


@dataclass(frozen=True, slots=True)
class BackupMeta:
    """The description of a backup, at the head of its file.

    index, term: of the last log entry in the backup.  cluster_id: the cluster that was backed up.  now_ms: that cluster's time
    then, to which the items' expiry times refer.  revision: no key's version was higher.
    items: how many items, the cache's keys with their values, the backup holds.  group: the number of the Raft group.
    """

    index: int
    term: int
    cluster_id: str
    now_ms: int
    revision: int
    items: int
    group: int = 0


def written(meta: BackupMeta, items: Iterable[Item]) -> Iterator[bytes]:
    """Yield the bytes of a backup file that holds ``items``, the cache's keys with their values.

    meta: the backup's description, which the file begins with.
    """
    yield MAGIC
    yield from framed(msgpack.packb({"format": FORMAT, **asdict(meta)}), _pieces(items))


def _pieces(items: Iterable[Item]) -> Iterator[bytes]:
    """Yield the bytes of ``items``, a backup's keys with their values, packed one behind the other.

    They come in pieces of equal length, of which the last may be shorter.
    """
    pack = msgpack.Packer().pack
    waiting = bytearray()
    for item in items:
        waiting += pack(item)
        while len(waiting) >= FRAME_BYTES:
            yield bytes(waiting[:FRAME_BYTES])
            del waiting[:FRAME_BYTES]
    yield bytes(waiting)


def opened(file: BinaryIO) -> tuple[BackupMeta, Iterator[Item]]:
    """Return the description of the backup in ``file``, and an iterator over its items (keys with values), each checked.

    Raises BadBackup, NewerCacheFlow; the iterator raises BadBackup where the file is damaged. Only an iterator that has
    come to its end without an error shows that the whole file is sound.
    """
    meta, frames = _begun(file)
    return meta, _items(meta, frames)


def verified(file: BinaryIO) -> BackupMeta:
    """Return the description of the backup in ``file`` after comparing all checksums in the file.

    The backup's items (keys with values) are not checked. Raises BadBackup, NewerCacheFlow.
    """
    meta, frames = _begun(file)
    for _ in frames:
        pass
    return meta


def _begun(file: BinaryIO) -> tuple[BackupMeta, Iterator[bytes]]:
    """Return the description of the backup in ``file``, and an iterator over the pieces of bytes that hold keys and values."""
    size = file.seek(0, io.SEEK_END)

    def read(offset: int, length: int) -> bytes:
        file.seek(offset)
        return file.read(length)

    if read(0, len(MAGIC)) != MAGIC:
        raise BadBackup("this is no backup of CacheFlow")
    frames = _frames(read, size)
    return _meta_of(next(frames)), frames


def _frames(read: Callable[[int, int], bytes], size: int) -> Iterator[bytes]:
    try:
        yield from unframed(read, len(MAGIC), size, FRAME_BYTES)
    except BrokenFrames as error:
        raise BadBackup(f"the backup is damaged: {error}") from None


def _meta_of(header: bytes) -> BackupMeta:
    try:
        if len(header) > _HEADER_BYTES_MAX:
            raise ValueError
        fields = msgpack.unpackb(header)
        number = fields.pop("format")
        if type(number) is not int or number < FORMAT:
            raise ValueError
        if number > FORMAT:
            raise NewerCacheFlow.wrote("the backup", number, FORMAT, number="format")
        meta = BackupMeta(**fields)
        numbers = (meta.index, meta.term, meta.now_ms, meta.revision, meta.items, meta.group)
        if type(meta.cluster_id) is not str or any(type(n) is not int or not 0 <= n <= INT64_MAX for n in numbers):
            raise ValueError
        if meta.revision > REVISION_MAX or len(meta.cluster_id) > 256:
            raise ValueError
    except CacheFlowError:
        raise
    except Exception:  # msgpack raises a dozen kinds
        raise BadBackup("the backup is damaged: its header is none") from None
    if meta.group:
        raise BadBackup(f"the backup is of group {meta.group}, and this cluster has group 0 alone")
    return meta


def _items(meta: BackupMeta, frames: Iterator[bytes]) -> Iterator[Item]:
    unpacker = msgpack.Unpacker(
        max_buffer_size=ITEM_BYTES_MAX + FRAME_BYTES, max_array_len=5, max_map_len=0, max_ext_len=0
    )
    count = 0
    try:
        for frame in frames:
            unpacker.feed(frame)
            for item in unpacker:
                count += 1
                if problem := problem_of(item) or _problem_to_clients(item):
                    raise BadBackup(f"the backup is refused: item {count}: {problem}")
                yield item
        # Behind a part of an item this is no item of its own.
        unpacker.feed(b"\xc0")
        if count != meta.items or list(unpacker) != [None]:
            raise BadBackup(f"the backup is damaged: it has {count} items, and says {meta.items}")
    except (CacheFlowError, OSError, MemoryError):
        raise
    except Exception as error:  # msgpack raises a dozen kinds
        raise BadBackup(f"the backup is damaged behind item {count}: {type(error).__name__}") from None


def _problem_to_clients(item: Item) -> str:
    """Return why no client can have written ``item``, a key with its value in a backup; "" if nothing is wrong."""
    key, data, kind, meta, _ = item
    try:
        values.check_key(key[len(PREFIXES[database_of(key)]) :])
        if kind == values.TEXT:
            data.decode()
        elif kind == values.JSON:
            values.check_containers(values.decode(kind, data))
    except InvalidRequest as error:
        return str(error)
    except (ValueError, RecursionError):
        return "its value is not what its kind says"
    if type(meta) is int and not 0 <= meta <= _FLAGS_MAX:
        return "its flags are none"
    return ""


def checked(file: BinaryIO, *, value_bytes_max: int, bytes_max: int | None) -> BackupMeta:
    """Read the whole backup in ``file``; return its description if a cluster with the given limits can take all its items.

    value_bytes_max: the most bytes of one value.  bytes_max: the most bytes of the whole cache, None for any.
    Raises BadBackup, ValueTooLarge, NewerCacheFlow.
    """
    meta, items = opened(file)
    for key, data, kind, content_type, _ in items:
        # (A hash or set has a limit of its own.)
        if kind <= values.VALUE_MAX and len(data) > value_bytes_max:
            raise ValueTooLarge(
                f"the backup holds a value of {len(data)} bytes, under {key[:100]!r}; this cluster takes "
                f"{value_bytes_max}: raise that first (cacheflow settings set max_value_bytes {len(data)})"
            )
        if bytes_max is not None and entry_bytes(key, data, content_type) > bytes_max:
            raise ValueTooLarge(
                f"the backup holds an item, {key[:100]!r}, larger than this whole cache may be ({bytes_max} bytes)"
            )
    return meta
