"""A reply of an older term counts in a newer one: acknowledged writes are lost. Needs pysyncobj==0.3.17, nothing else.

Five nodes; connections keep their order and lose nothing but what is on its way when they are cut. What B says to A is slow.
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
    def __init__(self, me):
        conf = SyncObjConf(autoTick=False, raftMinTimeout=1000, raftMaxTimeout=1001, connectionTimeout=2000)
        others = [Node(name) for name in "ABCDE" if name != me]
        super().__init__(Node(me), others, conf, transportClass=Wire)
        self.data = {}
        for other in others:
            self._SyncObj__transport._onNodeConnected(other)

    @replicated
    def put(self, key, value):
        self.data[key] = value


nodes = {name: Store(name) for name in "ABCDE"}


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
settle("A", "B", "C", "D", "E")
for number in range(5):
    nodes["A"].put(f"term 1, {number}", 1)
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
    nodes["A"].put(key, 3, callback=lambda _, error, key=key: error or acknowledged.append(key))
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
print(f"expected: {told_too_early} acknowledged; nothing more, for only A and D of five have the two entries")
print(f"happened: {acknowledged} acknowledged; E, which leads now ({nodes['E']._isLeader()}), lacks {lost}")
sys.exit(0 if nodes["E"]._isLeader() and not told_too_early and len(lost) == 2 else 1)
