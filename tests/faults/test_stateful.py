"""The queue, leases, fencing tokens, rung decisions and the outbox, through random interleavings, against a model.

Three dispatchers, two publishers and a user act on a real store in any order; dispatchers and publishers crash, sleep
past their leases and wake up; answers of the database and of MLflow are lost; the database's clock jumps. After each
step the tables hold just what the model in `queue_model.py` does, and after the last one so does MLflow.

A failure prints the steps and a line ``@reproduce_failure(...)``: put it over `Actions` to see the same again.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from neurosweep.errors import LeaseLostError
from search.pruner import Pruner, make_pruner
from search.spec import StudySpec
from storage import facts, mlflow_door, telling
from storage.records import Batch, Claim, EndedTrial, Fact, NewStudy, StudyState, TrialState
from storage.store import Store
from tests.faults.fake_database import FakeDatabase
from tests.faults.fake_mlflow import FakeMlflow
from tests.faults.fake_time import patch_time
from tests.faults.publishers_watched import PublisherSeat, check_mlflow
from tests.faults.queue_model import QueueModel, StudyModel, TrialModel
from tests.storage import samples

STEPS, EXAMPLES = 100, 120
START = 1_700_000_000.0
LEASE = 30.0
EPOCHS = 9
SPEC = {"name": "stateful", "data": {"source": "iris"}, "metric": "error", "budget": {"trials": 4, "epochs": EPOCHS}}
STUDIES = 2
MOST_TRIALS = 24

TROUBLE = st.sampled_from([None] * 8 + ["reply lost", "locked"])
SEATS, PUBLISHERS = st.integers(0, 2), st.integers(0, 1)


def pruner() -> Pruner:
    return make_pruner(StudySpec.from_mapping(SPEC))


def figure(trial: int, epoch: int) -> float:
    """A trial's validation metric: the same whoever trains it."""
    return (trial * 7919 + epoch * 104_729) % 1009 / 1009


