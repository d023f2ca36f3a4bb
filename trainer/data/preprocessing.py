"""Raw rows to the network's inputs: fitted on the train split alone, then applied to anything.

The rules are written at `trainer.data.dataset.Preprocessing`. The champion carries its own copy of `encode_table`, since
it loads without our code; a test holds both together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from neurosweep.errors import DataError
from trainer.data.dataset import Array

if TYPE_CHECKING:
    import pandas as pd

MOST_CATEGORIES = 1000
"""A column with more values than this is refused; it is an identifier or free text, or needs thinking about."""

FEW_ROWS = 50
"""From this many rows on, a text column that hardly ever repeats itself is refused too."""


def fit_columns(frame: pd.DataFrame, where: str) -> tuple[dict[str, Any], ...]:
    """How each column of the train split becomes features.

    Args:
        frame: The train split's rows, features only.

    Raises:
        DataError: A column is neither numbers nor categories; the message names it.
    """
    return tuple(_fit_column(str(name), frame[name], where) for name in frame.columns)


def _fit_column(name: str, values: pd.Series[Any], where: str) -> dict[str, Any]:
    import pandas as pd

    if pd.api.types.is_datetime64_any_dtype(values.dtype):
        raise DataError(
            f"Column {name!r} holds dates: turn them into numbers (days since, month ...), or leave it out with "
            "data.features.",
            where,
        )
    if is_number(values):
        return _fit_number(name, as_numbers(values), where)
    spelled = values.map(spell)
    present = spelled.dropna()
    distinct = sorted(present.unique())
    if not distinct:
        raise DataError(f"Column {name!r} is empty in the train split: leave it out with data.features.", where)
    if len(distinct) > MOST_CATEGORIES or (len(present) >= FEW_ROWS and len(distinct) > 0.9 * len(present)):
        raise DataError(
            f"Column {name!r} has {len(distinct)} different texts in {len(present)} rows: it looks like names or "
            "identifiers, from which nothing can be learnt. Leave it out with data.features.",
            where,
        )
    return {"name": name, "kind": "category", "values": distinct}


def _fit_number(name: str, numbers: npt.NDArray[np.float64], where: str) -> dict[str, Any]:
    missing = np.isnan(numbers)
    if missing.all():
        raise DataError(f"Column {name!r} is empty in the train split: leave it out with data.features.", where)
    fill = float(np.median(numbers[~missing]))
    filled = np.where(missing, fill, numbers)
    column: dict[str, Any] = {
        "name": name,
        "kind": "number",
        "mean": float(filled.mean()),
        "std": float(filled.std()) or 1.0,
        "fill": fill,
    }
    if missing.any():
        column["missing"] = True
    return column


def encode_table(frame: pd.DataFrame, columns: tuple[dict[str, Any], ...]) -> Array:
    """Rows as float32 features of shape (rows, features), in the columns' order."""
    features: list[Array] = []
    for column in columns:
        values = frame[column["name"]]
        if column["kind"] == "category":
            spelled = values.map(spell)
            features += [(spelled == value).to_numpy(np.float32) for value in column["values"]]
            continue
        numbers = as_numbers(values)
        missing = np.isnan(numbers)
        features.append((np.where(missing, column["fill"], numbers) - column["mean"]) / column["std"])
        if column.get("missing"):
            features.append(missing)
    encoded = np.empty((len(frame), len(features)), dtype=np.float32)
    for index, feature in enumerate(features):
        encoded[:, index] = feature
    return encoded


def is_number(values: pd.Series[Any]) -> bool:
    """Whether a column holds numbers: by its type, or by each of its values where the type says nothing."""
    import pandas as pd

    if pd.api.types.is_bool_dtype(values.dtype):
        return False
    if pd.api.types.is_numeric_dtype(values.dtype):
        return True
    present = values.dropna()
    return len(present) > 0 and all(isinstance(v, int | float) and not isinstance(v, bool) for v in present)


def as_numbers(values: pd.Series[Any]) -> npt.NDArray[np.float64]:
    """A column as float64; missing values and infinities are NaN."""
    numbers = values.to_numpy(np.float64, na_value=np.nan)
    return np.where(np.isfinite(numbers), numbers, np.nan)


def spell(value: Any) -> str | None:
    """One spelling for a category, whether it came as 3, 3.0 or '3'; None for a missing one."""
    import pandas as pd

    if isinstance(value, bool | np.bool_):
        return str(bool(value))
    if pd.isna(value):
        return None
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return str(int(value))
    return str(value)


def fit_channels(pixels: Array) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel of images of shape (rows, channels, height, width), in raw units."""
    axes = (0, 2, 3)
    mean = pixels.mean(axis=axes, dtype=np.float64)
    # One channel at a time: float64 deviations of all at once would take eight times the images' memory.
    std = [float(pixels[:, channel].std(dtype=np.float64)) or 1.0 for channel in range(pixels.shape[1])]
    return tuple(float(value) for value in mean), tuple(std)
