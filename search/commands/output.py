"""Where things are printed: results on stdout, everything else on stderr, and JSON as one ASCII document."""

from __future__ import annotations

import io
import json
import math
import os
import sys
from typing import TYPE_CHECKING, Any

import click

from search.commands.words import plain

if TYPE_CHECKING:
    from rich.console import RenderableType


def say(text: str = "") -> None:
    """Print a part of the result on stdout."""
    click.echo(plain(text, keep="\n\t"))


def tell(text: str) -> None:
    """Print something that is not the result, on stderr."""
    click.echo(plain(text, keep="\n\t"), err=True)


def print_json(document: Any) -> None:
    """Print one document on stdout: ASCII, so that no terminal acts on it; numbers that are not finite become null."""
    click.echo(json.dumps(_finite(document), indent=2, allow_nan=False))


def show(picture: RenderableType) -> None:
    """Print a table on stdout, 80 columns wide where no terminal says otherwise."""
    from rich.console import Console

    console = Console(highlight=False, markup=False, emoji=False)
    # Captured, because rich would end the program itself where the reader of a pipe has gone.
    with console.capture() as captured:
        console.print(picture)
    text = captured.get()
    click.echo(
        text if console.is_terminal else "\n".join(map(str.rstrip, text.splitlines())), nl=not console.is_terminal
    )


def forgive_encodings() -> None:
    """A character that the terminal's encoding lacks is printed as an escape instead of ending the program."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def drop_stdout() -> None:
    """After the reader of a pipe has gone: the interpreter's last flush must not complain."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
