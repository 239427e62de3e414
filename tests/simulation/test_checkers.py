"""The simulation finds what is broken on purpose: each mutation takes one rule away.

All of them: scripts/soak mutations.
"""

from __future__ import annotations

import pytest
from simulation.mutations_list import MUTATIONS, SEEDS_MAX, Mutation, find
from simulation.runner import run
from simulation.versions import Versions

from cacheflow.node.joining import Joining

# Each found by another kind of check, and soon.
QUICK = (
    "promise_before_it_is_durable",
    "call_it_not_done_when_the_leader_changes",
    "turn_the_clock_back_at_a_start",
    "found_without_listening",
    "tell_founders_apart_by_their_addresses",
    "keep_a_snapshot_that_nobody_has_loaded",
    "answer_every_read_of_a_batch",
    "forget_what_is_condemned_when_reading",
    "sweep_what_was_written_later",
    "forget_what_is_condemned_at_a_restore",
    "leave_what_is_to_go_to_the_next_write",
    "guess_the_size_of_a_call_without_its_keys",
    "keep_contents_that_the_disk_contradicts",
    "send_large_messages_whole",
    "overtake_nothing",
    "send_again_while_it_is_on_its_way",
    "carry_out_what_is_above_the_entrys_level",
    "raise_the_level_without_looking_at_all_members",
    "change_the_settings_at_any_version",
    "tell_no_front_of_new_settings",
    "evict_all_that_is_above_a_limit_at_once",
)
ROWS = (1, 2, 3, 4, 5, 6, 7, 9, 12, 16, 17, 21, 22, 23, 31, 33)


@pytest.mark.parametrize("name", QUICK)
def test_the_simulation_finds(name: str) -> None:
    (mutation,) = (mutation for mutation in MUTATIONS if mutation.name == name)
    found = find(mutation)
    assert found.seed is not None, f"not found within {SEEDS_MAX} seeds"
    assert found.without is None


def test_there_is_a_mutation_for_every_rule() -> None:
    rules = {mutation.rule for mutation in MUTATIONS}
    assert {f"row {row}" for row in ROWS} <= rules
    assert len(rules - {""}) == 133


def test_what_the_product_only_logs_ends_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    keep = Joining.keep

    async def stumbling(self: Joining) -> None:
        if not hasattr(self, "stumbled"):
            self.stumbled = True  # type: ignore[attr-defined]
            raise ValueError("once")
        await keep(self)

    monkeypatch.setattr(Joining, "keep", stumbling)
    assert "ValueError: once" in (run(1, 3, 5.0, kinds={}).violation or "")


def test_a_mutation_that_changes_nothing_is_not_found() -> None:
    found = find(Mutation("", lambda patch: None, "kill"), seeds_max=1)
    assert found.seed is None


def test_a_version_is_told_once() -> None:
    versions = Versions()
    versions.note(1.0, 2.0, 7)
    versions.note(1.5, 2.5, 7)
    assert versions.check() == "7 was told for two writes"


def test_versions_rise_with_time() -> None:
    versions = Versions()
    versions.note(1.0, 2.0, 8)
    versions.note(1.5, 2.5, 7)
    assert versions.check() is None
    versions.note(3.0, 4.0, 6)
    assert versions.check() is not None
