"""The study file as typed, frozen records, with the contract's keys, order and defaults. Imports nothing heavy."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    PrivateAttr,
    ValidationError,
    model_validator,
)
from pydantic_core import PydanticCustomError

from neurosweep.errors import StudyFileError
from search.dimensions import (
    Choice,
    Dimension,
    Fixed,
    Flag,
    Names,
    Range,
    Real,
    Whole,
    broken,
    did_you_mean,
    listed,
    plain,
    shown,
    whole_values,
    within,
)
from search.spec_errors import Positions, explained, sentence
from search.yaml_writer import yaml_text
from trainer.data.dataset import DataRequest, Task
from trainer.settings import Activation, Family, OptimizerKind, Padding, Pool, Schedule
from trainer.work import Metric


class SamplerKind(StrEnum):
    TPE = "tpe"
    RANDOM = "random"
    GP = "gp"
    CMAES = "cmaes"
    QMC = "qmc"
    GRID = "grid"


class PrunerKind(StrEnum):
    ASHA = "asha"
    HYPERBAND = "hyperband"
    MEDIAN = "median"
    NONE = "none"


class StopWhen(StrEnum):
    NO_GAIN = "no_gain"
    """Once the trials that are left are not expected to better the best one by more than the noise of its metric."""


class Champion(StrEnum):
    """Which of the best trials wins, once each has been trained again from other seeds."""

    BEST = "best"
    """The one with the best mean."""
    SIMPLEST = "simplest"
    """Of those that can't be told from it, the one with the fewest weights."""


METRICS = {
    Task.CLASSIFICATION: (Metric.ERROR, Metric.BALANCED_ERROR, Metric.LOG_LOSS),
    Task.REGRESSION: (Metric.MSE, Metric.MAE),
}
"""The metrics of each task; the first is its default."""

CONV_KEYS = ("conv_layers", "filters", "filter_size", "stride", "padding", "pool")
"""The settings that only a CNN has."""

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


def _text(value: object) -> str:
    if not isinstance(value, str):
        hint = ": put it in quotes" if isinstance(value, int | float) else ""
        raise broken(f"must be text, but is {shown(value)}{hint}")
    if not value.strip() or len(value) > 4000:
        raise broken("must be text of 1 to 4,000 characters")
    return value


def fitting_name(text: str) -> str:
    """The nearest thing to `text` that can be a study's name; empty where there is none."""
    return re.sub(r"[^a-z0-9._-]+", "-", text.lower()).strip("-._")[:64]


def _name(value: object) -> str:
    text = _text(value)
    if not _NAME.fullmatch(text):
        fitting = fitting_name(text)
        hint = f": '{fitting}' would do" if fitting else ""
        rule = "must be 1 to 64 characters of a-z 0-9 . _ - and begin with a letter or digit"
        raise broken(f"{rule}, but is {shown(value)}{hint}")
    return text


def _label(value: object) -> str:
    name, at, number = _text(value).partition("@")
    if not _NAME.fullmatch(name) or (at and not re.fullmatch(r"[1-9]\d{0,8}", number)):
        raise broken(f"must be a study's name, or name@N for its N-th study, but is {shown(value)}")
    return name + at + number


def _columns(value: object) -> tuple[str, ...]:
    if not isinstance(value, list | tuple):
        raise broken(f"must be a list of column names, but is {shown(value)}")
    if not value:
        raise broken("must have at least one column, but the list is empty: leave it out to use every column")
    names: set[str] = set()
    for index, item in enumerate(value):
        if not isinstance(item, str) or not item:
            raise broken(f"must be a list of column names, but one is {shown(item)}: put it in quotes", index)
        if item in names:
            raise broken(f"must have each column once, but {shown(item)} is in the list twice", index)
        names.add(item)
    return tuple(value)


def _families(value: object) -> tuple[object, ...]:
    families = plain(within(Names(Family))(value))
    return tuple(families) if isinstance(families, list) else (families,)


def _one_or_list(families: tuple[Family, ...]) -> str | list[str]:
    return families[0].value if len(families) == 1 else [family.value for family in families]


def _champion(value: object) -> object:
    if value == "ensemble":
        raise broken("must be best | simplest: an ensemble of several networks can't be asked for yet")
    return Names(Champion).check(value)


def _optional(check: Callable[[object], object]) -> BeforeValidator:
    return BeforeValidator(lambda value: None if value is None else check(value))


def _auto_or(domain: Whole | Real) -> BeforeValidator:
    def check(value: object) -> object:
        if value == "auto":
            return value
        try:
            return domain.check(value)
        except PydanticCustomError as error:
            rule = str((error.context or {})["rule"]).removeprefix("must be ")
            hint = did_you_mean(value, ["auto"]) if isinstance(value, str) else ""
            raise broken(f"must be auto or {rule}{hint}") from None

    return BeforeValidator(check)


