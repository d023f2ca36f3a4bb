"""The end of a study: the winner's weights, its one look at the test split, its champion, its plots, its result."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from neurosweep.errors import NeurosweepError
from search import side_runs
from search.budget import StoppedFor
from search.champion import choose
from search.checkpoint import BestNetwork, Checkpoint
from search.insight.findings import Level
from search.insight.levels import chance, interval, quick_levels
from search.insight.quick import opened_before, sentences
from search.insight.winner import whole_run
from search.leaders import SHOWN, leaders, trial_counts, trial_figures
from search.packing import Packing
from search.plots import draw
from search.pool import Pool
from search.spec import StudySpec
from search.study import Proposals
from storage.records import Claim, EpochRow, StudyRecord, TrialRecord
from storage.store import Store
from trainer.data.dataset import Dataset
from trainer.settings import Settings
from trainer.work import Metric, Outcome, TestResult


def conclude(
    *,
    claim: Claim,
    spec: StudySpec,
    metric: Metric,
    dataset: Dataset,
    pool: Pool,
    proposals: Proposals,
    checkpoint: Checkpoint,
    store: Store,
    trials: Sequence[TrialRecord],
    epochs: Sequence[EpochRow],
    folder: Path,
    started: float,
    stopped_for: StoppedFor | None = None,
    on_stage: Callable[[str], None] = lambda stage: None,
) -> dict[str, Any]:
    """Chooses the winner, opens the test split for it, and writes the champion and the plots into `folder`.

    That it is opened is recorded first. A study that is resumed and has the same winner as before keeps its test
    figures: the split stays shut. So it does for a sealed study, which has no champion either: another round may have
    the winner of all rounds.

    Args:
        started: When the study was claimed, by `time.monotonic`.
        stopped_for: Why trials that were asked for have not begun.
        on_stage: Told what goes on, in a few words.

    Returns:
        The result, as JSON values.

    Raises:
        NeurosweepError: The winner could not be trained again or saved, or its test metric is not finite.
    """
    choice = choose(store, claim.study, spec, dataset, pool, trials, on_stage)
    winner = choice.trial
    on_stage("choosing the winner" if claim.study.sealed else "testing the winner")
    settings = Settings.from_json(winner.settings)
    weights = _winning_weights(winner, spec, dataset, pool, checkpoint)
    sealed, opened_for = claim.study.sealed, _opened_for(claim.study)
    test = None
    if sealed:
        figures = {"test": None, "test_interval": None}
    elif opened_for == winner.number:
        figures = {key: (claim.study.result or {})["best"][key] for key in ("test", "test_interval")}
    else:
        reason = "the winner" if claim.study.tree is None else "the winner of all rounds"
        store.record_opening(claim.study.id, winner.number, reason)
        test = pool.test(settings, weights, metric)
        figures = _test_figures(winner, spec, metric, test)
    exported = None if sealed else pool.export(settings, weights)  # takes about as long as the plots do
    draw(
        folder / "plots",
        metric=metric,
        trials=trials,
        epochs=epochs,
        study=proposals.optuna_study,
        dataset=dataset,
        test=test,
    )
    if exported is not None:
        _save_champion(folder / "champion", exported(), dataset)
    result = _result(claim, spec, metric, dataset, trials, winner, figures, time.monotonic() - started)
    result |= {"stopped_for": stopped_for, "ties": list(choice.tied)}
    if choice.why is not None:
        result["worth"].append(choice.why)
    if stopped_for is StoppedFor.NO_GAIN:
        result["worth"].append(
            f"The search ended after {len(trials)} of {claim.study.trials} trials: the others were not expected to "
            f"gain more than the noise of the validation {metric}."
        )
    if not sealed and opened_for not in (None, winner.number):
        result["worth"].append(opened_before(opened_for))
    return result


def _opened_for(study: StudyRecord) -> int | None:
    """The trial that the test split has been opened for at an earlier end of the study."""
    best = (study.result or {}).get("best") or {}
    return best.get("trial") if best.get("test") is not None else None


def _test_figures(winner: TrialRecord, spec: StudySpec, metric: Metric, test: TestResult) -> dict[str, Any]:
    bounds = interval(metric, test, spec.seed)
    if not np.isfinite([test.value, *bounds]).all():
        # JSON has no word for it, nor has PostgreSQL.
        raise NeurosweepError(
            f"The winner, trial {winner.number}, has no finite {metric} on the test split: a row there lies too far "
            "from those that it learnt from. Look for outliers or wrong units in the data.",
            spec.data.source,
        )
    return {"test": test.value, "test_interval": list(bounds)}


def _winning_weights(
    winner: TrialRecord, spec: StudySpec, dataset: Dataset, pool: Pool, checkpoint: Checkpoint
) -> dict[str, Any]:
    """The kept weights; where they are missing or damaged, the winner is trained again from its seed."""
    best = checkpoint.best
    if best is not None and best.trial == winner.number:
        return best.weights
    (result,) = side_runs.train([whole_run(winner, spec)], pool, Packing.of(1, dataset, pool))
    if result.outcome is not Outcome.FINISHED or result.weights is None:
        reason = result.reason or "it gave no weights"
        raise NeurosweepError(f"The winner, trial {winner.number}, could not be trained again: {reason}")
    checkpoint.keep(
        BestNetwork(trial=winner.number, validation=float(winner.validation or 0.0), weights=result.weights)
    )
    return result.weights


def _save_champion(folder: Path, program: bytes, dataset: Dataset) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "network.pt2").write_bytes(program)
    (folder / "preprocessing.json").write_text(json.dumps(asdict(dataset.preprocessing)), encoding="utf-8")
    if isinstance(dataset.example, np.ndarray):
        np.save(folder / "example.npy", dataset.example, allow_pickle=False)
    else:
        (folder / "example.json").write_text(json.dumps(dataset.example), encoding="utf-8")


def _result(
    claim: Claim,
    spec: StudySpec,
    metric: Metric,
    dataset: Dataset,
    trials: Sequence[TrialRecord],
    winner: TrialRecord,
    figures: dict[str, Any],
    seconds: float,
) -> dict[str, Any]:
    guess, worth = _worth(spec, metric, dataset, winner, figures)
    return {
        "study": claim.study.label,
        "state": "finished",
        "metric": str(metric),
        "trials": trial_counts(trials),
        "best": {
            **trial_figures(winner),
            **figures,
            "weights": winner.weights,
            "model": None if figures["test"] is None else f"models:/{claim.study.name}@champion",
        },
        "splits": {
            "train": len(dataset.train),
            "validation": len(dataset.validation),
            "test": len(dataset.test),
        },
        "seconds": round(seconds, 2),
        "chance": guess,
        "worth": worth,
        "leader": [trial_figures(trial) for trial in leaders(trials)[:SHOWN]],
    }


def _worth(
    spec: StudySpec, metric: Metric, dataset: Dataset, winner: TrialRecord, figures: dict[str, Any]
) -> tuple[float, list[str]]:
    """The best constant guess, and what the winner's figures say."""
    if figures["test"] is None:
        guess = chance(metric, dataset, dataset.validation, spec.seed).value
        return guess, ["The test split stays shut until the last round has chosen the winner of them all."]
    low, high = figures["test_interval"]
    known = quick_levels(
        metric=metric,
        dataset=dataset,
        train=float(winner.train or 0.0),
        validation=float(winner.validation or 0.0),
        test=Level(value=figures["test"], low=low, high=high),
        human=spec.human,
        target=spec.budget.target,
        seed=spec.seed,
    )
    return known.chance.value, sentences(known, metric=str(metric), rows=len(dataset.test))
