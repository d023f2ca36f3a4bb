"""Segments of several trials: which are trained together, and how each one ends."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch

from neurosweep.errors import NeurosweepError
from neurosweep.failpoints import reach
from trainer.device_data import DeviceData
from trainer.evaluation import Figures
from trainer.member import Member
from trainer.memory import kept_copies
from trainer.networks import Weights, to_arrays
from trainer.pack import Pack, likeness
from trainer.work import OUT_OF_MEMORY, EpochResult, Outcome, SegmentResult, TrialWork

MOST_MEMBERS = 4
"""Networks that take their steps together on a CPU.

Only on one thread: several share an operation out at places that hang on its size, and with them the last bits. And
where networks are large enough for several threads, a pack gains nothing.
"""

NO_MEMORY_WORDS = ("can't allocate memory", "bad_alloc", "CUDA error: out of memory", "ALLOC_FAILED")
"""What libraries say in a RuntimeError when there is no more memory: PyTorch's allocator, C++, CUDA, cuBLAS, cuDNN."""

OnEpoch = Callable[[int, EpochResult], None]


class StoppedError(NeurosweepError):
    """The caller asked for a stop in the middle of an epoch, whose state is of no use any more."""


class TimeUpError(NeurosweepError):
    """All trials of a pack have used their time up in the middle of an epoch."""


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


@dataclass(frozen=True, kw_only=True)
class Standing:
    """What a `SegmentResult` says of a trial's state."""

    best_epoch: int = 0
    validation: float | None = None
    weight_count: int = 0
    precision: str = "float32"


