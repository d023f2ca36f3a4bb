"""The optimizer and the learning rate of a trial."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from trainer.settings import OptimizerKind, Schedule, Settings

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8
"""Adam's constants: the defaults of Kingma & Ba (2015), arXiv:1412.6980, and of PyTorch."""


class Optimizer:
    """Adam, AdamW or SGD with momentum over all of a trial's weights as one vector, with the trial's own values.

    One call of the kernel behind `torch.optim`'s ``fused=True`` updates the vector: on a CPU 0.4 ns a weight, where
    separate operations with a value for each weight would read and write the vector five times. Weight decay acts on
    every weight: as a penalty on the loss for adam and sgd, by itself for adamw.

    Args:
        weights: The vector, changed in place by `step`.

    Attributes:
        gradient: The loss's gradient, of the shape of the weights; whoever calls `step` fills it in.
    """

    def __init__(self, settings: Settings, weights: Tensor) -> None:
        self._settings = settings
        self._weights = weights
        self.gradient = torch.zeros_like(weights)
        # The kernel of SGD takes no buffer where there is no momentum.
        moments = 2 if settings.optimizer is not OptimizerKind.SGD else int(settings.momentum > 0)
        self._moments = [torch.zeros_like(weights) for _ in range(moments)]
        self._steps = torch.zeros((), device=weights.device)
        # On a GPU a number of the host's would be frozen into a CUDA graph: a tensor can be changed between its runs.
        on_gpu = weights.device.type == "cuda"
        self._rate: float | Tensor = torch.zeros((), device=weights.device) if on_gpu else 0.0

    @property
    def state(self) -> dict[str, Tensor]:
        """What `step` changes, the weights apart; the tensors themselves. The rate is set anew in each epoch."""
        return {"steps": self._steps, **{f"moment{number}": each for number, each in enumerate(self._moments, start=1)}}

    def set_rate(self, rate: float) -> None:
        if isinstance(self._rate, Tensor):
            self._rate.fill_(rate)
        else:
            self._rate = rate

    def step(self) -> None:
        """Moves the weights along `gradient`."""
        settings = self._settings
        lists = [self._weights], [self.gradient]
        if settings.optimizer is OptimizerKind.SGD:
            torch._fused_sgd_(
                *lists,
                self._moments,
                weight_decay=settings.weight_decay,
                momentum=settings.momentum,
                lr=self._rate,
                dampening=0.0,
                nesterov=False,
                maximize=False,
                is_first_step=False,
            )
            return
        self._steps.add_(1)
        fused = torch._fused_adam_ if settings.optimizer is OptimizerKind.ADAM else torch._fused_adamw_
        fused(
            *lists,
            [self._moments[0]],
            [self._moments[1]],
            [],
            [self._steps],
            lr=self._rate,
            beta1=BETA1,
            beta2=BETA2,
            weight_decay=settings.weight_decay,
            eps=EPSILON,
            amsgrad=False,
            maximize=False,
        )


def learning_rate(settings: Settings, epoch: int, epochs: int) -> float:
    """The rate during one epoch, counted from 1.

    Cosine falls from the full rate in the first epoch towards 0 behind the last one, without restarts (Loshchilov &
    Hutter 2017, 'SGDR', eq. 5); it changes between epochs, not within one.
    """
    if settings.schedule is Schedule.COSINE:
        return settings.learning_rate * (1 + math.cos(math.pi * (epoch - 1) / epochs)) / 2
    return settings.learning_rate
