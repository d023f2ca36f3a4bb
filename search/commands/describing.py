"""The command that says what a network is made of."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from neurosweep.errors import BadInputError
from search.commands import anatomy_tables
from search.commands.looking import no_best
from search.commands.options import Command, json_option, places
from search.commands.output import print_json
from search.commands.studies import open_store

if TYPE_CHECKING:
    from search.chosen import Chosen
    from search.dimensions import Value
    from search.spec import StudySpec
    from storage.records import StudyRecord
    from storage.store import Store

    Data = tuple[tuple[int, ...], int, int | None]
    """The shape of a row, outputs, and rows of the train split where data were read."""

LARGEST_SIDE = 100_000


@click.command(cls=Command)
@click.argument("what", metavar="FILE|STUDY")
@click.option("--trial", type=click.IntRange(0), help="A trial of STUDY; the best one by default.")
@click.option("--set", "given", multiple=True, metavar="KEY=VALUE", help="A setting, or one layer's: filters_2=32.")
@click.option("--input", "shape", metavar="SHAPE", help="Instead of the data: 200x200x3 for images, 13 for a table.")
@click.option("--outputs", type=click.IntRange(1, 100_000), help="With --input: classes; 10 by default.")
@json_option
def describe(
    what: str, trial: int | None, given: tuple[str, ...], shape: str | None, outputs: int | None, as_json: bool
) -> None:
    """Show what a network is made of, layer by layer.

    Of a study FILE, one network of its space: what the file leaves open is set with --set, or else the middle is
    taken, and said. Of a STUDY, its best trial's network. Nothing is trained.

    \b
    Example:
      neurosweep describe study.yaml --set conv_layers=3
      neurosweep describe study.yaml --set filter_size=5 --input 200x200x3
      neurosweep describe digits --trial 57
    """
    from search.chosen import choose
    from trainer.settings import Family

    if outputs is not None and shape is None:
        raise BadInputError("The data say how many outputs there are; --outputs goes with --input.", "--outputs")
    label, spec, number, params = _asked_for(what, trial)
    if shape is not None:
        data: Data = (input_shape(shape), outputs or (1 if spec.task == "regression" else 10), None)
    else:
        spec, data = _read(spec, Path(what) if number is None else None)
    if len(data[0]) != 3 and Family.CNN in spec.model and Family.MLP not in spec.model:
        raise BadInputError(f"a cnn needs images, such as 28x28x1, but --input is {shape}", "--input")
    chosen = choose(spec, data[0], given, params)
    document = describe_document(chosen, data, label=label, trial=number)
    if as_json:
        print_json(document)
    else:
        anatomy_tables.show(document)


def describe_document(chosen: Chosen, data: Data, *, label: str, trial: int | None) -> dict[str, Any]:
    """What `--json` prints."""
    from search.dimensions import plain
    from trainer.anatomy import layers_of
    from trainer.memory import training_memory

    settings = chosen.proposal.settings
    shape, outputs, rows = data
    layers = layers_of(settings, shape, outputs)
    memory = training_memory(settings, shape, outputs, rows or settings.batch_size)
    return {
        "study": label,
        "trial": trial,
        "input": shape,
        "outputs": outputs,
        "params": chosen.proposal.params,
        "taken": [
            {"key": key, "value": value, "of": plain(dimension)} for key, (value, dimension) in chosen.taken.items()
        ],
        "repairs": chosen.proposal.repairs,
        "layers": [anatomy_tables.layer_document(layer) for layer in layers],
        "weights": sum(layer.weights for layer in layers),
        "multiply_adds": sum(layer.multiply_adds for layer in layers),
        "activation_memory": sum(layer.activation_memory for layer in layers),
        "training_memory": memory,
    }


def input_shape(text: str) -> tuple[int, ...]:
    """``200x200x3`` is height, width and channels, ``28x28`` one channel, ``13`` the columns of a table; as a network
    takes them, channels first.

    Raises:
        BadInputError: It is none of these.
    """
    sides = [int(side) for side in text.split("x")] if re.fullmatch(r"\d{1,6}(x\d{1,6}){0,2}", text) else []
    if not sides or not all(1 <= side <= LARGEST_SIDE for side in sides):
        raise BadInputError(
            f"must be HEIGHTxWIDTHxCHANNELS, such as 200x200x3, or a number of columns, but is '{text}'", "--input"
        )
    if len(sides) == 1:
        return (sides[0],)
    height, width, channels = (*sides, 1)[:3]
    return channels, height, width


def _asked_for(what: str, trial: int | None) -> tuple[str, StudySpec, int | None, dict[str, Value] | None]:
    """The study with its label, and of a study in the database the trial with its settings."""
    from search.spec import StudySpec
    from search.study_file import read_study

    if Path(what).is_file() or Path(what).suffix in (".yaml", ".yml") or "/" in what:
        if trial is not None:
            raise BadInputError("A file has no trials yet: name the study, or leave --trial out.", "--trial")
        spec = read_study(what)
        return spec.name, spec, None, None
    store = open_store(places())
    record = store.find(what)
    number, params = _trial(store, record, trial)
    return record.label, StudySpec.from_mapping(record.spec), number, params


def _trial(store: Store, study: StudyRecord, asked: int | None) -> tuple[int, dict[str, Value]]:
    """The trial that was asked for, or the best one."""
    from search.leaders import leaders

    trials = store.trials(study.id)
    if asked is None:
        best = (study.result or {}).get("best") or {}
        leading = leaders(trials)
        asked = best.get("trial", leading[0].number if leading else None)
        if asked is None:
            raise no_best(study)
    found = next((trial for trial in trials if trial.number == asked), None)
    if found is None:
        raise BadInputError(f"{study.label} has no trial {asked}: its trials are 0 to {len(trials) - 1}.", "--trial")
    return found.number, found.params


def _read(spec: StudySpec, file: Path | None) -> tuple[StudySpec, Data]:
    """The study and its data's shape, from the data."""
    from contextlib import nullcontext

    from search.validation import lines_of, read_data

    with lines_of(file) if file is not None else nullcontext():
        spec, dataset = read_data(spec)
    return spec, (dataset.input_shape, dataset.outputs, len(dataset.train))