# A section whose every line is commented out reads as null: it is the section with its defaults.
_BLANK_IS_DEFAULT = BeforeValidator(lambda value: {} if value is None else value)
_SHARE = _optional(Real(0, 1, low_open=True, high_open=True).check)


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SplitSpec(_Record):
    """How rows are dealt out: three fractions that add up to 1, or a column that says it row by row.

    Attributes:
        column: A column with the values train, validation and test; the three fractions are None then.
    """

    train: Annotated[float | None, _SHARE] = None
    validation: Annotated[float | None, _SHARE] = None
    test: Annotated[float | None, _SHARE] = None
    column: Annotated[str | None, _optional(_text)] = None

    @property
    def fractions(self) -> tuple[float, float, float] | None:
        """Train, validation and test; None where a column says it."""
        if self.train is None or self.validation is None or self.test is None:
            return None
        return self.train, self.validation, self.test

    @model_validator(mode="after")
    def _adds_up(self) -> Self:
        shares = {"train": self.train, "validation": self.validation, "test": self.test}
        missing = [name for name, share in shares.items() if share is None]
        if self.column is not None:
            if len(missing) < 3:
                raise broken("must be either {column: NAME} or {train, validation, test}, not both")
            return self
        if missing:
            remedy = "write all three shares, or {column: NAME}"
            raise broken(f"must have train, validation and test, but {' and '.join(missing)} is missing: {remedy}")
        total = sum(share for share in shares.values() if share is not None)
        if abs(total - 1) > 1e-6:
            parts = " + ".join(shown(share) for share in shares.values())
            raise broken(f"must have shares that add up to 1, but {parts} = {round(total, 6)}")
        return self


class DataSpec(_Record):
    """Where the rows come from; `target` None is the source's own default."""

    source: Annotated[str, BeforeValidator(_text)]
    target: Annotated[str | None, _optional(_text)] = None
    features: Annotated[tuple[str, ...] | None, _optional(_columns)] = None
    group: Annotated[str | None, _optional(_text)] = None
    split: Annotated[SplitSpec, _BLANK_IS_DEFAULT] = SplitSpec(train=0.7, validation=0.15, test=0.15)
    max_rows: Annotated[int | None, _optional(Whole(3, 10**9).check)] = None

    @model_validator(mode="after")
    def _columns_have_one_role(self) -> Self:
        roles = {"target": self.target, "group": self.group, "split": self.split.column}
        taken: dict[str, str] = {}
        for role, column in roles.items():
            if column is None:
                continue
            if column in taken:
                raise broken(f"must be another column than {taken[column]}, but both are {shown(column)}", role)
            taken[column] = role
        for index, column in enumerate(self.features or ()):
            if column in taken:
                rule = f"must not have the {taken[column]} column {shown(column)} among the inputs: take it out"
                raise broken(rule, "features", index)
        return self


class SpaceSpec(_Record):
    """What is searched. ``neurons``, and for a CNN ``filters``, ``filter_size``, ``stride`` and ``pool``, hold for each
    layer by itself. Values of choices and fixed values are plain bool, int, float or str."""

    layers: Annotated[Dimension, BeforeValidator(within(Whole(1, 100)))] = Range(low=1, high=4)
    neurons: Annotated[Dimension, BeforeValidator(within(Whole(1, 100_000)))] = Range(low=16, high=256, log=True)
    activation: Annotated[Dimension, BeforeValidator(within(Names(Activation)))] = Choice(
        values=tuple(member.value for member in Activation)
    )
    learning_rate: Annotated[Dimension, BeforeValidator(within(Real(0, low_open=True)))] = Range(
        low=1e-4, high=0.3, log=True
    )
    optimizer: Annotated[Dimension, BeforeValidator(within(Names(OptimizerKind)))] = Choice(
        values=tuple(member.value for member in OptimizerKind)
    )
    momentum: Annotated[Dimension, BeforeValidator(within(Real(0, 1, high_open=True)))] = Fixed(value=0.9)
    weight_decay: Annotated[Dimension, BeforeValidator(within(Real(0)))] = Range(low=1e-6, high=0.01, log=True)
    dropout: Annotated[Dimension, BeforeValidator(within(Real(0, 1, high_open=True)))] = Range(low=0.0, high=0.5)
    batch_norm: Annotated[Dimension, BeforeValidator(within(Flag()))] = Choice(values=(True, False))
    batch_size: Annotated[Dimension, BeforeValidator(within(Whole(1, 1_000_000)))] = Choice(values=(32, 64, 128))
    schedule: Annotated[Dimension, BeforeValidator(within(Names(Schedule)))] = Choice(
        values=tuple(member.value for member in Schedule)
    )
    conv_layers: Annotated[Dimension, BeforeValidator(within(Whole(1, 100)))] = Range(low=1, high=4)
    filters: Annotated[Dimension, BeforeValidator(within(Whole(1, 100_000)))] = Range(low=8, high=64, log=True)
    filter_size: Annotated[Dimension, BeforeValidator(within(Whole(1, 1000)))] = Choice(values=(3, 5))
    stride: Annotated[Dimension, BeforeValidator(within(Whole(1, 1000)))] = Choice(values=(1, 2))
    padding: Annotated[Dimension, BeforeValidator(within(Names(Padding)))] = Choice(values=("same", "valid"))
    pool: Annotated[Dimension, BeforeValidator(within(Names(Pool)))] = Choice(
        values=tuple(member.value for member in Pool)
    )


