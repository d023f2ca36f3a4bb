"""What the page of an image model holds: the network with its weights, and images with what the network says of them.

All of it are plain JSON values, as `search.pages.shell.render` takes them; the page's scripts compute the rest.
"""

from __future__ import annotations

import base64
import math
from itertools import zip_longest
from typing import Any

import numpy as np
import numpy.typing as npt

from neurosweep.errors import BadInputError
from trainer.anatomy import Kind, Layer, layers_of
from trainer.data.dataset import Dataset, Split, Task
from trainer.settings import Settings

Array = npt.NDArray[Any]

PAGE_BYTES = 10_000_000
"""No page is larger."""

FRAME_BYTES = 500_000
"""Room for the style, the scripts, and the figures in the page."""

IMAGE_BYTES = 2_000_000
"""Room for images, where the weights leave it."""

EXAMPLES, MISTAKES, MOST_IMAGES = 40, 24, 4_000
CHECKED = 8
"""Examples that come with PyTorch's own answers, with which the page compares its own."""

SAMPLE, INKED = 1_000, 0.15
"""Train images that are looked at for how images are drawn, and the share of the pixels' range from which it is ink."""

MOST_CELLS = 20
"""Classes up to which a confusion matrix fits a screen; of more, the most frequent confusions are listed."""

BATCH_NORM_EPSILON = 1e-5
"""PyTorch's, which the networks leave as it is."""


class Tape:
    """Arrays one behind the other, as the page finds them: by where each one begins."""

    def __init__(self) -> None:
        self.arrays: list[Array] = []
        self.length = 0

    def add(self, array: Array) -> int:
        """Where the array begins."""
        start = self.length
        self.arrays.append(array.astype(np.float32).ravel())
        self.length += array.size
        return start

    def packed(self) -> dict[str, Any]:
        """The numbers as text, in single precision where the page has room for that and in half precision otherwise.

        Raises:
            BadInputError: They take too much room even so.
        """
        room = PAGE_BYTES - FRAME_BYTES
        for kind in ("<f4", "<f2"):
            if encoded_size(self.length * np.dtype(kind).itemsize) <= room:
                return {"bytes": np.dtype(kind).itemsize, "text": encoded(np.concatenate(self.arrays), kind)}
        most = room * 3 // 4 // 2
        raise BadInputError(
            f"the page of a network holds at most {most:,} weights, so that it stays under {PAGE_BYTES // 10**6} MB, "
            f"but this one has {self.length:,}; search for smaller ones: fewer filters or neurons, a stride, or pooling"
        )


def encoded(array: Array, kind: str) -> str:
    """Base64 of the array as little-endian numbers of this kind."""
    return base64.b64encode(np.ascontiguousarray(array, dtype=kind).tobytes()).decode("ascii")


def encoded_size(size: int) -> int:
    """Letters that so many bytes take."""
    return 4 * math.ceil(size / 3)


def network_data(settings: Settings, weights: dict[str, Array], dataset: Dataset) -> dict[str, Any]:
    """The layers, from the input on, and their weights.

    Each layer has the name and kind that `trainer.anatomy` gives it (and ``input``), its ``input`` and ``output``
    shape, how many ``weights`` it has, what each neuron ``sees`` of the image's height and width, and where its arrays
    begin in the weights: ``weight``, and ``bias`` or the batch norm's ``mean``, ``scale`` and ``shift``, so that it
    gives (z - mean) * scale + shift. Batch norm and activation are parts of their layer.

    Raises:
        BadInputError: There are more weights than a page holds.
    """
    tape = Tape()
    layers: list[dict[str, Any]] = [{"name": "input", "kind": "input", "output": list(dataset.input_shape)}]
    for layer in layers_of(settings, dataset.input_shape, dataset.outputs):
        if layer.kind is Kind.NORM:
            continue
        layers.append(_layer(layer, settings, layers[-1]["output"]) | _places(layer.name, weights, tape))
    preprocessing = dataset.preprocessing
    return {
        "layers": layers,
        "weights": tape.packed(),
        "weight_count": sum(array.size for name, array in weights.items() if name.endswith((".weight", ".bias"))),
        "mean": list(preprocessing.mean),
        "std": list(preprocessing.std),
    }


def _layer(layer: Layer, settings: Settings, below: list[int]) -> dict[str, Any]:
    """A layer without its arrays; `below` is the shape of what it looks at, before a dense layer flattens it."""
    found: dict[str, Any] = {
        "name": layer.name,
        "kind": str(layer.kind),
        "input": below,
        "output": list(layer.output),
        "weights": layer.weights,
    }
    if layer.window and layer.sees:
        found["sees"] = layer.sees.size
        found |= {"size": layer.window.size, "stride": layer.window.stride, "padding": layer.window.padding}
    if layer.weights and layer.name != "output":
        found["activation"] = str(settings.activation)
    return found


