"""Does `stop_when: no_gain` end a search at the right time? Beside Optuna's terminator, on the same trials.

    python -m benchmarks.no_gain [--seeds 4] [--trials 200] [--quick]

Searches of our TPE on the functions of `benchmarks.sampler`, each to its end. Then both are asked after every fifth
trial, with the same noise: a tenth, and three tenths, of the interquartile range of a search's first 20 values. A
search was ended too early where the trials that were left out would have bettered the best one by more than that noise.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.terminator import RegretBoundEvaluator

from benchmarks.report import save, table
from benchmarks.sampler import OURS, PROBLEMS, made_study
from search.no_gain import LEAST, no_gain

NOISES = (0.1, 0.3)
EVERY = 5
RANGE = 100.0
"""Added to every value, so that nothing is made of a function's lower end at 0."""


def searched(problem: Callable[[Any], float], seed: int, trials: int) -> list[optuna.trial.FrozenTrial]:
    """The trials of one search."""
    study = made_study(OURS, seed)
    for _ in range(trials):
        trial = study.ask()
        study.tell(trial, RANGE + problem(trial))
    return list(study.trials)


def ended(trials: Sequence[optuna.trial.FrozenTrial], is_over: Callable[[int], bool]) -> int:
    """After how many trials a search is told to end."""
    return next((count for count in range(LEAST, len(trials), EVERY) if is_over(count)), len(trials))


def compare(trials: Sequence[optuna.trial.FrozenTrial], regrets: dict[int, float], noise: float) -> dict[str, Any]:
    """Where each would end a search, and what the rest of the trials would have gained, in units of the noise."""
    values = [float(trial.value or 0.0) for trial in trials]
    rules: dict[str, Callable[[int], bool]] = {
        "neurosweep": lambda count: no_gain(values[:count], len(values) - count, noise),
        "Optuna": lambda count: regrets[count] < noise,
    }
    found = {}
    for name, is_over in rules.items():
        count = ended(trials, is_over)
        found[name] = {"trials": count, "missed": (min(values[:count]) - min(values)) / noise}
    return found


def regret_bounds(trials: Sequence[optuna.trial.FrozenTrial]) -> dict[int, float]:
    """What Optuna's terminator holds against the noise, by the number of trials so far."""
    study = optuna.create_study()
    study.add_trials(list(trials))
    evaluator = RegretBoundEvaluator(seed=0)
    counts = range(LEAST, len(trials), EVERY)
    return {count: evaluator.evaluate(study.trials[:count], study.direction) for count in counts}


def measure(seeds: int, trials: int) -> dict[str, Any]:
    """Of each noise and each rule, every search's end and what it missed."""
    found: dict[str, Any] = {str(noise): {"neurosweep": [], "Optuna": []} for noise in NOISES}
    for problem in PROBLEMS:
        for seed in range(seeds):
            search = searched(problem, seed, trials)
            low, high = np.percentile([float(trial.value or 0.0) for trial in search[:LEAST]], [25, 75])
            regrets = regret_bounds(search)
            for noise in NOISES:
                for rule, end in compare(search, regrets, noise * float(high - low)).items():
                    found[str(noise)][rule].append({"problem": problem.__name__, "seed": seed, **end})
        print(f"{problem.__name__}: done", file=sys.stderr, flush=True)
    return found


def rows(found: dict[str, Any]) -> list[list[object]]:
    lines = []
    for noise, rules in found.items():
        for rule, ends in rules.items():
            missed = [end["missed"] for end in ends]
            lines.append(
                [
                    noise,
                    rule,
                    statistics.median(end["trials"] for end in ends),
                    f"{100 * statistics.fmean(value > 1 for value in missed):.0f} %",
                    f"{100 * statistics.fmean(value > 2 for value in missed):.0f} %",
                    round(statistics.fmean(missed), 2),
                ]
            )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--quick", action="store_true", help="a look whether it runs")
    chosen = parser.parse_args()
    if chosen.quick:
        chosen.seeds, chosen.trials = 1, 30
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore")
    found = measure(chosen.seeds, chosen.trials)
    head = ["noise", "rule", "trials (median)", "too early", "by twice the noise", "missed, in noises (mean)"]
    print(table(head, rows(found)))
    figures = {"searches": found, "trials": chosen.trials}
    print(f"\n{save('no_gain' + ('_quick' if chosen.quick else ''), figures)}")


if __name__ == "__main__":
    main()
