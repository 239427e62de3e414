"""A journal of 64 KiB with a file cut short or a bit flipped: whole, a clean prefix, or refused by name. Never silence.

The usual run takes 500 places of each kind; ``CACHEFLOW_EVERY_BYTE=1`` takes every byte, and every bit of it, in 16 parts.
A clean prefix may lack only what nothing vouches for yet: the last batch, which a power failure could have torn as well.
"""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
from fakes.disk import FakeDisk
from fakes.journals import DIRECTORY, State, fill, open_journal, segments, state_of

from cacheflow.raft.log.journal import CorruptJournal
from cacheflow.raft.log.records import RECORD_BYTES

JOURNAL_BYTES = 64 * 1024
SEGMENT_BYTES = JOURNAL_BYTES // 4
EVERY_BYTE = os.environ.get("CACHEFLOW_EVERY_BYTE", "0") not in ("", "0")
PARTS = 16 if EVERY_BYTE else 1
PLACES = 500


def cut(data: bytearray, offset: int, bit: int) -> None:
    """The file ends there."""
    del data[offset:]


def flipped(data: bytearray, offset: int, bit: int) -> None:
    """One bit."""
    data[offset] ^= 1 << bit


class Written:
    """Segments with every kind of record, as a killed process leaves them; and what damage to them leads to."""

    def __init__(self) -> None:
        self.disk = FakeDisk()
        random = Random(1)
        turns = deque[Callable[[], None]]()
        journal = open_journal(self.disk, segment_bytes=SEGMENT_BYTES, defer=turns.append)

        def command(_: int) -> bytes:
            return random.randbytes(random.choice((5, 80, 400)))

        def end_turn() -> None:
            while turns:
                turns.popleft()()

        last = term = 1
        while self._bytes() < JOURNAL_BYTES:
            last += 1
            fill(journal, last, term, command)
            if last % 40 == 0:
                term += 1
                journal.setCurrentTerm(term, random.choice((None, "n1", "n2")))
                journal.note_clock(last, last)
            if last % 55 == 0:
                journal.deleteEntriesFrom(len(journal) - 2)
                fill(journal, last, term, command)
            end_turn()
        journal.trim(20)
        end_turn()
        journal.onOneSecondTimer()
        fill(journal, last + 5, term, command)
        end_turn()
        # The batch before was flushed and is vouched for by this one, which is flushed and not vouched for.
        self.vouched = len(journal)
        fill(journal, last + 15, term, command)
        end_turn()
        self.whole = state_of(journal)
        self.disk.stop()
        self.places = [
            (DIRECTORY / name, offset)
            for name in segments(self.disk)
            for offset in range(self.disk.size(DIRECTORY / name))
        ]

    def _bytes(self) -> int:
        return sum(self.used(name) for name in segments(self.disk))

    def used(self, name: str) -> int:
        """Where the free tail of a segment begins."""
        return len(bytes(self.disk.contents(DIRECTORY / name)).rstrip(b"\0"))

    def after(self, damage: Callable[[bytearray, int, int], None], path: Path, offset: int, bit: int) -> str:
        """whole, prefix or refused; anything else is what must not be."""
        damaged = self.disk.copy()
        damage(damaged.contents(path), offset, bit)
        try:
            loaded = state_of(open_journal(damaged))
        except CorruptJournal as error:
            named = str(path) in str(error) or "segment" in str(error)
            return "refused" if named else f"refused without a name: {error}"
        return self._judge(loaded, offset >= self.used(path.name) - RECORD_BYTES)

    def _judge(self, loaded: State, at_the_end: bool) -> str:
        """at_the_end: in the last record of a segment, which may be only a seal, or behind it."""
        if loaded == self.whole and at_the_end:
            return "whole"
        entries, term, vote = loaded
        count = len(entries)
        if (term, vote) == self.whole[1:] and count >= self.vouched and entries == self.whole[0][:count]:
            return "prefix"
        return f"silent: {count} entries, the last {entries[-1][1:]}, term {term}, vote {vote}"


@pytest.fixture(scope="module")
def written() -> Written:
    return Written()


def test_the_journal_is_64_kib_in_several_segments(written: Written) -> None:
    assert len(segments(written.disk)) >= 4
    assert JOURNAL_BYTES <= len(written.places) <= JOURNAL_BYTES + 2 * SEGMENT_BYTES
    assert len(written.whole[0]) - written.vouched == 10


@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("damage", [cut, flipped], ids=lambda damage: damage.__name__)
def test_no_damage_is_silent(written: Written, damage: Callable[[bytearray, int, int], None], part: int) -> None:
    places = written.places[part::PARTS] if EVERY_BYTE else Random(2).sample(written.places, PLACES)
    found = Counter[str]()
    for path, offset in places:
        for bit in range(8) if damage is flipped and EVERY_BYTE else (offset % 8,):
            verdict = written.after(damage, path, offset, bit)
            found[verdict] += 1
            assert verdict in ("whole", "prefix", "refused"), f"{damage.__name__} {path.name} byte {offset} bit {bit}"
    print(f"{damage.__name__} {part + 1}/{PARTS}: {dict(found)}")
    assert found["refused"] > len(places) // 4
    assert found.total() == len(places) * (8 if damage is flipped and EVERY_BYTE else 1)
