"""Training beside the search: networks that no sampler proposed and no pruner ends, on the workers of a pool.

They go to the workers in packs, as a study's trials do; each is trained to its end in one segment. A worker that dies
or falls silent costs nothing but the time: what it was given is tried again, in halves, to find out what it died of.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence

from neurosweep.errors import InterruptedStudyError
from search.clock import CLOCK, Clock
from search.packing import Packing
from search.pool import ATTEMPTS, Done, Pool
from search.watch import Watch
from trainer.work import Outcome, SegmentResult, TrialWork

LOOK_SECONDS = 0.5
"""The longest wait for a result before the stop signal and the workers are looked at."""

SPARED = 10
"""How often the worker of a network may be lost with its machine."""


def train(
    works: Sequence[TrialWork],
    pool: Pool,
    packing: Packing,
    *,
    wanted: Callable[[TrialWork], bool] = lambda work: True,
    clock: Clock = CLOCK,
) -> Iterator[SegmentResult]:
    """Trains each of the works to its end on a pool that holds the data; hands out each result as it comes.

    What can't be trained is a result that says why (`Outcome.FAILED`, `OUT_OF_MEMORY`): so is one that several workers
    died of.

    Args:
        works: No two of the same `TrialWork.trial`.
        wanted: Asked about each one in turn when a worker is free for it; one that is not is left out.

    Raises:
        InterruptedStudyError: The pool was told to stop; what is under way is lost.
    """
    runs = _SideRuns(works, pool, packing, wanted, clock)
    try:
        while runs.supply():
            for done in pool.collect(LOOK_SECONDS):
                yield from runs.take(done)
            if pool.stopped():
                raise InterruptedStudyError("Told to stop.")
            runs.end_silent_workers()
    finally:
        if runs.busy:
            pool.halt()


class _SideRuns:
    """
    Attributes:
        busy: The pack that each worker has in hand.
    """

    def __init__(
        self,
        works: Sequence[TrialWork],
        pool: Pool,
        packing: Packing,
        wanted: Callable[[TrialWork], bool],
        clock: Clock,
    ) -> None:
        self._queue = deque(works)
        self._apart: deque[list[TrialWork]] = deque()  # packs of which one may have brought a worker down
        self._pool = pool
        self._packing = packing
        self._wanted = wanted
        self._clock = clock
        self._watch = Watch()
        self._deaths: Counter[int] = Counter()
        self._spared: Counter[int] = Counter()
        self.busy: dict[int, list[TrialWork]] = {}

    def supply(self) -> bool:
        """Gives each free worker a pack; returns whether anything is left to wait for."""
        for worker in range(self._pool.size):
            if worker in self.busy or not self._pool.serves(worker):
                continue
            pack = self._next_pack()
            if not pack:
                break
            self.busy[worker] = pack
            self._watch.expect(worker, self._cost(pack), self._clock.monotonic())
            self._pool.submit(worker, pack)
        return bool(self.busy or self._apart or self._queue)

    def _next_pack(self) -> list[TrialWork]:
        if self._apart:
            return self._apart.popleft()
        most, pack = self._packing.share(len(self._queue)), list[TrialWork]()
        while self._queue and len(pack) < most and self._cost(pack) < self._packing.budget:
            work = self._queue.popleft()
            if self._wanted(work):
                pack.append(work)
        return pack

    def _cost(self, pack: Sequence[TrialWork]) -> float:
        return sum(self._packing.cost(work.settings, work.epochs) for work in pack)

    def take(self, done: Done) -> Iterator[SegmentResult]:
        """Books what came back from a worker, and hands out what has ended by it."""
        if not done.works:
            return  # a worker that has come back
        pack = self.busy.pop(done.worker)
        if done.results is None:
            yield from self._take_death(pack, done)
            return
        training = sum(result.seconds for result in done.results)
        self._watch.answered(done.worker, self._cost(pack), self._clock.monotonic(), training)
        yield from done.results

    def _take_death(self, pack: list[TrialWork], done: Done) -> Iterator[SegmentResult]:
        self._watch.gone(done.worker)
        self._spared.update(work.trial for work in pack)
        if done.waiting or (done.blameless and all(self._spared[work.trial] <= SPARED for work in pack)):
            self._apart.append(pack)
        elif len(pack) > 1:
            middle = -(-len(pack) // 2)
            self._apart += [pack[:middle], pack[middle:]]
        elif pack:
            (work,) = pack
            self._deaths[work.trial] += 1
            if self._deaths[work.trial] < ATTEMPTS:
                self._apart.append(pack)
            else:
                yield _died_of(work, f"{ATTEMPTS} workers died while they trained it; the last one: {done.death}")

    def end_silent_workers(self) -> None:
        """Lets the pool replace workers that show no sign of life; their packs come back as deaths."""
        now = self._clock.monotonic()
        self._watch.shown(self._pool.signs(), now)
        for worker, why in self._watch.late(now).items():
            self._watch.gone(worker)
            self._pool.end(worker, why)


def _died_of(work: TrialWork, reason: str) -> SegmentResult:
    return SegmentResult(
        trial=work.trial,
        outcome=Outcome.FAILED,
        epochs=(),
        best_epoch=0,
        train=None,
        validation=None,
        weight_count=0,
        seconds=0.0,
        reason=reason,
    )
