"""The command that writes the next study file."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from neurosweep.errors import BadInputError, InterruptedStudyError
from search.commands.options import Command, json_option, places
from search.commands.output import print_json, say, tell
from search.commands.stopping import INTERRUPTED, heeding_signals
from search.commands.studies import open_store
from search.commands.tables import WIDTH
from search.commands.words import plain

if TYPE_CHECKING:
    from search.insight.refining import Change, Refined


@click.command(cls=Command)
@click.argument("study")
@click.option(
    "-o", "--output", metavar="FILE", type=click.Path(path_type=Path), help="The file to write; NAME-N.yaml by default."
)
@click.option("--force", is_flag=True, help="Write over a file that is there.")
@json_option
def refine(study: str, output: Path | None, force: bool, as_json: bool) -> int:
    """Write the study file that follows from STUDY's report.

    Widens, narrows or moves the space by the diagnosis, with the reason for every changed line above it. The new study
    knows the trials of STUDY from its start. Makes the report first, as `neurosweep report` does.

    \b
    Example:
      neurosweep refine digits -o digits-2.yaml
      neurosweep run digits-2.yaml
    """
    where = places()
    store = open_store(where)
    record = store.find(study)
    file = output or Path(f"{record.name}-{store.find(record.name).number + 1}.yaml")
    if file.exists() and not force:
        raise BadInputError("The file is there already; --force writes over it.", str(file))

    from search.insight.refining import refine as refined_from
    from search.insight.refining import refined_text
    from search.insight.reporting import make_report
    from search.spec import StudySpec

    with heeding_signals() as (screen, stop):
        stop.last_words = f"ended at once; again with: neurosweep refine {record.label}"
        try:
            report = make_report(store, record, where, thorough=False, on_progress=screen.show, stop=stop)
        except InterruptedStudyError:
            tell("interrupted; nothing was written")
            return INTERRUPTED
    spec = StudySpec.from_mapping(store.study(record.id).spec)
    refined = refined_from(report, spec, store.trials(record.id))
    file.write_text(refined_text(refined, report), encoding="utf-8")
    if as_json:
        print_json(_document(file, report.diagnosis.verdict.value, refined))
    else:
        _show(file, report.diagnosis.verdict.value, refined)
    return 0


def _document(file: Path, verdict: str, refined: Refined) -> dict[str, Any]:
    return {
        "file": str(file),
        "verdict": verdict,
        "changes": [
            {"key": change.key, "from": change.before, "to": change.after, "why": change.why}
            for change in refined.changes
        ],
        "left": [{"key": advice.key, "change": advice.change, "why": advice.why} for advice in refined.left],
    }


def _show(file: Path, verdict: str, refined: Refined) -> None:
    say(f"The verdict is {verdict.replace('_', ' ')}.")
    for change in refined.changes:
        say()
        say(plain(_moved(change)))
        _say_indented(change.why)
    if refined.left:
        say("\nWhat no study file does:")
        for advice in refined.left:
            _say_indented(f"{advice.change} {advice.why}")
    say(f"\nWrote {file}. Next: neurosweep validate {file}, then neurosweep run {file}")


def _moved(change: Change) -> str:
    from search.yaml_writer import inline

    before = "" if change.before is None else f"{inline(change.before)} -> "
    return f"{change.key}: {before}{inline(change.after)}"


def _say_indented(text: str) -> None:
    say(textwrap.fill(plain(text), WIDTH, initial_indent="  ", subsequent_indent="  "))
