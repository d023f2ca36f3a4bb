"""Three rounds of search, diagnosis and refinement against one search of the same budget, from a bad first space.

    python -m benchmarks.rounds [--trials 45] [--epochs 12] [--seeds 5] [--mnist FILE] [--quick]

The first space is too small, too slow and too much held back: 2 to 8 neurons, learning rates up to 0.001, dropout
from 0.2 on. Both get as many epochs in all; what the reports between the rounds train beside it, at most a fifth of the
study's time, comes on top and is counted. All runs in this process, with one worker, as only errors are compared.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from benchmarks.report import REPOSITORY, save, table
from search.insight.reporting import make_report
from search.insight.rounds import Rounds, first_round, rounds_document
from search.spec import StudySpec
from storage.records import NewStudy, StudyRecord
from tests.search.workshop import Workshop

SPACE: dict[str, Any] = {
    "layers": {"low": 1, "high": 2},
    "neurons": {"low": 2, "high": 8, "log": True},
    "learning_rate": {"low": 1e-5, "high": 1e-3, "log": True},
    "dropout": {"low": 0.2, "high": 0.5},
}


def new_study(data: dict[str, Any], trials: int, epochs: int, seed: int) -> NewStudy:
    budget = {"trials": trials, "epochs": epochs}
    mapping = {"name": "study", "seed": seed, "data": data, "space": SPACE, "budget": budget}
    spec = StudySpec.from_mapping(mapping)
    return NewStudy(name=spec.name, spec=spec.to_mapping(), text=spec.to_yaml(), trials=trials)


def one_search(new: NewStudy, folder: Path) -> dict[str, Any]:
    with pytest.MonkeyPatch.context() as patch:
        shop = Workshop(folder, patch)
        ended = shop.work(shop.store.submit(new))
        figures = {**_errors(ended), "epochs": _epochs(shop, [ended])}
        shop.store.close()
    return figures


def three_rounds(new: NewStudy, folder: Path, rounds: int = 3) -> dict[str, Any]:
    with pytest.MonkeyPatch.context() as patch:
        shop = Workshop(folder, patch)
        first = shop.store.submit(first_round(new, rounds))

        def report(study: StudyRecord) -> Any:
            return make_report(
                shop.store, study, shop.places, thorough=False, on_progress=shop.shown.append, stop=shop.stop
            )

        ended = Rounds(shop.store, first, shop.places, shop.shown.append, shop.stop, report).work()
        studies = shop.store.rounds(str(first.tree))
        extra = sum(run.epochs for study in studies for run in shop.store.extra_runs(study.id))
        figures = {
            **_errors(ended.study),
            "epochs": _epochs(shop, studies),
            "extra_epochs": extra,
            "rounds": rounds_document(shop.store, str(first.tree)),
        }
        shop.store.close()
    return figures


def _errors(study: StudyRecord) -> dict[str, float]:
    best = (study.result or {})["best"]
    return {"validation": best["validation"], "test": best["test"]}


def _epochs(shop: Workshop, studies: list[StudyRecord]) -> int:
    """That were trained, of all trials together."""
    return sum(trial.epochs for study in studies for trial in shop.trials(study))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=45)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--mnist", type=Path, default=REPOSITORY.parent / "shared" / "data" / "mnist.npz")
    parser.add_argument("--only", help="One of the data sets.")
    parser.add_argument("--quick", action="store_true", help="one small set, one seed, 6 trials of 2 epochs")
    chosen = parser.parse_args()
    trials, epochs, seeds = (6, 2, 1) if chosen.quick else (chosen.trials, chosen.epochs, chosen.seeds)

    sets: dict[str, dict[str, Any]] = {
        name: {"source": name} for name in ("breast_cancer",) + (() if chosen.quick else ("diabetes", "digits"))
    }
    if not chosen.quick and chosen.mnist.exists():
        sets["MNIST, 1,500 rows"] = {"source": str(chosen.mnist), "max_rows": 1500}
    elif not chosen.quick:
        print(f"{chosen.mnist} is missing: MNIST is left out; --mnist names its place.", file=sys.stderr)

    figures: dict[str, list[dict[str, Any]]] = {}
    for name, data in sets.items():
        if chosen.only not in (None, name):
            continue
        figures[name] = []
        for seed in range(seeds):
            new = new_study(data, trials, epochs, seed)
            with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as three:
                pair = {"one": one_search(new, Path(one)), "three": three_rounds(new, Path(three))}
            figures[name].append(pair)
            print(name, seed, {key: run["test"] for key, run in pair.items()}, file=sys.stderr)
    head = ("data", "one search, test", "three rounds, test", "rounds better", "one, validation", "three, validation")
    print(table((*head, "epochs, one", "epochs, three", "beside them"), [_line(*item) for item in figures.items()]))
    name = "rounds_quick" if chosen.quick else "rounds"
    print(f"\n{save(name, {'trials': trials, 'epochs': epochs, 'seeds': seeds, 'runs': figures})}")


def _line(name: str, pairs: list[dict[str, Any]]) -> tuple[object, ...]:
    def spread(kind: str, key: str) -> str:
        values = [pair[kind][key] for pair in pairs]
        return f"{statistics.median(values):.4g} ({min(values):.4g} to {max(values):.4g})"

    def mean(kind: str, key: str) -> int:
        return round(statistics.mean(int(pair[kind][key]) for pair in pairs))

    better = sum(pair["three"]["test"] < pair["one"]["test"] for pair in pairs)
    equal = sum(pair["three"]["test"] == pair["one"]["test"] for pair in pairs)
    return (
        name,
        spread("one", "test"),
        spread("three", "test"),
        f"{better} of {len(pairs)}" + (f", {equal} equal" if equal else ""),
        spread("one", "validation"),
        spread("three", "validation"),
        mean("one", "epochs"),
        mean("three", "epochs"),
        mean("three", "extra_epochs"),
    )


if __name__ == "__main__":
    main()
