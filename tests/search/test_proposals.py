"""The study in memory: told values, the best trial, and going on after a stop."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import json_to_distribution
from optuna.storages import InMemoryStorage
from optuna.trial import FrozenTrial
from optuna.trial import TrialState as OptunaState

from search.spec import StudySpec
from search.study import Proposals
from storage.records import (
    Batch,
    EndedTrial,
    EpochRow,
    NewStudy,
    ProposedTrial,
    TrialState,
)
from storage.store import Store
from trainer.memory import training_memory
from trainer.settings import Settings

INPUT = (1, 8, 8)
EPOCHS = 5
OPTUNA_STATES = {
    TrialState.RUNNING: OptunaState.RUNNING,
    TrialState.COMPLETE: OptunaState.COMPLETE,
    TrialState.PRUNED: OptunaState.PRUNED,
    TrialState.FAILED: OptunaState.FAIL,
}


def study(sampler: str = "random", pruner: str = "asha", **keys: Any) -> StudySpec:
    search = {"sampler": sampler, "pruner": pruner}
    mapping = {"name": "s", "data": {"source": "digits"}, "model": ["mlp", "cnn"], "search": search}
    return StudySpec.from_mapping({**mapping, "budget": {"epochs": EPOCHS}, **keys})


def ask(proposals: Proposals) -> ProposedTrial:
    proposed = proposals.ask()
    assert proposed is not None
    return proposed


def metric(proposed: ProposedTrial, epoch: int) -> float:
    return abs(math.log10(proposed.settings["learning_rate"]) + 2) + 1 / epoch


class Recorded:
    """A database in short: what the dispatcher writes of a study, and the trials that are read back from it.

    Args:
        out_of_memory: Whether the trials that fail do so for that.
    """

    def __init__(self, *, out_of_memory: bool = False) -> None:
        self.out_of_memory = out_of_memory
        self.proposed: list[ProposedTrial] = []
        self.states: dict[int, TrialState] = {}
        self.reported: dict[int, dict[int, float]] = {}
        self.attrs: dict[int, dict[str, Any]] = {}
        self.would_stop: dict[int, int] = {}

    def work(self, proposals: Proposals, spec: StudySpec, count: int, leave: int = 0) -> None:
        """Trains so many trials one after the other; the last `leave` are left running after their first epoch."""
        for index in range(count):
            proposed = ask(proposals)
            self.proposed.append(proposed)
            self.attrs[proposed.number] = dict(proposed.attrs)
            self.finish(proposals, spec, proposed, leave=index >= count - leave)

    def finish(self, proposals: Proposals, spec: StudySpec, proposed: ProposedTrial, leave: bool = False) -> None:
        """Goes on behind what the trial has reported."""
        number = proposed.number
        reported = self.reported.setdefault(number, {})
        self.states[number] = TrialState.RUNNING
        state = TrialState.COMPLETE
        for epoch in range(len(reported) + 1, EPOCHS + 1):
            value = metric(proposed, epoch)
            proposals.report(number, epoch, value)
            reported[epoch] = value
            if epoch in proposals.looks[:-1] and proposals.judge([number]):
                state = TrialState.PRUNED
                break
            if (stop := proposals.would_stop(number)) is not None:
                self.would_stop[number] = stop
            if leave:
                return
        if number % 7 == 5:
            state = TrialState.FAILED
            if self.out_of_memory:
                proposals.too_large(number)
        self.states[number] = state
        self.attrs[number] |= proposals.tell(number, state, self.value(number))

    def value(self, number: int) -> float | None:
        return min(self.reported[number].values()) if self.states[number] is TrialState.COMPLETE else None

    def trials(self) -> list[FrozenTrial]:
        now = datetime(2026, 1, 1)
        frozen = []
        for proposed in self.proposed:
            number = proposed.number
            state = OPTUNA_STATES[self.states[number]]
            steps = self.reported[number]
            value = self.value(number) if state is OptunaState.COMPLETE else None
            if state is OptunaState.PRUNED:
                value = steps[max(steps)]
            distributions = {param.name: json_to_distribution(param.distribution) for param in proposed.optuna}
            frozen.append(
                FrozenTrial(
                    number=number,
                    trial_id=1000 + number,
                    state=state,
                    value=value,
                    datetime_start=now,
                    datetime_complete=now if state.is_finished() else None,
                    params={
                        param.name: distributions[param.name].to_external_repr(param.internal)
                        for param in proposed.optuna
                    },
                    distributions=distributions,
                    user_attrs={},
                    system_attrs=dict(self.attrs[number]),
                    intermediate_values=dict(steps),
                )
            )
        return frozen


@pytest.mark.parametrize("pruner", ["asha", "hyperband", "median"])
@pytest.mark.parametrize("sampler", ["tpe", "random", "qmc", "grid"])
def test_a_restored_study_goes_on_as_if_it_had_not_stopped(sampler: str, pruner: str) -> None:
    spec = study(sampler, pruner)
    straight, first, second = Recorded(), Recorded(), Recorded()
    straight.work(Proposals(spec, INPUT, "s"), spec, 30)
    first.work(Proposals(spec, INPUT, "s"), spec, 14)
    second.work(Proposals(spec, INPUT, "s", first.trials(), would_stop=first.would_stop), spec, 16)

    both = first.proposed + second.proposed
    assert [trial.params for trial in both] == [trial.params for trial in straight.proposed]
    assert [trial.number for trial in both] == list(range(30))
    assert [trial.seed for trial in both] == [trial.seed for trial in straight.proposed]
    assert {**first.states, **second.states} == straight.states
    assert len(set(straight.states.values())) == 3


@pytest.mark.parametrize("sampler", ["gp", "cmaes"])
def test_two_restored_studies_go_on_alike(sampler: str) -> None:
    spec = study(sampler, "none")
    recorded = Recorded()
    recorded.work(Proposals(spec, INPUT, "s"), spec, 14)

    one, other = (Proposals(spec, INPUT, "s", recorded.trials()) for _ in range(2))

    assert [ask(one).params for _ in range(2)] == [ask(other).params for _ in range(2)]
    assert one.best() == other.best()


@pytest.mark.parametrize("pruner", ["asha", "hyperband", "median"])
def test_a_trial_left_running_ends_as_if_it_had_not_been_left(pruner: str) -> None:
    spec = study(pruner=pruner)
    for count in (12, 13, 14, 15):
        straight, recorded = Recorded(), Recorded()
        straight.work(Proposals(spec, INPUT, "s"), spec, count)
        recorded.work(Proposals(spec, INPUT, "s"), spec, count, leave=1)
        last = recorded.proposed[-1]
        if recorded.states[last.number] is TrialState.RUNNING:
            break
    frozen = recorded.trials()

    restored = Proposals(spec, INPUT, "s", frozen, would_stop=recorded.would_stop)

    left = restored.optuna_study.trials[-1]
    assert (left.state, left.intermediate_values) == (OptunaState.RUNNING, recorded.reported[last.number])
    assert left.params == {param.name: frozen[-1].params[param.name] for param in last.optuna}
    recorded.finish(restored, spec, last)
    assert recorded.states == straight.states
    assert recorded.reported == straight.reported
    assert recorded.attrs == straight.attrs
    assert ask(restored).number == count


def test_a_trial_left_running_goes_on_behind_what_it_reported_and_has_passed_its_looks() -> None:
    spec = study(pruner="asha")
    recorded = Recorded()
    recorded.work(Proposals(spec, INPUT, "s"), spec, 1, leave=1)
    last = recorded.proposed[-1]
    frozen = recorded.trials()
    first_look = Proposals(spec, INPUT, "s").looks[0]
    frozen[-1].intermediate_values = reported = dict.fromkeys(range(1, first_look + 1), 0.25)

    restored = Proposals(spec, INPUT, "s", frozen, would_stop=recorded.would_stop)

    left = restored.optuna_study.trials[-1]
    assert (left.state, left.intermediate_values) == (OptunaState.RUNNING, reported)
    assert left.params == {param.name: frozen[-1].params[param.name] for param in last.optuna}
    for value, ends in ((0.5, True), (0.125, False)):
        other = ask(restored)
        for epoch in range(1, first_look + 1):
            restored.report(other.number, epoch, value)
        assert restored.judge([other.number]) == ({other.number} if ends else set())


def test_a_complete_trial_without_a_finite_value_is_restored_as_a_failure() -> None:
    spec = study(pruner="none")
    recorded = Recorded()
    recorded.work(Proposals(spec, INPUT, "s"), spec, 3)
    frozen = recorded.trials()
    frozen[1].value, frozen[2].value = None, math.inf

    restored = Proposals(spec, INPUT, "s", frozen)

    states = [trial.state for trial in restored.optuna_study.trials]
    assert states == [OptunaState.COMPLETE, OptunaState.FAIL, OptunaState.FAIL]
    assert restored.best() == (0, recorded.value(0))


def test_trials_with_a_gap_are_refused() -> None:
    spec = study()
    recorded = Recorded()
    recorded.work(Proposals(spec, INPUT, "s"), spec, 3)
    frozen = recorded.trials()

    with pytest.raises(ValueError, match="number 2 stands where 1 should"):
        Proposals(spec, INPUT, "s", [frozen[0], frozen[2]])


def test_a_study_goes_on_from_the_database(tmp_path: Path) -> None:
    """Through the real tables, with Optuna's own reader in between."""
    spec = study("tpe", "asha")
    store = Store.open(f"sqlite:///{tmp_path / 'n.db'}")
    record = store.submit(NewStudy(name="s", spec=spec.to_mapping(), text="", trials=30))
    claim = store.claim("d", study_id=record.id)
    assert claim is not None
    assert store.optuna_trials(record.id) == []
    recorded, straight = Recorded(), Recorded()
    recorded.work(Proposals(spec, INPUT, "s"), spec, 15)
    now = datetime.now(UTC)
    rows, ended = [], []
    for proposed in recorded.proposed:
        number, steps = proposed.number, recorded.reported[proposed.number]
        figures: dict[str, Any] = {"train_loss": 0.0, "train_metric": 0.0, "validation_loss": 0.0, "seconds": 0.0}
        rows += [EpochRow(trial=number, epoch=e, validation_metric=v, at=now, **figures) for e, v in steps.items()]
        ended.append(
            EndedTrial(
                number=number,
                state=recorded.states[number],
                train=None,
                validation=min(steps.values()),
                value=steps[max(steps)] if recorded.states[number] is TrialState.PRUNED else recorded.value(number),
                epochs=len(steps),
                best_epoch=1,
                seconds=0.0,
                weights=1,
                worker="w",
                attrs={k: v for k, v in recorded.attrs[number].items() if k not in proposed.attrs},
                ended_at=now,
            )
        )
    store.record(claim, Batch(proposed=tuple(recorded.proposed), epochs=tuple(rows), ended=tuple(ended)))

    resumed = Proposals(spec, INPUT, "s", store.optuna_trials(record.id))
    straight.work(Proposals(spec, INPUT, "s"), spec, 16)

    assert ask(resumed).params == straight.proposed[15].params
    assert [t.params for t in resumed.optuna_study.trials[:15]] == [t.params for t in recorded.trials()]


