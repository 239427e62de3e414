"""A process killed while it trims its journal has lost the journal's tail. Needs pysyncobj==0.3.17 and stage.py.

A child really kills itself (SIGKILL) inside ``deleteEntriesTo``, the way an operator or the OOM killer would.
"""

import os
import pathlib
import shutil
import signal
import tempfile

from pysyncobj.journal import FileJournal
from stage import verdict

folder = pathlib.Path(tempfile.mkdtemp())
path = str(folder / "journal")

child = os.fork()
if child == 0:
    journal = FileJournal(path)
    for index in range(1, 1001):
        journal.add(b"an acknowledged write", index, 1)
    journal.setCurrentTerm(1, None)
    write_one = journal.add

    def add(command, index, term):
        write_one(command, index, term)
        if index == 110:  # any moment before the last entry is written again
            os.kill(os.getpid(), signal.SIGKILL)

    journal.add = add
    journal.deleteEntriesTo(100)  # the snapshot holds the first 100
    os._exit(0)
killed = os.WIFSIGNALED(os.waitpid(child, 0)[1])

journal = FileJournal(path)
first, last = journal[0][1], journal[-1][1]
journal._destroy()
shutil.rmtree(folder)
verdict(
    "after the restart the journal ends with entry 1000, whether or not its beginning was trimmed",
    f"it holds entries {first} to {last}: {1000 - last} are lost",
    shown=killed and last == 110,
)
