"""The best network as MLflow keeps it: raw rows in, answers out.

MLflow copies this file into the registered model and runs it wherever the model is loaded, so it imports nothing of
neurosweep and nothing is unpickled: the network is a ``torch.export`` program, all else is JSON. torch is imported only
when the model is loaded, because MLflow also runs this file where the model is merely saved.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel, PythonModelContext

Array = npt.NDArray[Any]

BATCH = 1024  # rows at a time: bounds memory, whatever is handed in


class Champion(PythonModel):  # type: ignore[misc]  # mlflow has no types
    """A trained network with the preprocessing that its raw rows need.

    For classification an answer has the columns ``prediction`` (the class) and one ``probability_<class>`` for each
    class; for regression ``prediction`` in the target's units.
    """

    def load_context(self, context: PythonModelContext) -> None:
        """Read the artifacts ``network`` (a .pt2 file) and ``preprocessing`` (JSON)."""
        import torch

        self.preprocessing = json.loads(Path(context.artifacts["preprocessing"]).read_text(encoding="utf-8"))
        with weights_only():
            self.network = torch.export.load(context.artifacts["network"]).module()

    # The hint keeps MLflow from demanding one; for images the input is an array.
    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """Answers for raw rows.

        Args:
            context: Not used; MLflow passes it.
            model_input: For a table a frame with the raw columns, in any order; for images an array of shape
                (rows, ...) in the layout of the training data, 8-bit or floating point.
            params: Not used; MLflow passes it.

        Raises:
            ValueError: A row can't be what the network was trained on; the message names the column or the shapes.
        """
        if self.preprocessing["kind"] == "table":
            inputs = encode_table(pd.DataFrame(model_input), self.preprocessing["columns"])
        else:
            inputs = encode_images(np.asarray(model_input), self.preprocessing)
        return self._answers(self._outputs(inputs))

    def _outputs(self, inputs: Array) -> Array:
        """The network's outputs, float64 of shape (rows, outputs); probabilities for classification."""
        import torch

        classification = self.preprocessing["task"] == "classification"
        parts = []
        with torch.inference_mode():
            for start in range(0, len(inputs), BATCH):
                outputs = self.network(torch.from_numpy(inputs[start : start + BATCH])).double()
                parts.append((torch.softmax(outputs, dim=1) if classification else outputs).numpy())
        width = len(self.preprocessing["classes"]) or 1
        return np.concatenate([np.zeros((0, width)), *(part.reshape(-1, width) for part in parts)])

    def _answers(self, outputs: Array) -> pd.DataFrame:
        classes = self.preprocessing["classes"]
        if not classes:
            scale, offset = self.preprocessing["target_std"], self.preprocessing["target_mean"]
            return pd.DataFrame({"prediction": outputs[:, 0] * scale + offset})
        answers: dict[str, Any] = {"prediction": [classes[index] for index in outputs.argmax(axis=1)]}
        for index, name in enumerate(classes):
            answers[f"probability_{name}"] = outputs[:, index]
        return pd.DataFrame(answers)


@contextmanager
def weights_only() -> Iterator[None]:
    """Let torch read tensors but unpickle nothing else: `torch.export.load` would otherwise fall back to pickle."""
    name = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def encode_table(rows: pd.DataFrame, columns: list[dict[str, Any]]) -> Array:
    """Raw rows as the network's inputs, float32 of shape (rows, features).

    A number becomes (value - mean) / std, a missing one `fill` first; where the column says ``missing``, an indicator
    follows it. A category becomes one feature a value; missing and unknown values are zeros in all of them.
    """
    absent = [column["name"] for column in columns if column["name"] not in rows.columns]
    if absent:
        raise ValueError(f"every column the network was trained on must be there, but {absent} are missing")
    features: list[Array] = []
    for column in columns:
        values = rows[column["name"]]
        if column["kind"] == "category":
            names = values.map(_category)
            features += [(names == _category(value)).to_numpy(np.float32) for value in column["values"]]
            continue
        numbers = _numbers(values, column["name"])
        missing = np.isnan(numbers)
        with np.errstate(over="ignore"):
            standardised = (np.where(missing, column["fill"], numbers) - column["mean"]) / column["std"]
            features.append(standardised.astype(np.float32))
        if not np.isfinite(features[-1]).all():
            raise ValueError(f"column {column['name']!r} holds a number too large for the network")
        if column.get("missing"):
            features.append(missing)
    if not features:
        return np.zeros((len(rows), 0), np.float32)
    return np.stack([feature.astype(np.float32) for feature in features], axis=1)


def _numbers(values: pd.Series[Any], name: str) -> npt.NDArray[np.float64]:
    """A column as float64; missing and empty ones are NaN, and so are infinities, which no file means to hold."""
    blank = values.map(lambda value: isinstance(value, str) and not value.strip())
    try:
        numbers = pd.to_numeric(values.mask(blank.astype(bool))).to_numpy(np.float64, na_value=np.nan)
    except (ValueError, TypeError) as error:
        raise ValueError(f"column {name!r} must hold numbers: {error}") from error
    return np.where(np.isfinite(numbers), numbers, np.nan)


def _category(value: Any) -> str | None:
    """One spelling for a category, whether it came as 3, 3.0, numpy's 3 or '3'; None for a missing one."""
    if isinstance(value, (bool, np.bool_)):
        return str(bool(value))
    if pd.isna(value):
        return None
    if isinstance(value, (float, np.floating)) and float(value).is_integer():
        return str(int(value))
    return str(value)


def encode_images(images: Array, preprocessing: dict[str, Any]) -> Array:
    """Raw images as the network's inputs: float32 of shape (rows, channels, height, width), in raw units."""
    channels, height, width = preprocessing["shape"]
    if images.ndim == 3 and channels == 1:
        images = images[:, None]
    elif images.ndim == 4 and preprocessing["channels_last"]:
        images = images.transpose(0, 3, 1, 2)
    if images.shape[1:] != (channels, height, width):
        layout = (
            "(rows, height, width, channels)" if preprocessing["channels_last"] else "(rows, channels, height, width)"
        )
        raise ValueError(
            f"images must come as {layout} with {channels} channels of {height} x {width} pixels, "
            f"but this array, channels moved to the front, has the shape {images.shape}"
        )
    return np.ascontiguousarray(images, np.float32)


set_model(Champion())
