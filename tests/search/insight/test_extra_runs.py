"""Extra runs are trained as planned and recorded as they end; what there is no time for is left out and told."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from neurosweep.errors import InterruptedStudyError
from search.insight.extra_plan import Budget, Planned, of_reports, plan, seconds_of, workers_of
from search.insight.extra_runs import make_extra_runs, run_extra, subset
from search.progress import Progress
from storage.records import ExtraRun, Probe, StudyState
from tests.search.dispatched import Study
from tests.search.in_process_pool import InProcessPool
from trainer.data.dataset import DataRequest, Dataset
from trainer.data.load import load
from trainer.settings import Settings
from trainer.work import Metric, Outcome, TrialWork
from trainer.worker import Trainer


@dataclass
class Bench:
    """As the engine's."""

    study: Study
    pool: InProcessPool
    told: list[Progress]

    @property
    def spec(self) -> Any:
        return self.study.spec

    @property
    def dataset(self) -> Dataset:
        return self.study.data

    def on_progress(self, progress: Progress) -> None:
        self.told.append(progress)

    def make(self, **options: Any) -> tuple[list[ExtraRun], tuple[str, ...]]:
        study = self.study.store.study(self.study.id)
        bench: Any = self
        return make_extra_runs(self.study.store, study, self.study.trials(), bench, winner=self.winner, **options)

    @property
    def winner(self) -> int:
        return min(self.study.trials(), key=lambda trial: (trial.validation or math.inf, trial.number)).number

    def planned(self, **options: Any) -> tuple[Planned, ...]:
        return plan(self.study.trials(), self.spec, (), self.dataset, winner=self.winner, **options).runs

    def run(self, planned: tuple[Planned, ...], **options: Any) -> list[ExtraRun]:
        store = self.study.store
        return run_extra(store, store.study(self.study.id), self.spec, self.dataset, self.pool, planned, **options)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    data = load(DataRequest(source="iris"))
    study = Study(tmp_path, data, budget={"trials": 3, "epochs": 3})
    pool = InProcessPool(workers=2)
    claim = study.claim()
    study.work(pool, claim=claim)
    study.store.finish(claim, StudyState.FINISHED, result={"seconds": 20.0})
    pool.submitted.clear()
    yield Bench(study, pool, [])
    study.store.close()


def test_each_is_the_training_that_it_says(bench: Bench) -> None:
    """The same networks, trained by a trainer of the test's own."""
    made, left_out = bench.make(thorough=True)
    assert left_out == ()
    assert [run.name for run in made] == [
        *(f"{share} % of the rows of trial {bench.winner}" for share in (50, 25)),
        *(run.name for run in made[2:]),
    ]
    assert len(made) == 2 + 2 + 3 * 5
    for run in made:
        share = run.amount if run.probe is Probe.ROWS else 1.0
        data = subset(bench.dataset, share, seed=_subset_seed(bench))
        trainer = Trainer(
            data.train, data.validation, data.preprocessing, data.task, data.input_shape, data.outputs, device="cpu"
        )
        epochs = 6 if run.probe is Probe.EPOCHS else 3
        work = TrialWork(
            trial=0,
            settings=Settings.from_json(run.settings),
            seed=run.seed,
            metric=Metric.LOG_LOSS,
            epochs=epochs,
            until=epochs,
        )
        (alone,) = trainer.train([work], lambda: False, lambda trial, epoch: None)
        assert alone.outcome is Outcome.FINISHED
        assert (run.train, run.validation, run.weights) == (alone.train, alone.validation, alone.weight_count)
        assert run.curve == tuple(epoch.validation_metric for epoch in alone.epochs)
        assert (run.rows, run.epochs, run.error) == (len(data.train), epochs, None)
    own = Settings.from_json(bench.study.trials()[bench.winner].settings)
    (wider,) = (Settings.from_json(run.settings) for run in made if run.probe is Probe.NEURONS)
    assert wider.neurons == tuple(2 * width for width in own.neurons)


def _subset_seed(bench: Bench) -> int:
    from search.sampler import Stream, derived_seed

    return derived_seed(bench.spec.seed, Stream.SUBSET)


def test_what_stands_in_the_database_is_not_trained_again(bench: Bench) -> None:
    made, _ = bench.make(thorough=True)
    bench.pool.submitted.clear()
    assert bench.make(thorough=True) == (made, ())
    assert bench.pool.submitted == []
    assert [each.complete for each in bench.told] == list(range(1, 20))
    assert bench.told[0].stage.endswith("trained")


