"""Reads docker-compose.yml as Docker Compose does: its variables filled in, its merge keys merged."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

ROOT = Path(__file__).parents[2]
COMPOSE_FILE = ROOT / "docker-compose.yml"
VARIABLE = re.compile(r"\$\{(?P<name>\w+)(?::(?P<operator>[-?])(?P<word>[^}]*))?\}")


class MissingVariableError(Exception):
    """A variable without a default has no value."""


def filled_in(text: str, variables: Mapping[str, str]) -> str:
    """`text` with ``${NAME}``, ``${NAME:-default}`` and ``${NAME:?message}`` replaced."""

    def value(found: re.Match[str]) -> str:
        given = variables.get(found["name"], "")
        if not given and found["operator"] == "?":
            raise MissingVariableError(f"{found['name']}: {found['word']}")
        return given or found["word"] or ""

    return VARIABLE.sub(value, text)


def read_compose(variables: Mapping[str, str], text: str | None = None) -> dict[str, Any]:
    """The compose file, or `text` in its place."""
    document: dict[str, Any] = YAML(typ="safe").load(filled_in(text or COMPOSE_FILE.read_text(), variables))
    return document


def read_env(path: Path) -> dict[str, str]:
    """The settings of an .env file of plain NAME=value lines."""
    lines = (line for line in path.read_text().splitlines() if line and not line.startswith("#"))
    return dict(line.split("=", 1) for line in lines)
