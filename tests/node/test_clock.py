"""ClusterClock: the log's time outside the log. Time is handed in; nothing here waits."""

from __future__ import annotations

from cacheflow.node.clock import LATE_MS_MAX, ClusterClock


class Machine:
    """One machine's clocks, in seconds."""

    def __init__(self, wall: float = 1_000_000.0) -> None:
        self.monotonic = 50.0
        self.wall = wall
        self.clock = ClusterClock(lambda: self.monotonic, lambda: self.wall)

    def passes(self, seconds: float) -> None:
        self.monotonic += seconds
        self.wall += seconds


def test_a_new_cluster_begins_at_its_leaders_wall_clock() -> None:
    machine = Machine()
    machine.clock.lead(0, 0)
    assert machine.clock.now_ms() == 1_000_000_000
    machine.passes(1.5)
    assert machine.clock.now_ms() == 1_000_001_500


def test_a_wall_clock_that_jumps_moves_nothing() -> None:
    machine = Machine()
    machine.clock.lead(0, 0)
    before = machine.clock.now_ms()
    for jump in (-7200, 7200, -86400):
        machine.wall += jump
        assert machine.clock.now_ms() == before
    machine.clock.lead(before, 0)
    assert machine.clock.now_ms() == before


def test_a_follower_follows_its_leaders_time_whatever_its_own_wall_clock_says() -> None:
    machine = Machine(wall=5.0)
    machine.clock.hear(9_000_000, 0)
    machine.passes(2)
    assert machine.clock.now_ms() == 9_002_000
    machine.clock.hear(9_002_500, 0)
    assert machine.clock.now_ms() == 9_002_500


def test_a_late_message_never_takes_back_what_a_read_has_used() -> None:
    machine = Machine()
    machine.clock.hear(10_000, 0)
    machine.passes(1)
    used = machine.clock.now_ms()
    machine.clock.hear(used - 400, 0)
    assert machine.clock.now_ms() >= used
    machine.passes(0.1)
    assert machine.clock.now_ms() >= used


def test_an_heir_goes_on_where_the_old_leader_was() -> None:
    machine = Machine(wall=5.0)
    machine.clock.hear(9_000_000, 0)
    machine.passes(3)
    machine.clock.lead(9_001_000, 0)
    assert machine.clock.now_ms() == 9_003_000
    machine.clock.lead(0, 9_500_000)
    assert machine.clock.now_ms() == 9_500_000, "never before a stamp in its log or a voter's estimate"


def test_a_node_without_any_estimate_takes_its_voters_time_and_not_its_wall_clock() -> None:
    machine = Machine(wall=10_000_000.0)
    machine.clock.lead(0, 9_000_000)
    assert machine.clock.now_ms() == 9_000_000


def test_a_restart_counts_the_time_it_was_away() -> None:
    machine = Machine()
    machine.clock.restore(cluster_ms=70_000, wall_ms=machine.clock.wall_ms() - 4_000)
    assert machine.clock.known and not machine.clock.heard
    assert machine.clock.now_ms() == 74_000
    machine.clock.lead(0, 0)
    assert machine.clock.now_ms() == 74_000


def test_a_wall_clock_set_back_while_it_was_away_does_not_set_the_time_back() -> None:
    machine = Machine()
    machine.clock.restore(cluster_ms=70_000, wall_ms=machine.clock.wall_ms() + 3_600_000)
    assert machine.clock.now_ms() == 70_000


def test_the_leaders_first_word_after_a_restart_counts_more_than_the_own_estimate() -> None:
    machine = Machine()
    machine.clock.restore(cluster_ms=70_000, wall_ms=machine.clock.wall_ms() - 7_200_000)
    machine.clock.hear(71_000, 0)
    assert machine.clock.now_ms() == 71_000


def test_a_node_that_has_just_started_has_heard_nobody_by_a_message_that_may_be_late() -> None:
    machine = Machine()
    machine.clock.hear(70_000, None)
    assert machine.clock.known and not machine.clock.heard
    assert machine.clock.now_ms() == 70_000, "it is better than nothing"
    machine.clock.hear(71_000, LATE_MS_MAX + 1)
    machine.clock.hear(60_000, None)
    assert machine.clock.now_ms() == 71_000, "a late message's time is too early, never too late"
    machine.clock.hear(69_000, LATE_MS_MAX)
    assert machine.clock.now_ms() == 69_000, "until then nobody has read by the estimate"
    machine.clock.hear(60_000, None)
    assert machine.clock.now_ms() == 69_000


def test_an_estimate_of_a_wall_clock_is_replaced_by_what_its_voters_believe_together() -> None:
    for told_ms in (71_000, 9_000_000):
        machine = Machine()
        machine.clock.restore(cluster_ms=70_000, wall_ms=machine.clock.wall_ms() - 7_200_000)
        machine.clock.lead(0, told_ms)
        assert machine.clock.now_ms() == told_ms
        machine.passes(1)
        machine.clock.lead(0, 0)
        assert machine.clock.now_ms() == told_ms + 1000


def test_a_leader_is_never_before_the_last_stamp_in_its_log() -> None:
    for told_ms in (0, 71_000):
        machine = Machine()
        machine.clock.restore(cluster_ms=70_000, wall_ms=machine.clock.wall_ms())
        machine.clock.lead(80_000, told_ms)
        assert machine.clock.now_ms() == 80_000


def test_one_that_led_is_not_turned_back_by_messages_that_waited_while_it_stood_still() -> None:
    monotonic = [1000.0]
    clock = ClusterClock(lambda: monotonic[0], lambda: 5000.0)
    clock.lead(0, 0)
    started_ms = clock.now_ms()
    monotonic[0] += 60
    # Its successor wrote this two seconds ago.
    clock.hear(started_ms + 58_000, 0)
    monotonic[0] += 0.2
    assert clock.now_ms() >= started_ms + 60_000


def test_what_a_wrong_wall_clock_made_of_a_restart_is_over_once_a_leader_is_heard() -> None:
    machine = Machine()
    machine.clock.restore(cluster_ms=70_000, wall_ms=machine.clock.wall_ms() - 7_200_000)
    assert machine.clock.now_ms() == 7_270_000, "asked for a vote, it says what it believes"
    machine.clock.hear(71_000, 0)
    assert machine.clock.now_ms() == 71_000
    machine.passes(1)
    assert machine.clock.now_ms() == 72_000


def test_a_leader_that_heard_nobody_since_its_start_believes_voters_that_did() -> None:
    machine = Machine()
    machine.clock.restore(cluster_ms=70_000, wall_ms=machine.clock.wall_ms() - 7_200_000)
    machine.clock.lead(0, 71_000)
    assert machine.clock.now_ms() == 71_000
