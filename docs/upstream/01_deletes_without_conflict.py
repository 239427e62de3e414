"""A follower deletes entries that do not conflict: acknowledged writes are lost. Needs pysyncobj==0.3.17 and stage.py.

A cluster of three whose connections keep their order and lose nothing; C is cut off, A leads and crashes.
"""

from stage import campaign, deliver, nodes, put, settle, start, tick, verdict, wires

start("ABC")
campaign("A")
settle("A", "B")
acknowledged = []
for number in range(12):  # three messages of 64 KiB
    put("A", number, "x" * 20_000, acknowledged)
wires.clear()
tick("A", 0)  # A appends
tick("A")  # A sends
deliver("A", "B")  # B has all twelve, and answers each message
deliver("B", "A", 1)  # the first answer arrives: A's nextIndex goes back to the second message ...
tick("A")  # ... and A sends the second and the third one again
deliver("B", "A")  # the other answers arrive
tick("A")  # all is committed: the clients are told
deliver("A", "B", 1)  # the second message arrives again: B deletes the entries of the third
wires.clear()  # A crashes, C is back
campaign("B")
settle("B", "C")
lost = [key for key in acknowledged if key not in nodes["B"].data]
leads = nodes["B"]._isLeader()
verdict(
    f"B, which leads now ({leads}), has all {len(acknowledged)} acknowledged writes",
    f"it has lost {lost}",
    shown=leads and len(acknowledged) == 12 and lost,
)
