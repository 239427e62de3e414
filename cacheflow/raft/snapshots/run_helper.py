"""The script that runs the snapshot helper in an isolated interpreter, with the CacheFlow in whose folder it lies.

``sys.argv[1]`` is the node's own search path, in which packages are looked for that the interpreter does not have itself.
It comes last: a file of the user's that is called as a module of Python's is not imported.

All other processes, the node's first, have precedence over this one.
"""

from __future__ import annotations

import os
import sys
from importlib import util
from pathlib import Path

if __name__ == "__main__":
    os.nice(10)
    package = Path(__file__).parents[2]
    spec = util.spec_from_file_location("cacheflow", package / "__init__.py", submodule_search_locations=[str(package)])
    assert spec is not None and spec.loader is not None
    sys.modules["cacheflow"] = module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.path += sys.argv[1].split(os.pathsep)

    from cacheflow.raft.snapshots import helper

    sys.exit(helper.main(sys.argv[2:]))
