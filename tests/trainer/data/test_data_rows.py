"""Raw rows for predictions: as the champion takes them, from files without the target."""

from __future__ import annotations

import dataclasses
import json
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from neurosweep.errors import DataError
from storage.champion_model import encode_images
from trainer.data.dataset import DataRequest, Preprocessing
from trainer.data.load import load, read_rows

TABLE = Preprocessing(
    kind="table",
    task="regression",
    columns=(
        {"name": "code", "kind": "category", "values": ["007", "x"]},
        {"name": "width", "kind": "number", "mean": 0.0, "std": 1.0, "fill": 0.0},
        {"name": "count", "kind": "number", "mean": 0.0, "std": 1.0, "fill": 0.0},
    ),
)
ROWS: list[dict[str, Any]] = [{"code": "007", "width": 1.5, "count": 3}, {"code": None, "width": None, "count": 4}]


def images(channels: int) -> Preprocessing:
    raw = (4, 6, 3) if channels == 3 else (4, 6)
    return Preprocessing(kind="image", task="classification", shape=(channels, 4, 6), raw_shape=raw, channels_last=True)


@pytest.mark.parametrize("kind", ["csv", "parquet", "jsonl"])
def test_a_table_gives_the_columns_the_network_knows(tmp_path: Path, kind: str) -> None:
    file = tmp_path / f"new.{kind}"
    if kind == "csv":
        file.write_text("count,other,width,code\n3,z,1.5,007\n4,z,NA,\n")
    elif kind == "parquet":
        pd.DataFrame(ROWS).assign(other="z").to_parquet(file)
    else:
        file.write_text("".join(json.dumps({**row, "other": "z"}) + "\n" for row in ROWS))

    assert read_rows(file, TABLE) == ROWS


def test_texts_of_a_typed_file_that_are_numbers_are_read(tmp_path: Path) -> None:
    (tmp_path / "new.jsonl").write_text('{"code": 7, "width": " 1.5 ", "count": ""}\n')

    assert read_rows(tmp_path / "new.jsonl", TABLE) == [{"code": 7, "width": 1.5, "count": None}]


def test_an_npz_table_gives_mappings(tmp_path: Path) -> None:
    x = np.array([[1.0, 2.0], [3.0, 4.0]])
    numbers = {"kind": "number", "mean": 0.0, "std": 1.0, "fill": 0.0}
    known = Preprocessing(
        kind="table", task="regression", columns=tuple({"name": name, **numbers} for name in ("x0", "x1", "age"))
    )
    for order in "<>":
        np.savez(tmp_path / "new.npz", x=x.astype(f"{order}f4"), age=np.array([5, 6]), note=np.array("new"))

        expected = [{"x0": 1.0, "x1": 2.0, "age": 5}, {"x0": 3.0, "x1": 4.0, "age": 6}]
        assert read_rows(tmp_path / "new.npz", known) == expected


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("code,width\n007,1\n", ["no 'count'"]),
        ("code,widht,count\n007,1,2\n", ["'width'", "did you mean 'widht'?"]),
        ("code,width,count\n007,1,2\n007,wide,2\n", ["'width' must hold numbers", "row 2 says 'wide'"]),
        ("code,width,count\n", ["at least one row"]),
        ("", ["empty"]),
    ],
)
def test_rows_that_do_not_fit_are_told_so(tmp_path: Path, text: str, said: list[str]) -> None:
    (tmp_path / "new.csv").write_text(text)

    with pytest.raises(DataError) as caught:
        read_rows(tmp_path / "new.csv", TABLE)

    assert all(part in str(caught.value) for part in [*said, "new.csv"]), str(caught.value)


@pytest.mark.parametrize("line", ['{"code": "x", "width": true, "count": 1}', '{"code": [1], "width": 1, "count": 1}'])
def test_other_types_are_told_so(tmp_path: Path, line: str) -> None:
    (tmp_path / "new.jsonl").write_text(line + "\n")

    with pytest.raises(DataError, match="must hold"):
        read_rows(tmp_path / "new.jsonl", TABLE)


