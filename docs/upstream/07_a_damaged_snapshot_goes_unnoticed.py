"""A node whose snapshot is damaged starts empty, votes and leads. Needs pysyncobj==0.3.17, nothing else.

B keeps files. It is stopped, one bit of its dump flips, it is started again; then A, the leader, crashes.
"""

import collections
import logging
import pathlib
import shutil
import sys
import tempfile

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
        conf = SyncObjConf(
            autoTick=False,
            raftMinTimeout=1000,
            raftMaxTimeout=1001,
            connectionTimeout=2000,
            useFork=False,
            **files.get(me, {}),
        )
        others = [Node(name) for name in "ABC" if name != me]
        super().__init__(Node(me), others, conf, transportClass=Wire)
        self.data = {}
        for other in others:
            self._SyncObj__transport._onNodeConnected(other)

    @replicated
    def put(self, key, value):
        self.data[key] = value


logging.disable(logging.CRITICAL)
folder = pathlib.Path(tempfile.mkdtemp())
files = {"B": {"journalFile": str(folder / "journal"), "fullDumpFile": str(folder / "dump")}}
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
for number in range(10):
    nodes["A"].put(number, "x")
settle("A", "B", "C")
nodes["B"].forceLogCompaction()
settle("A", "B", "C")
kept = len(nodes["B"].data)
nodes["B"].destroy()
dump = bytearray((folder / "dump").read_bytes())
dump[len(dump) // 2] ^= 1
(folder / "dump").write_bytes(dump)
nodes["B"] = Store("B")  # no error
wires.clear()  # A crashes
campaign("B")
answers = []
nodes["C"].put("later", "y", callback=lambda _, error: answers.append(error))
settle("B", "C")
settle("B", "C")
print(f"expected: B, which had {kept} keys, refuses to start, or takes the snapshot of a leader before it votes")
print(
    f"happened: B leads: {nodes['B']._isLeader()}, and has {nodes['B'].data}, while C has {len(nodes['C'].data)} keys"
)
print(f"          a write through C succeeds (0 is success): {answers}; B still has {nodes['B'].data}")
broken = {"type": "append_entries", "term": 9, "commit_index": 1, "serialized": (b"no gzip", True, True)}
nodes["C"]._SyncObj__transport._onMessageReceived(Node("B"), broken)
answer = wires["C", "B"][-1]
print(f"          C's answer to a snapshot that it cannot load: {answer}")
nodes["B"].destroy()
shutil.rmtree(folder)
sys.exit(0 if nodes["B"]._isLeader() and not nodes["B"].data and answers == [0] and answer["success"] else 1)
