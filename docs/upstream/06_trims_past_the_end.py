"""A compaction that ends after entries were dropped empties the log: IndexError for ever. Needs pysyncobj==0.3.17 and stage.py.

A cluster of three whose connections keep their order and lose nothing. Answers from B to A are slow.
"""

from stage import campaign, deliver, nodes, put, settle, start, tick, verdict, wires

start("ABC")
campaign("A")
settle("A", "B", "C")
wires.clear()
for number in range(12):  # three messages of 64 KiB
    put("A", number, "x" * 20_000)
tick("A", 0)  # A appends
tick("A")  # A sends
deliver("A", "C")
deliver("C", "A")
tick("A")  # committed by A and C; B is told next
deliver("A", "B")
deliver("B", "A", 1)  # B's first answer arrives, late: A's nextIndex goes back (report 01) ...
tick("A")  # ... and A sends the second and the third message again
nodes["B"].forceLogCompaction()
tick("B")  # B has applied all twelve and writes a snapshot
deliver("A", "B", 1)  # the second message arrives again: B deletes the entries of the third (report 01)
errors = []
for _ in range(20):
    try:
        tick("B")  # the snapshot is complete: B trims its log to where it ended before
        deliver("A", "B", 1)
    except IndexError as error:
        errors.append(f"{type(error).__name__}: {error}")
    tick("A")
verdict(
    "B's log keeps at least the last entry of the snapshot, and B goes on",
    f"{len(errors)} of 20 ticks failed with {set(errors)}; entries in B's log: {nodes['B']._getRaftLogSize()}",
    shown=len(errors) == 20 and nodes["B"]._getRaftLogSize() == 0,
)
