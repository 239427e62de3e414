"""A follower with a conflicting tail never catches up. Needs pysyncobj==0.3.17 and stage.py.

A leads, is cut off and keeps three uncommitted entries; B and C go on; A comes back on a perfect network.
"""

from stage import campaign, clock, nodes, put, settle, start, tick, verdict, wires

start("ABC")
campaign("A")
settle("A", "B", "C")
for number in range(3):
    put("A", number, "A")
tick("A")
wires.clear()  # A is cut off
campaign("B")
settle("B", "C")
for number in range(20):  # five messages of 64 KiB
    put("B", number, "B" * 20_000)
settle("B", "C")
campaign("C")
settle("C", "B")
wires.clear()  # A is back
began = clock.now
tried = set()
while clock.now - began < 120:
    settle("C", "A", "B")
    tried.add(nodes["C"].getStatus()["next_node_idx_server_A"])
verdict(
    "A has all 20 entries after a few round trips",
    f"{clock.now - began:.0f} s later it has {len(nodes['A'].data)}; nextIndex is {sorted(tried)} for ever",
    shown=nodes["C"]._isLeader() and len(nodes["B"].data) == 20 and not nodes["A"].data,
)
