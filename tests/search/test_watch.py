"""Which workers are taken for dead."""

from __future__ import annotations

from search.watch import FIRST_RATE, GRACE_SECONDS, MARGIN, SILENCE_SECONDS, START_SECONDS, Watch


def started(*workers: int) -> Watch:
    """A watch that has seen these workers before."""
    watch = Watch()
    watch.shown([0 if worker in workers else None for worker in range(3)], now=0.0)
    return watch


def test_a_worker_that_shows_signs_lives_and_one_that_shows_the_same_ones_does_not() -> None:
    watch = started(0, 1)
    for worker in (0, 1):
        watch.expect(worker, flops=1.0, now=0.0)
    late = SILENCE_SECONDS + 1
    for second in range(int(late) + 1):
        watch.shown([second, "same"], now=float(second))
    assert list(watch.late(late + 0.5)) == [1]


def test_a_worker_without_work_is_never_late() -> None:
    watch = started(0)
    assert watch.late(1e9) == {}
    watch.expect(0, flops=1.0, now=0.0)
    watch.answered(0, flops=1.0, now=1.0, training=1.0)
    assert watch.late(1e9) == {}


def test_a_worker_that_is_still_coming_up_has_more_time() -> None:
    watch = Watch()
    watch.expect(0, flops=1.0, now=0.0)
    assert watch.late(START_SECONDS - 1) == {}
    assert list(watch.late(START_SECONDS + 1)) == [0]


def test_a_large_pack_may_be_silent_for_longer() -> None:
    watch = started(0)
    flops = 100 * FIRST_RATE
    watch.expect(0, flops=flops, now=0.0)
    assert watch.late(MARGIN * 100 - 1) == {}
    assert list(watch.late(MARGIN * 100 + 1)) == [0]


def test_what_packs_took_tells_what_the_next_one_may_take() -> None:
    watch = started(0)
    watch.answered(0, flops=10 * FIRST_RATE, now=0.0, training=1.0)
    watch.expect(0, flops=1000 * FIRST_RATE, now=0.0)
    assert watch.late(MARGIN * 100 - 1) == {}
    assert list(watch.late(MARGIN * 100 + 1)) == [0]


def test_a_worker_whose_trials_time_is_up_is_late_though_it_shows_signs() -> None:
    watch = started(0)
    watch.expect(0, flops=1.0, now=0.0, seconds=10.0)
    over = 10.0 + GRACE_SECONDS
    watch.shown([1], now=over - 1)
    assert watch.late(over - 1) == {}
    assert not watch.overdue(0, over - 1)
    watch.shown([2], now=over + 1)
    assert list(watch.late(over + 1)) == [0]
    assert watch.overdue(0, over + 1)


def test_the_time_of_trials_begins_when_their_worker_has_come_up() -> None:
    watch = Watch()
    watch.expect(0, flops=1.0, now=0.0, seconds=10.0)
    watch.shown([0], now=100.0)
    assert not watch.overdue(0, 110.0)
    assert watch.overdue(0, 111.0 + GRACE_SECONDS)


def test_the_process_that_takes_a_workers_place_has_time_to_come_up() -> None:
    watch = started(0)
    watch.gone(0)
    watch.expect(0, flops=1.0, now=0.0)
    assert watch.late(SILENCE_SECONDS + 1) == {}


def test_a_time_in_which_nobody_looked_does_not_count() -> None:
    watch = started(0)
    watch.expect(0, flops=1.0, now=0.0, seconds=10.0)
    watch.shown([1], now=1.0)
    watch.shown([1], now=1000.0)
    assert watch.late(1001.0) == {}
    assert not watch.overdue(0, 1001.0)
    watch.shown([1], now=1010.0)
    watch.shown([1], now=1020.0)
    assert watch.overdue(0, 1020.0)
