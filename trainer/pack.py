"""A pack: several trials with batches of one size, trained together step by step."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from trainer.data.dataset import Task
from trainer.device_data import DeviceData, DeviceSplit
from trainer.evaluation import ROWS_AT_ONCE, Figures, figures
from trainer.member import BITS, Member
from trainer.settings import Family, Settings
from trainer.stack import DenseStack
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
        return self._figures(torch.cat(outputs, dim=1), data.train.targets[orders])

    def evaluate(self, split: DeviceSplit, check_stop: Callable[[], None]) -> list[Figures]:
        """Every member on a whole split, with dropout off, always in float32."""
        outputs = []
        for start in range(0, len(split), ROWS_AT_ONCE):
            check_stop()
            rows = slice(start, min(start + ROWS_AT_ONCE, len(split)))
            batch = self._batch(rows.stop - rows.start, training=False)
            batch.fill(split, rows)
            batch.forward()
            outputs.append(batch.outputs.transpose(1, 2).clone())
        return self._figures(torch.cat(outputs, dim=1), split.targets.expand(len(self._members), -1))

    def _train(self, order: Tensor, check_stop: Callable[[], None]) -> Tensor:
        """Learns from the rows (steps, members, rows of a batch); returns the outputs (members, rows, outputs)."""
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
        return kept.permute(1, 0, 3, 2).reshape(members, steps * rows, -1)

    def _draw_masks(self, batch: _Batch, steps: int) -> Tensor | None:
        """What dropout multiplies by in the next steps, (steps, rows, batch): inverted dropout (Srivastava et al.
        2014), 0 or 1 / the share that is kept."""
        if not len(batch.masks):
            return None
        masks = batch.masks.new_ones(steps, *batch.masks.shape)
        rows = batch.masks.shape[1]
        for member, layers in zip(self._members, batch.mask_rows, strict=True):
            if not layers:
                continue
            kept = round((1 - member.settings.dropout) * 2**BITS)
            bits = member.draw_bits(steps, member.hidden_neurons * rows)
            drawn = (bits < kept - 2 ** (BITS - 1)).to(masks.dtype).mul_(2**BITS / kept)
            first = 0
            for layer in layers:
                last = first + (layer.stop - layer.start) * rows
                masks[:, layer] = drawn[:, first:last].view(steps, -1, rows)
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
    """

    def __init__(self, members: Sequence[Member], data: DeviceData, rows: int, *, training: bool) -> None:
        self._members, self._data, self._rows, self._training = members, data, rows, training
        self._trunks: list[Trunk] = []
        if members[0].settings.family is Family.CNN:
            features = [self._buffer(rows, member.dense[0].inputs + 1).t() for member in members]
            pairs = zip(members, features, strict=True)
            self._trunks = [Trunk(member, into, training=training) for member, into in pairs]
            gradients = [trunk.gradients for trunk in self._trunks]
        else:
            # While they learn, each has its own rows; evaluated, all have the same.
            copies = len(members) if training else 1
            self._flat = self._buffer(copies, rows, math.prod(data.input_shape) + 1)
            features = [self._flat[index % copies].t() for index in range(len(members))]
            gradients = [None] * len(members)
        self._stack = DenseStack(members, features, gradients, training=training)
        self.outputs, self.masks, self.mask_rows = self._stack.outputs, self._stack.masks, self._stack.mask_rows
        if training:
            self.targets = torch.empty(len(members), 1, rows, dtype=data.train.targets.dtype, device=data.device)
            self._loss = self._loss_calls(data.task)

    def _buffer(self, *shape: int) -> Tensor:
        return torch.ones(*shape, dtype=self._data.dtype, device=self._data.device)

    def fill(self, split: DeviceSplit, rows: Tensor | slice) -> None:
        """Takes these rows of a split for inputs: (members x rows) while learning, else the same for all."""
        if self._trunks:
            self._images = split.images(rows)
        else:
            self._flat.copy_(split.flat(rows).view_as(self._flat))

    def forward(self) -> None:
        """From the inputs to `outputs`."""
        for index, trunk in enumerate(self._trunks):
            first = index * self._rows if self._training else 0
            trunk.forward(self._images[first : first + self._rows])
        self._stack.forward()

    def learn(self) -> None:
        """A training step of every member."""
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
