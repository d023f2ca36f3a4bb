"""What a network's outputs are worth: the loss it learns by and the metric it is compared by."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from trainer.data.dataset import Task
from trainer.device_data import DeviceSplit
from trainer.work import Metric

ROWS_AT_ONCE = 256
"""Rows of an evaluated batch: few enough for a CPU's caches."""


class Figures(NamedTuple):
    """Averages over rows; `metric` in the target's units."""

    loss: float
    metric: float


def losses(task: Task, outputs: Tensor, targets: Tensor) -> Tensor:
    """What networks learn by: the cross-entropy, or the squared error of the standardised target.

    Args:
        outputs: (..., rows, outputs).
        targets: (..., rows).

    Returns:
        The mean over the rows, (...).
    """
    if task is Task.CLASSIFICATION:
        return _log_loss(outputs, targets)
    return (outputs.squeeze(-1) - targets).square().mean(dim=-1)


def _log_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    rows = cross_entropy(outputs.flatten(end_dim=-2), targets.flatten(), reduction="none")
    return rows.view(targets.shape).mean(dim=-1)


def score(metric: Metric, outputs: Tensor, targets: Tensor, target_std: float) -> Tensor:
    """The metric of outputs (..., rows, outputs) against targets (..., rows), as (...); smaller is better.

    Args:
        target_std: For regression, the unit of the standardised outputs and targets, in the target's units.
    """
    match metric:
        case Metric.ERROR:
            return (outputs.argmax(dim=-1) != targets).double().mean(dim=-1)
        case Metric.BALANCED_ERROR:
            return _balanced_error(outputs, targets)
        case Metric.LOG_LOSS:
            return _log_loss(outputs, targets)
        # In double precision: a target of 1e-24 or 1e20 has no square in float32.
        case Metric.MSE:
            return (outputs.squeeze(-1) - targets).square().mean(dim=-1).double() * target_std**2
        case Metric.MAE:
            return (outputs.squeeze(-1) - targets).abs().mean(dim=-1).double() * target_std


def _balanced_error(outputs: Tensor, targets: Tensor) -> Tensor:
    """1 - the mean recall over the classes that occur in `targets`."""
    if targets.dim() > 1:
        return torch.stack([_balanced_error(*pair) for pair in zip(outputs, targets, strict=True)])
    classes = outputs.shape[1]
    rows = torch.bincount(targets, minlength=classes)
    hits = torch.bincount(targets[outputs.argmax(dim=1) == targets], minlength=classes)
    occurs = rows > 0
    return 1 - (hits[occurs].double() / rows[occurs]).mean()


def figures(outputs: Tensor, targets: Tensor, task: Task, metric: Metric, target_std: float) -> list[Figures]:
    """Loss and metric of several networks, over all their rows; waits for the device.

    Args:
        outputs: (networks, rows, outputs).
        targets: (networks, rows).
    """
    loss = losses(task, outputs, targets).double()
    value = score(metric, outputs, targets, target_std).double()
    return [Figures(*pair) for pair in torch.stack((loss, value), dim=1).tolist()]


@torch.inference_mode()
def predict(network: nn.Module, split: DeviceSplit) -> Tensor:
    """The network's float32 outputs (rows, outputs) for a whole split, with dropout off."""
    network.eval()
    starts = range(0, len(split), ROWS_AT_ONCE)
    return torch.cat([network(split.images(slice(start, start + ROWS_AT_ONCE))) for start in starts])