class SearchSpec(_Record):
    """How the space is searched.

    Attributes:
        audit: The share of the trials that the pruner would stop that are trained to their end nevertheless, to learn
            whether stopping is right; `search.audit` says what auto is.
    """

    sampler: Annotated[SamplerKind, BeforeValidator(Names(SamplerKind).check)] = SamplerKind.TPE
    pruner: Annotated[PrunerKind, BeforeValidator(Names(PrunerKind).check)] = PrunerKind.ASHA
    audit: Annotated[float | Literal["auto"], _auto_or(Real(0, 1))] = "auto"


class BudgetSpec(_Record):
    """When the study ends: whichever comes first.

    Attributes:
        epochs: The most epochs of one trial.
        minutes: The most minutes of the whole study; None: no limit.
        minutes_per_trial: The most minutes of training that one trial gets; None: no limit.
        target: Stop when the metric on the validation split is at or under this.
        stop_when: What else ends the study early; None: nothing.
    """

    trials: Annotated[int, BeforeValidator(Whole(1, 1_000_000).check)] = 100
    epochs: Annotated[int, BeforeValidator(Whole(1, 1_000_000).check)] = 30
    minutes: Annotated[float | None, _optional(Real(0, 10**7, low_open=True).check)] = None
    minutes_per_trial: Annotated[float | None, _optional(Real(0, 10**7, low_open=True).check)] = None
    target: Annotated[float | None, _optional(Real(0).check)] = None
    stop_when: Annotated[StopWhen | None, _optional(Names(StopWhen).check)] = None


class WorkersSpec(_Record):
    """Ray workers, and what each of them takes of its machine."""

    count: Annotated[int | Literal["auto"], _auto_or(Whole(1, 10_000))] = "auto"
    cpus: Annotated[float, BeforeValidator(Real(0, 10_000, low_open=True).check)] = 1.0
    gpus: Annotated[float | Literal["auto"], _auto_or(Real(0, 10_000))] = "auto"

    @model_validator(mode="after")
    def _whole_gpus(self) -> Self:
        if self.gpus != "auto" and self.gpus > 1 and not self.gpus.is_integer():
            raise broken(f"must be a share of one GPU or a whole number of GPUs, but is {shown(self.gpus)}", "gpus")
        return self


