"""What the extra runs show: whether more neurons or more epochs make the winner better, by how much, and how sure that
is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from search.insight.findings import ExtraRun, Level, Levels, Probe, SeedNoise
from search.insight.levels import Z, difference, level_of
from trainer.work import Metric


@dataclass(frozen=True, kw_only=True)
class Gain:
    """What one change of the winner does.

    Attributes:
        probe: `Probe.NEURONS` or `Probe.EPOCHS`.
        amount: The factor.
        train: By how much the training metric falls; negative where it rises.
        validation: By how much the validation metric falls.
    """

    probe: Probe
    amount: float
    train: float
    validation: Level

    @property
    def real(self) -> bool:
        """Whether it is better on rows that it has not seen, beyond what rows and seeds account for."""
        return self.validation.low > 0

    @property
    def words(self) -> str:
        """``2 times the neurons``."""
        return f"{self.amount:g} times the {self.probe}"


def gains(
    extra_runs: Sequence[ExtraRun],
    *,
    winner: int,
    levels: Levels,
    metric: Metric,
    rows: float,
    seeds: SeedNoise | None,
) -> tuple[Gain, ...]:
    """The gain of each run with more neurons or epochs.

    The winner's own validation metric is the best of many and so a little too good: where it was trained from other
    seeds, their mean stands for it. The interval counts the validation split as if the two had been measured on
    different rows, which is wider than need be, and the noise between seeds where it is known.

    Args:
        rows: Of the validation split, as `effective_rows` counts them.
    """
    usual, noise = levels.validation, 0.0
    own = None if seeds is None else next((each for each in seeds.contenders if each.trial == winner), None)
    if seeds is not None and own is not None and own.values:
        usual = level_of(metric, own.mean, rows, like=levels.validation, like_rows=rows)
        noise = Z * seeds.std * math.sqrt(1 + 1 / len(own.values))
    found = []
    for run in extra_runs:
        if run.trial != winner or run.probe not in (Probe.NEURONS, Probe.EPOCHS) or run.amount <= 1:
            continue
        if run.train is None or run.validation is None:
            continue
        changed = level_of(metric, run.validation, rows, like=levels.validation, like_rows=rows)
        fallen = difference(usual, changed)
        low = fallen.value - math.hypot(fallen.value - fallen.low, noise)
        high = fallen.value + math.hypot(fallen.high - fallen.value, noise)
        validation = Level(value=fallen.value, low=low, high=high)
        train = levels.train.value - run.train
        found.append(Gain(probe=run.probe, amount=run.amount, train=train, validation=validation))
    return tuple(found)
