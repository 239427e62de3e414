"""A crash between snapshot and trimming: the restart throws the journal away. Needs pysyncobj==0.3.17, nothing else.

One node, which is a cluster of its own. It is "killed" (its files are copied) at the moment when a client is told that
its write has succeeded. ``useFork=False`` only makes the moment exact: with a child process the time between the
renamed dump and the trimmed journal is longer, not shorter.
"""

import pathlib
import shutil
import sys
import tempfile

from pysyncobj import SyncObj, SyncObjConf, replicated
from pysyncobj.node import Node
from pysyncobj.transport import Transport

folder = pathlib.Path(tempfile.mkdtemp())


class Store(SyncObj):
    def __init__(self, path):
        path.mkdir(exist_ok=True)
        files = {"journalFile": str(path / "journal"), "fullDumpFile": str(path / "dump")}
        super().__init__(Node("A"), [], SyncObjConf(autoTick=False, useFork=False, **files), transportClass=Transport)
        self.data = {}

    @replicated
    def put(self, key, value):
        self.data[key] = value


def start(path):
    store = Store(path)
    store._SyncObj__raftElectionDeadline = 0  # its election timeout runs out
    for _ in range(3):
        store.doTick()
    assert store._isLeader()
    return store


acknowledged = []


def done(key, error):
    assert not error
    acknowledged.append(key)
    if len(acknowledged) == 10:
        shutil.copytree(folder / "running", folder / "killed")


store = start(folder / "running")
for number in range(5):
    store.put(number, "x", callback=lambda _, error, key=number: done(key, error))
store.doTick()
store.doTick()
store.forceLogCompaction()
for number in range(5, 10):
    store.put(number, "x", callback=lambda _, error, key=number: done(key, error))
store.doTick()  # appends 5 to 9, and writes the snapshot with 0 to 4
store.doTick()  # commits 5 to 9 and tells the clients; only then the journal would be trimmed
store.destroy()

after = start(folder / "killed")
lost = [key for key in acknowledged if key not in after.data]
after.destroy()
shutil.rmtree(folder)
print(
    f"expected: after the restart all {len(acknowledged)} acknowledged writes are there: they are in dump and journal"
)
print(f"happened: lost {lost}")
sys.exit(0 if lost == [5, 6, 7, 8, 9] else 1)
