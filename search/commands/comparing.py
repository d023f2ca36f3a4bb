"""The command that holds two studies against each other."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

import click

from search.commands.options import Command, json_option, places
from search.commands.output import print_json, say, show
from search.commands.studies import open_store
from search.commands.tables import WIDTH, new_table
from search.commands.words import duration, figure, plain

if TYPE_CHECKING:
    from search.insight.comparison import Comparison, Side


@click.command(cls=Command)
@click.argument("first", metavar="STUDY")
@click.argument("second", metavar="STUDY")
@json_option
def compare(first: str, second: str, as_json: bool) -> None:
    """Say whether one of two studies is better, by how much, and how sure that is.

    Both must be studies of the same data with the same metric. Where they have the same splits, their winners are held
    against each other row by row; on the test split only where both have opened it, and that look is recorded.

    \b
    Example:
      neurosweep compare digits digits@2
    """
    where = places()
    store = open_store(where)
    studies = store.find(first), store.find(second)

    from search.insight.comparison import compare as compared

    found = compared(store, where, *studies)
    if as_json:
        print_json(_document(found))
    else:
        _show(found)


def _document(found: Comparison) -> dict[str, Any]:
    gap = found.difference
    return {
        "studies": [side.name for side in (found.first, found.second)],
        "better": found.better,
        "difference": [gap.value, gap.low, gap.high],
        "p_value": found.p_value,
        "metric": found.metric,
        "split": found.split,
        "paired": found.paired,
        "method": found.method,
        "sides": [_side(side) for side in (found.first, found.second)],
        "settings": [{"key": key, "first": one, "second": other} for key, (one, other) in found.settings.items()],
        "notes": list(found.notes),
    }


def _side(side: Side) -> dict[str, Any]:
    test = side.test
    return {
        "study": side.name,
        "state": side.study.state.value,
        "trial": side.winner.number,
        "train": side.winner.train,
        "validation": side.winner.validation,
        "test": test.value if test else None,
        "test_interval": [test.low, test.high] if test else None,
        "weights": side.winner.weights,
        "trials": side.trials,
        "seconds": (side.study.result or {}).get("seconds", side.study.worked),
    }


def _show(found: Comparison) -> None:
    gap, one, other = found.difference, found.first.name, found.second.name
    sizes = f"between {figure(gap.low)} and {figure(gap.high)}"
    if found.better is not None:
        worse = other if found.better == one else one
        ends = sorted((abs(gap.low), abs(gap.high)))
        sizes = f"{figure(ends[0])} to {figure(ends[1])} with 95 % confidence"
        said = f"{found.better} is better than {worse} by {figure(abs(gap.value))} {found.metric} ({sizes})."
    else:
        said = f"{one} and {other} can't be told apart: the difference is {figure(gap.value)} {found.metric} ({sizes})."
    say(textwrap.fill(said, WIDTH))
    chance = f"{100 * found.p_value:.2g} times in 100" if found.p_value >= 0.0001 else "less than once in 10,000 times"
    say(textwrap.fill(f"If there were none, one as large would still come about {chance}: {found.method}.", WIDTH))
    say()
    show(_sides(found))
    if found.settings:
        say()
        say("What the study files have differently")
    for key, (ours, theirs) in found.settings.items():
        say(f"  {key:<24}{_setting(ours)}  against  {_setting(theirs)}")
    for note in found.notes:
        say()
        say(textwrap.fill(plain(note), WIDTH))


def _sides(found: Comparison) -> Any:
    documents = [_side(side) for side in (found.first, found.second)]
    table = new_table("", *(document["study"] for document in documents))
    for name in ("train", "validation", "test"):
        table.add_row(f"{found.metric} on {name}", *(figure(document[name]) for document in documents))
    table.add_row("weights", *(f"{document['weights']:,}" for document in documents))
    table.add_row("trials", *(f"{document['trials']:,}" for document in documents))
    table.add_row("time", *(duration(document["seconds"]) for document in documents))
    table.add_row("winner", *(f"trial {document['trial']}" for document in documents))
    return table


def _setting(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, dict) and "low" in value:
        steps = ", log" if value.get("log") else ""
        return f"{value['low']:g} to {value['high']:g}{steps}"
    if isinstance(value, list):
        return ", ".join(plain(str(each)) for each in value)
    return plain(str(value))
