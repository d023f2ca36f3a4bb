"""Time as the search sees it, so that tests can hand in a clock of their own."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime


@dataclass(frozen=True, kw_only=True)
class Clock:
    """
    Attributes:
        monotonic: Seconds since some moment; never goes back.
        now: The moment, aware, in UTC: for records.
        sleep: Waits so many seconds.
    """

    monotonic: Callable[[], float] = time.monotonic
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    sleep: Callable[[float], None] = time.sleep


CLOCK = Clock()
"""The machine's."""
