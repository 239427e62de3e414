"""A crash between snapshot and trimming: the restart throws the journal away. Needs pysyncobj==0.3.17 and stage.py.

One node, which is a cluster of its own. It is "killed" (its files are copied) at the moment when a client is told that
its write has succeeded. ``useFork=False`` only makes the moment exact: with a child process the time between the
renamed dump and the trimmed journal is longer, not shorter.
"""

import pathlib
import shutil
import tempfile

from stage import campaign, nodes, put, start, tick, verdict

folder = pathlib.Path(tempfile.mkdtemp())


def run(path):
    path.mkdir(exist_ok=True)
    start("A", useFork=False, journalFile=str(path / "journal"), fullDumpFile=str(path / "dump"))
    campaign("A")
    tick("A")
    tick("A")
    assert nodes["A"]._isLeader()


class Acknowledged(list):
    def append(self, key):
        super().append(key)
        if len(self) == 10:
            shutil.copytree(folder / "running", folder / "killed")


run(folder / "running")
acknowledged = Acknowledged()
for number in range(5):
    put("A", number, "x", acknowledged)
tick("A")
tick("A")
nodes["A"].forceLogCompaction()
for number in range(5, 10):
    put("A", number, "x", acknowledged)
tick("A")  # appends 5 to 9, and writes the snapshot with 0 to 4
tick("A")  # commits 5 to 9 and tells the clients; only then the journal would be trimmed
nodes["A"].destroy()

run(folder / "killed")
lost = [key for key in acknowledged if key not in nodes["A"].data]
nodes["A"].destroy()
shutil.rmtree(folder)
verdict(
    f"after the restart all {len(acknowledged)} acknowledged writes are there: they are in dump and journal",
    f"lost {lost}",
    shown=lost == [5, 6, 7, 8, 9],
)
