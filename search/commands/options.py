"""What every command takes: where things are, --json and --debug."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from neurosweep.errors import BadInputError
from search.places import Places

F = TypeVar("F", bound=Callable[..., Any])

_PLACES = {
    "database": (
        "NEUROSWEEP_DATABASE_URL",
        "The studies: a database's address or an SQLite file.",
        ".neurosweep/neurosweep.db",
    ),
    "tracking": (
        "MLFLOW_TRACKING_URI",
        "MLflow: a server's or database's address or an SQLite file.",
        ".neurosweep/mlflow.db",
    ),
    "ray": ("RAY_ADDRESS", "A Ray cluster's address.", "a Ray of its own"),
    "checkpoints": (
        "NEUROSWEEP_CHECKPOINTS",
        "Checkpoints of trials under way: a folder, or an address such as s3://BUCKET.",
        "under the home folder",
    ),
    "home": ("NEUROSWEEP_HOME", "Folder for all that is kept in files.", ".neurosweep"),
}


class Command(click.Command):
    """A command that takes the places too; on its help page they stand apart."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params.extend(place_options())

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        format_options(self, ctx, formatter)


def format_options(command: click.Command, ctx: click.Context, formatter: click.HelpFormatter) -> None:
    """Write a command's own options, then those that every command has."""
    own: list[tuple[str, str]] = []
    shared: list[tuple[str, str]] = []
    for param in command.get_params(ctx):
        record = param.get_help_record(ctx)
        if record is not None and isinstance(param, click.Option):  # the text above says what the arguments are
            (shared if param.name in (*_PLACES, "debug") else own).append(record)
    for title, records in (("Options", own), ("Options of every command", shared)):
        if records:
            with formatter.section(title):
                formatter.write_dl(records)


def place_options() -> list[click.Parameter]:
    """The options that stand before or behind the command's name; the one behind wins."""
    options: list[click.Parameter] = [
        click.Option(
            [f"--{name}"],
            metavar="FOLDER" if name == "home" else "ADDRESS",
            help=f"{text}  [env: {variable}; default: {default}]",
            expose_value=False,
            callback=_remember,
        )
        for name, (variable, text, default) in _PLACES.items()
    ]
    # The error boundary looks for --debug itself, since an error in the arguments comes before their values.
    options.append(
        click.Option(["--debug"], is_flag=True, expose_value=False, help="Show the traceback where something breaks.")
    )
    return options


def json_option(function: F) -> F:
    """Adds ``--json`` as the argument `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")(function)


def places() -> Places:
    """The addresses to work with: from the options, else the environment, else under the home folder."""
    home = Path(_setting("home") or ".neurosweep").expanduser().absolute()
    return Places(
        home=home,
        database=_address(_setting("database") or str(home / "neurosweep.db"), "--database"),
        tracking=_address(_setting("tracking") or str(home / "mlflow.db"), "--tracking"),
        ray=_setting("ray"),
        checkpoints=_setting("checkpoints"),
    )


def _remember(ctx: click.Context, param: click.Parameter, value: str | None) -> None:
    if value is not None and param.name is not None:
        ctx.meta[f"neurosweep.{param.name}"] = value


def _setting(name: str) -> str | None:
    given = click.get_current_context().meta.get(f"neurosweep.{name}")
    return given or os.environ.get(_PLACES[name][0]) or None


def _address(given: str, option: str) -> str:
    """An address as it is; a file's path as SQLite's address for it."""
    if "://" in given:
        return given
    if re.fullmatch(r"[\w.-]+:\d+(/.*)?", given):
        raise BadInputError(f"{option} takes an address with its scheme: http://{given}?", option)
    path = Path(given).expanduser().absolute()
    if path.is_dir():
        raise BadInputError(
            f"{option} takes a file or an address such as sqlite:///FILE, but {given} is a folder.", option
        )
    return f"sqlite:///{path}"
