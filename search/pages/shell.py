"""The frame of every page: one self-contained HTML file with its style, its scripts and its data inside."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

import jinja2
import markupsafe

_FILES = resources.files("search.pages") / "files"


def render(template: str, *, data: Mapping[str, Any], scripts: Sequence[str] = (), **values: Any) -> str:
    """A whole page.

    Args:
        template: A file in ``files/`` that extends ``frame.html``.
        data: What the scripts read, as ``pageData()``; plain JSON values, all of them finite.
        scripts: Files in ``files/``, in the order in which they run, behind ``frame.js``.
        values: What the template shows; escaped by it.

    Raises:
        ValueError: A number in `data` is not finite.
    """
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_text), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    return environment.get_template(template).render(
        **values,
        data=_embedded(data),
        style=markupsafe.Markup(_text("frame.css")),  # noqa: S704 - our own file
        scripts=[markupsafe.Markup(_text(name)) for name in ("frame.js", *scripts)],  # noqa: S704 - our own files
    )


def _text(name: str) -> str:
    return (_FILES / name).read_text(encoding="utf-8")


def _embedded(data: Mapping[str, Any]) -> markupsafe.Markup:
    """JSON that nothing in it can break out of the script element that holds it."""
    text = json.dumps(data, allow_nan=False, separators=(",", ":"), ensure_ascii=False)
    for letter in "<>&\u2028\u2029":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return markupsafe.Markup(text)  # noqa: S704 - escaped above
