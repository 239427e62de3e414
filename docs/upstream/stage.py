"""The stage of the programs beside it: real nodes on a transport in memory, a clock that the program moves, the verdict.

Connections keep their order and lose nothing but what a program takes off ``wires``. Needs pysyncobj==0.3.17, nothing else.
"""

import collections
import sys

import pysyncobj.syncobj as lib
from pysyncobj import SyncObj, SyncObjConf, replicated
from pysyncobj.node import Node
from pysyncobj.transport import Transport

nodes = {}  # the running nodes by name
wires = collections.defaultdict(list)  # (sender, receiver) -> messages in the order in which they were sent


class Clock:
    now = 0.0

    def __call__(self):
        self.now += 2e-5
        return self.now


clock = Clock()


class Wire(Transport):
    def __init__(self, obj, me, others):
        super().__init__(obj, me, others)
        self.me = me

    def send(self, node, message):
        wires[self.me.id, node.id].append(message)
        return True


class Store(SyncObj):
    """A node that is connected with all others and whose own timeouts never run out."""

    def __init__(self, me, members, **options):
        lib.monotonicTime = clock
        limits = {"raftMinTimeout": 1000, "raftMaxTimeout": 1001, "connectionTimeout": 2000}
        conf = SyncObjConf(autoTick=False, **limits, **options)
        super().__init__(Node(me), [Node(name) for name in members if name != me], conf, transportClass=Wire)
        self.data = {}
        for name in members:
            if name != me:
                connect(self, name)

    @replicated
    def set(self, key, value):
        self.data[key] = value


def start(names, members="", **options):
    """Start a node for each name; members: the cluster that they know, all of them unless it is given."""
    nodes.update({name: Store(name, members or names, **options) for name in names})


def connect(node, name):
    node._SyncObj__transport._onNodeConnected(Node(name))


def put(name, key, value, acknowledged=None):
    """Write through a node; ``acknowledged`` gets the key once the client is told that this succeeded."""

    def told(_, error):
        if acknowledged is not None and not error:
            acknowledged.append(key)

    nodes[name].set(key, value, callback=told)


def tick(name, seconds=0.2):
    clock.now += seconds
    nodes[name].doTick()


def campaign(name):
    nodes[name]._SyncObj__raftElectionDeadline = 0  # its election timeout runs out
    tick(name)


def receive(sender, receiver, message):
    nodes[receiver]._SyncObj__transport._onMessageReceived(Node(sender), message)


def deliver(sender, receiver, count=None):
    """Let the first ``count`` messages arrive that are on their way, or all."""
    for message in [wires[sender, receiver].pop(0) for _ in wires[sender, receiver][:count]]:
        receive(sender, receiver, message)


def settle(leader, *followers):
    """Let everything arrive between them, five times."""
    for _ in range(5):
        for follower in followers:
            deliver(leader, follower)
            deliver(follower, leader)
            tick(follower)
        tick(leader)


def verdict(expected, *happened, shown):
    """Print both and end the program: exit code 0 when the bug was shown."""
    print(f"expected: {expected}")
    print("happened: " + "\n          ".join(happened))
    sys.exit(0 if shown else 1)
