"""What is found in data with planted faults, and what is not found in sound ones."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits

from search.insight.data_checks import (
    data_findings,
    doubtful_share,
    leaking_columns,
    rows_that_tell,
    suspects,
)
from search.insight.duplicates import duplicates
from search.insight.levels import chance, level, levels, wilson
from tests.search.insight.planted import clouds, curved, table
from trainer.data.dataset import DataRequest, Dataset, Preprocessing, Split, Task
from trainer.data.load import load
from trainer.work import Metric, TestResult


def right(split: Split, classes: int, wrong: tuple[int, ...] = (), sure: float = 0.9) -> TestResult:
    """Answers that are right but for some rows."""
    answers = split.targets.copy()
    answers[list(wrong)] = (answers[list(wrong)] + 1) % classes
    shares = np.full((len(split), classes), (1 - sure) / (classes - 1))
    shares[np.arange(len(split)), answers] = sure
    return TestResult(outputs=shares, value=len(wrong) / len(split), truth=split.targets)


def warnings_of(data: Dataset, metric: Metric = Metric.ERROR, target: float | None = None, **changes: Any) -> str:
    outputs = {
        "train": right(data.train, data.outputs),
        "validation": right(data.validation, data.outputs),
        "test": right(data.test, data.outputs),
    } | changes
    known = levels(metric=metric, dataset=data, **outputs, simple={}, human=None, target=target, seed=0)
    found = data_findings(
        metric=metric,
        dataset=data,
        levels=known,
        train=outputs["train"],
        validation=outputs["validation"],
        seed=0,
    )
    return " ".join(found.warnings)


@pytest.fixture(scope="module")
def sound() -> Dataset:
    inputs, targets = clouds(2000, classes=3, features=5, apart=4, seed=0)
    return table(inputs, targets, (1000, 500, 500), classes=3)


def test_nothing_is_found_in_sound_data(sound: Dataset) -> None:
    assert warnings_of(sound) == ""


@pytest.mark.parametrize("source", ["digits", "wine", "breast_cancer"])
def test_no_leak_or_duplicate_is_claimed_of_scikit_learns_sets(source: str) -> None:
    data = load(DataRequest(source=source))

    assert leaking_columns(data, seed=0) == {}
    assert set(duplicates(data, seed=0).values()) == {(0, 0)}


# Leaks and constants


@pytest.mark.parametrize("classes", [1, 2, 4])
def test_a_column_that_predicts_the_target_by_itself_is_named(classes: int) -> None:
    random = np.random.default_rng(1)
    inputs, targets = clouds(1200, classes=max(2, classes), features=4, apart=2, seed=1)
    answer = targets + random.normal(size=1200) if classes == 1 else targets
    inputs[:, 2] = 3 * answer + 0.01 * random.normal(size=1200)

    found = leaking_columns(table(inputs, answer, (600, 300, 300), classes=classes), seed=0)

    assert list(found) == ["column 2"]
    assert 0.98 <= found["column 2"] <= 1


def test_a_leak_in_a_column_of_words_is_found_through_all_its_features(sound: Dataset) -> None:
    data = sound
    columns = ({"name": "word", "kind": "category", "values": ["a", "b", "c"]}, *data.preprocessing.columns)

    def widened(split: Split) -> Split:
        words = np.eye(3, dtype=np.float32)[split.targets]
        return dataclasses.replace(split, inputs=np.hstack([words, split.inputs]))

    leaky = dataclasses.replace(
        data,
        train=widened(data.train),
        validation=widened(data.validation),
        preprocessing=dataclasses.replace(data.preprocessing, columns=columns),
    )

    assert leaking_columns(leaky, seed=0) == {"word": 1.0}


def test_constant_columns_are_named(sound: Dataset) -> None:
    inputs = np.vstack([split.inputs for split in (sound.train, sound.validation, sound.test)])
    targets = np.concatenate([split.targets for split in (sound.train, sound.validation, sound.test)])
    inputs[:, 3] = 7

    words = warnings_of(table(inputs, targets, (1000, 500, 500), classes=3))

    assert "Constant in the train split" in words
    assert "'column 3'" in words and "'column 2'" not in words


# Duplicates


def test_exact_copies_across_splits_are_counted(sound: Dataset) -> None:
    inputs = np.vstack([split.inputs for split in (sound.train, sound.validation, sound.test)])
    targets = np.concatenate([split.targets for split in (sound.train, sound.validation, sound.test)])
    inputs[1000:1012] = inputs[:12]  # validation from train
    inputs[1500:1507] = inputs[1100:1107]  # test from validation
    data = table(inputs, targets, (1000, 500, 500), classes=3)

    assert duplicates(data, seed=0) == {"train/validation": (12, 0), "train/test": (0, 0), "validation/test": (7, 0)}
    assert "12 of the 500 rows of the validation split stand in the train split as well" in warnings_of(data)


def test_near_copies_of_images_are_counted_apart_from_exact_ones() -> None:
    images, labels = load_digits(return_X_y=True)
    images = np.repeat(np.repeat(images.reshape(-1, 1, 8, 8) * 15, 3, axis=2), 3, axis=3)
    random = np.random.default_rng(0)
    changed = np.clip(images[:20] + random.integers(-4, 5, images[:20].shape), 0, 255)
    train, validation = images[:700], np.concatenate([images[700:900], changed, images[30:36]])

    def split(values: Any, first: int) -> Split:
        return Split(
            inputs=values.astype(np.uint8), targets=labels[: len(values)].astype(np.int64), rows=np.arange(len(values))
        )

    data = Dataset(
        task=Task.CLASSIFICATION,
        train=split(train, 0),
        validation=split(validation, 700),
        test=split(images[900:1100], 900),
        preprocessing=Preprocessing(kind="image", task="classification", shape=(1, 24, 24), classes=tuple(range(10))),
        input_shape=(1, 24, 24),
        outputs=10,
        split_hash="",
        example=[],
    )

    found = duplicates(data, seed=0)

    assert found == {"train/validation": (6, 20), "train/test": (0, 0), "validation/test": (0, 0)}


# Sizes and classes


def test_a_split_that_is_too_small_is_told_the_size_that_would_do() -> None:
    inputs, targets = clouds(1450, classes=2, features=4, apart=4, seed=0)
    data = table(inputs, targets, (1000, 50, 400), classes=2)
    five = right(data.validation, 2, wrong=tuple(range(5)))

    words = warnings_of(data, validation=five)

    half = (level(Metric.ERROR, five, 0).high - level(Metric.ERROR, five, 0).low) / 2
    assert "The validation split is small: with its 50 rows" in words
    assert (
        f"About {rows_that_tell(half, 50, 0.1 * chance(Metric.ERROR, data, data.test, 0).value):,} rows would" in words
    )
    assert "test split is small" not in words


def test_a_difference_from_the_target_asks_for_more_rows_than_a_tenth_of_chance(sound: Dataset) -> None:
    some = right(sound.test, 3, wrong=tuple(range(10)))

    assert "small" not in warnings_of(sound, test=some)
    assert "0.01 that lie between the winner and its goal" in warnings_of(sound, test=some, target=0.01)


@pytest.mark.parametrize("share", [0.02, 0.1, 0.3])
def test_the_rows_that_tell_are_enough_by_wilsons_own_interval(share: float) -> None:
    low, high = wilson(share, 200)

    enough = rows_that_tell((high - low) / 2, 200, 0.01)

    low, high = wilson(share, enough)
    assert (high - low) / 2 == pytest.approx(0.01, rel=0.1)


def test_unequal_classes_are_told_with_the_metric_that_counts_them_alike() -> None:
    random = np.random.default_rng(0)
    targets = (random.random(2000) < 0.04).astype(int)
    data = table(random.normal(size=(2000, 3)), targets, (1000, 500, 500), classes=2)

    assert "metric: balanced_error" in warnings_of(data)
    assert "metric: balanced_error" not in warnings_of(data, Metric.BALANCED_ERROR)


# Labels


def test_the_rows_with_the_highest_loss_are_the_suspects_of_train_and_validation_only(sound: Dataset) -> None:
    train = right(sound.train, 3, wrong=(17,), sure=0.99)
    validation = right(sound.validation, 3, wrong=(4, 9), sure=0.7)

    found = suspects(sound, train=train, validation=validation)

    assert [(each.split, each.row) for each in found] == [("train", 17), ("validation", 1004), ("validation", 1009)]
    assert found[0].label == f"class {sound.train.targets[17]}"
    assert found[0].predicted == f"class {(sound.train.targets[17] + 1) % 3}"


def test_classes_that_merely_overlap_are_no_doubtful_labels_and_shuffled_ones_are() -> None:
    """Bayes' own classifier on two overlapping clouds, which is wrong in a sixth of the rows."""
    random = np.random.default_rng(0)
    targets = random.integers(0, 2, 4000)
    inputs = targets * 2 + random.normal(size=4000)
    likely = 1 / (1 + np.exp(-2 * (inputs - 1)))
    outputs = np.column_stack([1 - likely, likely])

    overlapping = TestResult(outputs=outputs, value=0.0, truth=targets)
    shuffled = TestResult(outputs=outputs, value=0.0, truth=np.where(random.random(4000) < 0.15, 1 - targets, targets))

    assert doubtful_share(Task.CLASSIFICATION, overlapping)[1] < 0.04
    assert doubtful_share(Task.CLASSIFICATION, shuffled)[0] == pytest.approx(0.17, abs=0.03)


