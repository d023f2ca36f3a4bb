"""The dataset where the network learns: one tensor for each array of each split, on one device."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trainer.data.dataset import Array, Preprocessing, Split, Task


class Scale(nn.Module):
    """Images as they came (8-bit or float32) -> (images - mean) / std in each channel, float32.

    Args:
        mean: One value for each channel, in raw units.
        std: One value for each channel, in raw units.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(-1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        return (images.float() - self.mean) / self.std


@dataclass(frozen=True)
class DeviceSplit:
    """`Split` on the device, in the same types: 8-bit images stay 8-bit until a batch is taken."""

    inputs: Tensor
    targets: Tensor

    def __len__(self) -> int:
        return len(self.targets)


@dataclass(frozen=True, kw_only=True)
class DeviceData:
    """What a trial learns from.

    Attributes:
        scale: From a batch of `DeviceSplit.inputs` to the network's inputs.
        input_shape: (features,) or (channels, height, width).
        outputs: Classes, or 1 for regression.
        target_mean: For regression, in the target's units, as is `target_std`; 0 and 1 for classification.
    """

    train: DeviceSplit
    validation: DeviceSplit
    scale: Callable[[Tensor], Tensor]
    task: Task
    input_shape: tuple[int, ...]
    outputs: int
    target_mean: float
    target_std: float
    device: torch.device


def make_scale(preprocessing: Preprocessing) -> nn.Module:
    """How a batch of inputs becomes what the network takes: tables are standardised already, images are not."""
    if preprocessing.kind == "image":
        return Scale(preprocessing.mean, preprocessing.std)
    return nn.Identity()


def to_device(split: Split, device: torch.device) -> DeviceSplit:
    """On a CPU the tensors share the arrays' memory, so that workers of one machine share Ray's copy."""
    return DeviceSplit(_tensor(split.inputs).to(device), _tensor(split.targets).to(device))


def _tensor(array: Array) -> Tensor:
    with warnings.catch_warnings():
        # Arrays from Ray's object store are read-only, about which torch warns; nothing here writes to the data.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array)
