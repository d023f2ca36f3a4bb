"""What runs in a worker's process: the trainer, and the checkpoints that outlive it. Ray's part is in `search.pool`.

Its calls are served in the order in which they were made; those that `search.pool` makes as control calls are answered
by a second thread, while the first one trains.
"""

from __future__ import annotations

import contextlib
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from neurosweep.errors import NeurosweepError
from search.checkpoint_store import CheckpointStore
from trainer.data.dataset import Preprocessing, Split, Task
from trainer.settings import Settings
from trainer.work import EpochResult, Metric, SegmentResult, TestResult, TrialWork


@dataclass(frozen=True, kw_only=True)
class TrainingData:
    """What every worker keeps of a study's data: all but the test split."""

    train: Split
    validation: Split
    preprocessing: Preprocessing
    task: Task
    input_shape: tuple[int, ...]
    outputs: int


@dataclass(frozen=True, kw_only=True)
class Sign:
    """What a worker is doing.

    Attributes:
        trial: The one that is being trained; None while it waits.
        epoch: Its last finished epoch.
        epochs: Its last epoch at most.
        beats: Grows while it trains, at most twenty times a second.
    """

    trial: int | None
    epoch: int
    epochs: int
    beats: int


_IDLE = (None, 0, 0)


class PoolWorker:
    """
    Args:
        threads: That torch may use.
    """

    def __init__(self, threads: int) -> None:
        import trainer.worker

        self._trainer_class = trainer.worker.Trainer
        self._trainer: trainer.worker.Trainer | None = None
        self._why_no_trainer = "it was given none"
        self._threads = threads
        self._checkpoints: CheckpointStore | None = None
        # Writing waits for the disk, not for the processor: training goes on meanwhile.
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="checkpoints")
        self._writing: list[Future[None]] = []
        # Which load of the pool's this is, and up to which all work is to end: a halt may overtake a load.
        self._loaded_as = 0
        self._halted_up_to = 0
        self._activity: tuple[int | None, int, int] = _IDLE
        self._beats = 0

    def load(self, data: TrainingData, number: int, checkpoints: str | None) -> None:
        """Holds another study's data; what is left of the study before is dropped first.

        Data that can't be held (a full GPU) are no error here, where nobody waits for the answer: work on them is.

        Args:
            checkpoints: Address of the study's checkpoints; None where none are kept.
        """
        self._loaded_as = number
        self._trainer = None
        self._checkpoints = CheckpointStore(checkpoints) if checkpoints is not None else None
        try:
            self._trainer = self._trainer_class(
                train=data.train,
                validation=data.validation,
                preprocessing=data.preprocessing,
                task=data.task,
                input_shape=data.input_shape,
                outputs=data.outputs,
                threads=self._threads,
            )
        except Exception as error:
            self._why_no_trainer = f"{type(error).__name__}: {error}"

    def train(self, works: tuple[TrialWork, ...]) -> tuple[SegmentResult, ...]:
        """Trains a pack, each trial from where it stands here or in its checkpoints, else from its seed."""
        trainer = self._loaded()
        epochs = {work.trial: work.epochs for work in works}
        self._activity = (works[0].trial, 0, works[0].epochs)

        def on_epoch(trial: int, result: EpochResult) -> None:
            self._activity = (trial, result.epoch, epochs[trial])

        try:
            for work in works:
                self._save_or_restore(work)
            return tuple(trainer.train(works, self._halted, on_epoch))
        finally:
            self._activity = _IDLE

    def _save_or_restore(self, work: TrialWork) -> None:
        """A survivor's state, which the pruner has let go on, is worth keeping; a trial that is not here has one to
        go on from."""
        store, trainer = self._checkpoints, self._loaded()
        if store is None or not work.known_epochs:
            return
        if not trainer.holds(work):
            self._finish_writing()
            with contextlib.suppress(OSError):  # then it begins at its seed
                snapshot = store.load(work.trial, work.known_epochs)
                if snapshot is not None:
                    trainer.restore(work, snapshot)
            return
        snapshot = trainer.snapshot(work.trial)
        if snapshot is not None:
            self._write(lambda: store.save(snapshot))

    def forget(self, trials: tuple[int, ...]) -> None:
        """These have ended: neither their states nor their checkpoints are wanted any more."""
        trainer = self._trainer
        for trial in trials:
            if trainer is not None:
                trainer.forget(trial)
        if (store := self._checkpoints) is not None:
            self._write(lambda: store.drop(trials))

    def _write(self, work: Any) -> None:
        self._writing = [writing for writing in self._writing if not writing.done()]
        self._writing.append(self._writer.submit(_tolerantly, work))

    def _finish_writing(self) -> None:
        for writing in self._writing:
            writing.result()

    def test(self, settings: Settings, weights: dict[str, Any], metric: Metric, split: Split) -> TestResult:
        result: TestResult = self._loaded().test(settings, weights, metric, split)
        return result

    def export(self, settings: Settings, weights: dict[str, Any]) -> bytes:
        program: bytes = self._loaded().export(settings, weights)
        return program

    def sign(self) -> Sign:
        """A control call."""
        trial, epoch, epochs = self._activity
        return Sign(trial=trial, epoch=epoch, epochs=epochs, beats=self._beats)

    def halt(self, number: int) -> None:
        """Ends the pack that trains, and those that wait, of loads up to this one as soon as the trainer looks up. A
        control call."""
        self._halted_up_to = number

    def _halted(self) -> bool:
        self._beats += 1
        return self._loaded_as <= self._halted_up_to

    def _loaded(self) -> Any:
        if self._trainer is None:
            raise NeurosweepError(f"The worker does not hold the study's data: {self._why_no_trainer}")
        return self._trainer


def _tolerantly(work: Any) -> None:
    """A checkpoint that can't be written costs a trial some epochs, should its worker die: no reason to end it."""
    with contextlib.suppress(OSError):
        work()
