"""The snapshot helper as a process of its own: what it builds, and what becomes of one that cannot work."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import signal
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from fakes.disk import inline
from fakes.journals import fill

from cacheflow.errors import BadBackup, ValueTooLarge
from cacheflow.files.backup import opened
from cacheflow.machine.language import commands
from cacheflow.machine.machine import CacheMachine
from cacheflow.node.supervisor import Supervisor
from cacheflow.raft.log.disk import Disk
from cacheflow.raft.log.journal import Journal
from cacheflow.raft.snapshots import helper_process
from cacheflow.raft.snapshots.files import SnapshotMeta
from cacheflow.raft.snapshots.helper import BUILD, STARVED
from cacheflow.raft.snapshots.helper_process import HelperProcess, find_interpreter
from cacheflow.raft.snapshots.storage import load_machine

LAST = 40


def cache_entry(index: int) -> bytes:
    block = commands.encode_block(0, 0, 0, [commands.set_(f"key{index % 50}", b"v%d" % index, 1, None, index * 10)])
    return b"\x00" + commands.encode_entry(1_000 + index, [block])


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data directory whose journal holds some entries."""
    path = tmp_path / "data"
    path.mkdir()
    journal = Journal.open(Disk(), path, submit=inline, segment_bytes=1 << 16, fsync="never")
    fill(journal, LAST, command=cache_entry)
    journal.close()
    return path


def machine_at(index: int) -> CacheMachine:
    machine = CacheMachine()
    for number in range(2, index + 1):
        machine.apply(number, cache_entry(number)[1:])
    return machine


def built(directory: Path, index: int = LAST) -> SnapshotMeta | BaseException:
    """Run the helper, and return what the node is told."""

    async def main() -> SnapshotMeta | BaseException:
        told: asyncio.Future[SnapshotMeta | BaseException] = asyncio.get_running_loop().create_future()
        HelperProcess(directory, Supervisor(asyncio.get_running_loop()))(index, told.set_result)
        return await asyncio.wait_for(told, 30.0)

    return asyncio.run(main())


def complaint(directory: Path, index: int = LAST) -> str:
    outcome = built(directory, index)
    assert isinstance(outcome, Exception)
    return str(outcome)


def interpreter(folder: Path, script: str) -> str:
    """Make a program that looks like Python by its name."""
    path = folder / "python3"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


def test_the_helper_builds_what_the_machine_would_say(data: Path) -> None:
    meta = built(data, 35)
    machine = machine_at(35)
    assert isinstance(meta, SnapshotMeta)
    assert (meta.index, meta.term, meta.digest) == (35, 1, machine.digest)
    assert (data / f"snapshot-{35:020}.cfs").stat().st_size == meta.bytes
    _, loaded = load_machine(Disk(), data)
    assert loaded.contents_digest() == machine.contents_digest()


def test_a_helper_that_fails_says_why_in_one_line(data: Path) -> None:
    assert complaint(data, 900).startswith("no snapshot up to 900: CorruptJournal: ")


