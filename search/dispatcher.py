"""The dispatcher's loop: keeps every worker busy, records what comes back, and asks the pruner who goes on.

Each worker is given two segments: one that it trains and one that waits, so that it never stands still while the
sampler thinks or the database writes. At most twice as many trials as workers are in flight, which is as blind as the
sampler ever gets. Results of one worker come back in the order in which they were asked for, and each brings exactly
one new segment or proposal; with one worker the order of everything is therefore fixed, and the same seed gives the
same trials.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from search.checkpoint import BestNetwork, Checkpoint
from search.pool import Done, Pool
from search.progress import Progress
from search.spec import StudySpec
from search.study import Proposals
from storage.records import (
    Batch,
    Claim,
    EndedTrial,
    EpochRow,
    Fact,
    FactKind,
    ProposedTrial,
    TrialRecord,
    TrialState,
)
from storage.store import Store
from trainer.settings import Settings
from trainer.work import Metric, Outcome, SegmentResult, TrialWork

DEPTH = 2
"""Segments that a worker is given ahead; see the module's docstring."""

DEATHS = 3
"""A trial that this many workers died of is failed."""

LOOK_SECONDS = 0.5
"""The longest wait for a result before the stop signals and the clock are looked at again."""


@dataclass
class _Live:
    """A trial that is with a worker."""

    settings: Settings
    seed: int
    worker: int
    until: int
    epochs: int = 0
    best_epoch: int = 0
    validation: float | None = None
    last: float | None = None
    seconds: float = 0.0
    deaths: int = 0


@dataclass(frozen=True, kw_only=True)
class Signals:
    """What may end the loop early.

    Attributes:
        stop: The user wants to stop here; the study can be resumed.
        cancel: The study was cancelled, here or from another process.
        renew: Raises `LeaseLostError` when another dispatcher has taken the study over.
    """

    stop: Callable[[], bool]
    cancel: Callable[[], bool]
    renew: Callable[[], None]


