"""Waiting for a database that does not answer and for a disk that is full: both pass, and a study outlives them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception_type, wait_exponential

from neurosweep.errors import DiskFullError, UnreachableError
from search.clock import CLOCK, Clock

LONGEST_WAIT = 5.0
"""Seconds between two attempts, at most: the store itself has tried for some seconds by then."""

Answer = TypeVar("Answer")


class Patience:
    """Runs calls of the store until they get through.

    Args:
        stopped: Whether the user wants to end: then the error is raised instead of waited for.
        on_wait: Called before each wait with what is waited for, in a line.
    """

    def __init__(self, stopped: Callable[[], bool], on_wait: Callable[[str], None], clock: Clock = CLOCK) -> None:
        self._stopped = stopped
        self._on_wait = on_wait
        self._clock = clock

    def __call__(self, call: Callable[[], Answer]) -> Answer:
        """
        Raises:
            UnreachableError, DiskFullError: The user did not want to wait any longer.
        """
        return Retrying(
            retry=retry_if_exception_type((UnreachableError, DiskFullError)),
            stop=lambda state: self._stopped(),
            wait=wait_exponential(multiplier=0.5, max=LONGEST_WAIT),
            sleep=self._sleep,
            before_sleep=self._tell,
            reraise=True,
        )(call)

    def _tell(self, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome is not None else None
        self._on_wait(f"waiting: {error}")

    def _sleep(self, seconds: float) -> None:
        end = self._clock.monotonic() + seconds
        while (left := end - self._clock.monotonic()) > 0 and not self._stopped():
            self._clock.sleep(min(left, 0.2))