def test_what_is_stored_of_a_parameter_gives_it_back() -> None:
    proposals = Proposals(study("tpe"), INPUT, "s")
    for _ in range(12):
        proposed = ask(proposals)
        values = {
            param.name: json_to_distribution(param.distribution).to_external_repr(param.internal)
            for param in proposed.optuna
        }
        assert values == proposals.optuna_study.trials[proposed.number].params
        repaired = {name for name, value in values.items() if proposed.params[name] != value}
        assert all(name.startswith(("filter_size_", "pool_")) for name in repaired)
        assert Settings.from_json(proposed.settings).neurons == tuple(
            proposed.params[f"neurons_{k}"] for k in range(1, int(proposed.params["layers"]) + 1)
        )
        assert proposed.started_at.tzinfo is UTC
        proposals.tell(proposed.number, TrialState.COMPLETE, metric(proposed, 1))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, None])
def test_a_value_that_is_not_finite_is_a_failure(value: float | None) -> None:
    proposals = Proposals(study(), INPUT, "s")
    proposed = ask(proposals)

    proposals.tell(proposed.number, TrialState.COMPLETE, value)

    assert proposals.optuna_study.trials[0].state is OptunaState.FAIL
    assert proposals.best() is None


@pytest.mark.parametrize(
    ("state", "known"),
    [
        (TrialState.FAILED, OptunaState.FAIL),
        (TrialState.PRUNED, OptunaState.PRUNED),
        (TrialState.COMPLETE, OptunaState.COMPLETE),
    ],
)
def test_optuna_knows_how_a_trial_ended(state: TrialState, known: OptunaState) -> None:
    proposals = Proposals(study(), INPUT, "s")
    proposed = ask(proposals)
    proposals.report(proposed.number, 1, 0.7)

    proposals.tell(proposed.number, state, 0.6 if state is TrialState.COMPLETE else None)

    trial = proposals.optuna_study.trials[0]
    assert (trial.state, trial.intermediate_values) == (known, {1: 0.7})
    assert trial.value == {OptunaState.FAIL: None, OptunaState.PRUNED: 0.7, OptunaState.COMPLETE: 0.6}[known]