class Dispatcher:
    """Works on one claimed study until its budget is spent, its target is met, or it is told to end.

    Args:
        decisions: The epochs at which the pruner can decide, ascending; the last is the end of a trial.
        name_worker: A worker's name, for the database and the screen.
        known: The trials of an earlier dispatcher; those that it left running run again from their seed.
        started: When the study was claimed, by `time.monotonic`.
    """

    def __init__(
        self,
        *,
        claim: Claim,
        spec: StudySpec,
        metric: Metric,
        store: Store,
        pool: Pool,
        proposals: Proposals,
        checkpoint: Checkpoint,
        decisions: Sequence[int],
        name_worker: Callable[[int], str],
        known: Sequence[TrialRecord],
        on_progress: Callable[[Progress], None],
        signals: Signals,
        started: float,
    ) -> None:
        self._claim = claim
        self._spec = spec
        self._metric = metric
        self._store = store
        self._pool = pool
        self._proposals = proposals
        self._checkpoint = checkpoint
        self._decisions = tuple(decisions)
        self._name_worker = name_worker
        self._signals = signals
        self._on_progress = on_progress
        self._started = started
        self._live: dict[int, _Live] = {}
        self._again = [trial for trial in known if trial.state is TrialState.RUNNING]
        self._recorded_epochs = {trial.number: trial.epochs for trial in self._again}
        self._asked = len(known)
        self._counts = {state: sum(trial.state is state for trial in known) for state in TrialState}
        self._finished_here = 0
        self._exhausted = False
        self._params = {trial.number: trial.params for trial in known}
        self._shown = 0.0
        self._dispatching = time.monotonic()
        # What the next transaction holds, and what goes to the workers after it.
        self._proposed: list[ProposedTrial] = []
        self._epochs: list[EpochRow] = []
        self._ended: list[EndedTrial] = []
        self._outgoing: list[tuple[int, TrialWork]] = []
        best = checkpoint.best
        ours = {(trial.number, trial.validation) for trial in known if trial.state is TrialState.COMPLETE}
        if best is not None and (best.trial, best.validation) not in ours:
            # The folder is that of a study with the same id in another database: its weights must not win here.
            checkpoint.best = None

    def work(self) -> None:
        """Runs the loop to its end; whether the study was stopped or cancelled, the caller knows from its signals.

        Raises:
            LeaseLostError: Another dispatcher owns the study now; nothing was written after it took over.
        """
        try:
            self._work()
        except BaseException:
            # The study that the workers get next must not wait for what nobody wants any more.
            self._pool.halt()
            raise

    def cancel(self) -> None:
        """Fails every trial that has not ended; called after `work`, as a cancel may be heard when that is over."""
        for left in self._again:
            self._take_up(left, worker=0)
        self._again, self._outgoing = [], []
        for trial, live in list(self._live.items()):
            self._end(trial, live, TrialState.FAILED, None, "the study was cancelled")
        self._commit()

    def _work(self) -> None:
        for _ in range(DEPTH):
            for worker in range(self._pool.size):
                self._next_trial(worker)
        self._commit()
        while self._live:
            if self._signals.stop() or self._signals.cancel():
                self._halt()
                break
            for done in self._pool.collect(LOOK_SECONDS):
                self._take(done)
            self._commit()
            self._show()
        self._show(force=True)

    # One result

    def _take(self, done: Done) -> None:
        """Books one answer of a worker and lines up what that worker does next."""
        live = self._live.get(done.work.trial)
        if live is None:
            return
        if done.result is None:
            self._take_death(done, live)
            return
        self._book_epochs(done.result, live)
        outcome = done.result.outcome
        if outcome is Outcome.PAUSED and not self._prune(done.work.trial):
            live.until = next(epoch for epoch in self._decisions if epoch > live.epochs)
            self._send(done.work.trial, live)
            return
        if outcome is Outcome.PAUSED:
            self._pool.forget(done.worker, done.work.trial)
            self._end(done.work.trial, live, TrialState.PRUNED, done.result)
        elif outcome is Outcome.FINISHED:
            self._finish(done.result, live)
        elif outcome is Outcome.FAILED:
            self._end(done.work.trial, live, TrialState.FAILED, done.result, done.result.reason)
        self._next_trial(done.worker)

    def _take_death(self, done: Done, live: _Live) -> None:
        live.deaths += not done.waiting
        if live.deaths < DEATHS:
            # The worker's state is gone with it: the new one starts from the seed, and known epochs are dropped.
            self._send(done.work.trial, live)
            return
        reason = f"{DEATHS} workers died while they trained it; the last one: {done.death}"
        self._end(done.work.trial, live, TrialState.FAILED, None, reason)
        self._next_trial(done.worker)

    def _book_epochs(self, result: SegmentResult, live: _Live) -> None:
        now = datetime.now(UTC)
        for epoch in result.epochs:
            if epoch.epoch <= live.epochs:
                continue
            live.epochs, live.last = epoch.epoch, epoch.validation_metric
            self._proposals.report(result.trial, epoch.epoch, epoch.validation_metric)
            if epoch.epoch <= self._recorded_epochs.get(result.trial, 0):
                continue
            self._epochs.append(
                EpochRow(
                    trial=result.trial,
                    epoch=epoch.epoch,
                    train_loss=epoch.train_loss,
                    train_metric=epoch.train_metric,
                    validation_loss=epoch.validation_loss,
                    validation_metric=epoch.validation_metric,
                    seconds=epoch.seconds,
                    at=now,
                )
            )
        live.seconds += result.seconds
        live.best_epoch, live.validation = result.best_epoch, result.validation

    def _prune(self, trial: int) -> bool:
        """Whether a paused trial ends here: the pruner says so, or the target is met without it.

        One that runs again after a stop has passed the looks before the stop: its later epochs are recorded.
        """
        prune = self._proposals.should_prune(trial)
        if self._live[trial].epochs < self._recorded_epochs.get(trial, 0):
            return False
        return prune or self._target_met()

    def _finish(self, result: SegmentResult, live: _Live) -> None:
        """A trial that was trained to its end; without a finite metric it can't be compared, and is a failure."""
        if result.validation is None or not math.isfinite(result.validation):
            self._end(result.trial, live, TrialState.FAILED, result, f"its {self._metric} was not finite")
            return
        self._keep_weights(result.trial, result)
        self._end(result.trial, live, TrialState.COMPLETE, result)

    def _keep_weights(self, trial: int, result: SegmentResult) -> None:
        if result.weights is None or result.validation is None:
            return
        best = self._checkpoint.best
        if best is None or (result.validation, trial) < (best.validation, best.trial):
            self._checkpoint.keep(BestNetwork(trial=trial, validation=result.validation, weights=result.weights))

    def _end(
        self, trial: int, live: _Live, state: TrialState, result: SegmentResult | None, reason: str | None = None
    ) -> None:
        # Optuna takes a pruned trial's last value as its own.
        value = {TrialState.COMPLETE: live.validation, TrialState.PRUNED: live.last}.get(state)
        attrs = self._proposals.tell(trial, state, value if state is TrialState.COMPLETE else None)
        self._ended.append(
            EndedTrial(
                number=trial,
                state=state,
                value=value,
                train=result.train if result else None,
                validation=live.validation,
                epochs=live.epochs,
                best_epoch=live.best_epoch,
                seconds=live.seconds,
                weights=result.weight_count if result else 0,
                worker=self._name_worker(live.worker),
                error=reason,
                attrs=attrs,
                ended_at=datetime.now(UTC),
            )
        )
        del self._live[trial]
        self._counts[state] += 1
        self._finished_here += 1

    # What comes next

    def _spent(self) -> bool:
        """Whether no further trial begins. When the time is up, those under way are still trained to their end or
        pruned, so that the best of them counts; and one trial there is, however short the time."""
        minutes = self._spec.budget.minutes
        time_is_up = minutes is not None and time.monotonic() - self._started >= 60 * minutes
        return (time_is_up and self._asked > 0) or self._target_met()

    def _target_met(self) -> bool:
        target, best = self._spec.budget.target, self._proposals.best()
        return target is not None and best is not None and best[1] <= target

    def _next_trial(self, worker: int) -> None:
        """Lines up a new trial for a worker: one that was left unfinished, else a proposal, while the budget lasts."""
        if self._again:
            left = self._again.pop(0)
            self._send(left.number, self._take_up(left, worker))
            return
        if self._asked >= self._claim.study.trials or self._exhausted or self._spent():
            return
        proposed = self._proposals.ask()
        if proposed is None:
            self._exhausted = True
            return
        self._asked += 1
        self._proposed.append(proposed)
        self._params[proposed.number] = proposed.params
        live = _Live(Settings.from_json(proposed.settings), proposed.seed, worker, self._decisions[0])
        self._live[proposed.number] = live
        self._send(proposed.number, live)

    def _take_up(self, left: TrialRecord, worker: int) -> _Live:
        live = _Live(Settings.from_json(left.settings), left.seed, worker, self._decisions[0])
        self._live[left.number] = live
        return live

    def _send(self, trial: int, live: _Live) -> None:
        best = self._checkpoint.best
        work = TrialWork(
            trial=trial,
            settings=live.settings,
            seed=live.seed,
            metric=self._metric,
            epochs=self._spec.budget.epochs,
            until=live.until,
            keep_up_to=best.validation if best else math.inf,
        )
        self._outgoing.append((live.worker, work))

    def _commit(self) -> None:
        """Writes all that was booked in one transaction, then sends the workers what follows from it."""
        self._signals.renew()
        if self._proposed or self._epochs or self._ended or self._outgoing:
            study = self._claim.study.id
            facts = tuple(
                Fact(key=f"study-{study}-trial-{trial.number}", kind=FactKind.TRIAL_ENDED, trial=trial.number)
                for trial in self._ended
            )
            self._store.record(
                self._claim,
                Batch(
                    proposed=tuple(self._proposed),
                    epochs=tuple(self._epochs),
                    ended=tuple(self._ended),
                    facts=facts,
                    assigned={work.trial: self._name_worker(worker) for worker, work in self._outgoing},
                ),
            )
        for worker, work in self._outgoing:
            self._pool.submit(worker, work)
        self._proposed, self._epochs, self._ended, self._outgoing = [], [], [], []

    # The end, and the screen

    def _halt(self) -> None:
        """Ends what the workers are doing; the trials stay as they are, to be gone on with."""
        self._pool.halt()
        deadline = time.monotonic() + 5.0
        while any(self._pool.outstanding(worker) for worker in range(self._pool.size)) and time.monotonic() < deadline:
            for done in self._pool.collect(LOOK_SECONDS):
                live = self._live.get(done.work.trial)
                if live is None or done.result is None:
                    continue
                self._book_epochs(done.result, live)
                if done.result.outcome is Outcome.FINISHED:
                    self._finish(done.result, live)
        self._outgoing = []
        self._commit()

    def _show(self, force: bool = False) -> None:
        """Draws the progress, at most twice a second."""
        now = time.monotonic()
        if not force and now - self._shown < LOOK_SECONDS:
            return
        self._shown = now
        self._on_progress(
            replace(
                self.progress("training"),
                running=len(self._live),
                workers=() if force else self._pool.activity(self._name_worker),
                left=self._seconds_left(now),
            )
        )

    def progress(self, stage: str) -> Progress:
        """The study's counts under the heading of a stage."""
        best = self._proposals.best()
        return Progress(
            label=self._claim.study.label,
            metric=self._metric,
            stage=stage,
            total=self._claim.study.trials,
            complete=self._counts[TrialState.COMPLETE],
            pruned=self._counts[TrialState.PRUNED],
            failed=self._counts[TrialState.FAILED],
            best_trial=best[0] if best else None,
            best_value=best[1] if best else None,
            best_params=self._params[best[0]] if best else None,
            elapsed=time.monotonic() - self._started,
        )

    def _seconds_left(self, now: float) -> float | None:
        """From the pace so far; the time budget caps it."""
        ended = sum(self._counts[state] for state in TrialState if state is not TrialState.RUNNING)
        left = None
        if self._finished_here:
            pace = (now - self._dispatching) / self._finished_here
            left = pace * max(0, self._claim.study.trials - ended)
        if self._spec.budget.minutes is not None:
            until_end = max(0.0, 60 * self._spec.budget.minutes - (now - self._started))
            left = until_end if left is None else min(left, until_end)
        return left