def test_wrong_values_of_a_regression_are_doubted_and_normal_noise_is_not() -> None:
    _, values = curved(1500, features=3, noise=0.1, seed=0)
    random = np.random.default_rng(0)
    said = values + random.normal(size=1500)
    some = random.random(1500) < 0.15
    mixed = np.where(some, random.permutation(values), values)

    assert doubtful_share(Task.REGRESSION, TestResult(outputs=said, value=0.0, truth=values))[0] == 0
    assert doubtful_share(Task.REGRESSION, TestResult(outputs=said, value=0.0, truth=mixed))[1] > 0.05


def test_a_winner_that_is_worse_than_a_simple_model_does_not_contradict_the_data(sound: Dataset) -> None:
    wrong = right(sound.validation, 3, wrong=tuple(range(100)))
    test = right(sound.test, 3, wrong=tuple(range(100)))
    usual: dict[str, Any] = {
        "metric": Metric.ERROR,
        "dataset": sound,
        "train": right(sound.train, 3),
        "validation": wrong,
    }

    def said(simple: dict[str, TestResult]) -> str:
        known = levels(**usual, test=test, simple=simple, human=None, target=None, seed=0)
        return " ".join(data_findings(**usual, levels=known, seed=0).warnings)

    assert "labels may be wrong" in said({})
    assert "labels may be wrong" not in said({"forest": right(sound.test, 3)})
