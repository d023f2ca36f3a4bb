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
        outputs: (networks, outputs, rows).
        targets: (networks, rows).

    Returns:
        The mean over the rows, (networks,).
    """
    if task is Task.CLASSIFICATION:
        return cross_entropy(outputs, targets, reduction="none").mean(dim=1)
    return (outputs.squeeze(1) - targets).square().mean(dim=1)


def scores(metric: Metric, outputs: Tensor, targets: Tensor, target_std: float) -> Tensor:
    """The metric of each network, (networks,); smaller is better.

    Args:
        outputs: (networks, outputs, rows).
        targets: (networks, rows).
        target_std: For regression, the unit of the standardised outputs and targets, in the target's units.
    """
    match metric:
        case Metric.ERROR:
            return (_answers(outputs) != targets).double().mean(dim=1)
        case Metric.BALANCED_ERROR:
            pairs = zip(_answers(outputs), targets, strict=True)
            return torch.stack([_balanced_error(*pair, outputs.shape[1]) for pair in pairs])
        case Metric.LOG_LOSS:
            return losses(Task.CLASSIFICATION, outputs, targets)
        # In double precision: a target of 1e-24 or 1e20 has no square in float32.
        case Metric.MSE:
            return losses(Task.REGRESSION, outputs, targets).double() * target_std**2
        case Metric.MAE:
            return (outputs.squeeze(1) - targets).abs().mean(dim=1).double() * target_std


def _answers(outputs: Tensor) -> Tensor:
    """The class of each row, (networks, rows). On a CPU `argmax` over this dimension takes 18 times as long."""
    return outputs.max(dim=1).indices


def _balanced_error(answers: Tensor, targets: Tensor, classes: int) -> Tensor:
    """1 - the mean recall over the classes that occur in `targets`."""
    rows = torch.bincount(targets, minlength=classes)
    hits = torch.bincount(targets[answers == targets], minlength=classes)
    occurs = rows > 0
    return 1 - (hits[occurs].double() / rows[occurs]).mean()


def figures(outputs: Tensor, targets: Tensor, task: Task, metric: Metric, target_std: float) -> list[Figures]:
    """Loss and metric of several networks over all their rows; waits for the device. Shapes as in `scores`."""
    loss = losses(task, outputs, targets).double()
    value = scores(metric, outputs, targets, target_std).double()
    return [Figures(*pair) for pair in torch.stack((loss, value), dim=1).tolist()]


@torch.inference_mode()
def predict(network: nn.Module, split: DeviceSplit) -> Tensor:
    """The network's float32 outputs (rows, outputs) for a whole split, with dropout off."""
    network.eval()
    rows = torch.arange(len(split), device=split.targets.device)
    return torch.cat([network(split.images(batch)) for batch in torch.split(rows, ROWS_AT_ONCE)])
