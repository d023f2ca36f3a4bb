"""Studies for the dispatcher's tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.search.dispatched import Study
from trainer.data.dataset import DataRequest, Dataset
from trainer.data.load import load


@pytest.fixture(scope="module")
def data() -> Dataset:
    return load(DataRequest(source="iris"))


@pytest.fixture
def study(tmp_path: Path, data: Dataset) -> Iterator[Callable[..., Study]]:
    made: list[Study] = []

    def make(**changes: Any) -> Study:
        folder = tmp_path / str(len(made))
        folder.mkdir()
        made.append(Study(folder, data, **changes))
        return made[-1]

    yield make
    for each in made:
        each.store.close()
