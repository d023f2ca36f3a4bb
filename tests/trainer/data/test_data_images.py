"""Images from folders, arrays and tables: layouts, modes and broken files."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from neurosweep.errors import DataError
from trainer.data.dataset import DataRequest
from trainer.data.load import load

ROWS = 24
PIXELS = np.random.default_rng(0).integers(0, 256, size=(ROWS, 5, 7, 3), dtype=np.uint8)


def folder_of(root: Path, pixels: np.ndarray, mode: str | None = None) -> DataRequest:
    """Images as PNG files in the folders a and b by turns, named so that their order is the rows' within a class."""
    for row, image in enumerate(pixels):
        place = root / "ab"[row % 2]
        place.mkdir(parents=True, exist_ok=True)
        picture = Image.fromarray(image)
        (picture.convert(mode) if mode else picture).save(place / f"{row:03}.png")
    return DataRequest(source=str(root))


def in_order_of_paths(pixels: np.ndarray) -> np.ndarray:
    return np.concatenate([pixels[0::2], pixels[1::2]])


def test_a_folder_has_a_class_a_sub_folder_and_keeps_its_pixels(tmp_path: Path) -> None:
    dataset = load(folder_of(tmp_path, PIXELS))

    assert (dataset.input_shape, dataset.train.inputs.dtype.name) == ((3, 5, 7), "uint8")
    assert (dataset.preprocessing.classes, dataset.preprocessing.channels_last) == (("a", "b"), True)
    for split in (dataset.train, dataset.validation, dataset.test):
        np.testing.assert_array_equal(split.inputs, in_order_of_paths(PIXELS)[split.rows].transpose(0, 3, 1, 2))
        np.testing.assert_array_equal(split.targets, split.rows >= ROWS // 2)
    np.testing.assert_array_equal(dataset.example, in_order_of_paths(PIXELS)[dataset.train.rows[:3]])


def test_grey_pictures_have_one_channel(tmp_path: Path) -> None:
    dataset = load(folder_of(tmp_path, PIXELS[..., 0]))

    assert dataset.input_shape == (1, 5, 7)
    np.testing.assert_array_equal(dataset.test.inputs[:, 0], in_order_of_paths(PIXELS[..., 0])[dataset.test.rows])


@pytest.mark.parametrize("mode", ["RGBA", "P", "LA"])
def test_other_modes_become_colour(tmp_path: Path, mode: str) -> None:
    assert load(folder_of(tmp_path, PIXELS, mode)).input_shape == (3, 5, 7)


def test_a_palette_with_transparency_keeps_its_colours_and_warns_of_nothing(tmp_path: Path) -> None:
    request = folder_of(tmp_path, PIXELS, "P")
    palettes = sorted(tmp_path.rglob("*.png"))
    for path in palettes:
        with Image.open(path) as image:
            image.save(path, transparency=bytes([0, 128, 255]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dataset = load(request)

    for row, pixels in zip(dataset.test.rows, dataset.test.inputs, strict=True):
        with Image.open(palettes[row]) as image:
            palette = np.array(image.getpalette()).reshape(-1, 3)
            np.testing.assert_array_equal(pixels.transpose(1, 2, 0), palette[np.asarray(image)])


def test_one_colour_picture_makes_all_of_them_colour(tmp_path: Path) -> None:
    request = folder_of(tmp_path, PIXELS[..., 0])
    Image.fromarray(PIXELS[0]).save(tmp_path / "a" / "000.png")

    dataset = load(request)

    assert dataset.input_shape == (3, 5, 7)
    grey = np.concatenate([split.inputs[split.rows > 0] for split in (dataset.train, dataset.validation, dataset.test)])
    np.testing.assert_array_equal(grey[:, 0], grey[:, 2])


def test_grey_pictures_of_16_bits_keep_them(tmp_path: Path) -> None:
    deep = np.random.default_rng(0).integers(0, 65536, size=(ROWS, 5, 7), dtype=np.uint16)

    dataset = load(folder_of(tmp_path, deep))

    assert dataset.test.inputs.dtype == np.float32
    np.testing.assert_array_equal(dataset.test.inputs[:, 0], in_order_of_paths(deep)[dataset.test.rows])


@pytest.mark.parametrize("other", [PIXELS[0], PIXELS[0][..., 0]], ids=["colour", "grey"])
def test_pictures_of_16_bits_and_of_8_are_not_mixed(tmp_path: Path, other: np.ndarray) -> None:
    """White is 65535 in the ones and 255 in the others."""
    request = folder_of(tmp_path, PIXELS[..., 0].astype(np.uint16) * 257)
    Image.fromarray(other).save(tmp_path / "a" / "000.png")

    with pytest.raises(DataError, match="can't be mixed"):
        load(request)


@pytest.mark.parametrize("strange", [np.nan, np.inf])
def test_a_picture_with_a_pixel_that_is_no_number_is_named(tmp_path: Path, strange: float) -> None:
    for row, pixels in enumerate(PIXELS[..., 0].astype(np.float32)):
        (tmp_path / "ab"[row % 2]).mkdir(exist_ok=True)
        pixels[2, 3] = strange if row == 5 else 0
        Image.fromarray(pixels).save(tmp_path / "ab"[row % 2] / f"{row:03}.tif")

    with pytest.raises(DataError, match=r"005\.tif must be finite"):
        load(DataRequest(source=str(tmp_path)))


def test_a_cameras_orientation_is_followed(tmp_path: Path) -> None:
    request = folder_of(tmp_path, PIXELS)
    exif = Image.Exif()
    exif[0x0112] = 6  # stored on its side: turn it clockwise
    Image.fromarray(np.rot90(PIXELS[0])).save(tmp_path / "a" / "000.png", exif=exif)

    dataset = load(request)

    split = next(s for s in (dataset.train, dataset.validation, dataset.test) if 0 in s.rows)
    np.testing.assert_array_equal(split.inputs[split.rows == 0][0], PIXELS[0].transpose(2, 0, 1))


def png_that_claims(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"0")) + chunk(b"IEND", b"")


def png_of(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"no image", r"zz\.png is not an image"),
        (png_of(PIXELS[0])[:60], r"zz\.png can't be read"),
        (png_that_claims(12_000, 12_000), r"at most .* pixels, but .*zz\.png"),
        (png_that_claims(30_000, 30_000), r"at most .* pixels, but .*zz\.png"),
        (
            png_of(PIXELS[0][:4, :4]),
            r"one size, but there are 7 x 5 \(24, such as .*\), 4 x 4 \(1, such as .*zz\.png\)",
        ),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 7 5\n", r"zz\.png is not an image"),
    ],
)
def test_a_picture_that_can_not_be_used_is_named(tmp_path: Path, content: bytes, said: str) -> None:
    request = folder_of(tmp_path, PIXELS)
    (tmp_path / "a" / "zz.png").write_bytes(content)

    with pytest.raises(DataError, match=said):
        load(request)


