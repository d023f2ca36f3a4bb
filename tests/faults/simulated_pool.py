"""Workers without training: figures are functions of a trial's seed, times are the world's, and some die."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from search.placement import Node, WorkerShape
from search.pool import Done
from search.pool_worker import Sign
from search.progress import WorkerActivity
from tests.faults.simulated_world import World
from trainer.work import OUT_OF_MEMORY, EpochResult, Outcome, SegmentResult, TrialWork

EPOCH_SECONDS = 0.25
NOT_FINITE = "the loss was not finite"
GENEROUS = 2
"""So many workers may die by chance of a trial alone: of a third one it would be failed."""


def figure(seed: int, epoch: int) -> float:
    """A trial's validation metric after an epoch."""
    chance = random.Random(f"{seed}-{epoch}").random()
    return round((0.5 + chance / 2) / epoch, 6)


def curve(seed: int, epochs: int) -> list[float]:
    return [figure(seed, epoch) for epoch in range(1, epochs + 1)]


def fate(world: World, seed: int) -> str:
    """What a trial is like, wherever it is trained."""
    chance = random.Random(f"{seed} fate")
    for place in sorted(world.places):
        if place.startswith("trial ") and chance.random() < 0.2:
            return place
    return "healthy"


@dataclass
class Shared:
    """What outlives a pool: checkpoints, and how many workers each trial has lost by chance.

    Attributes:
        saves: Whether a trial's state outlives its worker.
        epochs: Of each trial that was saved, by study and number.
    """

    saves: bool
    epochs: dict[tuple[str, int], int] = field(default_factory=dict)
    lost: Counter[tuple[str, int]] = field(default_factory=Counter)


@dataclass
class _Worker:
    pending: list[tuple[TrialWork, ...]] = field(default_factory=list)
    ready_at: float = math.inf
    death: str | None = None
    hangs: bool = False
    away_until: float = 0.0
    served: bool = True
    held: dict[int, int] = field(default_factory=dict)
    up_at: float = 0.0
    shown: bool = False


