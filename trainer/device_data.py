"""The dataset where the network learns: one tensor for each array of each split, on one device."""

from __future__ import annotations

import functools
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
        return (images.to(self.mean.dtype) - self.mean) / self.std


SCALED_BYTES = 256 * 1024**2
"""A split that takes at most this much when it is scaled is kept so; of larger ones each batch is scaled anew."""


class DeviceSplit:
    """`Split` on the device, in the same types, and the batches that networks see.

    Args:
        inputs: (rows, features), or (rows, channels, height, width), 8-bit or float.
        targets: (rows,).
        scale: From a batch of `inputs` to what a network takes.
        dtype: Of what a network takes.
    """

    def __init__(self, inputs: Tensor, targets: Tensor, scale: Callable[[Tensor], Tensor], dtype: torch.dtype) -> None:
        self.inputs, self.targets = inputs, targets
        self._scale, self._dtype = scale, dtype
        self._small = inputs.numel() * dtype.itemsize <= SCALED_BYTES

    def __len__(self) -> int:
        return len(self.targets)

    def images(self, rows: Tensor, out: Tensor | None = None) -> Tensor:
        """These rows, scaled, in their own shape; written into `out` where it is given."""
        if self._small:
            return torch.index_select(self._scaled, 0, rows, out=out)
        images = self._scale(self.inputs.index_select(0, rows)).to(self._dtype)
        return images if out is None else out.copy_(images)

    def flat(self, rows: Tensor, out: Tensor) -> None:
        """Writes these rows, scaled and flattened, with a 1 behind each, into `out`: (rows, features + 1)."""
        if self._small:
            torch.index_select(self._flat, 0, rows, out=out)
        else:
            out.copy_(_with_ones(self.images(rows)))

    def prepare(self, *, flat: bool) -> None:
        """Makes now what the first batch would make of the split, and what is kept then."""
        if self._small:
            _ = self._flat if flat else self._scaled

    @functools.cached_property
    def _scaled(self) -> Tensor:
        return self._scale(self.inputs).to(self._dtype)

    @functools.cached_property
    def _flat(self) -> Tensor:
        return _with_ones(self._scaled if "_scaled" in self.__dict__ else self._scale(self.inputs).to(self._dtype))


def _with_ones(inputs: Tensor) -> Tensor:
    flat = inputs.flatten(start_dim=1)
    return torch.cat((flat, flat.new_ones(len(flat), 1)), dim=1)


@dataclass(frozen=True, kw_only=True)
class DeviceData:
    """What a trial learns from.

    Attributes:
        input_shape: (features,) or (channels, height, width).
        outputs: Classes, or 1 for regression.
        target_mean: For regression, in the target's units, as is `target_std`; 0 and 1 for classification.
        dtype: Of the weights, and of what the networks compute.
    """

    train: DeviceSplit
    validation: DeviceSplit
    task: Task
    input_shape: tuple[int, ...]
    outputs: int
    target_mean: float
    target_std: float
    device: torch.device
    dtype: torch.dtype = torch.float32


def make_scale(preprocessing: Preprocessing) -> nn.Module:
    """How a batch of inputs becomes what the network takes: tables are standardised already, images are not."""
    if preprocessing.kind == "image":
        return Scale(preprocessing.mean, preprocessing.std)
    return nn.Identity()


def to_device(
    split: Split, device: torch.device, scale: Callable[[Tensor], Tensor], dtype: torch.dtype = torch.float32
) -> DeviceSplit:
    """On a CPU the tensors share the arrays' memory, so that workers of one machine share Ray's copy."""
    targets = _tensor(split.targets).to(device)
    if targets.is_floating_point():
        targets = targets.to(dtype)
    return DeviceSplit(_tensor(split.inputs).to(device), targets, scale, dtype)


def _tensor(array: Array) -> Tensor:
    with warnings.catch_warnings():
        # Arrays from Ray's object store are read-only, about which torch warns; nothing here writes to the data.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array)
