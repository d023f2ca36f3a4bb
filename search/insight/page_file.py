"""Where a study's pages are written: each one whole, as a reader may have the old one open."""

from __future__ import annotations

from pathlib import Path

from search.places import Places
from search.whole_files import LocalFiles
from storage.records import StudyRecord


def write_page(places: Places, study: StudyRecord, name: str, text: str) -> Path:
    """Makes or replaces the page; returns its file."""
    file = places.page_of(study.uid, name)
    LocalFiles(file.parent).write(file.name, text.encode())
    return file