@pytest.mark.parametrize("channels", [1, 3])
def test_images_come_from_a_file_a_folder_or_an_array(tmp_path: Path, channels: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, size=(3, 4, 6, 3), dtype=np.uint8)
    pixels = pixels if channels == 3 else pixels[..., 0]
    (tmp_path / "more").mkdir()
    for name, image in zip(("a.png", "b.png", "more/a.png"), pixels, strict=True):
        Image.fromarray(image).save(tmp_path / name)
    np.savez(tmp_path / "new.npz", x=pixels)

    np.testing.assert_array_equal(read_rows(tmp_path, images(channels)), pixels)
    np.testing.assert_array_equal(read_rows(tmp_path / "b.png", images(channels)), pixels[1:2])
    np.testing.assert_array_equal(read_rows(tmp_path / "new.npz", images(channels)), pixels)


def stored(folder: Path, layout: str, pixels: np.ndarray) -> Path:
    """Images of shape (rows, height, width, channels) as pictures or as an array; the first half is a class."""
    folder.mkdir()
    if layout != "pictures":
        axes = {"last": (0, 1, 2, 3), "first": (0, 3, 1, 2)}
        x = pixels[..., 0] if layout == "without" else pixels.transpose(axes[layout])
        np.savez(folder / "i.npz", x=x, y=np.arange(len(pixels)) * 2 // len(pixels))
        return folder / "i.npz"
    for row, image in enumerate(pixels):
        place = folder / "ab"[row * 2 // len(pixels)]
        place.mkdir(exist_ok=True)
        Image.fromarray(image[..., 0] if image.shape[2] == 1 else image).save(place / f"{row:02}.png")
    return folder


LAYOUTS = {3: ["pictures", "last", "first"], 1: ["pictures", "last", "first", "without"]}
"""Of images with so many channels; without: without an axis of channels."""


@pytest.mark.parametrize(
    ("channels", "learnt", "new"), [(many, *pair) for many in LAYOUTS for pair in product(LAYOUTS[many], repeat=2)]
)
def test_images_come_in_the_layout_the_network_learnt_from(
    tmp_path: Path, channels: int, learnt: str, new: str
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, size=(12, 4, 6, channels), dtype=np.uint8)
    dataset = load(DataRequest(source=str(stored(tmp_path / "learnt", learnt, pixels))))

    rows = read_rows(stored(tmp_path / "new", new, pixels), dataset.preprocessing)

    # MLflow holds new rows to the example's shape.
    np.testing.assert_array_equal(np.asarray(rows)[dataset.train.rows[:3]], dataset.example)
    encoded = encode_images(np.asarray(rows), dataclasses.asdict(dataset.preprocessing))
    np.testing.assert_array_equal(encoded, pixels.transpose(0, 3, 1, 2))


def test_pictures_take_the_channels_the_network_knows(tmp_path: Path) -> None:
    Image.new("RGBA", (6, 4), (9, 9, 9, 255)).save(tmp_path / "a.png")
    Image.new("L", (6, 4), 9).save(tmp_path / "b.png")

    np.testing.assert_array_equal(read_rows(tmp_path, images(3)), np.full((2, 4, 6, 3), 9))
    np.testing.assert_array_equal(read_rows(tmp_path, images(1)), np.full((2, 4, 6), 9))


def test_images_of_another_size_and_no_images_are_told_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="at least one image"):
        read_rows(tmp_path, images(3))
    Image.new("RGB", (4, 6)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match="3 channels of 4 x 6 pixels, height first, but these have 3 channels of 6 x 4"):
        read_rows(tmp_path, images(3))
    with pytest.raises(DataError, match="rows of a table"):
        read_rows(tmp_path, TABLE)
    (tmp_path / "t.csv").write_text("a\n1\n")
    with pytest.raises(DataError, match="no column of them"):
        read_rows(tmp_path / "t.csv", images(3))
    with pytest.raises(DataError, match=r"did you mean 'a\.png'"):
        read_rows(tmp_path / "a.pgn", images(3))
