"""What the data themselves tell: splits that are too small, duplicates, leaks, constant columns, rare classes, and
labels that are likely to be wrong."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from search.insight.decision import judged
from search.insight.duplicates import duplicates
from search.insight.findings import DataFindings, Levels, Suspect
from search.insight.levels import SHARES, difference, row_losses, wilson
from search.insight.plain_words import figure
from trainer.data.dataset import Dataset, Split, Task
from trainer.work import Metric, TestResult

COARSE = 0.1
"""Without a goal a split should tell differences of this share of chance."""

RARE = 10
"""A class with so many times fewer rows than the most frequent one is worth a word."""

LEAK = 0.98
"""A column that takes away this share of what a constant guess gets wrong predicts the target almost perfectly."""

MOST_TREE_ROWS = 5_000
MOST_COLUMNS = 2_000
SUSPECTS = 20

DOUBTFUL = 0.04
"""Share of the rows that the winner is surest of and that are labelled otherwise, from which on labels are doubted."""

TRUSTED = 0.7
"""Share of chance that a winner's validation metric must not be over for its doubts of labels to count."""

OUTLYING = 5.0
"""A residual of so many robust standard deviations is none that the others' distribution would give."""

Array = npt.NDArray[Any]


def data_findings(
    *, metric: Metric, dataset: Dataset, levels: Levels, train: TestResult, validation: TestResult, seed: int
) -> DataFindings:
    """All that is found in the data.

    The test split's rows are compared with the others' for duplicates; nothing else of it is looked at.

    Args:
        train: The winner on the train split; so is `validation`.
    """
    leaks = leaking_columns(dataset, seed)
    doubles = duplicates(dataset, seed)
    warnings = [
        *_of_leaks(leaks, dataset),
        *_of_duplicates(doubles, dataset),
        *(_of_labels(dataset, validation) if trustworthy(levels) else ()),
        *_of_sizes(metric, dataset, levels),
        *_of_classes(metric, dataset),
        *_of_constants(dataset),
    ]
    classes = {}
    if dataset.task is Task.CLASSIFICATION:
        counts = np.bincount(dataset.train.targets, minlength=dataset.outputs)
        classes = {str(name): int(count) for name, count in zip(dataset.preprocessing.classes, counts, strict=True)}
    return DataFindings(
        warnings=tuple(warnings),
        suspects=suspects(dataset, train=train, validation=validation),
        leaks=leaks,
        duplicates=doubles,
        classes=classes,
    )


def rows_that_tell(half: float, rows: int, apart: float) -> int:
    """How many rows a split would need for its interval to reach no farther than `apart` to either side: an interval
    narrows by the square root of the rows.

    Args:
        half: Half the interval's width with `rows` rows.
    """
    return math.ceil(rows * (half / apart) ** 2)


def leaking_columns(dataset: Dataset, seed: int) -> dict[str, float]:
    """Columns of a table that predict the target almost perfectly by themselves, with their score, the best first.

    A decision tree learns from one raw column (all features that it became) on the train split; its score is the share
    of a constant guess's error (of the squared error for regression) that it avoids on the validation split. With fewer
    than ten rows that a constant guess gets wrong there, nothing is said.
    """
    from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

    if dataset.preprocessing.kind != "table":
        return {}
    train, asked = dataset.train, dataset.validation
    rows = np.arange(len(train))
    if len(rows) > MOST_TREE_ROWS:
        rows = np.sort(np.random.default_rng(seed).choice(rows, MOST_TREE_ROWS, replace=False))
    found = {}
    for name, features in columns_of(dataset)[:MOST_COLUMNS]:
        inputs, targets = train.inputs[rows][:, features], train.targets[rows]
        if dataset.task is Task.CLASSIFICATION:
            usual = float((asked.targets != np.bincount(train.targets).argmax()).sum())
            if usual < 10:
                return {}
            tree = DecisionTreeClassifier(max_leaf_nodes=256, random_state=0).fit(inputs, targets)
            left = float((tree.predict(asked.inputs[:, features]) != asked.targets).sum())
        else:
            if len(asked) < 10:
                return {}
            usual = float(np.square(asked.targets - train.targets.mean()).sum())
            tree = DecisionTreeRegressor(max_leaf_nodes=256, random_state=0).fit(inputs, targets)
            left = float(np.square(tree.predict(asked.inputs[:, features]) - asked.targets).sum())
        score = 1 - left / usual if usual > 0 else 0.0
        if score >= LEAK:
            found[name] = score
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def columns_of(dataset: Dataset) -> list[tuple[str, list[int]]]:
    """A table's raw columns with the features that each became; see `Preprocessing`."""
    found, at = [], 0
    for record in dataset.preprocessing.columns:
        width = len(record["values"]) if record["kind"] == "category" else 1 + bool(record.get("missing"))
        found.append((str(record["name"]), list(range(at, at + width))))
        at += width
    return found


