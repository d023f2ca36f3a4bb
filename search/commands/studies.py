"""What several commands do with a study: open the database, show its document, say how it ended."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from search.commands import tables
from search.commands.documents import Document, study_document
from search.commands.output import print_json, tell
from search.commands.stopping import INTERRUPTED
from storage.records import StudyRecord, StudyState

if TYPE_CHECKING:
    from search.places import Places
    from storage.store import Store


def open_store(where: Places) -> Store:
    from storage.store import Store

    return Store.open(where.database)


def document_of(store: Store, study: StudyRecord, where: Places) -> Document:
    """Everything that is known of one study."""
    run = store.mlflow_run(study.id)
    document = study_document(
        store.summary(study.id),
        store.trials(study.id),
        run=run,
        tracking=where.tracking,
        unpublished=store.pending_facts(study.id),
    )
    best = document["best"]
    if best and best["model"]:
        if document["unpublished"]:
            document["best"] = {**best, "model": None}  # MLflow has not got it yet
        elif run is not None and not _is_newest(store, study):
            document["best"] = {**best, "model": f"runs:/{run.run_id}/champion"}  # the alias is a later study's
    return document


def show_end(
    store: Store, study: StudyRecord, where: Places, as_json: bool, rounds: Sequence[Document] | None = None
) -> int:
    """Print the result of a study that has ended; the exit status says how.

    Args:
        rounds: Those that it is one of, to be printed with it.
    """
    document = document_of(store, study, where)
    if as_json:
        print_json(document if rounds is None else {**document, "rounds": rounds})
    else:
        if rounds is not None:
            tables.show_rounds(rounds, str(document["metric"]))
        tables.show_result(document)
    if study.state is StudyState.FAILED:
        tell(f"error: {study.label}: {study.error or 'the study failed'}")
        return 1
    if study.state in (StudyState.STOPPED, StudyState.CANCELLED):
        tell(resume_hint(store, study))
        return INTERRUPTED
    return 0


def resume_hint(store: Store, study: StudyRecord) -> str:
    """Names the study so that it is found, whatever has been submitted under its name since."""
    label = study.label if _is_newest(store, study) else f"{study.name}@{study.number}"
    return f"go on with: neurosweep resume {label}"


def _is_newest(store: Store, study: StudyRecord) -> bool:
    """Whether its name alone finds this study."""
    return store.find(study.name).id == study.id
