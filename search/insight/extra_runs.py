"""How the extra runs of a report are trained and recorded; `search.insight.extra_plan` says which."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from search.insight.extra_plan import (
    PLANNED,
    Budget,
    Planned,
    allowance,
    of_reports,
    plan,
    seconds_of,
    words,
    workers_of,
)
from search.packing import Packing
from search.progress import Progress
from search.sampler import Stream, derived_seed
from search.spec import StudySpec
from storage.records import ExtraRun, Probe, StudyRecord, TrialRecord
from storage.store import Store
from trainer.data.dataset import Dataset, Split, Task
from trainer.work import Metric, Outcome, SegmentResult, TrialWork

if TYPE_CHECKING:
    from search.engine import Workbench
    from search.pool import Pool


def make_extra_runs(
    store: Store,
    study: StudyRecord,
    trials: Sequence[TrialRecord],
    bench: Workbench,
    *,
    winner: int,
    thorough: bool = False,
) -> tuple[list[ExtraRun], tuple[str, ...]]:
    """Trains what the report of a study is worth and is not there yet.

    Args:
        winner: The trial that the study has chosen.
        thorough: Whatever time it takes; else within `extra_plan.SHARE_OF_TIME` of the study's own, together with
            those of earlier reports.

    Returns:
        All of the study's extra runs, and what was left out, in words.

    Raises:
        InterruptedStudyError: The user wants to stop; what has ended is recorded.
    """
    known, spec, dataset = store.extra_runs(study.id), bench.spec, bench.dataset
    left = math.inf if thorough else allowance(study, trials) - seconds_of(of_reports(study, known), trials)
    planned = plan(trials, spec, known, dataset, winner=winner, seconds=PLANNED * left)
    if planned.runs:
        ended = itertools.count(1)
        metric, total = str(spec.metric or ""), len(planned.runs)

        def tell(run: Planned) -> None:
            told = Progress(label=study.label, metric=metric, stage=f"{run.name} trained", total=total)
            bench.on_progress(replace(told, complete=next(ended)))

        budget = Budget(left, workers_of(trials))
        run_extra(store, study, spec, dataset, bench.pool, planned.runs, budget=budget, on_run=tell)
        known = store.extra_runs(study.id)
    there = {(run.probe, run.trial, run.amount) for run in known}
    missing = [run for run in (*planned.runs, *planned.left_out) if (run.probe, run.trial, run.amount) not in there]
    return known, words(missing, study.label)


def run_extra(
    store: Store,
    study: StudyRecord,
    spec: StudySpec,
    dataset: Dataset,
    pool: Pool,
    planned: Sequence[Planned],
    *,
    budget: Budget | None = None,
    on_run: Callable[[Planned], None] = lambda run: None,
) -> list[ExtraRun]:
    """Trains planned runs on a pool that is open, and records each as it ends; the pool holds all of the data then.

    Args:
        budget: The time for them; where they take longer than was planned, the last ones are left out. None: no limit.
        on_run: Told of each run that has ended.

    Returns:
        Those that were trained; one that failed says why.

    Raises:
        InterruptedStudyError: The user wants to stop; what has ended is recorded.
    """
    from search import side_runs  # it imports Ray, which takes seconds

    metric, made = Metric(spec.metric or Metric.ERROR), list[ExtraRun]()
    budget = budget or Budget(math.inf, 1)
    for share, group in itertools.groupby(planned, key=lambda run: run.amount if run.probe is Probe.ROWS else 1.0):
        runs = list(group)
        data = subset(dataset, share, derived_seed(spec.seed, Stream.SUBSET))
        pool.load(data)
        works = [_work_of(run, number, metric) for number, run in enumerate(runs)]

        def wanted(work: TrialWork, runs: Sequence[Planned] = runs) -> bool:
            return budget.take(runs[work.trial])

        for result in side_runs.train(works, pool, Packing.of(len(runs), data, pool), wanted=wanted):
            if result.outcome is Outcome.STOPPED:
                continue
            asked = runs[result.trial]
            run = _recorded(asked, result, len(data.train))
            budget.correct(asked, run)
            store.record_extra_runs(study.id, [run])
            made.append(run)
            on_run(asked)
    if planned and planned[-1].probe is Probe.ROWS:
        pool.load(dataset)
    return made


def _work_of(run: Planned, number: int, metric: Metric) -> TrialWork:
    return TrialWork(
        trial=number,
        settings=run.settings,
        seed=run.seed,
        metric=metric,
        epochs=run.epochs,
        until=run.epochs,
        keep_up_to=-math.inf,  # nobody wants its weights
    )


def _recorded(run: Planned, result: SegmentResult, rows: int) -> ExtraRun:
    finite = result.validation is not None and math.isfinite(result.validation)
    good = result.outcome is Outcome.FINISHED and finite
    return ExtraRun(
        probe=run.probe,
        trial=run.trial,
        amount=run.amount,
        settings=run.settings.to_json(),
        seed=run.seed,
        train=result.train if good else None,
        validation=result.validation if good else None,
        rows=rows,
        epochs=len(result.epochs),
        seconds=result.seconds,
        weights=result.weight_count,
        curve=tuple(epoch.validation_metric for epoch in result.epochs),
        error=None if good else result.reason or "its metric was not finite",
    )


def subset(dataset: Dataset, share: float, seed: int) -> Dataset:
    """The data with a share of the train rows, drawn class by class; a smaller share's rows are among a larger one's.

    The preprocessing stays that of all rows.
    """
    if share >= 1:
        return dataset
    split = dataset.train
    order = np.random.default_rng(seed).permutation(len(split))
    groups = split.targets[order] if dataset.task is Task.CLASSIFICATION else np.zeros(len(split))
    kept = np.zeros(len(split), bool)
    for group in np.unique(groups):
        members = order[groups == group]
        kept[members[: max(1, round(share * len(members)))]] = True
    return replace(dataset, train=Split(inputs=split.inputs[kept], targets=split.targets[kept], rows=split.rows[kept]))