def suspects(dataset: Dataset, *, train: TestResult, validation: TestResult) -> tuple[Suspect, ...]:
    """The rows of train and validation that the winner gets wrong with the highest loss (log loss, or squared error).

    For regression, those beyond `OUTLYING` robust standard deviations.
    """
    found = []
    for name, split, result in (
        ("train", dataset.train, train),
        ("validation", dataset.validation, validation),
    ):
        wrong, losses = _wrong(dataset.task, result)
        for row in np.flatnonzero(wrong)[np.argsort(-losses[wrong], kind="stable")][:SUSPECTS]:
            label, said = _answers(dataset, result, int(row))
            found.append(
                Suspect(split=name, row=int(split.rows[row]), label=label, predicted=said, loss=float(losses[row]))
            )
    return tuple(sorted(found, key=lambda each: -each.loss)[:SUSPECTS])


def doubtful_share(task: Task, result: TestResult) -> tuple[float, float, float]:
    """How often the data contradict the winner where they should not, with Wilson's interval.

    For classes: the share of rows with another label among the half of which the winner is surest. Where classes merely
    overlap, a network is unsure there and errors gather in the other half; labels that are wrong at random spread over
    both (selective risk: Geifman & El-Yaniv 2017, NIPS 30). For regression: the share of residuals beyond `OUTLYING`
    robust standard deviations (1.4826 times the median absolute deviation).
    """
    wrong, _ = _wrong(task, result)
    if task is Task.CLASSIFICATION:
        order = np.argsort(-result.outputs.max(1), kind="stable")
        wrong = wrong[order[: math.ceil(len(order) / 2)]]
    share = float(wrong.mean())
    return (share, *wilson(share, len(wrong)))


def trustworthy(levels: Levels) -> bool:
    """Whether the winner is good enough to contradict the data: it is rid of much of what a constant guess gets wrong,
    and no simple model is clearly better."""
    _, own = judged(levels)
    if levels.validation.value > TRUSTED * levels.chance.value:
        return False
    return levels.simple is None or difference(own, levels.simple).low <= 0


def _wrong(task: Task, result: TestResult) -> tuple[Array, Array]:
    """Which rows the winner gets wrong, and the loss of each."""
    if task is Task.CLASSIFICATION:
        return result.outputs.argmax(1) != result.truth, row_losses(Metric.LOG_LOSS, result.truth, result.outputs)
    residuals = result.outputs - result.truth
    spread = 1.4826 * float(np.median(np.abs(residuals - np.median(residuals))))
    return np.abs(residuals - np.median(residuals)) > OUTLYING * spread, np.square(residuals)


def _answers(dataset: Dataset, result: TestResult, row: int) -> tuple[str, str]:
    """What the data say of a row, and what the winner does."""
    if dataset.task is Task.CLASSIFICATION:
        names = dataset.preprocessing.classes
        return str(names[int(result.truth[row])]), str(names[int(result.outputs[row].argmax())])
    return figure(float(result.truth[row])), figure(float(result.outputs[row]))


def _of_leaks(leaks: dict[str, float], dataset: Dataset) -> list[str]:
    return [
        f"The column '{name}' alone predicts {dataset.preprocessing.target_name} almost perfectly (it avoids "
        f"{score:.1%} of what a constant guess gets wrong): is it known before the answer is? If not, leave it out of "
        "data.features."
        for name, score in leaks.items()
    ]


