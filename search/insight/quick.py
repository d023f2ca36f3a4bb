"""The verdict in a few sentences, for `run` and `best`: what is known when a study ends, without extra runs."""

from __future__ import annotations

from search.insight.decision import decide
from search.insight.findings import Level, Levels
from search.insight.plain_words import VERDICTS, figure


def sentences(levels: Levels, *, metric: str, rows: int) -> list[str]:
    """What the figures say, in the order in which a practitioner reads them; `report` says more by the same rules.

    Args:
        levels: With the test split's.
        rows: Of the test split.
    """
    test = levels.test
    if test is None:
        raise ValueError("a study's last word needs its test split")
    said = [
        f"On {rows} rows that no trial has seen, the {metric} is {figure(test.value)}; with 95 % confidence it lies "
        f"between {figure(test.low)} and {figure(test.high)}.",
        _beside_chance(test, levels.chance.value),
    ]
    if levels.human is not None:
        said.append(_beside_a_person(test, levels.human))
    verdict, reasons = decide(levels, metric)
    words = VERDICTS[verdict]
    said.append(f"{words.title} ({words.term}). {reasons[-1]}")
    return said


def opened_before(trial: int | None) -> str:
    """What it does to the test figure that the split had been opened for another trial."""
    return (
        f"The test split had been opened before, for trial {trial}, and more trials were asked for with that result in "
        "sight: this one may be a little too good."
    )


def _beside_chance(test: Level, chance: float) -> str:
    if test.value >= chance:
        return f"That is no better than the best constant guess ({figure(chance)}) gets there."
    if chance <= test.high:
        return f"It can't be told from the best constant guess ({figure(chance)}) with this many test rows."
    if test.value > 0:
        return f"The best constant guess gets {figure(chance)}: {chance / test.value:.3g} times as much."
    return f"The best constant guess gets {figure(chance)}."


def _beside_a_person(test: Level, human: float) -> str:
    if test.high < human:
        return f"It is better than a person ({figure(human)})."
    if test.low <= human:
        return f"It can't be told from a person's {figure(human)} with this many test rows."
    return f"A person gets {figure(human)}: there is still something to win."
