"""A follower deletes entries that do not conflict: acknowledged writes are lost. Needs pysyncobj==0.3.17, nothing else.

A cluster of three whose connections keep their order and lose nothing; C is cut off, A leads and crashes.
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
settle("A", "B")
acknowledged = []
for number in range(12):  # three messages of 64 KiB
    nodes["A"].put(number, "x" * 20_000, callback=lambda _, error, key=number: error or acknowledged.append(key))
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
print(f"expected: B, which leads now ({nodes['B']._isLeader()}), has all {len(acknowledged)} acknowledged writes")
print(f"happened: it has lost {lost}")
sys.exit(0 if nodes["B"]._isLeader() and len(acknowledged) == 12 and lost else 1)
