"""A clock in place of the machine's, for the parts of the product that can't be handed one."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import tenacity.nap
import tenacity.wait

from storage import telling


def patch_time(
    monkeypatch: pytest.MonkeyPatch,
    seconds: Callable[[], float],
    sleep: Callable[[float], None] = lambda seconds: None,
    seed: int = 0,
) -> None:
    """
    Args:
        seconds: The moment; `time.monotonic` of the publisher.
        sleep: What the pauses between two attempts at a transaction do.
        seed: Of the pauses' lengths.
    """
    monkeypatch.setattr(telling, "time", SimpleNamespace(monotonic=seconds))
    monkeypatch.setattr(tenacity.nap, "time", SimpleNamespace(sleep=sleep, monotonic=time.monotonic))
    monkeypatch.setattr(tenacity, "time", SimpleNamespace(monotonic=seconds))
    monkeypatch.setattr(tenacity.wait, "random", random.Random(seed))
