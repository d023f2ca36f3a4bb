"""Images of one size, from an array or from pictures that are decoded when their rows are asked for."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from neurosweep.errors import DataError
from trainer.data.dataset import Array
from trainer.data.words import row_numbers

if TYPE_CHECKING:
    from PIL.Image import Image

FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
"""What Pillow may decode: formats of pixels alone, and none that another program reads for it."""

GREY, COLOUR = 1, 3
"""Channels that an image may have."""


@dataclass(frozen=True, kw_only=True)
class Images:
    """Images of one size.

    Attributes:
        shape: (channels, height, width).
        channels_last: Whether raw images come as height x width x channels.
        take: Raw images of these rows, in the source's own layout: uint8 or float32 of shape (rows, height, width) or
            with the channels before or behind. Raises `DataError` for a picture that can't be decoded.
    """

    shape: tuple[int, int, int]
    channels_last: bool
    take: Callable[[Array], Array]

    def channels_first(self, rows: Array) -> Array:
        """Images of these rows as one block of shape (rows, channels, height, width)."""
        raw = self.take(rows)
        if raw.ndim == 3:
            raw = raw[:, None]
        elif self.channels_last:
            raw = raw.transpose(0, 3, 1, 2)
        return np.ascontiguousarray(raw)


@dataclass(frozen=True)
class Picture:
    """An encoded image: its file's content or path, and what a message calls it."""

    name: str
    content: bytes | None


def images_from_array(array: Array, where: str) -> Images:
    """Images in an array of shape (rows, height, width), (rows, height, width, channels) or (rows, channels, height,
    width), with one channel or three.

    Raises:
        DataError: It has another shape, values that are not numbers, or NaN or infinity.
    """
    if array.dtype == np.bool_:
        array = array.astype(np.uint8)
    check_numbers(array, "x", where)
    shape, channels_last = _layout(array, where)
    narrow = array.dtype == np.uint8

    def take(rows: Array) -> Array:
        return array[rows] if narrow else array[rows].astype(np.float32, copy=False)

    return Images(shape=shape, channels_last=channels_last, take=take)


def check_numbers(array: Array, name: str, where: str) -> None:
    """Raises `DataError` unless the array holds numbers that float32 can hold."""
    if array.dtype.kind not in "biuf":
        raise DataError(f"{name} must hold numbers, but its type is {array.dtype}", where)
    if array.dtype.kind != "f" or not array.size:
        return
    # NaN survives min and max; neither makes a copy of the array.
    limit = min(float(np.finfo(kind).max) for kind in (np.float32, array.dtype))
    if -limit <= array.min() and array.max() <= limit:
        return
    good = np.abs(array.reshape(len(array), -1).astype(np.float64)) <= limit
    rows = np.flatnonzero(~good.all(axis=1))
    told = f"but there is NaN or infinity in {row_numbers(rows)}"
    raise DataError(f"{name} must be finite everywhere, {told}: repair or leave out those rows", where)


def _layout(array: Array, where: str) -> tuple[tuple[int, int, int], bool]:
    """(channels, height, width) and whether the channels come last."""
    if array.ndim == 3 and min(array.shape[1:]) > 0:
        return (GREY, array.shape[1], array.shape[2]), False
    layouts = "(rows, height, width), (rows, height, width, channels) or (rows, channels, height, width)"
    rule = f"images must be an array of shape {layouts} with 1 or 3 channels"
    if array.ndim != 4 or min(array.shape[1:]) == 0:
        raise DataError(f"{rule}, but this one has the shape {array.shape}", where)
    first, last = (array.shape[axis] in (GREY, COLOUR) for axis in (1, 3))
    if first and last:
        raise DataError(
            f"{rule}, but the shape {array.shape} can be read both ways: save x with more than 3 pixels a side", where
        )
    if not first and not last:
        raise DataError(f"{rule}, but this one has the shape {array.shape}", where)
    _, a, b, c = array.shape
    return ((c, a, b), True) if last else ((a, b, c), False)


