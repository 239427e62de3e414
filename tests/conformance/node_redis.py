"""The local cache of node-redis, by npm's package and tests of our own, which its own suite has for one server alone."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence

from conformance.fetching import FOLDER, DidNotRun, program, run_command
from conformance.stock import OWN
from conformance.suites import Results, Suite, ended

NODE_REDIS = "5.12.1"
FILE = "node_redis_cache.test.mjs"
_OUTCOME = re.compile(r"^(not )?ok \d+ - (.*)$", re.MULTILINE)


def _run(port: int, tests: Sequence[str]) -> Results:
    node, npm = program("node", "nodejs"), program("npm", "npm")
    folder = FOLDER / f"node-redis-{NODE_REDIS}"
    if not (folder / "node_modules").exists():
        folder.mkdir(parents=True, exist_ok=True)
        run_command([npm, "install", "--no-audit", "--no-fund", f"redis@{NODE_REDIS}"], folder)
    # A module is looked for beside the file that needs it.
    shutil.copy(OWN / FILE, folder)
    names = [part for test in tests for part in ("--test-name-pattern", re.escape(test))]
    done = ended([node, "--test", "--test-reporter=tap", *names, FILE], folder, {"CONFORMANCE_PORT": str(port)})
    outcomes = _OUTCOME.findall(done.stdout)
    if not outcomes:
        raise DidNotRun(f"no results: {(done.stdout + done.stderr)[-600:]}")
    return Results(
        {name: "see what node prints" for failed, name in outcomes if failed},
        {name for failed, name in outcomes if not failed},
    )


NODE = (Suite("node-redis", "redis-server", _run),)
