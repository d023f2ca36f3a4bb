"""What one line of an exported study may say: types and ranges, checked before a row is written.

A file may come from anywhere. What is not finite is null; Optuna's values, which may be infinite, are words there. What
Optuna keeps as JSON stays the text that it is.
"""

from __future__ import annotations

import json
import math
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, NaiveDatetime

from storage.records import Probe, StudyState, TrialState

MOST_DEPTH = 50

WORDS_FOR = {math.inf: "inf", -math.inf: "-inf"}
"""How a value of Optuna's that JSON has no number for is written; what is not a number is null."""


def _storable_text(text: str) -> str:
    if "\0" in text:
        raise ValueError("has a NUL, which no database can hold")
    return text


def _plain(value: Any, depth: int = 0) -> Any:
    """JSON that both databases and every reader can hold."""
    if depth > MOST_DEPTH:
        raise ValueError(f"is nested more than {MOST_DEPTH} deep")
    if isinstance(value, str):
        _storable_text(value)
    elif isinstance(value, int):
        if not -(2**63) <= value < 2**64:
            raise ValueError("has a whole number of more than 64 bits")
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError("has a number that is not finite")
    elif isinstance(value, dict):
        for key, item in value.items():
            _storable_text(key)
            _plain(item, depth + 1)
    elif isinstance(value, list):
        for item in value:
            _plain(item, depth + 1)
    return value


def _kept_json(text: str) -> str:
    try:
        _plain(json.loads(text, parse_constant=str))  # Optuna's JSON has words for infinity and NaN
    except RecursionError:
        raise ValueError(f"is nested more than {MOST_DEPTH} deep") from None
    return _storable_text(text)


def _likely(moment: datetime) -> datetime:
    if not 1970 <= moment.year < 2500:
        raise ValueError("is a moment before 1970 or after 2500")
    return moment


Text = Annotated[str, AfterValidator(_storable_text)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}\Z")]
Uid = Annotated[str, Field(pattern=r"^[0-9a-f]{1,32}\Z")]
Count = Annotated[int, Field(ge=0, lt=2**31)]
Large = Annotated[int, Field(ge=0, lt=2**63)]
Seconds = Annotated[float, Field(ge=0, le=1e12)]
Moment = Annotated[AwareDatetime, AfterValidator(_likely)]
NaiveMoment = Annotated[NaiveDatetime, AfterValidator(_likely)]
Seed = Annotated[str, Field(pattern=r"^[0-9]{1,20}\Z")]
Scalar = Text | bool | Annotated[int, Field(ge=-(2**63), lt=2**63)] | float | None
PlainObject = Annotated[dict[str, Any], AfterValidator(_plain)]
KeptJson = Annotated[str, AfterValidator(_kept_json)]
# Whoever reads these with Optuna's CMA-ES unpickles them: no file may bring one.
AttrKey = Annotated[
    str, Field(max_length=512, pattern=r"^(?!(sep)?cma(wm)?:optimizer)"), AfterValidator(_storable_text)
]
Attrs = dict[AttrKey, KeptJson]
OptunaValue = float | Literal["inf", "-inf"] | None


class _Line(BaseModel):
    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        frozen=True,
        regex_engine="python-re",  # pydantic's own knows no "not followed by"
        hide_input_in_errors=True,
    )


class _Best(BaseModel):
    """The part of a result that commands and MLflow count on; more may be there."""

    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False)

    trial: Count
    params: dict[str, Scalar]
    train: float | None
    validation: float
    test: float | None
    test_interval: tuple[float, float] | None
    epochs: Count
    best_epoch: Count | None = None
    weights: Large
    model: Text | None


class _Leader(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False)

    trial: Count
    params: dict[str, Scalar]
    train: float | None
    validation: float | None
    epochs: Count


class _Result(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False)

    study: Text
    metric: Text
    trials: dict[str, Count]
    best: _Best
    splits: dict[str, Count] = {}
    seconds: Seconds
    chance: float | None = None
    worth: list[Text] = []
    leader: list[_Leader] = []


def _a_result(result: dict[str, Any]) -> dict[str, Any]:
    # As JSON once more: strict types take a list for a pair from JSON alone.
    _Result.model_validate_json(json.dumps(_plain(result)))
    return result


