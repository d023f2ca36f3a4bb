"""The page of a table's model: which columns matter, how the answer moves with each, and a row to change."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from sklearn.metrics import confusion_matrix

from neurosweep.errors import BadInputError
from search.explain.columns import Array, Ask, Dependence, Importance, dependence, grid, permutation_importances
from search.explain.image_data import CHECKED, MOST_CELLS, PAGE_BYTES, network_data
from search.insight.levels import measure, row_losses
from search.pages.shell import render
from trainer.data.columns import Column, ColumnKind
from trainer.data.dataset import Dataset, Task
from trainer.settings import Settings
from trainer.work import Metric

SCRIPTS = (
    "viewer_network.js",
    "table_model.js",
    "table_plots.js",
    "table_form.js",
    "table_columns.js",
    "table_mistakes.js",
    "table.js",
)

FRAME_BYTES = 150_000
"""Room for the style, the scripts, and the figures in the page."""

ROWS_BYTES, DEPENDENCE_BYTES = 2_000_000, 3_000_000
"""Room for raw rows and for dependences, where the weights leave it."""

ASKED_ROWS, MEAN_ROWS, LINES = 1_000, 200, 20
"""Rows behind an importance, behind a mean answer, and those with lines of their own."""

MOST_ROWS, MOST_WRONG = 500, 20
ROW_BYTES = 60
"""That a row takes beside its values."""

MOST_COLUMNS, MOST_ANSWERS = 60, 12
"""With a dependence: the columns that matter most, the classes with the most rows."""

METRIC_NAMES = {
    Metric.ERROR: "error",
    Metric.BALANCED_ERROR: "balanced error",
    Metric.LOG_LOSS: "log loss",
    Metric.MSE: "mean squared error",
    Metric.MAE: "mean absolute error",
}

BARS = 30
"""Of a regression target's histogram."""


