"""A reply of an older term counts in a newer one: acknowledged writes are lost. Needs pysyncobj==0.3.17 and stage.py.

Five nodes; connections keep their order and lose nothing but what is on its way when they are cut. What B says to A is slow.
"""

from stage import campaign, deliver, nodes, put, settle, start, tick, verdict, wires

start("ABCDE")
campaign("A")
settle("A", "B", "C", "D", "E")
for number in range(5):
    put("A", f"term 1, {number}", 1)
tick("A", 0)  # A appends
wires.clear()
tick("A")  # A sends
deliver("A", "B")  # term 1: A and B have all five, a minority
slow = wires["B", "A"].pop()  # B's answer is on its way to A
wires.clear()
campaign("C")
for name in "DEDE":  # D and E vote for C, then they take its first entry ...
    deliver("C", name)
    deliver(name, "C")
for name in "AB":  # ... and so do A and B, in place of what they had
    deliver("C", name)
campaign("A")
for name in "DE":  # D and E vote for A, which leads again, in term 3
    deliver("A", name)
    deliver(name, "A")
acknowledged = []
for key in ("term 3, 0", "term 3, 1"):
    put("A", key, 3, acknowledged)
tick("A", 0)
tick("A")
deliver("A", "D")  # D has them, too: again a minority
deliver("D", "A")
tick("A")
told_too_early = list(acknowledged)
wires["B", "A"].insert(0, slow)
deliver("B", "A", 1)  # B's answer of term 1 arrives
tick("A")
wires.clear()  # A and D crash
campaign("E")
settle("E", "B", "C")
lost = [key for key in acknowledged if key not in nodes["E"].data]
leads = nodes["E"]._isLeader()
verdict(
    f"{told_too_early} acknowledged; nothing more, for only A and D of five have the two entries",
    f"{acknowledged} acknowledged; E, which leads now ({leads}), lacks {lost}",
    shown=leads and not told_too_early and len(lost) == 2,
)
