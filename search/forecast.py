"""How long a study will take: a few of its trials are trained for a moment on this machine, and the study is played
through with what they took.

What is played through are the dispatcher's own packs (`search.packing`) and the study's pruner, with trials whose
quality is drawn at random. What the sampler will learn to prefer is not known, nor what else the machine will do.
"""

from __future__ import annotations

import heapq
import importlib
import math
import os
import random
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import nnls

from search.audit import AuditedPruner
from search.packing import Packing
from search.placement import Node, WorkerShape, fit_workers
from search.pruner import make_pruner
from search.sampler import Stream, derived_seed
from search.spec import SamplerKind, StudySpec
from trainer.anatomy import Kind, layers_of
from trainer.data.dataset import Dataset, Split
from trainer.settings import Settings
from trainer.work import Metric, Outcome, TrialWork

if TYPE_CHECKING:
    from trainer.worker import Trainer

Numbers = npt.NDArray[np.float64]

MEASURED_SECONDS = 2.0
"""For so long packs are begun; the last one may take as long again, and is given up after that."""

EPOCHS_MEASURED = 2

SHORT_EPOCH = 0.1
"""Seconds: where epochs would take longer than about that, they are measured on a part of the rows."""

SLOW_FLOPS = 5e9
"""Floating-point operations a second that are at least to be expected, to say which part."""

REFERENCE = np.array([1e-10, 6e-11, 1.5e-4])
"""Seconds for each of `_features` on a quiet core: in which proportion they stand, about."""

RIDGE = 0.5
"""How much the reference counts; a pack counts 1."""

IMPORTS, IMPORT_SECONDS = 4.0, 1.6
"""Beginning and end of a study (Ray, workers, testing and plots) take about as long as torch's import so many times;
and how long that takes where it was imported already."""

BETWEEN_PACKS = 0.03
"""Seconds from a worker's answer to its next pack."""

CROWDED = 1.3
"""By so much workers are slower where they have all the cores, which the dispatcher and MLflow need as well."""

PLAYED, TIMES = 400, 9
"""Trials that are played through at most, and how often."""

LEARNT = 0.75
"""Samplers that learn propose better and better trials, of which the pruner lets more go on: at a study's end they are
as good as this better part of random ones."""

WORST = 0.5
"""The validation error of the worst trials after an epoch. It is taken to fall with the root of the epochs."""

LEARNING = (SamplerKind.TPE, SamplerKind.GP, SamplerKind.CMAES)

UNSURE = 1.3
"""What is not known otherwise, as a factor up and down."""


@dataclass(frozen=True, kw_only=True)
class Span:
    """A value, and between what it may well lie."""

    value: float
    low: float
    high: float

    def times(self, factor: float) -> Span:
        return Span(value=self.value * factor, low=self.low * factor, high=self.high * factor)


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """
    Attributes:
        seconds: Of the whole study, as `neurosweep status` says them at its end.
        worker_hours: All workers together, from the study's beginning to its end.
        gpu_hours: Those of GPUs; 0 without any.
        epochs: Of a trial on average: the pruner ends most before the last.
        measured: How many trials were trained for a moment.
        limited: Whether it is `budget.minutes` that ends it.
    """

    seconds: Span
    worker_hours: Span
    gpu_hours: Span
    workers: WorkerShape
    epochs: float
    measured: int
    limited: bool


@dataclass(frozen=True, kw_only=True)
class _Pace:
    """What trials take on this machine.

    Attributes:
        rates: Seconds for each of `_features`.
        beginning: Seconds of a trial's segment beside its epochs.
        failing: Share of the trials that end in their first epochs.
    """

    rates: tuple[float, ...]
    beginning: float
    failing: float
    measured: int

    def epoch(self, features: Sequence[float]) -> float:
        return sum(rate * number for rate, number in zip(self.rates, features, strict=True))


def forecast(spec: StudySpec, dataset: Dataset, draws: Sequence[Settings]) -> Forecast:
    """
    Args:
        spec: The study with what its data say.
        draws: Random settings of its space.

    Raises:
        BadInputError: The workers that the study asks for do not fit on this machine.
    """
    loading = time.perf_counter()
    loaded = "torch" in sys.modules
    worker = importlib.import_module("trainer.worker")
    importing = IMPORT_SECONDS if loaded else time.perf_counter() - loading

    cores = os.cpu_count() or 1
    asked = spec.workers
    shape = fit_workers(asked.count, asked.cpus, asked.gpus, [Node(cpus=cores, gpus=worker.gpu_count())])
    packing = Packing(
        trials=spec.budget.trials,
        workers=shape.count,
        on_gpu=shape.gpus > 0,
        rows=len(dataset.train),
        input_shape=dataset.input_shape,
        outputs=dataset.outputs,
    )
    pace = _measured(spec, dataset, draws, packing, worker.Trainer)
    slowdown = CROWDED if shape.count * shape.cpus >= cores else 1.0
    rows = len(dataset.train), len(dataset.validation)
    networks = [(pace.epoch(_features(each, dataset, *rows)), packing.cost(each, 1)) for each in draws]
    played = [_Play(spec, packing, rows[1], networks, pace, slowdown, number).through() for number in range(TIMES)]
    seconds = [IMPORTS * importing + wall for wall, _ in played]
    middle = statistics.median(seconds)
    deciles = statistics.quantiles(seconds, n=10)
    span = Span(value=middle, low=min(deciles[0], middle) / UNSURE, high=max(deciles[-1], middle) * UNSURE)
    limit = None if spec.budget.minutes is None else 60 * spec.budget.minutes
    if limit is not None:
        span = Span(value=min(span.value, limit), low=min(span.low, limit), high=min(span.high, limit))
    hours = span.times(shape.count / 3600)
    return Forecast(
        seconds=span,
        worker_hours=hours,
        gpu_hours=hours.times(shape.gpus),
        workers=shape,
        epochs=statistics.mean(epochs for _, epochs in played),
        measured=pace.measured,
        limited=limit is not None and middle >= limit,
    )


