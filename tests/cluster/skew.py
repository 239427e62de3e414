"""The library that moves one process's wall clock: LD_PRELOAD it, with CACHEFLOW_TEST_SKEW_S in the environment."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

SOURCE = Path(__file__).with_name("skew.c")


def build_shim(folder: Path) -> str:
    """Compile the library into ``folder``; return its path. Raises OSError where that is not possible."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or sys.platform != "linux":
        raise OSError("skewing one process's clock needs Linux and a C compiler")
    library = folder / "skew.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", str(library), str(SOURCE), "-ldl"], check=True)
    return str(library)
