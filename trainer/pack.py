"""A pack: several trials with batches of one size, trained together step by step."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from trainer import replay
from trainer.data.dataset import Task
from trainer.device_data import DeviceData, DeviceSplit
from trainer.evaluation import ROWS_AT_ONCE, Figures, figures
from trainer.member import BITS, Member
from trainer.settings import Family, Settings
from trainer.stack import ALIGNED, DenseStack
from trainer.trunk import Trunk

MASK_STEPS = 8
"""Dropout is drawn for so many steps at once: few calls, and little memory. On a GPU what is drawn depends on it."""


def likeness(member: Member, data: DeviceData) -> tuple[object, ...]:
    """Members for which this is equal can be in one pack."""
    settings = member.settings
    return settings.family, settings.batch_size, member.metric, _learned_rows(settings, data)


def _learned_rows(settings: Settings, data: DeviceData) -> int:
    """Of an epoch. Under batch norm a single row at the end is left out: it has no variance."""
    rows = len(data.train)
    return rows - 1 if settings.batch_norm and rows % settings.batch_size == 1 else rows


class Pack:
    """Trials of equal `likeness`, trained an epoch at a time.

    Nothing of a trial is kept here: packs are made and dropped as trials come and go. A trial's numbers are the same in
    any pack.
    """

    def __init__(self, members: Sequence[Member], data: DeviceData) -> None:
        self._members, self._data = list(members), data
        settings = members[0].settings
        self._learned = _learned_rows(settings, data)
        self._full, self._rest = divmod(self._learned, settings.batch_size)
        self._batches: dict[tuple[int, bool], _Batch] = {}

    def train_epoch(self, check_stop: Callable[[], None]) -> list[Figures]:
        """One pass over the train split for every member, in an order of its own.

        Returns:
            Averages over the rows, of the outputs that were learned from. They are taken all at once behind the last
            batch: within the loop nothing waits for the device.
        """
        data, members = self._data, self._members
        size, full, learned = members[0].settings.batch_size, self._full, self._learned
        for member in members:
            member.begin_epoch()
        orders = torch.stack([member.draw_order(len(data.train))[:learned] for member in members]).to(data.device)
        outputs = []
        for start, steps, rows in ((0, full, size), (full * size, 1, self._rest)):
            if steps and rows:
                order = orders[:, start : start + steps * rows].view(len(members), steps, rows).transpose(0, 1)
                outputs.append(self._train(order.contiguous(), check_stop))
        for member in members:
            member.steps += full + (self._rest > 0)
        return self._figures(torch.cat(outputs, dim=2), data.train.targets[orders])

    def evaluate(self, split: DeviceSplit, check_stop: Callable[[], None]) -> list[Figures]:
        """Every member on a whole split, with dropout off, always in float32."""
        outputs = []
        for rows in torch.split(torch.arange(len(split), device=self._data.device), ROWS_AT_ONCE):
            check_stop()
            batch = self._batch(len(rows), training=False)
            batch.fill(split, rows)
            batch.forward()
            outputs.append(batch.outputs.clone())
        return self._figures(torch.cat(outputs, dim=2), split.targets.expand(len(self._members), -1))

    def _train(self, order: Tensor, check_stop: Callable[[], None]) -> Tensor:
        """Learns from the rows (steps, members, rows of a batch); returns the outputs (members, outputs, rows)."""
        steps, members, rows = order.shape
        batch = self._batch(rows, training=True)
        targets = self._data.train.targets[order].unsqueeze(2)
        kept = batch.outputs.new_empty(steps, *batch.outputs.shape)
        for step in range(steps):
            check_stop()
            if step % MASK_STEPS == 0:
                masks = self._draw_masks(batch, min(MASK_STEPS, steps - step))
            if masks is not None:
                batch.masks.copy_(masks[step % MASK_STEPS])
            batch.fill(self._data.train, order[step].flatten())
            batch.targets.copy_(targets[step])
            batch.learn()
            kept[step].copy_(batch.outputs)
        return kept.permute(1, 2, 0, 3).reshape(members, -1, steps * rows)

    def _draw_masks(self, batch: _Batch, steps: int) -> Tensor | None:
        """What dropout multiplies by in the next steps, (steps, rows, batch): inverted dropout (Srivastava et al.
        2014), 0 or 1 / the share that is kept. Nothing here compares: on a CPU arithmetic is eight times as fast."""
        if not len(batch.masks):
            return None
        masks, rows = batch.drawn[:steps], batch.masks.shape[1]
        for member, layers in zip(self._members, batch.mask_rows, strict=True):
            if not layers:
                continue
            kept = round((1 - member.settings.dropout) * 2**BITS)
            bits = member.draw_bits(steps, member.hidden_neurons * rows).to(masks.dtype)
            # Whole numbers from -2^15 on: those under the threshold come out as 1, the others as 0.
            zero_or_one = bits.neg_().add_(kept - 2 ** (BITS - 1)).clamp_(0, 1)
            first = 0
            for layer in layers:
                last = first + (layer.stop - layer.start) * rows
                drawn = zero_or_one[:, first:last].view(steps, -1, rows)
                torch.mul(drawn, 2**BITS / kept, out=masks[:, layer])
                first = last
        return masks

    def _batch(self, rows: int, *, training: bool) -> _Batch:
        if (rows, training) not in self._batches:
            self._batches[rows, training] = _Batch(self._members, self._data, rows, training=training)
        return self._batches[rows, training]

    def _figures(self, outputs: Tensor, targets: Tensor) -> list[Figures]:
        data = self._data
        return figures(outputs, targets, data.task, self._members[0].metric, data.target_std)


class _Batch:
    """The members' networks for batches of one size, at fixed addresses.

    Attributes:
        outputs: (members, outputs, rows).
        targets: (members, 1, rows); to be filled in before `learn`.
        masks: See `DenseStack`.
        drawn: Masks for several steps, (steps, rows, batch).
    """

    def __init__(self, members: Sequence[Member], data: DeviceData, rows: int, *, training: bool) -> None:
        self._members, self._data, self._rows, self._training = members, data, rows, training
        self._trunks: list[Trunk] = []
        if members[0].settings.family is Family.CNN:
            # Without a bias no column of ones: it would be a gap to a product.
            features = [self._buffer(rows, member.dense[0].weights.shape[1]).t() for member in members]
            copies = len(members) if training else 1
            self._images = self._buffer(copies * rows, *data.input_shape)
            into = [each[: member.dense[0].inputs] for member, each in zip(members, features, strict=True)]
            pairs = zip(members, into, strict=True)
            self._trunks = [Trunk(member, each, training=training) for member, each in pairs]
            gradients = [trunk.gradients for trunk in self._trunks]
        else:
            # While they learn, each has its own rows; evaluated, all have the same.
            copies = len(members) if training else 1
            width = math.prod(data.input_shape) + 1
            # As one matrix, filled by one call, where each member's part of it is aligned.
            together = copies if rows * width % ALIGNED == 0 else 1
            self._flat = [self._buffer(together * rows, width) for _ in range(copies // together)]
            parts = [part for buffer in self._flat for part in torch.split(buffer, rows)]
            features = [parts[index % copies].t() for index in range(len(members))]
            gradients = [None] * len(members)
        self._stack = DenseStack(members, features, gradients, training=training)
        self.outputs, self.masks, self.mask_rows = self._stack.outputs, self._stack.masks, self._stack.mask_rows
        if training:
            self.targets = torch.empty(len(members), 1, rows, dtype=data.train.targets.dtype, device=data.device)
            self.drawn = self.masks.new_ones(MASK_STEPS, *self.masks.shape)
            self._loss = self._loss_calls(data.task)
            self._learn = replay.for_device(data.device, self._step)

    def _buffer(self, *shape: int) -> Tensor:
        return torch.ones(*shape, dtype=self._data.dtype, device=self._data.device)

    def fill(self, split: DeviceSplit, rows: Tensor) -> None:
        """Takes these rows of a split for inputs: (members x rows) while learning, else the same for all."""
        if self._trunks:
            split.images(rows, out=self._images)
        else:
            for part, buffer in zip(rows.chunk(len(self._flat)), self._flat, strict=True):
                split.flat(part, buffer)

    def forward(self) -> None:
        """From the inputs to `outputs`."""
        for index, trunk in enumerate(self._trunks):
            first = index * self._rows if self._training else 0
            trunk.forward(self._images[first : first + self._rows])
        self._stack.forward()

    def learn(self) -> None:
        """A training step of every member. All that changes between two of them lies at fixed addresses."""
        self._learn()

    def _step(self) -> None:
        self.forward()
        for call in self._loss:
            call()
        self._stack.backward()
        for trunk in self._trunks:
            trunk.backward()
        for member in self._members:
            member.optimizer.step()

    def _loss_calls(self, task: Task) -> list[Callable[[], object]]:
        """From outputs to the gradients of each member's loss, its mean over the rows. Not over the members: that would
        divide every learning rate by their number."""
        outputs, gradients, targets = self.outputs, self._stack.output_gradients, self.targets
        if task is Task.REGRESSION:
            return [partial(torch.sub, outputs, targets, out=gradients), partial(gradients.mul_, 2 / self._rows)]
        return [
            partial(torch.ops.aten._softmax.out, outputs, 1, False, out=gradients),
            partial(gradients.scatter_add_, 1, targets, gradients.new_full(targets.shape, -1)),
            partial(gradients.mul_, 1 / self._rows),
        ]
