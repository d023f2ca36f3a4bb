"""The pictures of a finished study, written as files for the parent run in MLflow."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import optuna
from matplotlib.figure import Figure
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from sklearn.metrics import confusion_matrix

from storage.records import EpochRow, TrialRecord, TrialState
from trainer.data.dataset import Dataset, Task
from trainer.work import TestResult

mpl.use("Agg")

SHOWN_CURVES = 10
MOST_CLASSES = 40
MOST_TICKS = 12
LEAST_FOR_IMPORTANCE = 8
"""Complete trials under which importances would be noise."""


def draw(
    folder: Path,
    *,
    metric: str,
    trials: Sequence[TrialRecord],
    epochs: Sequence[EpochRow],
    study: optuna.Study,
    dataset: Dataset | None,
    test: TestResult | None,
) -> None:
    """Writes ``history.png``, ``learning_curves.png``, ``importances.png``, ``parallel_coordinates.html`` and, where
    there is a winner, ``confusion_matrix.png`` or ``predicted_against_true.png`` into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a glyph that the font lacks, or of a class's long name
        _history(folder / "history.png", metric, trials)
        _learning_curves(folder / "learning_curves.png", metric, trials, epochs)
        _importances(folder / "importances.png", study)
        _parallel_coordinates(folder / "parallel_coordinates.html", metric, trials)
        if dataset is not None and test is not None:
            if dataset.task is Task.CLASSIFICATION:
                _confusion(folder / "confusion_matrix.png", dataset, test)
            else:
                _predicted_against_true(folder / "predicted_against_true.png", dataset, test)


def _measured(trials: Sequence[TrialRecord]) -> list[TrialRecord]:
    return [trial for trial in trials if trial.validation is not None and math.isfinite(trial.validation)]


def _complete(trials: Sequence[TrialRecord]) -> list[TrialRecord]:
    return [trial for trial in _measured(trials) if trial.state is TrialState.COMPLETE]


def _values(trials: Sequence[TrialRecord]) -> list[float]:
    return [trial.validation for trial in trials if trial.validation is not None]


def _history(path: Path, metric: str, trials: Sequence[TrialRecord]) -> None:
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for state, colour in ((TrialState.COMPLETE, "tab:blue"), (TrialState.PRUNED, "lightgrey")):
        shown = [trial for trial in _measured(trials) if trial.state is state]
        if shown:
            numbers = [trial.number for trial in shown]
            axes.scatter(numbers, _values(shown), s=16, color=colour, label=state.value)
    complete = _complete(trials)
    if complete:
        best = np.minimum.accumulate(_values(complete))
        axes.step([trial.number for trial in complete], best, where="post", color="tab:red", label="best so far")
    axes.set(xlabel="trial", ylabel=f"validation {metric}", title="Optimisation history")
    if axes.get_legend_handles_labels()[0]:
        axes.legend()
    figure.savefig(path, dpi=110)


def _learning_curves(path: Path, metric: str, trials: Sequence[TrialRecord], epochs: Sequence[EpochRow]) -> None:
    """The best trials' curves: solid for validation, dashed for training."""
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot()
    best = sorted(_complete(trials), key=lambda trial: (trial.validation, trial.number))[:SHOWN_CURVES]
    by_trial: dict[int, list[EpochRow]] = {trial.number: [] for trial in best}
    for row in epochs:
        if row.trial in by_trial:
            by_trial[row.trial].append(row)
    for index, (number, rows) in enumerate(by_trial.items()):
        rows.sort(key=lambda row: row.epoch)
        steps = [row.epoch for row in rows]
        colour = mpl.colormaps["viridis"](index / max(1, len(best)))
        axes.plot(steps, [row.validation_metric for row in rows], color=colour, label=f"trial {number}")
        axes.plot(steps, [row.train_metric for row in rows], color=colour, linestyle="--", linewidth=0.8)
    axes.set(
        xlabel="epoch", ylabel=metric, title="Learning curves of the best trials (solid: validation, dashed: training)"
    )
    if best:
        axes.legend(fontsize="small")
    figure.savefig(path, dpi=110)


