"""`neurosweep validate FILE --preview` beside the truth: the time that it foretells for ten studies, and the time that
each then took.

    python -m benchmarks.preview [--repeat 1] [--alone] [--mnist mnist.npz] [--quick]

The preview runs as much behind other programs as Ray's workers do (`RAY_worker_niceness`), so that on a busy machine
both wait alike. With `--alone` the studies run in this process with one worker, and all is measured in processor time:
that says what the reckoning is worth whatever else the machine does, but nothing about Ray's start, nor about workers
that share a machine.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from unittest.mock import patch

from benchmarks.report import save, table, timed
from search.forecast import forecast
from search.preview import preview
from search.spec import StudySpec
from search.study_file import parse_study
from search.validation import read_data
from tests.search.dispatched import Study
from tests.search.in_process_pool import InProcessPool

STUDIES = {
    "digits, 60 trials": "data: {source: digits}\nbudget: {trials: 60, epochs: 20}\n",
    "digits, no pruner": (
        "data: {source: digits}\nsearch: {sampler: random, pruner: none}\nbudget: {trials: 24, epochs: 12}\n"
    ),
    "digits, wide": (
        "data: {source: digits}\nspace: {layers: {low: 2, high: 5}, neurons: {low: 128, high: 512}}\n"
        "search: {pruner: hyperband}\nbudget: {trials: 30, epochs: 27}\n"
    ),
    "digits, CNNs": (
        "data: {source: digits}\nmodel: cnn\nspace: {conv_layers: {low: 1, high: 2}, filters: {low: 4, high: 16}}\n"
        "budget: {trials: 30, epochs: 12}\n"
    ),
    "digits, MLPs and CNNs": "data: {source: digits}\nmodel: [mlp, cnn]\nbudget: {trials: 30, epochs: 9}\n",
    "iris": "data: {source: iris}\nbudget: {trials: 100, epochs: 40}\n",
    "wine, median": "data: {source: wine}\nsearch: {pruner: median}\nbudget: {trials: 80, epochs: 50}\n",
    "breast cancer": (
        "data: {source: breast_cancer}\nmetric: log_loss\nsearch: {sampler: qmc}\nbudget: {trials: 100, epochs: 30}\n"
    ),
    "diabetes": "data: {source: diabetes}\nsearch: {pruner: none}\nbudget: {trials: 40, epochs: 40}\n",
    "diabetes, one worker": (
        "data: {source: diabetes}\nmetric: mae\nbudget: {trials: 60, epochs: 60}\nworkers: {count: 1}\n"
    ),
}
MNIST = (
    "data: {source: MNIST, max_rows: 6000}\nspace: {neurons: {low: 32, high: 256, log: true}}\n"
    "budget: {trials: 12, epochs: 9}\n"
)
QUICK = "data: {source: iris}\nbudget: {trials: 2, epochs: 2}\n"

BEHIND = "5"
"""By so much Ray's workers are nicer than the dispatcher; see `search.pool`."""


def compare(name: str, text: str) -> dict[str, Any]:
    """One study foretold, then run."""
    command = [sys.executable, "-m", "neurosweep"]
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        (folder / "study.yaml").write_text(f"name: study\n{text}")
        load = os.getloadavg()[0]
        took, foretold = timed(
            ["nice", "-n", BEHIND, *command, "validate", "study.yaml", "--preview", "--json"], folder
        )
        preview = json.loads(foretold)["preview"]
        whole, ended = timed([*command, "run", "study.yaml", "--json"], folder)
    value, low, high = preview["seconds"]
    seconds = json.loads(ended)["seconds"]
    return {
        "study": name,
        "foretold": value,
        "low": low,
        "high": high,
        "seconds": seconds,
        "whole_process": whole,
        "preview_took": took,
        "factor": max(value / seconds, seconds / value),
        "inside": low <= seconds <= high,
        "load": [load, os.getloadavg()[0]],
    }


def compare_alone(name: str, text: str) -> dict[str, Any]:
    """One study foretold, then trained by one worker in this process; seconds of processor time."""
    spec, dataset = read_data(parse_study(f"name: study\n{text}"))
    mapping = spec.to_mapping()
    spec = StudySpec.from_mapping({**mapping, "workers": {**mapping["workers"], "count": 1}})
    with (
        patch("time.perf_counter", time.process_time),
        patch("search.forecast.IMPORTS", 0.0),
        tempfile.TemporaryDirectory() as folder,
    ):
        begun = time.process_time()
        ahead = preview(spec, dataset.input_shape, dataset.outputs, len(dataset.train))
        foretold = forecast(spec, dataset, ahead.draws)
        took = time.process_time() - begun
        study = Study(Path(folder), dataset, **{key: value for key, value in mapping.items() if key != "data"})
        begun = time.process_time()
        study.work(InProcessPool(1))
        seconds = time.process_time() - begun
    value, low, high = foretold.seconds.value, foretold.seconds.low, foretold.seconds.high
    trials = study.trials()
    return {
        "study": name,
        "foretold": value,
        "low": low,
        "high": high,
        "seconds": seconds,
        "preview_took": took,
        "factor": max(value / seconds, seconds / value),
        "inside": low <= seconds <= high,
        "epochs_foretold": foretold.epochs,
        "epochs": statistics.mean(trial.epochs for trial in trials),
        "load": [os.getloadavg()[0]] * 2,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--alone", action="store_true", help="in this process, by processor time")
    parser.add_argument("--mnist", type=Path, help="an mnist.npz; adds a study of it")
    parser.add_argument("--quick", action="store_true", help="one study of two trials")
    chosen = parser.parse_args()
    studies = {"iris": QUICK} if chosen.quick else dict(STUDIES)
    if chosen.mnist is not None and not chosen.quick:
        studies["MNIST, 6,000 rows"] = MNIST.replace("MNIST", str(chosen.mnist.resolve()))

    found = []
    for _ in range(1 if chosen.quick else chosen.repeat):
        for name, text in studies.items():
            found.append(compare_alone(name, text) if chosen.alone else compare(name, text))
            print(found[-1], file=sys.stderr, flush=True)
    rows = [
        (
            each["study"],
            each["foretold"],
            f"{each['low']:.0f} to {each['high']:.0f}",
            each["seconds"],
            each["factor"],
            "yes" if each["inside"] else "no",
            f"{each['load'][0]:.1f}, {each['load'][1]:.1f}",
        )
        for each in found
    ]
    print(table(("study", "foretold, s", "between", "took, s", "factor", "inside", "load before, after"), rows))
    good = sum(each["factor"] <= 1.5 for each in found)
    print(f"\n{good} of {len(found)} within a factor of 1.5, {sum(each['inside'] for each in found)} in their range")
    figures = {
        "studies": found,
        "within_1.5": good,
        "median_factor": statistics.median(each["factor"] for each in found),
    }
    name = "preview" + ("_alone" if chosen.alone else "") + ("_quick" if chosen.quick else "")
    print(f"\n{save(name, figures)}")


if __name__ == "__main__":
    main()
