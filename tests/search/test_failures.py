"""When so much fails that a study ends."""

from __future__ import annotations

import pytest

from search.failures import FailureBudget


def after(*failures: str | None) -> str | None:
    budget = FailureBudget()
    for failure in failures:
        budget.add(failure)
    return budget.spent()


def test_nine_in_a_row_are_not_enough_and_ten_are() -> None:
    good = [None] * 20
    assert after(*good, *["it broke"] * 9) is None
    assert after(*good, *["it broke"] * 10) == "10 trials in a row failed; 10 of 10 failed because it broke"


def test_half_of_the_first_twenty_end_a_study_and_half_of_the_next_do_not() -> None:
    mixed = [None, "it broke"] * 10
    spent = after(*mixed)
    assert spent is not None
    assert spent.startswith("10 of the first 20 trials failed")
    assert after(*[None] * 20, *mixed * 3) is None
    assert after(*mixed[:-1]) is None


def test_the_most_frequent_reason_is_told_with_its_count() -> None:
    spent = after(*["the loss was not finite"] * 7, *["out of memory"] * 3)
    assert spent == "10 trials in a row failed; 7 of 10 failed because the loss was not finite"


@pytest.mark.parametrize("count", [0, 1, 5])
def test_without_failures_a_study_goes_on(count: int) -> None:
    assert after(*[None] * count) is None
