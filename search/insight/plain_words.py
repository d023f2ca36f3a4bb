"""What a verdict means, for someone who is new to the field. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass

from search.insight.findings import Report, Verdict

_COUNTED = ("error", "balanced_error")
"""Metrics that are shares of wrong answers."""


@dataclass(frozen=True, kw_only=True)
class Words:
    """A verdict in words.

    Attributes:
        title: A few words, without a full stop.
        meaning: One or two plain sentences.
        term: The glossary's entry that explains it.
        tone: The colour of the page's palette in which it is shown.
    """

    title: str
    meaning: str
    term: str
    tone: str


VERDICTS = {
    Verdict.NOT_LEARNING: Words(
        title="It is not learning",
        meaning="Even on the rows that it was trained on, the network is hardly better than somebody who always gives "
        "the same answer. Something basic is in its way, so look at that before anything else.",
        term="not learning",
        tone="red",
    ),
    Verdict.UNDERFITTING: Words(
        title="It could learn more",
        meaning="Already on the rows that it was trained on, the network makes more mistakes than it should. It is too "
        "small, or was trained too briefly or with the wrong settings: more data would not help yet.",
        term="underfitting",
        tone="orange",
    ),
    Verdict.OVERFITTING: Words(
        title="It memorises",
        meaning="The network is good on the rows that it was trained on, and clearly worse on rows that it has not "
        "seen. It has learnt some of them by heart instead of the rule behind them.",
        term="overfitting",
        tone="orange",
    ),
    Verdict.OVER_SEARCHED: Words(
        title="The search was lucky",
        meaning="So many networks were compared on the same validation rows that the winner fits those rows better "
        "than any others. On fresh rows it does worse: believe the test figure, not the validation figure.",
        term="over-searched",
        tone="pink",
    ),
    Verdict.NOISE_BOUND: Words(
        title="The data can't tell more",
        meaning="What gaps are left are smaller than what chance makes of them. With splits of this size nobody can "
        "say whether another network is really better.",
        term="noise-bound",
        tone="blue",
    ),
    Verdict.DONE: Words(
        title="Nothing holds it back",
        meaning="The network is where it was wanted, or what gaps are left are too small to be worth acting on.",
        term="done",
        tone="green",
    ),
}


def in_plain_words(report: Report) -> str:
    """What the winner can do, without the field's words."""
    levels = report.levels
    level = levels.test or levels.validation
    rows = "nobody had looked at before" if levels.test else "were not learnt from"
    chance = levels.chance.value
    if report.metric in _COUNTED:
        return (
            f"On rows that {rows}, it is wrong {_one_in(level.value)} (somewhere between {_percent(level.low)} and "
            f"{_percent(level.high)}); always giving the same answer would be wrong {_one_in(chance)}."
        )
    return (
        f"On rows that {rows}, its {name_of(report.metric)} is {figure(level.value)} (somewhere between "
        f"{figure(level.low)} and {figure(level.high)}); always giving the same answer would get {figure(chance)}. "
        "Smaller is better."
    )


_NAMES = {
    "balanced_error": "balanced error",
    "log_loss": "log loss",
    "mse": "mean squared error",
    "mae": "mean absolute error",
}


def name_of(metric: str) -> str:
    """A metric's name in words."""
    return _NAMES.get(metric, metric)


def _one_in(share: float) -> str:
    if share <= 0:
        return "not once"
    if share < 0.095:
        return f"about once in {round(1 / share):,}"
    return f"about {round(10 * share)} times in 10" if share < 0.95 else "nearly always"


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %" if share < 0.995 else "100 %"


def figure(value: float) -> str:
    """Four digits that matter."""
    return f"{value:.4g}"


def unfinished(report: Report) -> str | None:
    """What is to be said of a study that has not come to its end; None where it has."""
    ended = {
        "queued": "The study waits in the queue: this is what its trials have told so far.",
        "running": "The study is still running: this is what it has told so far, and it may change.",
        "stopped": "The study was interrupted: this is what it had told by then. `neurosweep resume` goes on with it.",
        "failed": "The study failed: this is what it had told by then.",
        "cancelled": "The study was cancelled: this is what it had told by then.",
    }
    return ended.get(report.state)
