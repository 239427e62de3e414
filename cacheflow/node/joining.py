"""How a node comes into a cluster: it founds one, goes on with its own, or is registered by a member.

1. A node whose journal names a configuration goes on with it.
2. With ``seed`` it asks a member over HTTP to register it, until one does. It never founds.
3. With ``peers`` (embedded, no HTTP) every founding node dials all others first. A node that finds a cluster joins it;
   when all answer and all are empty, the one with the lowest address founds, and the others join.
4. With neither it founds a cluster of one.

A member that registers somebody dials the address first: only what answers there, with the cluster's secret, has an
identity, and that identity (id and incarnation) is what becomes a member.

A node that was removed stays out: its request says that it has been a member, and a cluster that lists it no more refuses.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace

from cacheflow.config import NodeConfig
from cacheflow.errors import InvalidRequest
from cacheflow.machine.state.settings import Member
from cacheflow.node.registration import AskSeed
from cacheflow.raft.membership.changes import JOINED, KNOWN, NO_LEADER
from cacheflow.raft.message_types import Register
from cacheflow.raft.node import RaftNode
from cacheflow.raft.transport.network import Network, Peer, PeerUnreachable

logger = logging.getLogger(__name__)

# Seconds between two attempts to become a member, and between two probes of the peers.
AGAIN_S = 0.25
# Seconds between two checks that this node is still a member, with the addresses that it has now.
LOOK_S = 1.0
# Seconds for dialing a node and shaking hands with it.
PROBE_TIMEOUT_S = 2.0
# Seconds for the leader's answer: with the probe before, no longer than the newcomer's request waits (registration.py).
REGISTER_TIMEOUT_S = 8.0


class Joining:
    """One node's way into a cluster. Not safe for concurrent use: the event loop owns it.

    http_address: host:port where members show this node.  ask_seed: asks a member over HTTP to register this node.
    random_bytes: for the id of a cluster that this node founds.
    """

    def __init__(
        self,
        node: RaftNode,
        network: Network,
        config: NodeConfig,
        http_address: str,
        *,
        ask_seed: AskSeed,
        random_bytes: Callable[[int], bytes],
    ) -> None:
        self._node = node
        self._network = network
        self._config = config
        self._http_address = http_address
        self._ask_seed = ask_seed
        self._random_bytes = random_bytes

    @property
    def me(self) -> Member:
        """Return this node as a member, with the addresses that it has now: its network must listen already."""
        return Member(self._node.node_id, self._node.incarnation, self._network.raft_address, self._http_address, False)

    @property
    def _peers(self) -> list[str]:
        return [address for address in self._config.peers if address != self._network.raft_address]

    def found_or_wait(self) -> None:
        """Found a cluster if this node is new and has neither seeds nor peers. Called before the node starts."""
        if not (self._is_known() or self._config.seed or self._peers):
            self._found()

    async def keep(self) -> None:
        """Make this node a member, and again whenever the entry that lists it was dropped, until the node is removed."""
        while self._node.removal.removed_at is None:
            if not self._is_current():
                await self.run()
            await asyncio.sleep(LOOK_S)

    async def run(self) -> None:
        """Ask until this node is a member with the addresses that it has now, or was removed."""
        if not self._is_known() and self._peers and not self._config.seed:
            await self._meet_peers()
        said = ""
        while not self._is_current():
            if self._node.removal.removed_at is not None:
                return
            if self._config.seed:
                problem = await self._ask_seeds()
            elif self._is_known() and not (self._node.removal.disowned and self._peers):
                problem = await self._ask_leader()
            else:
                problem = await self._ask_peers()
            if problem and problem != said:
                said = problem
                logger.warning("not a member yet: %s", problem)
            await asyncio.sleep(AGAIN_S)
        logger.info("member of the cluster")

    async def register(
        self, node_id: str, address: str, raft_address: str, was_member: bool = False
    ) -> tuple[str, str]:
        """Dial ``raft_address`` and have the node that answers there made a member; return (outcome, detail).

        was_member: the node says that it has been a member; one that was removed is refused. Raises InvalidRequest.
        """
        try:
            peer = await self._network.probe(raft_address, PROBE_TIMEOUT_S)
        except ValueError as error:
            raise InvalidRequest(f"raft_address: {error}") from None
        except PeerUnreachable as error:
            raise InvalidRequest(f"no node of this cluster answers at {raft_address}: {error}") from None
        if peer.node_id != node_id:
            raise InvalidRequest(f"the node at {raft_address} has the id {peer.node_id!r}, not {node_id!r}")
        return await self._register(Member(node_id, peer.incarnation, raft_address, address, False), was_member)

    async def _register(self, member: Member, was_member: bool) -> tuple[str, str]:
        answer: asyncio.Future[tuple[str, str]] = asyncio.get_running_loop().create_future()

        def done(outcome: str, detail: str) -> None:
            if not answer.done():
                answer.set_result((outcome, detail))

        self._node.reconfiguration.register(member, done, was_member)
        try:
            return await asyncio.wait_for(answer, REGISTER_TIMEOUT_S)
        except TimeoutError:
            return NO_LEADER, "the leader did not answer in time"

    def _is_known(self) -> bool:
        return bool(self._node.configurations.latest.members)

    def _was_member(self) -> bool:
        """Return whether this node's log lists it as a member, and no member has told that this entry was dropped."""
        removal, latest = self._node.removal, self._node.configurations.latest
        return latest.lists(self.me.id, self.me.incarnation) and not removal.disowned

    def _is_current(self) -> bool:
        me, known = self.me, self._node.configurations.latest.members.get(self.me.id)
        if known is None or self._node.removal.disowned:
            return False
        return (known.incarnation, known.raft_address, known.address) == (
            me.incarnation,
            me.raft_address,
            me.address,
        )

    def _found(self) -> None:
        self._node.found_cluster(self._random_bytes(8).hex(), replace(self.me, voter=True))

    async def _ask_seeds(self) -> str:
        me = self.me
        document = {
            "id": me.id,
            "address": me.address,
            "raft_address": me.raft_address,
            "was_member": self._was_member(),
        }
        problem = ""
        for url in self._config.seed:
            if self._is_current():
                return ""
            problem = await self._ask_seed(url, document)
            if not problem:
                return ""
        return problem

    async def _ask_leader(self) -> str:
        """Have the leader note this member's new addresses; return what went wrong, for people."""
        if self._node.links.route is None:
            # The leader dials this node's old address, and may have moved itself; another member can pass the request on.
            return self._ask_members(list(self._node.membership.others()))
        outcome, detail = await self._register(self.me, self._was_member())
        return "" if outcome in (JOINED, KNOWN) else detail

    async def _meet_peers(self) -> None:
        """Wait until a peer has a cluster; the node with the lowest address founds it once all are there and empty (rule 3)."""
        lowest = self.me.raft_address == min([self.me.raft_address, *self._peers])
        while not self._is_known():
            peers = await asyncio.gather(*(self._probe(address) for address in self._peers))
            if any(peer is not None and peer.cluster_id for peer in peers):
                return
            if lowest and all(peer is not None for peer in peers):
                self._found()
                self._node.ticks.wake()
                return
            await asyncio.sleep(AGAIN_S)

    async def _probe(self, address: str) -> Peer | None:
        try:
            return await self._network.probe(address, PROBE_TIMEOUT_S)
        except PeerUnreachable:
            return None

    async def _ask_peers(self) -> str:
        """Ask the peers that have a cluster to register this node; return what is waited for, for people."""
        members = {}
        for address in self._peers:
            peer = await self._probe(address)
            if peer is not None and peer.cluster_id:
                members[peer.node_id] = address
        if not members:
            return "no peer has a cluster yet"
        # The first round only opens connections: nothing can be sent yet.
        self._network.set_peers(members)
        return self._ask_members(list(members))

    def _ask_members(self, node_ids: list[str]) -> str:
        """Ask members over the peer protocol to register this node; return what is waited for, for people.

        The answer is the configuration that the leader sends.
        """
        message: Register = {"type": "register", "request": 0, "member": _fields(self.me), "was": self._was_member()}
        for node_id in node_ids:
            self._node.links.send(node_id, message)
        return f"waiting for {', '.join(sorted(node_ids))} to register this node"


def _fields(member: Member) -> list[str]:
    return [member.id, member.incarnation, member.raft_address, member.address]
