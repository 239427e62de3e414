"""Rules of the settings that change while the cluster works, taken away."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from cacheflow.machine import image, machine
from cacheflow.machine.eviction.use_order import UseOrder
from cacheflow.machine.language import commands as c
from cacheflow.machine.machine import CacheMachine
from cacheflow.machine.state.contents import Contents
from cacheflow.machine.state.settings import changed
from cacheflow.node.assembly import LocalNode


def change_the_settings_at_any_version(patch: pytest.MonkeyPatch) -> None:
    """Let a change take place whatever version of the settings it names."""
    configure = CacheMachine._configure

    def _configure(self: Any, command: list[Any]) -> Any:
        return configure(self, [command[0], None, *command[2:]])

    patch.setitem(CacheMachine.other_commands, c.CONFIGURE, _configure)


def count_no_change_of_the_settings(patch: pytest.MonkeyPatch) -> None:
    """Let a change leave the version of the settings as it is, once there is one."""

    def _changed(settings: Any, *rest: Any) -> Any:
        new = changed(settings, *rest)
        return replace(new, version=settings.version or 1)

    patch.setattr(machine, "changed", _changed)


def forget_the_version_of_the_settings_at_a_snapshot(patch: pytest.MonkeyPatch) -> None:
    """Let snapshots say that the settings were changed once."""
    records = image.records

    def _records(state: Any) -> Any:
        for record in records(state):
            if record[0] == image.NAME:
                record[2]["settings"]["version"] = 1
            yield record

    patch.setattr(image, "records", _records)


def tell_no_front_of_new_settings(patch: pytest.MonkeyPatch) -> None:
    """Let the fronts go on with the settings that were there when the node started."""
    patch.setattr(LocalNode, "_take_settings", lambda self: None)


def evict_all_that_is_above_a_limit_at_once(patch: pytest.MonkeyPatch) -> None:
    """Evict whatever is above a lowered limit in one entry."""

    def _evict_surplus(self: Any) -> None:
        while not self.has_dead and self.is_over() and (victim := self.items.pop_victim("")) is not None:
            self.evict(*victim)
        self._note_backlog()

    patch.setattr(Contents, "_evict_surplus", _evict_surplus)


def keep_what_is_above_a_lowered_limit(patch: pytest.MonkeyPatch) -> None:
    """Evict nothing because a limit was lowered."""
    patch.setattr(Contents, "_evict_surplus", lambda self: None)


def look_for_keys_of_another_policy_where_their_versions_are(patch: pytest.MonkeyPatch) -> None:
    """Forget, at a change of policy, which segments the keys of the old order are in."""
    take_over = UseOrder.take_over

    def _take_over(self: Any, segments: Any, holders: Any, version: int) -> None:
        take_over(self, segments, {}, version)

    patch.setattr(UseOrder, "take_over", _take_over)
