"""The verdict in a few sentences, as `run` and `best` print it."""

from __future__ import annotations

from typing import Any

import pytest

from search.insight.decision import decide
from search.insight.findings import Level, Levels
from search.insight.plain_words import VERDICTS
from search.insight.quick import opened_before, sentences


def levels(**changes: Any) -> Levels:
    """Those of an ordinary result, with some changed; a bare number has no interval to speak of."""
    usual: dict[str, Any] = {
        "chance": 0.9,
        "simple": None,
        "simple_models": {},
        "human": None,
        "target": None,
        "train": Level(value=0.018, low=0.012, high=0.027),
        "validation": Level(value=0.02, low=0.01, high=0.04),
        "test": Level(value=0.02, low=0.01, high=0.04),
        "split": "test",
    }
    given = {**usual, **changes}
    for name in ("chance", "train", "validation", "test"):
        if isinstance(given[name], int | float):
            given[name] = Level(value=given[name], low=given[name], high=given[name])
    return Levels(**given)


def said(metric: str = "error", rows: int = 300, **changes: Any) -> str:
    return " ".join(sentences(levels(**changes), metric=metric, rows=rows))


def test_the_first_sentence_has_the_metric_the_rows_and_the_interval() -> None:
    words = said("mae", 67, chance=65, test=Level(value=43.21987, low=38.5, high=48.25))

    assert "On 67 rows" in words
    assert "the mae is 43.22" in words
    assert "between 38.5 and 48.25" in words


def test_an_ordinary_result_is_compared_with_chance_and_has_its_verdict() -> None:
    words = sentences(levels(), metric="error", rows=300)

    assert words[1] == "The best constant guess gets 0.9: 45 times as much."
    verdict, reasons = decide(levels(), "error")
    assert words[2:] == [f"{VERDICTS[verdict].title} ({VERDICTS[verdict].term}). {reasons[-1]}"]


@pytest.mark.parametrize(("test", "bounds"), [(0.9, (0.87, 0.93)), (0.91, (0.85, 0.95)), (0.99, (0.95, 1.0))])
def test_a_result_no_better_than_chance_has_learnt_nothing(test: float, bounds: tuple[float, float]) -> None:
    level = Level(value=test, low=bounds[0], high=bounds[1])
    words = said(train=level, validation=level, test=level)

    assert "no better than the best constant guess (0.9)" in words
    assert "not learning" in words
    assert "times as much" not in words


def test_a_result_that_looks_better_than_chance_by_luck_alone_may_be_so_is_not_called_unlearnt() -> None:
    """No error on 5 rows: Wilson's interval ends at 0.4345, and a coin gets 0.4 wrong."""
    words = said(rows=5, chance=0.4, train=0, validation=0, test=Level(value=0, low=0, high=0.4345))

    assert "can't be told from the best constant guess (0.4) with this many test rows" in words
    assert "not learning" not in words


def test_a_result_without_an_error_is_no_division_by_zero() -> None:
    assert "The best constant guess gets 0.9." in said(train=0, validation=0, test=Level(value=0, low=0, high=0.013))


@pytest.mark.parametrize(
    ("human", "told"),
    [
        (0.05, "better than a person (0.05)"),
        (0.04, "can't be told from a person's 0.04"),
        (0.01, "can't be told from a person's 0.01"),
        (0.005, "A person gets 0.005: there is still something to win"),
        (0.0, "A person gets 0: there is still something to win"),
    ],
)
def test_a_person_is_better_or_worse_only_outside_of_the_interval(human: float, told: str) -> None:
    words = said(human=human)

    assert told in words
    assert sum(each in words for each in ("better than a person", "can't be told from a person", "A person gets")) == 1


def test_the_verdict_is_that_of_the_decision_table() -> None:
    assert "(underfitting)" in said(train=0.3, validation=0.3, test=0.3, human=0.01)
    assert "(overfitting)" in said(train=0.01, validation=0.2, test=0.21)
    assert "(over-searched)" in said(train=0.02, validation=0.02, test=0.2)


def test_a_regression_is_described_in_the_targets_units() -> None:
    words = said("mse", 67, chance=5200, train=2500, validation=2900, test=Level(value=2843.567, low=2300, high=3500))

    assert "the mse is 2844" in words
    assert "The best constant guess gets 5200: 1.83 times as much." in words


def test_an_earlier_opening_is_said_with_what_it_does_to_the_figure() -> None:
    assert "opened before, for trial 57" in opened_before(57)
    assert "too good" in opened_before(57)
