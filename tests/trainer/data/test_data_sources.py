"""Tables and arrays from every kind of source, and what is said of those that can't be used."""

from __future__ import annotations

import io
import json
import os
import pickle
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from sklearn import datasets as sets

from neurosweep.errors import DataError
from trainer.data.dataset import DataRequest, Dataset, Task
from trainer.data.load import describe, load


def table(rows: int = 60) -> pd.DataFrame:
    draw = np.random.default_rng(1)
    return pd.DataFrame(
        {
            "size": draw.normal(size=rows).round(3),
            "count": draw.integers(0, 50, rows),
            "shape": draw.choice(["round", "square"], rows),
            "good": draw.random(rows) < 0.5,
            "label": draw.permutation(np.resize(["no", "yes", "perhaps"], rows)),
        }
    )


def load_text(folder: Path, text: str | bytes, name: str = "t.csv", **request: Any) -> Dataset:
    file = folder / name
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load(DataRequest(source=str(file), **request))


def rows_of(values: list[str]) -> str:
    """A table with the columns a and label; the labels are given."""
    return "a,label\n" + "".join(f"{row / 10},{value}\n" for row, value in enumerate(values))


@pytest.mark.parametrize("kind", ["csv", "parquet", "jsonl"])
def test_one_table_gives_the_same_splits_and_inputs_from_every_kind_of_file(tmp_path: Path, kind: str) -> None:
    rows = table()
    file = tmp_path / f"t.{kind}"
    if kind == "csv":
        rows.to_csv(file, index=False)
    elif kind == "parquet":
        rows.to_parquet(file)
    else:
        rows.to_json(file, orient="records", lines=True)

    dataset = load(DataRequest(source=str(file)))

    assert (dataset.task, dataset.preprocessing.classes) == (Task.CLASSIFICATION, ("no", "perhaps", "yes"))
    assert [record["kind"] for record in dataset.preprocessing.columns] == ["number", "number", "category", "category"]
    assert dataset.preprocessing.columns[3]["values"] == ["False", "True"]
    train = rows.loc[dataset.train.rows]
    np.testing.assert_allclose(
        dataset.train.inputs[:, 1],
        (train["count"] - train["count"].mean()) / train["count"].std(ddof=0),
        rtol=1e-5,
        atol=1e-6,
    )
    np.testing.assert_array_equal(dataset.train.inputs[:, 3], train["shape"] == "square")
    np.testing.assert_array_equal(dataset.train.inputs[:, 5], train["good"])
    assert [dataset.preprocessing.classes[index] for index in dataset.train.targets] == train["label"].tolist()


@pytest.mark.parametrize(
    ("name", "rows", "shape"), [("iris", 150, (4,)), ("wine", 178, (13,)), ("breast_cancer", 569, (30,))]
)
def test_scikit_learns_sets_have_their_values_and_names(name: str, rows: int, shape: tuple[int, ...]) -> None:
    bunch = getattr(sets, f"load_{name}")()
    dataset = load(DataRequest(source=name))

    assert dataset.input_shape == shape
    seen = 0
    for split in (dataset.train, dataset.validation, dataset.test):
        means = np.array([record["mean"] for record in dataset.preprocessing.columns])
        stds = np.array([record["std"] for record in dataset.preprocessing.columns])
        np.testing.assert_allclose(split.inputs * stds + means, bunch.data[split.rows], rtol=1e-4, atol=1e-3)
        names = [dataset.preprocessing.classes[index] for index in split.targets]
        assert names == [bunch.target_names[index] for index in bunch.target[split.rows]]
        seen += len(split)
    assert seen == rows


@pytest.mark.parametrize("target", [None, "label", "target"])
def test_digits_are_grey_8_bit_images(target: str | None) -> None:
    bunch = sets.load_digits()
    dataset = load(DataRequest(source="digits", target=target))

    assert (dataset.input_shape, dataset.outputs, dataset.train.inputs.dtype.name) == ((1, 8, 8), 10, "uint8")
    np.testing.assert_array_equal(dataset.test.inputs[:, 0], bunch.images[dataset.test.rows])
    assert [dataset.preprocessing.classes[index] for index in dataset.test.targets] == bunch.target[
        dataset.test.rows
    ].tolist()
    assert dataset.example.shape == (3, 8, 8)
    assert dataset.train.inputs.flags.c_contiguous


