"""Trials a second on the digits MLP study: Ray Tune, neurosweep, and a bare loop over the very same trials.

    python -m benchmarks.against_ray_tune [--trials 16] [--epochs 20] [--repeat 3] [--quick]

Whole processes, one after the other, in turn. 'Start-up left out' is from the first trial's start to the last one's
end; for Ray Tune, whose trials are processes of their own, the time inside `Tuner.fit`. The bare loop trains what
neurosweep's run with one worker proposed, with one thread as well.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from benchmarks.report import REPOSITORY, save, spread, table, timed

STUDY = """\
name: digits
seed: {seed}
data: {{source: digits}}
search: {{pruner: none}}
budget: {{trials: {trials}, epochs: {epochs}}}
workers: {{count: {workers}}}
"""


def ray_tune(trials: int, epochs: int, workers: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.peers.ray_tune", str(trials), str(epochs), str(workers)]
    seconds, printed = timed(command, REPOSITORY)
    inside = json.loads(printed[printed.rindex("\n{") if "\n{" in printed else 0 :])
    return {"whole": seconds, "inside": inside["seconds"], "best": inside["best"]}


def neurosweep(trials: int, epochs: int, workers: int, seed: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "study.yaml").write_text(STUDY.format(trials=trials, epochs=epochs, workers=workers, seed=seed))
        program = [sys.executable, "-m", "neurosweep"]
        seconds, printed = timed([*program, "run", "study.yaml", "--json"], folder)
        _, status = timed([*program, "status", "digits", "--json"], folder)
        inside, settings = _inside(folder / ".neurosweep" / "neurosweep.db", json.loads(status))
    best = json.loads(printed)["best"]["validation"]
    return {"whole": seconds, "inside": inside, "best": best, "settings": settings}


def _inside(database: Path, status: dict[str, Any]) -> tuple[float, list[dict[str, Any]]]:
    """Seconds from the first trial's start in its worker to the last one's end, and the settings of all."""
    from storage.store import Store

    store = Store.open(f"sqlite:///{database}")
    trials = store.trials(store.find(status["study"]).id)
    # A trial is proposed while the workers still start: it began to train its own seconds before its end.
    spans: list[tuple[datetime, datetime]] = [
        (trial.ended_at - timedelta(seconds=trial.seconds), trial.ended_at) for trial in trials if trial.ended_at
    ]
    seconds = (max(end for _, end in spans) - min(start for start, _ in spans)).total_seconds()
    return seconds, [trial.params for trial in trials]


def bare_loop(settings: list[dict[str, Any]], epochs: int) -> dict[str, Any]:
    ended = subprocess.run(
        [sys.executable, "-m", "benchmarks.peers.bare_loop"],
        cwd=REPOSITORY,
        input=json.dumps({"trials": settings, "epochs": epochs}),
        capture_output=True,
        text=True,
        check=True,
    )
    figures: dict[str, Any] = json.loads(ended.stdout)
    return {"inside": figures["seconds"], "best": figures["best"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=16)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="one repetition of 4 trials of 2 epochs")
    chosen = parser.parse_args()
    trials, epochs, repeat = (4, 2, 1) if chosen.quick else (chosen.trials, chosen.epochs, chosen.repeat)

    runs: dict[str, list[dict[str, Any]]] = {"tune": [], "two": [], "one": [], "bare": []}
    for seed in range(repeat):
        runs["tune"].append(ray_tune(trials, epochs, 2))
        runs["two"].append(neurosweep(trials, epochs, 2, seed))
        runs["one"].append(neurosweep(trials, epochs, 1, seed))
        runs["bare"].append(bare_loop(runs["one"][-1].pop("settings"), epochs))
        runs["two"][-1].pop("settings")

    names = {
        "tune": "Ray Tune + OptunaSearch, 2 at a time",
        "two": "neurosweep, 2 workers",
        "one": "neurosweep, 1 worker",
        "bare": "bare PyTorch loop, 1 process, the same trials",
    }
    rows = []
    for key, name in names.items():
        whole = spread([run["whole"] for run in runs[key]]) if "whole" in runs[key][0] else "-"
        rate = spread([trials / run["inside"] for run in runs[key]])
        rows.append((name, whole, rate, spread([run["best"] for run in runs[key]])))
    print(table(("what", "whole process, s", "trials a second, start-up left out", "best validation error"), rows))

    def ratio(over: str, under: str, figure: str) -> float:
        pairs = zip(runs[over], runs[under], strict=True)
        return float(statistics.median(a[figure] / b[figure] for a, b in pairs))

    ratios = {
        "trials a second, over Ray Tune's": ratio("tune", "two", "inside"),
        "whole process, over Ray Tune's": ratio("tune", "two", "whole"),
        "one worker over the bare loop": ratio("bare", "one", "inside"),
    }
    print()
    print(table(("ratio, median of the pairs", "times"), list(ratios.items())))
    figures = {"trials": trials, "epochs": epochs, "repeat": repeat, "runs": runs, "ratios": ratios}
    print(f"\n{save('against_ray_tune' + ('_quick' if chosen.quick else ''), figures)}")


if __name__ == "__main__":
    main()
