"""The command that says what a study is worth."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from neurosweep.errors import InterruptedStudyError
from search.commands.options import Command, json_option, places
from search.commands.output import print_json, say, show, tell
from search.commands.stopping import INTERRUPTED, heeding_signals
from search.commands.studies import open_store
from search.commands.tables import WIDTH, new_table
from search.commands.words import figure, in_short, plain

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.table import Table

    from search.insight.findings import Report


@click.command(cls=Command)
@click.argument("study")
@click.option(
    "--thorough", is_flag=True, help="Make every extra run, even if that takes longer than 20 % of the study."
)
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the page here as well.",
)
@json_option
def report(study: str, thorough: bool, output: Path | None, as_json: bool) -> int:
    """Say what STUDY's result is worth, why, and what to try next.

    Compares the winner with chance, with simple models and with people; trains it a few times more to see whether more
    rows, neurons or epochs would help; and names what holds it back. Prints the verdict, and writes one HTML page with
    all of it, which any browser opens without a network. The page is also kept with the study's run in MLflow.

    \b
    Example:
      neurosweep report digits
      neurosweep report digits --thorough -o digits.html
    """
    where = places()
    store = open_store(where)
    record = store.find(study)

    from search.insight.reporting import PAGE, make_report

    with heeding_signals() as (screen, stop):
        stop.last_words = f"ended at once; again with: neurosweep report {record.label}"
        try:
            found = make_report(store, record, where, thorough=thorough, on_progress=screen.show, stop=stop)
        except InterruptedStudyError:
            tell("interrupted; extra runs that were done are kept for the next report")
            return INTERRUPTED
    page = where.page_of(record.uid, PAGE)
    if output is not None:
        output.write_bytes(page.read_bytes())
    page = (output or page).absolute()
    if as_json:
        print_json(_document(found, page))
    else:
        _show(found, page)
    return 0


def _document(found: Report, page: Path) -> dict[str, Any]:
    from dataclasses import asdict

    from search.insight.report_page import levels_of

    levels = levels_of(found)
    names = ("chance", "simple", "human", "target", "train", "validation", "test")
    triples = {name: [levels[name].value, levels[name].low, levels[name].high] for name in levels}
    return {
        "study": found.study,
        "verdict": found.diagnosis.verdict.value,
        "reasons": list(found.diagnosis.reasons),
        "levels": {name: triples.get(name) for name in names},
        "advice": [asdict(advice) for advice in found.diagnosis.advice],
        "ties": [contender.trial for contender in found.seeds.contenders if contender.tied] if found.seeds else [],
        "warnings": list(found.warnings),
        "page": str(page),
        "metric": found.metric,
        "state": found.state,
        "trial": found.trial,
        "luck": found.seeds.luck.value if found.seeds else None,
        "openings": [
            {"at": opening.at.isoformat(timespec="seconds"), "trial": opening.trial, "reason": opening.reason}
            for opening in found.openings
        ],
        "importances": {name: list(spread) for name, spread in found.space.importances.items()},
        "not_run": list(found.not_run),
        "seconds": found.seconds,
        "extra_seconds": found.extra_seconds,
    }


def _show(found: Report, page: Path) -> None:
    from search.insight.plain_words import VERDICTS, in_plain_words, unfinished

    words = VERDICTS[found.diagnosis.verdict]
    say(f"{found.study}: {words.title} ({words.term})")
    _say(words.meaning)
    _say(in_plain_words(found))
    if going_on := unfinished(found):
        _say(going_on)
    say()
    show(_levels(found))
    say()
    for reason in found.diagnosis.reasons:
        _say(reason, "- ")
    if found.diagnosis.advice:
        say()
        say("What to do next")
    for number, advice in enumerate(found.diagnosis.advice, 1):
        _say(f"{advice.change} {advice.why}{' (measured)' if advice.measured else ''}", f"{number}. ")
    if found.warnings:
        say()
        say("What to bear in mind")
    for warning in found.warnings:
        _say(warning, "- ")
    if found.not_run:
        say()
        say("Left out for the time it would have taken")
    for left in found.not_run:
        _say(left, "- ")
    say()
    for line in _ties(found):
        _say(line)
    say(f"The winner: trial {found.trial}, {in_short(found.settings)}")
    say(f"The page:   {page}")


def _ties(found: Report) -> Iterator[str]:
    """What other seeds made of the best trials."""
    if found.seeds is None:
        return
    tied = [str(contender.trial) for contender in found.seeds.contenders if contender.tied]
    if len(tied) > 1:
        yield f"Tied, as far as other seeds tell: trials {', '.join(tied)}; the smallest is {found.seeds.simplest}."
    luck = found.seeds.luck
    between = f"{figure(luck.low)} to {figure(luck.high)}"
    yield f"Luck in the winner's validation {found.metric}: {figure(luck.value)} ({between})."


def _levels(found: Report) -> Table:
    from search.insight.report_page import levels_of

    table = new_table(f"{found.metric} (smaller is better)", "", "from", "to")
    names = {"simple": "a simple model", "human": "a person"}
    for name, level in levels_of(found).items():
        ends = ("", "") if level.low == level.high else (figure(level.low), figure(level.high))
        table.add_row(names.get(name, name), figure(level.value), *ends)
    return table


def _say(text: str, mark: str = "") -> None:
    indent = " " * len(mark)
    say(textwrap.fill(plain(text), WIDTH, initial_indent=mark, subsequent_indent=indent))
