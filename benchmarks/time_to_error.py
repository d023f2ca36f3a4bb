"""How long until a validation error is reached: neurosweep, Ray Tune and Syne Tune with ASHA, Optuna with Hyperband.

    python -m benchmarks.time_to_error [--seeds 3] [--seconds 60] [--mnist mnist.npz] [--only digits|mnist] [--quick]

Each system searches the default space of MLPs as a whole process (Optuna: two processes that share a study) for the
same seconds on the same splits, on two cores with one thread for each network. The error to reach is the one that the
peer with the best median ends with, seed by seed; the clock runs from the start of the process. Syne Tune takes part
where `syne-tune` is installed.

Last, 'train everything one rung, keep the top K': as many random networks as a quarter of the seconds allow get a ninth
of the epochs, the best of them are trained in full while the time lasts, by neurosweep's trainer in one process.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks import product
from benchmarks.report import REPOSITORY, save, spread, table
from search.study import Proposals
from search.study_file import data_request, parse_study
from storage.records import TrialState
from trainer.data.dataset import Dataset
from trainer.data.load import load
from trainer.settings import Settings
from trainer.work import Metric, TrialWork

STUDY = """\
name: search
seed: {seed}
data: {{source: {source}{rows}}}
budget: {{trials: 100000, epochs: {epochs}, minutes: {minutes}}}
workers: {{count: 2}}
"""

PEERS = {"Ray Tune, ASHA": ("ray_asha", 1), "Optuna, Hyperband, 2 processes": ("hyperband", 2)}
if importlib.util.find_spec("syne_tune") is not None:
    PEERS["Syne Tune, ASHA"] = ("syne_asha", 1)
OURS, BASELINE = "neurosweep, ASHA", "one rung, then the top K (1 process)"
TARGET = 3.0

Curve = list[tuple[float, float]]
"""Seconds since the start of the process, and the validation error of an epoch."""


def peer(module: str, processes: int, data: Path, epochs: int, seed: int, seconds: float) -> Curve:
    began = time.time()
    order = {"data": str(data), "epochs": epochs, "deadline": began + seconds}
    with tempfile.TemporaryDirectory() as folder:
        order["journal"] = str(Path(folder) / "journal.log")
        running = [
            subprocess.Popen(
                [sys.executable, "-m", f"benchmarks.peers.{module}", json.dumps({**order, "seed": 2 * seed + number})],
                cwd=REPOSITORY,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
            for number in range(processes)
        ]
        answers = [json.loads(process.communicate()[0].strip().splitlines()[-1]) for process in running]
    points = [(at - began, error) for answer in answers for at, error in answer["curve"]]
    return sorted(point for point in points if point[0] <= seconds)


def neurosweep(text: str, seconds: float) -> Curve:
    ran = product.run(text)
    points = [(ran.since_began(row.at), row.validation_metric) for row in ran.epochs]
    return sorted(point for point in points if point[0] <= seconds)


def one_rung(text: str, data: Dataset, epochs: int, seconds: float) -> Curve:
    """The sobering baseline of Egele et al. (2023), arXiv:2307.15422; random networks, in packs of eight."""
    began = time.time()
    spec = parse_study(text + "search: {sampler: random, pruner: none}\n")
    proposals = Proposals(spec, data.input_shape, "baseline")
    trainer = product.trainer_for(data)
    curve: Curve = []

    def book(trial: int, epoch: Any) -> None:
        curve.append((time.time() - began, epoch.validation_metric))

    rung, ranked = max(1, epochs // 9), []
    while time.time() - began < seconds / 4:
        works = []
        for _ in range(8):
            asked = proposals.ask()
            assert asked is not None
            proposals.tell(asked.number, TrialState.FAILED)
            settings = Settings.from_json(asked.settings)
            named: dict[str, Any] = {"metric": Metric.ERROR, "epochs": epochs, "until": rung}
            works.append(TrialWork(trial=asked.number, settings=settings, seed=asked.seed, **named))
        for work, result in zip(works, trainer.train(works, lambda: False, book), strict=True):
            if result.validation is not None:
                ranked.append((result.validation, work.trial, work))
    ranked.sort(key=lambda each: each[:2])
    for start in range(0, len(ranked), 8):
        batch = [replace(work, until=epochs) for _, _, work in ranked[start : start + 8]]
        trainer.train(batch, lambda: time.time() - began > seconds, book)
    return sorted(point for point in curve if point[0] <= seconds)


def final(curve: Curve) -> float:
    return min((error for _, error in curve), default=1.0)


def reached(curve: Curve, error: float) -> float | None:
    """Seconds until the error was reached or beaten; None where it never was."""
    return next((at for at, value in curve if value <= error + 1e-9), None)


def compare(name: str, source: str, rows: str, chosen: argparse.Namespace) -> tuple[list[tuple[object, ...]], Any]:
    """A table's lines for one dataset, and all curves."""
    curves: dict[str, list[Curve]] = {system: [] for system in (*PEERS, OURS, BASELINE)}
    for seed in range(chosen.seeds):
        named = {"seed": seed, "source": source, "rows": rows, "epochs": chosen.epochs}
        text = STUDY.format(minutes=chosen.seconds / 60, **named)
        data = load(data_request(parse_study(text)))
        with tempfile.TemporaryDirectory() as folder:
            splits = Path(folder) / "splits.npz"
            product.save_splits(data, splits)
            for system, (module, processes) in PEERS.items():
                curves[system].append(peer(module, processes, splits, chosen.epochs, seed, chosen.seconds))
        curves[OURS].append(neurosweep(text, chosen.seconds))
        curves[BASELINE].append(one_rung(text, data, chosen.epochs, chosen.seconds))
    best = min(PEERS, key=lambda system: statistics.median(map(final, curves[system])))
    lines: list[tuple[object, ...]] = []
    for system, runs in curves.items():
        times, ratios = [], []
        for run, theirs in zip(runs, curves[best], strict=True):
            at, peers_time = reached(run, final(theirs)), reached(theirs, final(theirs))
            times.append(float("inf") if at is None else at)
            ratios.append((peers_time or chosen.seconds) / times[-1])
        mark = " (the best peer)" if system == best else ""
        line = (name, system + mark, spread([final(run) for run in runs]), _shown(times), statistics.median(ratios))
        lines.append(line)
    return lines, curves


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--epochs", type=int, default=27)
    parser.add_argument("--only", choices=("digits", "mnist"))
    parser.add_argument("--mnist", type=Path, default=REPOSITORY.parent / "shared" / "data" / "mnist.npz")
    parser.add_argument("--quick", action="store_true", help="digits only, one seed, 14 seconds each")
    chosen = parser.parse_args()
    if chosen.quick:
        chosen.seeds, chosen.seconds, chosen.epochs, chosen.only = 1, 14.0, 3, "digits"
    sets = [("digits", "digits", ""), ("MNIST, 6,000 rows", str(chosen.mnist), ", max_rows: 6000")]
    if chosen.only != "digits" and not chosen.mnist.exists():
        print(f"{chosen.mnist} is missing: MNIST is left out; --mnist names its place.", file=sys.stderr)
        if chosen.only == "mnist":
            sys.exit(1)
        sets = sets[:1]
    if chosen.only:
        sets = [each for each in sets if each[0].lower().startswith(chosen.only)]
    lines, curves = [], {}
    for name, source, rows in sets:
        more, curves[name] = compare(name, source, rows, chosen)
        lines += more
    head = ("data", "system", "error at the end", "seconds to the best peer's last error", "times as fast as that peer")
    print(table(head, lines))
    print(f"\nThe target for neurosweep is {TARGET:g} times.")
    if len(PEERS) < 3:
        print("syne-tune is not installed here: Syne Tune is left out.")
    improvements = {
        name: {system: [_steps(run) for run in runs] for system, runs in found.items()}
        for name, found in curves.items()
    }
    figures = {"seeds": chosen.seeds, "seconds": chosen.seconds, "epochs": chosen.epochs, "curves": improvements}
    print(f"\n{save('time_to_error' + ('_quick' if chosen.quick else ''), figures)}")


def _shown(times: list[float]) -> str:
    found = [seconds for seconds in times if math.isfinite(seconds)]
    if len(found) == len(times):
        return spread(times)
    return f"{spread(found)}; {len(times) - len(found)} never" if found else "never"


def _steps(curve: Curve) -> Curve:
    """Only the points at which the best error became smaller."""
    steps: Curve = []
    for at, error in curve:
        if not steps or error < steps[-1][1]:
            steps.append((round(at, 3), error))
    return steps


if __name__ == "__main__":
    main()
