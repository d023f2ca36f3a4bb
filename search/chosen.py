"""One network out of a study's space, chosen by hand: what is set, else what a trial had, else the middle of what the
study file leaves open."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from pydantic_core import PydanticCustomError

from neurosweep.errors import BadInputError, StudyFileError
from search.dimensions import Choice, Fixed, Names, Range, Value, did_you_mean
from search.parameters import key_of
from search.space import Proposal, Space
from search.spec import CONV_KEYS, SpaceSpec, StudySpec
from search.spec_errors import Positions, explained
from search.yaml_reader import read_yaml
from trainer.settings import Family

"""Settings that each layer has for itself: ``neurons_2`` is the second layer's."""


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """
    Attributes:
        taken: What the study file leaves open, with what was taken for it here, and out of what.
    """

    proposal: Proposal
    taken: dict[str, tuple[Value, Choice | Range]]


def choose(
    spec: StudySpec, input_shape: tuple[int, ...], given: Sequence[str] = (), trial: Mapping[str, Value] | None = None
) -> Chosen:
    """The network that is asked for.

    Of a range the middle is taken (on the logarithmic scale where it is `log`), of a list of numbers the middle one,
    of a list of words the first.

    Args:
        given: Texts such as ``filters=16`` or, for one layer alone, ``filters_2=32``; they go before all else.
        trial: A trial's settings, under the study file's names.

    Raises:
        BadInputError: A text is not of that form, or names no setting, or a value that the setting can't take.
    """
    everywhere, somewhere = _settings(given)
    if Family.CNN in spec.model and any(key_of(key) in CONV_KEYS for key in (*everywhere, *somewhere)):
        everywhere.setdefault("model", Family.CNN.value)
    spec = _with(spec, everywhere)
    usual: dict[str, Value] = {}
    for key, value in somewhere.items():
        stem = key_of(key)
        dimension = getattr(spec.space, stem)
        if isinstance(dimension, Fixed) and dimension.value != value:
            # A fixed setting is not asked for; a choice is, and the other layers keep what they had.
            usual[stem] = dimension.value
            space = spec.space.model_copy(update={stem: Choice(values=(dimension.value, value))})
            spec = spec.model_copy(update={"space": space})
    chooser = _Chooser({**(trial or {}), **somewhere}, usual)
    proposal = Space(spec, input_shape).suggest(chooser)
    if idle := [key for key in somewhere if key not in proposal.params]:
        layers = "conv_layers" if key_of(idle[0]) in CONV_KEYS else "layers"
        raise BadInputError(f"the network has no such layer: set {layers} as well", f"--set {idle[0]}")
    return Chosen(proposal=proposal, taken=chooser.taken)


class _Chooser:
    """Is asked for values in place of Optuna's trial."""

    def __init__(self, settled: Mapping[str, Value], usual: Mapping[str, Value]) -> None:
        self._settled, self._usual = settled, usual
        self.taken: dict[str, tuple[Value, Choice | Range]] = {}

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        return float(self._answer(name, Range(low=low, high=high, log=log, step=step)))

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        return int(self._answer(name, Range(low=low, high=high, log=log, step=None if step == 1 else step)))

    def suggest_categorical(self, name: str, choices: Sequence[Value]) -> Any:
        return self._answer(name, Choice(values=tuple(choices)))

    def _answer(self, name: str, dimension: Choice | Range) -> Value:
        if name in self._settled:
            return self._settled[name]
        if key_of(name) in self._usual:
            return self._usual[key_of(name)]
        value = middle(dimension)
        self.taken[name] = (value, dimension)
        return value


def middle(dimension: Choice | Range) -> Value:
    """The value that stands for all of them; see `choose`."""
    if isinstance(dimension, Choice):
        words = any(isinstance(value, bool | str) for value in dimension.values)
        return dimension.values[0] if words else sorted(dimension.values)[(len(dimension.values) - 1) // 2]
    low, high, step = dimension.low, dimension.high, dimension.step
    if dimension.log:
        value = math.sqrt(low) * math.sqrt(high)
        return round(value) if isinstance(low, int) else value
    if step is not None:
        return low + step * (round((high - low) / step) // 2)
    return (low + high) // 2 if isinstance(low, int) and isinstance(high, int) else (low + high) / 2


def _settings(given: Sequence[str]) -> tuple[dict[str, Value], dict[str, Value]]:
    """What holds for all layers, and what for one."""
    everywhere: dict[str, Value] = {}
    somewhere: dict[str, Value] = {}
    for text in given:
        key, equals, written = (part.strip() for part in text.partition("="))
        if not equals or not written:
            raise BadInputError(f"must be KEY=VALUE, such as filters=16 or filters_2=32, but is '{text}'", "--set")
        stem, known = key_of(key), ("model", *SpaceSpec.model_fields)
        if stem not in known:
            hint = did_you_mean(key, known) or f": there are {', '.join(known)}"
            raise BadInputError(f"there is no setting '{key}'{hint}", "--set")
        value = _read(stem, written, text)
        (everywhere if key == stem else somewhere)[key] = value
    return everywhere, somewhere


def _read(stem: str, written: str, text: str) -> Value:
    """One value, as a study file would have it."""
    try:
        value = read_yaml(written, "--set").value
        if stem == "model":
            return str(Names(Family).check(value))
        setting = getattr(SpaceSpec.model_validate({stem: value}), stem)
    except ValidationError as error:
        raise BadInputError(explained(error, SpaceSpec, Positions()).message, f"--set {text}") from None
    except PydanticCustomError as error:
        raise BadInputError(f"model {error.message()}", f"--set {text}") from None
    except StudyFileError as error:
        raise BadInputError(error.message, f"--set {text}") from None
    if not isinstance(setting, Fixed):
        raise BadInputError(f"{stem} must be one value here, not several", f"--set {text}")
    return setting.value


def _with(spec: StudySpec, everywhere: Mapping[str, Value]) -> StudySpec:
    """The study with these settings fixed."""
    mapping = spec.to_mapping()
    space = {**mapping["space"], **{key: value for key, value in everywhere.items() if key != "model"}}
    model = everywhere.get("model", mapping["model"])
    try:
        return StudySpec.from_mapping({**mapping, "model": model, "space": space})
    except StudyFileError as error:
        raise BadInputError(error.message, "--set") from None
