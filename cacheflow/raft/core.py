"""Core: a node's Raft state, PySyncObj driven by our event loop, with every seam that we use in one place.

PySyncObj decides who leads, what a follower appends and what is committed. Around it:

1. The journal takes the place of its log, our link the place of its transport; neither its poller, its serializer,
   its threads nor its pickle are used.
2. The commit index never goes back, and a leader never commits what it has not flushed itself (audit 9).
3. A campaign starts with a pre-vote (dissertation 9.6), and only where this node is a voter (4.2.1).
4. PySyncObj's whole tick looks at every deadline and counts every vote: it is due a few times a second, and when some
   node's role may change. Entries and acknowledgements of one leader in one term, which come with load, take the short
   ways ``advance`` and ``extend``, which do the same to the same attributes for a fifth of the time.
5. A method ``__name`` of SyncObj is overridden as ``_SyncObj__name``. ``SEAMS`` lists what we rely on; the constructor
   fails loudly on any other version.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from operator import attrgetter
from types import SimpleNamespace
from typing import Any, Protocol

import pysyncobj.syncobj as pysyncobj_module
from pysyncobj import SyncObj, SyncObjConf
from pysyncobj.node import Node
from pysyncobj.transport import Transport
from pysyncobj.version import VERSION

from cacheflow.errors import ConfigError
from cacheflow.raft.log.journal import Journal
from cacheflow.raft.log.records import NO_OP, LogEntry

PYSYNCOBJ_VERSION = "0.3.17"
# The private methods of SyncObj that this module overrides or calls.
SEAMS = (
    "_SyncObj__onBecomeLeader",
    "_SyncObj__setState",
    "_SyncObj__sendAppendEntries",
    "_SyncObj__applyLogEntries",
    "_SyncObj__tryLogCompaction",
    "_SyncObj__getEntries",
    "_SyncObj__generateRaftTimeout",
    "_SyncObj__setCurrentTerm",
    "_SyncObj__connectedToAnyone",
    "_SyncObj__updateClusterConfiguration",
    "_SyncObj__onMessageReceived",
    "_checkCommandsToApply",
    "_onTick",
)

FOLLOWER, CANDIDATE, LEADER = 0, 1, 2
# Nodes whose objects are kept: members and former members, all of which have proved that they know the cluster's secret.
NODES_MAX = 1000
ROLE_NAMES = ("follower", "candidate", "leader")


class Driver(Protocol):
    """Interface: the calls that a node's Raft state, ``Core``, makes to the RaftNode that owns it."""

    def send_vote_message(self, node_id: str, message: dict[str, Any]) -> None: ...
    def apply_committed(self) -> None: ...
    def propose_queued(self) -> None: ...
    def replicate(self) -> None: ...
    def start_pre_vote(self) -> None: ...
    def may_campaign(self) -> bool: ...
    def leader_silent(self, node_id: str) -> None: ...
    def hold(self, begin: Callable[[], None]) -> None: ...
    def before_leading(self) -> None: ...
    def role_changed(self) -> None: ...


class Link(Transport):  # type: ignore[misc]
    """The transport that PySyncObj, the Raft library, is given: it passes vote messages to the node.

    The node sends all other messages itself, and opens and closes connections by its member table: the library's calls addNode
    and dropNode do nothing here, as in the base class.
    """

    def __init__(self, driver: Driver) -> None:
        super().__init__(None, None, [])
        self._driver = driver

    ready = True

    def send(self, node: Node, message: dict[str, Any]) -> None:
        """Have this node send ``message`` to ``node``: a vote or timeout_now, made by PySyncObj, the Raft library.

        Drops the library's acknowledgements (next_node_idx): this node has a message of its own for that.
        """
        if message["type"] != "next_node_idx":
            self._driver.send_vote_message(node.id, message)