class SimulatedPool:
    """Stands in for `search.pool.Pool`, for one dispatcher."""

    on_gpu = False
    nodes = (Node(cpus=4.0, gpus=0.0),)

    def __init__(self, world: World, shared: Shared) -> None:
        self._world = world
        self._shared = shared
        self._address = ""
        self._workers: list[_Worker] = []
        self._returned: list[Done] = []
        self._halted = False
        self.stopped: Callable[[], bool] = lambda: False

    @property
    def size(self) -> int:
        return len(self._workers)

    def open(self, shape: WorkerShape) -> None:
        self._workers = [_Worker(up_at=self._world.now + 2) for _ in range(shape.count)]

    def load(self, dataset: Any, checkpoints: str | None = None) -> None:
        self._address, self._halted, self._returned = str(checkpoints), False, []
        for worker in self._workers:
            worker.pending, worker.held = [], {}

    def close(self) -> None:
        self._workers = []

    def serves(self, worker: int) -> bool:
        return self._workers[worker].served

    def outstanding(self, worker: int) -> int:
        return len(self._workers[worker].pending)

    def submit(self, worker: int, works: Sequence[TrialWork]) -> None:
        member = self._workers[worker]
        if not member.served:
            self._returned.append(Done(worker=worker, works=tuple(works), death="its machine is gone", blameless=True))
            return
        member.pending.append(tuple(works))
        if len(member.pending) == 1:
            self._begin(member)

    def forget(self, worker: int, trials: Sequence[int]) -> None:
        for trial in trials:
            self._workers[worker].held.pop(trial, None)
            self._shared.epochs.pop((self._address, trial), None)

    def halt(self) -> None:
        self._halted = True
        for member in self._workers:
            if member.pending and not member.hangs:
                member.ready_at = min(member.ready_at, self._world.now + 0.1)

    def signs(self) -> list[Sign | None]:
        beats = int(20 * self._world.now)
        sign = Sign(trial=None, epoch=0, epochs=0, beats=beats)
        for member in self._workers:
            member.shown |= member.served and not member.hangs and member.up_at <= self._world.now
        return [sign if member.shown and not member.hangs else None for member in self._workers]

    def activity(self, names: Callable[[int], str]) -> tuple[WorkerActivity, ...]:
        return ()

    def end(self, worker: int, why: str, *, blameless: bool = False) -> None:
        self._world.say(f"ends worker {worker}: {why}")
        self._lose(worker, why, blameless=blameless or not self._workers[worker].shown)

    def collect(self, timeout: float) -> list[Done]:
        self._let_machines_come_and_go()
        if not self._returned:
            soonest = min((worker.ready_at for worker in self._workers), default=math.inf)
            self._world.sleep(min(timeout, max(0.0, soonest - self._world.now)))
        done, self._returned = self._returned, []
        for number, member in enumerate(self._workers):
            while member.pending and member.ready_at <= self._world.now + 1e-6:
                if member.death is not None and not self._halted:
                    self._lose(number, member.death, blameless=False)
                    done, self._returned = done + self._returned, []
                    break
                works = member.pending.pop(0)
                done.append(Done(worker=number, works=works, results=tuple(self._result(member, w) for w in works)))
                self._begin(member)
        return done

    # How

    def _begin(self, member: _Worker) -> None:
        """Decides what becomes of the pack that a worker comes to now."""
        world = self._world
        member.ready_at, member.death, member.hangs = math.inf, None, False
        if not member.pending:
            return
        works = member.pending[0]
        for work in works:
            saved = self._shared.epochs.get((self._address, work.trial), 0)
            if work.trial not in member.held:
                member.held[work.trial] = min(saved, work.known_epochs) if self._shared.saves else 0
            elif self._shared.saves and member.held[work.trial] == work.known_epochs:
                self._shared.epochs[self._address, work.trial] = work.known_epochs
        begun = max(world.now, member.up_at)
        seconds = sum(self._seconds(member, work) for work in works)
        member.ready_at = begun + seconds + 0.01
        fates = {fate(world, work.seed) for work in works}
        if "trial kills workers" in fates:
            member.death = "it trained a trial that kills"
        elif self._may_be_lost(works):
            if world.on("worker dies", 0.15):
                member.death = "somebody killed it"
                self._count(works)
            elif world.on("worker hangs", 0.05):
                member.hangs, member.ready_at = True, math.inf
                self._count(works)

    def _seconds(self, member: _Worker, work: TrialWork) -> float:
        if fate(self._world, work.seed) == "trial takes too long":
            # Some notice that their time is up, others have to be ended.
            return math.inf if work.seed % 3 == 0 else work.seconds
        return EPOCH_SECONDS * (work.until - member.held[work.trial])

    def _may_be_lost(self, works: Sequence[TrialWork]) -> bool:
        return all(self._shared.lost[self._address, work.trial] < GENEROUS for work in works)

    def _count(self, works: Sequence[TrialWork]) -> None:
        self._shared.lost.update((self._address, work.trial) for work in works)

    def _lose(self, worker: int, why: str, blameless: bool) -> None:
        member = self._workers[worker]
        for index, works in enumerate(member.pending):
            self._returned.append(Done(worker=worker, works=works, death=why, blameless=blameless, waiting=index > 0))
        fresh = _Worker(up_at=self._world.now + 2, served=member.served, away_until=member.away_until)
        self._workers[worker] = fresh

    def _let_machines_come_and_go(self) -> None:
        for number, member in enumerate(self._workers):
            if not member.served and member.away_until <= self._world.now:
                member.served, member.up_at = True, self._world.now + 2
                self._returned.append(Done(worker=number, works=()))
            elif member.served and self._world.on("machine goes", 0.01):
                self._world.say(f"the machine of worker {number} goes")
                member.served, member.away_until = False, self._world.now + self._world.random.uniform(1, 60)
                self._lose(number, "its machine is gone", blameless=True)

    def _result(self, member: _Worker, work: TrialWork) -> SegmentResult:
        begun, until, outcome, reason = member.held.get(work.trial, 0), work.until, Outcome.PAUSED, None
        kind = fate(self._world, work.seed)
        if self._halted:
            until, outcome = begun, Outcome.STOPPED
        elif kind == "trial needs too much memory":
            until, outcome, reason = begun, Outcome.OUT_OF_MEMORY, f"{OUT_OF_MEMORY}: it is too large"
        elif kind == "trial is not finite":
            until, outcome, reason = max(begun, until - 1), Outcome.FAILED, NOT_FINITE
        elif kind == "trial takes too long":
            until, outcome = begun, Outcome.TOO_LONG
        elif until == work.epochs:
            outcome = Outcome.FINISHED
        member.held[work.trial] = until
        if outcome is not Outcome.PAUSED:
            member.held.pop(work.trial)
        values = curve(work.seed, until)
        best = min(values, default=None)
        finished = outcome is Outcome.FINISHED and best is not None
        kept = finished and best is not None and best <= work.keep_up_to
        return SegmentResult(
            trial=work.trial,
            outcome=outcome,
            epochs=tuple(
                EpochResult(
                    epoch=epoch,
                    train_loss=values[epoch - 1],
                    train_metric=values[epoch - 1],
                    validation_loss=values[epoch - 1],
                    validation_metric=values[epoch - 1],
                    seconds=EPOCH_SECONDS,
                )
                for epoch in range(begun + 1, until + 1)
            ),
            best_epoch=values.index(best) + 1 if best is not None else 0,
            train=best if finished else None,
            validation=best,
            weight_count=10,
            seconds=EPOCH_SECONDS * (until - begun),
            weights={"w": np.zeros(1)} if kept else None,
            reason=reason,
        )
