"""What a real node tells of its past: samples while it serves, and in its events that it stood still."""

from __future__ import annotations

import signal
import time
from pathlib import Path

from cluster.processes import NodeProcess, wait_for


def test_a_server_has_a_sample_at_once_and_says_that_it_was_stopped(folder: Path) -> None:
    node = NodeProcess(1, folder).start()
    try:
        wait_for(node.is_ready, "the node is ready")
        wait_for(lambda: node.ask("GET", "/history").body["times"], "there is a sample")
        history = node.ask("GET", "/history").body
        assert abs(history["times"][0] - time.time()) < 60 and history["series"]["max_items"][-1] is not None
        assert [event["what"] for event in node.ask("GET", "/events").body["events"][:2]] == ["node", "leader"]
        following = node.ask("GET", "/events").body["next"]
        node.signal(signal.SIGSTOP)
        # What is waited for is nothing but time.
        time.sleep(2.5)
        node.signal(signal.SIGCONT)
        told = wait_for(
            lambda: [
                event["text"]
                for event in node.ask("GET", f"/events?since={following}").body["events"]
                if event["what"] == "node"
            ],
            "it says that it stood still",
        )
        assert told[0].startswith("this node stood still for ")
        page = node.ask("GET", "/", headers={"Accept": "text/html"})
        assert page.status == 200 and page.headers["content-type"] == "text/html; charset=utf-8"
    finally:
        node.kill()


def test_who_goes_on_where_it_was_misses_no_event_of_a_node_that_was_started_again(folder: Path) -> None:
    node = NodeProcess(1, folder).start()
    try:
        wait_for(node.is_ready, "the node is ready")
        following = node.ask("GET", "/events").body["next"]
        node.kill()
        node.start()
        wait_for(node.is_ready, "the node is ready again")
        told = node.ask("GET", f"/events?since={following}").body["events"]
        assert [event["what"] for event in told[:2]] == ["node", "leader"]
    finally:
        node.kill()
