"""Changes of membership overlap: two leaders commit different entries. Needs pysyncobj==0.3.17 and stage.py.

A leads A, B and C, is cut off from both and adds D and E at once; B and C go on.
"""

from pysyncobj.node import Node
from stage import campaign, connect, nodes, settle, start, tick, verdict, wires

start("ABC", dynamicMembershipChange=True)
start("DE", "ABCDE", dynamicMembershipChange=True)
campaign("A")
settle("A", "B", "C")
wires.clear()  # A is cut off from B and C
answers = []
for name in "DE":
    nodes["A"].addNodeToCluster(Node(name), callback=lambda _, error, name=name: answers.append((name, error)))
tick("A", 0)  # both are appended, neither is committed
members_at_once = {node.id for node in nodes["A"].otherNodes} | {"A"}
for name in "DE":
    connect(nodes["A"], name)
told = {"A": [], "B": []}
for leader in "AB":
    if leader == "B":
        campaign("B")
        settle("B", "C")
    nodes[leader].set("x", leader, callback=lambda _, error, leader=leader: error or told[leader].append(leader))
    settle(leader, *("DE" if leader == "A" else "C"))
values = {name: node.data.get("x") for name, node in nodes.items()}
verdict(
    "the second change is refused until the first is committed; one value of x is acknowledged",
    f"members of A at once {sorted(members_at_once)}; answers (0 is success) {answers}",
    f"acknowledged by A: {told['A']}, by B: {told['B']}; x is {values}",
    shown=len(members_at_once) == 5 and told == {"A": ["A"], "B": ["B"]},
)
