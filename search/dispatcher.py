"""The dispatcher's loop: keeps every worker busy, records what comes back, and asks the pruner who goes on.

A worker is given a pack of trials (`search.packing` says how many) and answers when each has come to its next look. Of
those, the pruner ends some; the survivors, whose state stays in the worker, are joined by new trials into its next
pack. With one worker the order of everything is fixed, and the same seed gives the same trials.

Each turn is one transaction, and only what it holds is acted on: workers are given their next packs after it.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from neurosweep.failpoints import reach
from search.budget import Budget
from search.checkpoint import Checkpoint
from search.clock import CLOCK, Clock
from search.hands import Hands
from search.ledger import Live
from search.no_gain import Noise
from search.packing import AHEAD, Packing
from search.patience import Patience
from search.pool import Done, Pool
from search.progress import Progress
from search.spec import StudySpec
from search.study import Proposals
from search.trials import Trials
from search.watch import Watch
from storage.records import Claim, EpochRow, TrialRecord, TrialState
from storage.store import Store
from trainer.work import Metric, Outcome, SegmentResult, TrialWork

DEATHS = 3
"""A trial that this many workers died of is failed."""

SPARED = 10
"""How often a trial's worker may be lost with its machine before the trial is suspected."""

FIRST_TURN = 64
"""Workers that are given their first packs in one transaction."""

LOOK_SECONDS = 0.5
"""The longest wait for a result before the stop signals and the clock are looked at again."""

