"""The image of a node: its Dockerfile is sound, and its steps, run in bare roots, make a node that works as it is to run."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest
from documented.running import CannotRun, own_network
from packages.bare_root import BareRoot
from packages.dockerfile import Stage

ROOT = Path(__file__).parents[2]
PACKAGING = ROOT / "scripts/packaging"
DOCKERFILE = PACKAGING / "Dockerfile"
HADOLINT = Path(sys.executable).with_name("hadolint")
READY_TIMEOUT_S = 60


def lint(dockerfile: Path) -> str:
    done = subprocess.run([HADOLINT, "--no-color", dockerfile], capture_output=True, text=True, timeout=60)
    return done.stdout


@pytest.mark.skipif(not HADOLINT.exists(), reason="hadolint is not installed")
def test_hadolint_finds_nothing_in_the_dockerfile(tmp_path: Path) -> None:
    assert lint(DOCKERFILE) == ""
    worse = tmp_path / "Dockerfile"
    worse.write_text("FROM python\nRUN cd /x && pip install flask\n")
    assert "DL3006" in lint(worse), "it would have found something"


def test_the_last_stage_is_not_roots_and_says_how_it_ends_and_how_it_is(stages: list[Stage]) -> None:
    last = stages[-1]
    user, _, group = last.last("USER").rest.partition(":")
    assert int(user) >= 1000 and int(group) >= 1000, "a number, which Kubernetes can tell from root's"
    assert last.last("STOPSIGNAL").rest == "SIGTERM"
    assert last.last("HEALTHCHECK").command[-1].endswith("healthcheck.py")
    assert last.last("VOLUME").rest == last.last("WORKDIR").rest
    # In the form of a list: with a shell between them no signal would come to the node.
    assert last.last("ENTRYPOINT").command == ["cacheflow"] and last.last("CMD").command == ["serve"]


def test_all_that_is_copied_is_in_the_context_and_nothing_else(stages: list[Stage]) -> None:
    ignored = [line for line in (PACKAGING / "Dockerfile.dockerignore").read_text().splitlines() if line[0] != "#"]
    allowed = [line[1:] for line in ignored if line.startswith("!")]
    copied = [
        name
        for stage in stages
        for each in stage.instructions
        if each.name == "COPY" and "from" not in each.options
        for name in each.words[:-1]
    ]
    assert ignored[0] == "*"
    assert all((ROOT / name).exists() for name in copied)
    assert all(any(name == each or name.startswith(f"{each}/") for each in allowed) for name in copied)
    assert all(any(fnmatch(name, f"{each}*") for name in copied) for each in allowed)


def test_nothing_in_the_image_installs_or_compiles(image: BareRoot) -> None:
    for module in ("pip", "setuptools", "ensurepip"):
        with pytest.raises(subprocess.CalledProcessError) as failed:
            image.run(["python", "-m", module])
        assert "No module named" in failed.value.stderr
    assert not (image.folder / "src").exists() and not (image.folder / "dist").exists()


def test_all_of_cacheflow_is_in_the_image(image: BareRoot) -> None:
    (installed,) = (image.folder / "opt/cacheflow/lib").glob("python3.*/site-packages/cacheflow")
    ours = {path.relative_to(ROOT / "cacheflow") for path in (ROOT / "cacheflow").rglob("*") if path.is_file()}
    theirs = {path.relative_to(installed) for path in installed.rglob("*") if path.is_file()}
    assert {path for path in ours if path.suffix != ".pyc"} == {path for path in theirs if path.suffix != ".pyc"}
    # Its user may not write there, so Python could not keep it.
    assert any(path.suffix == ".pyc" for path in theirs)
    assert image.run(["python", "-c", "import lupa.lua51, cacheflow; print(cacheflow.__file__)"]).startswith("/opt/")


@contextlib.contextmanager
def container(image: BareRoot, stage: Stage, network: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    """A node as a container of the image runs it: as its user, with a root in which only /data and /tmp can be written."""
    told = {"CACHEFLOW_BOOTSTRAP": "true", "CACHEFLOW_RESP_PORT": "6379"}
    command = [*stage.last("ENTRYPOINT").command, *stage.last("CMD").command]
    line = image.command(command, network=network, more=told, writable=["/data", "/tmp"])
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def test_a_container_serves_is_healthy_is_not_roots_and_ends_at_its_signal(
    image: BareRoot, stages: list[Stage]
) -> None:
    stage = stages[-1]
    try:
        networks = own_network()
        network = networks.__enter__()
    except CannotRun as reason:
        pytest.skip(str(reason))
    with contextlib.ExitStack() as stack:
        stack.push(networks)
        process = stack.enter_context(container(image, stage, network))
        check = image.command(stage.last("HEALTHCHECK").command, network=network)
        assert subprocess.run(check, capture_output=True).returncode == 1, "nobody has answered yet"
        deadline = time.monotonic() + READY_TIMEOUT_S
        while subprocess.run(check, capture_output=True).returncode:
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        assert image.run(["cacheflow", "set", "greeting", "hello"], network=network)
        assert image.run(["cacheflow", "get", "greeting"], network=network) == "hello\n"
        (uid,) = [line for line in Path(f"/proc/{process.pid}/status").read_text().splitlines() if line[:4] == "Uid:"]
        assert uid.split()[1:] == ["10001"] * 4
        assert {path.stat().st_uid for path in (image.folder / "data").iterdir()} == {10001}
        process.send_signal(signal.Signals[stage.last("STOPSIGNAL").rest])
        out, _ = process.communicate(timeout=READY_TIMEOUT_S)
        assert process.returncode == 0 and b"Traceback" not in out and b"Read-only" not in out, out.decode()
    restarted = subprocess.run(check, capture_output=True)
    assert restarted.returncode != 0