def _importances(path: Path, study: optuna.Study) -> None:
    """PED-ANOVA (Watanabe et al. 2023, IJCAI), Optuna's: fast, and it copes with thousands of trials."""
    complete = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
    if len(complete) < LEAST_FOR_IMPORTANCE or len({trial.value for trial in complete}) < 2:
        return
    shared = set.intersection(*(set(trial.params) for trial in complete))
    if not shared:
        return
    importances = get_param_importances(study, evaluator=PedAnovaImportanceEvaluator(), params=sorted(shared))
    figure = Figure(figsize=(8, 0.8 + 0.35 * len(importances)), layout="constrained")
    axes = figure.add_subplot()
    names = list(importances)[::-1]
    axes.barh(names, [importances[name] for name in names])
    axes.set(xlabel="importance", title="Which settings matter (PED-ANOVA)")
    figure.savefig(path, dpi=110)


def _parallel_coordinates(path: Path, metric: str, trials: Sequence[TrialRecord]) -> None:
    """A page of its own that takes any number of trials; one line a trial; what a trial lacks is below the axis."""
    import plotly.graph_objects as go

    shown = _measured(trials)
    if not shown:
        return
    names = list(dict.fromkeys(name for trial in shown for name in trial.params))
    dimensions = [_dimension(name, [trial.params.get(name) for trial in shown]) for name in names]
    values = _values(shown)
    dimensions = [dimension for dimension in dimensions if dimension is not None]
    dimensions.append({"label": f"validation {metric}", "values": values})
    best, worst = min(values), float(np.percentile(values, 90))
    line = {"color": values, "colorscale": "Viridis", "cmin": best, "cmax": max(worst, best + 1e-12), "showscale": True}
    figure = go.Figure(go.Parcoords(dimensions=dimensions, line=line))
    figure.update_layout(
        width=max(1000, 110 * len(dimensions)), height=560, margin={"l": 80, "r": 80, "t": 60, "b": 30}
    )
    figure.write_html(path, include_plotlyjs=True)


def _dimension(name: str, values: list[Any]) -> dict[str, Any] | None:
    """One axis; None where all trials agree."""
    present = [value for value in values if value is not None]
    distinct = sorted(set(present), key=lambda value: (str(type(value)), value))
    if len(distinct) < 2 and len(present) == len(values):
        return None
    numeric = all(isinstance(value, int | float) and not isinstance(value, bool) for value in distinct)
    if numeric and len(distinct) > 1:
        logarithmic = min(distinct) > 0 and max(distinct) / min(distinct) >= 50
        scaled = [math.log10(value) if logarithmic else value for value in distinct]
        low, high = min(scaled), max(scaled)
        absent = low - 0.1 * (high - low)
        positions = [absent if value is None else (math.log10(value) if logarithmic else value) for value in values]
        dimension: dict[str, Any] = {"label": f"log10 {name}" if logarithmic else name, "values": positions}
        if not logarithmic and len(distinct) <= MOST_TICKS and all(isinstance(value, int) for value in distinct):
            dimension["tickvals"] = distinct  # no half layers
    else:
        order = {value: index for index, value in enumerate(distinct)}
        positions = [-1 if value is None else order[value] for value in values]
        dimension = {
            "label": name,
            "values": positions,
            "tickvals": list(order.values()),
            "ticktext": [str(value) for value in order],
        }
    return dimension


def _confusion(path: Path, dataset: Dataset, test: TestResult) -> None:
    counts = confusion_matrix(test.truth, test.outputs.argmax(1), labels=range(dataset.outputs))
    names = [str(name) for name in dataset.preprocessing.classes]
    side = min(12.0, 3 + 0.45 * len(names))
    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(counts, cmap="Blues")
    if len(names) <= MOST_CLASSES:
        axes.set_xticks(range(len(names)), names, rotation=90 if max(map(len, names)) > 2 else 0)
        axes.set_yticks(range(len(names)), names)
        threshold = counts.max() / 2
        for row, column in np.argwhere(counts > 0):
            colour = "white" if counts[row, column] > threshold else "black"
            axes.text(column, row, str(counts[row, column]), ha="center", va="center", color=colour, fontsize="small")
    axes.set(xlabel="predicted", ylabel="true", title="The winner on the test split")
    figure.savefig(path, dpi=110)


def _predicted_against_true(path: Path, dataset: Dataset, test: TestResult) -> None:
    figure = Figure(figsize=(6, 6), layout="constrained")
    axes = figure.add_subplot()
    axes.scatter(test.truth, test.outputs, s=12, alpha=0.6)
    ends = [float(min(test.truth.min(), test.outputs.min())), float(max(test.truth.max(), test.outputs.max()))]
    axes.plot(ends, ends, color="grey", linewidth=0.8)
    name = dataset.preprocessing.target_name
    axes.set(xlabel=f"true {name}", ylabel=f"predicted {name}", title="The winner on the test split")
    figure.savefig(path, dpi=110)
