"""The real disk, and the thread that works for the loop."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from fakes.journals import fill

from cacheflow.raft.log import disk as disk_module
from cacheflow.raft.log.disk import Disk, ThreadWriter
from cacheflow.raft.log.journal import Journal
from cacheflow.raft.turn import Turn


def test_what_is_written_is_read(tmp_path: Path) -> None:
    disk = Disk()
    path = tmp_path / "file"
    handle = disk.open(path, create=True)
    disk.preallocate(handle, 10_000)
    disk.preallocate(handle, 100)
    assert disk.size(path) == 10_000
    disk.write(handle, 100, b"hello")
    disk.sync(handle)
    assert disk.read(path, 99, 7) == b"\0hello\0"
    assert disk.read(path, 9_998, 100) == b"\0\0"
    assert disk.read(path, 20_000) == b""
    assert len(disk.read(path)) == 10_000
    disk.truncate(handle, 105)
    assert disk.read(path, 100) == b"hello"
    disk.close(handle)
    again = disk.open(path)
    disk.write(again, 0, b"x")
    disk.close(again)
    disk.rename(path, tmp_path / "other")
    disk.sync_directory(tmp_path)
    assert disk.list(tmp_path) == ["other"]
    assert disk.read(tmp_path / "other", 0, 1) == b"x"
    assert disk.free_bytes(tmp_path) > 0
    disk.remove(tmp_path / "other")
    assert disk.list(tmp_path) == []


@pytest.mark.parametrize("code", [errno.EOPNOTSUPP, errno.EINVAL])
def test_space_is_written_where_it_cannot_be_reserved(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: int) -> None:
        raise OSError(code, "not here")

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    disk = Disk()
    handle = disk.open(tmp_path / "file", create=True)
    disk.write(handle, 0, b"abc")
    disk.preallocate(handle, 3_000_000)
    disk.close(handle)
    assert disk.read(tmp_path / "file") == b"abc".ljust(3_000_000, b"\0")


def test_a_full_disk_is_not_taken_for_a_missing_feature(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "posix_fallocate", full)
    disk = Disk()
    handle = disk.open(tmp_path / "file", create=True)
    with pytest.raises(OSError, match="full"):
        disk.preallocate(handle, 1000)
    disk.close(handle)


@pytest.mark.parametrize("code", [errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS])
def test_a_kernel_that_refuses_durable_writes_gets_two_calls_and_is_asked_once(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    asked, flushed = [], []

    def refuse(*_: object) -> None:
        asked.append(1)
        raise OSError(code, "not here")

    monkeypatch.setattr(os, "pwritev", refuse)
    monkeypatch.setattr(Disk, "sync", lambda self, handle: flushed.append(handle))
    monkeypatch.setattr(disk_module, "_RWF_DSYNC", 2)
    disk = Disk()
    handle = disk.open(tmp_path / "file", create=True)
    for number in range(3):
        disk.write_durably(handle, number, b"%d" % number)
    disk.close(handle)
    assert disk.read(tmp_path / "file") == b"012"
    assert (len(asked), flushed) == (1, [handle] * 3)
    assert caplog.text.count("does not know durable writes") == 1


def test_a_durable_write_that_fails_is_no_missing_feature(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(os, "pwritev", fail)
    monkeypatch.setattr(disk_module, "_RWF_DSYNC", 2)
    disk = Disk()
    handle = disk.open(tmp_path / "file", create=True)
    with pytest.raises(OSError, match="broken"):
        disk.write_durably(handle, 0, b"x")
    disk.close(handle)


def test_a_short_write_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda handle, data, offset: write(handle, bytes(data[:3]), offset))
    disk = Disk()
    handle = disk.open(tmp_path / "file", create=True)
    disk.write(handle, 2, b"0123456789")
    disk.close(handle)
    assert disk.read(tmp_path / "file") == b"\0\x000123456789"


def test_work_that_ends_behind_the_loop_s_end_is_told_although_there_is_no_loop_any_more() -> None:
    loop = asyncio.new_event_loop()
    writer = ThreadWriter(loop)
    goes_on = threading.Event()
    told: list[object] = []

    def again(outcome: object) -> None:
        told.append(outcome)
        loop.call_later(1, again, None)

    writer.submit(goes_on.wait, again)
    writer.submit(lambda: "next", told.append)
    loop.close()
    goes_on.set()
    writer.close()
    writer.submit(lambda: "late", again)
    assert told == [True, "next", "late"]

    def fail(_: object) -> None:
        raise ValueError("of its own")

    with pytest.raises(ValueError, match="of its own"):
        writer.submit(lambda: None, fail)


def test_work_runs_in_order_on_one_thread_and_is_settled_on_the_loop() -> None:
    async def run() -> None:
        writer = ThreadWriter(asyncio.get_running_loop())
        threads: list[int] = []
        settled: list[tuple[object, int]] = []
        complete = asyncio.Event()

        def work(number: int) -> Callable[[], int]:
            def call() -> int:
                threads.append(threading.get_ident())
                if number == 3:
                    raise OSError("three")
                return number

            return call

        def done(outcome: object) -> None:
            settled.append((outcome, threading.get_ident()))
            if len(settled) == 5:
                complete.set()

        for number in range(5):
            writer.submit(work(number), done)
        await asyncio.wait_for(complete.wait(), 5)
        assert [str(outcome) for outcome, _ in settled] == ["0", "1", "2", "three", "4"]
        assert isinstance(settled[3][0], OSError)
        assert {thread for _, thread in settled} == {threading.get_ident()}
        assert len(set(threads)) == 1
        assert threads[0] != threading.get_ident()
        writer.close()
        writer.close()

    asyncio.run(run())


def test_what_ends_while_the_work_before_is_settled_has_a_turn_of_its_own() -> None:
    async def run() -> None:
        loop = asyncio.get_running_loop()
        writer = ThreadWriter(loop)
        told: list[str] = []
        complete = asyncio.Event()

        def first(outcome: object) -> None:
            loop.call_soon(told.append, "somebody else")
            ended = threading.Event()
            writer.submit(lambda: None, second)
            writer.submit(ended.set, lambda outcome: None)
            assert ended.wait(5)

        def second(outcome: object) -> None:
            told.append("second")
            complete.set()

        writer.submit(lambda: None, first)
        await asyncio.wait_for(complete.wait(), 5)
        assert told == ["somebody else", "second"]
        writer.close()

    asyncio.run(run())


@pytest.mark.parametrize("loop_closed", [False, True])
def test_closing_the_writer_drains_the_journal(loop_closed: bool, tmp_path: Path) -> None:
    loop = asyncio.new_event_loop()
    writer = ThreadWriter(loop)

    async def append() -> Journal:
        journal = Journal.open(
            Disk(), tmp_path, submit=writer.submit, defer=Turn(asyncio.get_running_loop().call_soon).defer_send
        )
        fill(journal, 100)
        await asyncio.sleep(0)
        fill(journal, 200)
        return journal

    journal = loop.run_until_complete(append())
    if loop_closed:
        loop.close()
    journal.close()
    writer.close()
    loop.close()
    assert journal.durable_position == journal.position
    again = Journal.open(Disk(), tmp_path, submit=writer.submit)
    assert again.last_index == 200
    again.close()


def test_a_turn_of_the_loop_is_one_flush(tmp_path: Path) -> None:
    class Counting(Disk):
        syncs = 0

        def write_durably(self, handle: int, offset: int, data: bytes) -> None:
            self.syncs += 1
            super().write_durably(handle, offset, data)

    async def run() -> None:
        disk = Counting()
        writer = ThreadWriter(asyncio.get_running_loop())
        durable = asyncio.Event()
        journal = Journal.open(
            disk,
            tmp_path,
            submit=writer.submit,
            defer=Turn(asyncio.get_running_loop().call_soon).defer_send,
            on_durable=durable.set,
        )
        before = disk.syncs
        fill(journal, 500)
        await asyncio.wait_for(durable.wait(), 5)
        assert journal.durable_position == 500
        assert disk.syncs == before + 1
        journal.close()
        writer.close()

    asyncio.run(run())
