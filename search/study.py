"""A study in memory: proposes trials, takes their values in, and says which to end.

Optuna's study and its `InMemoryStorage` are behind it. The dispatcher that owns the study writes what it is handed here
into the database; nothing is read from there until another process goes on with the study.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import optuna
from optuna.distributions import distribution_to_json
from optuna.storages import InMemoryStorage
from optuna.trial import FrozenTrial
from optuna.trial import TrialState as OptunaState

from search.pruner import make_pruner
from search.sampler import Stream, derived_seed, make_sampler, quiet_optuna
from search.space import Space
from search.spec import SamplerKind, StudySpec
from storage.records import OptunaParam, ProposedTrial, TrialState

_STATES = {
    TrialState.COMPLETE: OptunaState.COMPLETE,
    TrialState.PRUNED: OptunaState.PRUNED,
    TrialState.FAILED: OptunaState.FAIL,
}

_PICKLES = "cma:optimizer"
"""CMA-ES keeps its state as a pickle in a trial's attributes. It never reaches the database, nor is one from there
loaded: whoever can write a row could run code here. A resumed study builds the state again from its trials."""

_SEQUENCES = "qmc:"
"""QMC counts the points of its sequences in the study's attributes; each trial carries the count on, for a resume."""


class Proposals:
    """The trials of one study, as its sampler and its pruner see them. Not for more than one thread.

    Args:
        spec: The study, its metric resolved: smaller is better.
        input_shape: (features,) of a table or (channels, height, width) of images.
        label: The study's name in Optuna's tables.
        trials: All of its trials so far, in order. Those still running train again from their seed: what they
            reported is forgotten here, and reported again.

    Raises:
        ValueError: `trials` are not numbered 0, 1, 2 and so on.
    """

    def __init__(
        self, spec: StudySpec, input_shape: tuple[int, ...], label: str, trials: Sequence[FrozenTrial] = ()
    ) -> None:
        quiet_optuna()
        self._spec = spec
        self._space = Space(spec, input_shape)
        self._storage = InMemoryStorage()
        self._study = optuna.create_study(
            study_name=label, storage=self._storage, pruner=optuna.pruners.NopPruner(), direction="minimize"
        )
        self._study_id = self._storage.get_study_id_from_name(label)
        self._pruner = make_pruner(spec)
        self._curves: dict[int, dict[int, float]] = {}
        self._asked = 0
        self._exhausted = False
        self._best: tuple[float, int] | None = None
        self._recorded: dict[int, dict[str, Any]] = {}
        self._tried: set[frozenset[tuple[str, Any]]] = set()
        for trial in trials:
            self._restore(trial)

    @property
    def optuna_study(self) -> optuna.Study:
        """Optuna's own view, to draw from; not to be changed."""
        return self._study

    def ask(self) -> ProposedTrial | None:
        """A new trial, to be told later; None once a grid has no combination left."""
        if self._exhausted:
            return None
        number = self._asked
        self._study.sampler = make_sampler(self._spec, number)
        trial = self._study.ask()
        proposal = self._space.suggest(trial)
        frozen = self._frozen(number)
        if self._spec.search.sampler is SamplerKind.GRID and _point(frozen) in self._tried:
            # Out of combinations, BruteForceSampler repeats one. This trial stays in Optuna's memory, and only there.
            self._study.tell(trial, state=OptunaState.FAIL)
            self._exhausted = True
            return None
        self._asked += 1
        self._tried.add(_point(frozen))
        self._carry_sequences_on(frozen)
        self._recorded[number] = attrs = _safe(self._frozen(number).system_attrs)
        return ProposedTrial(
            number=number,
            params=proposal.params,
            settings=proposal.settings.to_json(),
            seed=derived_seed(self._spec.seed, Stream.TRIAL, number),
            optuna=tuple(
                OptunaParam(
                    name=name,
                    internal=distribution.to_internal_repr(frozen.params[name]),
                    distribution=distribution_to_json(distribution),
                )
                for name, distribution in frozen.distributions.items()
            ),
            attrs=attrs,
            started_at=datetime.now(UTC),
        )

    def report(self, number: int, epoch: int, value: float) -> None:
        """Takes in a trial's validation metric after an epoch, counted from 1."""
        self._storage.set_trial_intermediate_value(self._id(number), epoch, value)
        self._curves.setdefault(number, {})[epoch] = value

    @property
    def looks(self) -> tuple[int, ...]:
        """The epochs after which a trial is shown to the pruner, ascending; the last is its end."""
        return self._pruner.looks

    def judge(self, numbers: Sequence[int]) -> set[int]:
        """Which of these trials end after the epoch that they reported last; to be asked once for each of a trial's
        `looks`, for all of a pack together."""
        return self._pruner.judge({number: self._curves[number] for number in numbers})

    def tell(self, number: int, state: TrialState, value: float | None = None) -> dict[str, Any]:
        """Ends a trial.

        Args:
            value: The metric of a complete trial, None of another; one that is missing or not finite makes the trial
                a failure, as the samplers could not learn from it.

        Returns:
            The system attributes that came since the trial was proposed.
        """
        curve = self._curves.pop(number, {})
        if state is TrialState.COMPLETE and value is not None and math.isfinite(value):
            self._pruner.complete(curve)
            self._study.tell(number, value)
            self._keep_best(value, number)
        else:
            ended = OptunaState.FAIL if state is TrialState.COMPLETE else _STATES[state]
            self._study.tell(number, state=ended)
        recorded = self._recorded.pop(number)
        attrs = _safe(self._frozen(number).system_attrs)
        return {key: value for key, value in attrs.items() if recorded.get(key) != value}

    def best(self) -> tuple[int, float] | None:
        """Number and value of the best complete trial, of equal ones the one with the lowest number."""
        return None if self._best is None else (self._best[1], self._best[0])

    def _restore(self, trial: FrozenTrial) -> None:
        if trial.number != self._asked:
            message = (
                f"trials must be numbered without gaps, but number {trial.number} stands where {self._asked} should"
            )
            raise ValueError(message)
        self._asked += 1
        state, value, attrs = trial.state, trial.value, _safe(trial.system_attrs)
        running = not state.is_finished()
        if running:
            state = OptunaState.RUNNING
            self._recorded[trial.number] = attrs
        else:
            self._pruner.restore(trial.number, trial.intermediate_values, complete=state is OptunaState.COMPLETE)
        if state is OptunaState.COMPLETE and (value is None or not math.isfinite(value)):
            state = OptunaState.FAIL
        self._study.add_trial(
            FrozenTrial(
                number=trial.number,
                trial_id=trial.number,
                state=state,
                value=None if state is OptunaState.FAIL else value,
                datetime_start=trial.datetime_start,
                datetime_complete=trial.datetime_complete,
                params=trial.params,
                distributions=trial.distributions,
                user_attrs=trial.user_attrs,
                system_attrs=attrs,
                intermediate_values={} if running else trial.intermediate_values,
            )
        )
        self._tried.add(_point(trial))
        for key, count in attrs.items():
            if key.startswith(_SEQUENCES):
                self._storage.set_study_system_attr(self._study_id, key, count)
        if state is OptunaState.COMPLETE and value is not None:
            self._keep_best(value, trial.number)

    def _carry_sequences_on(self, trial: FrozenTrial) -> None:
        for key, count in self._storage.get_study_system_attrs(self._study_id).items():
            if key.startswith(_SEQUENCES):
                self._storage.set_trial_system_attr(self._id(trial.number), key, count)

    def _keep_best(self, value: float, number: int) -> None:
        self._best = min(self._best or (value, number), (value, number))

    def _frozen(self, number: int) -> FrozenTrial:
        return self._storage.get_trial(self._id(number))

    def _id(self, number: int) -> int:
        return self._storage.get_trial_id_from_study_id_trial_number(self._study_id, number)


def _safe(attrs: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in attrs.items() if not key.startswith(_PICKLES)}


def _point(trial: FrozenTrial) -> frozenset[tuple[str, Any]]:
    """Where a trial is in the search space."""
    return frozenset(trial.params.items())
