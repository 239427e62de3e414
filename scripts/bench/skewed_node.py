"""A node whose wall clock is off: ``skewed_node.py SHIM SECONDS,SECONDS,... serve flags`` becomes that node.

The number behind ``--node-id node-N`` chooses the seconds.
"""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Replace this process, so that its pid is the node's."""
    shim, seconds, *arguments = sys.argv[1:]
    number = int(arguments[arguments.index("--node-id") + 1].rpartition("-")[2])
    environment = {**os.environ, "LD_PRELOAD": shim, "CLOCK_SHIM_SECONDS": seconds.split(",")[number - 1]}
    os.execve(sys.executable, [sys.executable, "-m", "cacheflow", *arguments], environment)


if __name__ == "__main__":
    main()
