"""Running out of descriptors for a moment closes the listener for good. Needs pysyncobj==0.3.17 and stage.py."""

import resource
import socket
import time

from pysyncobj import SyncObj, SyncObjConf
from stage import verdict

with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    port = probe.getsockname()[1]
node = SyncObj(f"127.0.0.1:{port}", [], SyncObjConf(autoTick=False))
node.doTick()


def can_connect():
    with socket.socket() as peer:
        peer.settimeout(2)
        return peer.connect_ex(("127.0.0.1", port)) == 0


before = can_connect()
node.doTick()
peer = socket.socket()
_, most = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, 64), most))
held = []
try:
    while True:
        held.append(socket.socket())  # as many peers or files of the application would
except OSError:
    pass
peer.connect(("127.0.0.1", port))
node.doTick()  # accept() says EMFILE
for file in held:
    file.close()
peer.close()

deadline = time.monotonic() + 1
after = False
while not after and time.monotonic() < deadline:  # descriptors are plenty again
    node.doTick(0.05)
    after = can_connect()
ready = node._SyncObj__transport.ready
node.destroy()
verdict(
    "peers can connect again once descriptors are free",
    f"before {before}, 1 s after {after}; transport.ready is {ready}, nothing was logged",
    shown=before and not after and ready,
)