def test_the_best_is_the_smallest_complete_value_and_of_equal_ones_the_earliest_trial() -> None:
    proposals = Proposals(study(), INPUT, "s")
    for _ in range(4):
        ask(proposals)
    proposals.report(0, 1, 0.1)
    proposals.tell(0, TrialState.PRUNED)
    assert proposals.best() is None
    for number, value in ((3, 0.5), (2, 0.4), (1, 0.4)):
        proposals.tell(number, TrialState.COMPLETE, value)
    assert proposals.best() == (1, 0.4)


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_a_batch_is_what_asking_one_by_one_gives(sampler: str) -> None:
    spec = study(sampler)
    batches, singly = Proposals(spec, INPUT, "s"), Proposals(spec, INPUT, "s")
    for size in (12, 1, 8, 5):
        batch = batches.ask_batch(size)
        assert [trial.params for trial in batch] == [ask(singly).params for _ in range(size)]
        for trial in batch:
            for proposals in (batches, singly):
                proposals.tell(trial.number, TrialState.COMPLETE, metric(trial, 1))
    assert len({json.dumps(trial.params) for trial in batches.optuna_study.trials}) == 26


def test_a_batch_of_a_grid_ends_with_the_grid() -> None:
    proposals = Proposals(study("grid", model="mlp", space=SMALL), INPUT, "s")

    assert [len(proposals.ask_batch(8)) for _ in range(3)] == [8, 4, 0]