class Core(SyncObj):  # type: ignore[misc]
    """One node's Raft state: role, term, votes, commit index. Not safe for concurrent use: the event loop owns it."""

    # These two are read before SyncObj's constructor has set them.
    _SyncObj__raftState = FOLLOWER
    _SyncObj__raftLeader: Node | None = None

    def __init__(
        self,
        node_id: str,
        journal: Journal,
        driver: Driver,
        *,
        election_timeout_s: float,
        heartbeat_s: float,
        random: Callable[[], float],
    ) -> None:
        check_pysyncobj()
        self._SyncObj__raftElectionDeadline = math.inf
        self._driver = driver
        self._journal = journal
        # Plain attributes, because every step of an entry reads them: the role (FOLLOWER, CANDIDATE or LEADER); whether
        # this node leads, or believes so; the current term; the highest indexes known to be committed and applied here.
        self.role = FOLLOWER
        self.is_leader = False
        self.term = 0
        self.commit_index = 0
        self.last_applied = 0
        self._election_timeout_s = election_timeout_s
        self._random = random
        # A majority has promised its votes: the next tick may campaign; and whether the present one may.
        self._pre_vote_won = False
        self._may_begin = False
        # The leader has asked this node to take over, and it is campaigning for that reason.
        self.asked_to_lead = False
        # {id: its one Node object}: PySyncObj's dictionaries find the same object without comparing.
        self._nodes: dict[str, Node] = {}
        # The ids of the other voters, in order.
        self.voter_ids: list[str] = []
        # {voter id: index that it has acknowledged} and {voter id: time of its last answer}; PySyncObj gets both at whole ticks.
        self._match: dict[str, int] = {}
        self._heard_s: dict[str, float] = {}
        if len(journal) == 0:
            journal.add(NO_OP, 1, 0)
        conf = SyncObjConf(
            autoTick=False,
            dynamicMembershipChange=False,
            raftMinTimeout=election_timeout_s,
            raftMaxTimeout=2 * election_timeout_s,
            appendEntriesPeriod=heartbeat_s,
            connectionTimeout=10 * election_timeout_s,
            # A leader that lost its quorum must notice it soon (audit 18).
            leaderFallbackTimeout=2 * election_timeout_s,
        )
        super().__init__(Node(node_id), [], conf=conf, transport=Link(driver))
        # The event loop has polled already.
        self._poller = SimpleNamespace(poll=lambda timeout: None)
        self._SyncObj__raftLog = journal
        self.term = self._SyncObj__raftCurrentTerm = max(journal.getCurrentTerm(), journal.last_term)
        self._SyncObj__votedForNodeId = journal.getVotedForNodeId()
        self.commit_index = journal.getRaftCommitIndex()
        self.last_applied = journal.first_index

    # What PySyncObj reads and writes under these names ------------------------------------------------------------

    def _commit_up_to(self, index: int) -> None:
        if self.is_leader and index > self._journal.durable_index:
            index = self._journal.durable_index
            # Clipping must not commit an older term's entry by counting (dissertation 3.6.2).
            if self._journal.term_at(index) != self.term:
                return
        if index > self.commit_index:
            self.commit_index = index

    _SyncObj__raftCommitIndex = property(attrgetter("commit_index"), _commit_up_to)
    _SyncObj__raftLastApplied = property(
        attrgetter("last_applied"), lambda core, index: setattr(core, "last_applied", index)
    )

    def _SyncObj__setCurrentTerm(self, term: int, voted_for: str | None) -> None:
        super()._SyncObj__setCurrentTerm(term, voted_for)
        self.term = term

    def _SyncObj__getEntries(
        self, first: int | None, count: int | None = None, max_bytes: int | None = None
    ) -> list[tuple[bytes, int, int]]:
        """Return ``count`` (None: all) log entries from index ``first`` on; none if the log begins behind ``first``.

        Replaces a method of PySyncObj, the Raft library, which would copy the tail of the log."""
        first_index = self._journal.first_index
        if first is None or first < first_index:
            return []
        position = first - first_index
        if count == 1:
            return [self._journal[position]] if position < len(self._journal) else []
        return self._journal[position:] if count is None else self._journal[position : position + count]

    def _SyncObj__generateRaftTimeout(self) -> float:
        factor = self._random()
        if self.role == CANDIDATE or self._SyncObj__raftLeader is None:
            # The pause between rounds of an election: long enough for a round, short enough not to be an outage.
            return self._election_timeout_s * (0.3 + 0.5 * factor)
        return self._election_timeout_s * (1 + factor)

    def _SyncObj__applyLogEntries(self) -> bool:
        self._driver.apply_committed()
        return False

    def _SyncObj__sendAppendEntries(self) -> None:
        self._SyncObj__newAppendEntriesTime = self.now() + self.conf.appendEntriesPeriod
        self._driver.replicate()

    def _SyncObj__tryLogCompaction(self) -> None:
        """Do nothing where PySyncObj, the Raft library, would compact the log: the node itself snapshots and trims it."""

    def _checkCommandsToApply(self) -> None:
        self._driver.propose_queued()

    def _SyncObj__onBecomeLeader(self) -> None:
        # A single voter is elected by its own vote, which must be durable like any other. Otherwise it could lead one
        # term twice, with a crash in between, and observers would have two entries of one index and term.
        term, lead = self.term, super()._SyncObj__onBecomeLeader

        def begin() -> None:
            if self.role == CANDIDATE and self.term == term:
                self._driver.before_leading()
                self._match = dict.fromkeys(self.voter_ids, 0)
                self._heard_s.clear()
                lead()

        self._driver.hold(begin)

    def _SyncObj__setState(self, state: int) -> None:
        before = self.role
        super()._SyncObj__setState(state)
        self.role = state
        self.is_leader = state == LEADER
        if before != state:
            self._driver.role_changed()

    # What the node uses -------------------------------------------------------------------------------------------

    @staticmethod
    def now() -> float:
        """Return the monotonic time in seconds by which PySyncObj, the Raft library, sets its deadlines."""
        return float(pysyncobj_module.monotonicTime())

    @property
    def leader_id(self) -> str | None:
        """The id of the leader that this node follows, its own if it leads; None when it knows no leader."""
        leader = self._SyncObj__raftLeader
        return None if leader is None else str(leader.id)

    @property
    def has_settled(self) -> bool:
        """True if this node leads and has applied the no-op of its term: from then on it knows what is committed."""
        noop_index: int | None = self._SyncObj__noopIDx
        return self.is_leader and noop_index is not None and self.last_applied >= noop_index

    # (role, term, leader): a whole tick is due when any of them has changed.
    position = property(attrgetter("role", "term", "_SyncObj__raftLeader"))

    def advance(self) -> None:
        """Do a node's Raft work without elections: commit, apply and propose.

        Called in turns of the event loop in which role and membership cannot change.
        """
        if self.is_leader:
            # Dissertation 3.5 and 3.6.2, as in PySyncObj's tick, except that this node counts with what is durable here.
            indexes = sorted([*self._match.values(), self._journal.durable_index], reverse=True)
            index = indexes[len(indexes) // 2]
            if index > self.commit_index and self._journal.term_at(index) == self.term:
                self._commit_up_to(index)
        if self.last_applied < self.commit_index:
            self._driver.apply_committed()
        self._driver.propose_queued()

    def tick(self) -> None:
        """Run the whole tick of PySyncObj, the Raft library: hold elections, commit, apply, propose, replicate."""
        self._may_begin = False
        if self.role != LEADER and self._SyncObj__raftElectionDeadline < self.now():
            if not self._driver.may_campaign():
                # The leader was silent for a whole timeout, and others are to elect the next one.
                if (leader_id := self.leader_id) is not None:
                    self._driver.leader_silent(leader_id)
                self._SyncObj__raftLeader = None
                self._SyncObj__raftElectionDeadline = math.inf
            else:
                if not (self._pre_vote_won or self._SyncObj__transferInProgress):
                    # The leader was silent for a whole timeout. With no leader set, the next round comes sooner, if needed.
                    self._SyncObj__raftLeader = None
                    self._SyncObj__raftElectionDeadline = self.now() + self._SyncObj__generateRaftTimeout()
                    self._driver.start_pre_vote()
                self._may_begin = self._pre_vote_won or bool(self._SyncObj__transferInProgress)
            self._pre_vote_won = False
            self.asked_to_lead = bool(self._SyncObj__transferInProgress)
        self._tell_what_was_acknowledged()
        self._onTick(0.0)

    def _SyncObj__connectedToAnyone(self) -> bool:
        """Return whether this node may begin a campaign in this tick; PySyncObj asks when the election deadline is past.

        PySyncObj reads the clock again for that. A deadline that has passed since this class looked, because the processor was
        taken away in between, is for the next tick: a campaign takes a pre-vote, and a node that may have votes.
        """
        return self._may_begin and bool(super()._SyncObj__connectedToAnyone())

    def _tell_what_was_acknowledged(self) -> None:
        for node_id, heard_s in self._heard_s.items():
            node = self._node(node_id)
            self._SyncObj__lastResponseTime[node] = heard_s
            self._SyncObj__raftMatchIndex[node] = self._match[node_id]
        self._heard_s.clear()

    def campaign(self) -> None:
        """Let this node campaign when it next does its Raft work, because a majority has granted its pre-vote."""
        self._pre_vote_won = True
        self._SyncObj__raftElectionDeadline = 0.0

    def expect_election(self, after_s: float) -> None:
        """Let this node forget its leader, and campaign within ``after_s`` seconds unless another node is elected before."""
        if self.role != LEADER:
            self._SyncObj__raftLeader = None
            self._SyncObj__raftElectionDeadline = min(self._SyncObj__raftElectionDeadline, self.now() + after_s)

    def give_way(self, for_s: float) -> None:
        """Start no campaign for ``for_s`` seconds, because another node is about to be elected."""
        self._SyncObj__raftElectionDeadline = max(self._SyncObj__raftElectionDeadline, self.now() + for_s)

    def withdraw(self) -> None:
        """Drop the campaign that this node would start when it next does its Raft work, because a leader was heard."""
        self._pre_vote_won = False

    def postpone_election(self) -> None:
        """Start the election timeout again, because a leader was heard or this node may campaign from now on."""
        self._SyncObj__raftElectionDeadline = self.now() + self._SyncObj__generateRaftTimeout()

    def receive(self, node_id: str, message: dict[str, Any]) -> None:
        """Give ``message``, a checked message of the node ``node_id``, to PySyncObj, the Raft library, which acts on it."""
        self._SyncObj__onMessageReceived(self._node(node_id), message)

    def extend(self, node_id: str, term: int, commit_index: int, entries: Iterable[LogEntry]) -> bool:
        """Append a leader's ``entries`` to the log and take over the leader's ``commit_index``; return whether that was done.

        The entries must follow the log's last one. Nothing is done unless ``node_id`` is the leader that this node follows in
        ``term``.
        """
        leader = self._SyncObj__raftLeader
        if (
            leader is None
            or leader is not self._nodes.get(node_id)
            or term != self.term
            or self.role != FOLLOWER
            or self._SyncObj__transferInProgress
        ):
            return False
        for command, index, entry_term in entries:
            # A committed entry has its majority without this node, so nobody waits for its flush here.
            self._journal.add(command, index, entry_term, awaited=index > commit_index)
        self._commit_up_to(min(commit_index, self._journal.last_index))
        self._SyncObj__leaderCommitIndex = commit_index
        self.postpone_election()
        return True

    def _node(self, node_id: str) -> Node:
        node = self._nodes.get(node_id)
        if node is None:
            # Voters and senders of messages have an object here: members and former members.
            if len(self._nodes) >= NODES_MAX:
                self._nodes.clear()
            node = self._nodes[node_id] = Node(node_id)
        return node

    def adopt_term(self, term: int) -> None:
        """Make this node a follower in ``term``, with no vote given yet, if that is a later term; else do nothing."""
        if term > self.term:
            self._SyncObj__setCurrentTerm(term, None)
            self.step_down()

    def step_down(self) -> None:
        """Make this node a follower that knows no leader: it stops leading or campaigning."""
        self._SyncObj__raftLeader = None
        self._SyncObj__setState(FOLLOWER)
        self.postpone_election()

    def acknowledge(self, node_id: str, match_index: int | None) -> None:
        """Note that the follower ``node_id`` has answered a message of this leader.

        match_index: the follower has the log up to this index; None if it has rejected the message. A voter's index counts
        towards the commit index.
        """
        before = self._match.get(node_id)
        if before is None:
            return
        self._heard_s[node_id] = self.now()
        if match_index is not None and match_index > before:
            self._match[node_id] = match_index

    @property
    def acknowledged_by_others(self) -> int:
        """The highest log index that a majority of all voters has acknowledged without this leader; 0 if there is none."""
        indexes = sorted(self._match.values(), reverse=True)
        majority = (len(indexes) + 1) // 2 + 1
        return indexes[majority - 1] if len(indexes) >= majority else 0

    def ask_to_lead(self, node_id: str) -> bool:
        """Ask the voter ``node_id`` to campaign now if it has this leader's whole log (timeout_now, Raft dissertation 3.10).

        Returns whether the voter was asked.
        """
        if self._match.get(node_id, 0) != self._journal.last_index:
            return False
        self._tell_what_was_acknowledged()
        self.transferLeadership(self._node(node_id))
        return True

    def set_voters(self, node_ids: Iterable[str]) -> None:
        """Set the ids of the other voters to ``node_ids``, those of the log's latest member table.

        The latest table is in force whether it is committed or not (Raft dissertation 4.1).
        """
        self.voter_ids = sorted(node_ids)
        nodes = [self._node(node_id) for node_id in self.voter_ids]
        for node in nodes:
            if node not in self._SyncObj__otherNodes:
                self._SyncObj__lastResponseTime[node] = self.now()
        self._SyncObj__updateClusterConfiguration(nodes)
        self._match = {node_id: self._match.get(node_id, 0) for node_id in self.voter_ids}
        self._heard_s.clear()

    def set_connected(self, node_id: str, connected: bool) -> None:
        """Tell PySyncObj, the Raft library, whether this node has a connection to ``node_id``."""
        if connected:
            self._SyncObj__connectedNodes.add(self._node(node_id))
        else:
            self._SyncObj__connectedNodes.discard(self._node(node_id))

    def restart_at(self, index: int) -> None:
        """Continue applying behind the log entry ``index``, because the state machine was replaced by a snapshot up to it."""
        self.last_applied = index
        self.commit_index = max(self.commit_index, index)


def check_pysyncobj() -> None:
    """Check that the installed PySyncObj, the Raft library, is the version whose internals are used. Raises ConfigError."""
    missing = [name for name in SEAMS if not hasattr(SyncObj, name)]
    if VERSION != PYSYNCOBJ_VERSION or missing:
        raise ConfigError(
            f"pysyncobj {VERSION} is installed, {PYSYNCOBJ_VERSION} is needed: pip install pysyncobj=={PYSYNCOBJ_VERSION}"
        )
