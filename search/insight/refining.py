"""The next study file: what a report says of a study, turned into a search space that is wider, narrower or elsewhere.

Nothing changes without a reason, and these are the reasons:

- The best values press against an end of a range or a list: it goes on further there.
- The trials do better and better towards an end of a range: it goes on further there, and its other end comes half way
  up to the best of them.
- The diagnosis advises more or less of something: its range goes on further that way, and its other end comes half way
  up to the winner's value. Where the trials say the opposite, they are believed and the advice is not.
- Nothing was learnt, and nothing says why: the learning rate's range goes on further on both sides.
- It underfits, and nothing says where to: there is room for larger networks and higher learning rates.
- A number matters, enough trials say so, and the best of them have values close together: its range closes in on those.

What the winner has stays in the space, and a value that is fixed stays fixed: its user has decided on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from neurosweep.errors import StudyFileError
from search.dimensions import Choice, Fixed, Range, number_text, plain
from search.insight.findings import Advice, Border, Report, Verdict
from search.insight.moves import Number, drawn_in, extended, place, value_at, widened, width
from search.insight.trends import trend, usable
from search.parameters import key_of
from search.spec import CONV_KEYS, SamplerKind, SpaceSpec, StudySpec
from search.yaml_writer import inline, yaml_text
from storage.records import TrialRecord
from trainer.settings import Family

LIMITS: dict[str, tuple[Number, Number]] = {
    "layers": (1, 20),
    "neurons": (1, 8192),
    "learning_rate": (1e-7, 10.0),
    "momentum": (0.0, 0.99),
    "weight_decay": (1e-10, 1.0),
    "dropout": (0.0, 0.9),
    "batch_size": (1, 4096),
    "conv_layers": (1, 12),
    "filters": (1, 1024),
    "filter_size": (1, 15),
    "stride": (1, 4),
}
"""What is not gone past: beyond it lies next to nothing that anybody trains. It is within the study file's rules."""

FACTOR, FAR = 10.0, 1000.0
"""By how much a logarithmic range is widened at most; and that of the learning rate, where nothing has learnt."""

DOUBLED = ("neurons", "filters", "batch_size")
"""Counts that are doubled where their range is not logarithmic."""

MATTERS = 0.1
"""From this importance on a range closes in."""

ENOUGH = 20
"""Trials with a value that it takes for that."""

CLOSER = 0.125
"""An end closes in where that takes away at least this of the range's width."""

MARGIN = 0.25
"""Of the width of the best values, left on either side of them."""


@dataclass(frozen=True, kw_only=True)
class Change:
    """One line of the study file that is another one now.

    Attributes:
        key: Dotted, such as ``space.dropout``.
        before, after: As the file says it; None for a key that was not there.
    """

    key: str
    before: Any
    after: Any
    why: str


@dataclass(frozen=True, kw_only=True)
class Refined:
    """The next study.

    Attributes:
        left: What was advised and is not done by this file: it is not of a study file, or speaks of a fixed value, or
            the trials say otherwise.
    """

    spec: StudySpec
    changes: tuple[Change, ...]
    left: tuple[Advice, ...]


def refine(report: Report, spec: StudySpec, trials: Sequence[TrialRecord]) -> Refined:
    """The next study of the same data, seed and name, which starts from what this one knows.

    Args:
        report: What is said of the study.
        spec: The study.
        trials: All of its trials; those of the rounds before it may be among them.
    """
    changes = [*_space_changes(report, spec, trials), *_budget_changes(report, spec)]
    if not changes and report.diagnosis.verdict is Verdict.UNDERFITTING:
        changes = _room_for_more(spec)
    if spec.search.sampler is SamplerKind.TPE:
        label = report.study if "@" in report.study else f"{report.study}@1"
        if label != spec.start_from:
            why = f"the trials of {label} that lie in this space are known to the sampler"
            changes.append(Change(key="start_from", before=spec.start_from, after=label, why=why))
    mapping = spec.to_mapping()
    for change in changes:
        *section, key = change.key.split(".")
        (mapping[section[0]] if section else mapping)[key] = change.after
    done = {change.key for change in changes}
    left = tuple(advice for advice in report.diagnosis.advice if _path(advice.key) not in done)
    return Refined(spec=_valid(mapping), changes=tuple(changes), left=left)


