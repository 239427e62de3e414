"""The backup format: what goes in comes out, and nothing that is damaged, cut or hostile is taken."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgpack
import pytest

from cacheflow.errors import BadBackup, CacheFlowError, NewerCacheFlow, ValueTooLarge
from cacheflow.files import backup
from cacheflow.files.backup import BackupMeta, Item, checked, opened, verified, written
from cacheflow.files.frames import framed
from cacheflow.machine.language.fields import with_fields

META = BackupMeta(index=12, term=3, cluster_id="c1", now_ms=1000, revision=77, items=0)
HASH = with_fields(b"", [b"f", b"1"])[0]
ITEMS: list[Item] = [
    ["text", b"hello", 0, None, 0],
    ["bytes", b"\xff\x00", 1, "image/png", 5000],
    ["json", b'{"a":[1]}', 2, None, 0],
    ["flags", b"1", 0, 2**32 - 1, 0],
    ["\x013in database 3", b"", 0, None, 0],
    ["hash", HASH, 3, None, 0],
    ["k" * 1024, b"x", 1, None, 10**14],
]


def backup_of(items: Iterable[Any], /, **fields: Any) -> bytes:
    items = list(items)
    meta = BackupMeta(**{**{name: getattr(META, name) for name in META.__slots__}, "items": len(items), **fields})
    return b"".join(written(meta, items))


def check(data: bytes, value_bytes_max: int = 1 << 20, bytes_max: int | None = None) -> BackupMeta:
    return checked(io.BytesIO(data), value_bytes_max=value_bytes_max, bytes_max=bytes_max)


def test_what_is_written_is_read() -> None:
    data = backup_of(ITEMS)
    meta, items = opened(io.BytesIO(data))
    assert list(items) == ITEMS
    assert meta == check(data) == verified(io.BytesIO(data))
    assert (meta.index, meta.term, meta.cluster_id, meta.revision, meta.items, meta.group) == (12, 3, "c1", 77, 7, 0)


def test_an_empty_cache_is_a_backup() -> None:
    assert check(backup_of([])).items == 0


def test_items_larger_than_a_frame_come_whole() -> None:
    large = [[f"k{number}", bytes([number]) * 700_000, 1, None, 0] for number in range(3)]
    assert list(opened(io.BytesIO(backup_of(large)))[1]) == large


def test_every_byte_flipped_and_every_length_cut_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backup, "FRAME_BYTES", 4096)
    data = backup_of([f"key{number}", os.urandom(60), 1, None, 0] for number in range(900))
    assert 64 * 1024 <= len(data) < 70 * 1024
    check(data)
    # All of them in scripts/soak backups.
    step = 1 if os.environ.get("CACHEFLOW_EVERY_BYTE") else 97
    places = sorted({*range(0, len(data), step), *range(300), *range(len(data) - 60, len(data))})
    for at in places:
        damaged = bytearray(data)
        damaged[at] ^= 1 << at % 8
        for broken in (bytes(damaged), data[:at]):
            with pytest.raises((BadBackup, NewerCacheFlow)):
                check(broken)
            with pytest.raises((BadBackup, NewerCacheFlow)):
                verified(io.BytesIO(broken))


@pytest.mark.parametrize("extra", [b"\x00", b"\x00" * 12, b"x" * 5000])
def test_nothing_may_stand_behind_the_end(extra: bytes) -> None:
    with pytest.raises(BadBackup, match="the end of the file"):
        check(backup_of(ITEMS) + extra)


@pytest.mark.parametrize(
    "item",
    [
        ["", b"", 0, None, 0],
        ["k" * 1025, b"", 0, None, 0],
        ["ü" * 513, b"", 0, None, 0],
        ["a\x00b", b"", 0, None, 0],
        ["\x01", b"", 0, None, 0],
        ["\x01z", b"", 0, None, 0],
        ["\x011", b"", 0, None, 0],
        [b"bytes", b"", 0, None, 0],
        ["k", "text", 0, None, 0],
        ["k", b"\xff", 0, None, 0],
        ["k", b"{", 2, None, 0],
        ["k", b"[" * 100 + b"]" * 100, 2, None, 0],
        ["k", b"[" * 100_000, 2, None, 0],
        ["k", b"no hash", 3, None, 0],
        ["k", HASH, 4, None, 0],
        ["k", b"", 5, None, 0],
        ["k", b"", -1, None, 0],
        ["k", b"", True, None, 0],
        ["k", b"", 0, -1, 0],
        ["k", b"", 0, 2**32, 0],
        ["k", b"", 0, "m" * 1025, 0],
        ["k", b"", 0, [1], 0],
        ["k", b"", 0, None, -1],
        ["k", b"", 0, None, 2**62],
        ["k", b"", 0, None, 1.5],
        ["k", b"", 0, None],
        ["k", b"", 0, None, 0, 0],
        None,
        5,
        {"k": 1},
        msgpack.Timestamp(7, 8),
    ],
)
def test_what_no_client_could_have_written_is_refused(item: Any) -> None:
    with pytest.raises(BadBackup):
        check(backup_of([["good", b"", 0, None, 0], item]))


@pytest.mark.parametrize(
    "fields",
    [
        {"items": 6}, {"items": 8}, {"items": -1}, {"revision": 2**60 + 1}, {"revision": -1}, {"index": 1.5}, {"term": None},
        {"cluster_id": 7}, {"cluster_id": "c" * 257}, {"group": 1}, {"now_ms": True},
    ],
)  # fmt: skip
def test_a_description_that_is_wrong_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(BadBackup):
        check(backup_of(ITEMS, **fields))


@pytest.mark.parametrize(
    "header", [b"", b"\xc1", b"\xc0", msgpack.packb({}), msgpack.packb({"format": 1}), b"x" * 5000]
)
def test_a_header_that_is_none_is_refused(header: bytes) -> None:
    with pytest.raises(BadBackup):
        check(backup.MAGIC + b"".join(framed(header or b"\xc0", [])))


def test_a_part_of_an_item_at_the_end_is_refused() -> None:
    header = next(iter(opened_frames(backup_of(ITEMS))))
    pieces = [b"".join(map(msgpack.packb, ITEMS)) + b"\x95\x01"]
    with pytest.raises(BadBackup, match="says 7"):
        check(backup.MAGIC + b"".join(framed(header, pieces)))


def opened_frames(data: bytes) -> Iterable[bytes]:
    return backup._frames(lambda offset, length: data[offset : offset + length], len(data))


def test_a_frame_over_the_bound_is_not_read() -> None:
    header = next(iter(opened_frames(backup_of([]))))
    with pytest.raises(BadBackup, match="frame 1"):
        check(backup.MAGIC + b"".join(framed(header, [b"x" * (backup.FRAME_BYTES + 1)])))


def test_a_later_format_is_told_from_damage() -> None:
    header = msgpack.unpackb(next(iter(opened_frames(backup_of([])))))
    later = msgpack.packb({**header, "format": 2, "something": "new"})
    with pytest.raises(NewerCacheFlow, match="format 2"):
        check(backup.MAGIC + b"".join(framed(later, [])))


def test_what_this_cluster_cannot_take_is_refused_by_name() -> None:
    data = backup_of([["small", b"x", 1, None, 0], ["large", b"x" * 2000, 1, None, 0]])
    with pytest.raises(ValueTooLarge, match=r"'large'.*settings set max_value_bytes 2000"):
        check(data, value_bytes_max=1999)
    with pytest.raises(ValueTooLarge, match=r"'large'.*whole cache"):
        check(data, bytes_max=1024)
    check(data, value_bytes_max=2000, bytes_max=4096)


def test_other_files_are_no_backups(tmp_path: Path) -> None:
    for data in (b"", b"CFBACKU", b"CFSNAP" + b"x" * 100, os.urandom(4096)):
        with pytest.raises(CacheFlowError, match=r"no backup|damaged"):
            check(data)