def test_describe_says_what_there_is() -> None:
    assert describe(load(DataRequest(source="diabetes"))) | {"split_hash": ""} == {
        "kind": "table",
        "task": "regression",
        "rows": 442,
        "input_shape": [10],
        "columns": 10,
        "features": 10,
        "target": "target",
        "target_range": [25.0, 346.0],
        "splits": {"train": 310, "validation": 66, "test": 66},
        "split_hash": "",
    }
    digits = describe(load(DataRequest(source="digits")))
    assert digits["classes"] == list(range(10))
    assert json.loads(json.dumps(digits)) == digits


@pytest.mark.parametrize(
    ("values", "task", "classes"),
    [
        (["0", "1"] * 20, Task.CLASSIFICATION, (0, 1)),
        ([str(row % 20) for row in range(80)], Task.CLASSIFICATION, tuple(range(20))),
        ([str(row % 21) for row in range(84)], Task.REGRESSION, ()),
        (["0.0", "1.0"] * 20, Task.REGRESSION, ()),
        (["True", "False"] * 20, Task.CLASSIFICATION, ("False", "True")),
        (["10", "9", "x"] * 10, Task.CLASSIFICATION, ("10", "9", "x")),
        (["10", "9"] * 10, Task.CLASSIFICATION, (9, 10)),
    ],
)
def test_the_target_tells_the_task(tmp_path: Path, values: list[str], task: Task, classes: tuple[object, ...]) -> None:
    dataset = load_text(tmp_path, rows_of(values))

    assert (dataset.task, dataset.preprocessing.classes) == (task, classes)


def test_the_study_can_say_the_task(tmp_path: Path) -> None:
    numbers = rows_of(["0.0", "1.0", "2.5"] * 10)

    assert load_text(tmp_path, numbers, task=Task.CLASSIFICATION).preprocessing.classes == (0, 1, 2.5)
    assert load_text(tmp_path, rows_of(["0", "1"] * 10), task=Task.REGRESSION).outputs == 1


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_class_numbers_that_float64_would_merge_are_told_so(tmp_path: Path, kind: str) -> None:
    """10,000,000,000,000,000 and ...,001 are one number in float64."""
    names = 10**16 + np.arange(60) % 3
    data = table().assign(label=names)
    file = tmp_path / f"t.{kind}"
    data.to_csv(file, index=False) if kind == "csv" else data.to_parquet(file)

    with pytest.raises(DataError, match="'label' must have classes that can be told apart"):
        load(DataRequest(source=str(file), task=Task.CLASSIFICATION))
    (data.assign(label=[f"c{name}" for name in names])).to_csv(tmp_path / "t.csv", index=False)
    assert load(DataRequest(source=str(tmp_path / "t.csv"))).outputs == 3


@pytest.mark.parametrize("unit", [1e200, 1e-200])
def test_a_quantity_without_a_variance_in_float64_is_told_so(tmp_path: Path, unit: float) -> None:
    table().assign(label=np.arange(60) * unit).to_parquet(tmp_path / "t.parquet")

    with pytest.raises(DataError, match="'label' holds numbers too large or too close together"):
        load(DataRequest(source=str(tmp_path / "t.parquet")))


def test_booleans_of_a_typed_file_are_boolean_classes(tmp_path: Path) -> None:
    table().assign(label=lambda rows: rows.good).drop(columns="good").to_parquet(tmp_path / "t.parquet")

    assert load(DataRequest(source=str(tmp_path / "t.parquet"))).preprocessing.classes == (False, True)


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.string_view()], ids=str)
def test_texts_of_every_kind_of_a_parquet_file_are_texts(tmp_path: Path, kind: pa.DataType) -> None:
    texts = pa.array(["a", "b", None] * 20, kind)
    parquet.write_table(pa.table({"text": texts, "label": pa.array(["no", "yes"] * 30, kind)}), tmp_path / "t.parquet")

    dataset = load(DataRequest(source=str(tmp_path / "t.parquet")))

    assert dataset.preprocessing.columns[0]["values"] == ["a", "b"]
    assert dataset.preprocessing.classes == ("no", "yes")


