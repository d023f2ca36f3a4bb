"""Rows that stand in two splits: exact copies by a hash, near copies of images by their distance."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import numpy.typing as npt

from trainer.data.dataset import Dataset, Split

THUMBNAIL = 16
"""Images are compared as averages of at most so many by so many blocks."""

NEAR = 0.1
"""A near copy lies within this share of the distance that is usual between an image and the one most like it."""

MOST_ROWS = 10_000
"""Images of a split that are looked at for near copies."""

CHUNK = 512

Array = npt.NDArray[Any]


def duplicates(dataset: Dataset, seed: int) -> dict[str, tuple[int, int]]:
    """For each pair of splits, how many rows of the second have an exact copy in the first, and how many others a near
    one (images only).

    How near two different images of a set can come is told from the set itself: the median distance from a train image
    to the nearest other one. Of large splits `MOST_ROWS` images are looked at, and the count is scaled up.
    """
    splits = {"train": dataset.train, "validation": dataset.validation, "test": dataset.test}
    hashes = {name: _hashes(split) for name, split in splits.items()}
    pairs = (("train", "validation"), ("train", "test"), ("validation", "test"))
    exact = {pair: np.isin(hashes[pair[1]], hashes[pair[0]]) for pair in pairs}
    near = dict.fromkeys(pairs, 0)
    if dataset.preprocessing.kind == "image":
        random = np.random.default_rng(seed)
        thumbnails = {name: _thumbnails(split, random) for name, split in splits.items()}
        centre = thumbnails["train"][1].mean(axis=0)  # float32 has too few digits for squares far from zero
        usual = _usual_distance(thumbnails["train"][1] - centre)
        for one, other in pairs:
            rows, images = thumbnails[other]
            close = _nearest(images - centre, thumbnails[one][1] - centre) < NEAR * usual
            found = int((close & ~exact[one, other][rows]).sum())
            near[one, other] = round(found * len(splits[other]) / max(1, len(rows)))
    return {f"{one}/{other}": (int(exact[one, other].sum()), near[one, other]) for one, other in pairs}


def _hashes(split: Split) -> Array:
    """64 bits of each row's content."""
    rows = np.ascontiguousarray(split.inputs)
    if rows.dtype.kind == "f":
        rows = rows + 0.0  # -0.0 equals 0.0
    return np.array(
        [int.from_bytes(hashlib.blake2b(row.tobytes(), digest_size=8).digest(), "little") for row in rows], np.uint64
    )


def _thumbnails(split: Split, random: np.random.Generator) -> tuple[Array, Array]:
    """Row places and flat float32 thumbnails of at most `MOST_ROWS` images."""
    rows = np.arange(len(split))
    if len(rows) > MOST_ROWS:
        rows = np.sort(random.choice(rows, MOST_ROWS, replace=False))
    height, width = split.inputs.shape[2:]
    high, wide = max(1, height // THUMBNAIL), max(1, width // THUMBNAIL)
    images = split.inputs[rows][:, :, : height // high * high, : width // wide * wide].astype(np.float32)
    blocks = images.reshape(*images.shape[:2], height // high, high, width // wide, wide).mean((3, 5))
    return rows, blocks.reshape(len(rows), -1)


def _usual_distance(images: Array) -> float:
    """The median distance from some train images to the nearest that is not a copy of them; 0 where there is none."""
    some = images[:: max(1, len(images) // 500)]
    median = float(np.median(_nearest(some, images, copies=False)))
    return median if np.isfinite(median) else 0.0


def _nearest(some: Array, others: Array, *, copies: bool = True) -> Array:
    """The Euclidean distance from each image to the nearest of the others; without `copies` those at no distance, such
    as the image itself, are left out."""
    squares, found = np.square(others).sum(1), []
    for start in range(0, len(some), CHUNK):
        part = some[start : start + CHUNK]
        own = np.square(part).sum(1)[:, None]
        distances = own - 2 * part @ others.T + squares
        if not copies:
            distances[distances <= 1e-4 * (own + squares)] = np.inf  # float32 rounds
        found.append(distances.min(1))
    return np.asarray(np.sqrt(np.maximum(np.concatenate(found), 0)))
