"""A study in memory: proposes trials, takes their values in, and says which to end.

Optuna's study and its `InMemoryStorage` are behind it. The dispatcher that owns the study writes what it is handed here
into the database; nothing is read from there until another process goes on with the study.

The storage is spoken to directly: `Study.tell` and `Trial.suggest_*` copy a trial again and again, which takes longer
than to propose it. `InMemoryStorage.get_trial` hands out the trial itself, and what changes often is changed in it.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import optuna
from optuna.samplers import BaseSampler
from optuna.storages import InMemoryStorage
from optuna.trial import FrozenTrial
from optuna.trial import TrialState as OptunaState

from search.audit import AuditedPruner
from search.draft import Draft, Parameters
from search.knowledge import EarlierTrial, in_space
from search.pruner import make_pruner
from search.sampler import Stream, derived_seed, make_sampler, quiet_optuna, redrawing
from search.space import Proposal, Space
from search.spec import SamplerKind, StudySpec
from search.tpe import TreeParzen
from storage.records import OptunaParam, ProposedTrial, TrialState
from trainer.memory import training_memory
from trainer.settings import Settings

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

REDRAWS, RANDOM_REDRAWS = 8, 24
"""How often a trial is drawn again whose settings were tried before, or are too large: first by its sampler, where that
is `tpe`, then at random. In a space that is all tried, a trial costs as much as so many proposals."""


class Proposals:
    """The trials of one study, as its sampler and its pruner see them. Not for more than one thread.

    Args:
        spec: The study, its metric resolved: smaller is better.
        input_shape: (features,) of a table or (channels, height, width) of images.
        label: The study's name in Optuna's tables.
        trials: All of its trials so far, in order. Those still running go on behind what they have reported.
        outputs: Of every network; it and `rows`, of the train split, are for the memory that networks take.
        too_large: Numbers of those among `trials` that ran out of memory, as `too_large` was told of them.
        would_stop: Of those among `trials` that are audited, as `would_stop` said of them.
        earlier: Trials of other studies, for the sampler to know where it can; they are none of this study's.

    Attributes:
        ended: How many trials have ended.
        complete: Number and value of those that were trained to their end.

    Raises:
        ValueError: `trials` are not numbered 0, 1, 2 and so on.
    """

    def __init__(
        self,
        spec: StudySpec,
        input_shape: tuple[int, ...],
        label: str,
        trials: Sequence[FrozenTrial] = (),
        *,
        outputs: int = 1,
        rows: int = 1,
        too_large: Collection[int] = (),
        would_stop: Mapping[int, int] | None = None,
        earlier: Sequence[EarlierTrial] = (),
    ) -> None:
        quiet_optuna()
        self._spec = spec
        self._input_shape, self._outputs, self._rows = input_shape, outputs, rows
        self._space = Space(spec, input_shape)
        self._storage = InMemoryStorage()
        self._study = optuna.create_study(
            study_name=label, storage=self._storage, pruner=optuna.pruners.NopPruner(), direction="minimize"
        )
        self._study_id = self._storage.get_study_id_from_name(label)
        self._pruner = AuditedPruner(make_pruner(spec), spec, would_stop or {})
        self._asked = 0
        self._exhausted = False
        self._best: tuple[float, int] | None = None
        self.ended = 0
        self.complete: dict[int, float] = {}
        self._recorded: dict[int, dict[str, Any]] = {}
        self._tried: set[frozenset[tuple[str, Any]]] = set()
        self._parameters = Parameters()
        self._first: dict[Settings, int] = {}
        self._twins: dict[int, int] = {}
        self._settings: dict[int, Settings] = {}
        self._too_much = math.inf
        self._tpe: TreeParzen | None = None
        sampler = make_sampler(spec, 0)
        if isinstance(sampler, TreeParzen):
            self._study.sampler = self._tpe = sampler
            sampler.start_from(in_space(earlier, self._space, self._parameters))
        known_as_too_large = frozenset(too_large)
        for trial in trials:
            self._restore(trial, too_large=trial.number in known_as_too_large)

    @property
    def optuna_study(self) -> optuna.Study:
        """Optuna's own view, to draw from; not to be changed."""
        return self._study

    def ask(self) -> ProposedTrial | None:
        """A new trial, to be told later; None once a grid has no combination left.

        Settings that were tried before, whatever became of them, are drawn again, from seeds of this trial, for a
        number of times; where that helps nothing, the trial names its twin. So are those that would take as much
        memory as one that ran out of it; where nothing smaller is found, the first ones stand. A grid's settings are
        not drawn again: what it repeats are combinations that repairs have made equal.
        """
        if self._exhausted:
            return None
        number = self._asked
        proposal = self._first_draft(number)
        if self._spec.search.sampler is SamplerKind.GRID:
            if _point(self._frozen(number)) in self._tried:
                # Out of combinations, BruteForceSampler repeats one. This trial stays in Optuna's memory, only there.
                self._storage.set_trial_state_values(self._id(number), OptunaState.FAIL)
                self._exhausted = True
                return None
            self._tried.add(_point(self._frozen(number)))
        elif proposal.settings in self._first or not self._fits(proposal.settings):
            proposal = self._drawn_again(number, proposal)
        self._asked += 1
        self._carry_sequences_on(number)
        frozen = self._frozen(number)
        self._know(frozen, proposal.settings)
        self._recorded[number] = attrs = _safe(frozen.system_attrs)
        return ProposedTrial(
            number=number,
            params=proposal.params,
            settings=proposal.settings.to_json(),
            seed=derived_seed(self._spec.seed, Stream.TRIAL, number),
            optuna=tuple(self._recordable(frozen)),
            attrs=attrs,
            twin=self.twin(number),
            started_at=datetime.now(UTC),
        )

    def ask_batch(self, count: int) -> list[ProposedTrial]:
        """So many new trials, from one fit of the sampler; fewer once a grid has no combination left."""
        trials = (self.ask() for _ in range(count))
        return [trial for trial in trials if trial is not None]

    def twin(self, number: int) -> int | None:
        """The number of the first trial with the settings of this one; None where it is that itself."""
        return self._twins.get(number)

    def too_large(self, number: int) -> None:
        """Takes in that a trial ran out of memory even alone; to be called before `tell` ends it as a failure.

        From then on nothing is proposed that would take as much; and the default sampler, to which other failures say
        nothing, takes it for a bad trial.
        """
        self._too_much = min(self._too_much, self._memory(self._settings[number]))
        if self._tpe is not None:
            self._tpe.too_large(number)

    def report(self, number: int, epoch: int, value: float) -> None:
        """Takes in a trial's validation metric after an epoch, counted from 1."""
        self._frozen(number).intermediate_values[epoch] = value

    @property
    def looks(self) -> tuple[int, ...]:
        """The epochs after which a trial is shown to the pruner, ascending; the last is its end."""
        return self._pruner.looks

    def judge(self, numbers: Sequence[int]) -> set[int]:
        """Which of these trials end after the epoch that they reported last; to be asked once for each of a trial's
        `looks`, for all of a pack together."""
        return self._pruner.judge({number: self._frozen(number).intermediate_values for number in numbers})

    def would_stop(self, number: int) -> int | None:
        """The epoch after which the pruner would have ended a trial, had it not been drawn for the audit."""
        return self._pruner.would_stop.get(number)

    def audit(self, number: int, would_stop: int) -> None:
        """Takes in that a trial has the result of one that is audited; to be called before `tell` ends it."""
        self._pruner.would_stop[number] = would_stop

    def tell(self, number: int, state: TrialState, value: float | None = None) -> dict[str, Any]:
        """Ends a trial.

        Args:
            value: The metric of a complete trial, None of another; one that is missing or not finite makes the trial
                a failure, as the samplers could not learn from it.

        Returns:
            The system attributes that came since the trial was proposed.
        """
        frozen, values = self._frozen(number), None
        ended = _STATES[state]
        if state is TrialState.COMPLETE:
            if value is not None and math.isfinite(value):
                values = [value]
                self._keep_complete(value, number)
                self._pruner.complete(number, frozen.intermediate_values)
            else:
                ended = OptunaState.FAIL
        elif state is TrialState.PRUNED and frozen.intermediate_values:
            last = frozen.intermediate_values[max(frozen.intermediate_values)]
            values = None if math.isnan(last) else [last]
        self._study.sampler.after_trial(self._study, frozen, ended, values)
        self._storage.set_trial_state_values(self._id(number), ended, values)
        self.ended += 1
        recorded = self._recorded.pop(number)
        attrs = _safe(self._frozen(number).system_attrs)
        return {key: value for key, value in attrs.items() if recorded.get(key) != value}

    def best(self) -> tuple[int, float] | None:
        """Number and value of the best complete trial, of equal ones the one with the lowest number."""
        return None if self._best is None else (self._best[1], self._best[0])

    def _restore(self, trial: FrozenTrial, *, too_large: bool) -> None:
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
        self._pruner.restore(trial.number, trial.intermediate_values, complete=state is OptunaState.COMPLETE)
        if state is OptunaState.COMPLETE and (value is None or not math.isfinite(value)):
            state = OptunaState.FAIL
        # A template would be copied deeply, which takes longer than all the rest.
        trial_id = self._storage.create_new_trial(self._study_id)
        made = self._storage.get_trial(trial_id)
        made.params, made.distributions, made.user_attrs = trial.params, trial.distributions, trial.user_attrs
        made.system_attrs, made.intermediate_values = attrs, trial.intermediate_values
        made.datetime_start = trial.datetime_start
        if not running:
            self.ended += 1
            values = None if state is OptunaState.FAIL or value is None else [value]
            self._storage.set_trial_state_values(trial_id, state, values)
            self._storage.get_trial(trial_id).datetime_complete = trial.datetime_complete
        self._tried.add(_point(trial))
        drawn = self._space.suggest(Draft(self._parameters, lambda parameter: trial.params[parameter.name]))
        self._know(self._frozen(trial.number), drawn.settings, too_large=too_large)
        for key, count in attrs.items():
            if key.startswith(_SEQUENCES):
                self._storage.set_study_system_attr(self._study_id, key, count)
        if state is OptunaState.COMPLETE and value is not None:
            self._keep_complete(value, trial.number)

    def _know(self, trial: FrozenTrial, settings: Settings, *, too_large: bool = False) -> None:
        self._settings[trial.number] = settings
        first = self._first.setdefault(settings, trial.number)
        if first != trial.number:
            self._twins[trial.number] = first
        if too_large:
            self.too_large(trial.number)
        if self._tpe is not None:
            self._tpe.learn(trial)

    def _first_draft(self, number: int) -> Proposal:
        """Begins a trial with what its sampler proposes first."""
        if self._tpe is not None:
            self._storage.create_new_trial(self._study_id)
            return self._draft(number, self._tpe)
        self._study.sampler = make_sampler(self._spec, number)
        return self._space.suggest(self._study.ask())

    def _draft(self, number: int, sampler: BaseSampler) -> Proposal:
        """Gives a trial the values that a sampler draws for each parameter by itself."""
        frozen = self._frozen(number)
        draft = Draft(
            self._parameters,
            lambda parameter: sampler.sample_independent(self._study, frozen, parameter.name, parameter.distribution),
        )
        proposal = self._space.suggest(draft)
        frozen.params = {parameter.name: value for parameter, value in draft.values}
        frozen.distributions = {parameter.name: parameter.distribution for parameter, _ in draft.values}
        return proposal

    def _drawn_again(self, number: int, first: Proposal) -> Proposal:
        """A proposal with new settings that fit; where none was found the first one, or, where that is too large, the
        first that fits although it was tried before."""
        frozen = self._frozen(number)
        chosen, chosen_fits = (first, frozen.params, frozen.distributions), self._fits(first.settings)
        for sampler in self._redrawing(number):
            proposal = self._draft(number, sampler)
            fits = self._fits(proposal.settings)
            if fits and proposal.settings not in self._first:
                return proposal
            if fits and not chosen_fits:
                chosen, chosen_fits = (proposal, frozen.params, frozen.distributions), True
        proposal, frozen.params, frozen.distributions = chosen
        return proposal

    def _fits(self, settings: Settings) -> bool:
        """Whether it takes less memory than any that ran out of it."""
        return self._too_much == math.inf or self._memory(settings) < self._too_much

    def _memory(self, settings: Settings) -> int:
        return training_memory(settings, self._input_shape, self._outputs, self._rows)

    def _redrawing(self, number: int) -> Iterator[BaseSampler]:
        if self._tpe is not None:
            yield from [self._tpe] * REDRAWS
        yield from [redrawing(self._spec, number)] * RANDOM_REDRAWS

    def _recordable(self, trial: FrozenTrial) -> Iterator[OptunaParam]:
        for name, distribution in trial.distributions.items():
            text = self._parameters.known(name, distribution).text
            internal = distribution.to_internal_repr(trial.params[name])
            yield OptunaParam(name=name, internal=internal, distribution=text)

    def _carry_sequences_on(self, number: int) -> None:
        for key, count in self._storage.get_study_system_attrs(self._study_id).items():
            if key.startswith(_SEQUENCES):
                self._storage.set_trial_system_attr(self._id(number), key, count)

    def _keep_complete(self, value: float, number: int) -> None:
        self.complete[number] = value
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
