#!/usr/bin/env python3
"""Run a cluster on this machine until Ctrl-C: the same as ``cacheflow cluster``.

scripts/launch_cluster.py --nodes 3
"""

import sys
from pathlib import Path

if __name__ == "__main__":
    if sys.version_info < (3, 11):  # noqa: UP036 - that is what it is for
        sys.stderr.write("launch_cluster: needs Python 3.11 or later; this is {}.{}\n".format(*sys.version_info[:2]))
        sys.exit(2)
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    from cacheflow.cli import main

    sys.exit(main(["cluster", *sys.argv[1:]]))
