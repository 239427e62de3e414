"""Runs the scripts beside it over the simulation: commands, and below each what the nodes then say to each other.

    # A comment.
    write n2 color=blue
    ----
    n2 -> n1 propose
    n1 -> n2 append_entries term 2, after 3 of term 2, entry 4
    n1 leader commits 4

A command line is followed by ``----`` and what it prints, up to an empty line. Messages that only say that a leader is there
(heartbeats and their answers) are left out. Every way takes 1 ms and every disk 0.5 ms, so the order is the protocol's.

    cluster N             N empty nodes: n1 founds, the others join
    write NODE KEY=VALUE  a client's write through that node, until it is answered
    send NODE KEY=VALUE   the same without waiting; its answer is printed when it comes
    stop NODE             the process ends at once (kill -9)
    start NODE            it starts again on its disk
    cut A B               nothing passes between the two, in either direction
    heal A B              everything does again
    damage NODE           its contents in memory are another
    compact NODE          it builds a snapshot and trims its log
    remove NODE           an operator takes the member out
    quietly COMMAND       as COMMAND, and prints nothing
    pass SECONDS          time passes
    state                 where everybody stands
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from simulation.clients import nobody_waits
from simulation.cluster import Cluster, Host, Process, patched
from simulation.network import SimNetwork

from cacheflow.contract import Outcome
from cacheflow.machine.language import commands
from cacheflow.raft.peers import REPLICATE
from cacheflow.values import TEXT

LONGEST_S = 20.0
# No snapshot is built by itself: scripts say when.
NEVER = 10**9
PIECE_BYTES = 800


class Script:
    """One cluster, driven by the lines of a script. stack: ends what ``cluster`` begins."""

    def __init__(self, patch: pytest.MonkeyPatch, stack: ExitStack) -> None:
        self._stack = stack
        self._cluster = Cluster(1, 0)
        self._said: list[str] = []
        self._answers = 0
        self._seen: dict[str, tuple[Any, ...]] = {}
        # By way: where the last probe began, and what the last answer said is there.
        self._told: dict[tuple[str, str, str], tuple[Any, ...]] = {}
        send = SimNetwork.send

        def told(site: SimNetwork, node_id: str, message: dict[str, Any]) -> bool:
            sent = send(site, node_id, message)
            if sent and self._is_news(site, node_id, message):
                self._said.append(f"{site.node_id} -> {node_id} {describe(message)}")
            return sent

        patch.setattr(SimNetwork, "send", told)
        self._commands: dict[str, Callable[..., None]] = {
            "cluster": self._found,
            "write": self._write,
            "send": self._send,
            "stop": self._stop,
            "start": self._start,
            "cut": self._cut,
            "heal": self._heal,
            "damage": self._damage,
            "compact": self._compact,
            "remove": self._remove,
            "pass": self._pass,
            "state": self._state,
        }

    def run(self, line: str) -> list[str]:
        """Carry out one command; the lines that it prints."""
        name, *arguments = line.split()
        quietly = name == "quietly"
        if quietly:
            name, *arguments = arguments
        self._said = []
        self._commands[name](*arguments)
        return [] if quietly else self._said

    # Commands.

    def _found(self, count: str) -> None:
        cluster = self._cluster = Cluster(1, int(count))
        self._stack.enter_context(patched(cluster, journal_bytes=NEVER, piece_bytes=PIECE_BYTES))
        cluster.wire.usual_delay_s = cluster.wire.delay_s = (0.001, 0.001)
        for host in cluster.hosts:
            host.set_disk_latency((0.0005, 0.0005))
            self._begin(host)
        self._until(cluster.healthy)

    def _write(self, node_id: str, pair: str) -> None:
        answered = self._answers
        self._send(node_id, pair)
        self._until(lambda: self._answers > answered)
        # What is still on its way belongs to this write too.
        self._run(0.05)

    def _send(self, node_id: str, pair: str) -> None:
        key, _, value = pair.partition("=")

        def done(outcome: Outcome) -> Callable[[], None]:
            self._answers += 1
            answer = "ok" if isinstance(outcome, list) else type(outcome).__name__
            self._said.append(f"{node_id} answers {pair}: {answer}")
            return nobody_waits

        self._process(node_id).inbox.submit([commands.set_(key, value.encode(), TEXT)], done, LONGEST_S)

    def _stop(self, node_id: str) -> None:
        self._cluster.crash(self._host(node_id), power=False)

    def _start(self, node_id: str) -> None:
        self._begin(self._host(node_id))

    def _cut(self, one: str, other: str) -> None:
        self._cluster.wire.cut(one, other)
        self._cluster.wire.cut(other, one)

    def _heal(self, one: str, other: str) -> None:
        self._cluster.wire.heal(one, other)
        self._cluster.wire.heal(other, one)

    def _damage(self, node_id: str) -> None:
        process = self._process(node_id)
        self._cluster.checks.damaged[process.name] = process.machine
        process.machine.contents.revision += 1000

    def _compact(self, node_id: str) -> None:
        process = self._process(node_id)
        process.node.building.build()
        index = process.node.last_applied
        self._until(lambda: process.journal.first_index >= index)
        self._said.append(f"{node_id} has a snapshot at {index}, its log begins behind it")

    def _remove(self, node_id: str) -> None:
        answers: list[str] = []
        leader = self._cluster.leader
        assert leader is not None
        leader.node.reconfiguration.remove(node_id, "", lambda outcome, _: answers.append(outcome))
        self._until(lambda: bool(answers))
        self._said.append(f"the operator is told: {answers[0]}")
        self._run(0.05)

    def _pass(self, seconds: str) -> None:
        self._run(float(seconds))

    def _state(self) -> None:
        for process in self._cluster.processes:
            node = process.node
            voters = ",".join(node.configurations.latest.voters)
            self._said.append(
                f"{process.node_id} {node.role} term {node.term}, log {process.journal.first_index}.."
                f"{process.journal.last_index}, commit {node.commit_index}, applied {node.last_applied}, voters {voters}"
            )
            if node.is_leader:
                for node_id, progress in node.peers.progress.items():
                    self._said.append(f"   {node_id} {progress.state}, match {progress.match_index}")

    # Inside.

    def _begin(self, host: Host) -> None:
        problem = self._cluster.start(host)
        if problem is not None:
            self._said.append(f"{host.node_id} refuses to start: {problem}")

    def _host(self, node_id: str) -> Host:
        return next(host for host in self._cluster.hosts if host.node_id == node_id)

    def _process(self, node_id: str) -> Process:
        process = self._host(node_id).process
        assert process is not None, f"{node_id} does not run"
        return process

    def _until(self, condition: Callable[[], bool]) -> None:
        assert self._cluster.run(LONGEST_S, lambda: self._looked() or condition()), "it does not come to an end"

    def _run(self, seconds: float) -> None:
        self._cluster.run(seconds, self._looked)

    def _is_news(self, site: SimNetwork, node_id: str, message: dict[str, Any]) -> bool:
        """Heartbeats are none, unless they probe; nor are answers that say the same as the one before."""
        kind = str(message["type"])
        if kind == "append_entries" and not message["entries"]:
            if self._process(site.node_id).node.peers.progress[node_id].state == REPLICATE:
                return False
            told: tuple[Any, ...] = (message["term"], message["prevLogIdx"])
        elif kind == "append_ack":
            told = (message["term"], message["ok"], message.get("match"), message.get("prev"))
        else:
            return True
        way = (site.node_id, node_id, kind)
        before, self._told[way] = self._told.get(way), told
        return before != told

    def _looked(self) -> bool:
        """Note who became what and what was committed; never ends a run."""
        for process in self._cluster.processes:
            node = process.node
            now = (node.role, node.term, node.commit_index)
            before = self._seen.get(process.name)
            if before is not None and before != now:
                if before[:2] != now[:2]:
                    self._said.append(f"{process.node_id} {node.role} in term {node.term}")
                if before[2] != now[2]:
                    self._said.append(f"{process.node_id} commits {node.commit_index}")
            self._seen[process.name] = now
        return False


def describe(message: dict[str, Any]) -> str:
    """One message, in the words of the protocol."""
    kind = str(message["type"])
    told: list[str] = []
    if kind == "append_entries":
        told = [f"term {message['term']}", f"after {message['prevLogIdx']} of term {message['prevLogTerm']}"]
        indexes = [entry[1] for entry in message["entries"]]
        if indexes:
            told.append(f"entr{'y' if len(indexes) == 1 else 'ies'} {_range(indexes)}")
        told.append(f"commit {message['commit_index']}")
    elif kind == "append_ack":
        told = [f"has {message['match']}" if message["ok"] else f"has not {message['prev']}, ends at {message['last']}"]
    elif kind == "commit":
        told = [str(message["index"])]
    elif kind in ("pre_vote", "request_vote"):
        told = [
            f"term {message['term']}",
            f"log ends at {message['last_log_index']} of term {message['last_log_term']}",
        ]
    elif kind == "pre_vote_reply":
        told = [f"term {message['term']}", "granted" if message["granted"] else "refused"]
    elif kind == "response_vote":
        told = [f"term {message['term']}"]
    elif kind == "snapshot":
        told = [f"at {message['index']}", "the last piece" if _is_last(message) else "a piece"]
    elif kind == "snapshot_ack":
        told = [f"at {message['index']}", "all of it is in place" if message["done"] else "go on"]
    elif kind in ("register", "remove"):
        told = [message["member"][0]]
    elif kind == "change_reply":
        told = [message["outcome"]]
    return f"{kind} {', '.join(told)}".strip()


def _range(indexes: list[int]) -> str:
    return str(indexes[0]) if len(indexes) == 1 else f"{indexes[0]} to {indexes[-1]}"


def _is_last(message: dict[str, Any]) -> bool:
    return bool(message["offset"] + len(message["data"]) >= message["bytes"])


def blocks(path: Path) -> Iterator[tuple[list[str], str, list[str]]]:
    """(comment and empty lines before, command, expected lines) of a script, in order."""
    before: list[str] = []
    lines = iter(path.read_text().splitlines())
    for line in lines:
        if not line or line.startswith("#"):
            before.append(line)
            continue
        assert next(lines, "") == "----", f"{path.name}: {line!r} is not followed by ----"
        expected = []
        for told in lines:
            if not told:
                break
            expected.append(told)
        yield before, line, expected
        before = [""]
