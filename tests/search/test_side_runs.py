"""Training beside the search: every network once, whatever becomes of the workers, and the same numbers as alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import ray

from neurosweep.errors import InterruptedStudyError
from search import side_runs
from search.clock import Clock
from search.packing import Packing
from search.placement import WorkerShape
from search.pool import Done, Pool
from tests.search.in_process_pool import InProcessPool
from tests.trainer.trainer_cases import settings_of
from trainer.data.dataset import Dataset
from trainer.settings import Schedule
from trainer.work import Metric, Outcome, SegmentResult, TrialWork
from trainer.worker import Trainer

EPOCHS = 3


def work(trial: int, **changes: Any) -> TrialWork:
    settings = settings_of(neurons=(8 + trial % 3,), momentum=0.0, schedule=Schedule.COSINE)
    return TrialWork(
        trial=trial,
        settings=replace(settings, **changes),
        seed=7 + trial,
        metric=Metric.LOG_LOSS,
        epochs=EPOCHS,
        until=EPOCHS,
    )


def figures(results: list[SegmentResult]) -> dict[int, Any]:
    return {
        result.trial: (result.outcome, result.train, result.validation, [each.train_loss for each in result.epochs])
        for result in results
    }


def alone(data: Dataset, works: list[TrialWork]) -> dict[int, Any]:
    """Each by itself, in a trainer of its own."""
    results = []
    for each in works:
        trainer = Trainer(
            data.train, data.validation, data.preprocessing, data.task, data.input_shape, data.outputs, device="cpu"
        )
        results += trainer.train([each], lambda: False, lambda trial, epoch: None)
    return figures(results)


@pytest.fixture
def pool(data: Dataset) -> InProcessPool:
    pool = InProcessPool(workers=2)
    pool.load(data)
    return pool


def trained(pool: Pool, data: Dataset, works: list[TrialWork], **options: Any) -> list[SegmentResult]:
    return list(side_runs.train(works, pool, Packing.of(len(works), data, pool), **options))


def test_each_is_trained_once_in_packs_to_the_same_numbers_as_alone(pool: InProcessPool, data: Dataset) -> None:
    works = [work(trial) for trial in range(7)]
    results = trained(pool, data, works)
    assert figures(results) == alone(data, works)
    assert len(results) == 7
    assert max(size for _, size in pool.packs) > 1
    assert {worker for worker, _ in pool.packs} == {0, 1}
    assert pool.stopped() is False


def test_one_that_is_work_enough_is_a_pack_by_itself(
    pool: InProcessPool, data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    works = [work(trial) for trial in range(3)]
    monkeypatch.setattr("search.packing.PACK_FLOPS", Packing.of(3, data, pool).cost(works[0].settings, EPOCHS))
    for each in side_runs.train(works, pool, Packing.of(3, data, pool)):
        assert each.outcome is Outcome.FINISHED
        break  # the caller may have enough
    assert {size for _, size in pool.packs} == {1}
    assert len(pool.packs) == 2


@pytest.mark.parametrize("culprit", [0, 3, 5])
def test_what_workers_die_of_is_found_and_the_others_are_trained(
    culprit: int, pool: InProcessPool, data: Dataset
) -> None:
    works = [work(trial) for trial in range(6)]
    pool.deadly = lambda each: each.trial == culprit
    results = {result.trial: result for result in trained(pool, data, works)}
    assert set(results) == set(range(6))
    assert results[culprit].outcome is Outcome.FAILED
    assert results[culprit].reason == "3 workers died while they trained it; the last one: the worker died"
    good = [each for each in works if each.trial != culprit]
    assert figures([results[each.trial] for each in good]) == alone(data, good)
    assert sum(each.trial == culprit for _, each in pool.submitted) <= 3 + 2  # in halves first, then three times alone


def test_a_worker_that_dies_once_costs_nothing(pool: InProcessPool, data: Dataset) -> None:
    works = [work(trial) for trial in range(4)]
    pool.kill(0)
    assert figures(trained(pool, data, works)) == alone(data, works)


def test_a_lost_machine_is_nobodys_fault(pool: InProcessPool, data: Dataset) -> None:
    collect, losses = pool.collect, iter(range(5))

    def losing(timeout: float) -> list[Done]:
        if next(losses, None) is not None:
            pool.lose(0)
            pool.bring_back(0)
        return collect(timeout)

    pool.collect = losing  # type: ignore[method-assign]
    works = [work(trial) for trial in range(3)]
    assert figures(trained(pool, data, works)) == alone(data, works)


def test_a_silent_worker_is_ended_and_its_pack_trained_by_another_process(data: Dataset) -> None:
    pool = InProcessPool()
    pool.load(data)
    now = [0.0]
    hanging = [2]  # times

    def hangs(each: TrialWork) -> bool:
        now[0] += 10.0
        return len(pool.ended) < hanging[0]

    pool.hangs = hangs
    clock = Clock(monotonic=lambda: now[0])
    (result,) = trained(pool, data, [work(0)], clock=clock)
    assert result.outcome is Outcome.FINISHED
    assert [why for _, why in pool.ended] == ["it showed no sign of life for 40 s"] * 2


def test_one_that_is_not_wanted_any_more_is_left_out(pool: InProcessPool, data: Dataset) -> None:
    works = [work(trial) for trial in range(6)]
    results = trained(pool, data, works, wanted=lambda each: each.trial not in (1, 4, 5))
    assert sorted(result.trial for result in results) == [0, 2, 3]
    assert trained(pool, data, works, wanted=lambda each: False) == []
    assert trained(pool, data, []) == []


def test_a_network_that_can_not_be_trained_says_why(pool: InProcessPool, data: Dataset) -> None:
    works = [work(0), replace(work(1), settings=replace(work(1).settings, learning_rate=1e300))]
    results = {result.trial: result for result in trained(pool, data, works)}
    assert results[0].outcome is Outcome.FINISHED
    assert (results[1].outcome, bool(results[1].reason)) == (Outcome.FAILED, True)


def test_told_to_stop_it_halts_the_workers(pool: InProcessPool, data: Dataset) -> None:
    pool.stopped = lambda: len(pool.submitted) > 0
    halted = []
    pool.halt = lambda: halted.append(True)  # type: ignore[method-assign]
    pool.collect = lambda timeout: list[Done]()  # type: ignore[method-assign]
    with pytest.raises(InterruptedStudyError):
        trained(pool, data, [work(0)])
    assert halted == [True]


def test_rays_workers_train_what_is_asked_and_a_killed_one_is_replaced(data: Dataset) -> None:
    pool = Pool.start(None)
    try:
        pool.open(WorkerShape(count=2, cpus=1.0, gpus=0.0))
        pool.load(data)
        works = [work(trial) for trial in range(5)]
        results: list[SegmentResult] = []
        for result in side_runs.train(works, pool, Packing.of(5, data, pool)):
            if not results:
                ray.kill(pool._members[1].actor)
            results.append(result)
    finally:
        pool.close()
    assert figures(results) == alone(data, works)
