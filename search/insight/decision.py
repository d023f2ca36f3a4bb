"""The verdict: one written decision table over the levels. docs/method.md argues its order and its thresholds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from search.insight.findings import Level, Levels, Probe, Verdict
from search.insight.gains import Gain
from search.insight.levels import difference
from search.insight.plain_words import figure

LEARNT = 0.1
"""A network whose training metric is less than this share below chance has not learnt."""

MARGIN = 0.05
"""Without a goal, a gap under this share of chance is too small to act on."""

PROBED = (Probe.NEURONS, Probe.EPOCHS)


@dataclass(frozen=True, kw_only=True)
class Gap:
    """How far one level lies above another, and what it means if that is much.

    Attributes:
        words: Such as ``validation over train``.
    """

    verdict: Verdict
    words: str
    size: Level

    @property
    def real(self) -> bool:
        """Whether its interval leaves nought out."""
        return self.size.low > 0


def decide(levels: Levels, metric: str, measured: Sequence[Gain] = ()) -> tuple[Verdict, tuple[str, ...]]:
    """The verdict and the numbers that led to it, for any finite levels.

    The table, from top to bottom; the first line that holds decides. The *goal* is the study's target, or else a
    person's level; the winner is *judged* on the test split, or on the validation split while that is shut.

    1. not learning: the training metric can't be told from chance, or is less than `LEARNT` of chance below it.
    2. With a goal:
       a. done: the judged metric is at or under it.
       b. noise bound: the goal lies in the judged metric's interval.
       c. else the largest gap of train over goal, validation over train and test over validation, which add up to what
          is missing: underfitting, overfitting or over-searched; of gaps that are real the largest of those.
    3. Without one:
       a. the largest gap that is real and at least `MARGIN` of chance. Underfitting is what more neurons or epochs were
          measured to win, or train over the simple models.
       b. noise bound: a gap may be as large as that, as far as its interval tells.
       c. done.

    Nothing changes where all values are multiplied by the same number.

    Args:
        measured: What extra runs have shown, as far as there are any.
    """
    goal = levels.target if levels.target is not None else levels.human
    reasons = [_learnt(levels, metric)]
    if _near_chance(levels):
        return Verdict.NOT_LEARNING, tuple(reasons)
    gaps = _gaps(levels, goal, measured)
    if goal is None:
        verdict, why = _without_goal(levels, gaps, measured)
    else:
        verdict, why = _with_goal(levels, goal, gaps)
    return verdict, (*reasons, *(_said(gap) for gap in gaps), *why)


def judged(levels: Levels) -> tuple[str, Level]:
    """The split that the winner is judged on, and its level there."""
    return ("validation", levels.validation) if levels.test is None else ("test", levels.test)


def goal_words(levels: Levels) -> str:
    """``the target, 0.02``, or ``a person's level, 0.01``."""
    if levels.target is not None:
        return f"the target, {figure(levels.target)}"
    return f"a person's level, {figure(levels.human or 0.0)}"


def margin(levels: Levels) -> float:
    """The smallest gap that is acted on without a goal."""
    return MARGIN * levels.chance.value


def bounds(level: Level) -> str:
    """``0.02 (0.01 to 0.04)``."""
    return f"{figure(level.value)} ({figure(level.low)} to {figure(level.high)})"


def _near_chance(levels: Levels) -> bool:
    chance = levels.chance.value
    if chance <= 0:
        return levels.train.value > 0  # a constant guess is perfect: whoever is not has learnt something else
    return levels.train.high >= chance or levels.train.value > (1 - LEARNT) * chance


def _learnt(levels: Levels, metric: str) -> str:
    return (
        f"The training {metric} is {bounds(levels.train)}; the best constant guess, measured on the {levels.split} "
        f"split, gets {bounds(levels.chance)}."
    )


def _gaps(levels: Levels, goal: float | None, measured: Sequence[Gain]) -> list[Gap]:
    """All gaps, in the order in which a practitioner looks at them."""
    gaps = []
    if goal is not None:
        exact = Level(value=goal, low=goal, high=goal)
        missed = difference(levels.train, exact)
        gaps.append(Gap(verdict=Verdict.UNDERFITTING, words=f"train over {goal_words(levels)}", size=missed))
    else:
        gaps += [
            Gap(
                verdict=Verdict.UNDERFITTING,
                words=f"what {gain.words} win on the validation split",
                size=gain.validation,
            )
            for gain in measured
            if gain.train > 0
        ]
        if levels.simple is not None:
            above = difference(levels.train, levels.simple)
            gaps.append(Gap(verdict=Verdict.UNDERFITTING, words="train over the best simple model", size=above))
    learnt = difference(levels.validation, levels.train)
    gaps.append(Gap(verdict=Verdict.OVERFITTING, words="validation over train", size=learnt))
    if levels.test is not None:
        searched = difference(levels.test, levels.validation)
        gaps.append(Gap(verdict=Verdict.OVER_SEARCHED, words="test over validation", size=searched))
    return gaps


def _with_goal(levels: Levels, goal: float, gaps: Sequence[Gap]) -> tuple[Verdict, list[str]]:
    split, level = judged(levels)
    said = f"The {split} level is {bounds(level)}; {goal_words(levels)},"
    if level.value <= goal:
        sure = "for sure" if level.high <= goal else "though its interval reaches above"
        return Verdict.DONE, [f"{said} is reached, {sure}."]
    if level.low <= goal:
        return Verdict.NOISE_BOUND, [f"{said} lies within that interval: these rows can't tell them apart."]
    real = [gap for gap in gaps if gap.real]
    worst = max(real or gaps, key=lambda gap: gap.size.value)
    how = "the largest gap" if real else "the largest gap, though none is larger than its interval"
    return worst.verdict, [f"{said} is missed. Of what is missing, {worst.words} is {how}."]


def _without_goal(levels: Levels, gaps: Sequence[Gap], measured: Sequence[Gain]) -> tuple[Verdict, list[str]]:
    least = margin(levels)
    said = f"{figure(least)}, a twentieth of chance (the study names neither a target nor a person's level)"
    large = [gap for gap in gaps if gap.real and gap.size.value >= least]
    if large:
        worst = max(large, key=lambda gap: gap.size.value)
        return worst.verdict, [f"The largest gap is {worst.words}; it is more than {said}."]
    open_ = [gap.words for gap in gaps if gap.size.high >= least]
    if open_:
        return Verdict.NOISE_BOUND, [
            f"No gap is both larger than its interval and at least {said}. But as far as their intervals tell, some "
            f"may be that large: {'; '.join(open_)}."
        ]
    return Verdict.DONE, [f"Every gap is under {said}.{_tried(measured)}"]


def _tried(measured: Sequence[Gain]) -> str:
    """What was measured to be of no use, and what was not measured."""
    idle = [gain.words for gain in measured if not gain.real]
    missing = [str(probe) for probe in PROBED if not any(gain.probe is probe for gain in measured)]
    said = f" No better for {' or '.join(idle)}, as far as the rows can tell." if idle else ""
    return said + (f" Whether more {' or '.join(missing)} would help has not been measured." if missing else "")


def _said(gap: Gap) -> str:
    unsure = gap.size.low <= 0 <= gap.size.high
    return f"{gap.words[0].upper()}{gap.words[1:]}: {bounds(gap.size)}{', which may be chance' if unsure else ''}."
