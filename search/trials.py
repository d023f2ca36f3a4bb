"""A study's trials as they begin, report and end. What is booked here is written with the dispatcher's next turn."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace

from search.checkpoint import BestNetwork, Checkpoint
from search.clock import CLOCK, Clock
from search.disk import writing_to
from search.failures import FailureBudget
from search.ledger import Ledger, Live
from search.patience import Patience
from search.study import Proposals
from storage.records import Claim, EndedTrial, EpochRow, ProposedTrial, TrialRecord, TrialState
from storage.store import Store
from trainer.settings import Settings
from trainer.work import OUT_OF_MEMORY, Metric, SegmentResult


class Trials:
    """
    Args:
        known: The trials of an earlier dispatcher.
        known_epochs: The epochs of those that it left running: they go on from there.
        name_worker: A worker's name, for the database and the screen.

    Attributes:
        live: Those under way, by number.
        counts: How many there are in each state.
        ended_here: How many have ended since the claim.
        forgettable: Those that have ended since it was emptied last, with their workers.
    """

    def __init__(
        self,
        *,
        claim: Claim,
        metric: Metric,
        store: Store,
        proposals: Proposals,
        checkpoint: Checkpoint,
        known: Sequence[TrialRecord],
        known_epochs: Sequence[EpochRow],
        name_worker: Callable[[int], str],
        patience: Patience,
        clock: Clock = CLOCK,
    ) -> None:
        self._claim = claim
        self._metric = metric
        self._store = store
        self._proposals = proposals
        self._checkpoint = checkpoint
        self._name_worker = name_worker
        self._patience = patience
        self._clock = clock
        self.live: dict[int, Live] = {}
        self.ledger = Ledger(claim.study, known)
        self.failures = FailureBudget()
        self._again = [trial for trial in known if trial.state is TrialState.RUNNING]
        self._known_epochs: dict[int, list[EpochRow]] = defaultdict(list)
        for row in known_epochs:
            self._known_epochs[row.trial].append(row)
        # For a trial that is under way, those that wait for its result: their networks are the same.
        self._twins: dict[int, list[int]] = defaultdict(list)
        self.asked = len(known)
        self.counts = {state: sum(trial.state is state for trial in known) for state in TrialState}
        self.ended_here = 0
        self.forgettable: list[tuple[int, int]] = []
        self.best_curve: list[float] = []
        self.params = {trial.number: trial.params for trial in known}
        self._exhausted = False
        best = checkpoint.best
        ours = {(trial.number, trial.validation) for trial in known if trial.state is TrialState.COMPLETE}
        if best is not None and (best.trial, best.validation) not in ours:
            # Kept, but the end of its trial was never recorded: it is trained again, and kept again.
            checkpoint.best = None

    def left(self) -> int:
        """Trials that have not begun here."""
        return len(self._again) + max(0, self._claim.study.trials - self.asked)

    # Their beginning

    def begin(self, worker: int, spent: Callable[[int], bool]) -> int | None:
        """A trial that was left unfinished, else a proposal while the budget lasts. One whose network was or is being
        trained already gets the result of that."""
        while (trial := self._next(worker, spent)) is not None:
            twin = self._proposals.twin(trial)
            if twin in self.live:
                self._twins[twin].append(trial)
            elif twin in self.ledger.outcomes:
                self._reuse(trial, twin)
            else:
                return trial
        return None

    def _next(self, worker: int, spent: Callable[[int], bool]) -> int | None:
        if self._again:
            return self._take_up(self._again.pop(0), worker)
        if self.asked >= self._claim.study.trials or self._exhausted or spent(self.asked):
            return None
        proposed = self._proposals.ask()
        if proposed is None:
            self._exhausted = True
            return None
        self.asked += 1
        self.ledger.propose(proposed)
        self.params[proposed.number] = proposed.params
        return self._take_up(proposed, worker)

    def _take_up(self, trial: ProposedTrial | TrialRecord, worker: int) -> int:
        live = self.live[trial.number] = Live(Settings.from_json(trial.settings), trial.seed, worker)
        if isinstance(trial, TrialRecord):
            live.deaths = trial.deaths
            for row in self._known_epochs.pop(trial.number, []):
                live.curve.append(row.validation_metric)
                live.seconds += row.seconds
        return trial.number

    # Their figures

    def book(self, result: SegmentResult) -> None:
        """Takes a segment's epochs in; what is known already, because a worker has trained it again, is dropped."""
        live = self.live[result.trial]
        for epoch in result.epochs:
            if epoch.epoch > live.epochs:
                live.curve.append(epoch.validation_metric)
                self._proposals.report(result.trial, epoch.epoch, epoch.validation_metric)
                self.ledger.add_epoch(result.trial, epoch, self._clock.now())
                live.seconds += epoch.seconds
        # What it took beside its epochs: the last look at the train split.
        live.seconds += max(0.0, result.seconds - sum(epoch.seconds for epoch in result.epochs))
        live.best_epoch, live.validation = result.best_epoch, result.validation
        if result.memory is not None:
            live.memory = max(live.memory or 0, result.memory)

    def alive(self, trial: int) -> None:
        """It has come to its segment's end: what a worker died of before was not that."""
        self._set_deaths(trial, 0)

    def note_audit(self, trial: int) -> None:
        """Where the pruner would have ended what goes on here, that is recorded at once, for whoever takes over."""
        epoch = self._proposals.would_stop(trial)
        if epoch == self.live[trial].epochs:
            self.ledger.set_would_stop(trial, epoch)

    def died(self, trial: int) -> int:
        """A worker died while it trained this trial alone; returns how many have."""
        self._set_deaths(trial, self.live[trial].deaths + 1)
        return self.live[trial].deaths

    def _set_deaths(self, trial: int, count: int) -> None:
        live = self.live[trial]
        if live.deaths != count:
            live.deaths = count
            self.ledger.set_deaths(trial, count)

    # Their end

    def finish(self, result: SegmentResult) -> None:
        """A trial that was trained to its end; without a finite metric it can't be compared, and is a failure."""
        if result.validation is None or not math.isfinite(result.validation):
            self.end(result.trial, TrialState.FAILED, result, f"its {self._metric} was not finite")
            return
        self._keep_weights(result.trial, result)
        self.end(result.trial, TrialState.COMPLETE, result)

    def _keep_weights(self, trial: int, result: SegmentResult) -> None:
        if result.weights is None or result.validation is None:
            return
        best = self._checkpoint.best
        if best is None or (result.validation, trial) < (best.validation, best.trial):
            network = BestNetwork(trial=trial, validation=result.validation, weights=result.weights)
            self._patience(lambda: writing_to("the checkpoints", lambda: self._checkpoint.keep(network)))

    def end(
        self, trial: int, state: TrialState, result: SegmentResult | None = None, reason: str | None = None
    ) -> None:
        """Books a trial's end, and that of those which wait for its result."""
        train, weights = (result.train, result.weight_count) if result else (None, 0)
        self._book_end(trial, state, train, weights, reason)
        for twin in self._twins.pop(trial, []):
            if twin in self.live:
                self._reuse(twin, trial)

    def end_all(self, reason: str) -> None:
        """Fails every trial that has not ended."""
        for left in self._again:
            self._take_up(left, worker=0)
        self._again = []
        for trial in list(self.live):
            if trial in self.live:
                self.end(trial, TrialState.FAILED, reason=reason)

    def _book_end(self, trial: int, state: TrialState, train: float | None, weights: int, reason: str | None) -> None:
        live = self.live.pop(trial)
        # Optuna takes a pruned trial's last value as its own.
        last = live.curve[-1] if live.curve else None
        value = {TrialState.COMPLETE: live.validation, TrialState.PRUNED: last}.get(state)
        attrs = self._proposals.tell(trial, state, value if state is TrialState.COMPLETE else None)
        self.ledger.end(
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
                ended_at=self._clock.now(),
                pack=live.pack,
                memory=live.memory,
                would_stop=self._proposals.would_stop(trial),
            )
        )
        best = self._proposals.best()
        if best is not None and best[0] == trial:
            self.best_curve = live.curve
        self.counts[state] += 1
        self.ended_here += 1
        self.failures.add(reason or "no reason was given" if state is TrialState.FAILED else None)
        self.forgettable.append((live.worker, trial))

    def _reuse(self, trial: int, twin: int) -> None:
        """Ends a trial with the result of another one that has the same settings, instead of training them twice."""
        live, outcome = self.live[trial], self.ledger.outcomes[twin]
        unwritten = self.ledger.unwritten_epochs(twin)
        written: Sequence[EpochRow] = ()
        if len(unwritten) < outcome.epochs:
            written = self._patience(lambda: self._store.epochs(self._claim.study.id, [twin]))
        for row in (*written, *unwritten):
            if row.epoch > live.epochs:
                live.curve.append(row.validation_metric)
                self._proposals.report(trial, row.epoch, row.validation_metric)
                self.ledger.add_row(replace(row, trial=trial, seconds=0.0, at=self._clock.now()))
        live.best_epoch, live.validation = outcome.best_epoch, outcome.validation
        if outcome.would_stop is not None:
            self._proposals.audit(trial, outcome.would_stop)
        if (outcome.error or "").startswith(OUT_OF_MEMORY):
            self._proposals.too_large(trial)
        self._book_end(trial, outcome.state, outcome.train, outcome.weights, outcome.error)
