"""Trials a second on the digits MLP study: Ray Tune, bare PyTorch with Optuna, neurosweep, and a bare loop.

    python -m benchmarks.against_ray_tune [--trials 64] [--epochs 20] [--repeat 3] [--quick]

One after the other, in turn. 'Start-up left out' is from the first trial's start to the last one's end; for Ray Tune,
whose trials are processes of their own, the time inside `Tuner.fit`. The two bare processes have half of the trials
each, and begin together. The bare loop trains what neurosweep's run with one worker proposed. One thread everywhere.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from typing import Any

from benchmarks import product
from benchmarks.report import REPOSITORY, save, side_by_side, spread, table, timed

STUDY = """\
name: digits
seed: {seed}
data: {{source: digits}}
search: {{pruner: none}}
budget: {{trials: {trials}, epochs: {epochs}}}
workers: {{count: {workers}}}
"""

NAMES = {
    "tune": "Ray Tune + OptunaSearch, 2 at a time",
    "optuna": "bare PyTorch + Optuna, 2 processes",
    "two": "neurosweep, 2 workers",
    "one": "neurosweep, 1 worker",
    "loop": "bare PyTorch loop, 1 process, the same trials",
}

RATIOS = (
    ("trials a second, over Ray Tune's", "tune", "two", "inside", 100.0),
    ("trials a second, over two bare processes'", "optuna", "two", "inside", 6.0),
    ("whole process, over Ray Tune's", "tune", "two", "whole", 15.0),
    ("one worker over the bare loop", "loop", "one", "inside", None),
)
"""What it is called, whose seconds are divided by whose, of what, and the target."""

Runs = dict[str, list[dict[str, Any]]]


def ray_tune(trials: int, epochs: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.peers.ray_tune", str(trials), str(epochs), "2"]
    seconds, printed = timed(command, REPOSITORY)
    inside = json.loads(printed[printed.rindex("\n{") if "\n{" in printed else 0 :])
    return {"whole": seconds, "inside": inside["seconds"], "best": inside["best"]}


def bare_optuna(trials: int, epochs: int, seed: int) -> dict[str, Any]:
    halves = (trials - trials // 2, trials // 2)
    orders = [{"trials": half, "epochs": epochs, "seed": 2 * seed + n} for n, half in enumerate(halves)]
    seconds, answers = side_by_side("bare_optuna", orders)
    return {"inside": seconds, "best": min(answer["best"] for answer in answers)}


def bare_loop(settings: list[dict[str, Any]], epochs: int) -> dict[str, Any]:
    seconds, answers = side_by_side("bare_loop", [{"trials": settings, "epochs": epochs}])
    return {"inside": seconds, "best": answers[0]["best"]}


def measure(trials: int, epochs: int, repeat: int) -> Runs:
    runs: Runs = {key: [] for key in NAMES}
    for seed in range(repeat):
        runs["tune"].append(ray_tune(trials, epochs))
        runs["optuna"].append(bare_optuna(trials, epochs, seed))
        for key, workers in (("two", 2), ("one", 1)):
            ours = product.run(STUDY.format(trials=trials, epochs=epochs, workers=workers, seed=seed))
            runs[key].append({"whole": ours.seconds, "inside": ours.inside, "best": ours.best})
        runs["loop"].append(bare_loop(ours.settings, epochs))
        print(f"repetition {seed + 1} of {repeat}: done", file=sys.stderr)
    return runs


def rows(runs: Runs, trials: int) -> list[tuple[object, ...]]:
    found: list[tuple[object, ...]] = []
    for key, name in NAMES.items():
        whole = spread([run["whole"] for run in runs[key]]) if "whole" in runs[key][0] else "-"
        rate = spread([trials / run["inside"] for run in runs[key]])
        found.append((name, whole, rate, spread([run["best"] for run in runs[key]])))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="one repetition of 2 trials of 1 epoch")
    chosen = parser.parse_args()
    trials, epochs, repeat = (2, 1, 1) if chosen.quick else (chosen.trials, chosen.epochs, chosen.repeat)
    runs = measure(trials, epochs, repeat)
    head = ("what", "whole process, s", "trials a second, start-up left out", "best validation error")
    print(table(head, rows(runs, trials)))
    ratios = {}
    for name, over, under, figure, _ in RATIOS:
        pairs = zip(runs[over], runs[under], strict=True)
        ratios[name] = [a[figure] / b[figure] for a, b in pairs]
    lines = [(name, spread(ratios[name]), "-" if target is None else target) for name, *_, target in RATIOS]
    print("\n" + table(("ratio, of each repetition", "times", "target"), lines))
    medians = {name: statistics.median(values) for name, values in ratios.items()}
    figures = {"trials": trials, "epochs": epochs, "repeat": repeat, "runs": runs, "ratios": ratios}
    print(f"\n{save('against_ray_tune' + ('_quick' if chosen.quick else ''), {**figures, 'medians': medians})}")


if __name__ == "__main__":
    main()
