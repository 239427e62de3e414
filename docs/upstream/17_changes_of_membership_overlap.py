"""Changes of membership overlap: two leaders commit different entries. Needs pysyncobj==0.3.17, nothing else.

A leads A, B and C, is cut off from both and adds D and E at once; B and C go on.
"""

import collections
import sys

import pysyncobj.syncobj as lib
from pysyncobj import SyncObj, SyncObjConf, replicated
from pysyncobj.node import Node
from pysyncobj.transport import Transport


class Clock:
    now = 0.0

    def __call__(self):
        self.now += 2e-5
        return self.now


clock = lib.monotonicTime = Clock()
wires = collections.defaultdict(list)  # (sender, receiver) -> messages in the order in which they were sent


class Wire(Transport):
    def __init__(self, obj, me, others):
        super().__init__(obj, me, others)
        self.me = me

    def send(self, node, message):
        wires[self.me.id, node.id].append(message)
        return True


class Store(SyncObj):
    def __init__(self, me, members):
        conf = SyncObjConf(
            autoTick=False,
            raftMinTimeout=1000,
            raftMaxTimeout=1001,
            connectionTimeout=2000,
            dynamicMembershipChange=True,
        )
        others = [Node(name) for name in members if name != me]
        super().__init__(Node(me), others, conf, transportClass=Wire)
        self.data = {}
        for other in others:
            self._SyncObj__transport._onNodeConnected(other)

    @replicated
    def put(self, key, value):
        self.data[key] = value


nodes = {name: Store(name, "ABC") for name in "ABC"} | {name: Store(name, "ABCDE") for name in "DE"}


def tick(name, seconds=0.2):
    clock.now += seconds
    nodes[name].doTick()


def campaign(name):
    nodes[name]._SyncObj__raftElectionDeadline = 0  # its election timeout runs out
    tick(name)


def deliver(sender, receiver, count=None):
    for message in [wires[sender, receiver].pop(0) for _ in wires[sender, receiver][:count]]:
        nodes[receiver]._SyncObj__transport._onMessageReceived(Node(sender), message)


def settle(leader, *followers):
    for _ in range(5):
        for follower in followers:
            deliver(leader, follower)
            deliver(follower, leader)
            tick(follower)
        tick(leader)


campaign("A")
settle("A", "B", "C")
wires.clear()  # A is cut off from B and C
answers = []
for name in "DE":
    nodes["A"].addNodeToCluster(Node(name), callback=lambda _, error, name=name: answers.append((name, error)))
tick("A", 0)  # both are appended, neither is committed
members_at_once = {node.id for node in nodes["A"].otherNodes} | {"A"}
for name in "DE":
    nodes["A"]._SyncObj__transport._onNodeConnected(Node(name))
told = {"A": [], "B": []}
for leader in "AB":
    if leader == "B":
        campaign("B")
        settle("B", "C")
    nodes[leader].put("x", leader, callback=lambda _, error, leader=leader: error or told[leader].append(leader))
    settle(leader, *("DE" if leader == "A" else "C"))
values = {name: node.data.get("x") for name, node in nodes.items()}
print("expected: the second change is refused until the first is committed; one value of x is acknowledged")
print(f"happened: members of A at once {sorted(members_at_once)}; answers (0 is success) {answers}")
print(f"          acknowledged by A: {told['A']}, by B: {told['B']}; x is {values}")
sys.exit(0 if len(members_at_once) == 5 and told == {"A": ["A"], "B": ["B"]} else 1)