def _places(name: str, weights: dict[str, Array], tape: Tape) -> dict[str, int]:
    """Where a layer's arrays begin, by what they are; nothing for a layer without weights."""
    places = {}
    for kind in ("weight", "bias"):
        if f"{name}.{kind}" in weights:
            places[kind] = tape.add(weights[f"{name}.{kind}"])
    norm = f"{name}_norm"
    if f"{norm}.weight" in weights:
        deviation = np.sqrt(weights[f"{norm}.running_var"].astype(np.float64) + BATCH_NORM_EPSILON)
        places["mean"] = tape.add(weights[f"{norm}.running_mean"])
        places["scale"] = tape.add(weights[f"{norm}.weight"] / deviation)
        places["shift"] = tape.add(weights[f"{norm}.bias"])
    return places


def answers_data(dataset: Dataset, split: Split, outputs: Array, truth: Array, room: int) -> dict[str, Any]:
    """Images of a split with what the network says of them, as many as there is room for.

    Args:
        outputs: Probabilities of shape (rows, classes), or predictions in the target's units of shape (rows,).
        truth: Class indices, or targets in their units, of shape (rows,).
        room: Bytes that the images may take in the page.

    Returns:
        ``images`` has for each image its row in the source, truth, answer and how sure the network is (or, in a
        regression, how far off); ``examples`` and ``mistakes`` are indices into it; ``confusion`` has (class, answer,
        rows) for each pair that occurs in the whole split.
    """
    classes = dataset.task is Task.CLASSIFICATION
    answers = outputs.argmax(axis=1) if classes else outputs
    certainty = outputs.max(axis=1) if classes else np.abs(outputs - truth)
    wrong = np.flatnonzero(answers != truth)
    mistakes = wrong[np.argsort(-certainty[wrong], kind="stable")][:MISTAKES]
    examples = _spread(truth, EXAMPLES) if classes else np.arange(min(EXAMPLES, len(truth)))
    cells = truth * dataset.outputs + answers if classes else np.zeros(len(truth), np.int64)
    kind = "|u1" if split.inputs.dtype == np.uint8 else "<f4"
    each = encoded_size(math.prod(split.inputs.shape[1:]) * np.dtype(kind).itemsize)
    most = min(MOST_IMAGES, room // each)
    chosen = list(dict.fromkeys([*examples.tolist(), *mistakes.tolist(), *_spread(cells, most).tolist()]))[:most]
    place = {row: index for index, row in enumerate(chosen)}
    return {
        "images": {
            "rows": split.rows[chosen].tolist(),
            "truth": truth[chosen].tolist(),
            "answer": answers[chosen].tolist(),
            "certainty": certainty[chosen].tolist(),
            "bytes": np.dtype(kind).itemsize,
            "text": encoded(split.inputs[chosen], kind),
        },
        "examples": [place[row] for row in examples.tolist() if row in place],
        "mistakes": [place[row] for row in mistakes.tolist() if row in place],
        "checked": [
            {"image": place[row], "outputs": np.atleast_1d(outputs[row]).tolist()}
            for row in examples[:CHECKED].tolist()
            if row in place
        ],
        "confusion": _confusion(truth, answers) if classes else None,
        "most_cells": MOST_CELLS,
    }


def _spread(groups: Array, most: int) -> Array:
    """Rows of every group in turn: the first of each, then the second of each, and so on."""
    rows = [np.flatnonzero(groups == group).tolist() for group in np.unique(groups)]
    turns = (row for turn in zip_longest(*rows) for row in turn if row is not None)
    return np.fromiter((row for row, _ in zip(turns, range(most), strict=False)), np.int64)


def _confusion(truth: Array, answers: Array) -> list[list[int]]:
    pairs, counts = np.unique(np.stack([truth, answers], axis=1), axis=0, return_counts=True)
    cells: list[list[int]] = np.column_stack([pairs, counts]).tolist()
    return cells


def drawing_data(train: Split) -> dict[str, Any]:
    """How to draw an image like those of the train split.

    Returns:
        ``low`` and ``high``, the pixels' range in raw units; which of them is ``paper`` and which is ``ink`` (what most
        images have at their border is paper); and ``box``, the first and last row and column that have ink in the
        middle one of the images.
    """
    low, high = float(train.inputs.min()), float(train.inputs.max())
    if train.inputs.dtype == np.uint8 and high > 127:
        low, high = 0.0, 255.0
    if low == high:
        high = low + 1
    some = train.inputs[:SAMPLE].astype(np.float64)
    border = np.concatenate([some[:, :, [0, -1]].ravel(), some[:, :, :, [0, -1]].ravel()])
    bright = float(np.median(border)) > (low + high) / 2
    paper, ink = (high, low) if bright else (low, high)
    strength = np.abs(some - paper).max(axis=1) / (high - low)
    sides = {"top": (2, 0), "bottom": (2, -1), "left": (1, 0), "right": (1, -1)}
    box = {side: _middle(strength.max(axis=axis) > INKED, end) for side, (axis, end) in sides.items()}
    return {"low": low, "high": high, "paper": paper, "ink": ink, "box": box}


def _middle(inked: Array, end: int) -> int:
    """The median over the images, (images, rows), of the first (0) or last (-1) row that has ink; the outermost one
    where no image has any."""
    found = [np.flatnonzero(image)[end] for image in inked if image.any()]
    return int(np.median(found)) if found else (0 if end == 0 else inked.shape[1] - 1)