class Seat:
    """A dispatcher, as far as it knows what goes on.

    Attributes:
        claim: What it holds, or still believes to hold.
        curves: Its running trials, with their epochs.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.claim: Claim | None = None
        self.asked = 0
        self.curves: dict[int, dict[int, float]] = {}
        self.cancelled = False
        self.pruner = pruner()
        self.last = Batch()

    def take(self, claim: Claim, store: Store) -> None:
        """Goes on from what the database holds."""
        self.claim, self.pruner, self.last, self.cancelled = claim, pruner(), Batch(), False
        records = store.trials(claim.study.id)
        curves: dict[int, dict[int, float]] = {record.number: {} for record in records}
        for row in store.epochs(claim.study.id):
            curves[row.trial][row.epoch] = row.validation_metric
        for record in records:
            self.pruner.restore(record.number, curves[record.number], complete=record.state is TrialState.COMPLETE)
        self.asked = len(records)
        self.curves = {n.number: curves[n.number] for n in records if n.state is TrialState.RUNNING}

    def propose(self, count: int) -> Batch:
        assert self.claim is not None
        numbers = range(self.asked, min(self.asked + count, self.claim.study.trials))
        self.asked += len(numbers)
        self.curves.update({number: {} for number in numbers})
        return Batch(
            proposed=tuple(samples.proposed(number) for number in numbers),
            assigned=dict.fromkeys(numbers, "worker-1"),
        )

    def segment(self, count: int, failing: bool) -> Batch:
        """A pack comes to its next look; the first of it may have failed."""
        assert self.claim is not None
        pack = sorted(self.curves)[:count]
        epochs, ended = [], []
        for number in pack:
            curve = self.curves[number]
            until = next(look for look in self.pruner.looks if look > len(curve))
            if failing and number == pack[0]:
                until -= 1
            for epoch in range(len(curve) + 1, until + 1):
                curve[epoch] = figure(number, epoch)
                epochs.append(samples.epoch(number, epoch, curve[epoch]))
        states: dict[int, TrialState] = {}
        if failing and pack:
            states[pack[0]] = TrialState.FAILED
        paused = [n for n in pack if n not in states and len(self.curves[n]) < EPOCHS]
        states.update(dict.fromkeys(self.pruner.judge({n: self.curves[n] for n in paused}), TrialState.PRUNED))
        states.update({n: TrialState.COMPLETE for n in pack if n not in states and len(self.curves[n]) == EPOCHS})
        ended = [self._end(number, state) for number, state in states.items()]
        return Batch(epochs=tuple(epochs), ended=tuple(ended), facts=self._facts(states))

    def end_all(self) -> Batch:
        states = dict.fromkeys(self.curves, TrialState.FAILED)
        ended = [self._end(number, state) for number, state in states.items()]
        return Batch(ended=tuple(ended), facts=self._facts(states))

    def _end(self, number: int, state: TrialState) -> EndedTrial:
        curve = self.curves.pop(number)
        value = None if state is TrialState.FAILED else curve[len(curve)]
        return samples.ended(number, state, value, epochs=len(curve))

    def _facts(self, ended: dict[int, TrialState]) -> tuple[Fact, ...]:
        assert self.claim is not None
        return tuple(facts.trial_ended(self.claim.study, number) for number in ended)


class Actions(RuleBasedStateMachine):
    """The steps; `run` says on which database and by which clock."""

    database: FakeDatabase
    clock: list[float]
    steps = 0

    @initialize()
    def begin(self) -> None:
        self.clock[0] = START
        self.database.fresh()
        self.store = self.database.store()
        self.model = QueueModel()
        self.mlflow = FakeMlflow()
        self.lives = 0
        self.tokens: dict[int, tuple[int, int]] = {}
        self.seats = [self._new_seat() for _ in range(3)]
        self.publishers = [self._new_publisher() for _ in range(2)]
        self._submit(None)

    def _new_seat(self) -> Seat:
        self.lives += 1
        return Seat(f"dispatcher-{self.lives}")

    def _new_publisher(self) -> PublisherSeat:
        return PublisherSeat(self.database, self.model, self.mlflow)

    # A user

    @rule(
        what=st.sampled_from(["submit", "cancel", "resume", "resume", "resume"]),
        which=st.integers(0, STUDIES - 1),
        more=st.integers(0, 3),
        trouble=TROUBLE,
    )
    def ask(self, what: str, which: int, more: int, trouble: str | None) -> None:
        if what == "submit" and len(self.model.studies) < STUDIES:
            self._submit(trouble)
        elif what == "cancel":
            self._cancel(self._study(which), trouble)
        else:
            self._requeue(self._study(which), more, trouble)

    def _submit(self, trouble: str | None) -> None:
        with self._troubled(trouble):
            record = self.store.submit(NewStudy(name="stateful", spec=SPEC, text="", trials=4))
        self.model.studies[record.id] = StudyModel(record, asked=4, pruner=pruner())

    def _cancel(self, study: StudyModel, trouble: str | None) -> None:
        now = self.database.now()
        with self._troubled(trouble):
            record = self.store.request_cancel(study.record.id)
        if study.held(now):
            study.cancel = True
        elif study.state in (StudyState.QUEUED, StudyState.STOPPED, StudyState.RUNNING):
            study.state = StudyState.CANCELLED
        assert record.state is study.state
        if study.state is StudyState.CANCELLED and study.token and record.ended_at is not None:
            for number, trial in sorted(study.trials.items()):
                if trial.state is TrialState.RUNNING:
                    trial.state = TrialState.FAILED
                    told = facts.trial_ended(study.record, number)
                    self.model.add_fact(record.id, told.key, told.kind, number)
            fact = facts.cancelled(record, record.ended_at)
            self.model.add_fact(record.id, fact.key, fact.kind)

    def _requeue(self, study: StudyModel, more: int, trouble: str | None) -> None:
        now, wanted = self.database.now(), max(study.asked, min(MOST_TRIALS, study.asked + more))
        with self._troubled(trouble):
            self.store.requeue(study.record.id, wanted)
        if not study.held(now):
            study.asked, study.cancel = wanted, False
            if study.state is not StudyState.RUNNING:
                study.state = StudyState.QUEUED

    @rule(seconds=st.sampled_from([1, 5, 10, 20, 31, 45, 600, -600]))
    def let_time_pass(self, seconds: int) -> None:
        slices = [seconds] if seconds < 0 else [min(20, seconds - begun) for begun in range(0, seconds, 20)]
        for part in slices:
            self.clock[0] += part
            for seat in self.publishers:
                seat.beat()

    # Dispatchers

    @rule(who=SEATS, trouble=TROUBLE)
    def claim(self, who: int, trouble: str | None) -> None:
        seat = self.seats[who]
        if seat.claim is None:
            self._claimed_by(seat, trouble)
        else:
            self.renew(who, trouble)

    def _claimed_by(self, seat: Seat, trouble: str | None) -> bool:
        """Whether a dispatcher without a study has got one."""
        free = self.model.claimable(self.database.now())
        with self._troubled(trouble):
            claim = self.store.claim(seat.name, LEASE)
        if free is None:
            assert claim is None
            return False
        assert claim is not None
        assert (claim.study.id, claim.token) == (free.record.id, free.token + 1)
        free.state, free.token, free.leased_until = StudyState.RUNNING, claim.token, self.database.now() + LEASE
        seat.take(claim, self.store)
        assert seat.asked == len(free.trials)
        started = facts.started(claim.study)
        self.store.started(claim, "5p1i7", SPEC, facts=[started])
        self.model.add_fact(free.record.id, started.key, started.kind)
        return True

    @rule(who=SEATS, trouble=TROUBLE)
    def renew(self, who: int, trouble: str | None) -> None:
        seat = self._working(who)
        assert seat.claim is not None
        held, study = seat.claim, self._claimed(seat)

        def renew() -> None:
            seat.cancelled = self.store.renew(held, LEASE)

        if self._write(seat, renew, trouble):
            study.leased_until = self.database.now() + LEASE
            assert seat.cancelled == study.cancel

    @rule(who=SEATS, count=st.integers(1, 3), trouble=TROUBLE)
    def propose(self, who: int, count: int, trouble: str | None) -> None:
        seat = self._working(who)
        self._record(seat, seat.propose(count), trouble)

    @rule(who=SEATS, count=st.integers(1, 4), failing=st.sampled_from([False, False, False, True]), trouble=TROUBLE)
    def segment(self, who: int, count: int, failing: bool, trouble: str | None) -> None:
        seat = self._working(who)
        self._record(seat, seat.segment(count, failing) if seat.curves else seat.propose(count), trouble)

    @rule(who=SEATS)
    def record_again(self, who: int) -> None:
        """As after an answer that was lost: it must change nothing."""
        seat = self._working(who)
        assert seat.claim is not None
        held = seat.claim
        self._write(seat, lambda: self.store.record(held, seat.last), None)

    @rule(who=SEATS, give_up=st.booleans(), trouble=TROUBLE)
    def finish(self, who: int, give_up: bool, trouble: str | None) -> None:
        seat = self._working(who)
        assert seat.claim is not None
        held, state = seat.claim, StudyState.FINISHED
        if seat.cancelled or (give_up and seat.curves):
            state = StudyState.CANCELLED if seat.cancelled else StudyState.FAILED
            if not self._record(seat, seat.end_all(), trouble):
                return
        elif seat.curves:
            state = StudyState.STOPPED
        study, ended = self._claimed(seat), facts.ended(held.study, held.token)
        if self._write(seat, lambda: self.store.finish(held, state, facts=[ended]), trouble):
            study.state, study.leased_until = state, None
            self.model.add_fact(study.record.id, ended.key, ended.kind)
            seat.claim = None

    @rule(who=SEATS)
    def crash(self, who: int) -> None:
        self.seats[who] = self._new_seat()

    # Publishers

    @rule(
        who=PUBLISHERS, requests=st.integers(1, 12), then=st.sampled_from(["sleep", "slow", "lost", "stored", "crash"])
    )
    def publish(self, who: int, requests: int, then: str) -> None:
        """Goes on for so many requests; at the next one it stops or something happens to it."""
        if self.publishers[who].go_on(requests, then) == "crashed":
            self.publishers[who] = self._new_publisher()

    @rule(who=PUBLISHERS)
    def publish_all(self, who: int) -> None:
        self.publishers[who].go_on(10_000, "sleep")

    # What must hold after each step

    @invariant()
    def the_tables_hold_what_the_model_does(self) -> None:
        type(self).steps += 1
        self.model.check(self.database)

    @invariant()
    def tokens_only_grow_and_one_is_live(self) -> None:
        for id, study in self.model.studies.items():
            before = self.tokens.get(id, (0, 0))
            now = self.database.rows(f"SELECT token, publisher_token FROM neurosweep_study WHERE id = {id}")[0]
            assert now[0] >= before[0] and now[1] >= before[1]
            self.tokens[id] = now
            held = [seat for seat in self.seats if seat.claim is not None and seat.claim.study.id == id]
            assert sum(seat.claim is not None and seat.claim.token == now[0] for seat in held) <= 1
            assert study.token == now[0]

    def teardown(self) -> None:
        if not hasattr(self, "model"):
            return
        for seat in self.publishers:
            seat.kill()
        last = self._new_publisher()
        for _ in range(20):
            self.clock[0] += 700
            assert last.go_on(10_000, "sleep") == "done"
            if self.store.pending_facts() == 0:
                break
        self.model.check(self.database)
        assert all(fact.published for fact in self.model.facts)
        check_mlflow(self.mlflow, self.store, self.model)
        self._check_optunas_own_reader()

    # How

    def _working(self, who: int) -> Seat:
        """A dispatcher that has a study: this one, where it has or can get one, else another."""
        seat = self.seats[who]
        if seat.claim is not None or self._claimed_by(seat, None):
            return seat
        busy = [seat for seat in self.seats if seat.claim is not None]
        if busy:
            return busy[who % len(busy)]
        for study in self.model.studies.values():
            self._requeue(study, 3, None)  # all are over
        if not self._claimed_by(seat, None):
            leases = [study.leased_until or 0.0 for study in self.model.studies.values()]
            self.clock[0] = max(leases) + 1.0  # whoever had them has crashed
            assert self._claimed_by(seat, None)
        return seat

    def _study(self, which: int) -> StudyModel:
        studies = list(self.model.studies.values())
        return studies[which % len(studies)]

    def _claimed(self, seat: Seat) -> StudyModel:
        assert seat.claim is not None
        return self.model.studies[seat.claim.study.id]

    def _record(self, seat: Seat, batch: Batch, trouble: str | None) -> bool:
        """Writes a batch; where that goes through, the model takes the same over, and the same rung decisions follow
        from all that was ever recorded."""
        assert seat.claim is not None
        held, study = seat.claim, self._claimed(seat)
        if not self._write(seat, lambda: self.store.record(held, batch), trouble):
            return False
        seat.last = batch
        for proposed in batch.proposed:
            assert proposed.number not in study.trials
            study.trials[proposed.number] = TrialModel()
        for row in batch.epochs:
            study.trials[row.trial].curve[row.epoch] = row.validation_metric
        for ended in batch.ended:
            trial = study.trials[ended.number]
            assert trial.state is TrialState.RUNNING
            trial.state, trial.value = ended.state, ended.value
            fact = facts.trial_ended(study.record, ended.number)
            self.model.add_fact(study.record.id, fact.key, fact.kind, ended.number)
        judged = {row.trial for row in batch.epochs} - {n.number for n in batch.ended if n.state is TrialState.FAILED}
        paused = {n: study.trials[n].curve for n in judged if len(study.trials[n].curve) < EPOCHS}
        assert study.pruner.judge(paused) == {n.number for n in batch.ended if n.state is TrialState.PRUNED}
        return True

    def _write(self, seat: Seat, write: Callable[[], None], trouble: str | None) -> bool:
        """A dispatcher's write: with the newest token it goes through, with an older one it raises and changes
        nothing, as the next look at the tables shows. Returns whether it went through."""
        assert seat.claim is not None
        study = self._claimed(seat)
        if seat.claim.token == study.token and study.state is StudyState.RUNNING:
            with self._troubled(trouble):
                write()
            return True
        with pytest.raises(LeaseLostError):
            write()
        if trouble is None:
            seat.claim = None  # else it is stubborn, and tries again
        return False

    @contextlib.contextmanager
    def _troubled(self, trouble: str | None) -> Iterator[None]:
        """The first commit's answer is lost, or the database is locked once."""
        database = self.database

        def lose(commit: Callable[[], None]) -> None:
            database.on_commit = lambda commit: commit()
            commit()
            raise sqlite3.OperationalError("the answer was lost")

        def lock(statement: str) -> None:
            database.on_statement = lambda statement: None
            raise sqlite3.OperationalError("database is locked")

        if trouble == "reply lost":
            database.on_commit = lose
        elif trouble == "locked":
            database.on_statement = lock
        try:
            yield
        finally:
            database.on_commit, database.on_statement = lambda commit: commit(), lambda statement: None

    def _check_optunas_own_reader(self) -> None:
        for id, study in self.model.studies.items():
            read = [(t.number, t.state.name, t.intermediate_values) for t in self.store.optuna_trials(id)]
            assert read == [
                (number, {"failed": "FAIL"}.get(trial.state, trial.state.name), trial.curve)
                for number, trial in sorted(study.trials.items())
            ]


def run(folder: Path, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> int:
    """Goes through the examples; returns how many steps they had."""
    clock = [START]
    patch_time(monkeypatch, lambda: clock[0])
    monkeypatch.setattr(mlflow_door, "connect", mlflow_door.connect)  # the seats replace both; this puts them back
    monkeypatch.setattr(telling, "_Held", telling._Held)
    database = FakeDatabase(folder, monkeypatch)
    database.seconds = lambda: clock[0]
    machine: Any = type("Actions", (Actions,), {"database": database, "clock": clock, "steps": 0})
    chosen = {"max_examples": EXAMPLES, "stateful_step_count": STEPS, "deadline": None, "print_blob": True}
    try:
        run_state_machine_as_test(
            machine, settings=settings(**{**chosen, **changes}, suppress_health_check=list(HealthCheck), database=None)
        )
    finally:
        database.close()
    return int(machine.steps)


@pytest.mark.timeout(1800)  # a failure takes minutes to become short
def test_in_whatever_order_things_happen_nothing_is_lost_doubled_or_written_with_an_old_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(tmp_path, monkeypatch) >= 10_000
