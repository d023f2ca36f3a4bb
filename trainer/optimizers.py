"""The optimizer and the learning rate of a trial."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
import torch._dynamo  # the first optimizer would import it: seconds that belong to a worker's start
from torch import nn

from trainer.settings import OptimizerKind, Schedule, Settings


def make_optimizer(settings: Settings, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """Weight decay acts on every weight: as a penalty on the loss for adam and sgd, by itself for adamw.

    ``fused=True`` updates all weights in one call; on a CPU a whole step of a small network under Adam is 1.2 to 1.5
    times as fast with it.
    """
    rate, decay = settings.learning_rate, settings.weight_decay
    match settings.optimizer:
        case OptimizerKind.ADAM:
            return torch.optim.Adam(parameters, lr=rate, weight_decay=decay, fused=True)
        case OptimizerKind.ADAMW:
            return torch.optim.AdamW(parameters, lr=rate, weight_decay=decay, fused=True)
        case OptimizerKind.SGD:
            return torch.optim.SGD(parameters, lr=rate, momentum=settings.momentum, weight_decay=decay, fused=True)


def learning_rate(settings: Settings, epoch: int, epochs: int) -> float:
    """The rate during one epoch, counted from 1.

    Cosine falls from the full rate in the first epoch towards 0 behind the last one, without restarts (Loshchilov &
    Hutter 2017, 'SGDR', eq. 5); it changes between epochs, not within one.
    """
    if settings.schedule is Schedule.COSINE:
        return settings.learning_rate * (1 + math.cos(math.pi * (epoch - 1) / epochs)) / 2
    return settings.learning_rate


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate
