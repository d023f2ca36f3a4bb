"""A finished study's winner, loaded and run in this process: its data, its weights, its outputs on a split.

The checkpoints keep the best network after a study has ended. Of any other trial, and where the kept one is gone, the
weights come from training it again, from its seed: on the same kind of device these are the same numbers.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from neurosweep.errors import BadInputError, NeurosweepError, StudyFailedError
from search.checkpoint_store import Arrays, CheckpointStore
from search.leaders import leaders
from search.places import Places
from search.spec import StudySpec
from search.validation import read_data
from storage.records import StudyRecord, StudyState, TrialRecord
from trainer.data.dataset import Array, Dataset, Split, Task
from trainer.settings import Settings
from trainer.work import Metric, Outcome, TestResult, TrialWork

if TYPE_CHECKING:
    from trainer.worker import Trainer

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Winner:
    """A trial with its network.

    Attributes:
        weights: Arrays by name, as `trainer.networks.load_arrays` takes them: those of the trial's best epoch.
    """

    trial: TrialRecord
    settings: Settings
    weights: Arrays


def winning_trial(study: StudyRecord, trials: Iterable[TrialRecord]) -> TrialRecord:
    """The trial that the study has chosen; before its end, the best one so far.

    Raises:
        BadInputError: No trial is complete yet.
        StudyFailedError: The study ended without one.
    """
    ranked = leaders(trials)
    chosen = ((study.result or {}).get("best") or {}).get("trial")
    for trial in ranked:
        if chosen in (None, trial.number):
            return trial
    if study.state is StudyState.FAILED:
        raise StudyFailedError(study.error or "The study ended without one good trial.", study.label)
    raise BadInputError(
        f"No trial is complete yet; the study is {study.state}. See: neurosweep status {study.label}", study.label
    )


def studied_data(study: StudyRecord) -> tuple[StudySpec, Dataset]:
    """The study file, its task and metric filled in, and the very splits that the study has used.

    Raises:
        BadInputError: The data can't be read any more, or are others than those of the study.
    """
    spec, dataset = read_data(StudySpec.from_mapping(study.spec))
    if study.split_hash not in (None, dataset.split_hash):
        raise BadInputError(
            "The data are not those that this study has learnt from: its splits would mix. Put the old file back, or "
            "run a new study.",
            spec.data.source,
        )
    return spec, dataset


def make_trainer(dataset: Dataset, *, threads: int = 1) -> Trainer:
    """A trainer in this process, on a GPU where there is one.

    Args:
        threads: CPU threads that torch may use.
    """
    from trainer.worker import Trainer

    return Trainer(
        dataset.train,
        dataset.validation,
        dataset.preprocessing,
        dataset.task,
        dataset.input_shape,
        dataset.outputs,
        threads=threads,
    )


def load_winner(
    places: Places,
    study: StudyRecord,
    trial: TrialRecord,
    spec: StudySpec,
    dataset: Dataset,
    *,
    trainer: Trainer | None = None,
) -> Winner:
    """The network of a complete trial: the kept one, or else trained again.

    Args:
        spec: With its task and metric filled in, as `studied_data` gives it.
        trainer: One of `make_trainer` for these data; None: one is made where it is needed.

    Raises:
        NeurosweepError: It had to be trained again, and that failed.
    """
    weights = _kept_weights(places, study, trial)
    if weights is None:
        weights = _trained_again(trial, spec, trainer or make_trainer(dataset))
    return Winner(trial=trial, settings=Settings.from_json(trial.settings), weights=weights)


def whole_run(trial: TrialRecord, spec: StudySpec) -> TrialWork:
    """A trial once more, from its seed to its end, with the weights of its best epoch.

    Args:
        spec: With its metric filled in.
    """
    return TrialWork(
        trial=trial.number,
        settings=Settings.from_json(trial.settings),
        seed=trial.seed,
        metric=Metric(spec.metric or Metric.ERROR),
        epochs=spec.budget.epochs,
        until=spec.budget.epochs,
    )


def outputs_of(
    winner: Winner, dataset: Dataset, split: Split, metric: Metric, *, trainer: Trainer | None = None
) -> TestResult:
    """What the winner's network says to each row of a split, and the split's metric, dropout off.

    The test split is looked at with this as well: whoever does so records the opening.

    Args:
        trainer: One of `make_trainer` for these data; None: one is made.
    """
    return (trainer or make_trainer(dataset)).test(winner.settings, winner.weights, metric, split)


def answers_to(winner: Winner, dataset: Dataset, inputs: Array, *, trainer: Trainer | None = None) -> Array:
    """What the winner's network says to any rows: `TestResult.outputs` without a truth.

    Args:
        inputs: As `Split.inputs` has them.
    """
    split = Split(
        inputs=inputs, targets=np.zeros(len(inputs), dataset.train.targets.dtype), rows=np.arange(len(inputs))
    )
    metric = Metric.ERROR if dataset.task is Task.CLASSIFICATION else Metric.MSE
    return outputs_of(winner, dataset, split, metric, trainer=trainer).outputs


def _kept_weights(places: Places, study: StudyRecord, trial: TrialRecord) -> Arrays | None:
    try:
        best = CheckpointStore(places.checkpoints_of(study.uid)).best()
    except (OSError, BadInputError) as error:  # moved away, or at an address that this machine can't reach
        logger.info("the best network's checkpoint can't be read: %s", error)
        return None
    return best.weights if best is not None and best.trial == trial.number else None


def _trained_again(trial: TrialRecord, spec: StudySpec, trainer: Trainer) -> Arrays:
    (result,) = trainer.train([whole_run(trial, spec)], lambda: False, lambda _trial, _epoch: None)
    if result.outcome is not Outcome.FINISHED or result.weights is None:
        reason = result.reason or "it gave no weights"
        raise NeurosweepError(f"Trial {trial.number} could not be trained again: {reason}")
    return result.weights
