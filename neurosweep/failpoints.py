"""Places where a test makes the program fail. Nothing happens unless ``NEUROSWEEP_FAILPOINTS`` names the place.

``NEUROSWEEP_FAILPOINTS="after_commit@3=kill,training_trial_7=hang"``: the third time that the place ``after_commit`` is
reached, the process kills itself; each time that ``training_trial_7`` is, it stops answering. `tests/faults` uses them;
the names are where `reach` is called.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable

VARIABLE = "NEUROSWEEP_FAILPOINTS"


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _hang() -> None:
    while True:
        time.sleep(60)


def _freeze() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def _slow() -> None:
    time.sleep(1)


def _raise() -> None:
    raise RuntimeError("a failpoint")


def _memory() -> None:
    raise MemoryError("a failpoint")


def _print() -> None:
    line = "x" * (1 << 20)
    for _ in range(1 << 10):
        sys.stdout.write(line)


_ACTIONS: dict[str, Callable[[], None]] = {
    "kill": _kill,
    "exit": lambda: os._exit(1),
    "hang": _hang,
    "freeze": _freeze,
    "slow": _slow,
    "raise": _raise,
    "memory": _memory,
    "print": _print,
}


def _read(text: str) -> dict[str, tuple[int | None, Callable[[], None]]]:
    """For each place, at which visit something is done (None: at each), and what."""
    planned = {}
    for part in filter(None, text.split(",")):
        place, _, action = part.partition("=")
        name, _, visit = place.partition("@")
        planned[name] = (int(visit) if visit else None, _ACTIONS[action])
    return planned


_planned = _read(os.environ.get(VARIABLE, ""))
_visits: dict[str, int] = {}


def reach(place: str) -> None:
    """Does what the environment has planned for this place: nothing, outside of tests."""
    if not _planned or place not in _planned:
        return
    _visits[place] = _visits.get(place, 0) + 1
    visit, act = _planned[place]
    if visit in (None, _visits[place]):
        act()