def test_a_study_stopped_amid_a_batch_goes_on_as_if_it_had_not() -> None:
    spec = study("tpe", "none")
    straight, recorded = Proposals(spec, INPUT, "s"), Recorded()
    recorded.work(straight, spec, 16)
    batch = straight.ask_batch(8)
    for trial in batch:
        recorded.proposed.append(trial)
        recorded.attrs[trial.number] = {}
        recorded.finish(straight, spec, trial, leave=trial.number % 3 != 0)
    restored = Proposals(spec, INPUT, "s", recorded.trials(), would_stop=recorded.would_stop)

    assert sum(state is TrialState.RUNNING for state in recorded.states.values()) == 6
    for size in (3, 1, 6):
        assert [trial.params for trial in straight.ask_batch(size)] == [
            trial.params for trial in restored.ask_batch(size)
        ]


SMALL = {
    "layers": 1,
    "neurons": [8, 16, 32],
    "activation": ["relu", "tanh"],
    "learning_rate": [0.01, 0.1],
    "optimizer": "adam",
    "weight_decay": 0.0,
    "dropout": 0.0,
    "batch_norm": False,
    "batch_size": 32,
    "schedule": "constant",
}
"""Twelve networks."""


@pytest.mark.parametrize("sampler", ["tpe", "random", "qmc", "cmaes"])
def test_every_network_is_proposed_before_one_is_proposed_again(sampler: str) -> None:
    spec = study(sampler, "none", model="mlp", space=SMALL)
    proposals = Proposals(spec, INPUT, "s")
    trials = []
    for _ in range(20):
        trials.append(ask(proposals))
        proposals.tell(trials[-1].number, TrialState.COMPLETE, metric(trials[-1], 1) + trials[-1].params["neurons_1"])

    settings = [json.dumps(trial.settings) for trial in trials]
    assert len(set(settings[:12])) >= 11  # the last of them may be missed
    for trial, mine in zip(trials, settings, strict=True):
        first = settings.index(mine)
        assert trial.twin == proposals.twin(trial.number) == (None if first == trial.number else first)
        known = proposals.optuna_study.trials[trial.number]
        assert known.params == {name: trial.params[name] for name in ("neurons_1", "activation", "learning_rate")}
        assert {param.name for param in trial.optuna} == set(known.params)


