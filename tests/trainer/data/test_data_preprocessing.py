"""What the train split says, and how raw rows become inputs: against scikit-learn, and the test rows never matter."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from neurosweep.errors import DataError
from trainer.data.dataset import DataRequest, Dataset, Split
from trainer.data.load import load, raw_columns
from trainer.data.preprocessing import encode_table, feature_slices

ROWS = 200


def frame(seed: int = 0) -> pd.DataFrame:
    draw = np.random.default_rng(seed)
    table = pd.DataFrame(
        {
            "width": draw.normal(50, 10, ROWS),
            "colour": draw.choice(["red", "green", "blue"], ROWS),
            "count": draw.integers(0, 9, ROWS),
            "kind": draw.choice(["a", "b"], ROWS),
            "fold": draw.choice(["train", "validation", "test"], ROWS, p=[0.6, 0.2, 0.2]),
            "target": draw.normal(100, 20, ROWS),
        }
    )
    table.loc[draw.random(ROWS) < 0.1, "width"] = np.nan
    table.loc[draw.random(ROWS) < 0.1, "colour"] = np.nan
    return table


def written(table: pd.DataFrame, path: Path) -> DataRequest:
    table.to_csv(path, index=False)
    return DataRequest(source=str(path), split_column="fold", fractions=None)


def all_splits(dataset: Dataset) -> list[tuple[str, Split]]:
    return [("train", dataset.train), ("validation", dataset.validation), ("test", dataset.test)]


def test_a_table_is_encoded_as_scikit_learn_does(tmp_path: Path) -> None:
    table = frame()
    table.loc[table.index[table.fold == "test"][0], "kind"] = "never seen in training"
    dataset = load(written(table, tmp_path / "t.csv"))

    numbers = make_pipeline(SimpleImputer(strategy="median"), StandardScaler())
    one_hot = make_pipeline(OneHotEncoder(handle_unknown="ignore", sparse_output=False))
    # The encoder makes a category of NaN: it is told not to by naming the others.
    colours = OneHotEncoder(categories=[["blue", "green", "red"]], handle_unknown="ignore", sparse_output=False)
    reference = ColumnTransformer(
        [
            ("width", numbers, ["width"]),
            ("colour", colours, ["colour"]),
            ("count", numbers, ["count"]),
            ("kind", one_hot, ["kind"]),
        ]
    ).fit(table[table.fold == "train"])
    for name, split in all_splits(dataset):
        rows = table[table.fold == name]
        expected = reference.transform(rows)
        indicator = rows.width.isna().to_numpy(float)
        np.testing.assert_allclose(split.inputs, np.insert(expected, 1, indicator, axis=1), rtol=1e-5, atol=1e-6)
        assert split.inputs.dtype == np.float32
        assert split.rows.tolist() == rows.index.tolist()


def test_a_regressions_target_is_standardised_by_the_train_split(tmp_path: Path) -> None:
    table = frame()
    dataset = load(written(table, tmp_path / "t.csv"))

    train = table.target[table.fold == "train"]
    assert dataset.preprocessing.target_mean == pytest.approx(train.mean())
    assert dataset.preprocessing.target_std == pytest.approx(train.std(ddof=0))
    test = table.target[table.fold == "test"]
    np.testing.assert_allclose(dataset.test.targets, (test - train.mean()) / train.std(ddof=0), rtol=1e-5, atol=1e-6)
    assert (dataset.outputs, dataset.test.targets.dtype.name) == (1, "float32")


def test_rows_outside_train_change_no_statistic(tmp_path: Path) -> None:
    table = frame()
    before = load(written(table, tmp_path / "before.csv"))
    outside = table.fold != "train"
    table.loc[outside, "width"] = -1e6
    table.loc[outside, "colour"] = "violet"
    table.loc[outside, "count"] = 77
    table.loc[outside, "target"] = 1e9

    after = load(written(table, tmp_path / "after.csv"))

    assert after.preprocessing == before.preprocessing
    np.testing.assert_array_equal(after.train.inputs, before.train.inputs)
    assert after.test.inputs[:, 0].max() < -1000


def test_image_statistics_are_those_of_the_train_split_alone(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    images = draw.integers(0, 256, size=(90, 4, 5, 3), dtype=np.uint8)
    fold = np.repeat(["train", "validation", "test"], 30)
    request = DataRequest(source=str(tmp_path / "i.npz"), split_column="fold", fractions=None)
    np.savez(tmp_path / "i.npz", x=images, y=np.arange(90) % 3, fold=fold)
    before = load(request)
    train = images[:30].reshape(-1, 3).astype(float)
    images[30:] = 255
    np.savez(tmp_path / "i.npz", x=images, y=np.arange(90) % 3, fold=fold)

    after = load(request)

    assert after.preprocessing == before.preprocessing
    np.testing.assert_allclose(before.preprocessing.mean, train.mean(axis=0))
    np.testing.assert_allclose(before.preprocessing.std, train.std(axis=0))


def test_a_column_without_variance_and_an_empty_channel_are_divided_by_one(tmp_path: Path) -> None:
    table = frame().assign(width=0.1)
    dataset = load(written(table, tmp_path / "t.csv"))
    assert dataset.preprocessing.columns[0]["std"] == 1.0
    assert np.abs(dataset.train.inputs[:, 0]).max() < 1e-6

    np.savez(tmp_path / "i.npz", x=np.zeros((30, 2, 2), np.uint8), y=np.arange(30) % 2)
    assert load(DataRequest(source=str(tmp_path / "i.npz"))).preprocessing.std == (1.0,)


def test_no_indicator_where_only_other_splits_lack_a_value(tmp_path: Path) -> None:
    table = frame().assign(width=1.0)
    table["width"] += np.arange(ROWS)
    row = table.index[table.fold == "test"][0]
    table.loc[row, "width"] = np.nan

    dataset = load(written(table, tmp_path / "t.csv"))

    record = dataset.preprocessing.columns[0]
    assert "missing" not in record
    assert record["fill"] == table.width[table.fold == "train"].median()
    place = dataset.test.rows.tolist().index(row)
    assert dataset.test.inputs[place, 0] == pytest.approx((record["fill"] - record["mean"]) / record["std"])


def test_preprocessing_and_example_are_json(tmp_path: Path) -> None:
    dataset = load(written(frame(), tmp_path / "t.csv"))

    assert json.loads(json.dumps(dataclasses.asdict(dataset.preprocessing)))["columns"][1]["values"] == [
        "blue",
        "green",
        "red",
    ]
    assert len(json.loads(json.dumps(dataset.example))) == 3


def test_the_example_is_raw_rows_of_the_train_split(tmp_path: Path) -> None:
    table = frame()
    dataset = load(written(table, tmp_path / "t.csv"))

    first = table[table.fold == "train"].head(3)
    for said, (_, row) in zip(dataset.example, first.iterrows(), strict=True):
        assert list(said) == ["width", "colour", "count", "kind"]
        assert said["count"] == row["count"]
        assert isinstance(said["count"], int)
        assert said["colour"] == (None if pd.isna(row["colour"]) else row["colour"])
        assert said["width"] == (None if pd.isna(row["width"]) else pytest.approx(row["width"]))


@pytest.mark.parametrize(
    ("column", "said"),
    [
        (
            [f"id-{row}" for row in range(ROWS)],
            ["'extra'", "different texts", "features: [width, colour, count, kind]"],
        ),
        ([str(row) if row != 5 else "7 cm" for row in range(ROWS)], ["'extra'", "row 6 says '7 cm'", "repair"]),
        ([None] * ROWS, ["'extra'", "no value in any row of the train split", "features: ["]),
    ],
)
def test_a_column_that_says_nothing_is_an_error(tmp_path: Path, column: list[str | None], said: list[str]) -> None:
    with pytest.raises(DataError) as caught:
        load(written(frame().assign(extra=pd.Series(column)), tmp_path / "t.csv"))

    assert all(part in str(caught.value) for part in [*said, "t.csv"])


def test_the_suggested_features_work(tmp_path: Path) -> None:
    request = written(frame().assign(extra=[f"id-{row}" for row in range(ROWS)]), tmp_path / "t.csv")

    dataset = load(dataclasses.replace(request, features=("width", "colour", "count", "kind")))

    assert [record["name"] for record in dataset.preprocessing.columns] == ["width", "colour", "count", "kind"]


def test_numbers_too_large_for_a_deviation_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="'width' holds numbers too large"):
        load(written(frame().assign(width=np.where(np.arange(ROWS) % 2, 1e308, -1e308)), tmp_path / "t.csv"))


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_number_too_large_for_the_network_is_an_error_in_every_split(tmp_path: Path, place: int) -> None:
    """The largest double is what some programs write for a missing value."""
    table = frame()
    table["fold"] = np.resize(["train", "train", "validation", "test"], ROWS)
    table.loc[place + 1, "width"] = np.finfo(np.float64).max

    with pytest.raises(DataError, match="'width' holds numbers too large"):
        load(written(table, tmp_path / "t.csv"))


def test_a_tables_raw_columns_are_what_its_splits_were_encoded_from(tmp_path: Path) -> None:
    request = written(frame(), tmp_path / "t.csv")
    dataset = load(request)
    columns = raw_columns(request, dataset.preprocessing)

    for name, split in all_splits(dataset):
        encoded = encode_table(dataset.preprocessing, columns, split.rows, "")
        np.testing.assert_array_equal(encoded, split.inputs, err_msg=name)
    places = feature_slices(dataset.preprocessing)
    assert [(place.start, place.stop) for place in places] == [(0, 2), (2, 5), (5, 6), (6, 8)]
