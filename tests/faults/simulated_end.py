"""What must hold when a simulated history has come to its end."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence

from storage.facts import study_key, trial_key
from storage.projection import KEY, trial_content
from storage.records import EpochRow, StudyRecord, StudyState, TrialRecord, TrialState
from tests.faults.simulated_pool import NOT_FINITE, curve, fate
from tests.faults.simulated_product import Product
from trainer.work import OUT_OF_MEMORY

REASONS = {
    "healthy": (),
    "trial kills workers": ("3 workers died",),
    "trial needs too much memory": (OUT_OF_MEMORY,),
    "trial is not finite": (NOT_FINITE,),
    "trial takes too long": ("it took longer than",),
}
"""How the reason of each kind of trial that failed begins."""
CUT_OFF = ("the study was cancelled", "the study ended, as too many")
ENOUGH = (" trials in a row failed", " trials failed;", "none of ")
"""What a study may fail of."""


def whole(product: Product, problems: list[str]) -> dict[str, int]:
    """Adds what is not as it should be to the problems; returns how many trials there are in each state."""
    store = product.database.store()
    tally: Counter[str] = Counter()
    for summary in store.list_studies():
        study = summary.study
        trials = store.trials(study.id)
        epochs: dict[int, list[EpochRow]] = {trial.number: [] for trial in trials}
        for row in store.epochs(study.id):
            epochs[row.trial].append(row)
        tally.update(trial.state.value for trial in trials)
        tally["audited"] += sum(trial.would_stop is not None for trial in trials)
        tally[f"study {study.state}"] += 1
        found = [*_study(study, trials)]
        for trial in trials:
            found += _trial(product, trial, trials, [row.validation_metric for row in epochs[trial.number]])
        found += _optuna(product, study, trials, epochs)
        found += _mlflow(product, study, trials, epochs)
        problems += [f"{study.label}: {word}" for word in found]
    waiting = product.database.rows("SELECT key, reason FROM neurosweep_outbox WHERE NOT published")
    problems += [f"MLflow was not told {key}: {reason}" for key, reason in waiting]
    return dict(tally)


def _study(study: StudyRecord, trials: Sequence[TrialRecord]) -> Iterator[str]:
    if [trial.number for trial in trials] != list(range(len(trials))):
        yield "its trials are not numbered one after the other"
    if study.state is StudyState.FINISHED:
        if len(trials) != study.trials:
            yield f"it has {len(trials)} trials, and {study.trials} were asked for"
        best = min((trial.validation, trial.number) for trial in trials if trial.state is TrialState.COMPLETE)
        if (study.result or {})["best"]["trial"] != best[1]:
            yield f"its best trial is {best[1]}, and its result says {study.result}"
    elif study.state is StudyState.FAILED:
        if not any(word in (study.error or "") for word in ENOUGH):
            yield f"it failed because {study.error}"
    elif study.state is not StudyState.CANCELLED:
        yield f"it is {study.state}"


def _trial(product: Product, trial: TrialRecord, trials: Sequence[TrialRecord], values: list[float]) -> Iterator[str]:
    name = f"trial {trial.number}"
    # One that has another's settings may have been given its result.
    same = [other for other in trials if other.settings == trial.settings and other.number <= trial.number]
    if not any(values == curve(other.seed, len(values)) for other in same):
        yield f"{name} has the figures {values}, and a calm run has {curve(trial.seed, len(values))}"
    if len(values) != trial.epochs:
        yield f"{name} says {trial.epochs} epochs and has {len(values)}"
    fates = {fate(product.world, other.seed) for other in same}
    match trial.state:
        case TrialState.RUNNING:
            yield f"{name} is still running"
        case TrialState.COMPLETE:
            if trial.validation != min(values) or len(values) != 4:
                yield f"{name} is complete with {trial.validation} of {values}"
            if not fates & {"healthy"}:
                yield f"{name} is complete, though {fates}"
        case TrialState.PRUNED:
            if trial.would_stop is not None:
                yield f"{name} is pruned, though it was to train on after epoch {trial.would_stop}"
        case TrialState.FAILED:
            expected = [*CUT_OFF, *(reason for each in fates for reason in REASONS[each])]
            if not (trial.error or "").startswith(tuple(expected)):
                yield f"{name}, {fates}, failed because {trial.error}"


def _optuna(
    product: Product, study: StudyRecord, trials: Sequence[TrialRecord], epochs: dict[int, list[EpochRow]]
) -> Iterator[str]:
    states = {"COMPLETE": TrialState.COMPLETE, "PRUNED": TrialState.PRUNED, "FAIL": TrialState.FAILED}
    theirs = [
        (trial.number, states.get(trial.state.name), trial.intermediate_values)
        for trial in product.database.store().optuna_trials(study.id)
    ]
    ours = [
        (trial.number, trial.state, {row.epoch: row.validation_metric for row in epochs[trial.number]})
        for trial in trials
    ]
    if theirs != ours:
        yield f"Optuna has {theirs}, and we have {ours}"


def _mlflow(
    product: Product, study: StudyRecord, trials: Sequence[TrialRecord], epochs: dict[int, list[EpochRow]]
) -> Iterator[str]:
    runs = [run for run in product.mlflow.active_runs() if run.tags.get("neurosweep.study_id") == study.uid]
    told = product.database.rows(f"SELECT kind, trial FROM neurosweep_outbox WHERE study_id = {study.id}")
    if sorted(number for kind, number in told if number is not None) != [trial.number for trial in trials]:
        yield f"its facts are {told}"
    wanted = [trial_key(study, trial.number) for trial in trials] + ([study_key(study)] if told else [])
    found = Counter(run.tags[KEY] for run in runs)
    if found != Counter(wanted):
        yield f"MLflow has {json.dumps(found)}"
        return
    by_key = {run.tags[KEY]: run for run in runs}
    for trial in trials:
        run = by_key[trial_key(study, trial.number)]
        content = trial_content(study, trial, epochs[trial.number], by_key[study_key(study)].run_id)
        if run.points != {(point.name, point.value, point.at, point.step) for point in content.points}:
            yield f"MLflow has {run.points} of trial {trial.number}"
        if (run.status, run.params, run.end_time) != (content.status, content.params, content.ended):
            yield f"MLflow has trial {trial.number} as {run.status} with {run.params}"
    if told and by_key[study_key(study)].status == "RUNNING":
        yield "MLflow shows it as running"
