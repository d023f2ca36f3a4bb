"""Reads YAML 1.2 into plain values and tells the line of each key and list item. Safe: no tags, no Python objects.

Goes no further than the node tree of ruamel.yaml and makes bool, int, float, str, list and dict from it by itself, so
nothing a file says can construct anything else, and a bomb of aliases ends at a count.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.composer import Composer, MaxDepthExceededError
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import AliasEvent
from ruamel.yaml.nodes import MappingNode, ScalarNode, SequenceNode
from ruamel.yaml.reader import ReaderError

from neurosweep.errors import StudyFileError
from search.spec_errors import Path, Positions, place

MAX_CHARACTERS = 1_000_000
MAX_VALUES = 10_000
MAX_DEPTH = 20


@dataclass(frozen=True)
class Document:
    """A file's values and where they stand in it."""

    value: Any
    positions: Positions


def read_yaml(text: str, file: str) -> Document:
    """The one document in `text`; None where there is nothing but comments.

    Raises:
        StudyFileError: The text is not YAML, or holds what a study file may not hold: tags, a key twice, more than
            `MAX_VALUES` values with aliases followed, lists in lists deeper than `MAX_DEPTH`.
    """
    if len(text) > MAX_CHARACTERS:
        raise StudyFileError(
            f"a study file has at most {MAX_CHARACTERS:,} characters, but this has {len(text):,}", file
        )
    reader = _Reader(file)
    root = _node_tree(text, file)
    value = None if root is None else reader.value(root, ())
    return Document(value=value, positions=Positions(file, reader.lines))


class _BoundedComposer(Composer):
    """Refuses tags and stops early in a file that is too large to be a study's."""

    def __init__(self, loader: Any = None) -> None:
        super().__init__(loader=loader)
        self.warn_double_anchors = False
        self.values = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.parser.peek_event()
        self.values += 1
        if self.values > MAX_VALUES:
            raise MarkedYAMLError(problem=_TOO_MANY, problem_mark=event.start_mark)
        if not isinstance(event, AliasEvent) and event.ctag is not None:
            problem = f"the tag {_tag(event.ctag)} has no place in a study file: write the plain value"
            raise MarkedYAMLError(problem=problem, problem_mark=event.start_mark)
        return super().compose_node(parent, index)


_TOO_MANY = f"a study file has at most {MAX_VALUES:,} values, aliases followed, but this has more"
_TOO_DEEP = f"a study file is at most {MAX_DEPTH} levels deep, but this is deeper"


_HINTS = {
    "'\\t'": "indent with spaces, not tabs",
    "mapping values are": "check the indentation, put a space after each colon, and quote text that holds ': '",
    "could not find expected ':'": "each line is 'key: value', with a space after the colon",
    "expected <block end>": "check the indentation: keys of one section begin in the same column",
}


def _tag(tag: Any) -> str:
    return "".join(letter for letter in str(tag) if letter.isprintable())[:60]


def _node_tree(text: str, file: str) -> Any:
    yaml = YAML(typ="safe", pure=True)
    yaml.Composer = _BoundedComposer
    yaml.max_depth = MAX_DEPTH
    try:
        return yaml.compose(text)
    except MaxDepthExceededError as error:
        raise StudyFileError(_TOO_DEEP, place(file, error.problem_mark.line + 1, ())) from None
    except MarkedYAMLError as error:
        # A line without a colon is noticed at the next line's end.
        late = error.context == "while scanning a simple key"
        mark = error.context_mark if late else error.problem_mark or error.context_mark
        line = mark.line + 1 if mark is not None else None
        raise StudyFileError(_syntax(error, line), place(file, line, ())) from None
    except ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        message = f"a study file is plain text, but this has the control character #x{error.character:04x}"
        raise StudyFileError(message, place(file, line, ())) from None
    except RecursionError:
        raise StudyFileError(_TOO_DEEP, file) from None
    except (YAMLError, ValueError, AssertionError, LookupError, TypeError, AttributeError):
        # The parser's own slips on odd input, such as a \U escape beyond Unicode.
        raise StudyFileError("not valid YAML: check it for stray characters", file) from None


def _syntax(error: MarkedYAMLError, line: int | None) -> str:
    problem = " ".join(str(error.problem or error.context).split())
    if problem.startswith(("the tag", "a study file")):
        return problem
    if "another document" in problem:
        return "a study file holds one document: take the second '---' and what follows out"
    message = f"not valid YAML: {problem}"
    begin = error.context_mark.line + 1 if error.context_mark is not None and error.context else line
    if begin != line:
        message += f" ({error.context} that begins in line {begin})"
    hints = [hint for words, hint in _HINTS.items() if words in problem]
    return f"{message}: {hints[0]}" if hints else message


@dataclass
class _Reader:
    file: str
    lines: dict[Path, int] = field(default_factory=dict)
    values: int = 0

    def value(self, node: Any, path: Path) -> Any:
        self.values += 1
        if self.values > MAX_VALUES:
            self._refuse(_TOO_MANY, node, ())
        if len(path) > MAX_DEPTH:  # an alias inside its own anchor
            self._refuse(_TOO_DEEP, node, ())
        if isinstance(node, ScalarNode):
            return self._scalar(node, path)
        if isinstance(node, SequenceNode):
            return [self._item(item, (*path, index)) for index, item in enumerate(node.value)]
        return self._mapping(node, path)

    def _item(self, node: Any, path: Path) -> Any:
        self.lines[path] = node.start_mark.line + 1
        return self.value(node, path)

    def _mapping(self, node: MappingNode, path: Path) -> dict[str, Any]:
        mapping: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, ScalarNode):
                self._refuse("a key must be one word, but is a list or a mapping", key_node, path)
            key = self._text(key_node, path)
            key_path = (*path, key)
            if key in mapping:
                first = self.lines[key_path]
                self._refuse(f"the key {key} is there twice, first in line {first}: take one out", key_node, key_path)
            self.lines[key_path] = key_node.start_mark.line + 1
            mapping[key] = self.value(value_node, key_path)
        return mapping

    def _scalar(self, node: ScalarNode, path: Path) -> Any:
        text = self._text(node, path)
        kind = str(node.tag).rpartition(":")[2]
        if kind == "null":
            return None
        if kind == "bool" and text.lower() in ("true", "false"):
            return text.lower() == "true"
        try:
            if kind == "int":
                return _whole(text)
            if kind == "float":
                return _real(text)
        except ValueError:  # such as '-_' or thousands of digits
            return text
        return text

    def _text(self, node: ScalarNode, path: Path) -> str:
        text = str(node.value)
        if "\0" in text or any("\ud800" <= letter <= "\udfff" for letter in text):
            self._refuse("text in a study file may not hold NUL or half a surrogate pair", node, path)
        return text

    def _refuse(self, message: str, node: Any, path: Path) -> None:
        raise StudyFileError(message, place(self.file, node.start_mark.line + 1, path))


def _whole(text: str) -> int:
    digits = text.replace("_", "")
    prefixed = digits.lstrip("+-")[:2] in ("0b", "0o", "0x")
    return int(digits, 0) if prefixed else int(digits)


def _real(text: str) -> float:
    digits = text.replace("_", "").lower()
    if digits.endswith((".inf", ".nan")):
        return -math.inf if digits == "-.inf" else float(digits.lstrip("+."))
    return float(digits)
