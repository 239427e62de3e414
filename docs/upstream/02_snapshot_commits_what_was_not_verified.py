"""A snapshot's message makes a former leader commit its own entries. Needs pysyncobj==0.3.17 and stage.py.

A leads, is cut off and takes three more writes, which nobody else ever sees; B and C go on; A comes back.
"""

from stage import campaign, deliver, nodes, put, settle, start, tick, verdict, wires

start("ABC")
campaign("A")
settle("A", "B", "C")
acknowledged = []
for number in range(3):
    put("A", number, "A", acknowledged)
tick("A")
wires.clear()  # A is cut off
campaign("B")
settle("B", "C")
for number in range(10):
    put("B", number, "B")
settle("B", "C")
nodes["B"].forceLogCompaction()
tick("B")
tick("B")
wires.clear()  # A is back
tick("B")
deliver("B", "A")
deliver("A", "B")  # "I lack that": B no longer has what A needs
tick("B")
deliver("B", "A", 1)  # the first piece of B's snapshot
tick("A")
applied = dict(nodes["A"].data)
settle("B", "A", "C")
verdict(
    "the three writes of A are not acknowledged, nobody has them: everywhere 0, 1 and 2 are 'B'",
    f"A applied {applied} and told its clients that {acknowledged} succeeded",
    f"in the end A has {nodes['A'].data}",
    shown=acknowledged == [0, 1, 2] and applied == dict.fromkeys(range(3), "A"),
)
