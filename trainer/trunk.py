"""The convolutional layers of one network, from its images to the features that its dense layers see."""

from __future__ import annotations

import contextlib

import torch
from torch import Tensor
from torch.nn import functional

from trainer.member import Convolution, Member
from trainer.precision import products_in
from trainer.settings import Activation, ConvLayer, Pool, Settings
from trainer.shapes import zero_padding

ACTIVATE = {
    Activation.RELU: torch.relu,
    Activation.TANH: torch.tanh,
    Activation.GELU: functional.gelu,
    Activation.SILU: functional.silu,
    Activation.LEAKY_RELU: functional.leaky_relu,
    Activation.ELU: functional.elu,
    Activation.SIGMOID: torch.sigmoid,
}

MONOTONE = frozenset(Activation) - {Activation.GELU, Activation.SILU}
"""Where these precede max pooling, the order makes no difference to the outcome; pooling first leaves them a quarter
of the pixels."""


class Trunk:
    """The convolutional layers of one network for batches of one size.

    Args:
        features: Where the features go, (features + 1, batch) as a view of a matrix of rows; the last row is ones.
        training: Whether the batch norms do as while learning; only then is there a backward pass.

    Attributes:
        gradients: The loss's gradient with respect to the features, (features, batch); to be filled in before
            `backward`. None unless training.
    """

    def __init__(self, member: Member, features: Tensor, *, training: bool) -> None:
        self._member = member
        self._features = features[:-1].t()
        self._training = training
        self.gradients = torch.empty_like(features[:-1]) if training else None
        self._outputs: Tensor | None = None
        # Leaves of autograd's graph that share their memory with the member's weights.
        self._leaves = [_leaves(layer, training) for layer in member.convolutions]

    def forward(self, images: Tensor) -> None:
        """Images (batch, channels, height, width) -> features."""
        member, layers = self._member, self._member.settings.convolutions
        # Measured on a CPU: channels-last is 1.0 to 1.6 times as fast with pooling, 0.8 to 1.0 without.
        if any(layer.pool is not Pool.NONE for layer in layers):
            images = images.contiguous(memory_format=torch.channels_last)
        precision = products_in(member.precision, images.device) if self._training else contextlib.nullcontext()
        with torch.set_grad_enabled(self._training), precision:
            for convolution, leaves, layer in zip(member.convolutions, self._leaves, layers, strict=True):
                images = self._layer(images, convolution, leaves, member.settings, layer)
            self._outputs = images.flatten(start_dim=1)
        self._features.copy_(self._outputs.detach())

    def backward(self) -> None:
        """From `gradients` to the gradient of every convolutional weight."""
        assert self._outputs is not None and self.gradients is not None  # noqa: S101 - for the type checker
        leaves = [leaf for layer in self._leaves for leaf in layer]
        found = torch.autograd.grad(self._outputs, leaves, self.gradients.t())
        self._outputs = None
        torch._foreach_copy_([each for layer in self._member.convolutions for each in _gradients(layer)], list(found))

    def _layer(
        self, images: Tensor, layer: Convolution, leaves: list[Tensor], settings: Settings, shape: ConvLayer
    ) -> Tensor:
        bias = leaves[1] if layer.norm is None else None
        padding = zero_padding(shape, settings.padding)
        images = functional.conv2d(images, leaves[0], bias, stride=shape.stride, padding=padding)
        if layer.norm is not None:
            norm, (scale, shift) = layer.norm, leaves[1:]
            images = functional.batch_norm(images, norm.mean, norm.variance, scale, shift, training=self._training)
        activate = ACTIVATE[settings.activation]
        if shape.pool is Pool.MAX and settings.activation in MONOTONE:
            return activate(functional.max_pool2d(images, 2))
        images = activate(images)
        match shape.pool:
            case Pool.MAX:
                return functional.max_pool2d(images, 2)
            case Pool.AVG:
                return functional.avg_pool2d(images, 2)
            case Pool.NONE:
                return images


def _leaves(layer: Convolution, training: bool) -> list[Tensor]:
    """The filters, then the bias, or else the batch norm's scale and shift."""
    if layer.norm is not None:
        tensors = [layer.weights, layer.norm.scale, layer.norm.shift]
    else:
        assert layer.bias is not None  # noqa: S101 - for the type checker
        tensors = [layer.weights, layer.bias[0]]
    return [tensor.detach().requires_grad_(training) for tensor in tensors]


def _gradients(layer: Convolution) -> list[Tensor]:
    if layer.norm is not None:
        return [layer.gradient, layer.norm.scale_gradient, layer.norm.shift_gradient]
    assert layer.bias is not None  # noqa: S101 - for the type checker
    return [layer.gradient, layer.bias[1]]
