"""What a study knows from another one: `start_from` in the study file.

Trials of the other study that lie in the new space, on the same splits and by the same metric, are shown to the sampler
before its first proposal, and so are those that the other study has started from itself. They are no trials of the new
study: they don't count, and nothing of them is written. Only the default sampler can take them in.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from optuna.trial import FrozenTrial, create_trial
from optuna.trial import TrialState as OptunaState

from neurosweep.errors import NoSuchStudyError, StudyFileError
from search.draft import Draft, Parameters
from search.space import Space
from search.spec import StudySpec
from storage.records import StudyRecord, TrialState
from storage.store import Store
from trainer.settings import Settings

_USEFUL = (TrialState.COMPLETE, TrialState.PRUNED)


@dataclass(frozen=True, kw_only=True)
class EarlierTrial:
    """A trial of another study.

    Attributes:
        params: Its values under the study file's names, as they were proposed.
        value: The metric of a complete trial; None where it does not count as one.
        steps: The validation metric by epoch, as far as the new study trains.
    """

    params: dict[str, Any]
    settings: Settings
    value: float | None
    steps: dict[int, float]


def earlier_trials(store: Store, spec: StudySpec, split_hash: str, until: datetime) -> list[EarlierTrial]:
    """The trials of the study that a study starts from, and of those that this one started from, oldest study first.

    Where the studies train for different numbers of epochs, a trial counts as one that was stopped at the last epoch
    that both have.

    Args:
        spec: The study, with its metric.
        split_hash: Of its data.
        until: Trials that ended later are left out: a study that goes on after a stop knows what it knew before.

    Raises:
        StudyFileError: There is no such study, or it is on other data or by another metric.
    """
    found: list[EarlierTrial] = []
    for place, study in enumerate(_line_of(store, spec)):
        theirs = StudySpec.from_mapping(study.spec)
        if (study.split_hash, theirs.metric) != (split_hash, spec.metric):
            if place > 0:
                break
            raise StudyFileError(
                f"start_from must be a study of the same splits and metric, but {study.label} is not: keep its data, "
                "seed and metric, or take start_from out",
                spec.where("start_from"),
            )
        found = [*_trials_of(store, study, theirs, spec, until), *found]
    return found


def in_space(trials: Sequence[EarlierTrial], space: Space, parameters: Parameters) -> list[FrozenTrial]:
    """Those of the trials that the space could propose as they are, as its sampler is shown them."""
    return [placed for trial in trials if (placed := _placed(trial, space, parameters)) is not None]


def _line_of(store: Store, spec: StudySpec) -> Iterator[StudyRecord]:
    """The study that a study starts from, the one that this started from, and so on."""
    label, seen = spec.start_from, set[int]()
    while label is not None:
        try:
            study = store.find(label)
        except NoSuchStudyError as error:
            if seen:
                return  # the study itself has come from another database
            raise StudyFileError(
                f"start_from must be a study in this database: {error}", spec.where("start_from")
            ) from None
        if study.id in seen:
            return
        seen.add(study.id)
        yield study
        label = study.spec.get("start_from")


def _trials_of(
    store: Store, study: StudyRecord, theirs: StudySpec, spec: StudySpec, until: datetime
) -> Iterator[EarlierTrial]:
    epochs = min(theirs.budget.epochs, spec.budget.epochs)
    whole = theirs.budget.epochs == spec.budget.epochs
    proposed = {trial.number: trial for trial in store.optuna_trials(study.id)}
    for trial in store.trials(study.id):
        if trial.state not in _USEFUL or trial.ended_at is None or trial.ended_at > until:
            continue
        optuna = proposed[trial.number]
        value = optuna.value if whole and trial.state is TrialState.COMPLETE else None
        yield EarlierTrial(
            params={**trial.params, **optuna.params},
            settings=Settings.from_json(trial.settings),
            value=value if value is not None and math.isfinite(value) else None,
            steps={step: known for step, known in optuna.intermediate_values.items() if step <= epochs},
        )


def _placed(trial: EarlierTrial, space: Space, parameters: Parameters) -> FrozenTrial | None:
    draft = Draft(parameters, lambda parameter: trial.params[parameter.name])
    try:
        proposal = space.suggest(draft)
        if proposal.settings != trial.settings:
            return None
        complete = trial.value is not None
        return create_trial(
            state=OptunaState.COMPLETE if complete else OptunaState.PRUNED,
            value=trial.value,
            params={parameter.name: value for parameter, value in draft.values},
            distributions={parameter.name: parameter.distribution for parameter, _ in draft.values},
            intermediate_values=trial.steps,
        )
    except (KeyError, ValueError):  # it has no such parameter, or a value outside of it
        return None