def test_neither_the_working_directory_nor_pythonpath_says_what_is_imported(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("json.py", "cacheflow.py", "argparse.py", "msgpack.py"):
        (tmp_path / name).write_text("raise ImportError('a file of the user')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    # A program that is run by ``python -c`` has the working directory in its path, in front.
    monkeypatch.setattr(sys, "path", ["", *sys.path, tmp_path])
    assert isinstance(built(data), SnapshotMeta)


@pytest.mark.parametrize("executable", ["", "/bin/true", "/nowhere/python3"])
def test_where_sys_executable_is_no_python_the_one_that_belongs_to_it_is_found(
    data: Path, monkeypatch: pytest.MonkeyPatch, executable: str
) -> None:
    monkeypatch.setattr(sys, "executable", executable)
    assert isinstance(built(data), SnapshotMeta)


def test_an_interpreter_without_our_packages_finds_them_where_the_node_does(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", sys._base_executable)  # type: ignore[attr-defined]
    assert isinstance(built(data), SnapshotMeta)


def test_where_there_is_no_python_the_node_is_told_where_it_was_looked_for(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("prefix", "base_prefix"):
        monkeypatch.setattr(sys, name, f"/nowhere/{name}")
    monkeypatch.setattr(sys, "executable", "/usr/bin/uwsgi")
    monkeypatch.setattr(sys, "_base_executable", None)
    monkeypatch.setattr(sysconfig, "get_config_var", lambda name: "/nowhere/bin")
    assert "sys.executable is '/usr/bin/uwsgi'" in complaint(data)
    assert "/nowhere/prefix/bin" in complaint(data)


@pytest.mark.parametrize(
    "error", [OSError(errno.EMFILE, "Too many open files"), MemoryError(), RuntimeError("can't start new thread")]
)
def test_a_helper_that_cannot_be_started_is_told_to_the_node(
    data: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    async def fail(*arguments: object, **streams: object) -> None:
        raise error

    monkeypatch.setattr(asyncio, "create_subprocess_exec", fail)
    assert built(data) is error


def test_a_helper_of_another_build_refuses_to_work(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(helper_process, "BUILD", "0" * 32)
    assert "restart it" in complaint(data)
    assert not list(data.glob("snapshot-*"))


def test_lines_before_the_report_do_no_harm(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = find_interpreter()
    monkeypatch.setattr(sys, "executable", interpreter(tmp_path, f'echo "a warning"\nexec {real} "$@"'))
    assert isinstance(built(data), SnapshotMeta)


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo nonsense", "nonsense"),
        ("echo '{}'", "{}"),
        ("echo '[1]'", "[1]"),
        ("true", "ended with 0"),
        ("exit 3", "ended with 3"),
        ("kill -9 $$", "ended with -9"),
        ('echo \'{"index": 7, "term": 1, "digest": "", "outlook": "", "bytes": 1}\'', "has built 7"),
    ],
)
def test_whatever_a_helper_says_the_node_is_told(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, said: str
) -> None:
    monkeypatch.setattr(sys, "executable", interpreter(tmp_path, script))
    assert said in complaint(data)


def test_a_helper_that_hangs_is_ended(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", interpreter(tmp_path, "exec sleep 60"))
    monkeypatch.setattr(helper_process, "BUILD_S_MAX", 0.2)
    assert "was ended" in complaint(data)


@pytest.mark.filterwarnings("ignore")
def test_an_application_that_lets_nobody_wait_for_children_gets_its_snapshots(data: Path) -> None:
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        assert isinstance(built(data), SnapshotMeta)
    finally:
        signal.signal(signal.SIGCHLD, before)


def test_a_node_that_stumbles_over_a_built_snapshot_is_not_told_twice(
    data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[object] = []

    def stumble(outcome: object) -> None:
        told.append(outcome)
        raise ValueError("stumbled")

    async def main() -> Supervisor:
        supervisor = Supervisor(asyncio.get_running_loop())
        HelperProcess(data, supervisor)(LAST, stumble)
        async with asyncio.timeout(30.0):
            while supervisor._tasks:
                await asyncio.sleep(0)
        return supervisor

    assert asyncio.run(main()).problems() == []
    assert len(told) == 1 and "could not be taken" in caplog.text


def test_the_helper_writes_and_checks_a_backup(data: Path, tmp_path: Path) -> None:
    machine = machine_at(35)
    alive = {key: (*entry[:3], entry[4]) for key, entry in machine.contents.raw.items() if machine.contents.find(key)}

    async def main() -> None:
        helper = HelperProcess(data, Supervisor(asyncio.get_running_loop()))
        with (tmp_path / "backup").open("w+b") as file:
            meta = await helper.backup(35, file.fileno())
            assert (meta.index, meta.term, meta.items, meta.revision) == (35, 1, len(alive), machine.contents.revision)
            assert {item[0]: tuple(item[1:]) for item in opened(file)[1]} == alive
            assert await helper.check_backup(file.fileno(), 100, None) == meta
            with pytest.raises(ValueTooLarge, match="takes 1: raise that first"):
                await helper.check_backup(file.fileno(), 1, None)
            with pytest.raises(ValueTooLarge, match="whole cache"):
                await helper.check_backup(file.fileno(), 100, 10)
            file.truncate(os.fstat(file.fileno()).st_size - 1)
            with pytest.raises(BadBackup, match="the end of the file"):
                await helper.check_backup(file.fileno(), 100, None)

    asyncio.run(main())


def test_a_helper_that_gets_no_time_is_begun_again_and_insists(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = find_interpreter()
    gives_up = f"head -c 100000 /dev/zero >&0; echo '{json.dumps(STARVED)}'; exit 1"
    monkeypatch.setattr(
        sys, "executable", interpreter(tmp_path, f'case "$*" in *--gentle*) {gives_up};; esac\nexec {real} "$@"')
    )
    assert isinstance(built(data), SnapshotMeta)

    async def main() -> None:
        helper = HelperProcess(data, Supervisor(asyncio.get_running_loop()))
        with (tmp_path / "backup").open("w+b") as file:
            meta = await helper.backup(LAST, file.fileno())
            assert len(list(opened(file)[1])) == meta.items > 0

    asyncio.run(main())


def test_a_helper_that_gives_up_says_so() -> None:
    script = "from cacheflow.raft.snapshots import helper; helper._give_up()"
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert json.loads(ran.stdout) == STARVED and ran.returncode == 1


@pytest.mark.skipif(not hasattr(os, "SCHED_IDLE"), reason="Linux alone has SCHED_IDLE")
@pytest.mark.parametrize("options", [(), ("--gentle",)])
def test_a_gentle_helper_alone_takes_only_the_time_that_nobody_else_wants(data: Path, options: tuple[str, ...]) -> None:
    arguments = [os.pathsep.join(sys.path), BUILD, str(data), str(LAST), *options, "--digest"]
    script = (
        "import os, runpy, sys, time\n"
        "from cacheflow.raft.snapshots import gentle, helper\n"
        "gentle.ORDINARY_S = 0.001\n"
        "def work(given, run=helper._run):\n"
        "    began = time.process_time()\n"
        "    while time.process_time() < began + 0.1: pass\n"
        "    print(os.sched_getscheduler(0), os.nice(0))\n"
        "    return run(given)\n"
        "helper._run = work\n"
        f"sys.argv = {['run_helper.py', *arguments]!r}\n"
        f"runpy.run_path({helper_process._RUN_HELPER!r}, run_name='__main__')\n"
    )
    nice = os.nice(0) + 10
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    policy = os.SCHED_IDLE if options else os.SCHED_OTHER
    assert ran.stdout.splitlines()[:-1] == [f"{policy} {min(nice, 19)}"], ran.stderr


def test_no_backup_of_an_entry_that_is_not_there(data: Path, tmp_path: Path) -> None:
    async def main() -> None:
        with (tmp_path / "backup").open("w+b") as file, pytest.raises(RuntimeError):
            await HelperProcess(data, Supervisor(asyncio.get_running_loop())).backup(LAST + 5, file.fileno())

    asyncio.run(main())
