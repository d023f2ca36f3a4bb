"""The commands that begin with a study file: init, validate and submit."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from neurosweep.errors import BadInputError, NoSuchStudyError
from search.commands.documents import study_document
from search.commands.options import Command, json_option, places
from search.commands.output import print_json, say
from search.commands.previewing import preview_document, show_preview
from search.commands.studies import open_store
from search.commands.words import plain

if TYPE_CHECKING:
    from storage.records import NewStudy
    from storage.store import Store


_ITEMS_SHOWN = 40
"""Of a list of classes or columns; --json has them all."""


@click.command(cls=Command)
@click.argument("file", type=click.Path(path_type=Path), default=Path("study.yaml"))
@click.option("--data", metavar="SOURCE", help="What to learn from: digits, FILE.csv, FOLDER, hf:NAME ...")
@click.option("--model", type=click.Choice(["mlp", "cnn"]), help="The kind of network.")
@click.option("--name", help="The study's name.")
@click.option("--force", is_flag=True, help="Write over a file that is there.")
@json_option
def init(file: Path, data: str | None, model: str | None, name: str | None, force: bool, as_json: bool) -> None:
    """Write a commented study file, study.yaml by default.

    \b
    Example:
      neurosweep init
      neurosweep init cats.yaml --data ./cats --model cnn --name cats
    """
    from search.study_file import parse_study, template

    text = template(data=_seen_from(file.parent, data), model=model, name=name)
    parse_study(text, str(file))
    try:
        with file.open("w" if force else "x", encoding="utf-8") as output:
            output.write(text)
    except FileExistsError as error:
        raise BadInputError("The file is there already; --force writes over it.", str(file)) from error
    if as_json:
        print_json({"file": str(file)})
    else:
        say(f"Wrote {file}. Next: neurosweep validate {file}, then neurosweep run {file}")


@click.command(cls=Command)
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--preview", "ahead", is_flag=True, help="Its networks, and the time that it will take here.")
@json_option
def validate(file: Path, ahead: bool, as_json: bool) -> None:
    """Say whether the study in FILE would run.

    Reads the data as the study would, and prints the file with every default filled in, the data's shape and the
    splits' sizes. What it asks of workers is checked where it runs.

    With --preview, the smallest and the largest network of its space instead, how many there are, and how long the
    study will take, from training a few of them for two seconds.

    \b
    Example:
      neurosweep validate study.yaml
      neurosweep validate study.yaml --preview
    """
    from search.study_file import read_study
    from search.validation import lines_of, read_data
    from trainer.data.load import describe

    with lines_of(file):
        spec, dataset = read_data(read_study(file))
    if spec.start_from is not None:
        found_to_start_from(open_store(places()), spec.start_from)
    data = describe(dataset)
    preview = preview_document(spec, dataset) if ahead else None
    if as_json:
        found = {"valid": True, "study": spec.to_mapping(), "data": data}
        print_json(found if preview is None else {**found, "preview": preview})
        return
    if preview is not None:
        show_preview(spec, preview)
        return
    say(spec.to_yaml())
    for line in _as_comments(data):  # so that what is printed is a study file as a whole
        say(line)
    say(f"# {file} would run.")


@click.command(cls=Command)
@click.argument("file", type=click.Path(path_type=Path))
@json_option
def submit(file: Path, as_json: bool) -> None:
    """Put the study in FILE in the queue, for `neurosweep serve`.

    \b
    Example:
      neurosweep submit study.yaml
      neurosweep watch my-study
    """
    new = read_new_study(file)
    store = open_store(places())
    study = store.submit(pinned(store, new))
    if as_json:
        print_json(study_document(store.summary(study.id)))
    else:
        say(f"{study.label} is in the queue. Follow it with: neurosweep watch {study.label}")


def read_new_study(file: Path) -> NewStudy:
    """The study in a file, checked by itself but not against its data."""
    from search.study_file import parse_study, study_text
    from storage.records import NewStudy

    text = study_text(file)
    spec = parse_study(text, str(file))
    return NewStudy(name=spec.name, spec=spec.to_mapping(), text=text, trials=spec.budget.trials)


def pinned(store: Store, new: NewStudy) -> NewStudy:
    """The study with the one that it starts from, where there is one, named so that a later study does not take its
    name over.

    Raises:
        NoSuchStudyError: There is no study of that name.
    """
    label = new.spec.get("start_from")
    if label is None:
        return new
    return replace(new, spec={**new.spec, "start_from": found_to_start_from(store, label)})


def found_to_start_from(store: Store, label: str) -> str:
    """``name@N`` of a study that another one starts from.

    Raises:
        NoSuchStudyError: There is none.
    """
    try:
        study = store.find(label)
    except NoSuchStudyError as error:
        raise NoSuchStudyError(error.message, "start_from") from None
    return f"{study.name}@{study.number}"


def _seen_from(folder: Path, data: str | None) -> str | None:
    """A path that was typed in the current folder, as a study file in another folder has to say it."""
    if data is None or Path(data).is_absolute() or not Path(data).exists():
        return data
    return data if folder.resolve() == Path.cwd() else os.path.relpath(data, folder)


def _as_comments(data: dict[str, Any]) -> Iterator[str]:
    for name, value in data.items():
        if value:
            label = f"# {name.replace('_', ' '):<14}"
            yield textwrap.fill(_shown(value), 80, initial_indent=label, subsequent_indent=f"#{'':<15}")


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_shown(item)}" for key, item in value.items())
    if isinstance(value, (list, tuple)):
        hidden = f" and {len(value) - _ITEMS_SHOWN} more" if len(value) > _ITEMS_SHOWN else ""
        return ", ".join(map(_shown, value[:_ITEMS_SHOWN])) + hidden
    return plain(str(value))
