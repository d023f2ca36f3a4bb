"""Networks that are large enough to fill a core by themselves: neurosweep beside plain PyTorch on the same trials.

    python -m benchmarks.large_networks [--mnist mnist.npz] [--repeat 3] [--only table|images] [--quick]

A made-up table of 20,000 rows with MLPs 128 to 512 neurons wide, and 10,000 training images of MNIST with CNNs of one
or two convolutions, if `mnist.npz` (arrays x and y) is at hand. neurosweep, as a whole process with two workers, then
two bare processes of one thread each that train its trials, dealt alternately. Both times leave the start-up out.

Then each of the CNNs by itself in one process with one thread: an epoch in plain PyTorch, an epoch in neurosweep's
trainer, each from a fresh network and with its validation, in turn. A ratio over 1 means that neurosweep is faster.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.datasets import make_classification

from benchmarks import product
from benchmarks.peers import plain
from benchmarks.report import REPOSITORY, save, side_by_side, spread, table
from search.study_file import data_request, parse_study
from storage.records import TrialRecord
from trainer.data.load import load
from trainer.settings import Settings
from trainer.work import Metric, TrialWork

TABLE = """\
name: table
seed: {seed}
data: {{source: {source}, target: label}}
space: {{neurons: {{low: 128, high: 512, log: true}}}}
search: {{pruner: none}}
budget: {{trials: {trials}, epochs: {epochs}}}
workers: {{count: 2}}
"""

IMAGES = """\
name: images
seed: {seed}
model: cnn
data: {{source: {source}, max_rows: {rows}}}
space: {{conv_layers: {{low: 1, high: 2}}, layers: {{low: 1, high: 2}}}}
search: {{pruner: none}}
budget: {{trials: {trials}, epochs: {epochs}}}
workers: {{count: 2}}
"""

TARGETS = {"table": 1.5, "images": 1.2}
ALONE_TARGET = 0.98


def make_table(path: Path, rows: int) -> None:
    """Four classes in 40 columns, a third of which say something."""
    inputs, classes = make_classification(rows, 40, n_informative=14, n_classes=4, flip_y=0.02, random_state=0)
    names = [f"column_{n}" for n in range(inputs.shape[1])]
    frame = pd.DataFrame(inputs.astype(np.float32), columns=names)
    frame.assign(label=[f"class {c}" for c in classes]).to_parquet(path)


def pair(text: str, epochs: int) -> tuple[dict[str, Any], list[TrialRecord]]:
    """neurosweep, then the two bare processes with the same trials; and these trials."""
    ours = product.run(text)
    with tempfile.TemporaryDirectory() as folder:
        splits = Path(folder) / "splits.npz"
        product.save_splits(load(data_request(parse_study(text))), splits)
        orders = [{"trials": ours.settings[n::2], "epochs": epochs, "data": str(splits)} for n in range(2)]
        seconds, answers = side_by_side("bare_loop", orders)
    best = min(answer["best"] for answer in answers)
    figures = {"ours": ours.inside, "bare": seconds, "best": ours.best, "bare best": best, "whole": ours.seconds}
    return {**figures, "ratio": seconds / ours.inside}, ours.trials


def alone(text: str, trials: list[TrialRecord], repeat: int) -> list[dict[str, Any]]:
    """Each trial's first epoch in plain PyTorch and in the trainer, by turns."""
    data = load(data_request(parse_study(text)))
    with tempfile.TemporaryDirectory() as folder:
        product.save_splits(data, Path(folder) / "splits.npz")
        plain_data = plain.from_file(Path(folder) / "splits.npz")
    trainer = product.trainer_for(data)
    found = []
    for trial in trials:
        settings = Settings.from_json(trial.settings)
        plain.warm_up(trial.params, plain_data)
        times: dict[str, list[float]] = {"plain": [], "ours": []}
        for _ in range(repeat):
            began = time.perf_counter()
            next(plain.training(trial.params, plain_data, 2))
            times["plain"].append(time.perf_counter() - began)
            work = TrialWork(trial=0, settings=settings, seed=0, metric=Metric.ERROR, epochs=2, until=1)
            began = time.perf_counter()
            trainer.train([work], lambda: False, lambda trial, epoch: None)
            times["ours"].append(time.perf_counter() - began)
            trainer.forget(0)
        ratios = [p / o for p, o in zip(times["plain"], times["ours"], strict=True)]
        found.append({"params": trial.params, **times, "ratio": statistics.median(ratios)})
    return found


