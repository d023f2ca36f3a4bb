"""A pool whose workers are real trainers in this process, for tests that count on the order of everything.

`test_pool.py` holds it and the real pool to the same expectations.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from neurosweep.errors import NeurosweepError
from search.packing import Packing
from search.pool import Done, Pool
from search.pool_worker import Sign
from search.progress import WorkerActivity
from trainer.data.dataset import Dataset
from trainer.settings import Settings
from trainer.work import Metric, SegmentResult, TestResult, TrialWork
from trainer.worker import Trainer

DIED = "the worker died"


def packing(trials: int, pool: Pool, data: Dataset) -> Packing:
    """What the engine would make of them."""
    return Packing(
        trials=trials,
        workers=pool.size,
        on_gpu=False,
        rows=len(data.train),
        input_shape=data.input_shape,
        outputs=data.outputs,
    )


class InProcessPool(Pool):
    """Trains when it is asked what has come back: one pack of each worker at every `collect`.

    Attributes:
        submitted: All work in the order in which it came, with its worker.
        packs: The size of each pack in the order in which they came, with its worker.
        deadly: Says of which work a worker dies, before its first epoch.
        hangs: Says over which work a worker hangs: it neither answers nor dies.
        absent: Workers that have no machine.
        change: What becomes of a result before it is handed back.
    """

    def __init__(self, workers: int = 1) -> None:
        super().__init__()
        self._count = workers
        self._trainers: list[Trainer] = []
        self._pending: list[list[tuple[TrialWork, ...]]] = [[] for _ in range(workers)]
        self._killed: set[int] = set()
        self._halted = False
        self._dataset: Dataset | None = None
        self.submitted: list[tuple[int, TrialWork]] = []
        self.packs: list[tuple[int, int]] = []
        self.forgotten: list[tuple[int, int]] = []
        self.ended: list[tuple[int, str]] = []
        self._given_back: list[Done] = []
        self.tests = 0
        self.deadly: Callable[[TrialWork], bool] = lambda work: False
        self.hangs: Callable[[TrialWork], bool] = lambda work: False
        self.absent: set[int] = set()
        self.change: Callable[[TrialWork, SegmentResult], SegmentResult] = lambda work, result: result

    def kill(self, worker: int) -> None:
        """As if somebody had killed the worker's process."""
        self._killed.add(worker)

    def load(self, dataset: Dataset, checkpoints: str | None = None) -> None:
        self._dataset = dataset
        self._halted = False
        self._pending = [[] for _ in range(self._count)]
        self._trainers = [self._trainer() for _ in range(self._count)]

    @property
    def size(self) -> int:
        return self._count

    def serves(self, worker: int) -> bool:
        return worker not in self.absent

    def lose(self, worker: int) -> None:
        """As if the worker's machine had gone."""
        self.absent.add(worker)
        for works in self._pending[worker]:
            self._given_back.append(Done(worker=worker, works=works, death="its machine is gone", blameless=True))
        self._pending[worker].clear()
        self._trainers[worker] = self._trainer()

    def bring_back(self, worker: int) -> None:
        """As if another machine had come for it."""
        self.absent.discard(worker)
        self._given_back.append(Done(worker=worker, works=(), results=()))

    def signs(self) -> list[Sign | None]:
        return [Sign(trial=None, epoch=0, epochs=0, beats=0)] * self._count

    def end(self, worker: int, why: str, *, blameless: bool = False) -> None:
        self.ended.append((worker, why))
        self._trainers[worker] = self._trainer()
        for index, works in enumerate(self._pending[worker]):
            self._given_back.append(Done(worker=worker, works=works, death=why, waiting=index > 0, blameless=blameless))
        self._pending[worker].clear()

    def outstanding(self, worker: int) -> int:
        return len(self._pending[worker])

    def submit(self, worker: int, works: Sequence[TrialWork]) -> None:
        self.submitted += [(worker, work) for work in works]
        self.packs.append((worker, len(works)))
        self._pending[worker].append(tuple(works))

    def forget(self, worker: int, trials: Sequence[int]) -> None:
        for trial in trials:
            self.forgotten.append((worker, trial))
            self._trainers[worker].forget(trial)

    def collect(self, timeout: float) -> list[Done]:
        done, self._given_back = self._given_back, []
        for worker, pending in enumerate(self._pending):
            if not pending or any(self.hangs(work) for work in pending[0]):
                continue
            works = pending.pop(0)
            try:
                if worker in self._killed or any(self.deadly(work) for work in works):
                    raise ChildProcessError(DIED)
                results = self._trainers[worker].train(works, lambda: self._halted, lambda trial, epoch: None)
                changed = tuple(self.change(work, result) for work, result in zip(works, results, strict=True))
                done.append(Done(worker=worker, works=works, results=changed))
            except Exception as error:
                done.append(Done(worker=worker, works=works, death=str(error)))
                done += [Done(worker=worker, works=each, death=str(error), waiting=True) for each in pending]
                pending.clear()
                self._killed.discard(worker)
                self._trainers[worker] = self._trainer()
        return done

    def activity(self, names: Callable[[int], str]) -> tuple[WorkerActivity, ...]:
        return tuple(WorkerActivity(name=names(n), trial=None, epoch=0, epochs=0) for n in range(self._count))

    def halt(self) -> None:
        self._halted = True

    def test(self, settings: Settings, weights: dict[str, Any], metric: Metric) -> TestResult:
        self.tests += 1
        assert self._dataset is not None
        try:
            return self._trainers[0].test(settings, weights, metric, self._dataset.test)
        except NeurosweepError as error:
            raise NeurosweepError(f"A worker failed: {error.message}") from error

    def export(self, settings: Settings, weights: dict[str, Any]) -> Callable[[], bytes]:
        def exported() -> bytes:
            try:
                return self._trainers[0].export(settings, weights)
            except NeurosweepError as error:
                raise NeurosweepError(f"A worker failed: {error.message}") from error

        return exported

    def close(self) -> None:
        self._trainers = []

    def _trainer(self) -> Trainer:
        data = self._dataset
        assert data is not None
        return Trainer(
            data.train,
            data.validation,
            data.preprocessing,
            data.task,
            data.input_shape,
            data.outputs,
            device="cpu",
            threads=1,
        )
