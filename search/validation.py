"""Whether a study would run: reads its data and holds the study file against them. Starts neither torch nor Ray."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from neurosweep.errors import DataError
from search.spec import StudySpec
from search.study_file import check_against_data, data_request, read_study
from trainer.data.dataset import Dataset
from trainer.data.load import load


def read_data(spec: StudySpec) -> tuple[StudySpec, Dataset]:
    """The dataset of a study, and the study with its task and metric told from it.

    Raises:
        DataError: The data can't be read or split as the study asks.
        StudyFileError: The study asks for what these data can't give.
    """
    dataset = load(data_request(spec))
    return check_against_data(spec, dataset), dataset


@contextmanager
def lines_of(file: Path) -> Iterator[None]:
    """Errors of the data that come out of this block say which line of the study file asks for it."""
    try:
        yield
    except DataError as error:
        place = read_study(file).where(*(error.key or "data.source").split("."))
        raise DataError(str(error), place) from error
