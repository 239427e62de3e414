"""A compaction that ends after entries were dropped empties the log: IndexError for ever. Needs pysyncobj==0.3.17 alone.

A cluster of three whose connections keep their order and lose nothing. Answers from B to A are slow.
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
wires.clear()
for number in range(12):  # three messages of 64 KiB
    nodes["A"].put(number, "x" * 20_000)
tick("A", 0)  # A appends
tick("A")  # A sends
deliver("A", "C")
deliver("C", "A")
tick("A")  # committed by A and C; B is told next
deliver("A", "B")
deliver("B", "A", 1)  # B's first answer arrives, late: A's nextIndex goes back (report 01) ...
tick("A")  # ... and A sends the second and the third message again
nodes["B"].forceLogCompaction()
tick("B")  # B has applied all twelve and writes a snapshot
deliver("A", "B", 1)  # the second message arrives again: B deletes the entries of the third (report 01)
errors = []
for _ in range(20):
    try:
        tick("B")  # the snapshot is complete: B trims its log to where it ended before
        deliver("A", "B", 1)
    except IndexError as error:
        errors.append(f"{type(error).__name__}: {error}")
    tick("A")
print("expected: B's log keeps at least the last entry of the snapshot, and B goes on")
print(
    f"happened: {len(errors)} of 20 ticks failed with {set(errors)}; entries in B's log: {nodes['B']._getRaftLogSize()}"
)
sys.exit(0 if len(errors) == 20 and nodes["B"]._getRaftLogSize() == 0 else 1)
