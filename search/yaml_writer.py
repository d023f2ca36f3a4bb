"""Writes plain values as YAML the way people write a study file: a line a key, lists and ranges in one line."""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Mapping, Sequence
from io import StringIO
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.representer import RoundTripRepresenter

from search.dimensions import number_text

SECTION_DEPTH = 1
"""Mappings below this depth are written in one line."""

COMMENT_WIDTH = 100

_PLAIN = re.compile(r"[\w./](?:[\w./~-]|:(?=\w))*")


class _Representer(RoundTripRepresenter):
    """Writes 0.000001 where ruamel.yaml would write 1.0e-06, and quotes all text but plain words."""

    def represent_number(self, number: float) -> Any:
        text = number_text(number)
        if math.isfinite(number) and "." not in text:  # 1e-12: a float with an exponent needs no point in YAML 1.2
            text = text if "e" in text else f"{text}.0"
        return self.represent_scalar("tag:yaml.org,2002:float", text)

    def represent_text(self, text: str) -> Any:
        # ruamel.yaml leaves ':a' bare in {key: :a}, and then can't read it: only plain words go without quotes.
        style = None if _PLAIN.fullmatch(text) else "'"
        if not text.isprintable():
            style = '"'  # the only style with escapes, for line breaks and the like
        return self.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Representer.add_representer(float, _Representer.represent_number)
_Representer.add_representer(str, _Representer.represent_text)


def yaml_text(
    mapping: Mapping[str, Any],
    comments: Mapping[tuple[str, ...], Sequence[str]] | None = None,
    heading: Sequence[str] = (),
) -> str:
    """The mapping as YAML 1.2, in its own order.

    Args:
        comments: Paragraphs to stand above the line of a key, by its path: one key, or a section and a key in it.
        heading: Paragraphs to stand above all.
    """
    yaml = YAML()
    yaml.Representer = _Representer
    yaml.width = 10_000  # no key's value is broken into lines
    styled = _styled(mapping, 0)
    for path, paragraphs in (comments or {}).items():
        home = styled if len(path) == 1 else styled[path[0]]
        indent = 2 * (len(path) - 1)
        home.yaml_set_comment_before_after_key(path[-1], "\n".join(_wrapped(paragraphs, indent)), indent)
    output = StringIO()
    yaml.dump(styled, output)
    return "".join(f"# {line}\n" for line in _wrapped(heading, 0)) + output.getvalue()


def inline(value: Any) -> str:
    """A key's value as it stands in one line."""
    return yaml_text({"a": {"b": value}}).partition("b: ")[2].strip()


def _wrapped(paragraphs: Sequence[str], indent: int) -> list[str]:
    """Lines of comments; what can't be printed is left out, as it could end a comment."""
    width = COMMENT_WIDTH - indent - 2
    texts = ["".join(letter for letter in " ".join(text.split()) if letter.isprintable()) for text in paragraphs]
    return [line for text in texts for line in textwrap.wrap(text, width)]


def _styled(value: Any, depth: int) -> Any:
    if isinstance(value, Mapping):
        styled = CommentedMap((key, _styled(item, depth + 1)) for key, item in value.items())
        if depth > SECTION_DEPTH:
            styled.fa.set_flow_style()
        return styled
    if isinstance(value, list):
        items = CommentedSeq(_styled(item, depth + 1) for item in value)
        items.fa.set_flow_style()
        return items
    return value