def _of_duplicates(doubles: dict[str, tuple[int, int]], dataset: Dataset) -> list[str]:
    sizes = {"validation": len(dataset.validation), "test": len(dataset.test)}
    said = []
    for pair, (exact, near) in doubles.items():
        asked = pair.split("/")[1]
        if exact + near >= max(3, 0.01 * sizes[asked]):
            also = f" and {near} nearly" if near else ""
            other = pair.split("/")[0]
            said.append(
                f"{exact} of the {sizes[asked]} rows of the {asked} split stand in the {other} split as well{also}: "
                f"the {asked} figures are too good by what was learnt by heart. Remove the copies, or give them one "
                "data.group."
            )
    return said


def _of_labels(dataset: Dataset, validation: TestResult) -> list[str]:
    share, low, high = doubtful_share(dataset.task, validation)
    if low <= DOUBTFUL:
        return []
    if dataset.task is Task.REGRESSION:
        return [
            f"{share:.1%} ({low:.1%} to {high:.1%}) of the validation rows lie {OUTLYING:g} standard deviations or "
            "more from what the winner says, where next to none should be: values may be wrong. Look at the suspects."
        ]
    return [
        f"Of the half of the validation rows that the winner is surest of, {share:.1%} ({low:.1%} to {high:.1%}) are "
        "labelled otherwise: labels may be wrong, or what decides them is not among the inputs. Look at the suspects."
    ]


def _of_sizes(metric: Metric, dataset: Dataset, levels: Levels) -> list[str]:
    """Splits whose interval is wider than the difference that was asked for."""
    goal = levels.target if levels.target is not None else levels.human
    apart, why = COARSE * levels.chance.value, f"a tenth of chance, {figure(COARSE * levels.chance.value)}"
    if goal is not None:
        missing = abs(judged(levels)[1].value - goal)
        if 0 < missing < apart:
            apart, why = missing, f"the {figure(missing)} that lie between the winner and its goal"
    said = []
    parts: list[tuple[str, Split, Any]] = [("validation", dataset.validation, levels.validation)]
    if levels.test is not None:
        parts.append(("test", dataset.test, levels.test))
    for name, split, level in parts:
        half = (level.high - level.low) / 2
        if apart > 0 and half > apart:
            enough = rows_that_tell(half, len(split), apart)
            said.append(
                f"The {name} split is small: with its {len(split)} rows the {metric} is known to within "
                f"{figure(half)} only, which can't show {why}. About {enough:,} rows would."
            )
    return said


def _of_classes(metric: Metric, dataset: Dataset) -> list[str]:
    if dataset.task is not Task.CLASSIFICATION:
        return []
    counts = np.bincount(dataset.train.targets, minlength=dataset.outputs)
    rare, common = int(counts.argmin()), int(counts.argmax())
    if counts[common] < RARE * max(1, counts[rare]):
        return []
    names = dataset.preprocessing.classes
    remedy = "" if metric is Metric.BALANCED_ERROR else " metric: balanced_error counts each class alike."
    return [
        f"The classes are unequal: '{names[rare]}' has {counts[rare]} train rows, '{names[common]}' {counts[common]}. "
        f"Errors on the rare class hardly show in the {metric}.{remedy}"
        if metric in SHARES
        else f"The classes are unequal: '{names[rare]}' has {counts[rare]} train rows, '{names[common]}' "
        f"{counts[common]}."
    ]


def _of_constants(dataset: Dataset) -> list[str]:
    if dataset.preprocessing.kind != "table":
        return []
    inputs = dataset.train.inputs
    same = (inputs == inputs[0]).all(axis=0)
    names = [name for name, features in columns_of(dataset) if same[features].all()]
    return [f"Constant in the train split, and of no use: {_listed(names)}."] if names else []


def _listed(names: Sequence[str], most: int = 8) -> str:
    shown = ", ".join(f"'{name}'" for name in names[:most])
    return shown + (f" and {len(names) - most} more" if len(names) > most else "")
