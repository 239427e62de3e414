"""What the suites need from a package registry, by pip alone: environments of their own, and the sources that hold their tests.

Everything is kept in the folder .venv-conformance of the checkout, and fetched once.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / ".venv-conformance"
# Seconds for one command of pip.
FETCH_S = 300


class Unavailable(Exception):
    """Raised when a suite cannot be run here; the message says why."""


class DidNotRun(Exception):
    """Raised when a suite was fetched and ended without results; the message has its last lines."""


def environment(name: str, packages: Sequence[str]) -> Path:
    """Return the Python of an environment with exactly ``packages`` and what they need. Raises Unavailable."""
    folder = FOLDER / name
    stamp, wanted = folder / "stamp", "\n".join([sys.version, *packages])
    if not stamp.exists() or stamp.read_text() != wanted:
        shutil.rmtree(folder, ignore_errors=True)
        run_command([sys.executable, "-m", "venv", str(folder)])
        run_command([str(folder / "bin/python"), "-m", "pip", "install", "--quiet", *packages])
        stamp.write_text(wanted)
    return folder / "bin/python"


def sources(package: str, version: str) -> Path:
    """Return the folder of a package's unpacked source distribution. Raises Unavailable."""
    folder = FOLDER / "sources" / f"{package}-{version}"
    if not folder.exists():
        fetched = FOLDER / "fetched" / package
        python = environment("fetching", ["pip"])
        options = ["--quiet", "--no-deps", "--no-binary", package, "--dest", str(fetched)]
        run_command([str(python), "-m", "pip", "download", *options, f"{package}=={version}"])
        (archive,) = fetched.glob(f"*{version}.tar.gz")
        unpack(archive, folder)
    return folder


def unpack(archive: Path, folder: Path) -> None:
    """Make ``folder`` of the one folder that an archive holds."""
    unpacked = folder.with_suffix(".unfinished")
    shutil.rmtree(unpacked, ignore_errors=True)
    with tarfile.open(archive) as tar:
        tar.extractall(unpacked, filter="data")
    (inner,) = unpacked.iterdir()
    inner.rename(folder)


def program(name: str, package: str) -> str:
    """Return the path of a program; where this is Debian's root and it is missing, apt-get installs its package first.

    Raises Unavailable.
    """
    found = shutil.which(name)
    if found is None and shutil.which("apt-get") is not None:
        run_command(["apt-get", "install", "--yes", "--quiet", "--no-install-recommends", package])
        found = shutil.which(name)
    if found is None:
        raise Unavailable(f"there is no {name} here (Debian's package {package})")
    return found


def unpacked_program(name: str, package: str) -> str:
    """Return the path of a program; if it is missing, apt-get fetches its package, and the program is run as it lies there.

    Nothing is installed and no service is started, so nobody has to be root. Raises Unavailable.
    """
    found = shutil.which(name)
    if found is not None:
        return found
    folder = FOLDER / "debian" / package
    if not folder.exists():
        if shutil.which("apt-get") is None:
            raise Unavailable(f"there is no {name} here (Debian's package {package})")
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as fetched:
            run_command(["apt-get", "download", "--quiet", package], Path(fetched))
            (archive,) = Path(fetched).glob("*.deb")
            run_command(["dpkg-deb", "--extract", str(archive), f"{fetched}/unpacked"])
            # Another process may have been quicker.
            with contextlib.suppress(OSError):
                Path(f"{fetched}/unpacked").rename(folder)
    return str(folder / "usr/bin" / name)


def run_command(command: Sequence[str], folder: Path | None = None) -> None:
    """Run a command that fetches something, in a folder if told. Raises Unavailable when it fails."""
    try:
        subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True, timeout=FETCH_S)
    except subprocess.CalledProcessError as error:
        lines = [line for line in (error.stderr or error.stdout).strip().splitlines() if line.strip()]
        raise Unavailable(f"{' '.join(command[:6])} ...: {lines[-1] if lines else error}") from None
    except (subprocess.TimeoutExpired, OSError) as error:
        raise Unavailable(str(error)) from None
