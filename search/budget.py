"""What ends a study before its trials are spent: its target, its minutes, or that more trials are not worth it."""

from __future__ import annotations

from enum import StrEnum

from search.clock import CLOCK, Clock
from search.no_gain import Noise, no_gain
from search.spec import BudgetSpec
from search.study import Proposals


class StoppedFor(StrEnum):
    """Why no more trials began."""

    TARGET = "target"
    MINUTES = "minutes"
    NO_GAIN = "no_gain"


class Budget:
    """
    Args:
        trials: How many the study is to have.
        noise: Of the metric.
        started: When the study was begun, by `clock`, had all claims followed on one another.

    Attributes:
        stopped_for: Why trials that were to come have not begun; None while none was kept back.
    """

    def __init__(
        self,
        spec: BudgetSpec,
        *,
        trials: int,
        proposals: Proposals,
        noise: Noise,
        started: float,
        clock: Clock = CLOCK,
    ) -> None:
        self._spec = spec
        self._trials = trials
        self._proposals = proposals
        self._noise = noise
        self._started = started
        self._clock = clock
        self._considered = 0
        self._worthless = False
        self.stopped_for: StoppedFor | None = None

    def spent(self, asked: int) -> bool:
        """Whether no further trial begins; to be asked when one is to come. When the time is up, one trial there is
        nevertheless, however short the time.

        Args:
            asked: Trials that have begun.
        """
        if self.target_met():
            self.stopped_for = StoppedFor.TARGET
        elif self.time_is_up() and asked > 0:
            self.stopped_for = StoppedFor.MINUTES
        elif self.nothing_to_gain():
            self.stopped_for = StoppedFor.NO_GAIN
        else:
            return False
        return True

    def target_met(self) -> bool:
        best = self._proposals.best()
        return self._spec.target is not None and best is not None and best[1] <= self._spec.target

    def time_is_up(self) -> bool:
        minutes = self._spec.minutes
        return minutes is not None and self._clock.monotonic() - self._started >= 60 * minutes

    def nothing_to_gain(self) -> bool:
        """Whether more trials are not expected to gain more than the noise, where that is to end the study. Once they
        are not, that stays: what is under way may end well, but nothing is begun for it."""
        complete = self._proposals.complete
        if self._spec.stop_when is None or self._worthless or len(complete) == self._considered:
            return self._worthless
        self._considered = len(complete)
        values = [complete[number] for number in sorted(complete)]
        # Of the trials to come, as many are trained to their end as of those before.
        left = (self._trials - self._proposals.ended) * len(values) / self._proposals.ended
        self._worthless = no_gain(values, left, self._noise.at(min(values)))
        return self._worthless