# What trials take


def _features(settings: Settings, dataset: Dataset, train: int, validation: int) -> tuple[float, ...]:
    """What an epoch's time hangs on: operations of convolutions and of dense layers (six for each product of a train
    row, two for a validation row), and the number of calls, a handful for each layer and batch. Each network of a pack
    has convolutions of its own; dense layers are stacked."""
    layers = layers_of(settings, dataset.input_shape, dataset.outputs)
    rows = 6 * train + 2 * validation
    convolutions = sum(layer.multiply_adds for layer in layers if layer.kind is Kind.CONV)
    dense = sum(layer.multiply_adds for layer in layers if layer.kind is Kind.DENSE)
    kinds = 2 + sum(1 if layer.sees is None else 3 for layer in layers)
    calls = math.ceil(train / settings.batch_size) * kinds
    return float(rows * convolutions), float(rows * dense), float(calls)


def _measured(
    spec: StudySpec, dataset: Dataset, draws: Sequence[Settings], packing: Packing, trainer: type[Trainer]
) -> _Pace:
    """Trains packs for a moment, as a worker would."""
    train, validation = _parts(dataset, draws)
    held = trainer(
        *(train, validation, dataset.preprocessing, dataset.task, dataset.input_shape, dataset.outputs),
        device="auto" if packing.on_gpu else "cpu",
        threads=max(1, int(spec.workers.cpus)),
    )
    features: list[Any] = []
    seconds: list[float] = []
    beginnings: list[float] = []
    failed = measured = 0
    left, first_look = iter(draws), make_pruner(spec).looks[0]
    begun = time.perf_counter()  # the first one warms up: libraries prepare themselves
    warm_up = [_work(spec, draws[-1], len(draws))]
    held.train(warm_up, lambda: time.perf_counter() - begun > MEASURED_SECONDS, lambda *_: None)
    started = time.perf_counter()
    while time.perf_counter() - started < MEASURED_SECONDS and (pack := _pack(left, packing, first_look)):
        works = [_work(spec, settings, number) for number, settings in enumerate(pack)]
        begun = time.perf_counter()
        results = held.train(works, lambda: time.perf_counter() - started > 2 * MEASURED_SECONDS, lambda *_: None)
        whole = time.perf_counter() - begun
        if seconds and any(result.outcome is Outcome.STOPPED for result in results):
            break
        each = [
            np.multiply(_features(settings, dataset, len(train), len(validation)), max(1, len(result.epochs)))
            for settings, result in zip(pack, results, strict=True)
        ]
        training = sum(epoch.seconds for result in results for epoch in result.epochs) or whole
        features.append(np.sum(each, axis=0))
        seconds.append(training)
        beginnings.append((whole - training) / len(pack))
        measured += len(pack)
        failed += sum(result.outcome is Outcome.FAILED for result in results)
        for work in works:
            held.forget(work.trial)
    return _Pace(
        rates=_rates(np.array(features), np.array(seconds)),
        beginning=statistics.median(beginnings),
        failing=failed / measured,
        measured=measured,
    )


def _rates(features: Numbers, seconds: Numbers) -> tuple[float, ...]:
    """Seconds for each of `_features`, from those of packs.

    Relative errors count, so that one large pack does not settle everything. What the packs say little about keeps its
    proportion in `REFERENCE`: a ridge around it.
    """
    shares = features * REFERENCE / seconds[:, None]
    scale = 1 / float(np.median(shares.sum(axis=1)))
    pull = RIDGE * np.eye(len(REFERENCE))
    rates, _ = nnls(np.vstack([shares * scale, pull]), np.concatenate([np.ones(len(seconds)), pull.sum(axis=1)]))
    return tuple(float(rate) for rate in rates * scale * REFERENCE)


def _parts(dataset: Dataset, draws: Sequence[Settings]) -> tuple[Split, Split]:
    """The splits to measure on: of large ones every so many-th row, as long as there are a few batches left."""
    train, validation = dataset.train, dataset.validation
    whole = [sum(_features(each, dataset, len(train), len(validation))[:2]) for each in draws]
    batches = 4 * max(each.batch_size for each in draws)
    step = int(min(statistics.mean(whole) / SLOW_FLOPS / SHORT_EPOCH, len(train) / batches))
    return (train, validation) if step <= 1 else (_every(train, step), _every(validation, step))


