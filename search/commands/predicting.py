"""The command that uses a study's model."""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from neurosweep.errors import BadInputError
from search.commands.looking import no_best
from search.commands.options import Command, json_option, places
from search.commands.output import print_json
from search.commands.studies import open_store
from search.commands.words import plain
from storage.records import StudyState

if TYPE_CHECKING:
    from storage.records import StudyRecord
    from storage.store import Store


@click.command(cls=Command)
@click.argument("study")
@click.argument("file", type=click.Path(path_type=Path))
@json_option
def predict(study: str, file: Path, as_json: bool) -> None:
    """Predict the rows or images in FILE with STUDY's best model.

    FILE is a table with the columns that the study learned from (CSV, Parquet or JSON lines), an npz file, an image or
    a folder of images. Prints CSV: the prediction and, for classes, the probability of each.

    \b
    Example:
      neurosweep predict digits new.csv > answers.csv
    """
    where = places()
    store = open_store(where)
    address = _model_address(store, store.find(study))

    from pydantic import TypeAdapter

    from storage.publisher import PublishedModel
    from trainer.data.dataset import Preprocessing
    from trainer.data.load import read_rows

    if not file.exists():
        raise BadInputError("there is no such file", str(file))  # said before the model is fetched
    model = PublishedModel(address, where.tracking)
    rows = read_rows(file, TypeAdapter(Preprocessing).validate_python(model.preprocessing))
    answers = model.answers(rows)
    if as_json:
        print_json(answers)
    else:
        _print_csv(answers)


def _model_address(store: Store, study: StudyRecord) -> str:
    """The address of this study's own model: the alias `champion` may by now be that of a later study of the name."""
    best = (study.result or {}).get("best")
    if best is None:
        if study.state is StudyState.FAILED:
            raise no_best(study)
        raise BadInputError(
            f"The model is made when the study ends, and it is {study.state}. See: neurosweep status {study.label}",
            study.label,
        )
    if study.sealed:
        raise BadInputError("This round has no model: the rounds' winner has. See: neurosweep list", study.label)
    run = store.mlflow_run(study.id)
    if run is None:
        raise BadInputError("The model is not in MLflow yet: it waits until MLflow answers.", study.label)
    return f"runs:/{run.run_id}/champion"


def _print_csv(answers: list[dict[str, Any]]) -> None:
    """One line a row. A terminal gets escapes for what it would act on; a file gets the classes' names as they are."""
    if not answers:
        return
    terminal = sys.stdout.isatty()
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow([plain(name) if terminal else name for name in answers[0]])
    for answer in answers:
        writer.writerow([plain(str(value)) if terminal else value for value in answer.values()])
