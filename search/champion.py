"""Which trial wins: the best by validation, or, where the study asks for it, by what other seeds make of the best."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from search.insight.extra_plan import SEEDS, plan
from search.insight.extra_runs import run_extra
from search.insight.findings import SeedNoise
from search.insight.plain_words import figure
from search.insight.seeds import seed_noise
from search.leaders import leaders
from search.spec import Champion, StudySpec
from storage.records import Probe, StudyRecord, TrialRecord
from storage.store import Store
from trainer.data.dataset import Dataset

if TYPE_CHECKING:
    from search.pool import Pool


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The winner.

    Attributes:
        tied: Those that other seeds can't tell from the one with the best mean; empty where none were asked.
        why: How it was chosen, in a sentence; None where it is simply the best by validation.
    """

    trial: TrialRecord
    tied: tuple[int, ...] = ()
    why: str | None = None


def choose(
    store: Store,
    study: StudyRecord,
    spec: StudySpec,
    dataset: Dataset,
    pool: Pool,
    trials: Sequence[TrialRecord],
    on_stage: Callable[[str], None],
) -> Choice:
    """Chooses the winner; with `champion` in the study file, the five best are trained from five other seeds first.

    What is recorded of such runs is not trained again, so that a study which is resumed goes on with the others.

    Args:
        on_stage: Told what goes on, in a few words, after each run.

    Raises:
        InterruptedStudyError: The user wants to stop.
    """
    first = leaders(trials)[0]
    if spec.champion is None or study.sealed:  # of rounds, the one with the winner chooses once it is unsealed
        return Choice(trial=first)
    runs = plan(trials, spec, store.extra_runs(study.id), dataset, winner=first.number, probes=(Probe.SEED,)).runs
    made = 0

    def tell(run: object) -> None:
        nonlocal made
        made += 1
        on_stage(f"training the best again from other seeds: {made} of {len(runs)}")

    run_extra(store, study, spec, dataset, pool, runs, on_run=tell)
    noise = seed_noise(trials, store.extra_runs(study.id), winner=first.number)
    if noise is None:
        return Choice(
            trial=first,
            why=f"Trial {first.number} could not be trained from other seeds: it is the best by validation.",
        )
    number = noise.simplest if spec.champion is Champion.SIMPLEST else noise.best
    return Choice(
        trial=next(trial for trial in trials if trial.number == number),
        tied=tuple(each.trial for each in noise.contenders if each.tied),
        why=_why(spec.champion, noise, number, first.number),
    )


def _why(rule: Champion, noise: SeedNoise, number: int, first: int) -> str:
    by_trial = {each.trial: each for each in noise.contenders}
    tied = sum(each.tied for each in noise.contenders)
    rank = "is the best"
    if rule is Champion.SIMPLEST and tied > 1:
        rank = f"is the smallest of the {tied} best that these seeds can't tell apart"
    said = f"From {SEEDS} other seeds, trial {number} {rank}: its mean is {figure(by_trial[number].mean)}"
    if number != first:
        said += f", that of trial {first}, the best by validation, {figure(by_trial[first].mean)}"
    return f"{said}."
