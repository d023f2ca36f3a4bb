"""What to change next: concrete, from this study's own trials, and from extra runs where they have shown it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from scipy import stats

from search.dimensions import Choice, Fixed, Range, listed
from search.insight.curves import SLOW, Curve, curve_of
from search.insight.data_checks import rows_that_tell
from search.insight.decision import judged, margin
from search.insight.findings import Advice, DataCurve, DataFindings, Levels, Probe, SeedNoise, SpaceFindings, Verdict
from search.insight.gains import Gain
from search.insight.plain_words import figure
from search.spec import StudySpec
from storage.records import EpochRow, TrialRecord, TrialState

LEAST = 10
"""Complete trials under which a correlation among them says nothing."""

SURE = 0.05
DIVERGED = 0.1
"""So large a share of the trials whose loss was not finite is worth a smaller learning rate."""

NOT_FINITE = "not finite"
"""What the reason of a trial says whose loss was not."""


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """All that advice is drawn from.

    Attributes:
        epochs: Of the winner, at the least.
        validation_rows: Of the validation split.
    """

    spec: StudySpec
    metric: str
    levels: Levels
    winner: TrialRecord
    trials: Sequence[TrialRecord]
    epochs: Sequence[EpochRow]
    gains: Sequence[Gain]
    seeds: SeedNoise | None
    data_curve: DataCurve | None
    data: DataFindings
    space: SpaceFindings
    validation_rows: int

    @property
    def curve(self) -> Curve | None:
        """The winner's."""
        return curve_of(self.epochs, self.winner.number)

    @property
    def complete(self) -> list[TrialRecord]:
        return [trial for trial in self.trials if trial.state is TrialState.COMPLETE and trial.validation is not None]


Rule = Callable[[Evidence], Iterator[Advice]]


def advise(verdict: Verdict, evidence: Evidence) -> tuple[Advice, ...]:
    """What follows from a verdict, the most promising first; what was measured before what was not."""
    rules: tuple[Rule, ...]
    match verdict:
        case Verdict.NOT_LEARNING:
            rules = (_learning_rate, _epochs, _neurons, _layers, _clean_rows, _borders)
        case Verdict.UNDERFITTING:
            rules = (_neurons, _epochs, _learning_rate, _layers, _less_dropout, _borders)
        case Verdict.OVERFITTING:
            rules = (_rows, _clean_rows, _regularise, _validated_gains, _smaller, _borders)
        case Verdict.OVER_SEARCHED:
            rules = (_validation_rows, _fewer_trials, _seeds)
        case Verdict.NOISE_BOUND:
            rules = (_validation_rows, _validated_gains, _rows, _clean_rows, _seeds)
        case Verdict.DONE:
            rules = (_validated_gains, _clean_rows, _seeds)
    found: dict[str, Advice] = {}
    for rule in rules:
        for advice in rule(evidence):
            # One piece of advice a key, lest they contradict each other; rows can be too few and wrong at once.
            found.setdefault(advice.change if advice.key == "data" else advice.key, advice)
    return tuple(sorted(found.values(), key=lambda advice: not advice.measured))


def _learning_rate(evidence: Evidence) -> Iterator[Advice]:
    """Too high where losses diverged or jumped, too low where the loss still fell steadily and had not come far."""
    key, rate, curve = "space.learning_rate", float(evidence.winner.settings["learning_rate"]), evidence.curve
    ended = [trial for trial in evidence.trials if trial.state is not TrialState.RUNNING]
    diverged = [trial for trial in ended if NOT_FINITE in (trial.error or "")]
    if len(diverged) >= max(3, DIVERGED * len(ended)):
        lowest = min(float(trial.settings["learning_rate"]) for trial in diverged)
        yield Advice(
            key=key,
            change=f"Lower learning_rate: try {figure(lowest / 10)} to {figure(lowest)}.",
            why=f"In {len(diverged)} of {len(ended)} trials the loss diverged, with learning rates from "
            f"{figure(lowest)} on.",
            up=False,
        )
    elif curve is not None and curve.jumps and curve.kept > SLOW:
        yield Advice(
            key=key,
            change=f"Lower learning_rate: try {figure(rate / 1000)} to {figure(rate / 10)}.",
            why=f"The winner's training loss jumped up {curve.jumps} times in {curve.epochs} epochs, and ended at "
            f"{curve.kept:.2g} times what it began with, at a learning rate of {figure(rate)}.",
            up=False,
        )
    elif curve is not None and curve.kept > SLOW and _steady(curve):
        yield Advice(
            key=key,
            change=f"Raise learning_rate: try {figure(rate * 10)} to {figure(rate * 1000)}.",
            why=f"The winner's training loss still fell steadily at the last of {curve.epochs} epochs, and was only at "
            f"{curve.kept:.2g} times what it began with, at a learning rate of {figure(rate)}.",
            up=True,
        )


def _steady(curve: Curve) -> bool:
    return curve.falling or (curve.downhill and curve.kept > 0.9)


