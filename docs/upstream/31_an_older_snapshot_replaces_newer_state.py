"""An older snapshot takes a follower back: acknowledged writes are lost. Needs pysyncobj==0.3.17, nothing else.

B is cut off for a while and comes back; then C is cut off, and A, the leader, crashes. Connections keep their order.
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


def last_index(name):
    return nodes[name]._SyncObj__raftLog[-1][1]


campaign("A")
settle("A", "B", "C")
for number in range(10):  # B is cut off
    nodes["A"].put(number, "before")
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
    nodes["A"].put(number, "after", callback=lambda _, error, key=number: error or acknowledged.append(key))
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
print(
    f"expected: B keeps its log up to {had}; B, which leads now ({nodes['B']._isLeader()}), has all of {acknowledged}"
)
print(f"happened: B's log went back to {has}; lost {lost}")
sys.exit(0 if nodes["B"]._isLeader() and len(lost) == 5 and has < had else 1)
