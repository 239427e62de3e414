"""All mutations, and how each is looked for: the check of the checkers.

A mutation takes one rule out of the product, by a patch; the simulation must notice within SEEDS_MAX seeds. A rule named
"row N" is row N of the audit of PySyncObj 0.3.17: the mutation is what PySyncObj does, on our journal and snapshots where
its own are not used. "" is a mutation beyond the 25 that are demanded; one row has two.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from simulation import mutations_channels as channels
from simulation import mutations_departures as departures
from simulation import mutations_feed as feed
from simulation import mutations_founding as founding
from simulation import mutations_levels as levels
from simulation import mutations_machine as machine
from simulation import mutations_raft as raft
from simulation import mutations_recovery as recovery
from simulation import mutations_restores as restoring
from simulation import mutations_roles as roles
from simulation import mutations_settings as settings
from simulation import mutations_storage as storage
from simulation import mutations_tracking as tracking
from simulation import restores
from simulation.recoveries import play
from simulation.runner import run
from simulation.shrinking import check_of

SEEDS_MAX = 500


@dataclass(frozen=True, slots=True)
class Mutation:
    """One rule of the product to take away, and the faults that show it.

    faults: the kinds that bring it out soonest; None is the usual mixture. every_s: mean time between two of them.
    recovers: the runs are those of recoveries.py, with faults of their own.
    """

    rule: str
    patch: Callable[[pytest.MonkeyPatch], None]
    faults: str | None = None
    every_s: float = 0.7
    nodes: int = 3
    # Whether restores are simulated (restores.py) in place of a cluster's usual life.
    restores: bool = False
    recovers: bool = False

    @property
    def name(self) -> str:
        """The name of the mutation: what is done to the product."""
        return self.patch.__name__


@dataclass(frozen=True, slots=True)
class Found:
    """The result of the search for a mutation.

    seed: the first that shows it; None when none did. check: the name of the check that noticed.

    without: the complaint of the same seed when nothing was taken away, which must be nothing.
    """

    seed: int | None
    check: str
    violation: str
    without: str | None
    real_s: float


MUTATIONS = (
    Mutation("row 1", raft.delete_what_stands_behind_prev, "loss slow_network pause"),
    Mutation("row 2", raft.commit_what_a_snapshot_says, "isolate_leader snapshot pause_leader"),
    Mutation("row 3", raft.send_on_where_the_log_of_the_other_ends, "isolate_leader"),
    Mutation("row 4", storage.throw_the_log_away_behind_a_new_snapshot, "snapshot kill power"),
    Mutation("row 5", storage.compact_by_writing_the_tail_again, "snapshot power slow_disk"),
    Mutation("row 6", storage.trim_past_the_end_of_the_log, "isolate kill snapshot"),
    Mutation("row 7", storage.start_empty_when_something_is_damaged, "bit_flip kill"),
    Mutation("row 9", storage.promise_before_it_is_durable, "power blackout slow_disk"),
    Mutation("row 12", storage.restart_without_a_memory, "kill"),
    Mutation("no campaign without a pre-vote", raft.begin_when_the_deadline_passes_within_a_tick),
    Mutation("row 16", raft.forget_the_terms_of_answers, "campaign isolate"),
    Mutation("row 17", raft.change_the_members_at_once, nodes=5),
    Mutation("row 21", machine.call_it_not_done_when_the_leader_changes, "isolate_leader hand_over"),
    Mutation("row 21", machine.wait_for_ever_for_a_lost_answer, "loss isolate"),
    Mutation("row 22", machine.apply_a_block_as_often_as_it_comes),
    Mutation("row 23", machine.raise_inside_apply, ""),
    Mutation("row 31", raft.take_an_older_snapshot, "isolate snapshot slow_disk loss"),
    Mutation("row 33", storage.name_a_snapshot_before_it_is_written, "snapshot kill"),
    Mutation("log index as version", machine.take_the_log_index_as_version, ""),
    Mutation("evict after insert", machine.evict_after_insert, ""),
    Mutation("entry-only digest", machine.digest_entries_alone, "damage"),
    Mutation("wrong contents stay", storage.keep_contents_that_the_disk_contradicts, "damage"),
    Mutation("effects alone are compared", storage.compare_what_was_done_alone, "damage"),
    Mutation("sessions by high-water mark", machine.keep_only_the_highest_number_of_a_session, "loss reset"),
    Mutation("a scope remembers", machine.forget_the_numbers_of_a_scope, ""),
    Mutation("a scope's floor", machine.drop_what_a_scope_keeps_and_leave_its_floor, ""),
    Mutation("the age of a key", machine.do_again_what_may_have_been_dropped, ""),
    Mutation("and it is told", machine.take_every_try_for_the_first, ""),
    Mutation("of a time before a start, too", machine.believe_that_nothing_was_before_a_start, "kill"),
    Mutation("by no clock that jumps", machine.look_back_by_the_clusters_time, "guessed_time", every_s=6.0),
    Mutation("condemned is absent", machine.forget_what_is_condemned_when_reading, ""),
    Mutation("what is counted waits no more", machine.keep_the_places_of_removals_that_are_counted, ""),
    Mutation("what is written later lives", machine.sweep_what_was_written_later, ""),
    Mutation("condemnations are restored", machine.forget_what_is_condemned_at_a_restore, "snapshot kill"),
    Mutation("a pass goes on where it was", machine.begin_a_pass_again_at_a_restore, "snapshot kill"),
    Mutation("nobody writes", machine.leave_what_is_to_go_to_the_next_write, ""),
    Mutation("late writes", machine.let_a_write_take_place_however_late, "isolate split"),
    Mutation("starts count", machine.open_a_session_for_any_start, "doubling kill"),
    Mutation("a helper always ends", storage.never_hear_of_a_helper_that_failed, "helper snapshot"),
    Mutation("loaded before trimmed", storage.keep_a_snapshot_that_nobody_has_loaded, "helper snapshot kill"),
    Mutation("real sizes", machine.guess_the_size_of_a_call_without_its_keys, ""),
    Mutation("what was read still holds", machine.write_whatever_has_become_of_what_was_read, ""),
    Mutation("expiries were read too", machine.forget_the_expiry_that_was_read, ""),
    Mutation("bounded answers", machine.answer_every_read_of_a_batch, ""),
    Mutation("a field is one of many", machine.write_a_field_over_the_others, ""),
    Mutation("a field that is there stays", machine.write_a_field_that_is_there, ""),
    Mutation("no hash without fields", machine.keep_a_hash_without_fields, ""),
    Mutation("several keys at one moment", machine.read_in_the_middle_of_an_entry, ""),
    Mutation("what is absent has no version", machine.delete_at_any_version_what_is_absent, ""),
    Mutation("clock back on a restart", storage.turn_the_clock_back_at_a_start, "blackout kill"),
    Mutation("one wrong clock of three", raft.believe_the_latest_wall_clock, "wall_jump blackout"),
    Mutation("one wrong clock of three", raft.believe_the_own_wall_clock, "wall_jump blackout"),
    Mutation("a removal shows once it is noted", storage.say_that_it_was_removed_before_it_is_noted, "remove"),
    Mutation("who left founds no cluster", departures.found_again_after_leaving, "leave leave_leader"),
    Mutation("and has no log", departures.keep_the_log_of_the_member_that_left, "leave leave_leader"),
    Mutation("the wish is noted first", departures.leave_without_a_note_of_it, "leave leave_leader kill"),
    Mutation("and forgotten by members", departures.never_forget_a_departure, "leave"),
    Mutation("it comes back as another", departures.come_back_under_the_same_incarnation, "leave"),
    Mutation("time passes in sleep", storage.stand_still_in_sleep, "suspend"),
    Mutation("look before you found", founding.found_without_listening, "empty"),
    Mutation("founders are who they say they are", founding.tell_founders_apart_by_their_addresses, ""),
    Mutation("who finds a cluster founds none", founding.found_beside_those_who_have_data, "empty"),
    Mutation("a second cluster stops", founding.go_on_in_a_second_cluster, "second_cluster"),
    Mutation("a hung disk leads nobody", raft.lead_on_with_a_hung_disk, "hung_disk", every_s=4.0),
    Mutation("a new segment is waited for", raft.fail_when_a_segment_must_wait, "out_of_handles", every_s=2.0),
    Mutation("what a turn has no time for is applied later", raft.pass_over_what_waits_for_the_next_turn),
    Mutation("large messages in pieces", raft.send_large_messages_whole, "narrow", every_s=2.0),
    Mutation("heartbeats overtake", raft.overtake_nothing, "narrow", every_s=2.0),
    Mutation("and refer to what has come", raft.refer_to_what_is_on_its_way, "narrow", every_s=2.0),
    Mutation("sent again when it is lost", raft.send_again_while_it_is_on_its_way, "narrow", every_s=2.0),
    Mutation("an entry's level counts", levels.carry_out_what_is_above_the_entrys_level, "upgrade downgrade"),
    Mutation(
        "all members know the level", levels.raise_the_level_without_looking_at_all_members, "upgrade raise_level"
    ),
    Mutation("no entry above the build", levels.apply_what_is_above_the_builds_level, "upgrade downgrade", every_s=2.0),
    Mutation("a message at most once", channels.hand_out_a_message_as_often_as_it_comes, "doubling stragglers"),
    Mutation("and none of an earlier start", channels.believe_an_earlier_start, "doubling stragglers kill"),
    Mutation("a message is whole", channels.put_together_what_has_gaps, "loss"),
    Mutation("messages keep their order", channels.hand_out_the_latest_first, ""),
    Mutation("to those who have asked", channels.give_everything_to_everybody, ""),
    Mutation("until they ask no more", channels.go_on_after_the_end_of_a_subscription, ""),
    Mutation("on all nodes", channels.keep_what_is_published_to_this_node, ""),
    Mutation("a change is told once", feed.begin_an_entry_again, "kill", every_s=2.0),
    Mutation("and none is left out", feed.join_before_all_is_told, ""),
    Mutation("or it is said that some are missing", feed.skip_what_is_forgotten, ""),
    Mutation("also over a snapshot", feed.go_on_over_a_snapshot, "snapshot isolate"),
    Mutation("the slow go on where they were", feed.forget_what_the_slow_lack, ""),
    Mutation("a prefix that is removed is told", feed.tell_nobody_of_what_is_condemned, ""),
    Mutation("each prefix is followed", feed.tell_those_of_no_prefix_alone, ""),
    Mutation("a heartbeat's position is told of", feed.promise_more_than_was_told, ""),
    Mutation("also in the midst of handing over", feed.promise_what_is_not_handed_over, ""),
    Mutation("which goes on in the next slice", feed.drop_what_is_not_handed_over, ""),
    Mutation("who hears no leader ends watches", feed.tell_on_out_of_touch, "isolate"),
    Mutation("those who lag are told of it, too", feed.tell_the_slow_nothing_of_what_is_condemned, ""),
    Mutation("a read is noted before it is answered", tracking.note_a_read_after_it_was_answered, ""),
    Mutation("one that is answered later is compared", tracking.note_a_late_read_as_it_is_now, ""),
    Mutation("under a prefix as well", tracking.compare_no_late_read_under_prefixes, ""),
    Mutation("behind an own write", tracking.tell_of_others_before_an_own_write_is_answered, ""),
    Mutation("an own write under a prefix is compared, too", tracking.compare_no_own_write_under_prefixes, ""),
    Mutation("what is noted no more is told", tracking.forget_what_was_noted_first, ""),
    Mutation("what is too much is told as everything", tracking.drop_what_is_too_much, ""),
    Mutation("a snapshot replaces what is kept", tracking.keep_everything_over_a_snapshot, "snapshot isolate"),
    Mutation("and so does a restore", tracking.keep_everything_over_a_restore, restores=True),
    Mutation("what is condemned is kept no more", tracking.keep_what_is_condemned, ""),
    Mutation("all keys under a prefix are told", tracking.tell_those_of_no_prefix_alone, ""),
    Mutation("to all who have read them", tracking.tell_the_first_alone, ""),
    Mutation("a restore replaces everything", restoring.keep_what_was_there_at_a_restore, restores=True),
    Mutation("no version of before", restoring.keep_the_revision_at_a_restore, restores=True),
    Mutation("items are of one restore", restoring.take_items_of_any_restore, restores=True),
    Mutation("items count once", restoring.take_items_as_often_as_they_come, restores=True),
    Mutation("a late restore", restoring.begin_a_restore_however_late, restores=True),
    Mutation("snapshots know of it", restoring.forget_a_restore_at_a_snapshot, restores=True),
    Mutation("nobody sees a part", restoring.serve_clients_during_a_restore, restores=True),
    Mutation("versions are raised", recovery.leave_the_revision_as_it_is, recovers=True),
    Mutation("and those of items", recovery.raise_the_versions_of_what_comes_alone, recovers=True),
    Mutation("before they are read", recovery.show_versions_before_they_are_raised, recovers=True),
    Mutation("before anything is written", recovery.write_before_the_versions_are_raised, recovers=True),
    Mutation("a new cluster has a new id", recovery.keep_the_id_of_the_cluster, recovers=True),
    Mutation("a replaced cluster stops", recovery.go_on_in_a_cluster_that_was_replaced, recovers=True),
    Mutation("a log has one cluster", recovery.believe_the_tables_of_the_old_cluster, recovers=True),
    Mutation("and stops nobody", recovery.stop_for_members_of_the_old_cluster, recovers=True),
    Mutation("a decision is whole", recovery.write_the_decision_in_place, recovers=True),
    Mutation("an observer never votes", roles.give_observers_a_vote, "kill replicas", nodes=5),
    Mutation("who is demoted stays so", roles.give_a_demoted_voter_its_vote_again, "demote"),
    Mutation("a majority is left", roles.demote_whoever_is_left, "demote kill", nodes=5),
    Mutation("a leader has a vote", roles.lead_on_without_a_vote, "demote_leader"),
    Mutation("one vote at a time", roles.swap_two_votes_at_once, "outage", nodes=5),
    Mutation("a short silence costs no vote", roles.replace_whoever_is_silent, "kill replicas", nodes=5),
    Mutation("a dead voter is replaced", roles.replace_nobody, "outage", nodes=5),
    Mutation("replicas counts", roles.leave_everybody_a_vote, "replicas"),
    Mutation("one of two at a version", settings.change_the_settings_at_any_version, ""),
    Mutation("a change has a version", settings.count_no_change_of_the_settings, ""),
    Mutation("and snapshots keep it", settings.forget_the_version_of_the_settings_at_a_snapshot, "snapshot kill"),
    Mutation("fronts are told", settings.tell_no_front_of_new_settings, ""),
    Mutation("a lowered limit goes in steps", settings.evict_all_that_is_above_a_limit_at_once, ""),
    Mutation("and it goes", settings.keep_what_is_above_a_lowered_limit, ""),
    Mutation("another policy finds all keys", settings.look_for_keys_of_another_policy_where_their_versions_are, ""),
    Mutation("", raft.acknowledge_what_was_not_verified),
    Mutation("", raft.vote_for_anybody),
    Mutation("", raft.read_without_a_barrier, "isolate_leader isolate"),
    Mutation("", raft.never_probe),
)


def find(mutation: Mutation, seeds_max: int = SEEDS_MAX) -> Found:
    """Run a mutation seed by seed until a check notices it."""
    kinds = None if mutation.faults is None else dict.fromkeys(mutation.faults.split(), 1.0)
    every_s = None if mutation.faults is None else mutation.every_s

    def violation(seed: int) -> str | None:
        if mutation.restores:
            return restores.run(seed, mutation.nodes).violation
        if mutation.recovers:
            return play(seed, mutation.nodes).violation
        return run(seed, mutation.nodes, kinds=kinds, every_s=every_s).violation

    began = time.perf_counter()
    for seed in range(1, seeds_max + 1):
        with pytest.MonkeyPatch.context() as patch:
            mutation.patch(patch)
            found = violation(seed)
        if found is not None:
            return Found(seed, check_of(found), found, violation(seed), time.perf_counter() - began)
    return Found(None, "", "", None, time.perf_counter() - began)