def refined_text(refined: Refined, report: Report) -> str:
    """The next study as a study file, each line that has changed below the reason for it."""
    heading = [f"The study that follows {report.study}, whose verdict is {report.diagnosis.verdict.replace('_', ' ')}."]
    if refined.left:
        heading.append("What no line of this file does:")
        heading += [f"- {advice.change} {advice.why}" for advice in refined.left]
    comments = {tuple(change.key.split(".")): [_was(change) + change.why] for change in refined.changes}
    return yaml_text(refined.spec.to_mapping(), comments=comments, heading=heading)


def _was(change: Change) -> str:
    if change.before is None:
        return ""
    return f"was {inline(change.before)}: "


def _valid(mapping: dict[str, Any]) -> StudySpec:
    try:
        return StudySpec.from_mapping(mapping)
    except StudyFileError as error:
        raise AssertionError(f"a refined study breaks a rule: {error}") from error


# The space


def _space_changes(report: Report, spec: StudySpec, trials: Sequence[TrialRecord]) -> list[Change]:
    ranked = usable(trials)
    changes = []
    for key in SpaceSpec.model_fields:
        if key in LIMITS and (key not in CONV_KEYS or Family.CNN in spec.model):
            before = getattr(spec.space, key)
            after, reasons = _Evidence(report, key, before, ranked).applied(before)
            if after != before:
                why = "; ".join(dict.fromkeys(reasons))
                changes.append(Change(key=f"space.{key}", before=plain(before), after=plain(after), why=why))
    return changes


def _room_for_more(spec: StudySpec) -> list[Change]:
    """What helps most often where the training metric itself is too large (Ng, Machine Learning Yearning, ch. 25)."""
    changes = []
    for key in ("neurons", "learning_rate"):
        before = getattr(spec.space, key)
        if isinstance(before, Choice):
            after: Choice | Range = extended(before, up=True, limits=LIMITS[key])
        elif isinstance(before, Range):
            factor = FACTOR if key == "learning_rate" else 2.0
            after = widened(before, up=True, limits=LIMITS[key], factor=factor)
        else:
            continue
        if after != before:
            why = "it underfits, and no trial says where to go: larger ones are let in"
            changes.append(Change(key=f"space.{key}", before=plain(before), after=plain(after), why=why))
    return changes


