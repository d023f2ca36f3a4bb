"""``neurosweep``: the group of commands, and the boundary where an error becomes a line and an exit status."""

from __future__ import annotations

import contextlib
import gc
import os
import sys
from collections.abc import Sequence

import click

from neurosweep import __version__
from neurosweep.errors import BadInputError, NeurosweepError
from search.commands import stopping
from search.commands.comparing import compare
from search.commands.describing import describe
from search.commands.documents import error_document
from search.commands.explaining import explain
from search.commands.files import init, submit, validate
from search.commands.looking import best, cancel, list_studies, status, watch
from search.commands.moving import export_study, import_study
from search.commands.options import Command, format_options, json_option, place_options
from search.commands.output import drop_stdout, forgive_encodings, print_json, say, tell
from search.commands.predicting import predict
from search.commands.refining import refine
from search.commands.repairing import doctor, sync
from search.commands.reporting import report
from search.commands.stopping import INTERRUPTED
from search.commands.ui import ui
from search.commands.working import resume, run, serve


class _Group(click.Group):
    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The options, then the commands in the order of a user's day instead of the alphabet's."""
        format_options(self, ctx, formatter)
        self.format_commands(ctx, formatter)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


@click.group(cls=_Group, params=place_options())
def cli() -> None:
    """Find a good neural network for a dataset: one study file in, the best network out, every trial in MLflow.

    \b
    Example:
      neurosweep init study.yaml
      neurosweep run study.yaml
      neurosweep best my-study
    """


@cli.command(cls=Command)
@json_option
def version(as_json: bool) -> None:
    """Show the versions of neurosweep, Python and the libraries."""
    import platform

    own = {"neurosweep": __version__, "python": platform.python_version()}
    libraries = _library_versions()
    if as_json:
        print_json({**own, "libraries": libraries})
        return
    for name, number in {**own, **libraries}.items():
        say(f"{name:<14}{number or 'missing'}")


_WORK = (init, validate, describe, run, submit, serve, list_studies, status, watch, best, resume, cancel, predict, ui)
_INSIGHT = (report, refine, explain, compare)
_CARE = (export_study, import_study, sync, doctor)
for command in (*_WORK, *_INSIGHT, *_CARE):
    cli.add_command(command)
cli.add_command(cli.commands.pop("version"))  # the last of the list


def program() -> int:
    """`main` as a process of its own."""
    status = main()
    if stopping.asked_for:
        # Ray may have been broken off in the middle of its start, and then crashes in the interpreter's own end.
        with contextlib.suppress(OSError):
            sys.stdout.flush()
        os._exit(status)
    gc.freeze()  # the interpreter's last look for garbage walks half a million objects after a study: 1 s
    return status


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        The exit status: 0 done, 1 failed, 2 bad input, 3 unreachable, 4 no such study, 130 interrupted.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    forgive_encodings()
    try:
        ended = cli.main(given, prog_name="neurosweep", standalone_mode=False)
        sys.stdout.flush()
    except (BrokenPipeError, SystemExit):  # SystemExit is click's answer to a reader of a pipe that has gone
        drop_stdout()
        return 0
    except click.exceptions.NoArgsIsHelpError as error:
        tell(error.format_message())
        return BadInputError.exit_status
    except (KeyboardInterrupt, click.Abort):
        tell("interrupted")
        return INTERRUPTED
    except Exception as error:
        if "--debug" in given:
            raise
        return _report(_explained(error), as_json="--json" in given)
    return ended if isinstance(ended, int) else 0


def _report(error: NeurosweepError, as_json: bool) -> int:
    if as_json:
        print_json(error_document(error))
    else:
        tell(f"error: {error}")
    return error.exit_status


def _explained(error: Exception) -> NeurosweepError:
    """Any error as one of ours."""
    if isinstance(error, NeurosweepError):
        return error
    if isinstance(error, click.UsageError):
        hint = f" See: {error.ctx.command_path} --help" if error.ctx else ""
        return BadInputError(f"{error.format_message()}{hint}")
    if isinstance(error, click.ClickException):
        return BadInputError(error.format_message())
    if isinstance(error, PermissionError | FileNotFoundError | IsADirectoryError | NotADirectoryError):
        return BadInputError(f"{error.strerror}.", str(error.filename) if error.filename else None)
    # The text of an unforeseen error may hold anything, an address with its password included: its kind has to do.
    return NeurosweepError(f"Something broke that should not: {type(error).__name__}. Add --debug to see where.")


def _library_versions() -> dict[str, str | None]:
    """Read from the packages' metadata: importing them would take seconds."""
    from importlib import metadata

    found: dict[str, str | None] = {}
    for name in ("torch", "ray", "optuna", "mlflow", "sqlalchemy", "alembic", "numpy", "scikit-learn", "datasets"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found