def _epochs(evidence: Evidence) -> Iterator[Advice]:
    yield from _gained(evidence, Probe.EPOCHS)
    curve, most = evidence.curve, evidence.spec.budget.epochs
    idle = any(gain.probe is Probe.EPOCHS and gain.validation.value <= 0 for gain in evidence.gains)
    if curve is not None and not idle and _steady(curve) and curve.best_last:
        yield Advice(
            key="budget.epochs",
            change=f"Train for longer: {2 * most} epochs instead of {most}.",
            why=f"The winner was at its best at its last epoch, and its training loss fell by {curve.fall:.0%} over "
            "the last quarter of them.",
            up=True,
        )


def _neurons(evidence: Evidence) -> Iterator[Advice]:
    yield from _gained(evidence, Probe.NEURONS)
    if any(gain.probe is Probe.NEURONS for gain in evidence.gains):
        return
    border = next((each for each in evidence.space.borders if each.key in ("neurons", "filters")), None)
    if border is not None and border.end == "upper":
        return  # the border says so
    yield Advice(
        key="space.neurons",
        change=f"Allow more neurons: up to {2 * max(_ends(evidence.spec, 'neurons'))} a layer.",
        why=f"The training {evidence.metric} itself is {figure(evidence.levels.train.value)}, with "
        f"{evidence.winner.weights:,} weights.",
        up=True,
    )


def _layers(evidence: Evidence) -> Iterator[Advice]:
    most = int(max(_ends(evidence.spec, "layers")))
    own = len(evidence.winner.settings["neurons"])
    if own >= most:
        yield Advice(
            key="space.layers",
            change=f"Allow more layers: up to {most + 2}.",
            why=f"The winner has {own}, as many as the space allows, and its training {evidence.metric} is "
            f"{figure(evidence.levels.train.value)}.",
            up=True,
        )


def _less_dropout(evidence: Evidence) -> Iterator[Advice]:
    dropout = float(evidence.winner.settings["dropout"])
    if dropout >= 0.2:
        yield Advice(
            key="space.dropout",
            change="Allow less dropout, down to 0.",
            why=f"The winner drops {dropout:.0%} of its neurons in each step, and does not even fit its training rows.",
            up=False,
        )


def _validated_gains(evidence: Evidence) -> Iterator[Advice]:
    yield from _gained(evidence, Probe.NEURONS)
    yield from _gained(evidence, Probe.EPOCHS)


def _gained(evidence: Evidence, probe: Probe) -> Iterator[Advice]:
    for gain in evidence.gains:
        if gain.probe is not probe or not gain.real:
            continue
        size = gain.validation
        why = (
            f"The winner with {gain.words} gets {figure(size.value)} less on the validation split ({figure(size.low)} "
            f"to {figure(size.high)})."
        )
        if probe is Probe.EPOCHS:
            most = evidence.spec.budget.epochs
            change = f"Train for longer: {gain.amount * most:.0f} epochs instead of {most}."
            yield Advice(key="budget.epochs", change=change, why=why, measured=True, up=True)
        else:
            widest = gain.amount * max(_ends(evidence.spec, "neurons"))
            change = f"Allow more neurons: up to {widest:.0f} a layer."
            yield Advice(key="space.neurons", change=change, why=why, measured=True, up=True)


def _rows(evidence: Evidence) -> Iterator[Advice]:
    """More rows: what the data curve promises."""
    curve = evidence.data_curve
    if curve is None:
        if judged(evidence.levels)[1].value > 0 and evidence.levels.validation.value > evidence.levels.train.value:
            gap = evidence.levels.validation.value - evidence.levels.train.value
            why = f"On rows that it has not seen the winner is worse by {figure(gap)}."
            yield Advice(key="data", change="Get more rows.", why=why, up=True)
        return
    if curve.a is None:
        return
    fell = (
        f"From {curve.rows[0]:,} to {curve.rows[-1]:,} train rows the validation {evidence.metric} falls from "
        f"{figure(curve.values[0])} to {figure(curve.values[-1])}."
    )
    needed = curve.rows_for_target
    change = "Get more rows."
    if needed is not None:
        change = (
            f"Get more rows: about {needed.value:,.0f} ({needed.low:,.0f} to {needed.high:,.0f}) train rows would do."
        )
    yield Advice(key="data", change=change, why=fell, measured=True, up=True)


def _clean_rows(evidence: Evidence) -> Iterator[Advice]:
    doubts = [warning for warning in evidence.data.warnings if "may be wrong" in warning]
    if doubts:
        rows = ", ".join(str(each.row) for each in evidence.data.suspects[:5])
        yield Advice(key="data", change=f"Clean the rows: look at {rows} first.", why=doubts[0])


