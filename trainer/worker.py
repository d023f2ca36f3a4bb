"""What one worker does with the dataset it holds: train segments of trials, test the winner, export it."""

from __future__ import annotations

import gc
import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import nn

from neurosweep.errors import BadInputError
from neurosweep.failpoints import reach
from trainer.data.dataset import Preprocessing, Split, Task
from trainer.device_data import DeviceData, make_scale, to_device
from trainer.evaluation import predict, scores
from trainer.export import export_network
from trainer.member import Member
from trainer.memory import training_memory
from trainer.networks import Weights, build, load_arrays
from trainer.pack import Pack
from trainer.peak import Peak
from trainer.precision import Precision, PrecisionChoice
from trainer.segments import (
    OnEpoch,
    Segment,
    StopCheck,
    StoppedError,
    failure_reason,
    form_packs,
    out_of_memory,
    train_pack,
)
from trainer.settings import Family, Settings
from trainer.snapshot import restored, take
from trainer.work import Metric, Outcome, SegmentResult, Snapshot, TestResult, TrialWork

logger = logging.getLogger(__name__)

PREPARED_SHAPES = "64"
"""Shapes for which oneDNN, and PyTorch's own layer above it, keep what they have prepared. A pack needs a few dozen;
the thousand that they would keep are half a gigabyte in a study of many networks."""


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
        for name in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):
            os.environ.setdefault(name, PREPARED_SHAPES)  # both are read at the first product or convolution
        torch.set_num_threads(threads)
        chosen = find_device(device)
        if chosen.type == "cuda":
            torch.backends.cudnn.deterministic = True  # the same trial must give the same numbers
        self._preprocessing = preprocessing
        self._scale = make_scale(preprocessing).to(chosen)
        self._data = DeviceData(
            train=to_device(train, chosen, self._scale),
            validation=to_device(validation, chosen, self._scale),
            task=task,
            input_shape=input_shape,
            outputs=outputs,
            target_mean=preprocessing.target_mean,
            target_std=preprocessing.target_std,
            device=chosen,
        )
        can_win = chosen.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        self._precision = PrecisionChoice(can_win, self._seconds_per_epoch)
        self._paused: dict[int, Member] = {}

    def train(self, works: Sequence[TrialWork], stopped: Callable[[], bool], on_epoch: OnEpoch) -> list[SegmentResult]:
        """Trains each trial up to its `until`, from where it was paused here, or else from its seed.

        Whatever goes wrong with a trial, its result says so (`Outcome.FAILED`, `OUT_OF_MEMORY` or `TOO_LONG`): nothing
        is raised, and others go on.

        Args:
            stopped: Asked between batches, at most every 50 ms; once true all ends, and what had not ended is dropped.
            on_epoch: Called with a trial's number and the figures of each epoch as it ends, in this thread.
        """
        check_stop = StopCheck(stopped)
        segments = [self._enter(work) for work in works]
        try:
            for pack in form_packs((each for each in segments if each.outcome is None), self._data):
                for old, new in self._train_pack(pack, check_stop, on_epoch):
                    segments[segments.index(old)] = new
        except StoppedError:
            pass
        for segment in segments:
            if segment.outcome is Outcome.PAUSED:
                self._paused[segment.work.trial] = segment.trial
        # A pack's prepared calls refer to each other in circles: left to the collector's own pace, thousands of dead
        # tensors pile up. Those of a pack are young; it takes a millisecond.
        gc.collect(1)
        return [segment.result() for segment in segments]

    def forget(self, trial: int) -> None:
        """Drop what is kept of a paused trial, if anything is."""
        self._paused.pop(trial, None)

    def holds(self, work: TrialWork) -> bool:
        """Whether the paused state of this very trial is here."""
        member = self._paused.get(work.trial)
        return member is not None and member.is_of(work)

    def snapshot(self, trial: int) -> Snapshot | None:
        """A copy of a paused trial's state, so that training can go on while it is written; None where it is not here.

        On a GPU the copy waits for the device twice, whatever the number of layers.
        """
        member = self._paused.get(trial)
        return None if member is None else take(member, trial)

    def restore(self, work: TrialWork, snapshot: Snapshot) -> bool:
        """Puts a snapshot among the paused trials, from where `train` goes on.

        Returns:
            False where it is not one of this very trial, is past the segment's end, or does not fit, as one from
            another kind of device does not; then nothing has changed.
        """
        try:
            member = restored(work, snapshot, self._data)
        except Exception:
            # Whatever the content is: the trial can be trained from its seed.
            logger.debug("a snapshot of trial %d could not be restored", work.trial, exc_info=True)
            return False
        self._paused[work.trial] = member
        return True

    def test(self, settings: Settings, weights: Weights, metric: Metric, test: Split) -> TestResult:
        """The network with these weights on a split that it has not seen.

        Raises:
            BadInputError: The weights are not those of a network with these settings.
        """
        data = self._data
        split = to_device(test, data.device, self._scale)
        outputs = predict(self._restore(settings, weights).to(data.device), split)
        value = float(scores(metric, outputs.t().unsqueeze(0), split.targets.unsqueeze(0), data.target_std))
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

    def _train_pack(
        self, pack: list[Segment], check_stop: StopCheck, on_epoch: OnEpoch
    ) -> Iterator[tuple[Segment, Segment]]:
        """What goes wrong with several at once (their memory, say) is tried again with each alone, from its seed: a
        copy of each state as it was at the segment's beginning would take memory and time from all packs for those few.

        Yields:
            Each segment that was begun anew, with the one that took its place.
        """
        peak, held = Peak(self._data.device), sum(segment.held_memory for segment in pack)
        try:
            for split in (self._data.train, self._data.validation):
                split.prepare(flat=pack[0].work.settings.family is Family.MLP)
            peak = Peak(self._data.device)  # the dataset is no trial's
            train_pack(pack, self._data, check_stop, on_epoch)
            self._share_out(held + peak.bytes(), pack)
            return
        except StoppedError:
            raise
        except Exception as error:
            logger.debug("a pack of %d failed", len(pack), exc_info=True)
            if len(pack) == 1:
                self._fail(pack[0], error, held + peak.bytes())
        for segment in pack:
            segment.drop()
        self._tidy_up()
        for segment in pack if len(pack) > 1 else ():
            again = self._begin(segment.work, None)
            yield segment, again
            for _ in self._train_pack([again], check_stop, on_epoch) if again.outcome is None else ():
                raise AssertionError("one alone is not begun anew")

    def _share_out(self, taken: int, pack: list[Segment]) -> None:
        """The memory that a pack took, among its trials."""
        predicted = [self._predicted_memory(segment) for segment in pack]
        for segment, mine in zip(pack, predicted, strict=True):
            segment.memory = taken * mine // sum(predicted)

    def _predicted_memory(self, segment: Segment) -> int:
        data = self._data
        return training_memory(segment.work.settings, data.input_shape, data.outputs, len(data.train))

    def _fail(self, segment: Segment, error: Exception, taken: int) -> None:
        """Ends the segment of a trial that failed by itself, when it had taken so much memory."""
        reason = failure_reason(error)
        if not out_of_memory(error):
            segment.fail(reason)
            return
        expected = self._predicted_memory(segment)
        words = f"training takes about {expected / 1e6:,.0f} MB, and it had {taken / 1e6:,.0f} MB when it got no more"
        segment.memory = taken
        segment.fail(f"{reason}: {words}", Outcome.OUT_OF_MEMORY)

    def _tidy_up(self) -> None:
        """What was too large must not be missing for others, on the same GPU as well."""
        gc.collect()
        if self._data.device.type == "cuda":
            torch.cuda.empty_cache()

    def _enter(self, work: TrialWork) -> Segment:
        member = self._resume(work)
        try:
            reach(f"training_trial_{work.trial}")
        except Exception as error:
            segment = Segment(work, None)
            self._fail(segment, error, 0)
            return segment
        return self._begin(work, member)

    def _resume(self, work: TrialWork) -> Member | None:
        """The paused state of this very trial; one of an earlier study with the same number is dropped."""
        member = self._paused.pop(work.trial, None)
        return member if member is not None and member.is_of(work) else None

    def _begin(self, work: TrialWork, member: Member | None) -> Segment:
        peak = Peak(self._data.device)
        try:
            if member is None:
                precision = self._precision.choose(work.settings)
                member = Member(work.settings, work.seed, work.metric, work.epochs, self._data, precision)
        except Exception as error:
            logger.debug("trial %d could not be built", work.trial, exc_info=True)
            segment = Segment(work, None)
            self._fail(segment, error, peak.bytes())
            return segment
        return Segment(work, member)

    def _restore(self, settings: Settings, weights: Weights) -> nn.Sequential:
        network = build(settings, self._data.input_shape, self._data.outputs, torch.Generator())
        load_arrays(network, weights)
        return network

    def _seconds_per_epoch(self, settings: Settings, precision: Precision) -> float:
        """Of a network that is thrown away; only called on a GPU."""
        metric = Metric.LOG_LOSS if self._data.task is Task.CLASSIFICATION else Metric.MSE
        pack = Pack([Member(settings, 0, metric, 2, self._data, precision)], self._data)
        pack.train_epoch(lambda: None)
        torch.cuda.synchronize(self._data.device)
        started = time.perf_counter()
        pack.train_epoch(lambda: None)
        torch.cuda.synchronize(self._data.device)
        return time.perf_counter() - started


def gpu_count() -> int:
    """GPUs of this machine that torch can use."""
    return torch.cuda.device_count()


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