def table_page(
    *,
    study: str,
    metric: Metric,
    settings: Settings,
    weights: dict[str, Array],
    dataset: Dataset,
    columns: Sequence[Column],
    split: str,
    outputs: Array,
    truth: Array,
    ask: Ask,
    seed: int,
) -> str:
    """One self-contained HTML file, under 10 MB.

    Args:
        study: The study's label.
        metric: What the study's trials are compared by.
        weights: The winner's, under the names of `trainer.networks.build`.
        columns: The source's raw ones, as `trainer.data.load.raw_columns` gives them.
        split: Where the rows come from: ``test``, or ``validation`` while the test split is shut.
        outputs: The winner's answers for that split, as `trainer.work.TestResult` has them.
        truth: Class indices, or targets in their units, of shape (rows,).
        ask: The winner's answers for any encoded rows.
        seed: For the draws of rows and the shuffling.

    Raises:
        BadInputError: The data are no table, or the network has more weights than a page of that size can hold.
    """
    preprocessing = dataset.preprocessing
    if preprocessing.kind != "table":
        raise BadInputError(f"this page shows networks for tables, but the study's data are {preprocessing.kind}s")
    # A table is standardised before the network: the page's images are not.
    network = {**network_data(settings, weights, dataset), "mean": [0.0], "std": [1.0]}
    room = max(0, PAGE_BYTES - FRAME_BYTES - len(network["weights"]["text"]))
    held_out = dataset.test if split == "test" else dataset.validation
    random = np.random.default_rng(seed)
    asked = np.sort(random.permutation(len(held_out))[:ASKED_ROWS])
    inputs = held_out.inputs[asked]
    importances = permutation_importances(ask, metric, inputs, truth[asked], preprocessing, seed)
    order = sorted(range(len(columns)), key=lambda index: -importances[index].value)
    answers = _shown_answers(dataset)
    averaged = random.permutation(inputs)[:MEAN_ROWS]
    dependences = (
        (index, dependence(ask, index, grid(columns[index], dataset.train.rows), averaged, preprocessing, LINES))
        for index in order[:MOST_COLUMNS]
    )
    rows = _rows(columns, metric, held_out.rows, outputs, truth, random, min(ROWS_BYTES, room // 3))
    classes = [str(name) for name in preprocessing.classes]
    data = {
        "study": study,
        "metric": str(metric),
        "split": split,
        "classes": classes,
        "target": {
            "name": preprocessing.target_name,
            "mean": preprocessing.target_mean,
            "std": preprocessing.target_std,
        },
        "columns": [
            _column(column, record, importance, dataset.train.rows)
            for column, record, importance in zip(columns, preprocessing.columns, importances, strict=True)
        ],
        "order": order,
        "answers": answers,
        "dependences": dict(_fitting(dependences, answers, _step(dataset), min(DEPENDENCE_BYTES, room // 3))),
        "histogram": None if classes else _histogram(dataset),
        "network": network,
        "matrix": len(classes) <= MOST_CELLS,
        **rows,
    }
    return render(
        "table.html",
        data=data,
        scripts=SCRIPTS,
        study=study,
        metric=METRIC_NAMES[metric],
        value=f"{measure(metric, truth, outputs):.4g}",
        target=preprocessing.target_name,
        classes=classes,
        split=split,
        rows=len(truth),
        shown=len(rows["rows"]["ids"]),
        asked=len(asked),
        wrong=int(np.sum(outputs.argmax(axis=1) != truth)) if classes else None,
        columns=len(columns),
        layers=network["layers"],
        weight_count=network["weight_count"],
        halved=network["weights"]["bytes"] == 2,
    )


def _shown_answers(dataset: Dataset) -> list[int]:
    """The classes whose dependences are shown, or the only answer of a regression."""
    if dataset.task is not Task.CLASSIFICATION:
        return [0]
    counts = np.bincount(dataset.train.targets, minlength=dataset.outputs)
    return sorted(np.argsort(-counts, kind="stable")[:MOST_ANSWERS].tolist())


def _column(column: Column, record: dict[str, Any], importance: Importance, train: Array) -> dict[str, Any]:
    """What the page needs of a column: how it is encoded, what values it has, what it is worth."""
    told = {**record, "importance": [importance.value, importance.low, importance.high]}
    if column.is_number:
        known = column.values[train][~column.missing[train]]
        told["whole"] = column.kind is ColumnKind.WHOLE
        told["range"] = [float(known.min()), float(known.max())]
        told["deciles"] = np.quantile(known, np.linspace(0.1, 0.9, 9)).tolist()
    return told


def _fitting(
    dependences: Iterable[tuple[int, Dependence]], answers: list[int], step: float, room: int
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Dependences as the page reads them, one after the other, until there is no room for the next one. Answers are
    told in whole steps.

    ``mean`` has for each answer its values; ``lines`` for each answer and row.
    """
    for index, found in dependences:
        told = {
            "values": found.values,
            "mean": [_in_steps(found.mean[:, answer], step) for answer in answers],
            "lines": [[_in_steps(line[:, answer], step) for line in found.lines] for answer in answers],
        }
        room -= _size(told)
        if room < 0:
            return
        yield index, told


def _rows(
    columns: Sequence[Column],
    metric: Metric,
    ids: Array,
    outputs: Array,
    truth: Array,
    random: np.random.Generator,
    room: int,
) -> dict[str, Any]:
    """Raw rows of a split: those that the network gets most wrong, and others by chance, as many as there is room for.

    Returns:
        ``rows`` has their ids in the source, their values and the truth; ``worst`` are indices into it; ``checked``
        says what PyTorch makes of the first ones; ``confusion`` counts the rows of each class (down) by answer
        (across), the whole split's.
    """
    classification = outputs.ndim == 2
    losses = row_losses(Metric.LOG_LOSS if classification else Metric.MAE, truth, outputs)
    answers = outputs.argmax(axis=1) if classification else outputs
    wrong = np.flatnonzero(answers != truth)
    worst = wrong[np.argsort(-losses[wrong], kind="stable")][:MOST_WRONG]
    values: dict[int, list[Any]] = {}
    for row in dict.fromkeys([*worst.tolist(), *random.permutation(len(truth)).tolist()]):
        told = [_raw(column, ids[row]) for column in columns]
        room -= _size(told) + ROW_BYTES
        if len(values) == MOST_ROWS or (room < 0 and values):
            break
        values[row] = told
    chosen = sorted(values)
    return {
        "rows": {
            "ids": ids[chosen].tolist(),
            "values": [values[row] for row in chosen],
            "truth": truth[chosen].tolist(),
            "answer": answers[chosen].tolist(),
        },
        "worst": [chosen.index(row) for row in worst.tolist() if row in values],
        "checked": [np.atleast_1d(outputs[row]).tolist() for row in chosen[:CHECKED]],
        "confusion": (
            confusion_matrix(truth, answers, labels=range(outputs.shape[1])).tolist() if classification else None
        ),
    }


def _raw(column: Column, row: int) -> Any:
    """A number, a category's text as `Preprocessing` spells it, or None for a missing one."""
    return column.raw(row) if column.is_number else column.values[row]


def _histogram(dataset: Dataset) -> dict[str, Any]:
    """The target in the train split, in its units."""
    preprocessing = dataset.preprocessing
    targets = dataset.train.targets.astype(np.float64) * preprocessing.target_std + preprocessing.target_mean
    counts, edges = np.histogram(targets, bins=BARS)
    return {"counts": counts.tolist(), "low": float(edges[0]), "high": float(edges[-1])}


def _step(dataset: Dataset) -> float:
    """The smallest difference between two answers that a picture shows, a power of ten."""
    spread = dataset.preprocessing.target_std if dataset.task is Task.REGRESSION else 1.0
    return float(10.0 ** (math.floor(math.log10(spread)) - 4))


def _in_steps(values: Array, step: float) -> list[float | None]:
    """None for what is not finite."""
    whole = np.round(values / step).tolist()
    return [float(f"{steps * step:.12g}") if math.isfinite(steps) else None for steps in whole]


def _size(told: Any) -> int:
    return len(json.dumps(told))