def test_a_redrawn_trial_is_the_same_after_a_stop() -> None:
    spec = study("tpe", "none", model="mlp", space=SMALL)
    straight, first, second = Recorded(), Recorded(), Recorded()
    straight.work(Proposals(spec, INPUT, "s"), spec, 24)
    first.work(Proposals(spec, INPUT, "s"), spec, 7)
    restored = Proposals(spec, INPUT, "s", first.trials(), would_stop=first.would_stop)
    second.work(restored, spec, 17)

    both = first.proposed + second.proposed
    assert [(trial.params, trial.twin) for trial in both] == [(trial.params, trial.twin) for trial in straight.proposed]
    again = Proposals(spec, INPUT, "s", straight.trials(), would_stop=straight.would_stop)
    assert [again.twin(number) for number in range(24)] == [trial.twin for trial in straight.proposed]
    assert sum(trial.twin is not None for trial in straight.proposed) >= 12


WIDE = {
    **SMALL,
    "layers": {"low": 1, "high": 3},
    "neurons": {"low": 16, "high": 2048, "log": True},
    "dropout": [0, 0.5],
}
"""Networks that take from 10 kB to 300 MB."""


def memory(trial: ProposedTrial) -> int:
    return training_memory(Settings.from_json(trial.settings), INPUT, 10, 1000)


@pytest.mark.parametrize("sampler", ["tpe", "random", "qmc", "gp", "cmaes"])
def test_nothing_is_proposed_that_takes_as_much_as_what_ran_out_of_memory(sampler: str) -> None:
    spec = study(sampler, "none", model="mlp", space=WIDE)
    taught, untaught = (Proposals(spec, INPUT, "s", outputs=10, rows=1000) for _ in range(2))
    first = taught.ask_batch(12)
    untaught.ask_batch(12)
    bound = sorted(map(memory, first))[4]
    for trial in first:
        fails = memory(trial) >= bound
        if fails:
            taught.too_large(trial.number)
        for proposals in (taught, untaught):
            state = TrialState.FAILED if fails else TrialState.COMPLETE
            proposals.tell(trial.number, state, None if fails else metric(trial, 1))

    later, without = ([ask(proposals) for _ in range(12)] for proposals in (taught, untaught))

    assert max(map(memory, later)) < bound <= max(map(memory, without))
    if sampler == "random":
        kept = [(mine, other) for mine, other in zip(later, without, strict=True) if memory(other) < bound]
        assert kept, "what fits anyway is proposed as ever"
        assert all(mine.params == other.params for mine, other in kept)
    for trial in later:
        assert {param.name for param in trial.optuna} == set(taught.optuna_study.trials[trial.number].params)


