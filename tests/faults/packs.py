"""Work for a pool: one small network on the iris flowers."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from search.pool import Done, Pool
from trainer.data.dataset import DataRequest, Dataset
from trainer.data.load import load
from trainer.settings import Activation, Family, OptimizerKind, Schedule, Settings
from trainer.work import Metric, TrialWork

SETTINGS = Settings(
    family=Family.MLP,
    neurons=(12,),
    activation=Activation.TANH,
    learning_rate=0.02,
    optimizer=OptimizerKind.ADAM,
    momentum=0.9,
    weight_decay=0.0,
    dropout=0.2,
    batch_norm=False,
    batch_size=16,
    schedule=Schedule.COSINE,
)


def data() -> Dataset:
    return load(DataRequest(source="iris"))


def work(trial: int, until: int = 6, epochs: int = 6) -> TrialWork:
    return TrialWork(
        trial=trial, settings=SETTINGS, seed=100 + trial, metric=Metric.LOG_LOSS, epochs=epochs, until=until
    )


def pack(trial: int, epochs: int = 6) -> list[TrialWork]:
    return [work(trial, until=epochs, epochs=epochs)]


def until(pool: Pool, wanted: Callable[[Done], Any], seconds: float = 120) -> Done:
    """The first answer of the wanted kind."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        pool.signs()
        for done in pool.collect(0.5):
            if wanted(done):
                return done
    raise AssertionError("it did not come")


def figures(done: Done) -> list[tuple[float, float]]:
    """What a pack's trials came to."""
    assert done.results is not None
    return [(epoch.train_loss, epoch.validation_loss) for result in done.results for epoch in result.epochs]
