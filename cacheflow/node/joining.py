"""Joining: how a node becomes a member: it returns to its own cluster, joins one that it finds, or founds one.

1. A node whose journal names a configuration goes on with it.
2. A node without data looks before it founds, and joins what it finds: a member among its seeds or its peers, or one that
   dials it. Members dial every address of their table at least once a second, so a founder whose disk was emptied hears
   of its old cluster although its command names nobody. Once it has seen a cluster it founds none.
3. With neither ``seed`` nor ``peers`` it founds a cluster of one when nobody has dialed it for LISTEN_S.
4. With ``peers``, and with as many seeds as ``bootstrap_expect`` says, the founding nodes meet first: when all answer and
   all are without data, the one with the lowest id founds, and the others join it. Who is there is what their hellos say:
   one node may have several addresses, and find itself at one.
5. With ``seed`` alone it never founds, and neither does an observer. With ``bootstrap`` it founds at once.

A member that registers somebody dials the address first: only what answers there, with the cluster's secret, has an
identity, and that identity (id and incarnation) is what becomes a member.

A node that had left by itself, and comes back empty, joins through the members that it had left, beside its seeds and peers, and
never founds (``raft/log/departure.py``).

A node that was removed stays out: its request says that it has been a member, and a cluster that lists it no more refuses.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import astuple, replace

from cacheflow.config import OBSERVER, NodeConfig
from cacheflow.errors import ConfigError, InvalidRequest, NoCluster
from cacheflow.machine.state.settings import Member, member_of
from cacheflow.node.registration import AskSeed
from cacheflow.raft.membership.changes import JOINED, KNOWN, UNSURE
from cacheflow.raft.message_types import Register
from cacheflow.raft.node import RaftNode
from cacheflow.raft.transport.network import Network, Peer, PeerUnreachable

logger = logging.getLogger(__name__)

# Seconds for which a node without data, seeds and peers listens for its cluster: a member dials it once a second, and a
# connection that the network loses is tried again after one or two.
LISTEN_S = 3.0
# Seconds between two attempts to become a member, and between two probes of the peers.
AGAIN_S = 0.25
# Seconds between two checks that this node is still a member, with the addresses that it has now.
LOOK_S = 1.0
# Seconds for which a node's way into a cluster may take without being worth a warning: others may start later than this one.
QUIET_S = 10.0
# Seconds for dialing a node and shaking hands with it.
PROBE_TIMEOUT_S = 2.0
# Seconds for the leader's answer: with the probe before, no longer than the newcomer's request waits (registration.py).
REGISTER_TIMEOUT_S = 8.0


class Joining:
    """Makes a node a member: of the cluster that it was in, of one that it finds, or of one that it founds.

    http_address: host:port under which the list of members shows this node.
    came_from: Raft addresses of the members of the cluster that this node had left, to which it comes back; empty for others.
    ask_seed: asks a member over HTTP to register this node.
    random_bytes: makes the id of a cluster that this node founds.
    Only the event loop uses this object.
    """

    def __init__(
        self,
        node: RaftNode,
        network: Network,
        config: NodeConfig,
        http_address: str,
        *,
        came_from: Sequence[str],
        ask_seed: AskSeed,
        random_bytes: Callable[[int], bytes],
    ) -> None:
        # What this node still waits for on its way into a cluster, for people; "" once it is a member. Any thread.
        self.waits_for = ""
        # Whether this start of the node has founded its cluster.
        self.has_founded = False
        self._node = node
        self._network = network
        self._config = config
        self._http_address = http_address
        self._ask_seed = ask_seed
        self._random_bytes = random_bytes
        self._came_from = came_from
        # True once there is a cluster that this node has to join: its log is a cluster's whose members it does not know yet, or
        # it had left one.
        self._found_one = bool(node.configurations.own_cluster() or came_from)

    @property
    def _level(self) -> int:
        return self._node.replica.machine.build_level

    @property
    def me(self) -> Member:
        """This node's entry for the member table, with its present addresses; the node's network must listen already."""
        node, network, observer = self._node, self._network, self._config.role == OBSERVER
        return Member(node.node_id, node.incarnation, network.raft_address, self._http_address, False, observer)

    def found_at_once(self) -> None:
        """Found a cluster of this node alone if the node has no data and its setting ``bootstrap`` is on.

        Called before the node starts. Raises ConfigError if no member may have this node's id or addresses.
        """
        try:
            member_of(list(astuple(self.me)))
        except ValueError as error:
            raise ConfigError(f"this node cannot be a member of any cluster: {error}") from None
        if self._config.bootstrap and not (self._is_known() or self._found_one):
            self._found()

    async def keep(self) -> None:
        """Register this node with the cluster whenever the member table lacks the node or its present addresses.

        Returns once the cluster has removed this node.
        """
        while self._node.removal.removed_at is None:
            if not self._is_current():
                await self.run()
            await asyncio.sleep(LOOK_S)

    async def run(self) -> None:
        """Try to register until this node is a member with its present addresses, or until the cluster has removed the node."""
        # Pauses are added up and time is not: nobody can dial a process that stands still.
        listened_s = 0.0
        told = "", False
        while not self._is_current():
            if self._node.removal.removed_at is not None:
                return
            listened = listened_s >= LISTEN_S
            if self._came_from and not self._is_known():
                waits_for = await self._back(listened)
            elif self._config.seed:
                waits_for = await self._through_seeds(listened)
            elif self._is_known() and not (self._node.removal.disowned and self._config.peers):
                waits_for = await self._ask_leader()
            else:
                waits_for = await self._through_peers(listened)
            is_late = listened_s >= QUIET_S
            if waits_for and (waits_for, is_late) != told:
                logger.log(logging.WARNING if is_late else logging.INFO, "not a member yet: %s", waits_for)
                told = waits_for, is_late
            self.waits_for = waits_for
            await asyncio.sleep(AGAIN_S)
            listened_s += AGAIN_S
        self.waits_for = ""
        logger.info("member of the cluster")

    async def register(
        self, node_id: str, address: str, raft_address: str, was_member: bool = False, observer: bool = False
    ) -> tuple[str, str]:
        """Dial ``raft_address`` and have the node that answers there made a member; return (outcome, text for people).

        node_id: the id that the node there must have.  address: that node's HTTP address.  observer: that node never votes.
        was_member: whether that node says that it has been a member. If it says so and is no member now, it was removed, and
        the outcome is CONFLICT.
        Raises InvalidRequest; NoCluster if the node that runs this belongs to no cluster itself.
        """
        if not self._is_known():
            raise NoCluster(self._network.raft_address)
        try:
            peer = await self._network.probe(raft_address, PROBE_TIMEOUT_S)
        except ValueError as error:
            raise InvalidRequest(f"raft_address: {error}") from None
        except PeerUnreachable as error:
            raise InvalidRequest(f"no node of this cluster answers at {raft_address}: {error}") from None
        if peer.node_id != node_id:
            raise InvalidRequest(f"the node at {raft_address} has the id {peer.node_id!r}, not {node_id!r}")
        try:
            member = member_of([node_id, peer.incarnation, raft_address, address, False, observer])
        except ValueError as error:
            raise InvalidRequest(str(error)) from None
        return await self._register(member, peer.level, was_member)

    async def _register(self, member: Member, level: int, was_member: bool) -> tuple[str, str]:
        answer: asyncio.Future[tuple[str, str]] = asyncio.get_running_loop().create_future()

        def done(outcome: str, detail: str) -> None:
            if not answer.done():
                answer.set_result((outcome, detail))

        self._node.reconfiguration.register(member, done, was_member, level)
        try:
            return await asyncio.wait_for(answer, REGISTER_TIMEOUT_S)
        except TimeoutError:
            return UNSURE, "the leader did not answer in time"

    def _is_known(self) -> bool:
        return bool(self._node.configurations.latest.members)

    def _was_member(self) -> bool:
        """True if this node's log lists the node as a member, and no member has said that this log entry was dropped."""
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
        cluster_id = self._random_bytes(8).hex()
        self.has_founded = True
        self._node.found_cluster(cluster_id, replace(self.me, voter=True))
        logger.info(
            "founded cluster %s. If this node has lost the data of another cluster whose members are all down: end it, "
            "remove its data directory, and start it with the others as --seed",
            cluster_id,
        )

    # Ways in: each makes one attempt and returns what is waited for, for people. listened: for LISTEN_S --------------

    async def _through_seeds(self, listened: bool) -> str:
        me, founders = self.me, self._config.bootstrap_expect
        document = {
            "id": me.id,
            "address": me.address,
            "raft_address": me.raft_address,
            "was_member": self._was_member(),
            "role": self._config.role,
        }
        answers = await asyncio.gather(*(self._ask_seed(url, document) for url in self._config.seed))
        if not all(answer.problem for answer in answers):
            self._found_one = True
            return ""
        # What a seed with a cluster says helps more than that another one has none.
        problems = [answer.problem for answer in answers if not answer.empty_at]
        if problems or self._is_known():
            return "; ".join(filter(None, [self._ask_callers(), *problems])) or answers[0].problem
        if founders is None:
            return self._ask_callers() or (
                "no seed belongs to a cluster: start one of the nodes with --bootstrap, or all with --bootstrap-expect"
            )
        return await self._meet([answer.empty_at for answer in answers], founders, listened)

    async def _ask_leader(self) -> str:
        """Ask the leader to write this node's present addresses into the member table.

        Returns what the node still waits for, as text for people; "" if nothing.
        """
        if self._node.links.route is None:
            # The leader dials this node's old address, and may have moved itself; another member can pass the request on.
            # If all have moved, a probe shows the network where they are.
            await asyncio.gather(*(self._probe(address) for address in self._config.peers))
            return self._ask_members(list(self._node.membership.others()))
        outcome, detail = await self._register(self.me, self._level, self._was_member())
        return "" if outcome in (JOINED, KNOWN) else detail

    async def _back(self, listened: bool) -> str:
        """Join the cluster that this node had left, through the members that it had then, or, if these are gone, others.

        The others are the seeds or peers in this node's settings. Returns what this node still waits for, as text for people;
        "" if nothing.
        """
        waits_for = await self._meet([*self._came_from, *self._config.peers], 1, listened)
        if waits_for and self._config.seed:
            return await self._through_seeds(listened)
        return waits_for

    async def _through_peers(self, listened: bool) -> str:
        return await self._meet(self._config.peers, 1, listened)

    async def _meet(self, addresses: Sequence[str], least: int, listened: bool) -> str:
        """Dial the nodes at ``addresses``; join the cluster that one of these belongs to; if none belongs to one, found one.

        least: how many nodes must answer before a cluster is founded, this one counted.
        Returns what this node still waits for, as text for people; "" if nothing.
        """
        met = await asyncio.gather(*(self._probe(address) for address in addresses))
        there = [peer for peer in met if isinstance(peer, Peer) and peer.epoch != self._network.epoch]
        if self._is_known() and not self._node.removal.disowned:
            return ""
        for peer in there:
            if peer.node_id == self._node.node_id:
                return f"another node, at {peer.raft_address}, has the id {peer.node_id!r} too"
        members = {peer.node_id: peer.raft_address for peer in there if peer.cluster_id}
        if members:
            self._found_one = True
            # The first round only opens connections: nothing can be sent yet.
            self._network.set_peers(members)
            return self._ask_members(list(members))
        absent = [peer for peer in met if isinstance(peer, str)]
        waits_for = self._ask_callers()
        if waits_for or absent:
            return waits_for or f"no answer from {absent[0]}"
        if self._found_one or self._is_known():
            return "the cluster that was found answers no more"
        if self.me.observer:
            return "an observer founds no cluster: start it with a member of one as --seed"
        ids = sorted({self._node.node_id, *(peer.node_id for peer in there)})
        if len(ids) < least:
            return f"{len(ids)} of {least} nodes are there"
        if ids[0] != self._node.node_id or (len(there) == len(addresses) >= least > 1):
            # A node that is not among the given addresses founds together with nobody.
            return f"waiting for {ids[0]} to found the cluster"
        if len(ids) == 1 and not listened:
            return f"listening for {LISTEN_S:g} s whether a cluster knows this node"
        self._found()
        self._node.ticks.wake()
        return ""

    async def _probe(self, address: str) -> Peer | str:
        """Dial ``address`` and return the node that answers at it; if none does, return the reason as text for people."""
        try:
            return await self._network.probe(address, PROBE_TIMEOUT_S)
        except PeerUnreachable as error:
            return f"{address}: {error}"

    def _ask_callers(self) -> str:
        """Ask the members that have dialed this node to register it; they dialed because their cluster lists this node's id.

        Returns what this node waits for, as text for people; "" if no member has dialed.
        """
        callers = [peer.node_id for peer in self._network.callers if peer.cluster_id]
        if not callers:
            return ""
        self._found_one = True
        return self._ask_members(callers)

    def _ask_members(self, node_ids: list[str]) -> str:
        """Send the members ``node_ids`` a request to register this node; return what this node waits for, as text for people.

        No reply follows a request that succeeds: the leader sends the log entry with the new member table instead.
        """
        message: Register = {
            "type": "register",
            "request": 0,
            "member": _fields(self.me),
            "observer": self.me.observer,
            "was": self._was_member(),
            "level": self._level,
        }
        for node_id in node_ids:
            self._node.links.send(node_id, message)
        waits_for = f"waiting for {', '.join(sorted(node_ids))} to register this node"
        refusal = self._node.reconfiguration.refusal
        return f"{waits_for}: {refusal}" if refusal else waits_for


def _fields(member: Member) -> list[str]:
    return [member.id, member.incarnation, member.raft_address, member.address]