def _every(split: Split, step: int) -> Split:
    return Split(inputs=split.inputs[::step], targets=split.targets[::step], rows=split.rows[::step])


def _pack(left: Iterator[Settings], packing: Packing, epochs: int) -> list[Settings]:
    """The next trials, as many as the dispatcher would give to a worker at once."""
    pack: list[Settings] = []
    cost, most = 0.0, packing.most(packing.trials)
    while len(pack) < most and cost < packing.budget and (settings := next(left, None)) is not None:
        pack.append(settings)
        cost += packing.cost(settings, epochs)
    return pack


def _work(spec: StudySpec, settings: Settings, number: int) -> TrialWork:
    return TrialWork(
        trial=number,
        settings=settings,
        seed=derived_seed(spec.seed, Stream.PREVIEW, number),
        metric=Metric(spec.metric or Metric.ERROR),
        epochs=max(spec.budget.epochs, EPOCHS_MEASURED),
        until=EPOCHS_MEASURED,
    )


# The study, played through


@dataclass
class _Trial:
    """
    Attributes:
        epoch: Seconds of one epoch.
        quality: From 0 to 1, smaller is better.
    """

    number: int
    epoch: float
    cost: float
    quality: float
    failing: bool
    epochs: int = 0


class _Play:
    """One way in which the study may go.

    Args:
        validation: Rows of that split.
        networks: What there is to draw from: the seconds of an epoch, and its floating-point operations.
        slowdown: A factor to all of a worker's times.
        number: Which way.
    """

    def __init__(
        self,
        spec: StudySpec,
        packing: Packing,
        validation: int,
        networks: Sequence[tuple[float, float]],
        pace: _Pace,
        slowdown: float,
        number: int,
    ) -> None:
        self._packing, self._networks = packing, networks
        self._pace, self._slowdown = pace, slowdown
        self._random = random.Random(derived_seed(spec.seed, Stream.PREVIEW, number))
        self._pruner = AuditedPruner(make_pruner(spec), spec, {})
        self._counted = validation if spec.metric in (Metric.ERROR, Metric.BALANCED_ERROR) else 0
        self._learning = 1 - LEARNT if spec.search.sampler in LEARNING else 0.0
        self._trials = min(packing.trials, max(PLAYED, 16 * packing.workers))
        self._begun = self._trained = 0

    def through(self) -> tuple[float, float]:
        """Seconds from the first pack to the end of the last, and epochs a trial."""
        done: list[tuple[float, int, list[_Trial]]] = [(0.0, worker, []) for worker in range(self._packing.workers)]
        now = 0.0
        while done:
            now, worker, pack = heapq.heappop(done)
            pack = self._next(self._survivors(pack))
            if pack:
                heapq.heappush(done, (now + self._train(pack), worker, pack))
        return now * self._packing.trials / self._trials, self._trained / self._trials

    def _survivors(self, pack: list[_Trial]) -> list[_Trial]:
        looks = self._pruner.looks
        going, curves = [], {}
        for trial in pack:
            curve = {look: self._metric(trial.quality, look) for look in looks if look <= trial.epochs}
            if trial.epochs == looks[-1]:
                self._pruner.complete(trial.number, curve)
            elif not trial.failing:
                going.append(trial)
                curves[trial.number] = curve
        ending = self._pruner.judge(curves)
        return [trial for trial in going if trial.number not in ending]

    def _metric(self, quality: float, epoch: int) -> float:
        """The validation metric of a trial. An error is a number of wrong rows: where they are few, many trials are
        equally good, and the pruner ends none of those."""
        value = WORST * quality**2 / math.sqrt(epoch)
        return round(value * self._counted) / self._counted if self._counted else value

    def _next(self, pack: list[_Trial]) -> list[_Trial]:
        """The survivors, joined by new trials up to a pack's size."""
        most = self._packing.most(self._trials - self._begun)
        cost = sum(trial.cost * (self._look(trial) - trial.epochs) for trial in pack)
        while len(pack) < most and cost < self._packing.budget and self._begun < self._trials:
            trial = self._begin()
            pack.append(trial)
            cost += trial.cost * self._look(trial)
        return pack

    def _begin(self) -> _Trial:
        epoch, cost = self._random.choice(self._networks)
        self._begun += 1
        return _Trial(
            number=self._begun - 1,
            epoch=epoch,
            cost=cost,
            quality=self._random.random() * (1 - self._learning * self._begun / self._trials),
            failing=self._random.random() < self._pace.failing,
        )

    def _train(self, pack: list[_Trial]) -> float:
        """Seconds until a worker's next pack."""
        seconds = 0.0
        for trial in pack:
            epochs = 1 if trial.failing else self._look(trial) - trial.epochs
            trial.epochs += epochs
            self._trained += epochs
            seconds += epochs * trial.epoch + self._pace.beginning
        return seconds * self._slowdown + BETWEEN_PACKS

    def _look(self, trial: _Trial) -> int:
        return next(look for look in self._pruner.looks if look > trial.epochs)
