"""What one worker does with the dataset it holds: train segments of trials, test the winner, export it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from neurosweep.errors import BadInputError, NeurosweepError
from trainer.data.dataset import Preprocessing, Split, Task
from trainer.device_data import DeviceData, make_scale, to_device
from trainer.evaluation import predict, score
from trainer.export import export_network
from trainer.networks import Weights, build, load_arrays, to_arrays
from trainer.precision import Precision, PrecisionChoice
from trainer.run import StoppedError, TrialRun
from trainer.settings import Settings
from trainer.work import EpochResult, Metric, Outcome, SegmentResult, TestResult, TrialWork

logger = logging.getLogger(__name__)


class Trainer:
    """Trains trials on one dataset and one device, any number of them in turns.

    Args:
        train: The split that trials learn from.
        validation: The split that they are compared on.
        preprocessing: Scaling of images, and the units of a regression's target.
        input_shape: (features,) or (channels, height, width).
        outputs: Classes, or 1 for regression.
        device: ``auto`` (a GPU where there is one) or a name such as ``cpu`` or ``cuda:0``.
        threads: CPU threads that torch may use in this process.

    Raises:
        BadInputError: There is no such device.
    """

    def __init__(
        self,
        train: Split,
        validation: Split,
        preprocessing: Preprocessing,
        task: Task,
        input_shape: tuple[int, ...],
        outputs: int,
        *,
        device: str = "auto",
        threads: int = 1,
    ) -> None:
        torch.set_num_threads(threads)
        chosen = find_device(device)
        if chosen.type == "cuda":
            torch.backends.cudnn.deterministic = True  # the same trial must give the same numbers
        self._preprocessing = preprocessing
        self._data = DeviceData(
            train=to_device(train, chosen),
            validation=to_device(validation, chosen),
            scale=make_scale(preprocessing).to(chosen),
            task=task,
            input_shape=input_shape,
            outputs=outputs,
            target_mean=preprocessing.target_mean,
            target_std=preprocessing.target_std,
            device=chosen,
        )
        can_win = chosen.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        self._precision = PrecisionChoice(can_win, self._seconds_per_step)
        self._paused: dict[int, TrialRun] = {}

    def segment(
        self, work: TrialWork, stopped: Callable[[], bool], on_epoch: Callable[[EpochResult], None]
    ) -> SegmentResult:
        """Train a trial up to `work.until`, from where it was paused here, or else from its seed.

        Whatever goes wrong with the trial, the result says so (`Outcome.FAILED`): nothing is raised, and other trials
        go on.

        Args:
            stopped: Asked between batches, at most every 50 ms; once true the segment ends and its state is dropped.
            on_epoch: Called with the figures of each epoch as it ends, in this thread.
        """
        started = time.perf_counter()
        epochs: list[EpochResult] = []
        run: TrialRun | None = None
        train: float | None = None
        weights: Weights | None = None
        reason: str | None = None

        def keep(epoch: EpochResult) -> None:
            epochs.append(epoch)
            on_epoch(epoch)

        try:
            run = self._resume(work) or self._start(work)
            run.train_until(work.until, stopped, keep)
            if run.epoch < work.epochs:
                self._paused[work.trial] = run
                outcome = Outcome.PAUSED
            else:
                train = run.finish(stopped)
                if run.best is not None and run.best.validation <= work.keep_up_to:
                    weights = to_arrays(run.best.weights)
                outcome = Outcome.FINISHED
        except StoppedError:
            outcome = Outcome.STOPPED
        except Exception as error:
            logger.debug("trial %d failed", work.trial, exc_info=True)
            outcome, reason = Outcome.FAILED, failure_reason(error)
        best = run.best if run is not None else None
        result = SegmentResult(
            trial=work.trial,
            outcome=outcome,
            epochs=tuple(epochs),
            best_epoch=best.epoch if best is not None else 0,
            train=train,
            validation=best.validation if best is not None else None,
            weight_count=run.weight_count if run is not None else 0,
            seconds=time.perf_counter() - started,
            weights=weights,
            reason=reason,
            precision=run.precision if run is not None else Precision.FLOAT32,
        )
        if outcome is Outcome.FAILED and self._data.device.type == "cuda":
            del run, best
            torch.cuda.empty_cache()  # what a trial too large took must not be missing for others on the same GPU
        return result

    def forget(self, trial: int) -> None:
        """Drop what is kept of a paused trial, if anything is."""
        self._paused.pop(trial, None)

    def test(self, settings: Settings, weights: Weights, metric: Metric, test: Split) -> TestResult:
        """The network with these weights on a split that it has not seen.

        Raises:
            BadInputError: The weights are not those of a network with these settings.
        """
        data = self._data
        split = to_device(test, data.device)
        network = self._restore(settings, weights).to(data.device)
        outputs = predict(network, split.inputs, data.scale, between_batches=lambda: None)
        value = float(score(metric, outputs, split.targets, data.target_std))
        if data.task is Task.CLASSIFICATION:
            # In double precision: the log loss of an overconfident network hangs on probabilities under 1e-45.
            answers, truth = outputs.double().softmax(dim=1).cpu().numpy(), test.targets
        else:
            # In double precision: float32 has too few digits for a target such as a moment in time.
            answers = outputs.squeeze(1).cpu().numpy().astype(np.float64) * data.target_std + data.target_mean
            truth = test.targets.astype(np.float64) * data.target_std + data.target_mean
        return TestResult(outputs=answers, value=value, truth=truth)

    def export(self, settings: Settings, weights: Weights) -> bytes:
        """The network with these weights as a program: see `export_network` for what it takes and returns.

        Raises:
            BadInputError: The weights are not those of a network with these settings.
        """
        network = self._restore(settings, weights)
        return export_network(network, make_scale(self._preprocessing), self._data.input_shape)

    def _resume(self, work: TrialWork) -> TrialRun | None:
        """The paused run of this very trial; one of an earlier study with the same number is dropped."""
        run = self._paused.pop(work.trial, None)
        if run is None:
            return None
        same = (run.settings, run.seed, run.metric, run.epochs) == (work.settings, work.seed, work.metric, work.epochs)
        return run if same else None

    def _start(self, work: TrialWork) -> TrialRun:
        precision = self._precision.choose(work.settings)
        return TrialRun(work.settings, work.seed, work.metric, work.epochs, self._data, precision)

    def _restore(self, settings: Settings, weights: Weights) -> nn.Sequential:
        network = build(settings, self._data.input_shape, self._data.outputs, torch.Generator())
        load_arrays(network, weights)
        return network

    def _seconds_per_step(self, settings: Settings, precision: Precision) -> float:
        """Of a network that is thrown away; only called on a GPU."""
        metric = Metric.LOG_LOSS if self._data.task is Task.CLASSIFICATION else Metric.MSE
        run = TrialRun(settings, 0, metric, 1, self._data, precision)
        run.network.train()
        rows = torch.arange(min(settings.batch_size, len(self._data.train)), device=self._data.device)
        for _ in range(5):
            run.step(rows)
        torch.cuda.synchronize(self._data.device)
        started = time.perf_counter()
        for _ in range(20):
            run.step(rows)
        torch.cuda.synchronize(self._data.device)
        return (time.perf_counter() - started) / 20


def find_device(name: str) -> torch.device:
    """
    Raises:
        BadInputError: There is no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise BadInputError(f"the device must be auto, cpu, or a GPU of this machine, not {name!r}: {error}") from None
    return device


def failure_reason(error: Exception) -> str:
    """One line for the trial's record."""
    if isinstance(error, NeurosweepError):
        return error.message
    lines = str(error).strip().splitlines() or [""]
    if isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error):
        return f"out of memory; a smaller network or batch may fit ({lines[0][:200]})"
    return f"{type(error).__name__}: {lines[0][:200]}"
