"""A follower with a conflicting tail never catches up. Needs pysyncobj==0.3.17, nothing else.

A leads, is cut off and keeps three uncommitted entries; B and C go on; A comes back on a perfect network.
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
for number in range(3):
    nodes["A"].put(number, "A")
tick("A")
wires.clear()  # A is cut off
campaign("B")
settle("B", "C")
for number in range(20):  # five messages of 64 KiB
    nodes["B"].put(number, "B" * 20_000)
settle("B", "C")
campaign("C")
settle("C", "B")
wires.clear()  # A is back
began = clock.now
tried = set()
while clock.now - began < 120:
    settle("C", "A", "B")
    tried.add(nodes["C"].getStatus()["next_node_idx_server_A"])
print("expected: A has all 20 entries after a few round trips")
print(f"happened: {clock.now - began:.0f} s later it has {len(nodes['A'].data)}; nextIndex is {sorted(tried)} for ever")
sys.exit(0 if nodes["C"]._isLeader() and len(nodes["B"].data) == 20 and not nodes["A"].data else 1)
