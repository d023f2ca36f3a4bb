"""The weights of the best network so far, in a file that outlives the worker that trained it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.numpy


@dataclass(frozen=True, kw_only=True)
class BestNetwork:
    """The best complete trial's weights.

    Attributes:
        validation: Its metric on the validation split.
        weights: Arrays by name.
    """

    trial: int
    validation: float
    weights: dict[str, npt.NDArray[np.generic]]


class Checkpoint:
    """Keeps the best network of one study in `path`; written whole or not at all."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.best = self._read()

    def keep(self, network: BestNetwork) -> None:
        """Replaces what was kept before."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        metadata = {"trial": str(network.trial), "validation": repr(network.validation)}
        scratch = self._path.with_suffix(".tmp")
        with scratch.open("wb") as file:
            file.write(safetensors.numpy.save(network.weights, metadata=metadata))
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(self._path)
        self.best = network

    def _read(self) -> BestNetwork | None:
        """What an earlier dispatcher kept; a damaged file counts as none, since its trial can be trained again."""
        if not self._path.exists():
            return None
        try:
            with safetensors.safe_open(self._path, framework="numpy") as file:
                metadata = file.metadata()
                weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
            return BestNetwork(trial=int(metadata["trial"]), validation=float(metadata["validation"]), weights=weights)
        except (safetensors.SafetensorError, KeyError, ValueError):
            return None
