"""Segments of several trials: which are trained together, and how each one ends."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence

import torch

from neurosweep.errors import NeurosweepError
from trainer.device_data import DeviceData
from trainer.evaluation import Figures
from trainer.member import Member
from trainer.networks import Weights, to_arrays
from trainer.pack import Pack, likeness
from trainer.work import EpochResult, Outcome, SegmentResult, TrialWork

MOST_MEMBERS = 4
"""Networks that take their steps together on a CPU.

Only on one thread: several share an operation out at places that hang on its size, and with them the last bits. And
where networks are large enough for several threads, a pack gains nothing.
"""

OnEpoch = Callable[[int, EpochResult], None]


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


class Segment:
    """One trial's segment under way.

    Attributes:
        member: The trial's state; None where it could not be built.
        outcome: How the segment ended; None while it has not.
    """

    def __init__(self, work: TrialWork, member: Member | None) -> None:
        self.work = work
        self.member = member
        self.epochs: list[EpochResult] = []
        self.outcome: Outcome | None = None
        self.reason: str | None = None
        self.train: float | None = None
        self.seconds = 0.0

    @property
    def remaining(self) -> int:
        """Epochs until the segment's end."""
        return min(self.work.until, self.work.epochs) - self.trial.epoch

    @property
    def trial(self) -> Member:
        assert self.member is not None  # noqa: S101 - for the type checker: only those that were built are trained
        return self.member

    def fail(self, reason: str) -> None:
        self.outcome, self.reason = Outcome.FAILED, reason

    def book(self, train: Figures, validation: Figures, seconds: float) -> EpochResult | None:
        """Takes an epoch's figures in; None where they end the trial."""
        member = self.trial
        if not (math.isfinite(train.loss) and math.isfinite(validation.loss)):
            self.fail(f"the loss was not finite in epoch {member.epoch}")
            return None
        self.seconds += seconds
        member.note(validation.metric)
        epoch = EpochResult(
            epoch=member.epoch,
            train_loss=train.loss,
            train_metric=train.metric,
            validation_loss=validation.loss,
            validation_metric=validation.metric,
            seconds=seconds,
        )
        self.epochs.append(epoch)
        return epoch

    def result(self) -> SegmentResult:
        member, work = self.member, self.work
        best = member.best if member is not None else None
        weights: Weights | None = None
        if self.outcome is Outcome.FINISHED and best is not None and best.validation <= work.keep_up_to:
            weights = to_arrays(best.weights)
        return SegmentResult(
            trial=work.trial,
            outcome=self.outcome or Outcome.STOPPED,
            epochs=tuple(self.epochs),
            best_epoch=best.epoch if best is not None else 0,
            train=self.train,
            validation=best.validation if best is not None else None,
            weight_count=len(member.weights) if member is not None else 0,
            seconds=self.seconds,
            weights=weights,
            reason=self.reason,
            # A plain word: read by the dispatcher, the enum would bring torch into its process.
            precision=member.precision.value if member is not None else "float32",
        )


def form_packs(segments: Iterable[Segment], data: DeviceData) -> list[list[Segment]]:
    """Those that can be trained together, in packs of the size that is fastest on the device."""
    alike: dict[tuple[object, ...], list[Segment]] = {}
    for segment in segments:
        alike.setdefault(likeness(segment.trial, data), []).append(segment)
    most = MOST_MEMBERS if torch.get_num_threads() == 1 else 1
    packs = []
    for group in alike.values():
        size = len(group) if data.device.type == "cuda" else most
        packs += [group[start : start + size] for start in range(0, len(group), size)]
    return packs


def train_pack(
    segments: Sequence[Segment], data: DeviceData, check_stop: Callable[[], None], on_epoch: OnEpoch
) -> None:
    """Trains each to its segment's end; how that was is left in it. One that ends earlier leaves the pack.

    Args:
        on_epoch: Called with a trial's number and the figures of each epoch as it ends, in this thread.

    Raises:
        StoppedError: `check_stop` raised it: what is left of the trials is of no use.
    """
    left = list(segments)
    while left := [segment for segment in left if segment.outcome is None and segment.remaining > 0]:
        pack = Pack([segment.trial for segment in left], data)
        for _ in range(min(segment.remaining for segment in left)):
            started = time.perf_counter()
            figures = zip(pack.train_epoch(check_stop), pack.evaluate(data.validation, check_stop), strict=True)
            seconds = time.perf_counter() - started
            for segment, share, (train, validation) in zip(left, _shares(left), figures, strict=True):
                epoch = segment.book(train, validation, seconds * share)
                if epoch is not None:
                    on_epoch(segment.work.trial, epoch)
            if any(segment.outcome for segment in left):
                break
    _finish([segment for segment in segments if segment.outcome is None], data, check_stop)


def _finish(segments: Sequence[Segment], data: DeviceData, check_stop: Callable[[], None]) -> None:
    """Those at their trial's end go back to the best epoch's network, which is measured on the whole train split."""
    finished = []
    for segment in segments:
        if segment.trial.epoch < segment.work.epochs:
            segment.outcome = Outcome.PAUSED
        else:
            segment.trial.back_to_best()
            finished.append(segment)
    if not finished:
        return
    started = time.perf_counter()
    figures = Pack([segment.trial for segment in finished], data).evaluate(data.train, check_stop)
    seconds = time.perf_counter() - started
    for segment, share, train in zip(finished, _shares(finished), figures, strict=True):
        segment.outcome, segment.train = Outcome.FINISHED, train.metric
        segment.seconds += seconds * share


def _shares(segments: Sequence[Segment]) -> list[float]:
    """Of a pack's time, by the number of weights."""
    weights = [len(segment.trial.weights) for segment in segments]
    return [count / sum(weights) for count in weights]


def failure_reason(error: Exception) -> str:
    """One line for the trial's record."""
    if isinstance(error, NeurosweepError):
        return error.message
    lines = str(error).strip().splitlines() or [""]
    if isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error):
        return f"out of memory; a smaller network or batch may fit ({lines[0][:200]})"
    return f"{type(error).__name__}: {lines[0][:200]}"
