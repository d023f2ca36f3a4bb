"""The field's terms, from the file that docs/terms.md is a copy of. Standard library only."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib import resources


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One term.

    Attributes:
        slug: What an address that leads to it ends in, as in the page and in docs/terms.md.
    """

    name: str
    slug: str
    paragraphs: tuple[str, ...]


def glossary() -> tuple[Entry, ...]:
    """The terms in the file's order."""
    text = (resources.files("search.pages") / "files" / "terms.md").read_text(encoding="utf-8")
    found = []
    for part in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        name, _, body = part.partition("\n")
        paragraphs = (" ".join(paragraph.split()) for paragraph in re.split(r"\n\s*\n", body) if paragraph.strip())
        found.append(Entry(name=name.strip(), slug=slug(name), paragraphs=tuple(map(_unmarked, paragraphs))))
    return tuple(found)


def slug(name: str) -> str:
    """A heading's anchor, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", name.strip().lower()).replace(" ", "-")


def _unmarked(text: str) -> str:
    """Markdown as plain text: emphasis, code and links."""
    text = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", text)
    return re.sub(r"[*`]+", "", text)
