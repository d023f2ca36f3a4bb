"""What several commands do with a study: open the database, show its document, say how it ended."""

from __future__ import annotations

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
    return study_document(
        store.summary(study.id), store.trials(study.id), run=store.mlflow_run(study.id), tracking=where.tracking
    )


def show_end(store: Store, study: StudyRecord, where: Places, as_json: bool) -> int:
    """Print the result of a study that has ended; the exit status says how."""
    document = document_of(store, study, where)
    if as_json:
        print_json(document)
    else:
        tables.show_result(document)
    if study.state is StudyState.FAILED:
        tell(f"error: {study.label}: {study.error or 'the study failed'}")
        return 1
    if study.state in (StudyState.STOPPED, StudyState.CANCELLED):
        tell(resume_hint(study))
        return INTERRUPTED
    return 0


def resume_hint(study: StudyRecord) -> str:
    return f"go on with: neurosweep resume {study.label}"
