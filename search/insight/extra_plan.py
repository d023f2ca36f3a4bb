"""Which extra runs a report is worth, and which of them the time allows. Nothing here trains.

In the order of worth: the winner on a half and a quarter of the train rows (would more rows help?), with twice the
neurons and filters, with twice the epochs; then the best trials from other seeds (which of them differ at all?). What
the database has already is not trained again.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.optimize import nnls

from search.commands.words import duration
from search.leaders import leaders
from search.packing import Packing
from search.sampler import Stream, derived_seed
from search.spec import StudySpec
from storage.records import ExtraRun, Probe, StudyRecord, TrialRecord, run_name
from trainer.data.dataset import Dataset
from trainer.settings import Settings

SHARE_OF_TIME = 0.2
"""Of the study's own time, which the extra runs of its report may take."""

PLANNED = 0.85
"""Of the time: the rest is for runs that take longer than the trials did."""

ROW_SHARES = (0.5, 0.25)
FACTOR = 2
"""So many times the neurons, or the epochs."""

CONTENDERS, SEEDS = 5, 5
LEAST_SEEDS = 2
"""One run from another seed says nothing of what seeds do: rather fewer trials than fewer runs of each."""


@dataclass(frozen=True, kw_only=True)
class Planned:
    """A run that is to be made.

    Attributes:
        probe, trial, amount: As in `ExtraRun`.
        seconds: What it will take one worker, about.
    """

    probe: Probe
    trial: int
    amount: float
    settings: Settings
    seed: int
    epochs: int
    seconds: float

    @property
    def name(self) -> str:
        """Such as ``seed 3 of trial 57``."""
        return run_name(self.probe, self.trial, self.amount)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is to be trained, in order, and what there is no time for."""

    runs: tuple[Planned, ...]
    left_out: tuple[Planned, ...]


def allowance(study: StudyRecord, trials: Sequence[TrialRecord]) -> float:
    """Seconds that the extra runs of a study may take, all of them together, on as many workers as it had."""
    result = (study.result or {}).get("seconds") or 0.0
    side_by_side = sum(trial.seconds for trial in trials) / workers_of(trials)
    return SHARE_OF_TIME * max(result, study.worked, side_by_side)


def workers_of(trials: Sequence[TrialRecord]) -> int:
    """How many workers a study had."""
    return max(1, len({trial.worker for trial in trials if trial.worker}))


def of_reports(study: StudyRecord, runs: Sequence[ExtraRun]) -> list[ExtraRun]:
    """The runs that were made since the study's end: those for its choice of a winner are a part of its own time."""
    return [run for run in runs if run.at is None or study.ended_at is None or run.at > study.ended_at]


def seconds_of(runs: Sequence[ExtraRun], trials: Sequence[TrialRecord]) -> float:
    """What extra runs take on as many workers as the study had: to be held against the study's own seconds."""
    return sum(_share_of(run, workers_of(trials)) for run in runs)


def _share_of(run: ExtraRun | Planned, workers: int) -> float:
    """A run on fewer rows has all workers to itself, as each holds one data set."""
    return run.seconds if run.probe is Probe.ROWS else run.seconds / workers


def plan(
    trials: Sequence[TrialRecord],
    spec: StudySpec,
    known: Sequence[ExtraRun],
    dataset: Dataset,
    *,
    winner: int,
    seconds: float = math.inf,
    probes: Collection[Probe] = tuple(Probe),
) -> Plan:
    """What to train, in order.

    The time goes to what is worth most first. Of the seeds all that are planned for a trial are of its turn in a round
    (seed 1 of each, seed 2 of each, ...), of as many of the best trials as can have `LEAST_SEEDS` each.

    Args:
        known: Runs that are there already.
        winner: The trial that the study has chosen.
        seconds: In which all that is planned is to end; infinite for all of it.
        probes: Those that are asked for.
    """
    packing = _packing(trials, dataset)
    pace = _Pace(trials, packing)
    chosen = contenders(trials, winner)
    if not chosen:
        return Plan(runs=(), left_out=())
    budget = Budget(seconds, packing.workers)
    there = {(run.probe, run.trial, run.amount) for run in known}
    runs, left_out = list[Planned](), list[Planned]()
    for run in _of_winner(chosen[0], spec, pace):
        if run.probe in probes and (run.probe, run.trial, run.amount) not in there:
            (runs if budget.take(run) else left_out).append(run)
    if Probe.SEED in probes:
        rounds = [
            [_seeded(trial, number, spec, pace) for trial in chosen if (Probe.SEED, trial.number, number) not in there]
            for number in range(1, SEEDS + 1)
        ]
        taken = _take_rounds(rounds, [trial.number for trial in chosen], budget)
        for run in itertools.chain(*rounds):
            (runs if run in taken else left_out).append(run)
    return Plan(runs=tuple(runs), left_out=tuple(left_out))


def contenders(trials: Sequence[TrialRecord], winner: int) -> list[TrialRecord]:
    """The winner and the best of the others, no two with the same settings."""
    found: dict[Settings, TrialRecord] = {}
    for trial in sorted(leaders(trials), key=lambda trial: trial.number != winner):
        found.setdefault(Settings.from_json(trial.settings), trial)
    return list(found.values())[:CONTENDERS]


