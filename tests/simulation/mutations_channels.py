"""What is promised of messages on channels, taken away: at most once, in order, whole, and to those alone who have asked."""

from __future__ import annotations

from typing import Any

import pytest

from cacheflow.node import channels
from cacheflow.node.channels import Channels


def hand_out_a_message_as_often_as_it_comes(patch: pytest.MonkeyPatch) -> None:
    """Take the parts of messages however late they come, and again."""
    add = channels._Source.add

    def _add(self: Any, message: Any) -> bytes | None:
        self.number = min(self.number, message["number"] - 1)
        return add(self, message)

    patch.setattr(channels._Source, "add", _add)


def believe_an_earlier_start(patch: pytest.MonkeyPatch) -> None:
    """Take what the process before this one of a node has sent, and count anew with every change."""
    receive = Channels.receive

    def _receive(self: Any, peer: Any, message: Any) -> None:
        source = self._sources.get(peer.node_id)
        if source is not None and source.start > peer.start:
            del self._sources[peer.node_id]
        receive(self, peer, message)

    patch.setattr(Channels, "receive", _receive)


def put_together_what_has_gaps(patch: pytest.MonkeyPatch) -> None:
    """Put the last part of a message behind whatever came before."""
    add = channels._Source.add

    def _add(self: Any, message: Any) -> bytes | None:
        if self.parts and not message["first"]:
            self.number = message["number"] - 1
            self.left = len(message["data"]) + message["left"]
            self.channel, self.shard = message["channel"], message["shard"]
        return add(self, message)

    patch.setattr(channels._Source, "add", _add)


def hand_out_the_latest_first(patch: pytest.MonkeyPatch) -> None:
    """Hand out last what has waited longest."""
    queue = Channels._queue

    def _queue(self: Any, published: Any) -> None:
        queue(self, published)
        self._to_hand_out.rotate(1)

    patch.setattr(Channels, "_queue", _queue)


def give_everything_to_everybody(patch: pytest.MonkeyPatch) -> None:
    """Give a message to all who have subscribed to any channel."""

    def _found(self: Any, published: Any) -> Any:
        return [(None, subscribers) for subscribers in self.subscribed["channel"].values()]

    patch.setattr(Channels, "_found", _found)


def go_on_after_the_end_of_a_subscription(patch: pytest.MonkeyPatch) -> None:
    """Give to those who have unsubscribed what is published later."""
    patch.setattr(Channels, "unsubscribe", lambda self, subscriber, space, name: None)


def keep_what_is_published_to_this_node(patch: pytest.MonkeyPatch) -> None:
    """Tell the other nodes nothing."""
    patch.setattr(Channels, "_send", lambda self, channel, data, shard: None)
