"""What a trial's curve over its epochs says of its learning rate and its number of epochs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from storage.records import EpochRow

LEAST = 3
"""Epochs under which a curve says nothing."""

JUMP = 1.3
"""The loss rising to so many times what it had been is no noise of batches."""

STEADY = 0.75
"""Share of the steps of the last half that must go down for the fall to be steady."""

STILL = 0.02
"""Relative fall over the last quarter of the epochs, at the least, for a curve to be falling still."""

SLOW = 0.5
"""A loss that has kept more than this share of where it began has hardly been learnt down."""


@dataclass(frozen=True, kw_only=True)
class Curve:
    """The shape of one trial's training loss.

    Attributes:
        jumps: How often it rose to `JUMP` times the least so far, or was not finite.
        downhill: Whether nearly all steps of its second half went down, however little.
        falling: Whether it was downhill and fell by a share worth the name.
        kept: The last loss over the first one.
        fall: Relative fall over the last quarter of the epochs.
        best_last: Whether the best validation figure is among those of the last tenth of the epochs.
    """

    epochs: int
    jumps: int
    downhill: bool
    falling: bool
    kept: float
    fall: float
    best_last: bool


def curve_of(rows: Sequence[EpochRow], trial: int) -> Curve | None:
    """None where the trial has too few epochs."""
    own = sorted((row for row in rows if row.trial == trial), key=lambda row: row.epoch)
    losses = [row.train_loss for row in own]
    if len(losses) < LEAST:
        return None
    finite = [loss for loss in losses if math.isfinite(loss)]
    least = np.minimum.accumulate(finite)
    jumps = sum(later > JUMP * before for later, before in zip(finite[1:], least, strict=False))
    jumps += len(losses) - len(finite)
    last = np.asarray(finite[len(finite) // 2 :])
    steps = np.diff(finite[max(0, len(finite) // 2 - 1) :])
    before = finite[min(len(finite) - 2, 3 * len(finite) // 4 - 1)] if len(finite) >= LEAST else math.nan
    fall = (before - float(last[-1])) / before if len(last) and before > 0 else 0.0
    downhill = bool(len(steps)) and float((steps < 0).mean()) >= STEADY
    figures = [row.validation_metric for row in own]
    best = min(range(len(figures)), key=lambda at: figures[at] if math.isfinite(figures[at]) else math.inf)
    return Curve(
        epochs=len(own),
        jumps=jumps,
        downhill=downhill,
        falling=downhill and fall >= STILL,
        kept=float(last[-1]) / finite[0] if finite and finite[0] > 0 else 1.0,
        fall=fall,
        best_last=best >= len(figures) - max(1, len(figures) // 10),
    )