def describe(params: dict[str, Any]) -> str:
    """A CNN's layers, in short: `22 of 5x5 /2 max` is 22 filters of 5 x 5 pixels in steps of 2, then max pooling."""
    layers = []
    for n in range(1, params["conv_layers"] + 1):
        size, stride, pool = params[f"filter_size_{n}"], params[f"stride_{n}"], params[f"pool_{n}"]
        step = f" /{stride}" if stride > 1 else ""
        layers.append(f"{params[f'filters_{n}']} of {size}x{size}{step}{'' if pool == 'none' else ' ' + pool}")
    norm = ", batch norm" if params["batch_norm"] else ""
    return f"{', '.join(layers)}; {params['padding']}{norm}, {params['activation']}, batches of {params['batch_size']}"


def studies(chosen: argparse.Namespace, folder: Path) -> dict[str, tuple[str, dict[str, Any]]]:
    """The text of each study, and what it is filled in with."""
    found: dict[str, tuple[str, dict[str, Any]]] = {}
    if chosen.only != "images":
        source = folder / "table.parquet"
        make_table(source, 1000 if chosen.quick else 20_000)
        budget = {"trials": 2, "epochs": 1} if chosen.quick else {"trials": chosen.trials, "epochs": chosen.epochs}
        found["table"] = TABLE, {"source": source, **budget}
    if chosen.only != "table" and not chosen.mnist.exists():
        print(f"{chosen.mnist} is missing: the images are left out; --mnist names its place.", file=sys.stderr)
    elif chosen.only != "table":
        budget = {"trials": chosen.cnn_trials, "epochs": chosen.cnn_epochs, "rows": 14_286}
        if chosen.quick:
            budget = {"trials": 2, "epochs": 1, "rows": 400}
        found["images"] = IMAGES, {"source": chosen.mnist, **budget}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=16, help="MLPs on the table")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--cnn-trials", type=int, default=8)
    parser.add_argument("--cnn-epochs", type=int, default=2)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--only", choices=("table", "images"))
    parser.add_argument("--mnist", type=Path, default=REPOSITORY.parent / "shared" / "data" / "mnist.npz")
    parser.add_argument("--quick", action="store_true", help="small data, 2 trials of 1 epoch each, one repetition")
    chosen = parser.parse_args()
    repeat = 1 if chosen.quick else chosen.repeat
    runs: dict[str, list[dict[str, Any]]] = {}
    singles: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        filled = studies(chosen, Path(folder))
        for name, (text, values) in filled.items():
            runs[name] = []
            for seed in range(repeat):
                study = text.format(seed=seed, **values)
                figures, trials = pair(study, values["epochs"])
                runs[name].append(figures)
                print(f"{name}, repetition {seed + 1} of {repeat}: done", file=sys.stderr)
                if name == "images":
                    # The CNNs of every repetition, so that the smallest ratio is of many.
                    singles += alone(study, trials, repeat)
    report(chosen, {name: values for name, (_, values) in filled.items()}, runs, singles)


def report(
    chosen: argparse.Namespace,
    studies: dict[str, dict[str, Any]],
    runs: dict[str, list[dict[str, Any]]],
    singles: list[dict[str, Any]],
) -> None:
    head = ("study", "trials x epochs", "neurosweep, s", "two bare processes, s", "ratio", "target")
    lines = []
    for name, found in runs.items():
        size = f"{studies[name]['trials']} x {studies[name]['epochs']}"
        figures = [spread([run[figure] for run in found]) for figure in ("ours", "bare", "ratio")]
        lines.append((name, size, *figures, TARGETS[name]))
    print(table(head, lines))
    if singles:
        singles.sort(key=lambda single: single["ratio"])
        ratios = [single["ratio"] for single in singles]
        under = sum(ratio < ALONE_TARGET for ratio in ratios)
        print(f"\nEach CNN alone, plain PyTorch's time over the trainer's: {spread(ratios)}; {under} of {len(ratios)} ")
        print(f"are under {ALONE_TARGET}. The smallest:\n")
        median = statistics.median
        worst = [(describe(s["params"]), median(s["plain"]), median(s["ours"]), s["ratio"]) for s in singles[:8]]
        print(table(("CNN", "plain PyTorch, s an epoch", "the trainer, s an epoch", "ratio"), worst))
    everything = {
        "studies": {name: {**values, "source": name} for name, values in studies.items()},
        "runs": runs,
        "alone": singles,
    }
    print(f"\n{save('large_networks' + ('_quick' if chosen.quick else ''), everything)}")


if __name__ == "__main__":
    main()
