"""One trial being trained: the loop over batches and epochs, and the best network so far."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from neurosweep.errors import BadInputError, NeurosweepError
from trainer.device_data import DeviceData, DeviceSplit
from trainer.evaluation import Figures, figures, loss_function, predict
from trainer.networks import build, count_weights
from trainer.optimizers import learning_rate, make_optimizer, set_learning_rate
from trainer.precision import Precision, products_in
from trainer.settings import Settings
from trainer.work import EpochResult, Metric


class NotFiniteError(NeurosweepError):
    """The loss became infinite or not a number: this trial can't go on."""


class StoppedError(NeurosweepError):
    """The caller asked for a stop in the middle of an epoch, whose state is of no use any more."""


class StopCheck:
    """Asks `stopped` at most every 50 ms, so that a batch does not pay for it.

    Raises:
        StoppedError: When called after `stopped` has turned true.
    """

    def __init__(self, stopped: Callable[[], bool]) -> None:
        self._stopped = stopped
        self._next = 0.0

    def __call__(self) -> None:
        now = time.monotonic()
        if now >= self._next:
            self._next = now + 0.05
            if self._stopped():
                raise StoppedError("told to stop")


@dataclass(frozen=True)
class Best:
    """The network of the epoch with the smallest validation metric; of equals, the earliest."""

    epoch: int
    validation: float
    weights: dict[str, Tensor]


class TrialRun:
    """A network while it learns. Everything that a pause has to keep is in this object.

    The initial weights, the order of the rows and the dropout are drawn from three generators seeded from the trial's
    seed, the first two on the CPU: the same trial gives the same numbers alone, between others, or in segments.

    Args:
        epochs: The trial's last epoch, which the learning-rate schedule spans.
        precision: What the products are computed in while training.

    Raises:
        BadInputError: The network can't be built, or can't learn from batches of one row.
    """

    def __init__(
        self,
        settings: Settings,
        seed: int,
        metric: Metric,
        epochs: int,
        data: DeviceData,
        precision: Precision = Precision.FLOAT32,
    ) -> None:
        if settings.batch_norm and min(settings.batch_size, len(data.train)) < 2:
            raise BadInputError("batch_norm needs batches of at least 2 rows; use a larger batch_size, or none of it")
        self.settings, self.seed, self.metric, self.epochs = settings, seed, metric, epochs
        self.precision = precision
        self.data = data
        weight_seed, order_seed, dropout_seed = np.random.SeedSequence(seed).spawn(3)
        self._order_generator = _generator(order_seed, torch.device("cpu"))
        self.network = build(
            settings,
            data.input_shape,
            data.outputs,
            generator=_generator(weight_seed, torch.device("cpu")),
            dropout_generator=_generator(dropout_seed, data.device),
        ).to(data.device)
        self.weight_count = count_weights(self.network)
        self._optimizer = make_optimizer(settings, self.network.parameters())
        self._loss_function = loss_function(data.task)
        self._products = products_in(precision, data.device)
        self.epoch = 0
        self.best: Best | None = None

    def train_until(self, epoch: int, stopped: Callable[[], bool], on_epoch: Callable[[EpochResult], None]) -> None:
        """Train up to and including this epoch (from 1), or the trial's last if that is earlier.

        Args:
            on_epoch: Called with the figures of each epoch as it ends.

        Raises:
            NotFiniteError: The train or the validation loss of an epoch was not finite.
            StoppedError: `stopped` turned true; what is left of this object is of no use.
        """
        check_stop = StopCheck(stopped)
        while self.epoch < min(epoch, self.epochs):
            on_epoch(self._train_epoch(check_stop))

    def finish(self, stopped: Callable[[], bool]) -> float:
        """Go back to the best epoch's network; returns its metric on the whole train split, dropout off.

        Raises:
            StoppedError: `stopped` turned true.
        """
        if self.best is not None:
            self.network.load_state_dict(self.best.weights)
        return self._evaluate(self.data.train, StopCheck(stopped)).metric

    def _train_epoch(self, check_stop: StopCheck) -> EpochResult:
        started = time.perf_counter()
        self.epoch += 1
        set_learning_rate(self._optimizer, learning_rate(self.settings, self.epoch, self.epochs))
        train = self._learn(check_stop)
        validation = self._evaluate(self.data.validation, check_stop)
        if not (math.isfinite(train.loss) and math.isfinite(validation.loss)):
            raise NotFiniteError(f"the loss was not finite in epoch {self.epoch}")
        if self.best is None or validation.metric < self.best.validation:
            weights = {name: tensor.detach().clone() for name, tensor in self.network.state_dict().items()}
            self.best = Best(self.epoch, validation.metric, weights)
        return EpochResult(
            epoch=self.epoch,
            train_loss=train.loss,
            train_metric=train.metric,
            validation_loss=validation.loss,
            validation_metric=validation.metric,
            seconds=time.perf_counter() - started,
        )

    def _learn(self, check_stop: StopCheck) -> Figures:
        """One pass over the train split in a new order. The figures are taken from the outputs that were learned from,
        all at once behind the last batch: within the loop nothing waits for the device."""
        self.network.train()
        train = self.data.train
        order = torch.randperm(len(train), generator=self._order_generator).to(self.data.device)
        if self.settings.batch_norm and len(train) % self.settings.batch_size == 1:
            order = order[:-1]  # a batch of a single row has no variance
        outputs = []
        for rows in torch.split(order, self.settings.batch_size):
            check_stop()
            outputs.append(self.step(rows))
        return self._figures(torch.cat(outputs), train.targets.index_select(0, order))

    def step(self, rows: Tensor) -> Tensor:
        """Learn from these rows of the train split; returns the outputs that it learned from, (rows, outputs)."""
        inputs = self.data.scale(self.data.train.inputs.index_select(0, rows))
        targets = self.data.train.targets.index_select(0, rows)
        with self._products:
            outputs: Tensor = self.network(inputs)
        outputs = outputs.float()
        loss = self._loss_function(outputs, targets)
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]  # untyped in torch
        self._optimizer.step()
        return outputs.detach()

    def _evaluate(self, split: DeviceSplit, check_stop: StopCheck) -> Figures:
        return self._figures(predict(self.network, split.inputs, self.data.scale, check_stop), split.targets)

    def _figures(self, outputs: Tensor, targets: Tensor) -> Figures:
        return figures(outputs, targets, self.data.task, self.metric, self.data.target_std)


def _generator(seed: np.random.SeedSequence, device: torch.device) -> torch.Generator:
    return torch.Generator(device).manual_seed(int(seed.generate_state(1, np.uint64)[0]))
