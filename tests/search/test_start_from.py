"""A study that starts from another one: what its sampler knows, and what stays out of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import FrozenTrial, create_trial
from optuna.trial import TrialState as OptunaState

from neurosweep.errors import NoSuchStudyError, StudyFileError
from search.commands.files import pinned
from search.draft import Parameters
from search.knowledge import EarlierTrial, earlier_trials, in_space
from search.space import Space
from search.spec import StudySpec
from search.study import Proposals
from search.tpe import TreeParzen
from storage.records import NewStudy, StudyRecord, StudyState, TrialState
from tests.search.dispatched import told
from tests.search.workshop import IRIS, Workshop

INPUT = (4,)


@pytest.fixture
def workshop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workshop]:
    made = Workshop(tmp_path, monkeypatch)
    yield made
    made.store.close()


def spec_of(study: StudyRecord, **changes: Any) -> StudySpec:
    return StudySpec.from_mapping({**study.spec, "start_from": study.label, **changes})


def earlier(workshop: Workshop, study: StudyRecord, **changes: Any) -> list[EarlierTrial]:
    last = workshop.store.study(study.id).ended_at
    assert last is not None
    return earlier_trials(workshop.store, spec_of(study, **changes), str(study.split_hash), last)


def known(spec: StudySpec, trials: list[EarlierTrial]) -> list[FrozenTrial]:
    return in_space(trials, Space(spec, INPUT), Parameters())


def test_the_trials_that_lie_in_the_new_space_are_known_and_no_others(workshop: Workshop) -> None:
    study = workshop.run(budget={"trials": 40})
    trials = earlier(workshop, study)
    assert len(trials) == 40

    space = {
        **IRIS["space"],
        "neurons": {"low": 3, "high": 12},
        "learning_rate": {"low": 0.001, "high": 1.0, "log": True},
        "optimizer": ["sgd", "adam"],
        "activation": ["relu", "tanh", "elu", "silu", "sigmoid"],
    }
    found = known(spec_of(study, space=space), trials)

    def inside(params: dict[str, Any]) -> bool:
        widths = [params[f"neurons_{layer}"] for layer in range(1, params["layers"] + 1)]
        return (
            all(3 <= width <= 12 for width in widths)
            and 0.001 <= params["learning_rate"] <= 1
            and params["optimizer"] in space["optimizer"]
            and params["activation"] in space["activation"]
        )

    expected = [trial for trial in workshop.trials(study) if inside(trial.params)]
    assert 3 < len(expected) < 37
    assert [trial.value for trial in found] == [trial.validation for trial in expected]
    rates = [trial.params["learning_rate"] for trial in expected]
    assert [trial.params["learning_rate"] for trial in found] == rates
    assert {trial.distributions["learning_rate"] for trial in found} == {FloatDistribution(0.001, 1.0, log=True)}


def test_where_a_value_is_fixed_now_only_trials_with_that_value_are_known(workshop: Workshop) -> None:
    study = workshop.run(space={"layers": 1, "neurons": [4, 8], "optimizer": ["adam", "sgd"]})
    space = {**IRIS["space"], "layers": 1, "neurons": {"low": 2, "high": 9}, "optimizer": "adam"}
    found = known(spec_of(study, space=space), earlier(workshop, study))
    assert len(found) == sum(trial.params["optimizer"] == "adam" for trial in workshop.trials(study)) > 0
    assert all("optimizer" not in trial.params for trial in found)


def test_with_other_epochs_a_trial_counts_as_one_that_was_stopped_where_both_studies_were(workshop: Workshop) -> None:
    study = workshop.run(budget={"trials": 3})
    longer, shorter = ({**study.spec["budget"], "epochs": epochs} for epochs in (5, 1))
    epochs = {(row.trial, row.epoch): row.validation_metric for row in workshop.store.epochs(study.id)}
    for budget, last in ((longer, 2), (shorter, 1)):
        found = known(spec_of(study, budget=budget), earlier(workshop, study, budget=budget))
        assert [trial.state for trial in found] == [OptunaState.PRUNED] * 3
        curves = [{epoch: epochs[number, epoch] for epoch in range(1, last + 1)} for number in range(3)]
        assert [trial.intermediate_values for trial in found] == curves


def test_failed_trials_and_those_that_ended_later_are_not_known(workshop: Workshop) -> None:
    study = workshop.run(budget={"trials": 4})
    moment = workshop.store.study(study.id).ended_at
    assert moment is not None
    workshop.store.requeue(study.id, 8)
    workshop.work(study)
    trials = earlier_trials(workshop.store, spec_of(study), str(study.split_hash), moment)
    assert [trial.value for trial in trials] == [trial.validation for trial in workshop.trials(study)[:4]]


def test_what_a_study_has_started_from_itself_is_known_too_the_oldest_first(workshop: Workshop) -> None:
    first = workshop.run(budget={"trials": 3})
    second = workshop.run(budget={"trials": 2}, start_from="iris@1")
    values = [trial.validation for study in (first, second) for trial in workshop.trials(study)]
    assert [trial.value for trial in earlier(workshop, second)] == values


# What the sampler makes of it


def made_trial(rate: float) -> FrozenTrial:
    distribution = FloatDistribution(1e-4, 1.0, log=True)
    return create_trial(value=abs(rate - 0.01), params={"rate": rate}, distributions={"rate": distribution})


def drawn(sampler: TreeParzen, number: int) -> float:
    trial = create_trial(state=OptunaState.RUNNING)
    trial.number = number
    return float(
        sampler.sample_independent(optuna.create_study(), trial, "rate", FloatDistribution(1e-4, 1.0, log=True))
    )


def test_the_sampler_proposes_as_if_the_known_trials_had_been_its_own() -> None:
    rates = [10 ** (-4 + 4 * index / 29) for index in range(30)]
    started = TreeParzen(lambda number: 100 + number)
    started.start_from([made_trial(rate) for rate in rates])
    own = TreeParzen(lambda number: 100 + number - 30)
    for number, rate in enumerate(rates):
        trial = made_trial(rate)
        trial.number = number
        own.learn(trial)
    proposed = [drawn(started, number) for number in range(8)]
    assert proposed == [drawn(own, 30 + number) for number in range(8)]
    assert sum(0.002 < rate < 0.05 for rate in proposed) >= 6, "they lie about the best"


def test_known_trials_are_none_of_the_study(workshop: Workshop) -> None:
    study = workshop.run(budget={"trials": 12})
    trials = earlier(workshop, study)
    proposals = Proposals(spec_of(study), INPUT, "next", earlier=trials)
    assert proposals.best() is None
    assert proposals.optuna_study.get_trials(deepcopy=False) == []
    proposed = proposals.ask()
    assert proposed is not None
    assert (proposed.number, proposed.twin) == (0, None)


def test_a_study_that_goes_on_after_a_stop_proposes_what_it_would_have_proposed(workshop: Workshop) -> None:
    first = workshop.run()
    whole = workshop.run(start_from=f"{first.name}@1", budget={"trials": 8})
    halves = workshop.submit(start_from=f"{first.name}@1", budget={"trials": 8})
    workshop.stop_after(2)
    assert workshop.work(halves).state is StudyState.STOPPED
    workshop.go_on()
    workshop.store.requeue(halves.id)
    workshop.work(halves)
    assert told(workshop.trials(halves)) == told(workshop.trials(whole))
    alone = workshop.run(budget={"trials": 8})
    assert told(workshop.trials(alone)) != told(workshop.trials(whole))
    optuna_trials = workshop.store.optuna_trials(whole.id)
    assert len(optuna_trials) == len(workshop.trials(whole)) == 8
    assert all(trial.state is TrialState.COMPLETE for trial in workshop.trials(whole))


# What can't be


def test_a_study_of_another_metric_or_other_splits_is_refused_with_the_reason(workshop: Workshop) -> None:
    workshop.run(budget={"trials": 2})
    for changes in ({"metric": "error"}, {"seed": 1}):
        study = workshop.submit(start_from="iris@1", **changes)
        with pytest.raises(StudyFileError, match="must be a study of the same splits and metric"):
            workshop.work(study)
        assert workshop.store.study(study.id).state is StudyState.FAILED


def test_a_study_that_is_not_there_is_an_error_when_it_is_submitted_and_when_it_runs(workshop: Workshop) -> None:
    study = workshop.submit(start_from="iriss@1")
    new = NewStudy(name="iris", spec=study.spec, text="", trials=1)
    with pytest.raises(NoSuchStudyError, match="start_from: There is no study 'iriss@1'; did you mean"):
        pinned(workshop.store, new)
    with pytest.raises(StudyFileError, match="a study in this database: There is no study 'iriss@1'"):
        workshop.work(study)


def test_a_name_alone_is_the_newest_study_at_the_time_of_the_submission(workshop: Workshop) -> None:
    study = workshop.submit()
    workshop.submit()
    new = NewStudy(name="iris", spec={**study.spec, "start_from": "iris"}, text="", trials=1)
    assert pinned(workshop.store, new) == replace(new, spec={**study.spec, "start_from": "iris@2"})


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"start_from": "Iris"}, "start_from must be a study's name, or name@N for its N-th study, but is 'Iris'"),
        ({"start_from": "iris@0"}, "start_from must be a study's name"),
        (
            {"start_from": "iris", "search": {"sampler": "gp"}},
            "start_from must go with sampler tpe, the one that can take in what is known: write sampler: tpe",
        ),
    ],
)
def test_the_study_file_says_what_start_from_can_be(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(StudyFileError, match=message):
        StudySpec.from_mapping({"name": "s", "data": {"source": "iris"}, **keys})