def test_words_for_missing_values_leave_a_column_of_numbers(tmp_path: Path) -> None:
    text = "a,b,label\n" + "".join(
        f"{'NA' if row % 5 == 0 else row},{'' if row % 7 == 0 else 'x'},{row % 2}\n" for row in range(60)
    )

    dataset = load_text(tmp_path, text)

    number, category = dataset.preprocessing.columns
    assert (number["kind"], number["missing"], category["values"]) == ("number", True, ["x"])
    np.testing.assert_array_equal(dataset.train.inputs[:, 1], dataset.train.rows % 5 == 0)
    np.testing.assert_array_equal(dataset.train.inputs[:, 2], dataset.train.rows % 7 != 0)


def test_infinity_in_a_table_counts_as_missing(tmp_path: Path) -> None:
    text = "a,label\n" + "".join(f"{'inf' if row % 5 == 0 else row},{row % 2}\n" for row in range(60))

    dataset = load_text(tmp_path, text)

    np.testing.assert_array_equal(dataset.train.inputs[:, 1], dataset.train.rows % 5 == 0)
    assert np.isfinite(dataset.test.inputs).all()


def test_pandas_row_names_are_no_feature(tmp_path: Path) -> None:
    rows = table()
    rows.index = [f"row {number}" for number in range(len(rows))]
    rows.to_parquet(tmp_path / "t.parquet")

    names = [record["name"] for record in load(DataRequest(source=str(tmp_path / "t.parquet"))).preprocessing.columns]
    assert names == ["size", "count", "shape", "good"]


def test_a_changed_file_is_read_anew_and_nothing_is_left_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    first = load_text(tmp_path, rows_of(["a", "b"] * 20))
    second = load_text(tmp_path, rows_of(["c", "d"] * 20))

    assert (first.preprocessing.classes, second.preprocessing.classes) == (("a", "b"), ("c", "d"))
    assert list(scratch.iterdir()) == []


def test_names_that_are_patterns_or_addresses_are_files(tmp_path: Path) -> None:
    for name in ("we[i]rd*.csv", "a::b.csv", "ä b#1?.csv", "UPPER.CSV"):
        assert load_text(tmp_path, rows_of(["a", "b"] * 20), name).outputs == 2


def test_a_byte_order_mark_is_no_part_of_a_name(tmp_path: Path) -> None:
    assert load_text(tmp_path, "\ufeff" + rows_of(["a", "b"] * 20)).preprocessing.columns[0]["name"] == "a"


def test_max_rows_takes_a_sample_with_every_classs_share(tmp_path: Path) -> None:
    dataset = load_text(tmp_path, rows_of(["a", "b", "b", "b"] * 100), max_rows=100)

    rows = np.concatenate([dataset.train.rows, dataset.validation.rows, dataset.test.rows])
    assert (len(rows), (rows % 4 == 0).sum()) == (100, 25)
    assert (len(dataset.train), len(dataset.validation), len(dataset.test)) == (70, 15, 15)


