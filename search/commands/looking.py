"""The commands that look at studies, and cancel."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from neurosweep.errors import BadInputError, StudyFailedError
from search.commands import tables
from search.commands.documents import GOING_ON, mlflow_document, stored_progress, study_document, trial_document
from search.commands.options import Command, json_option, places
from search.commands.output import print_json, say, tell
from search.commands.stopping import INTERRUPTED
from search.commands.studies import document_of, open_store, show_end
from search.commands.words import age
from storage.publisher_loop import in_words
from storage.records import StudyState

if TYPE_CHECKING:
    from search.places import Places
    from storage.records import StudyRecord
    from storage.store import Store

_SECONDS_BETWEEN_LOOKS = 1.0


@click.command("list", cls=Command)
@json_option
def list_studies(as_json: bool) -> None:
    """Show all studies, the newest first.

    \b
    Example:
      neurosweep list
    """
    summaries = open_store(places()).list_studies()
    summaries = sorted(summaries, key=lambda summary: summary.study.id, reverse=True)
    found = [study_document(summary) for summary in summaries]
    if as_json:
        print_json(found)
    elif found:
        tables.show_list(found, [age(summary.study.created_at) for summary in summaries])
    else:
        say("No studies yet. Begin with: neurosweep init, then neurosweep run study.yaml")


@click.command(cls=Command)
@click.argument("study")
@json_option
def status(study: str, as_json: bool) -> None:
    """Show one STUDY and all its trials.

    STUDY is a name; name@2 is the second study of that name, a name alone the newest.

    \b
    Example:
      neurosweep status digits
      neurosweep status digits@2 --json
    """
    where = places()
    store = open_store(where)
    record = store.find(study)
    document = document_of(store, record, where)
    trials = [trial_document(trial) for trial in sorted(store.trials(record.id), key=lambda trial: trial.number)]
    behind = store.behind(record.id)
    if as_json:
        print_json({**document, "mlflow": mlflow_document(document, behind), "trial_list": trials})
        return
    say(tables.headline(document))
    if late := in_words(behind):
        say(late)
    if record.error:
        say(f"error: {record.error}")
    if record.notice:
        say(record.notice)
    if trials:
        say()
        tables.show_trials(trials, str(document["metric"]))


@click.command(cls=Command)
@click.argument("study")
@json_option
def watch(study: str, as_json: bool) -> int:
    """Follow one STUDY live until it ends.

    Control-C ends the watching; the study goes on. The exit status is that of `neurosweep run`.

    \b
    Example:
      neurosweep watch digits
    """
    where = places()
    store = open_store(where)
    return follow(store, store.find(study), where, as_json)


def follow(store: Store, study: StudyRecord, where: Places, as_json: bool) -> int:
    """Show a study that another process works on until it ends, then its result."""
    try:
        ended = _ended(store, study)
    except KeyboardInterrupt:
        tell(f"{study.label} goes on; look again with: neurosweep watch {study.label}")
        return INTERRUPTED
    return show_end(store, ended, where, as_json)


@click.command(cls=Command)
@click.argument("study")
@json_option
def best(study: str, as_json: bool) -> None:
    """Show the best trial of STUDY: settings, errors, model.

    While the study is going on, this is the best one so far, which has not been tested yet.

    \b
    Example:
      neurosweep best digits
    """
    where = places()
    store = open_store(where)
    record = store.find(study)
    document = document_of(store, record, where)
    if document["best"] is None:
        raise no_best(record)
    if as_json:
        print_json(document)
    else:
        tables.show_result(document)


@click.command(cls=Command)
@click.argument("study")
@json_option
def cancel(study: str, as_json: bool) -> None:
    """Stop STUDY, whoever is working on it.

    Trials that are done are kept; `neurosweep resume` can go on later.

    \b
    Example:
      neurosweep cancel digits
    """
    store = open_store(places())
    record = store.request_cancel(store.find(study).id)
    if as_json:
        print_json(study_document(store.summary(record.id)))
    elif record.state is StudyState.RUNNING:
        say(f"{record.label} will stop within seconds; see: neurosweep watch {record.label}")
    else:
        say(f"{record.label} is {record.state}")


def no_best(study: StudyRecord) -> BadInputError | StudyFailedError:
    """The error for a study that has no best trial."""
    if study.state is StudyState.FAILED:
        return StudyFailedError(study.error or "The study ended without one good trial.", study.label)
    return BadInputError(
        f"No trial is complete yet; the study is {study.state}. See: neurosweep status {study.label}", study.label
    )


def _ended(store: Store, study: StudyRecord) -> StudyRecord:
    from search.commands.screen import open_screen

    with open_screen() as screen:
        while True:
            summary = store.summary(study.id)
            screen.show(stored_progress(summary, store.trials(study.id), datetime.now(UTC)))
            if summary.study.state not in GOING_ON:
                return summary.study
            time.sleep(_SECONDS_BETWEEN_LOOKS)
