"""An older snapshot takes a follower back: acknowledged writes are lost. Needs pysyncobj==0.3.17 and stage.py.

B is cut off for a while and comes back; then C is cut off, and A, the leader, crashes. Connections keep their order.
"""

from stage import campaign, deliver, nodes, put, settle, start, tick, verdict, wires


def last_index(name):
    return nodes[name]._SyncObj__raftLog[-1][1]


start("ABC")
campaign("A")
settle("A", "B", "C")
for number in range(10):  # B is cut off
    put("A", number, "before")
settle("A", "C")
nodes["A"].forceLogCompaction()
settle("A", "C")
wires.clear()  # B is back
tick("A")
tick("A")  # two heartbeats on their way
deliver("A", "B")  # B lacks what is before them, and rejects both
deliver("B", "A", 1)  # the first rejection: A sends its snapshot
tick("A")
deliver("A", "B")  # B installs it
acknowledged = []
for number in range(10, 15):  # C is cut off
    put("A", number, "after", acknowledged)
tick("A", 0)  # A appends
tick("A")  # A sends
deliver("A", "B")  # B has them, and says so
had = last_index("B")
deliver("B", "A", 1)  # the second rejection, of before the snapshot
tick("A")  # A sends its snapshot again
deliver("B", "A")  # B's acknowledgements
tick("A")  # committed: the clients are told
deliver("A", "B", 2)  # the same snapshot again, in two pieces
has = last_index("B")
wires.clear()  # A crashes, C is back
campaign("B")
settle("B", "C")
lost = [key for key in acknowledged if key not in nodes["B"].data]
leads = nodes["B"]._isLeader()
verdict(
    f"B keeps its log up to {had}; B, which leads now ({leads}), has all of {acknowledged}",
    f"B's log went back to {has}; lost {lost}",
    shown=leads and len(lost) == 5 and has < had,
)
