"""Small studies with a known illness, trained here with the real trainer, and their diagnosis."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import optuna

from search.insight.diagnose import diagnose
from search.insight.findings import ExtraRun, Opening, Probe, Report
from search.insight.winner import make_trainer
from search.leaders import leaders
from search.space import Space
from search.spec import StudySpec
from storage.records import EpochRow, StudyRecord, StudyState, TrialRecord, TrialState
from trainer.data.dataset import Dataset, Preprocessing, Split, Task
from trainer.settings import Settings
from trainer.work import Metric, Outcome, SegmentResult, TestResult, TrialWork
from trainer.worker import Trainer

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
Numbers = npt.NDArray[Any]


def table(inputs: Numbers, targets: Numbers, sizes: Sequence[int], *, classes: int = 1) -> Dataset:
    """Rows in three splits, in their order; the targets are class indices, or values where `classes` is 1."""
    task = Task.CLASSIFICATION if classes > 1 else Task.REGRESSION
    ends = np.cumsum(sizes)
    first = slice(0, ends[0])
    mean, std = inputs[first].mean(0), inputs[first].std(0)
    scaled = ((inputs - mean) / np.where(std > 0, std, 1)).astype(np.float32)
    shift, scale = (0.0, 1.0) if classes > 1 else (float(targets[first].mean()), float(targets[first].std()))
    learnt = targets.astype(np.int64) if classes > 1 else ((targets - shift) / scale).astype(np.float32)

    def split(low: int, high: int) -> Split:
        return Split(inputs=scaled[low:high], targets=learnt[low:high], rows=np.arange(low, high))

    columns = tuple(
        {"name": f"column {at}", "kind": "number", "mean": float(m), "std": float(s), "fill": 0.0}
        for at, (m, s) in enumerate(zip(mean, std, strict=True))
    )
    return Dataset(
        task=task,
        train=split(0, ends[0]),
        validation=split(ends[0], ends[1]),
        test=split(ends[1], ends[2]),
        preprocessing=Preprocessing(
            kind="table",
            task=str(task),
            columns=columns,
            classes=tuple(f"class {label}" for label in range(classes)) if classes > 1 else (),
            target_mean=shift,
            target_std=scale,
        ),
        input_shape=(inputs.shape[1],),
        outputs=classes,
        split_hash="",
        example=[],
    )


def spec_of(dataset: Dataset, space: dict[str, Any], *, epochs: int, trials: int, seed: int) -> StudySpec:
    """An MLP study; what `space` leaves out is plain and fixed."""
    usual: dict[str, Any] = {
        "layers": 1,
        "neurons": 32,
        "activation": "tanh",
        "learning_rate": {"low": 0.003, "high": 0.03, "log": True},
        "optimizer": "adam",
        "weight_decay": 0.0001,
        "dropout": 0.0,
        "batch_norm": False,
        "batch_size": 32,
        "schedule": "constant",
    }
    spec = StudySpec.from_mapping(
        {
            "name": "planted",
            "seed": seed,
            "data": {"source": "planted.csv"},
            "space": usual | space,
            "budget": {"epochs": epochs, "trials": trials},
        }
    )
    return spec.resolved(dataset.task)


@dataclass
class Studied:
    """A study that was trained here."""

    spec: StudySpec
    dataset: Dataset
    trials: list[TrialRecord]
    epochs: list[EpochRow]
    trainer: Trainer
    results: dict[int, SegmentResult]

    @property
    def winner(self) -> TrialRecord:
        return leaders(self.trials)[0]

    @property
    def metric(self) -> Metric:
        assert self.spec.metric is not None
        return self.spec.metric

    def outputs(self, trial: int, split: Split) -> TestResult:
        """What a trial's network says on a split."""
        weights, settings = self.results[trial].weights, Settings.from_json(self.trials[trial].settings)
        assert weights is not None
        return self.trainer.test(settings, weights, self.metric, split)

    def wrong(self, trial: int, split: Split) -> Numbers:
        """Which rows it gets wrong."""
        result = self.outputs(trial, split)
        return np.asarray(result.outputs.argmax(1) != result.truth)