class Segment:
    """One trial's segment under way.

    Attributes:
        member: The trial's state; None where it could not be built.
        outcome: How the segment ended; None while it has not.
        memory: See `SegmentResult.memory`.
    """

    def __init__(self, work: TrialWork, member: Member | None) -> None:
        self.work = work
        self.member = member
        self.epochs: list[EpochResult] = []
        self.outcome: Outcome | None = None
        self.reason: str | None = None
        self.train: float | None = None
        self.seconds = 0.0
        self.memory: int | None = None
        self._spent = 0.0
        self._standing = Standing()

    @property
    def remaining(self) -> int:
        """Epochs until the segment's end."""
        return min(self.work.until, self.work.epochs) - self.trial.epoch

    @property
    def trial(self) -> Member:
        assert self.member is not None  # noqa: S101 - for the type checker: only those that were built are trained
        return self.member

    @property
    def seconds_left(self) -> float:
        """Of the trial's time."""
        return self.work.seconds - self._spent

    def fail(self, reason: str, outcome: Outcome = Outcome.FAILED) -> None:
        self.outcome, self.reason = outcome, reason

    def run_out_of_time(self) -> None:
        self.fail(f"its time of {self.work.seconds:.3g} s was up", Outcome.TOO_LONG)

    def spend(self, seconds: float) -> None:
        """Counts time that went into the trial's latest epoch, also where nothing came of it. Doing an epoch again that
        the caller knows takes nothing of the trial's time: the first time did."""
        self.seconds += seconds
        if self.trial.epoch > self.work.known_epochs:
            self._spent += seconds

    def book(self, train: Figures, validation: Figures, seconds: float) -> EpochResult | None:
        """Takes an epoch's figures in; None where they end the trial."""
        member = self.trial
        self.spend(seconds)
        if not (math.isfinite(train.loss) and math.isfinite(validation.loss)):
            self.fail(f"the loss was not finite in epoch {member.epoch}")
            return None
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

    @property
    def held_memory(self) -> int:
        """Bytes of the trial's state between two epochs."""
        best = self.trial.best
        kept = sum(tensor.nbytes for tensor in best.weights.values()) if best is not None else 0
        return kept + kept_copies(self.work.settings) * self.trial.weights.nbytes

    def drop(self) -> None:
        """Lets go of the trial's state; what is known of it stays."""
        self._standing, self.member = self.standing, None

    @property
    def standing(self) -> Standing:
        member = self.member
        if member is None:
            return self._standing
        best = member.best
        return Standing(
            best_epoch=best.epoch if best is not None else 0,
            validation=best.validation if best is not None else None,
            weight_count=len(member.weights),
            # A plain word: read by the dispatcher, the enum would bring torch into its process.
            precision=member.precision.value,
        )

    def result(self) -> SegmentResult:
        member, work, standing = self.member, self.work, self.standing
        best = member.best if member is not None else None
        weights: Weights | None = None
        if self.outcome is Outcome.FINISHED and best is not None and best.validation <= work.keep_up_to:
            weights = to_arrays(best.weights)
        return SegmentResult(
            trial=work.trial,
            outcome=self.outcome or Outcome.STOPPED,
            epochs=tuple(self.epochs),
            best_epoch=standing.best_epoch,
            train=self.train,
            validation=standing.validation,
            weight_count=standing.weight_count,
            seconds=self.seconds,
            weights=weights,
            reason=self.reason,
            precision=standing.precision,
            memory=self.memory,
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

    A trial whose time is up ends at the end of the epoch, as the steps of a pack are taken together; once that of all
    in the pack is up, they end in the middle of it.

    Args:
        on_epoch: Called with a trial's number and the figures of each epoch as it ends, in this thread.

    Raises:
        StoppedError: `check_stop` raised it: what is left of the trials is of no use.
    """
    while left := _unfinished(segments):
        pack = Pack([segment.trial for segment in left], data)
        for _ in range(min(segment.remaining for segment in left)):
            if not _train_epoch(pack, left, data, check_stop, on_epoch):
                break
    _finish([segment for segment in segments if segment.outcome is None], data, check_stop)


def _unfinished(segments: Sequence[Segment]) -> list[Segment]:
    """Those that go on; of the others, those whose time is up end here."""
    going = [segment for segment in segments if segment.outcome is None and segment.trial.epoch < segment.work.epochs]
    for segment in going:
        if segment.seconds_left <= 0:
            segment.run_out_of_time()
    return [segment for segment in going if segment.outcome is None and segment.remaining > 0]


def _train_epoch(
    pack: Pack, segments: Sequence[Segment], data: DeviceData, check_stop: Callable[[], None], on_epoch: OnEpoch
) -> bool:
    """Whether the pack can go on as it is."""
    shares, started = _shares(segments), time.perf_counter()
    last = started + max(segment.seconds_left / share for segment, share in zip(segments, shares, strict=True))

    def check() -> None:
        check_stop()
        if time.perf_counter() > last:
            raise TimeUpError("the time of all is up")

    try:
        figures = [*zip(pack.train_epoch(check), pack.evaluate(data.validation, check), strict=True)]
    except TimeUpError:
        seconds = time.perf_counter() - started
        for segment, share in zip(segments, shares, strict=True):
            segment.spend(seconds * share)
            segment.run_out_of_time()
        return False
    seconds = time.perf_counter() - started
    for segment, share, (train, validation) in zip(segments, shares, figures, strict=True):
        epoch = segment.book(train, validation, seconds * share)
        if epoch is not None:
            on_epoch(segment.work.trial, epoch)
            reach(f"epoch_of_trial_{segment.work.trial}")
    return all(segment.outcome is None and segment.seconds_left > 0 for segment in segments)


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


def out_of_memory(error: BaseException | None) -> bool:
    """Whether it is that, or came of it: a CUDA graph that could not be captured says no more than that."""
    while error is not None:
        if isinstance(error, torch.OutOfMemoryError | MemoryError):
            return True
        if any(words in str(error) for words in NO_MEMORY_WORDS):
            return True
        error = error.__cause__ or error.__context__
    return False


def failure_reason(error: Exception) -> str:
    """One line for the trial's record."""
    if isinstance(error, NeurosweepError):
        return error.message
    lines = str(error).strip().splitlines() or [""]
    if out_of_memory(error):
        return f"{OUT_OF_MEMORY}; a smaller network or batch may fit ({lines[0][:200]})"
    return f"{type(error).__name__}: {lines[0][:200]}"