class _Evidence:
    """What a report says of one key of the space."""

    def __init__(
        self, report: Report, key: str, dimension: Fixed | Choice | Range, ranked: Sequence[TrialRecord]
    ) -> None:
        self._key = key
        self._limits = LIMITS[key]
        self._borders = {border.end: border for border in report.space.borders if key_of(border.key) == key}
        self._advice = [advice for advice in report.diagnosis.advice if _path(advice.key) == f"space.{key}"]
        found = [value for name, value in report.settings.items() if key_of(name) == key]
        self._winners = [value for value in found if isinstance(value, int | float)]
        self._lost = report.diagnosis.verdict is Verdict.NOT_LEARNING and key == "learning_rate"
        self._factor = FAR if self._lost else FACTOR
        self._good = self._closing_in(report) if len(ranked) >= ENOUGH else None
        self._trend = trend(key, dimension, ranked) if isinstance(dimension, Range) else None

    def _closing_in(self, report: Report) -> tuple[float, float, float] | None:
        """The importance of the key and the ends of its good values, over all layers; None where it matters little."""
        space = report.space
        matter = [found for name, found in space.importances.items() if key_of(name) == self._key]
        good = [found for name, found in space.good.items() if key_of(name) == self._key]
        mean, spread = max(matter, default=(0.0, 0.0))
        if not good or mean < MATTERS or mean <= spread:
            return None
        return mean, min(low for low, _ in good), max(high for _, high in good)

    def applied(self, dimension: Fixed | Choice | Range) -> tuple[Fixed | Choice | Range, list[str]]:
        """The dimension that follows from it, and why."""
        if isinstance(dimension, Fixed):
            return dimension, []
        reasons, at_rest = [], []
        for up in (False, True):
            before, (why, followers) = dimension, self._outwards(up)
            if why is None:
                at_rest.append(up)
                continue
            dimension = self._grown(dimension, up)
            if followers and isinstance(dimension, Range):
                dimension = self._followed(dimension, up, followers)
            if dimension != before:
                reasons.append(why)
        if isinstance(dimension, Range) and self._good is not None:
            importance, low, high = self._good
            before, dimension = dimension, self._closed_in(dimension, at_rest, low, high)
            if dimension != before:
                ends = " and ".join(number_text(float(f"{end:.3g}")) for end in (low, high))
                matters = f"it matters ({importance:.0%} of what makes trials differ)"
                reasons.append(f"{matters}, and the best lie between {ends}")
        return dimension, reasons

    def _outwards(self, up: bool) -> tuple[str | None, Sequence[Number]]:
        """Why the upper or the lower end is to move outwards, and the values that the other end is to follow."""
        border = self._borders.get("upper" if up else "lower")
        if border is not None:
            return _said(border), ()
        if self._borders:
            return None, ()
        if self._trend is not None:
            return (self._trend.why, (*self._trend.values, *self._winners)) if self._trend.up is up else (None, ())
        for advice in self._advice:
            if advice.up is up:
                return f"{advice.change} {advice.why}", self._winners
            if advice.up is None:
                return f"{advice.change} {advice.why}", ()
        if self._lost and not self._advice:
            return "next to nothing was learnt, with none of these rates", ()
        return None, ()

    def _grown(self, dimension: Choice | Range, up: bool) -> Choice | Range:
        if isinstance(dimension, Choice):
            return extended(dimension, up=up, limits=self._limits)
        factor = self._factor
        if dimension.log and factor != FAR:
            factor = min(max(2.0, (dimension.high / dimension.low) ** 0.5), factor)
        elif not dimension.log:
            factor = 2.0 if self._key in DOUBLED else 1.0
        return widened(dimension, up=up, limits=self._limits, factor=factor)

    def _followed(self, dimension: Range, up: bool, values: Sequence[Number]) -> Range:
        """The end that is left behind comes half way up to the nearest of these values."""
        inside = [value for value in values if dimension.low <= value <= dimension.high]
        if not inside:
            return dimension
        nearest = place(dimension, min(inside) if up else max(inside))
        end = place(dimension, dimension.low if up else dimension.high)
        return drawn_in(dimension, upper=not up, target=value_at(dimension, (end + nearest) / 2))

    def _closed_in(self, dimension: Range, ends: Sequence[bool], low: float, high: float) -> Range:
        """The range with its upper (True) or its lower end close to the best values."""
        kept = [value for value in (low, high, *self._winners) if dimension.low <= value <= dimension.high]
        if not kept:
            return dimension
        least, most = place(dimension, min(kept)), place(dimension, max(kept))
        margin = max(MARGIN * (most - least), 0.05 * width(dimension))
        for upper in ends:
            target = value_at(dimension, most + margin if upper else least - margin)
            closer = drawn_in(dimension, upper=upper, target=target)
            if width(closer) <= (1 - CLOSER) * width(dimension):
                dimension = closer
        return dimension


def _said(border: Border) -> str:
    return (
        f"{border.near} of the best {border.of} are within 5 % of the {border.end} end, "
        f"{number_text(float(f'{border.bound:.3g}'))}"
    )


# The budget


def _budget_changes(report: Report, spec: StudySpec) -> list[Change]:
    epochs = spec.budget.epochs
    for advice in report.diagnosis.advice:
        if _path(advice.key) == "budget.epochs" and advice.up is not None:
            after = min(2 * epochs, 1_000_000) if advice.up else max(1, -(-epochs // 2))
            if after != epochs:
                why = f"{advice.change} {advice.why}"
                return [Change(key="budget.epochs", before=epochs, after=after, why=why)]
    return []


def _path(key: str) -> str:
    """A dotted key; one of the space may be given without its section."""
    if key in SpaceSpec.model_fields:
        return f"space.{key}"
    return "budget.epochs" if key == "epochs" else key