def test_a_folder_without_classes_or_with_an_empty_one_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="sub-folder for each class"):
        load(DataRequest(source=str(tmp_path)))
    request = folder_of(tmp_path, PIXELS)
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "a" / "notes.txt").write_text("left aside")
    assert load(request).outputs == 2
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty has none"):
        load(request)
    (tmp_path / "empty" / "x.png").write_bytes(png_of(PIXELS[0]))
    (tmp_path / "stray.png").write_bytes(png_of(PIXELS[0]))
    with pytest.raises(DataError, match=r"'stray\.png' does not"):
        load(request)


def test_a_folder_of_folders_points_inside(tmp_path: Path) -> None:
    folder_of(tmp_path / "set" / "train", PIXELS)
    folder_of(tmp_path / "set" / "test", PIXELS)

    with pytest.raises(DataError, match=r"name .*set/test if the classes are in there"):
        load(DataRequest(source=str(tmp_path / "set")))


@pytest.mark.parametrize(
    ("axes", "channels_last"), [((0, 1, 2, 3), True), ((0, 3, 1, 2), False)], ids=["channels last", "channels first"]
)
def test_arrays_may_have_their_channels_first_or_last(
    tmp_path: Path, axes: tuple[int, ...], channels_last: bool
) -> None:
    np.savez(tmp_path / "i.npz", x=PIXELS.transpose(axes), y=np.arange(ROWS) % 2)

    dataset = load(DataRequest(source=str(tmp_path / "i.npz")))

    assert (dataset.input_shape, dataset.preprocessing.channels_last) == ((3, 5, 7), channels_last)
    np.testing.assert_array_equal(dataset.train.inputs, PIXELS[dataset.train.rows].transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(dataset.example, PIXELS.transpose(axes)[dataset.train.rows[:3]])
    assert dataset.train.inputs.dtype == np.uint8
    assert dataset.train.inputs.flags.c_contiguous


@pytest.mark.parametrize(
    ("stored", "held"), [("?", "u1"), ("u1", "u1"), ("u2", "f4"), ("i8", "f4"), ("f2", "f4"), ("f8", "f4")]
)
def test_8_bits_stay_8_bits_and_other_numbers_become_float32(tmp_path: Path, stored: str, held: str) -> None:
    pixels = (PIXELS[..., 0] % 2).astype(stored)
    np.savez(tmp_path / "i.npz", x=pixels, y=np.arange(ROWS) % 2)

    dataset = load(DataRequest(source=str(tmp_path / "i.npz")))

    assert dataset.test.inputs.dtype == np.dtype(held)
    np.testing.assert_array_equal(dataset.test.inputs[:, 0], pixels[dataset.test.rows])


def test_features_are_no_business_of_images(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="features chooses columns of a table"):
        load(DataRequest(source="digits", features=("x",)))


class TestTableOfImages:
    """A Parquet file with a column of images, as the hub keeps them."""

    def written(self, folder: Path, **more: list[object]) -> str:
        import datasets

        columns = {"image": [{"bytes": png_of(image), "path": None} for image in PIXELS], "age": list(range(ROWS))}
        labels = datasets.ClassLabel(names=["dog", "cat"])
        features = {"image": datasets.Image(), "age": datasets.Value("int64"), "label": labels}
        features |= {name: datasets.Image() for name in more}
        columns |= {"label": [row % 2 for row in range(ROWS)], **more}
        dataset = datasets.Dataset.from_dict(columns, features=datasets.Features(features))
        dataset.to_parquet(str(folder / "t.parquet"))
        return str(folder / "t.parquet")

    def test_the_images_are_the_inputs_and_labels_have_names(self, tmp_path: Path) -> None:
        dataset = load(DataRequest(source=self.written(tmp_path)))

        np.testing.assert_array_equal(dataset.test.inputs, PIXELS[dataset.test.rows].transpose(0, 3, 1, 2))
        assert dataset.preprocessing.classes == ("cat", "dog")
        np.testing.assert_array_equal(dataset.test.targets, 1 - dataset.test.rows % 2)

    def test_features_choose_columns_instead(self, tmp_path: Path) -> None:
        source = self.written(tmp_path)

        assert load(DataRequest(source=source, features=("age",))).input_shape == (1,)
        assert load(DataRequest(source=source, features=("image",))).input_shape == (3, 5, 7)
        with pytest.raises(DataError, match=r"features: \[image\]"):
            load(DataRequest(source=source, features=("image", "age")))

    def test_two_columns_of_images_leave_it_open(self, tmp_path: Path) -> None:
        source = self.written(tmp_path, mask=[{"bytes": png_of(image), "path": None} for image in PIXELS])

        with pytest.raises(DataError, match="one column of images"):
            load(DataRequest(source=source))
        assert load(DataRequest(source=source, features=("mask",))).input_shape == (3, 5, 7)

    def test_a_row_without_an_image_is_named(self, tmp_path: Path) -> None:
        source = self.written(
            tmp_path, mask=[None if row == 4 else {"bytes": png_of(PIXELS[0]), "path": None} for row in range(ROWS)]
        )

        with pytest.raises(DataError, match="row 5 has none"):
            load(DataRequest(source=source, features=("mask",)))