class StudySpec(_Record):
    """One study file.

    Attributes:
        task: None until the data has been read, where the file leaves it out; see `resolved`.
        metric: None until the task is known, where the file leaves it out.
        human: A person's value of the metric.
        model: The families of networks to try, in the file's order.
        start_from: A study in the same database, ``name`` or ``name@N``, whose trials the sampler knows from the start.
        champion: How the winner is chosen among the best; None: it is the one with the best validation metric.
    """

    name: Annotated[str, BeforeValidator(_name)]
    seed: Annotated[int, BeforeValidator(Whole(0, 2**32 - 1).check)] = 0
    data: DataSpec
    task: Annotated[Task | None, _optional(Names(Task).check)] = None
    metric: Annotated[Metric | None, _optional(Names(Metric).check)] = None
    human: Annotated[float | None, _optional(Real(0).check)] = None
    model: Annotated[tuple[Family, ...], BeforeValidator(_families), PlainSerializer(_one_or_list)] = (Family.MLP,)
    space: Annotated[SpaceSpec, _BLANK_IS_DEFAULT] = Field(default_factory=SpaceSpec)
    search: Annotated[SearchSpec, _BLANK_IS_DEFAULT] = Field(default_factory=SearchSpec)
    start_from: Annotated[str | None, _optional(_label)] = None
    budget: Annotated[BudgetSpec, _BLANK_IS_DEFAULT] = Field(default_factory=BudgetSpec)
    champion: Annotated[Champion | None, _optional(_champion)] = None
    workers: Annotated[WorkersSpec, _BLANK_IS_DEFAULT] = Field(default_factory=WorkersSpec)
    _positions: Positions = PrivateAttr(default_factory=Positions)

    @model_validator(mode="after")
    def _conv_settings_need_a_cnn(self) -> Self:
        # The defaults may stand there: the contract's own example shows them beside model: mlp.
        usual = SpaceSpec()
        written = [key for key in CONV_KEYS if getattr(self.space, key) != getattr(usual, key)]
        if written and Family.CNN not in self.model:
            remedy = f"write model: cnn or model: [mlp, cnn], or take {written[0]} out"
            raise broken(f"{written[0]} is a setting of CNNs, but model is mlp: {remedy}", "space", written[0])
        return self

    @model_validator(mode="after")
    def _odd_filters_for_same_padding(self) -> Self:
        even = [size for size in whole_values(self.space.filter_size) if size % 2 == 0]
        if even and Family.CNN in self.model and Padding.SAME in listed(self.space.padding):
            remedy = "use odd sizes, such as {low: 3, high: 7, step: 2}, or write padding: valid"
            rule = f"must be odd where padding is same, for the filter to have a middle, but can be {even[0]}: {remedy}"
            raise broken(rule, "space", "filter_size")
        return self

    @model_validator(mode="after")
    def _start_from_needs_tpe(self) -> Self:
        if self.start_from is not None and self.search.sampler is not SamplerKind.TPE:
            remedy = "write sampler: tpe, or take start_from out"
            raise broken(f"must go with sampler tpe, the one that can take in what is known: {remedy}", "start_from")
        return self

    @model_validator(mode="after")
    def _metric_fits(self) -> Self:
        fault = _metric_fault(self, self.task)
        if fault:
            raise broken(fault.rule, *fault.path)
        return self

    def resolved(self, task: Task) -> StudySpec:
        """The study with the data's task, and that task's default metric where none was chosen.

        Raises:
            StudyFileError: The file's task or metric is for another kind of task.
        """
        if self.task not in (None, task):
            raise StudyFileError(
                f"task is {self.task}, but the target of this data makes it {task}", self.where("task")
            )
        fault = _metric_fault(self, task)
        if fault:
            raise StudyFileError(sentence(fault.rule, fault.path), self.where(*fault.path))
        return self.model_copy(update={"task": task, "metric": self.metric or METRICS[task][0]})

    def to_mapping(self) -> dict[str, Any]:
        """Plain JSON values in the contract's order, every default filled in; what has no default and is not set is
        left out."""
        return self.model_dump(mode="json", exclude_none=True)

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any], positions: Positions | None = None) -> StudySpec:
        """The inverse of `to_mapping`.

        Args:
            positions: Where the keys stand in their file, for messages.

        Raises:
            StudyFileError: The mapping breaks a rule.
        """
        try:
            spec = cls.model_validate(mapping)
        except ValidationError as error:
            raise explained(error, cls, positions or Positions()) from None
        if positions is not None:
            spec._positions = positions
        return spec

    def to_yaml(self) -> str:
        """A study file that says the same as `to_mapping`."""
        return yaml_text(self.to_mapping())

    def where(self, *path: str) -> str | None:
        """The place of a key in the file that this study came from, for a message."""
        return self._positions.where(path)


def data_request(spec: StudySpec) -> DataRequest:
    """What the trainer's data room is asked for."""
    data = spec.data
    return DataRequest(
        source=data.source,
        target=data.target,
        features=data.features,
        group=data.group,
        fractions=data.split.fractions,
        split_column=data.split.column,
        max_rows=data.max_rows,
        task=spec.task,
        seed=spec.seed,
    )


class _Fault(NamedTuple):
    path: tuple[str, ...]
    rule: str


def _metric_fault(spec: StudySpec, task: Task | None) -> _Fault | None:
    """What is wrong with metric, human and target for a task; None where all is well."""
    if task and spec.metric and spec.metric not in METRICS[task]:
        fitting = " | ".join(METRICS[task])
        return _Fault(("metric",), f"must be {fitting} for {task}, but is '{spec.metric}'")
    metric = spec.metric or (METRICS[task][0] if task else None)
    if metric in (Metric.ERROR, Metric.BALANCED_ERROR):
        for path, value in ((("human",), spec.human), (("budget", "target"), spec.budget.target)):
            if value is not None and value > 1:
                return _Fault(path, f"must be at most 1 for {metric}, but is {shown(value)}: write 0.02 for 2 %")
    return None
