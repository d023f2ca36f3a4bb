"""Test errors of neurosweep's winners, beside scikit-learn's on the very same splits.

    python -m benchmarks.quality [--trials 60] [--epochs 30] [--seeds 3] [--quick]

Digits with the default space, and a stratified sample of MNIST where `mnist.npz` (arrays x and y) is at hand:
name its place with --mnist. Peers: MLPClassifier and RandomForestClassifier as they come, fitted on the train split.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.ensemble import RandomForestClassifier
from sklearn.neural_network import MLPClassifier

from benchmarks.report import REPOSITORY, save, table, timed
from search.study_file import data_request, parse_study
from trainer.data.load import load

STUDY = """\
name: quality
seed: {seed}
data: {{source: {source}{rows}}}
model: {model}
budget: {{trials: {trials}, epochs: {epochs}}}
"""


def neurosweep(text: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "study.yaml").write_text(text)
        seconds, printed = timed([sys.executable, "-m", "neurosweep", "run", "study.yaml", "--json"], Path(name))
    result = json.loads(printed)
    return {**{key: result["best"][key] for key in ("train", "validation", "test")}, "seconds": seconds}


def scikit_learn(text: str, seed: int) -> dict[str, float]:
    """Test errors on the same splits. Pixels are scaled by the train split's mean and deviation, as for ours."""
    dataset = load(data_request(parse_study(text)))
    flat = {name: getattr(dataset, name).inputs.reshape(len(getattr(dataset, name)), -1) for name in ("train", "test")}
    mean, std = flat["train"].mean(), flat["train"].std()
    train, test = ((flat[name].astype(np.float32) - mean) / std for name in ("train", "test"))
    errors = {}
    for name, peer in (
        ("MLPClassifier", MLPClassifier(max_iter=500, random_state=seed)),
        ("RandomForestClassifier", RandomForestClassifier(random_state=seed)),
    ):
        peer.fit(train, dataset.train.targets)
        errors[name] = float(np.mean(peer.predict(test) != dataset.test.targets))
    return errors


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--mnist", type=Path, default=REPOSITORY.parent / "shared" / "data" / "mnist.npz")
    parser.add_argument("--quick", action="store_true", help="digits only, 4 trials of 2 epochs, one seed")
    chosen = parser.parse_args()
    trials, epochs, seeds = (4, 2, 1) if chosen.quick else (chosen.trials, chosen.epochs, chosen.seeds)

    sets = [("digits", "digits", "", "mlp"), ("digits, MLPs and CNNs", "digits", "", "[mlp, cnn]")]
    if chosen.quick:
        sets = sets[:1]
    elif chosen.mnist.exists():
        sets.append(("MNIST, 6,000 rows", str(chosen.mnist), ", max_rows: 6000", "mlp"))
    else:
        print(f"{chosen.mnist} is missing: MNIST is left out; --mnist names its place.", file=sys.stderr)

    figures: dict[str, Any] = {}
    for title, source, rows, model in sets:
        figures[title] = []
        for seed in range(seeds):
            text = STUDY.format(seed=seed, source=source, rows=rows, model=model, trials=trials, epochs=epochs)
            figures[title].append({"neurosweep": neurosweep(text), **scikit_learn(text, seed)})
    lines = []
    for title, runs in figures.items():
        ours = [run["neurosweep"] for run in runs]
        mean = statistics.mean
        lines.append(
            (
                title,
                mean(run["test"] for run in ours),
                mean(run["MLPClassifier"] for run in runs),
                mean(run["RandomForestClassifier"] for run in runs),
                mean(run["train"] for run in ours),
                mean(run["validation"] for run in ours),
                mean(run["seconds"] for run in ours),
            )
        )
    head = ("data", "neurosweep, test", "MLPClassifier, test", "random forest, test", "train", "validation", "seconds")
    print(table(head, lines))
    name = "quality_quick" if chosen.quick else "quality"
    print(f"\n{save(name, {'trials': trials, 'epochs': epochs, 'runs': figures})}")


if __name__ == "__main__":
    main()
