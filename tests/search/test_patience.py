"""Waiting for a database and a disk, on a clock that a test moves."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from neurosweep.errors import BadInputError, DiskFullError, UnreachableError
from search.clock import Clock
from search.patience import LONGEST_WAIT, Patience


class Time:
    """A clock that moves when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0

    def clock(self) -> Clock:
        return Clock(monotonic=lambda: self.now, now=lambda: datetime(2026, 1, 1, tzinfo=UTC), sleep=self._sleep)

    def _sleep(self, seconds: float) -> None:
        self.now += seconds


class Failing:
    """A call that fails so often."""

    def __init__(self, times: int, error: Exception) -> None:
        self.left, self.error = times, error

    def __call__(self) -> str:
        if self.left:
            self.left -= 1
            raise self.error
        return "done"


@pytest.mark.parametrize("error", [UnreachableError("it does not answer"), DiskFullError("it is full")])
def test_what_passes_is_waited_for_and_told(error: Exception) -> None:
    time, told = Time(), list[str]()
    patience = Patience(lambda: False, told.append, time.clock())
    assert patience(Failing(20, error)) == "done"
    assert told == [f"waiting: {error}"] * 20
    assert 10 * LONGEST_WAIT < time.now < 20 * LONGEST_WAIT + 1


def test_what_does_not_pass_is_raised_at_once() -> None:
    patience = Patience(lambda: False, lambda why: None, Time().clock())
    with pytest.raises(BadInputError):
        patience(Failing(1, BadInputError("no")))


def test_a_user_who_wants_to_stop_is_not_kept_waiting() -> None:
    time = Time()
    patience = Patience(lambda: time.now > 7, lambda why: None, time.clock())
    with pytest.raises(UnreachableError):
        patience(Failing(1000, UnreachableError("it does not answer")))
    assert time.now < 8
