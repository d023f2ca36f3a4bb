"""Table models for the tests of their page: a table with all kinds of columns, and networks with drawn weights."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from search.explain.table_page import table_page
from search.insight.winner import make_trainer
from tests.search.explain.image_cases import drawn_weights
from trainer.data.columns import Column
from trainer.data.dataset import DataRequest, Dataset, Split, Task
from trainer.data.load import load, raw_columns
from trainer.settings import Settings
from trainer.work import Metric, TestResult

Array = npt.NDArray[Any]

ROWS = 200
NAMES = ("age", "income", "city", "member", "</script><b>")


def write_table(file: Path) -> Path:
    """Numbers with and without missing ones, texts, booleans, and names that try to be markup.

    Only the test split has been to Atlantis.
    """
    random = np.random.default_rng(0)
    lines = [",".join((*NAMES, "price", "bought", "fold"))]
    for row in range(ROWS):
        fold = ("train", "validation", "train", "test")[row % 4]
        age = None if random.random() < 0.1 else int(random.integers(18, 90))
        income = round(float(random.lognormal(10, 1)), 2)
        city = "Atlantis" if row % 40 == 39 else random.choice(["Köln", "<i>Bonn", "", "Ulm, Neu"])
        member, noise = random.choice(["True", "False"]), random.normal()
        price = 1000 + 20 * noise + (age or 0)
        bought = random.choice(["no & yes", "yes", "<u>maybe"])
        lines.append(f'{age or ""},{income},"{city}",{member},{noise:.6f},{price:.3f},{bought},{fold}')
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


def request(file: Path, target: str) -> DataRequest:
    if file.suffix != ".csv":
        return DataRequest(source=str(file), target=target)
    return DataRequest(source=str(file), target=target, features=NAMES, fractions=None, split_column="fold")


@dataclass(frozen=True, kw_only=True)
class Model:
    """A network for a table, as PyTorch runs it."""

    settings: Settings
    weights: dict[str, Array]
    data: Dataset
    columns: list[Column]

    @classmethod
    def drawn(cls, file: Path, target: str, settings: Settings) -> Model:
        asked = request(file, target)
        data = load(asked)
        weights = drawn_weights(settings, data.input_shape, data.outputs)
        columns = raw_columns(asked, data.preprocessing)
        return cls(settings=settings, weights=weights, data=data, columns=columns)

    @property
    def metric(self) -> Metric:
        return Metric.ERROR if self.data.task is Task.CLASSIFICATION else Metric.MAE

    def told(self, split: Split) -> TestResult:
        return make_trainer(self.data).test(self.settings, self.weights, self.metric, split)

    def ask(self, inputs: Array) -> Array:
        rows = len(inputs)
        return self.told(
            Split(inputs=inputs, targets=np.zeros(rows, self.data.train.targets.dtype), rows=np.arange(rows))
        ).outputs

    def idle(self, inputs: Array) -> Array:
        """The same answer to all rows, for pages whose plots nobody looks at."""
        chances = np.full((len(inputs), self.data.outputs), 1 / self.data.outputs)
        return chances if self.data.task is Task.CLASSIFICATION else chances[:, 0]

    @functools.cached_property
    def html(self) -> str:
        return self.page()

    def page(self, **changes: Any) -> str:
        told = self.told(self.data.test)
        return table_page(
            **{
                "study": "shop & <co>",
                "metric": self.metric,
                "settings": self.settings,
                "weights": self.weights,
                "dataset": self.data,
                "columns": self.columns,
                "split": "test",
                "outputs": told.outputs,
                "truth": told.truth,
                "ask": self.ask,
                "seed": 3,
                **changes,
            }
        )
