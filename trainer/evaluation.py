"""What a network's outputs are worth: the loss it learns by and the metric it is compared by."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, l1_loss, mse_loss

from trainer.data.dataset import Task
from trainer.work import Metric


class Figures(NamedTuple):
    """Averages over rows; `metric` in the target's units."""

    loss: float
    metric: float


def loss_function(task: Task) -> Callable[[Tensor, Tensor], Tensor]:
    """Mean over the rows of the cross-entropy, or of the squared error of the standardised target.

    The function takes outputs (rows, outputs) and targets (rows,).
    """
    return cross_entropy if task is Task.CLASSIFICATION else _squared_error


def _squared_error(outputs: Tensor, targets: Tensor) -> Tensor:
    return mse_loss(outputs.squeeze(1), targets)


def score(metric: Metric, outputs: Tensor, targets: Tensor, target_std: float) -> Tensor:
    """The metric of outputs (rows, outputs) against targets (rows,), as a tensor without dimensions; smaller is better.

    Args:
        target_std: For regression, the unit of the standardised outputs and targets, in the target's units.
    """
    match metric:
        case Metric.ERROR:
            return (outputs.argmax(dim=1) != targets).double().mean()
        case Metric.BALANCED_ERROR:
            return _balanced_error(outputs, targets)
        case Metric.LOG_LOSS:
            return cross_entropy(outputs, targets)
        # In double precision: a target of 1e-24 or 1e20 has no square in float32.
        case Metric.MSE:
            return _squared_error(outputs, targets).double() * target_std**2
        case Metric.MAE:
            return l1_loss(outputs.squeeze(1), targets).double() * target_std


def _balanced_error(outputs: Tensor, targets: Tensor) -> Tensor:
    """1 - the mean recall over the classes that occur in `targets`."""
    classes = outputs.shape[1]
    rows = torch.bincount(targets, minlength=classes)
    hits = torch.bincount(targets[outputs.argmax(dim=1) == targets], minlength=classes)
    occurs = rows > 0
    return 1 - (hits[occurs].double() / rows[occurs]).mean()


def figures(outputs: Tensor, targets: Tensor, task: Task, metric: Metric, target_std: float) -> Figures:
    """Loss and metric of all the rows together; waits for the device."""
    loss = loss_function(task)(outputs, targets)
    value = score(metric, outputs, targets, target_std)
    return Figures(*torch.stack((loss.double(), value.double())).tolist())


@torch.inference_mode()
def predict(
    network: nn.Module, inputs: Tensor, scale: Callable[[Tensor], Tensor], between_batches: Callable[[], None]
) -> Tensor:
    """The network's float32 outputs (rows, outputs) for unscaled inputs, in their order, with dropout off.

    Always in float32, so that what is measured is the network that is handed on.
    """
    network.eval()
    outputs = []
    for batch in torch.split(inputs, _rows_at_once(inputs)):
        between_batches()
        outputs.append(network(scale(batch)))
    return torch.cat(outputs)


def _rows_at_once(inputs: Tensor) -> int:
    """Batches as large as pays on a CPU (its caches) and a GPU (its launches): 4,096 rows of 8x8, 64 of 224x224."""
    return min(max(2**18 // math.prod(inputs.shape[1:]), 64), 8192)
