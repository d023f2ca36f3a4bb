"""The dispatcher's loop: keeps every worker busy, records what comes back, and asks the pruner who goes on.

A worker is given a pack of trials (`search.packing` says how many) and answers when each has come to its next look. Of
those, the pruner ends some; the survivors, whose state stays in the worker, are joined by new trials into its next
pack. With one worker the order of everything is fixed, and the same seed gives the same trials.
"""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from search.checkpoint import BestNetwork, Checkpoint
from search.ledger import Ledger, Live
from search.packing import AHEAD, Packing
from search.pool import Done, Pool
from search.progress import Progress
from search.spec import StudySpec
from search.study import Proposals
from storage.records import Claim, EndedTrial, ProposedTrial, TrialRecord, TrialState
from storage.store import Store
from trainer.settings import Settings
from trainer.work import Metric, Outcome, SegmentResult, TrialWork

DEATHS = 3
"""A trial that this many workers died of is failed."""

FIRST_TURN = 64
"""Workers that are given their first packs in one transaction."""

LOOK_SECONDS = 0.5
"""The longest wait for a result before the stop signals and the clock are looked at again."""


@dataclass
class _Hand:
    """What one worker has.

    Attributes:
        packs: The sizes of the packs that it has not answered, oldest first.
        ready: Trials that it goes on with in its next pack.
    """

    packs: list[int] = field(default_factory=list)
    ready: list[int] = field(default_factory=list)


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
        packing: How many trials a worker is given at once.
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
        packing: Packing,
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
        self._packing = packing
        self._looks = proposals.looks
        self._name_worker = name_worker
        self._signals = signals
        self._on_progress = on_progress
        self._started = started
        self._live: dict[int, Live] = {}
        self._hands = [_Hand() for _ in range(pool.size)]
        self._best_curve: list[float] = []
        self._again = [trial for trial in known if trial.state is TrialState.RUNNING]
        self._ledger = Ledger(claim.study, known)
        # For a trial that is under way, those that wait for its result: their networks are the same.
        self._twins: dict[int, list[int]] = defaultdict(list)
        self._asked = len(known)
        self._counts = {state: sum(trial.state is state for trial in known) for state in TrialState}
        self._finished_here = 0
        self._exhausted = False
        self._params = {trial.number: trial.params for trial in known}
        self._shown = 0.0
        self._dispatching = time.monotonic()
        # What goes to the workers after the next transaction.
        self._outgoing: list[tuple[int, list[TrialWork]]] = []
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
        for worker in range(self._pool.size):
            self._supply(worker)
            if worker % FIRST_TURN == FIRST_TURN - 1:
                self._commit()  # the first of many workers need not wait for the last one's proposals
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

    # One answer

    def _take(self, done: Done) -> None:
        """Books a worker's answer for a pack and lines up what that worker does next."""
        self._hands[done.worker].packs.pop(0)
        if done.results is None:
            for work in done.works:
                self._take_death(work.trial, done)
        else:
            self._take_results(done.worker, done.results)
        self._supply(done.worker)

    def _take_results(self, worker: int, results: Sequence[SegmentResult]) -> None:
        paused = []
        for result in results:
            live = self._live.get(result.trial)
            if live is None:
                continue
            self._book_epochs(result, live)
            if result.outcome is Outcome.PAUSED:
                paused.append(result)
            elif result.outcome is Outcome.FINISHED:
                self._finish(result, live)
            elif result.outcome is Outcome.FAILED:
                self._end(result.trial, live, TrialState.FAILED, result, result.reason)
        ending = self._pruned([result.trial for result in paused])
        if ending:
            self._pool.forget(worker, sorted(ending))
        for result in paused:
            live = self._live[result.trial]
            if result.trial in ending:
                self._end(result.trial, live, TrialState.PRUNED, result)
            else:
                self._hands[worker].ready.append(result.trial)

    def _take_death(self, trial: int, done: Done) -> None:
        live = self._live.get(trial)
        if live is None:
            return
        live.deaths += not done.waiting
        if live.deaths < DEATHS:
            # The worker's state is gone with it: the new one starts from the seed, and known epochs are dropped.
            self._hands[done.worker].ready.append(trial)
            return
        reason = f"{DEATHS} workers died while they trained it; the last one: {done.death}"
        self._end(trial, live, TrialState.FAILED, None, reason)

    def _book_epochs(self, result: SegmentResult, live: Live) -> None:
        for epoch in result.epochs:
            if epoch.epoch > live.epochs:
                live.curve.append(epoch.validation_metric)
                self._proposals.report(result.trial, epoch.epoch, epoch.validation_metric)
                self._ledger.add_epoch(result.trial, epoch)
        live.seconds += result.seconds
        live.best_epoch, live.validation = result.best_epoch, result.validation

    def _pruned(self, paused: Sequence[int]) -> set[int]:
        """Which of a pack's paused trials end here: those that the pruner ends, all once the target is met without
        them, and once the time is up those that don't look like the winner.

        One that runs again after a stop has passed the looks before the stop: its later epochs are recorded.
        """
        ending = self._proposals.judge(paused)
        if self._target_met():
            ending = set(paused)
        elif self._time_is_up():
            left = [trial for trial in paused if trial not in ending]
            ending |= set(left) - self._hopeful(left)
        return {trial for trial in ending if self._live[trial].epochs >= self._ledger.recorded_epochs(trial)}

    def _hopeful(self, trials: Sequence[int]) -> set[int]:
        """Those that are no worse than the best complete trial was at their epoch; before there is one, the best."""
        if not self._best_curve:
            return set(sorted(trials, key=lambda trial: (min(self._live[trial].curve), trial))[:1])
        bars = {trial: min(self._best_curve[: self._live[trial].epochs]) for trial in trials}
        return {trial for trial in trials if min(self._live[trial].curve) <= bars[trial]}

    def _finish(self, result: SegmentResult, live: Live) -> None:
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
        self, trial: int, live: Live, state: TrialState, result: SegmentResult | None, reason: str | None = None
    ) -> None:
        train, weights = (result.train, result.weight_count) if result else (None, 0)
        self._book_end(trial, live, state, train, weights, reason)
        for twin in self._twins.pop(trial, []):
            if twin in self._live:
                self._reuse(twin, trial)

    def _book_end(
        self, trial: int, live: Live, state: TrialState, train: float | None, weights: int, reason: str | None
    ) -> None:
        # Optuna takes a pruned trial's last value as its own.
        last = live.curve[-1] if live.curve else None
        value = {TrialState.COMPLETE: live.validation, TrialState.PRUNED: last}.get(state)
        attrs = self._proposals.tell(trial, state, value if state is TrialState.COMPLETE else None)
        self._ledger.end(
            EndedTrial(
                number=trial,
                state=state,
                value=value,
                train=train,
                validation=live.validation,
                epochs=live.epochs,
                best_epoch=live.best_epoch,
                seconds=live.seconds,
                weights=weights,
                worker=self._name_worker(live.worker),
                error=reason,
                attrs=attrs,
                ended_at=datetime.now(UTC),
                pack=live.pack,
            )
        )
        best = self._proposals.best()
        if best is not None and best[0] == trial:
            self._best_curve = live.curve
        del self._live[trial]
        self._counts[state] += 1
        self._finished_here += 1

    def _reuse(self, trial: int, twin: int) -> None:
        """Ends a trial with the result of another one that has the same settings, instead of training them twice."""
        live, outcome = self._live[trial], self._ledger.outcomes[twin]
        unwritten = self._ledger.unwritten_epochs(twin)
        written = self._store.epochs(self._claim.study.id, [twin]) if len(unwritten) < outcome.epochs else []
        for row in (*written, *unwritten):
            live.curve.append(row.validation_metric)
            self._proposals.report(trial, row.epoch, row.validation_metric)
            self._ledger.add_row(replace(row, trial=trial, seconds=0.0, at=datetime.now(UTC)))
        live.best_epoch, live.validation = outcome.best_epoch, outcome.validation
        self._book_end(trial, live, outcome.state, outcome.train, outcome.weights, outcome.error)

    # What comes next

    def _spent(self) -> bool:
        """Whether no further trial begins. When the time is up, the best of those under way are still trained to their
        end, so that they count; and one trial there is, however short the time."""
        return (self._time_is_up() and self._asked > 0) or self._target_met()

    def _time_is_up(self) -> bool:
        minutes = self._spec.budget.minutes
        return minutes is not None and time.monotonic() - self._started >= 60 * minutes

    def _target_met(self) -> bool:
        target, best = self._spec.budget.target, self._proposals.best()
        return target is not None and best is not None and best[1] <= target

    def _supply(self, worker: int) -> None:
        """Lines up what a worker needs so that it does not stand still."""
        hand = self._hands[worker]
        while len(hand.packs) < self._packing.packs_ahead or sum(hand.packs) < AHEAD:
            if hand.packs and self._left() < self._pool.size and not hand.ready:
                return  # the last trials are for workers that have none
            pack = self._form_pack(worker)
            if not pack:
                return
            self._outgoing.append((worker, [self._work_of(trial, worker, min(pack)) for trial in pack]))
            hand.packs.append(len(pack))

    def _form_pack(self, worker: int) -> list[int]:
        """The worker's survivors, then trials that were left unfinished, then new ones, up to a pack's size."""
        hand = self._hands[worker]
        suspects = [trial for trial in hand.ready if self._live[trial].deaths]
        if suspects:
            # One of them may have brought a worker down: each goes alone, so that the others don't die of it again.
            hand.ready.remove(suspects[0])
            return suspects[:1]
        pack, hand.ready = hand.ready, []
        cost = sum(self._cost(trial) for trial in pack)
        most = self._packing.most(self._left())
        while len(pack) < most and cost < self._packing.budget:
            trial = self._begin_trial(worker)
            if trial is None:
                break
            pack.append(trial)
            cost += self._cost(trial)
        return pack

    def _left(self) -> int:
        """Trials that have not begun here."""
        return len(self._again) + max(0, self._claim.study.trials - self._asked)

    def _cost(self, trial: int) -> float:
        live = self._live[trial]
        return self._packing.cost(live.settings, self._next_look(live) - live.epochs)

    def _next_look(self, live: Live) -> int:
        return next(epoch for epoch in self._looks if epoch > live.epochs)

    def _begin_trial(self, worker: int) -> int | None:
        """A trial that was left unfinished, else a proposal while the budget lasts. One whose network was or is being
        trained already gets the result of that."""
        while (trial := self._next_trial(worker)) is not None:
            twin = self._proposals.twin(trial)
            if twin in self._live:
                self._twins[twin].append(trial)
            elif twin in self._ledger.outcomes:
                self._reuse(trial, twin)
            else:
                return trial
        return None

    def _next_trial(self, worker: int) -> int | None:
        if self._again:
            return self._take_up(self._again.pop(0), worker)
        if self._asked >= self._claim.study.trials or self._exhausted or self._spent():
            return None
        proposed = self._proposals.ask()
        if proposed is None:
            self._exhausted = True
            return None
        self._asked += 1
        self._ledger.propose(proposed)
        self._params[proposed.number] = proposed.params
        return self._take_up(proposed, worker)

    def _take_up(self, trial: ProposedTrial | TrialRecord, worker: int) -> int:
        self._live[trial.number] = Live(Settings.from_json(trial.settings), trial.seed, worker)
        return trial.number

    def _work_of(self, trial: int, worker: int, pack: int) -> TrialWork:
        live, best = self._live[trial], self._checkpoint.best
        live.worker, live.pack = worker, pack
        return TrialWork(
            trial=trial,
            settings=live.settings,
            seed=live.seed,
            metric=self._metric,
            epochs=self._spec.budget.epochs,
            until=self._next_look(live),
            keep_up_to=best.validation if best else math.inf,
        )

    def _commit(self) -> None:
        """Writes all that was booked in one transaction, then sends the workers what follows from it."""
        self._signals.renew()
        batch = self._ledger.take(self._newly_assigned())
        if batch is not None:
            self._store.record(self._claim, batch)
        for worker, works in self._outgoing:
            self._pool.submit(worker, works)
        self._outgoing = []

    def _newly_assigned(self) -> dict[int, str]:
        """The worker's name for each outgoing trial that the database does not have with that worker."""
        assigned = {}
        for worker, works in self._outgoing:
            for work in works:
                live = self._live[work.trial]
                if live.recorded_worker != worker:
                    live.recorded_worker = worker
                    assigned[work.trial] = self._name_worker(worker)
        return assigned

    # The end, and the screen

    def _halt(self) -> None:
        """Ends what the workers are doing; the trials stay as they are, to be gone on with."""
        self._pool.halt()
        deadline = time.monotonic() + 5.0
        while any(self._pool.outstanding(worker) for worker in range(self._pool.size)) and time.monotonic() < deadline:
            for done in self._pool.collect(LOOK_SECONDS):
                for result in done.results or ():
                    live = self._live.get(result.trial)
                    if live is None:
                        continue
                    self._book_epochs(result, live)
                    if result.outcome is Outcome.FINISHED:
                        self._finish(result, live)
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