@pytest.mark.parametrize("sampler", ["tpe", "random", "qmc"])
def test_what_does_not_fit_is_known_after_a_stop(sampler: str) -> None:
    spec = study(sampler, "asha", model="mlp", space=WIDE)
    straight, first, second, ignorant = (Recorded(out_of_memory=True) for _ in range(4))
    straight.work(Proposals(spec, INPUT, "s", outputs=10, rows=1000), spec, 40)
    first.work(Proposals(spec, INPUT, "s", outputs=10, rows=1000), spec, 22)
    failed = [number for number, state in first.states.items() if state is TrialState.FAILED]
    restored = Proposals(
        spec, INPUT, "s", first.trials(), outputs=10, rows=1000, too_large=failed, would_stop=first.would_stop
    )
    second.work(restored, spec, 18)

    expected = [trial.params for trial in straight.proposed]
    assert [trial.params for trial in first.proposed + second.proposed] == expected
    ignorant.work(Proposals(spec, INPUT, "s", first.trials(), outputs=10, rows=1000), spec, 18)
    assert [trial.params for trial in ignorant.proposed] != expected[22:]


def test_where_nothing_is_smaller_the_first_proposal_stands() -> None:
    spec = study("tpe", "none", model="mlp", space={**SMALL, "neurons": 8, "learning_rate": {"low": 0.01, "high": 0.1}})
    taught, untaught = (Proposals(spec, INPUT, "s") for _ in range(2))
    for proposals in (taught, untaught):
        ask(proposals)
    taught.too_large(0)
    for proposals in (taught, untaught):
        proposals.tell(0, TrialState.FAILED)
    for _ in range(8):  # until the sampler learns of others
        mine, other = ask(taught), ask(untaught)
        assert (mine.params, mine.optuna) == (other.params, other.optuna)


def test_what_was_tried_before_is_better_than_what_does_not_fit() -> None:
    """Its result is known, and costs nothing."""
    space = {**SMALL, "neurons": [8, 512], "activation": "relu", "learning_rate": 0.01}
    for seed in range(6):
        proposals = Proposals(study("random", "none", model="mlp", space=space, seed=seed), INPUT, "s")
        one, other = sorted((ask(proposals) for _ in range(2)), key=memory)
        proposals.too_large(other.number)
        for _ in range(4):
            again = ask(proposals)
            assert again.settings == one.settings
            assert again.twin == one.number


def test_networks_that_repairs_make_equal_are_twins() -> None:
    """On an image of one pixel there is nothing to pool: two choices, one network."""
    layer = {"conv_layers": 1, "filters": 4, "filter_size": 1, "stride": 1, "padding": "same", "pool": ["max", "avg"]}
    space = {**SMALL, "neurons": 8, "activation": "relu", "learning_rate": 0.01, **layer}
    for sampler in ("tpe", "grid"):
        proposals = Proposals(study(sampler, "none", model="cnn", space=space), (1, 1, 1), "s")

        one, other = ask(proposals), ask(proposals)

        assert one.settings == other.settings
        assert (one.twin, other.twin) == (None, 0)


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_no_trial_is_read_again(sampler: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a trial costs does not grow with the study, as nobody goes through the earlier ones."""
    spec = study(sampler, "none")
    proposals, recorded = Proposals(spec, INPUT, "s"), Recorded()
    recorded.work(proposals, spec, 14)
    looked: list[int] = []
    whole = InMemoryStorage.get_all_trials

    def watched(*given: Any, **named: Any) -> list[FrozenTrial]:
        found = whole(*given, **named)
        looked.append(len(found))
        return found

    monkeypatch.setattr(InMemoryStorage, "get_all_trials", watched)
    recorded.work(proposals, spec, 10)
    assert not any(looked)
    assert len(proposals.optuna_study.trials) == looked[-1] == 24


def test_optuna_is_quiet(capfd: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder) -> None:
    optuna.logging.set_verbosity(optuna.logging.INFO)
    for sampler in ("tpe", "qmc", "cmaes", "grid"):
        spec = study(sampler)
        Recorded().work(Proposals(spec, INPUT, "s"), spec, 12)

    assert capfd.readouterr() == ("", "")
    assert list(recwarn) == []
