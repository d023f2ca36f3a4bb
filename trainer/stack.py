"""The dense layers of several networks as one stack: a forward and a backward pass written by hand.

Values lie feature by feature. A layer is one matrix (rows, batch), in which each network has a row for each of its
neurons and below them a row of ones, which meets the last column of the next layer's weights: the bias. So the
activations, dropout and batch norms of all networks are a few operations on whole ranges of rows, while each network's
matrix product reads and writes its own rows in place. What one network computes never touches another's rows, and its
rows begin at an aligned address (`ALIGNED`), so that its numbers are the same alone or among others, to the last bit,
and a NaN stays where it arose.

One product at a time is no loss on a CPU: for widths from 64 on it reaches 86 to 104 GFLOP/s on one core, and a batched
product of equal widths 98 to 105; only below 32 is the batched one clearly faster (2.6 times at 16), but there the
whole layer takes 2 microseconds. What costs a plain loop its time are autograd and some sixty separate calls a step.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby

import torch
from torch import Tensor

from trainer.member import Dense, Member, Norm
from trainer.precision import Precision
from trainer.products import Call, product
from trainer.settings import Activation, Settings

ops = torch.ops.aten

FORWARD: dict[Activation, Callable[[Tensor, Tensor], Call]] = {
    Activation.RELU: lambda z, out: partial(torch.clamp_min, z, 0, out=out),
    Activation.TANH: lambda z, out: partial(torch.tanh, z, out=out),
    Activation.GELU: lambda z, out: partial(ops.gelu.out, z, out=out),
    Activation.SILU: lambda z, out: partial(ops.silu.out, z, out=out),
    Activation.LEAKY_RELU: lambda z, out: partial(ops.leaky_relu.out, z, 0.01, out=out),
    Activation.ELU: lambda z, out: partial(ops.elu.out, z, out=out),
    Activation.SIGMOID: lambda z, out: partial(torch.sigmoid, z, out=out),
}
"""From the input z of an activation to the call that writes its output."""

BACKWARD: dict[Activation, Callable[[Tensor, Tensor, Tensor], Call]] = {
    Activation.RELU: lambda g, z, out: partial(ops.threshold_backward.grad_input, g, z, 0, grad_input=g),
    Activation.TANH: lambda g, z, out: partial(ops.tanh_backward.grad_input, g, out, grad_input=g),
    Activation.GELU: lambda g, z, out: partial(ops.gelu_backward.grad_input, g, z, grad_input=g),
    Activation.SILU: lambda g, z, out: partial(ops.silu_backward.grad_input, g, z, grad_input=g),
    Activation.LEAKY_RELU: lambda g, z, out: partial(
        ops.leaky_relu_backward.grad_input, g, z, 0.01, False, grad_input=g
    ),
    Activation.ELU: lambda g, z, out: partial(ops.elu_backward.grad_input, g, 1.0, 1, 1, False, z, grad_input=g),
    Activation.SIGMOID: lambda g, z, out: partial(ops.sigmoid_backward.grad_input, g, out, grad_input=g),
}
"""From the gradient g of an activation's output, its input z and its output to the call that turns g, in place, into
the gradient of its input."""

ALIGNED = 32
"""Each network's rows begin at a multiple of so many numbers. The last bits of a product hang on how its operands are
aligned (to 16 bytes in what was measured, to 64 in MKL's own words), and those of sigmoid, SiLU and ELU on whether a
number is among an operation's last ones, which fill no two vector registers (of up to 16 float32 each)."""

EPSILON, MOMENTUM = 1e-5, 0.1
"""Of the batch norms: PyTorch's defaults, which the networks of `trainer.networks` have."""


@dataclass(frozen=True)
class _Block:
    """The rows of one network in one layer: its neurons, below them the row of ones, and what alignment needs.

    Attributes:
        index: The network's place in the pack.
    """

    index: int
    member: Member
    layer: Dense
    start: int
    stop: int

    @property
    def neurons(self) -> slice:
        return slice(self.start, self.ones)

    @property
    def ones(self) -> int:
        return self.start + self.layer.neurons


class DenseStack:
    """The dense layers of a pack for batches of one size, at fixed addresses.

    Args:
        inputs: For each network what its first dense layer sees, feature by feature: (inputs + 1, batch), the last row
            ones.
        input_gradients: For each network where to write the loss's gradient with respect to its inputs, (inputs,
            batch); None for those that need none.
        training: Whether dropout and the batch norms do as while learning; only then is there a backward pass.

    Attributes:
        outputs: (networks, outputs, batch).
        output_gradients: Of the same shape; to be filled in before `backward`.
        masks: What dropout multiplies by, (rows, batch); to be filled in before `forward`.
        mask_rows: For each network the rows of `masks` that its neurons have, layer by layer; none without dropout.
    """

    def __init__(
        self,
        members: Sequence[Member],
        inputs: Sequence[Tensor],
        input_gradients: Sequence[Tensor | None],
        *,
        training: bool,
    ) -> None:
        self._training = training
        self._like = inputs[0]
        depth = max(len(member.dense) for member in members) - 1
        layers = [_lay_out(members, number, self._batch) for number in range(depth)]
        dropping = training and any(_drops(member) for member in members)
        self.masks = self._buffer(sum(blocks[-1].stop for blocks in layers) if dropping else 0)
        self.mask_rows: list[list[slice]] = [[] for _ in members]
        self._forward: list[Call] = []
        self._backward: list[Call] = []
        # What each network's next layer reads, and where that layer leaves the gradient of it.
        self._sources, self._source_gradients = list(inputs), list(input_gradients)
        row = 0
        for blocks in layers:
            self._add_layer(blocks, row)
            row += blocks[-1].stop
        self._add_outputs(members)
        self._backward.reverse()

    def forward(self) -> None:
        """From the inputs to `outputs`."""
        for call in self._forward:
            call()

    def backward(self) -> None:
        """From `output_gradients` to the gradient of every dense weight, and of the inputs where they are wanted."""
        for call in self._backward:
            call()

    @property
    def _batch(self) -> int:
        return self._like.shape[1]

    def _buffer(self, rows: int) -> Tensor:
        return torch.ones(rows, self._batch, dtype=self._like.dtype, device=self._like.device)

    def _add_layer(self, blocks: list[_Block], mask_row: int) -> None:
        """The calls of one hidden layer. Those of the way back are added in the order of the way forth, and reversed
        when all are there."""
        rows = blocks[-1].stop
        products, values = self._buffer(rows), self._buffer(rows)
        gradients = torch.zeros_like(products)  # those of rows that are no neurons stay 0
        normed = self._buffer(rows) if any(block.layer.norm for block in blocks) else products
        dropping = self._training and any(_drops(block.member) for block in blocks)
        active = self._buffer(rows) if dropping else values
        for block in blocks:
            self._add_product(block.index, block.member, block.layer, products[block.neurons], gradients[block.neurons])
        for block in blocks:
            if block.layer.norm is not None:
                parts = (each[block.neurons] for each in (products, normed, gradients))
                self._add_norm(block.layer.norm, *parts)
        for run, like in _runs(blocks, _kind):
            settings = like.member.settings
            before = normed[run] if settings.batch_norm else products[run]
            after = active[run] if self._training and settings.dropout > 0 else values[run]
            self._forward.append(FORWARD[settings.activation](before, after))
            self._backward.append(BACKWARD[settings.activation](gradients[run], before, after))
        for run, like in _runs(blocks, lambda block: _drops(block.member)) if dropping else ():
            if _drops(like.member):
                masks = self.masks[mask_row + run.start : mask_row + run.stop]
                self._forward.append(partial(torch.mul, active[run], masks, out=values[run]))
                self._backward.append(partial(gradients[run].mul_, masks))
        ones = torch.tensor([block.ones for block in blocks], device=products.device)
        self._forward.append(partial(values.index_fill_, 0, ones, 1))
        for block in blocks:
            self._sources[block.index] = values[block.start : block.ones + 1]
            self._source_gradients[block.index] = gradients[block.neurons]
            if dropping and _drops(block.member):
                first = mask_row + block.start
                self.mask_rows[block.index].append(slice(first, first + block.layer.neurons))

    def _add_outputs(self, members: Sequence[Member]) -> None:
        classes = members[0].dense[-1].neurons
        rows = _aligned_rows(classes, self._batch)
        buffers = [self._buffer(len(members) * rows).view(len(members), rows, self._batch) for _ in range(2)]
        outputs, gradients = (each[:, :classes] for each in buffers)
        for index, member in enumerate(members):
            self._add_product(index, member, member.dense[-1], outputs[index], gradients[index])
        # Others get them without gaps: a softmax takes nothing else.
        self.outputs, self.output_gradients = outputs.contiguous(), gradients.contiguous()
        if rows > classes:
            self._forward.append(partial(self.outputs.copy_, outputs))
            self._backward.append(partial(gradients.copy_, self.output_gradients))

    def _add_product(self, index: int, member: Member, layer: Dense, output: Tensor, gradient: Tensor) -> None:
        """weights x inputs, and on the way back the gradients of both."""
        precision = member.precision if self._training else Precision.FLOAT32
        source = self._sources[index][: layer.weights.shape[1]]
        self._forward.append(product(layer.weights, source, output, precision))
        source_gradient = self._source_gradients[index]
        if source_gradient is not None:
            into = layer.weights[:, : layer.inputs].t()
            self._backward.append(product(into, gradient, source_gradient, precision))
        self._backward.append(product(gradient, source.t(), layer.gradient, precision))

    def _add_norm(self, norm: Norm, values: Tensor, normed: Tensor, gradients: Tensor) -> None:
        """Batch norm of (features, batch). PyTorch takes that for one row of `features` channels with `batch` pixels,
        which is the same to it."""
        values, normed, gradients = values.unsqueeze(0), normed.unsqueeze(0), gradients.unsqueeze(0)
        running = norm.mean, norm.variance
        saved = torch.empty_like(norm.mean), torch.empty_like(norm.mean)
        self._forward.append(
            partial(
                ops.native_batch_norm.out,
                *(values, norm.scale, norm.shift, *running, self._training, MOMENTUM, EPSILON),
                out=normed,
                save_mean=saved[0],
                save_invstd=saved[1],
            )
        )
        self._backward.append(
            partial(
                ops.native_batch_norm_backward.out,
                *(gradients, values, norm.scale, *running, *saved, True, EPSILON, [True] * 3),
                out0=gradients,
                out1=norm.scale_gradient,
                out2=norm.shift_gradient,
            )
        )


def _aligned_rows(rows: int, batch: int) -> int:
    """The next larger number of rows that fills a multiple of `ALIGNED` numbers."""
    step = ALIGNED // math.gcd(ALIGNED, batch)
    return -(-rows // step) * step


def _lay_out(members: Sequence[Member], number: int, batch: int) -> list[_Block]:
    """The hidden layer of this number (from 0) in the networks that have it. Like ones are neighbours, so that one
    operation serves them all."""
    deep_enough = [index for index, member in enumerate(members) if len(member.dense) - 1 > number]
    blocks: list[_Block] = []
    for index in sorted(deep_enough, key=lambda index: (*_likeness(members[index].settings), index)):
        start = blocks[-1].stop if blocks else 0
        layer = members[index].dense[number]
        blocks.append(_Block(index, members[index], layer, start, start + _aligned_rows(layer.neurons + 1, batch)))
    return blocks


def _likeness(settings: Settings) -> tuple[bool, bool, Activation]:
    return settings.dropout > 0, settings.batch_norm, settings.activation


def _kind(block: _Block) -> tuple[bool, bool, Activation]:
    return _likeness(block.member.settings)


def _drops(member: Member) -> bool:
    return member.settings.dropout > 0


def _runs(blocks: Sequence[_Block], key: Callable[[_Block], object]) -> Iterator[tuple[slice, _Block]]:
    """The ranges of rows whose networks have the same key, each with its first block."""
    for _, group in groupby(blocks, key):
        alike = list(group)
        yield slice(alike[0].start, alike[-1].stop), alike[0]
