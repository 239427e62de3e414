"""A node whose snapshot is damaged starts empty, votes and leads. Needs pysyncobj==0.3.17 and stage.py.

B keeps files. It is stopped, one bit of its dump flips, it is started again; then A, the leader, crashes.
"""

import logging
import pathlib
import shutil
import tempfile

from stage import campaign, nodes, put, receive, settle, start, verdict, wires

logging.disable(logging.CRITICAL)
folder = pathlib.Path(tempfile.mkdtemp())
files = {"journalFile": str(folder / "journal"), "fullDumpFile": str(folder / "dump")}
start("AC", "ABC", useFork=False)
start("B", "ABC", useFork=False, **files)
campaign("A")
settle("A", "B", "C")
for number in range(10):
    put("A", number, "x")
settle("A", "B", "C")
nodes["B"].forceLogCompaction()
settle("A", "B", "C")
kept = len(nodes["B"].data)
nodes["B"].destroy()
dump = bytearray((folder / "dump").read_bytes())
dump[len(dump) // 2] ^= 1
(folder / "dump").write_bytes(dump)
start("B", "ABC", useFork=False, **files)  # no error
wires.clear()  # A crashes
campaign("B")
answers = []
nodes["C"].set("later", "y", callback=lambda _, error: answers.append(error))
settle("B", "C")
settle("B", "C")
leads, has, c_has = nodes["B"]._isLeader(), nodes["B"].data, len(nodes["C"].data)
receive("B", "C", {"type": "append_entries", "term": 9, "commit_index": 1, "serialized": (b"no gzip", True, True)})
answer = wires["C", "B"][-1]
nodes["B"].destroy()
shutil.rmtree(folder)
verdict(
    f"B, which had {kept} keys, refuses to start, or takes the snapshot of a leader before it votes",
    f"B leads: {leads}, and has {has}, while C has {c_has} keys",
    f"a write through C succeeds (0 is success): {answers}; B still has {has}",
    f"C's answer to a snapshot that it cannot load: {answer}",
    shown=leads and not has and answers == [0] and answer["success"],
)
