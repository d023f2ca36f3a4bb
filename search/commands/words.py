"""How things read: numbers, times and settings in short, and text that is safe to print. Standard library only."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

# Controls, invisible format characters (which reorder or hide text in a terminal) and halves of surrogate pairs.
_UNSAFE_CATEGORIES = frozenset({"Cc", "Cf", "Cs"})


def plain(text: str, keep: str = "") -> str:
    r"""The text with every character that a terminal would act on written as an escape, such as ``\x1b``.

    Text from a study file, from data or from a library may hold such characters.

    Args:
        text: Any text.
        keep: Control characters that may stay, such as a line break.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        character.encode("unicode_escape").decode("ascii")
        if character not in keep and unicodedata.category(character) in _UNSAFE_CATEGORIES
        else character
        for character in text
    )


def figure(value: float | None) -> str:
    """A metric or a setting to three or four digits that matter; a dash where there is none."""
    if value is None:
        return "-"
    if isinstance(value, int):
        return str(value)
    return f"{value:.4f}" if 0.001 <= abs(value) < 10 else f"{value:.4g}"


def setting(value: Any) -> str:
    """One setting of a network, in short."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.3g}" if isinstance(value, float) else plain(str(value))


def duration(seconds: float | None) -> str:
    """Seconds as ``41 s``, ``3 min 20 s``, ``2 h 5 min`` or ``3 d 4 h``; a dash where there are none."""
    if seconds is None:
        return "-"
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    units = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))
    first = next(index for index, (_, size) in enumerate(units) if whole >= size)
    (large, size), (small, part) = units[first], units[first + 1]
    rest = whole % size // part
    return f"{whole // size} {large} {rest} {small}" if rest else f"{whole // size} {large}"


def age(moment: datetime, now: datetime | None = None) -> str:
    """How long ago something was, to one unit: ``5 min`` or ``3 d``."""
    seconds = ((now or datetime.now(UTC)) - moment).total_seconds()
    return " ".join(duration(seconds).split()[:2])


def network(params: Mapping[str, Any]) -> str:
    """The layers of a network: ``cnn 16@3x3 max, 32@5x5/2, dense 64`` or ``mlp 128-64``."""
    dense = "-".join(str(params[key]) for key in _numbered(params, "neurons"))
    convolutions = [_convolution(params, key.rpartition("_")[2]) for key in _numbered(params, "filters")]
    family = plain(str(params.get("model", "mlp")))
    return f"{family} {', '.join([*convolutions, f'dense {dense}'])}" if convolutions else f"{family} {dense}"


def in_short(params: Mapping[str, Any] | None) -> str:
    """A trial's settings on one line: the layers, then what it was trained with."""
    if not params:
        return "-"
    parts = [network(params), setting(params.get("activation", "-"))]
    parts.append(f"{setting(params.get('optimizer', '-'))} {setting(params.get('learning_rate', '-'))}")
    if params.get("dropout"):
        parts.append(f"dropout {setting(params['dropout'])}")
    if params.get("batch_norm"):
        parts.append("batch norm")
    parts.append(f"batch {setting(params.get('batch_size', '-'))}")
    return ", ".join(parts)


def _numbered(params: Mapping[str, Any], stem: str) -> list[str]:
    """The keys ``stem_1``, ``stem_2`` … in the layers' order."""
    keys = [key for key in params if re.fullmatch(rf"{stem}_\d+", key)]
    return sorted(keys, key=lambda key: int(key.rpartition("_")[2]))


def _convolution(params: Mapping[str, Any], layer: str) -> str:
    size, stride = params.get(f"filter_size_{layer}", "?"), params.get(f"stride_{layer}", 1)
    pool = params.get(f"pool_{layer}", "none")
    step = f"/{stride}" if stride != 1 else ""
    return f"{params[f'filters_{layer}']}@{size}x{size}{step}" + (f" {pool}" if pool != "none" else "")