def studied(dataset: Dataset, spec: StudySpec) -> Studied:
    """All trials of random settings, trained to their end."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    asked = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=spec.seed))
    space = Space(spec, dataset.input_shape)
    proposals = [space.suggest(asked.ask()) for _ in range(spec.budget.trials)]
    trainer = trainer_of(dataset)
    assert spec.metric is not None
    epochs = spec.budget.epochs
    works = [
        TrialWork(
            trial=number,
            settings=proposal.settings,
            seed=1000 * spec.seed + number,
            metric=spec.metric,
            epochs=epochs,
            until=epochs,
        )
        for number, proposal in enumerate(proposals)
    ]
    results = trainer.train(works, lambda: False, lambda trial, epoch: None)
    trials = [
        record(work, dict(proposal.params), result)
        for work, proposal, result in zip(works, proposals, results, strict=True)
    ]
    rows = [
        EpochRow(trial=result.trial, at=START, **dataclasses.asdict(epoch))
        for result in results
        for epoch in result.epochs
    ]
    return Studied(spec, dataset, trials, rows, trainer, {result.trial: result for result in results})


def trainer_of(dataset: Dataset, train: Split | None = None) -> Trainer:
    return make_trainer(dataset if train is None else dataclasses.replace(dataset, train=train))


def record(work: TrialWork, params: dict[str, Any], result: SegmentResult) -> TrialRecord:
    good = result.outcome is Outcome.FINISHED
    return TrialRecord(
        number=work.trial,
        state=TrialState.COMPLETE if good else TrialState.FAILED,
        params=params,
        settings=work.settings.to_json(),
        seed=work.seed,
        train=result.train if good else None,
        validation=result.validation if good else None,
        epochs=len(result.epochs),
        best_epoch=result.best_epoch,
        seconds=result.seconds,
        weights=result.weight_count,
        worker="here",
        error=result.reason,
        started_at=START + timedelta(seconds=work.trial),
        ended_at=START + timedelta(seconds=work.trial + 1),
    )


def extra_runs(study: Studied, *, seeds: int = 5, contenders: int = 2) -> list[ExtraRun]:
    """Twice the neurons, twice the epochs, shares of the rows, and other seeds of the best trials."""
    winner, runs = study.winner, []
    settings = Settings.from_json(winner.settings)
    wider = dataclasses.replace(settings, neurons=tuple(2 * count for count in settings.neurons))
    epochs = study.spec.budget.epochs
    runs += _run(study, study.trainer, Probe.NEURONS, [(winner, 2.0, wider, winner.seed, epochs)])
    runs += _run(study, study.trainer, Probe.EPOCHS, [(winner, 2.0, settings, winner.seed, 2 * epochs)])
    best = leaders(study.trials)[:contenders]
    runs += _run(
        study,
        study.trainer,
        Probe.SEED,
        [
            (trial, float(seed), Settings.from_json(trial.settings), 77 * trial.seed + seed, epochs)
            for trial in best
            for seed in range(1, seeds + 1)
        ],
    )
    for share in (0.25, 0.5):
        train = study.dataset.train
        some = np.sort(np.random.default_rng(5).choice(len(train), int(share * len(train)), replace=False))
        part = Split(inputs=train.inputs[some], targets=train.targets[some], rows=train.rows[some])
        smaller = trainer_of(study.dataset, part)
        runs += _run(study, smaller, Probe.ROWS, [(winner, share, settings, winner.seed, epochs)], len(some))
    return runs


def _run(
    study: Studied,
    trainer: Trainer,
    probe: Probe,
    asked: Sequence[tuple[TrialRecord, float, Settings, int, int]],
    rows: int | None = None,
) -> list[ExtraRun]:
    works = [
        TrialWork(trial=10_000 + at, settings=settings, seed=seed, metric=study.metric, epochs=epochs, until=epochs)
        for at, (_, _, settings, seed, epochs) in enumerate(asked)
    ]
    results = trainer.train(works, lambda: False, lambda trial, epoch: None)
    return [
        ExtraRun(
            probe=probe,
            trial=trial.number,
            amount=amount,
            settings=settings.to_json(),
            seed=seed,
            train=result.train,
            validation=result.validation,
            rows=rows or len(study.dataset.train),
            epochs=len(result.epochs),
            seconds=result.seconds,
            weights=result.weight_count,
            error=result.reason,
        )
        for (trial, amount, settings, seed, _), result in zip(asked, results, strict=True)
    ]


def diagnosed(study: Studied, runs: Sequence[ExtraRun] | None = None, **changes: Any) -> Report:
    """The report on a study, with its extra runs and the test split open."""
    winner, data = study.winner, study.dataset
    ended = START + timedelta(hours=1)
    given: dict[str, Any] = {
        "study": study_record(study.spec, len(study.trials)),
        "spec": study.spec,
        "trials": study.trials,
        "winner": winner,
        "epochs": study.epochs,
        "dataset": data,
        "train": study.outputs(winner.number, data.train),
        "validation": study.outputs(winner.number, data.validation),
        "test": study.outputs(winner.number, data.test),
        "extra_runs": extra_runs(study) if runs is None else runs,
        "openings": (Opening(at=ended, trial=winner.number, reason="the winner"),),
        "not_run": (),
    }
    return diagnose(**{**given, **changes})


def study_record(spec: StudySpec, trials: int, **changes: Any) -> StudyRecord:
    record = StudyRecord(
        id=1,
        name=spec.name,
        number=1,
        spec=spec.to_mapping(),
        text="",
        trials=trials,
        state=StudyState.FINISHED,
        created_at=START,
        started_at=START,
        ended_at=START + timedelta(hours=1),
        error=None,
        result=None,
        split_hash="",
        cancel_requested=False,
        uid="5a",
        worked=60.0,
    )
    return dataclasses.replace(record, **changes)


# Data


def clouds(rows: int, *, classes: int, features: int, apart: float, seed: int) -> tuple[Numbers, Numbers]:
    """Gaussian clouds, one a class, whose centres are `apart` standard deviations from each other, about."""
    random = np.random.default_rng(seed)
    centres = random.normal(size=(classes, features))
    centres *= apart / math.sqrt(2) / np.linalg.norm(centres - centres.mean(0), axis=1).mean()
    targets = random.integers(0, classes, rows)
    return centres[targets] + random.normal(size=(rows, features)), targets


def rings(rows: int, *, classes: int, seed: int, noise: float = 0.15) -> tuple[Numbers, Numbers]:
    """Alternating rings round the origin: one neuron or two can't tell them apart."""
    random = np.random.default_rng(seed)
    targets = random.integers(0, classes, rows)
    radius = targets + 1 + noise * random.normal(size=rows)
    angle = random.uniform(0, 2 * math.pi, rows)
    inputs = np.column_stack([radius * np.cos(angle), radius * np.sin(angle)])
    return np.column_stack([inputs, random.normal(size=(rows, 2))]), targets


def curved(rows: int, *, features: int, noise: float, seed: int) -> tuple[Numbers, Numbers]:
    """A smooth function of a few columns, with noise."""
    random = np.random.default_rng(seed)
    inputs = random.normal(size=(rows, features))
    weights = random.normal(size=(features, 3))
    values = np.tanh(inputs @ weights / math.sqrt(features)).sum(1)
    return inputs, 50 + 10 * (values / values.std() + noise * random.normal(size=rows))
