"""How a peer's process is told what to do: one line of JSON on stdin, and a second line once all are to begin."""

from __future__ import annotations

import json
import sys
from typing import Any


def take_order() -> dict[str, Any]:
    """The first line; `await_start` takes the second."""
    order: dict[str, Any] = json.loads(sys.stdin.readline())
    return order


def await_start() -> None:
    """Says that imports and data are there, and waits until the others' are as well."""
    print("ready", flush=True)
    sys.stdin.readline()


def answer(figures: dict[str, Any]) -> None:
    """The last line on stdout."""
    print(json.dumps(figures), flush=True)