def test_without_time_nothing_is_trained_and_no_worker_is_wanted(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("search.insight.extra_runs.allowance", lambda study, trials: 0.0)
    bench.pool = cast(Any, None)
    made, left_out = bench.make()
    assert made == []
    assert len(left_out) == 4
    assert all("`neurosweep report iris --thorough`" in line for line in left_out)


@pytest.mark.parametrize("counts", [True, False])
def test_what_an_earlier_report_took_counts_and_what_the_study_itself_took_does_not(counts: bool, bench: Bench) -> None:
    study = bench.study.store.study(bench.study.id)
    assert study.ended_at is not None
    (run, *_) = bench.planned(probes=[Probe.SEED])
    made = ExtraRun(
        probe=run.probe,
        trial=run.trial,
        amount=run.amount,
        settings=run.settings.to_json(),
        seed=run.seed,
        train=0.1,
        validation=0.1,
        rows=105,
        epochs=3,
        seconds=1000.0,
        weights=9,
        at=study.ended_at + timedelta(seconds=1 if counts else -1),
    )
    bench.study.store.record_extra_runs(study.id, [made])
    runs, left_out = bench.make()
    assert (len(runs) == 1, bool(left_out)) == (counts, counts)
    assert seconds_of(of_reports(study, [made]), bench.study.trials()) == (500 if counts else 0)


def test_runs_that_take_longer_than_planned_leave_the_last_ones_out(bench: Bench) -> None:
    planned = tuple(replace(run, seconds=1.0) for run in bench.planned(probes=[Probe.SEED]))
    slow = 10.0
    bench.pool.change = lambda work, result: replace(result, seconds=slow)
    budget = Budget(20.0, 2)  # on two workers: 40 s of training, for which 15 s are planned
    made = bench.run(planned, budget=budget)
    assert 4 <= len(made) < len(planned)
    assert {run.trial for run in made[:3]} == {0, 1, 2}
    trials = bench.study.trials()
    assert seconds_of(made, trials) == len(made) * slow / workers_of(trials)


def test_a_stop_keeps_what_has_ended(bench: Bench) -> None:
    bench.pool.stopped = lambda: len(bench.study.store.extra_runs(bench.study.id)) > 0
    with pytest.raises(InterruptedStudyError):
        bench.make(thorough=True)
    ended = bench.study.store.extra_runs(bench.study.id)
    assert [run.name for run in ended] == [f"50 % of the rows of trial {bench.winner}"]
    bench.pool.stopped = lambda: False
    made, _ = bench.make(thorough=True)
    assert len(made) == 19 and ended[0] in made


def test_one_that_fails_says_why_and_is_not_tried_again(bench: Bench) -> None:
    bench.pool.deadly = lambda work: work.settings.neurons == wide
    wide = next(run.settings.neurons for run in bench.planned() if run.probe is Probe.NEURONS)
    made, left_out = bench.make(thorough=True)
    assert left_out == ()
    (failed,) = [run for run in made if run.error]
    assert (failed.probe, failed.train, failed.validation, failed.curve) == (Probe.NEURONS, None, None, ())
    assert failed.error == "3 workers died while they trained it; the last one: the worker died"
    bench.pool.submitted.clear()
    bench.make(thorough=True)
    assert bench.pool.submitted == []


def test_a_metric_that_is_not_finite_is_a_failure(bench: Bench) -> None:
    bench.pool.change = lambda work, result: replace(result, validation=math.inf)
    made = bench.run(bench.planned(probes=[Probe.EPOCHS]))
    assert [(run.error, run.validation) for run in made] == [("its metric was not finite", None)]


def test_the_pool_holds_all_rows_again(bench: Bench) -> None:
    bench.run(bench.planned(probes=[Probe.ROWS]))
    assert bench.pool._dataset is bench.dataset


@pytest.mark.parametrize("source", ["iris", "digits", "diabetes"])
def test_smaller_shares_are_among_the_larger_ones_and_keep_every_class(source: str) -> None:
    data = load(DataRequest(source=source))
    shares = [0.01, 0.25, 0.5, 0.9]
    parts = [subset(data, share, seed=3) for share in shares]
    for small, large in itertools.pairwise(parts):
        assert set(small.train.rows) < set(large.train.rows)
    index = {row: place for place, row in enumerate(data.train.rows.tolist())}
    for share, part in zip(shares, parts, strict=True):
        places = [index[row] for row in part.train.rows.tolist()]
        assert places == sorted(places)
        np.testing.assert_array_equal(part.train.inputs, data.train.inputs[places])
        np.testing.assert_array_equal(part.train.targets, data.train.targets[places])
        assert part.validation is data.validation and part.preprocessing is data.preprocessing
        if data.outputs > 1:
            whole, kept = np.bincount(data.train.targets), np.bincount(part.train.targets, minlength=data.outputs)
            assert (kept == np.maximum(1, np.round(share * whole))).all()
        else:
            assert len(places) == max(1, round(share * len(data.train)))
    assert subset(data, 1.0, seed=3) is data
    assert set(subset(data, 0.5, seed=4).train.rows) != set(parts[2].train.rows)
