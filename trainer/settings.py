"""The settings of one network: what the search proposes and the trainer builds. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Family(StrEnum):
    """Networks of one family have the same kinds of layers."""

    MLP = "mlp"
    CNN = "cnn"


class Activation(StrEnum):
    RELU = "relu"
    TANH = "tanh"
    GELU = "gelu"
    SILU = "silu"
    LEAKY_RELU = "leaky_relu"
    ELU = "elu"
    SIGMOID = "sigmoid"


class OptimizerKind(StrEnum):
    ADAM = "adam"
    ADAMW = "adamw"
    SGD = "sgd"


class Schedule(StrEnum):
    """How the learning rate changes over the epochs."""

    CONSTANT = "constant"
    COSINE = "cosine"


class Padding(StrEnum):
    """Zero-padding of a convolution: none, or as much as keeps the feature map's size at stride 1."""

    VALID = "valid"
    SAME = "same"


class Pool(StrEnum):
    """2x2 pooling with stride 2 after a convolution."""

    NONE = "none"
    MAX = "max"
    AVG = "avg"


@dataclass(frozen=True, kw_only=True)
class ConvLayer:
    """One convolution and the pooling behind it.

    Attributes:
        filters: Output channels.
        filter_size: Height and width of each filter, in pixels.
        stride: Step of the filter, in pixels.
        pool: Pooling after the activation.
    """

    filters: int
    filter_size: int
    stride: int
    pool: Pool


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything that decides how one network is built and trained, apart from its seed and its number of epochs.

    Attributes:
        neurons: Width of each hidden dense layer, in order.
        convolutions: The convolutional layers before the dense ones; empty for an MLP.
        padding: Zero-padding of every convolution.
        momentum: Used by SGD only.
        dropout: Probability that an activation of a hidden dense layer is zeroed, in [0, 1).
        batch_norm: Whether each hidden layer is normalised over the batch before its activation.
    """

    family: Family
    neurons: tuple[int, ...]
    convolutions: tuple[ConvLayer, ...] = ()
    padding: Padding = Padding.SAME
    activation: Activation
    learning_rate: float
    optimizer: OptimizerKind
    momentum: float
    weight_decay: float
    dropout: float
    batch_norm: bool
    batch_size: int
    schedule: Schedule

    def to_json(self) -> dict[str, Any]:
        """Plain values, for a database or a file."""
        # `asdict` copies every value, which takes longer than to propose them.
        return {**vars(self), "convolutions": tuple(dict(vars(layer)) for layer in self.convolutions)}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Settings:
        """The inverse of `to_json`."""
        convolutions = tuple(
            ConvLayer(
                filters=layer["filters"],
                filter_size=layer["filter_size"],
                stride=layer["stride"],
                pool=Pool(layer["pool"]),
            )
            for layer in values["convolutions"]
        )
        return cls(
            family=Family(values["family"]),
            neurons=tuple(values["neurons"]),
            convolutions=convolutions,
            padding=Padding(values["padding"]),
            activation=Activation(values["activation"]),
            learning_rate=values["learning_rate"],
            optimizer=OptimizerKind(values["optimizer"]),
            momentum=values["momentum"],
            weight_decay=values["weight_decay"],
            dropout=values["dropout"],
            batch_norm=values["batch_norm"],
            batch_size=values["batch_size"],
            schedule=Schedule(values["schedule"]),
        )
