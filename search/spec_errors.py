"""From pydantic's list of errors to one error with its place in the file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, ValidationError

from neurosweep.errors import StudyFileError
from search.dimensions import RANGE_KEYS, did_you_mean, shown

Path = tuple[str | int, ...]


@dataclass(frozen=True)
class Positions:
    """Where each key and list item stands in its file.

    Two of them are always equal, so that the same study in two files is the same study.

    Attributes:
        file: The study file's name; None for a study that comes from elsewhere.
        lines: The line, from 1, of each path.
    """

    file: str | None = field(default=None, compare=False)
    lines: Mapping[Path, int] = field(default_factory=dict, compare=False)

    def line(self, path: Path) -> int | None:
        """The line of a path, or of the nearest thing above it that is in the file."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path)

    def where(self, path: Path) -> str | None:
        """Such as ``study.yaml:12, space.dropout``; what is not known is left out."""
        return place(self.file, self.line(path), path)


def explained(error: ValidationError, model: type[BaseModel], positions: Positions) -> StudyFileError:
    """One error for all that is wrong: the first by line in full, the others in a second line.

    Args:
        model: The record that was validated; its fields are what an unknown key may have meant.
    """
    found = []
    for entry in error.errors(include_url=False, include_input=True):
        path, message = _path_and_message(entry, model)
        found.append((positions.line(path), path, message))
    found.sort(key=lambda item: item[0] or 0)
    _, path, message = found[0]
    if len(found) > 1:
        message += "\n" + _others([(dotted(path), line) for line, path, _ in found[1:]])
    return StudyFileError(message, positions.where(path))


def place(file: str | None, line: int | None, path: Path) -> str | None:
    """Such as ``study.yaml:12, space.dropout``; what is not known is left out."""
    address = f"{file}:{line}" if file and line else file
    return ", ".join(part for part in (address, dotted(path)) if part) or None


def sentence(rule: str, path: Path) -> str:
    """The rule with the key's name before it, where it begins with ``must``."""
    return f"{_words(path)[-1]} {rule}" if rule.startswith("must ") else rule


def dotted(path: Path) -> str:
    """The key's path as one word; places in lists and in ranges are left out."""
    return ".".join(_words(path))


def _words(path: Path) -> list[str]:
    return [step for step in path if isinstance(step, str) and step not in RANGE_KEYS]


def _others(others: list[tuple[str, int | None]]) -> str:
    said = [f"{path} (line {line})" if line else path for path, line in others[:3]]
    more = f" and {len(others) - 3} more" if len(others) > 3 else ""
    return f"Also to be corrected: {', '.join(said)}{more}."


def _path_and_message(entry: Any, model: type[BaseModel]) -> tuple[Path, str]:
    path: Path = tuple(entry["loc"])
    key = str(path[-1]) if path else ""
    match entry["type"]:
        case "rule":
            path += tuple(entry["ctx"]["at"])
            rule = entry["ctx"]["rule"]
            return path, sentence(rule, path)
        case "extra_forbidden":
            return path, _unknown_key(path, model)
        case "missing":
            return path, f"the key {key} is missing, and every study must have it"
        case "model_type":
            name = key or "a study file"
            return path, f"{name} must be a mapping of keys to values, but is {shown(entry['input'])}"
        case _:
            return path, f"{key} is not right: {entry['msg']}"


def _unknown_key(path: Path, model: type[BaseModel]) -> str:
    key = str(path[-1])
    sections = _sections(model)
    section = sections.get(path[:-1], [])
    inside = f" in {dotted(path[:-1])}" if len(path) > 1 else ""
    homes = [dotted(home) for home, keys in sections.items() if key in keys and home != path[:-1]]
    if homes:
        home = f"under {homes[0]}" if homes[0] else "at the top, outside every section"
        return f"unknown key {shown(key)}{inside}: it belongs {home}"
    near = did_you_mean(key, section)
    return f"unknown key {shown(key)}{inside}{near or '; the keys here are ' + ', '.join(section)}"


def _sections(model: type[BaseModel], above: Path = ()) -> dict[Path, list[str]]:
    """The keys of the record and of every record inside it, by path."""
    sections = {above: list(model.model_fields)}
    for key, info in model.model_fields.items():
        if isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel):
            sections |= _sections(info.annotation, (*above, key))
    return sections