def test_max_rows_keeps_the_shares_of_a_split_column(tmp_path: Path) -> None:
    text = "a,fold,label\n" + "".join(
        f"{row},{['train', 'train', 'validation', 'test'][row % 4]},{row // 4 % 2}\n" for row in range(400)
    )

    dataset = load_text(tmp_path, text, max_rows=80, split_column="fold", fractions=None)

    assert (len(dataset.train), len(dataset.validation), len(dataset.test)) == (40, 20, 20)
    assert set(dataset.test.rows % 4) == {3}


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_groups_of_long_ids_are_told_apart(tmp_path: Path, kind: str) -> None:
    """Ids of 64 bits: float64 would take all of these for one."""
    data, file = table().assign(patient=10**17 + np.arange(60) // 10), tmp_path / f"t.{kind}"
    data.to_csv(file, index=False) if kind == "csv" else data.to_parquet(file)

    dataset = load(DataRequest(source=str(file), group="patient"))

    parts = [np.unique(split.rows // 10) for split in (dataset.train, dataset.validation, dataset.test)]
    assert sorted(np.concatenate(parts).tolist()) == list(range(6))


def test_groups_of_a_column_stay_whole_and_are_no_feature(tmp_path: Path) -> None:
    text = "a,patient,label\n" + "".join(f"{row},p{row // 5},{row % 2}\n" for row in range(300))

    dataset = load_text(tmp_path, text, group="patient")

    patients = [set((split.rows // 5).tolist()) for split in (dataset.train, dataset.validation, dataset.test)]
    assert sum(map(len, patients)) == 60
    assert (len(dataset.train), len(dataset.validation), len(dataset.test)) == (210, 45, 45)
    assert [record["name"] for record in dataset.preprocessing.columns] == ["a"]


CLASSES = ["x", "y"] * 20
ERRORS: list[tuple[str | bytes, dict[str, Any], list[str]]] = [
    ("", {}, ["the file is empty"]),
    ("a,label\n", {}, ["no", "row", "below the header"]),
    ("a,a,label\n1,2,x\n", {}, ["t.csv:1", "'a' is there twice"]),
    ("a,,label\n1,2,x\n", {}, ["t.csv:1", "column 2 has none"]),
    ("a;label\n1;x\n", {}, ["separated by commas", "';'"]),
    ("a,label\n1,x\n1,x,3\n", {}, ["t.csv:3", "2 values", "has 3"]),
    ("a,label\n1,x,3\n1,x,3\n", {}, ["2 values", "has 3"]),
    ('a,label\n1,"x\n2,y\n', {}, ["quotation mark"]),
    (b"a,label\n1,x\n2,\xe9\n", {}, ["t.csv:3", "UTF-8", "0xe9"]),
    (b"a,label\n1,x\n2,\xc3", {}, ["t.csv:3", "UTF-8", "0xc3"]),
    ("label\nx\ny\n", {}, ["a column to learn from", "'label'"]),
    ("a,b\n1,2\n", {}, ["target must say", "'a', 'b'"]),
    (rows_of(CLASSES), {"target": "lable"}, ["target", "'lable'", "did you mean 'label'?"]),
    (rows_of(CLASSES), {"features": ("A",)}, ["features", "did you mean 'a'?"]),
    (rows_of(CLASSES), {"features": ("a", "label")}, ["features must not have 'label'"]),
    (rows_of(CLASSES), {"group": "patient"}, ["group", "'patient'", "'a', 'label'"]),
    (rows_of(CLASSES), {"group": "label"}, ["target and group must be different"]),
    (rows_of(CLASSES), {"split_column": "fold"}, ["split column", "'fold'"]),
    (rows_of([*CLASSES, "", "x", "NA"]), {}, ["'label'", "rows 41, 43"]),
    (rows_of(["x"] * 20), {}, ["two classes", "'x' in every row"]),
    (rows_of([*CLASSES, "z", "z"]), {}, ["class 'z' has 2", "3 rows"]),
    (rows_of([*CLASSES, "z", "z", "z"]), {"max_rows": 20}, ["class 'z' has", "max_rows"]),
    (rows_of(["1.5"] * 20), {}, ["must differ", "1.5 in all"]),
    (rows_of(CLASSES), {"task": Task.REGRESSION}, ["numbers for regression", "'x'", "task: classification"]),
    (rows_of(["1.5", "2.5"]), {}, ["3 rows"]),
    ("a,g,label\n" + "1,p,x\n2,p,y\n3,q,x\n" * 5, {"group": "g"}, ["3 groups", "there are 2"]),
    ("a,g,label\n" + "1,p,x\n2,,y\n3,q,x\n" * 5, {"group": "g"}, ["'g'", "row 2 has none"]),
]


@pytest.mark.parametrize(("text", "request_", "said"), ERRORS)
def test_a_csv_file_that_breaks_a_rule_is_told_so(
    tmp_path: Path, text: str | bytes, request_: dict[str, Any], said: list[str]
) -> None:
    with pytest.raises(DataError) as caught:
        load_text(tmp_path, text, **request_)

    assert all(part in str(caught.value) for part in [*said, "t.csv"]), str(caught.value)


def test_a_split_column_must_keep_groups_whole_and_teach_every_class(tmp_path: Path) -> None:
    folds = ["train"] * 20 + ["validation"] * 10 + ["test"] * 10
    labels = [0, 1] * 18 + ["z"] * 4
    rows = "".join(
        f"{row},{fold},{row % 7},{label}\n" for row, (fold, label) in enumerate(zip(folds, labels, strict=True))
    )
    text = "a,fold,g,label\n" + rows

    with pytest.raises(DataError, match="rows in the train split, but 'z' has none"):
        load_text(tmp_path, text, split_column="fold")
    with pytest.raises(DataError, match="rows of one group must be in one split"):
        load_text(tmp_path, text, split_column="fold", group="g")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"a": 1, "label": "x"}\n\n{"a": 2\n', ["t.jsonl:3", "not JSON"]),
        ('{"a": 1, "label": "x"}\n[1]\n', ["t.jsonl:2", "one JSON object", "[1]"]),
        ("\n", ["t.jsonl"]),
        ("".join(json.dumps({"a": row or "x", "label": row % 2}) + "\n" for row in range(20)), ["'a' holds a mixture"]),
        ("".join(json.dumps({"a": [row], "label": row % 2}) + "\n" for row in range(20)), ["'a' holds list"]),
        (
            "".join(json.dumps({"a": "2020-01-01", "label": row % 2}) + "\n" for row in range(20)),
            ["'a' holds dates", "month"],
        ),
        ("[" * 100_000, ["t.jsonl"]),
    ],
)
def test_json_lines_that_break_a_rule_are_told_so(tmp_path: Path, text: str, said: list[str]) -> None:
    with pytest.raises(DataError) as caught:
        load_text(tmp_path, text, "t.jsonl")

    assert all(part in str(caught.value) for part in said), str(caught.value)


def test_a_column_of_json_lines_is_judged_by_the_whole_file(tmp_path: Path) -> None:
    # 12 MB, more than `datasets` reads at once by default; only the last row is no whole number.
    note = "x" * 2000
    rows = [{"a": row, "note": note, "label": row % 2} for row in range(6000)]
    text = "".join(json.dumps(row) + "\n" for row in [*rows, {"a": 0.5, "note": note, "label": 0}])

    dataset = load_text(tmp_path, text, "t.jsonl", features=("a",))

    values = np.append(np.arange(6000), 0.5)[dataset.train.rows]
    np.testing.assert_allclose(
        dataset.train.inputs[:, 0], (values - values.mean()) / values.std(), rtol=1e-4, atol=1e-6
    )


def test_no_parquet_and_no_known_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"t\.parquet: the file can't be read as Parquet"):
        load_text(tmp_path, "PAR1 not really PAR1", "t.parquet")
    with pytest.raises(DataError, match=r"\.csv, \.parquet.*'\.xlsx'"):
        load_text(tmp_path, "x", "t.xlsx")


def test_a_missing_file_names_its_neighbours(tmp_path: Path) -> None:
    (tmp_path / "penguins.csv").touch()

    with pytest.raises(DataError, match=r"no such file or folder; did you mean 'penguins\.csv'\?"):
        load(DataRequest(source=str(tmp_path / "pengiuns.csv")))


class TestArrays:
    """npz files."""

    def saved(self, folder: Path, **arrays: Any) -> DataRequest:
        np.savez(folder / "a.npz", **arrays)
        return DataRequest(source=str(folder / "a.npz"))

    def test_two_dimensions_are_a_table(self, tmp_path: Path) -> None:
        x = np.random.default_rng(0).normal(size=(40, 3)).astype(">f4")
        dataset = load(self.saved(tmp_path, x=x, y=np.resize(["a", "b"], 40)))

        assert [record["name"] for record in dataset.preprocessing.columns] == ["x0", "x1", "x2"]
        train = x[dataset.train.rows]
        np.testing.assert_allclose(dataset.train.inputs, (train - train.mean(0)) / train.std(0), rtol=1e-4, atol=1e-5)
        assert dataset.preprocessing.classes == ("a", "b")

    def test_other_arrays_are_target_group_and_split_column(self, tmp_path: Path) -> None:
        request = self.saved(
            tmp_path, x=np.ones((30, 4, 4)), wanted=np.arange(30) % 2, g=np.arange(30) // 2, other=np.ones(7)
        )
        dataset = load(DataRequest(source=request.source, target="wanted", group="g"))

        assert (dataset.preprocessing.target_name, dataset.outputs) == ("wanted", 2)
        assert not set(dataset.train.rows // 2) & set(dataset.test.rows // 2)

    def test_other_arrays_are_features_only_where_the_study_says_so(self, tmp_path: Path) -> None:
        """A second answer, such as coarse and fine labels, would give the first away."""
        request = self.saved(tmp_path, x=np.ones((30, 2)), y=np.arange(30) % 2, coarse=np.arange(30) % 2)
        named = DataRequest(source=request.source, features=("x1", "coarse"))

        assert [record["name"] for record in load(request).preprocessing.columns] == ["x0", "x1"]
        assert [record["name"] for record in load(named).preprocessing.columns] == ["x1", "coarse"]

    @pytest.mark.parametrize("x", [np.arange(30.0), np.arange(30.0)[:, None]])
    def test_inputs_of_one_column_are_one_feature(self, tmp_path: Path, x: Any) -> None:
        dataset = load(self.saved(tmp_path, x=x, y=np.arange(30) % 2))

        assert [record["name"] for record in dataset.preprocessing.columns] == ["x0"]

    def test_an_array_of_a_single_value_is_left_aside(self, tmp_path: Path) -> None:
        request = self.saved(tmp_path, x=np.ones((30, 2)), y=np.arange(30) % 2, note=np.array("from the lab"))

        assert load(request).input_shape == (2,)

    def test_many_whole_numbers_are_classes_of_images(self, tmp_path: Path) -> None:
        request = self.saved(tmp_path, x=np.ones((100, 2, 2)), y=np.arange(100) % 25)

        assert load(request).outputs == 25

    @pytest.mark.parametrize(
        ("arrays", "said"),
        [
            ({"x": np.array([{}, 1]), "y": np.arange(2)}, "never unpickled"),
            ({"x": np.ones((9, 2)), "y": np.array([None] * 9)}, "never unpickled"),
            ({"x": np.array([[1.0, np.nan]] * 20), "y": np.arange(20) % 2}, "NaN or infinity in rows 1, 2"),
            (
                {"x": np.where(np.arange(60).reshape(20, 3) == 7, np.inf, 1.0), "y": np.arange(20) % 2},
                "infinity in row 3:",
            ),
            (
                {"x": np.where(np.arange(80).reshape(20, 2, 2) == 7, np.nan, 1.0), "y": np.arange(20) % 2},
                "infinity in row 2:",
            ),
            ({"x": np.full((20, 2), np.inf, np.float16), "y": np.arange(20) % 2}, "infinity in rows 1, 2"),
            ({"x": np.full((20, 2), 1e300), "y": np.arange(20) % 2}, "finite"),
            ({"x": np.array([["a"]] * 20), "y": np.arange(20) % 2}, "must hold numbers"),
            ({"x": np.ones((20, 2)), "y": np.arange(19)}, r"\(20, 2\) and y \(19,\)"),
            ({"x": np.ones((20, 2)), "y": np.eye(20)}, "one value for each row"),
            ({"x": np.ones((20, 2)), "z": np.arange(20)}, "no 'y'"),
            ({"X": np.ones((20, 2)), "y": np.arange(20)}, "its inputs as x, but it has 'X', 'y'"),
            ({"x": np.ones((0, 2)), "y": np.arange(0)}, "at least one row"),
            ({"x": np.array(1.0), "y": np.arange(1)}, "at least one row"),
            ({"x": np.ones((20, 5, 5, 4)), "y": np.arange(20) % 2}, r"1 or 3 channels.*\(20, 5, 5, 4\)"),
            ({"x": np.ones((20, 3, 5, 3)), "y": np.arange(20) % 2}, "both ways"),
            ({"x": np.ones((20, 2, 5, 5, 3)), "y": np.arange(20) % 2}, "shape"),
            ({"x": np.ones((20, 2)), "y": np.arange(20) % 2, "x1": np.ones(20)}, "x1 is what a column of x is called"),
        ],
    )
    def test_arrays_that_can_not_be_used_are_told_so(self, tmp_path: Path, arrays: dict[str, Any], said: str) -> None:
        with pytest.raises(DataError, match=said) as caught:
            load(self.saved(tmp_path, **arrays))

        assert "a.npz" in str(caught.value)

    def test_a_pickle_is_not_opened(self, tmp_path: Path) -> None:
        class Bomb:
            def __reduce__(self) -> tuple[object, ...]:
                return os.mkdir, (str(tmp_path / "bang"),)

        for content in (pickle.dumps(Bomb()), self.archive_with(Bomb()), b"PK\x03\x04nonsense"):
            (tmp_path / "a.npz").write_bytes(content)
            with pytest.raises(DataError):
                load(DataRequest(source=str(tmp_path / "a.npz")))
        assert not (tmp_path / "bang").exists()

    def archive_with(self, value: object) -> bytes:
        file = io.BytesIO()
        np.savez(file, x=np.array([value] * 5, dtype=object), y=np.arange(5))
        return file.getvalue()


def run_python(code: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout.strip()


def test_reading_a_table_needs_no_torch_and_leaves_no_cache(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(rows_of(["a", "b"] * 20))
    code = f"""
        import sys
        from trainer.data.dataset import DataRequest
        from trainer.data.load import load
        heavy = {{"sklearn", "pandas", "datasets", "PIL", "pyarrow", "scipy"}} & set(sys.modules)
        print(len(load(DataRequest(source={str(tmp_path / "t.csv")!r})).train), "torch" in sys.modules, heavy)
    """

    assert run_python(code, HF_HOME=str(tmp_path / "home")) == "28 False set()"
    assert not (tmp_path / "home").exists()


def test_a_hub_that_can_not_be_reached_is_told_so(tmp_path: Path) -> None:
    code = """
        from neurosweep.errors import DataError
        from trainer.data.dataset import DataRequest
        from trainer.data.load import load
        try:
            load(DataRequest(source="hf:somebody/set"))
        except DataError as error:
            print(error)
    """

    said = run_python(code, HF_HOME=str(tmp_path), HF_HUB_OFFLINE="1")
    assert said.startswith("hf:somebody/set: the Hugging Face hub can't be reached")


def test_a_hub_set_is_its_splits_joined(tmp_path: Path) -> None:
    # A folder of that name in the working directory stands in for the hub: `load_dataset` reads both the same way.
    place = tmp_path / "somebody" / "set"
    place.mkdir(parents=True)
    table(40).to_parquet(place / "train.parquet")
    table(20).to_parquet(place / "test.parquet")
    code = f"""
        import os
        os.chdir({str(tmp_path)!r})
        from trainer.data.dataset import DataRequest
        from trainer.data.load import describe, load
        print(describe(load(DataRequest(source="hf:somebody/set")))["splits"])
    """

    said = run_python(code, HF_HOME=str(tmp_path / "home"), HF_HUB_OFFLINE="1")
    assert said == "{'train': 42, 'validation': 9, 'test': 9}"


@pytest.mark.parametrize("name", ["hf:", "hf:http://169.254.169.254/x", "hf:../x", "hf:a/b/c"])
def test_what_is_no_hub_name_never_reaches_the_network(name: str) -> None:
    with pytest.raises(DataError, match="followed by a set's name"):
        load(DataRequest(source=name))