class Budget:
    """What is left of the time.

    Args:
        seconds: In which the runs are to end, on so many workers side by side.
    """

    def __init__(self, seconds: float, workers: int) -> None:
        self._workers = workers
        self._left = seconds

    def take(self, *runs: Planned) -> bool:
        """Sets the time of runs aside, where there is enough left for all of them."""
        together = sum(_share_of(run, self._workers) for run in runs)
        if together > self._left:
            return False
        self._left -= together
        return True

    def correct(self, planned: Planned, made: ExtraRun) -> None:
        """A run has taken another time than what was set aside for it."""
        self._left += _share_of(planned, self._workers) - _share_of(made, self._workers)


def _take_rounds(rounds: Sequence[Sequence[Planned]], trials: Sequence[int], budget: Budget) -> set[Planned]:
    taken: set[Planned] = set()
    for count in range(len(trials), 0, -1):
        few = [[run for run in each if run.trial in trials[:count]] for each in rounds]
        if budget.take(*itertools.chain(*few[:LEAST_SEEDS])):
            taken.update(*few[:LEAST_SEEDS])
            for run in itertools.chain(*few[LEAST_SEEDS:]):
                if not budget.take(run):
                    break
                taken.add(run)
            break
    return taken


def _of_winner(trial: TrialRecord, spec: StudySpec, pace: _Pace) -> Iterator[Planned]:
    """All but the seeds. They have one seed in common, which is none of the search's: that one was lucky."""
    settings, epochs = Settings.from_json(trial.settings), spec.budget.epochs
    for share in ROW_SHARES:
        yield _planned(Probe.ROWS, trial, share, settings, epochs, spec, pace, rows=share)
    yield _planned(Probe.NEURONS, trial, FACTOR, widened(settings, FACTOR), epochs, spec, pace)
    yield _planned(Probe.EPOCHS, trial, FACTOR, settings, FACTOR * epochs, spec, pace)


def _seeded(trial: TrialRecord, number: int, spec: StudySpec, pace: _Pace) -> Planned:
    settings = Settings.from_json(trial.settings)
    return _planned(Probe.SEED, trial, number, settings, spec.budget.epochs, spec, pace, seed=number)


def _planned(
    probe: Probe,
    trial: TrialRecord,
    amount: float,
    settings: Settings,
    epochs: int,
    spec: StudySpec,
    pace: _Pace,
    *,
    rows: float = 1.0,
    seed: int = 0,
) -> Planned:
    return Planned(
        probe=probe,
        trial=trial.number,
        amount=float(amount),
        settings=settings,
        seed=derived_seed(spec.seed, Stream.EXTRA_RUN, (SEEDS + 1) * trial.number + seed),
        epochs=epochs,
        seconds=rows * pace.seconds(trial, settings, epochs),
    )


def widened(settings: Settings, factor: int) -> Settings:
    """So many times the neurons and filters of each layer."""
    return replace(
        settings,
        neurons=tuple(factor * width for width in settings.neurons),
        convolutions=tuple(replace(layer, filters=factor * layer.filters) for layer in settings.convolutions),
    )


class _Pace:
    """How long training takes, from what the trials took: a price for each step and one for each operation."""

    def __init__(self, trials: Sequence[TrialRecord], packing: Packing) -> None:
        self._packing = packing
        timed = sorted(
            (trial for trial in trials if trial.seconds > 0 and trial.epochs > 0), key=lambda trial: trial.number
        )
        if not timed:
            self._prices = np.zeros(2)
            return
        work = np.array([self._work(Settings.from_json(trial.settings), trial.epochs) for trial in timed])
        # Of each trial the same share of error counts.
        self._prices, _ = nnls(work / np.array([[trial.seconds] for trial in timed]), np.ones(len(timed)))

    def seconds(self, trial: TrialRecord, settings: Settings, epochs: int) -> float:
        """Of one worker, for so many epochs of a trial's network or one that was made from it."""
        told = self._told(settings, epochs)
        own = self._told(Settings.from_json(trial.settings), trial.epochs) if trial.epochs else 0.0
        return told * trial.seconds / own if own > 0 and trial.seconds > 0 else told

    def _told(self, settings: Settings, epochs: int) -> float:
        return float(self._prices @ self._work(settings, epochs))

    def _work(self, settings: Settings, epochs: int) -> npt.NDArray[np.float64]:
        steps = epochs * math.ceil(self._packing.rows / settings.batch_size)
        return np.array([float(steps), self._packing.cost(settings, epochs)])


def _packing(trials: Sequence[TrialRecord], dataset: Dataset) -> Packing:
    """As the study itself had it, wherever its report is made."""
    return Packing(
        trials=len(trials),
        workers=workers_of(trials),
        on_gpu=False,
        rows=len(dataset.train),
        input_shape=dataset.input_shape,
        outputs=dataset.outputs,
    )


def words(left_out: Sequence[Planned], label: str) -> tuple[str, ...]:
    """A line for each kind of run that there was no time for, and what would make it."""
    said = []
    for probe in Probe:
        runs = [run for run in left_out if run.probe is probe]
        if not runs:
            continue
        what = " and ".join(run.name for run in runs)
        if probe is Probe.SEED and len(runs) > 2:
            numbers = list(dict.fromkeys(run.trial for run in runs))
            what = f"{len(runs)} runs from other seeds, of " + (
                f"trial {numbers[0]}" if len(numbers) == 1 else f"the trials {', '.join(map(str, numbers))}"
            )
        about = duration(max(1.0, sum(run.seconds for run in runs)))
        said.append(f"{what}: about {about} of training (`neurosweep report {label} --thorough` makes up for it)")
    return tuple(said)
