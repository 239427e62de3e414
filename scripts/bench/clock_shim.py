"""The library that moves the wall clock of one process: ``LD_PRELOAD`` it, with VARIABLE in the environment."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

SOURCE = Path(__file__).with_name("clock_shim.c")
# In the environment: by how many seconds.
VARIABLE = "CLOCK_SHIM_SECONDS"


def build_shim(folder: Path, source: Path = SOURCE) -> str:
    """Compile a library for LD_PRELOAD into ``folder``; return its path. Raises OSError where that is not possible."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or sys.platform != "linux":
        raise OSError("to preload a library needs Linux and a C compiler")
    library = folder / f"{source.stem}.so"
    subprocess.run([compiler, "-O2", "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"], check=True)
    return str(library)


def skewed_by(shim: str, seconds: float) -> dict[str, str]:
    """What the environment of a process needs for a wall clock that is ``seconds`` off."""
    return {"LD_PRELOAD": shim, VARIABLE: str(int(seconds))}
