#!/usr/bin/env python3
"""Run a cluster on this machine until Ctrl-C: the same as ``cacheflow cluster``.

    scripts/launch_cluster.py --nodes 3

Needs bash and Python 3.11 or later, and nothing else: like the scripts beside it, it first makes .venv. Any Python 3
starts it; where that one is older, a newer one on the PATH does the work.
"""

import os
import sys
from pathlib import Path

# Data and other relative paths are the caller's, so the folder stays what it is.
PREPARE_AND_RUN = """
set -euo pipefail
. "$1/environment.sh"
shift
prepare_environment .venv
exec "$root/.venv/bin/cacheflow" cluster "$@"
"""

if __name__ == "__main__":
    script = Path(__file__).resolve()
    # The first to be tried; environment.sh passes over one that is too old.
    os.environ.setdefault("PYTHON", sys.executable)
    try:
        os.execvp("bash", ["bash", "-c", PREPARE_AND_RUN, script.name, str(script.parent), *sys.argv[1:]])
    except OSError as error:
        sys.stderr.write(f"{script.name}: needs bash: {error.strerror}\n")
        sys.exit(2)