HALT_SECONDS = 3.0
"""How long a stop waits for what the workers have in hand."""


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
        known: The trials of an earlier dispatcher.
        known_epochs: The epochs of those that it left running: they go on from their last checkpoint, or run again
            from their seed.
        started: When the study was begun, by `clock`, had all claims followed on one another.
        noise: Of the metric.

    Attributes:
        failure: Why the study ended before its time, in a line: too many of its trials failed.
        budget: What ends the study early, and whether it has.
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
        known_epochs: Sequence[EpochRow],
        on_progress: Callable[[Progress], None],
        signals: Signals,
        started: float,
        noise: Noise,
        clock: Clock = CLOCK,
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
        self._clock = clock
        self._patience = Patience(signals.stop, lambda why: on_progress(self.progress(why)), clock)
        self._trials = Trials(
            claim=claim,
            metric=metric,
            store=store,
            proposals=proposals,
            checkpoint=checkpoint,
            known=known,
            known_epochs=known_epochs,
            name_worker=name_worker,
            patience=self._patience,
            clock=clock,
        )
        self.budget = Budget(
            spec.budget,
            trials=claim.study.trials,
            proposals=proposals,
            noise=noise,
            started=started,
            clock=clock,
        )
        self._hands = Hands(pool.size)
        self._watch = Watch()
        self._shown = self._watched = 0.0
        self._dispatching = clock.monotonic()
        # What goes to the workers after the next transaction.
        self._outgoing: list[tuple[int, list[TrialWork]]] = []
        self.failure: str | None = None

    def work(self) -> None:
        """Runs the loop to its end; whether the study was stopped or cancelled, the caller knows from its signals.

        Raises:
            LeaseLostError: Another dispatcher owns the study now; nothing was written after it took over.
            UnreachableError, DiskFullError: The database could not be written to, and the user did not want to wait.
        """
        try:
            self._work()
        except BaseException:
            # The study that the workers get next must not wait for what nobody wants any more.
            self._pool.halt()
            raise

    def cancel(self) -> None:
        """Fails every trial that has not ended; called after `work`, as a cancel may be heard when that is over."""
        self._outgoing = []
        self._trials.end_all("the study was cancelled")
        self._commit()

    def _work(self) -> None:
        for worker in range(self._pool.size):
            self._supply(worker)
            if worker % FIRST_TURN == FIRST_TURN - 1:
                self._commit()  # the first of many workers need not wait for the last one's proposals
        self._commit()
        while self._trials.live:
            if self._signals.stop() or self._signals.cancel():
                self._halt()
                break
            self.failure = self._trials.failures.spent()
            if self.failure is not None:
                self._give_up()
                break
            for done in self._pool.collect(LOOK_SECONDS):
                self._take(done)
            # Before the transaction, which may have to wait: what has come back meanwhile would not be known.
            self._end_silent_workers()
            self._commit()
            self._show()
        self.failure = self.failure or self._trials.failures.spent()
        self._show(force=True)

    # One answer

    def _take(self, done: Done) -> None:
        """Books a worker's answer for a pack and lines up what that worker does next."""
        if done.works:
            self._hands.answered(done.worker)
        if done.results is None:
            self._take_death(done)
        else:
            self._take_results(done, done.results)
        self._expect_next(done.worker)
        self._supply(done.worker)

    def _take_results(self, done: Done, results: Sequence[SegmentResult]) -> None:
        now = self._clock.monotonic()
        training = sum(result.seconds for result in results)
        self._watch.answered(done.worker, sum(map(self._cost_of, done.works)), now, training)
        paused, crowded = [], []
        for result in results:
            if result.trial not in self._trials.live:
                continue
            self._trials.book(result)
            match result.outcome:
                case Outcome.PAUSED:
                    paused.append(result)
                case Outcome.FINISHED:
                    self._trials.finish(result)
                case Outcome.OUT_OF_MEMORY:
                    crowded.append(result)
                case Outcome.FAILED | Outcome.TOO_LONG:
                    self._trials.end(result.trial, TrialState.FAILED, result, self._reason(result))
        ending = self._pruned([result.trial for result in paused])
        for result in paused:
            if result.trial in ending:
                self._trials.end(result.trial, TrialState.PRUNED, result)
            else:
                self._trials.alive(result.trial)
                self._trials.note_audit(result.trial)
                self._hands.keep(done.worker, [result.trial])
        for result in crowded:
            self._make_room(done.worker, result)

    def _reason(self, result: SegmentResult) -> str | None:
        if result.outcome is Outcome.TOO_LONG:
            return self._too_long()
        return result.reason

    def _too_long(self) -> str:
        return f"it took longer than budget.minutes_per_trial, {self._spec.budget.minutes_per_trial:g}"

    def _make_room(self, worker: int, result: SegmentResult) -> None:
        """A trial that ran out of memory by itself is tried once more, in a worker that holds nothing else."""
        live = self._trials.live[result.trial]
        if live.squeezed:
            self._proposals.too_large(result.trial)
            self._trials.end(result.trial, TrialState.FAILED, result, result.reason)
            return
        live.squeezed = True
        self._hands.keep_apart(worker, [result.trial])
        self._pool.end(worker, "it is to have all of its memory back", blameless=True)

    def _take_death(self, done: Done) -> None:
        self._watch.gone(done.worker)
        trials = [work.trial for work in done.works if work.trial in self._trials.live]
        if done.waiting or (done.blameless and self._spare(trials)):
            # Their state is gone: any worker may go on with them.
            self._hands.leave(trials)
        elif len(trials) > 1:
            # The worker's state is gone with it: they go on from their checkpoints, and known epochs are dropped.
            self._hands.keep_apart(done.worker, trials)
        elif trials:
            self._take_suspect(trials[0], done)
        if not self._pool.serves(done.worker):
            self._hands.empty(done.worker)

    def _spare(self, trials: Sequence[int]) -> bool:
        """Whether a worker's end is still not put down to what it trained: machines are not lost that often."""
        for trial in trials:
            self._trials.live[trial].spared += 1
        return all(self._trials.live[trial].spared <= SPARED for trial in trials)

    def _take_suspect(self, trial: int, done: Done) -> None:
        """A worker has died while it trained nothing but this trial."""
        if self._trials.live[trial].overdue:
            self._trials.end(trial, TrialState.FAILED, reason=self._too_long())
        elif self._trials.died(trial) >= DEATHS:
            reason = f"{DEATHS} workers died while they trained it; the last one: {done.death}"
            self._trials.end(trial, TrialState.FAILED, reason=reason)
        else:
            self._hands.keep_apart(done.worker, [trial])

    def _pruned(self, paused: Sequence[int]) -> set[int]:
        """Which of a pack's paused trials end here: those that the pruner ends, all once the target is met without
        them, and once the time is up, or there is nothing to gain, those that don't look like the winner."""
        ending = self._proposals.judge(paused)
        if self.budget.target_met():
            ending = set(paused)
        elif self.budget.time_is_up() or self.budget.nothing_to_gain():
            left = [trial for trial in paused if trial not in ending]
            ending |= set(left) - self._hopeful(left)
        return ending

    def _hopeful(self, trials: Sequence[int]) -> set[int]:
        """Those that are no worse than the best complete trial was at their epoch; before there is one, the best."""
        live, best = self._trials.live, self._trials.best_curve
        if not best:
            return set(sorted(trials, key=lambda trial: (min(live[trial].curve), trial))[:1])
        bars = {trial: min(best[: live[trial].epochs]) for trial in trials}
        return {trial for trial in trials if min(live[trial].curve) <= bars[trial]}

    # What comes next

    def _supply(self, worker: int) -> None:
        """Lines up what a worker needs so that it does not stand still."""
        if not self._pool.serves(worker):
            return
        packs = self._hands.packs(worker)
        while len(packs) < self._packing.packs_ahead or self._hands.trials(worker) < AHEAD:
            if packs and self._trials.left() < self._pool.size and not self._hands.has_ready(worker):
                return  # the last trials are for workers that have none
            pack = self._form_pack(worker)
            if not pack:
                return
            works = [self._work_of(trial, worker, min(pack)) for trial in pack]
            self._outgoing.append((worker, works))
            self._hands.give(worker, works)

    def _form_pack(self, worker: int) -> list[int]:
        """The worker's survivors, then trials that were left unfinished, then new ones, up to a pack's size."""
        if apart := self._hands.take_apart(worker):
            return apart
        most = self._packing.most(self._trials.left())
        pack = self._hands.take_ready(worker, most)
        cost = sum(self._cost(self._trials.live[trial]) for trial in pack)
        while len(pack) < most and cost < self._packing.budget:
            trial = self._trials.begin(worker, self.budget.spent)
            if trial is None:
                break
            pack.append(trial)
            cost += self._cost(self._trials.live[trial])
        return pack

    def _cost(self, live: Live) -> float:
        return self._packing.cost(live.settings, self._next_look(live) - live.epochs)

    def _cost_of(self, work: TrialWork) -> float:
        return self._packing.cost(work.settings, max(1, work.until - work.known_epochs))

    def _next_look(self, live: Live) -> int:
        return next((epoch for epoch in self._looks if epoch > live.epochs), self._looks[-1])

    def _work_of(self, trial: int, worker: int, pack: int) -> TrialWork:
        live, best = self._trials.live[trial], self._checkpoint.best
        live.worker, live.pack = worker, pack
        minutes = self._spec.budget.minutes_per_trial
        return TrialWork(
            trial=trial,
            settings=live.settings,
            seed=live.seed,
            metric=self._metric,
            epochs=self._spec.budget.epochs,
            until=self._next_look(live),
            known_epochs=live.epochs,
            keep_up_to=best.validation if best else math.inf,
            seconds=math.inf if minutes is None else max(0.0, 60 * minutes - live.seconds),
        )

    # One turn's transaction, and what follows from it

    def _commit(self) -> None:
        """Writes all that was booked in one transaction, then sends the workers what follows from it."""
        reach("after_propose")
        self._signals.renew()
        ledger = self._trials.ledger
        batch = ledger.batch(self._newly_assigned())
        if batch is not None:
            self._patience(lambda: self._store.record(self._claim, batch))
            ledger.written()
            reach("after_commit")
        self._forget_ended()
        for worker, works in self._outgoing:
            self._pool.submit(worker, works)
            if self._pool.outstanding(worker) == 1:
                self._expect(worker, works)
        if self._outgoing:
            self._outgoing = []
            reach("after_dispatch")

    def _newly_assigned(self) -> dict[int, str]:
        """The worker's name for each outgoing trial that the database does not have with that worker."""
        assigned = {}
        for worker, works in self._outgoing:
            for work in works:
                live = self._trials.live[work.trial]
                if live.recorded_worker != worker:
                    live.recorded_worker = worker
                    assigned[work.trial] = self._name_worker(worker)
        return assigned

    def _forget_ended(self) -> None:
        """What workers and checkpoints hold of trials whose end is recorded is of no more use."""
        ended: dict[int, list[int]] = defaultdict(list)
        for worker, trial in self._trials.forgettable:
            ended[worker].append(trial)
        self._trials.forgettable.clear()
        for worker, trials in ended.items():
            self._pool.forget(worker, sorted(trials))

    # Workers that don't answer

    def _expect(self, worker: int, works: Sequence[TrialWork]) -> None:
        limit = sum(work.seconds for work in works)
        self._watch.expect(
            worker,
            sum(map(self._cost_of, works)),
            self._clock.monotonic(),
            None if math.isinf(limit) else limit,
        )

    def _expect_next(self, worker: int) -> None:
        """A worker goes on with the pack that has waited in it."""
        packs = self._hands.packs(worker)
        if packs:
            self._expect(worker, packs[0])

    def _end_silent_workers(self) -> None:
        now = self._clock.monotonic()
        if now - self._watched < LOOK_SECONDS:
            return
        self._watched = now
        self._watch.shown(self._pool.signs(), now)
        for worker, why in self._watch.late(now).items():
            packs = self._hands.packs(worker)
            if packs and len(packs[0]) == 1 and packs[0][0].trial in self._trials.live:
                self._trials.live[packs[0][0].trial].overdue = self._watch.overdue(worker, now)
            self._watch.gone(worker)
            self._pool.end(worker, why)

    # The end, and the screen

    def _halt(self) -> None:
        """Ends what the workers are doing; the trials stay as they are, to be gone on with."""
        self._pool.halt()
        deadline = self._clock.monotonic() + HALT_SECONDS
        workers = range(self._pool.size)
        while any(self._pool.outstanding(worker) for worker in workers) and self._clock.monotonic() < deadline:
            for done in self._pool.collect(LOOK_SECONDS):
                for result in done.results or ():
                    if result.trial not in self._trials.live:
                        continue
                    self._trials.book(result)
                    if result.outcome is Outcome.FINISHED:
                        self._trials.finish(result)
        self._outgoing = []
        self._commit()

    def _give_up(self) -> None:
        """Too much has failed: what is under way ends with it."""
        self._pool.halt()
        self._outgoing = []
        self._trials.end_all("the study ended, as too many of its trials had failed")
        self._commit()

    def _show(self, force: bool = False) -> None:
        """Draws the progress, at most twice a second."""
        now = self._clock.monotonic()
        if not force and now - self._shown < LOOK_SECONDS:
            return
        self._shown = now
        serving = any(self._pool.serves(worker) for worker in range(self._pool.size))
        self._on_progress(
            replace(
                self.progress("training" if serving else "waiting for room on the cluster"),
                running=len(self._trials.live),
                workers=() if force else self._pool.activity(self._name_worker),
                left=self._seconds_left(now),
            )
        )

    def progress(self, stage: str) -> Progress:
        """The study's counts under the heading of a stage."""
        best, counts = self._proposals.best(), self._trials.counts
        return Progress(
            label=self._claim.study.label,
            metric=self._metric,
            stage=stage,
            total=self._claim.study.trials,
            complete=counts[TrialState.COMPLETE],
            pruned=counts[TrialState.PRUNED],
            failed=counts[TrialState.FAILED],
            best_trial=best[0] if best else None,
            best_value=best[1] if best else None,
            best_params=self._trials.params[best[0]] if best else None,
            elapsed=self._clock.monotonic() - self._started,
        )

    def _seconds_left(self, now: float) -> float | None:
        """From the pace so far; the time budget caps it."""
        counts = self._trials.counts
        ended = sum(counts[state] for state in TrialState if state is not TrialState.RUNNING)
        left = None
        if self._trials.ended_here:
            pace = (now - self._dispatching) / self._trials.ended_here
            left = pace * max(0, self._claim.study.trials - ended)
        if self._spec.budget.minutes is not None:
            until_end = max(0.0, 60 * self._spec.budget.minutes - (now - self._started))
            left = until_end if left is None else min(left, until_end)
        return left
