"""A snapshot's message makes a former leader commit its own entries. Needs pysyncobj==0.3.17, nothing else.

A leads, is cut off and takes three more writes, which nobody else ever sees; B and C go on; A comes back.
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
        others = [Node(name) for name in "ABC" if name != me]
        super().__init__(Node(me), others, conf, transportClass=Wire)
        self.data = {}
        for other in others:
            self._SyncObj__transport._onNodeConnected(other)

    @replicated
    def put(self, key, value):
        self.data[key] = value


nodes = {name: Store(name) for name in "ABC"}


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
acknowledged = []
for number in range(3):
    nodes["A"].put(number, "A", callback=lambda _, error, key=number: error or acknowledged.append(key))
tick("A")
wires.clear()  # A is cut off
campaign("B")
settle("B", "C")
for number in range(10):
    nodes["B"].put(number, "B")
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
print("expected: the three writes of A are not acknowledged, nobody has them: everywhere 0, 1 and 2 are 'B'")
print(f"happened: A applied {applied} and told its clients that {acknowledged} succeeded")
print(f"          in the end A has {nodes['A'].data}")
sys.exit(0 if acknowledged == [0, 1, 2] and applied == dict.fromkeys(range(3), "A") else 1)