def _regularise(evidence: Evidence) -> Iterator[Advice]:
    """Dropout and weight decay, by what they did to the gap between validation and train in this study's trials."""
    for key in ("dropout", "weight_decay"):
        dimension = getattr(evidence.spec.space, key)
        if isinstance(dimension, Fixed):
            most = "0.5" if key == "dropout" else "0.1"
            yield Advice(
                key=f"space.{key}",
                change=f"Search {key} up to {most}.",
                why=f"It is fixed at {dimension.value}, and the winner has learnt its training rows by heart.",
                up=True,
            )
            continue
        known = [trial for trial in evidence.complete if trial.train is not None]
        values = [float(trial.settings[key]) for trial in known]
        gaps = [float(trial.validation or 0.0) - float(trial.train or 0.0) for trial in known]
        if len(known) < LEAST or len(set(values)) < 2 or len(set(gaps)) < 2:
            continue
        tied = stats.spearmanr(values, gaps)
        if tied.statistic < 0 and tied.pvalue < SURE:
            yield Advice(
                key=f"space.{key}",
                change=f"Allow more {key.replace('_', ' ')}.",
                why=f"The more of it a trial had, the smaller was its gap between validation and train (rank "
                f"correlation {tied.statistic:.2f} over {len(known)} trials).",
                up=True,
            )


def _smaller(evidence: Evidence) -> Iterator[Advice]:
    """Fewer neurons, where smaller networks did as well or better."""
    seeds, winner = evidence.seeds, evidence.winner
    if seeds is not None and seeds.simplest != winner.number:
        simple = next(each for each in seeds.contenders if each.trial == seeds.simplest)
        if simple.weights < winner.weights:
            yield Advice(
                key="space.neurons",
                change=f"Try fewer neurons: trial {simple.trial} has {simple.weights:,} weights.",
                why=f"Over {len(simple.values)} seeds it gets {figure(simple.mean)} and can't be told from the best, "
                f"with {winner.weights:,} weights in the winner.",
                measured=True,
                up=False,
            )
            return
    known = evidence.complete
    if len(known) < LEAST or len({trial.weights for trial in known}) < 2:
        return
    tied = stats.spearmanr([trial.weights for trial in known], [trial.validation for trial in known])
    if tied.statistic > 0 and tied.pvalue < SURE:
        yield Advice(
            key="space.neurons",
            change="Try fewer neurons.",
            why=f"The more weights a trial had, the worse it was on the validation split (rank correlation "
            f"{tied.statistic:.2f} over {len(known)} trials).",
            up=False,
        )


def _borders(evidence: Evidence) -> Iterator[Advice]:
    """Ends of the space that the best trials press against, and that can be moved."""
    for border in evidence.space.borders:
        if border.movable:
            up = border.end == "upper"
            yield Advice(
                key=f"space.{border.key}",
                change=f"{'Raise the upper' if up else 'Lower the lower'} end of {border.key}, now {border.bound:g}.",
                why=f"{border.near} of the best {border.of} trials are within 5 % of it.",
                up=up,
            )


def _validation_rows(evidence: Evidence) -> Iterator[Advice]:
    """A larger validation split, with the size that would do."""
    levels, rows = evidence.levels, evidence.validation_rows
    goal = levels.target if levels.target is not None else levels.human
    apart = margin(levels) if goal is None else abs(judged(levels)[1].value - goal)
    half = (levels.validation.high - levels.validation.low) / 2
    if apart <= 0 or half <= apart:
        return
    yield Advice(
        key="data.split.validation",
        change=f"Give the validation split more rows: about {rows_that_tell(half, rows, apart):,} instead of {rows:,}.",
        why=f"It tells the {evidence.metric} to within {figure(half)}; {figure(apart)} is what it should tell.",
        up=True,
    )


def _fewer_trials(evidence: Evidence) -> Iterator[Advice]:
    test, validation = evidence.levels.test, evidence.levels.validation
    if test is None:
        return
    yield Advice(
        key="budget.trials",
        change="Compare fewer trials on the same rows, or let the search end with budget.stop_when: no_gain.",
        why=f"{len(evidence.trials):,} trials were compared on {evidence.validation_rows:,} rows; the best one's "
        f"{figure(validation.value)} became {figure(test.value)} on new ones.",
        up=False,
    )


def _seeds(evidence: Evidence) -> Iterator[Advice]:
    """A simpler network that can't be told from the winner."""
    seeds = evidence.seeds
    if seeds is not None and seeds.simplest != evidence.winner.number:
        tied = sum(each.tied for each in seeds.contenders)
        yield Advice(
            key="champion",
            change=f"Write champion: simplest, which takes trial {seeds.simplest}.",
            why=f"{tied} of the {len(seeds.contenders)} best can't be told from each other over other seeds; it has "
            "the fewest weights.",
            measured=True,
        )


def _ends(spec: StudySpec, key: str) -> tuple[float, ...]:
    dimension: Fixed | Choice | Range = getattr(spec.space, key)
    if isinstance(dimension, Range):
        return dimension.low, dimension.high
    return tuple(float(value) for value in listed(dimension) if not isinstance(value, str) and math.isfinite(value))