def images_from_pictures(
    count: int, picture: Callable[[int], Picture], where: str, channels: int | None = None
) -> Images:
    """Images from encoded pictures, grey only where every one of them is; the headers are read now, the pixels later.

    Args:
        count: How many there are.
        picture: The picture of a row.
        channels: 1 or 3 to have every picture that way, whatever it is.

    Raises:
        DataError: A picture can't be read, or they are not all of one size.
    """
    sizes: dict[tuple[int, int], list[str]] = {}
    modes = set()
    for row in range(count):
        encoded = picture(row)
        with _opened(encoded, where) as image:
            sizes.setdefault(_upright_size(image), []).append(encoded.name)
            modes.add(_pixels(image.mode))
    if len(sizes) > 1:
        told = [f"{width} x {height} ({len(names):,}, such as {names[0]})" for (width, height), names in sizes.items()]
        message = "all images must have one size, but there are " + ", ".join(told[:3])
        message += f" and {len(sizes) - 3} sizes more" if len(sizes) > 3 else ""
        raise DataError(message + ": bring them to one size first", where)
    mode = _common(modes, channels, where)
    ((width, height),) = sizes
    colours = (COLOUR,) if mode == "RGB" else ()
    shape = (COLOUR if colours else GREY, height, width)

    def take(rows: Array) -> Array:
        raw = np.empty((len(rows), height, width, *colours), np.float32 if mode == "F" else np.uint8)
        for place, row in enumerate(rows):
            raw[place] = _decoded(picture(int(row)), mode, where)
        return raw

    return Images(shape=shape, channels_last=True, take=take)


def _common(modes: set[str], channels: int | None, where: str) -> str:
    """The one of Pillow's modes L (8-bit grey), F (float grey) and RGB that all pictures are brought to."""
    colour = channels == COLOUR or (channels is None and "RGB" in modes)
    if "F" not in modes:
        return "RGB" if colour else "L"
    if colour or len(modes) > 1:  # the same grey is 200 with 8 bits and 51400 with 16
        raise DataError("pictures of 8 bits and grey ones with more can't be mixed: convert them", where)
    return "F"


def _pixels(mode: str) -> str:
    """The one of Pillow's modes L, F and RGB that holds what a picture of another mode shows."""
    if mode in ("1", "L"):
        return "L"
    return "F" if mode == "F" or mode.startswith("I") else "RGB"


def _upright_size(image: Image) -> tuple[int, int]:
    """Width and height once the camera's orientation is followed."""
    from PIL.ExifTags import Base

    width, height = image.size
    return (height, width) if image.getexif().get(Base.Orientation, 1) in (5, 6, 7, 8) else (width, height)


def _decoded(picture: Picture, mode: str, where: str) -> Array:
    from PIL import ImageOps

    with _opened(picture, where) as image:
        upright = ImageOps.exif_transpose(image)
        if upright.mode.startswith("I;"):  # 16 bits: to RGB only by way of 32
            upright = upright.convert("I")
        if upright.mode == "P" and "transparency" in upright.info:  # Pillow warns of what it does with it otherwise
            upright = upright.convert("RGBA")
        pixels = np.asarray(upright.convert(mode))
        if not np.isfinite(pixels).all():
            raise DataError(f"{picture.name} must be finite everywhere, but there is NaN or infinity in it", where)
        return pixels


@contextmanager
def _opened(picture: Picture, where: str) -> Iterator[Image]:
    """A picture whose header is read. Whatever goes wrong inside is the picture's fault: a `DataError` names it."""
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            file = picture.name if picture.content is None else io.BytesIO(picture.content)
            with Image.open(file, formats=FORMATS) as image:
                yield image
    except UnidentifiedImageError:
        raise DataError(f"{picture.name} is not an image that can be read", where) from None
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        limit = f"{Image.MAX_IMAGE_PIXELS:,}"
        raise DataError(f"an image has at most {limit} pixels, but {picture.name} claims more", where) from None
    except (OSError, ValueError, SyntaxError, EOFError, TypeError, KeyError, IndexError, ArithmeticError) as error:
        # Pillow's decoders raise any of these for a damaged file.
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{picture.name} can't be read as an image: {reason}", where) from None


def check_fits(images: Images, shape: Sequence[int], where: str) -> None:
    """Raises `DataError` unless the images have the (channels, height, width) that a network was trained on."""
    if tuple(images.shape) != tuple(shape):
        wanted, got = (
            f"{s[0]} channel{'s' if s[0] > 1 else ''} of {s[1]} x {s[2]} pixels" for s in (shape, images.shape)
        )
        raise DataError(f"the model takes images with {wanted}, height first, but these have {got}", where)