class StudyLine(_Line):
    """The study's row, without what belongs to whoever works on it or publishes it."""

    name: Name
    number: Annotated[int, Field(ge=1, lt=2**31)]
    uid: Uid
    spec: PlainObject
    text: Text
    trials: Annotated[int, Field(ge=1, lt=2**31)]
    state: StudyState
    created_at: Moment
    started_at: Moment | None
    ended_at: Moment | None
    error: Text | None
    result: Annotated[dict[str, Any], AfterValidator(_a_result)] | None
    split_hash: Annotated[str, Field(max_length=64), AfterValidator(_storable_text)] | None
    worked: Seconds
    # What schema 0003 did not have.
    tree: Uid | None = None
    round: Annotated[int, Field(ge=1, lt=2**31)] | None = None
    rounds: Annotated[int, Field(ge=1, lt=2**31)] | None = None
    sealed: bool = False


class OptunaAttrs(_Line):
    """What Optuna keeps of the study itself."""

    system: Attrs
    user: Attrs


class ExtraRunLine(_Line):
    probe: Probe
    trial: Count
    amount: Annotated[float, Field(ge=1e-4, le=1e5)]
    settings: PlainObject
    seed: Seed
    train: float | None
    validation: float | None
    rows: Count
    epochs: Count
    seconds: Seconds
    weights: Large
    curve: list[float | None]
    error: Text | None
    at: Moment


class OpeningLine(_Line):
    at: Moment
    trial: Count | None
    reason: Text


class Head(_Line):
    """The file ``study.json``.

    Attributes:
        format: Grows when a reader of the old one would misread the new one.
        optuna: None where Optuna has no study yet.
        extra_runs, openings: Few enough to stand here.
        pages: Names of those that MLflow is told of.
    """

    format: Annotated[int, Field(ge=1)]
    neurosweep: Text
    schema_version: Text
    exported_at: Moment
    study: StudyLine
    optuna: OptunaAttrs | None
    extra_runs: list[ExtraRunLine] = []
    openings: list[OpeningLine] = []
    pages: list[Annotated[str, Field(pattern=r"^[a-z0-9-]{1,64}\Z")]] = []


class Version(BaseModel):
    """What any version of ``study.json`` has."""

    format: int
    neurosweep: str
    schema_version: str


class TrialLine(_Line):
    number: Count
    state: TrialState
    params: dict[Text, Scalar]
    settings: PlainObject
    seed: Seed
    train: float | None
    validation: float | None
    epochs: Count
    best_epoch: Count
    seconds: Seconds
    weights: Large
    worker: Annotated[str, Field(max_length=255), AfterValidator(_storable_text)] | None
    error: Text | None
    started_at: Moment
    ended_at: Moment | None
    pack: Count | None
    deaths: Count
    memory: Large | None
    would_stop: Count | None = None


class EpochLine(_Line):
    trial: Count
    epoch: Annotated[int, Field(ge=1, lt=2**31)]
    train_loss: float | None
    train_metric: float | None
    validation_loss: float | None
    validation_metric: float | None
    seconds: Seconds
    at: Moment


class ParamLine(_Line):
    """`value` is in Optuna's internal representation, `distribution` its JSON, which Optuna's own reader checks."""

    name: Annotated[str, Field(max_length=512), AfterValidator(_storable_text)]
    value: float
    distribution: Annotated[str, Field(max_length=100_000), AfterValidator(_storable_text)]


class OptunaTrialLine(_Line):
    """A trial as Optuna keeps it; `steps` are its intermediate values, each with its step."""

    number: Count
    state: Literal["RUNNING", "COMPLETE", "PRUNED", "FAIL"]
    values: list[tuple[Literal[0], float | Literal["inf", "-inf"]]]
    started_at: NaiveMoment | None
    ended_at: NaiveMoment | None
    params: list[ParamLine]
    steps: list[tuple[Count, OptunaValue]]
    system_attrs: Attrs
    user_attrs: Attrs


def written(value: float | None) -> float | str | None:
    """A value of Optuna's as a line has it."""
    return None if value is None or math.isnan(value) else WORDS_FOR.get(value, value)


def read(value: float | str | None) -> float:
    """The inverse of `written`: NaN for None."""
    return math.nan if value is None else float(value)
