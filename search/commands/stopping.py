"""Control-C, SIGTERM and a closed terminal: the first signal asks the work to stop, the second one ends at once."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator
from types import FrameType

from search.commands.screen import Screen, open_screen
from search.stop import Stop

INTERRUPTED = 130

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
asked_for = False
"""Whether a signal has asked this process to stop."""

_SHOW_CURSOR = "\x1b[?25h"


@contextlib.contextmanager
def heeding_signals() -> Iterator[tuple[Screen, Stop]]:
    """The screen is up, and a signal asks the work to stop: entered before a study is put into the queue, so that none
    is left there without a word. What libraries print goes to stderr: stdout is for the result alone."""
    screen = open_screen()
    with stop_on_signals(screen.stopping) as stop, contextlib.redirect_stdout(sys.stderr), screen:
        yield screen, stop


@contextlib.contextmanager
def stop_on_signals(on_first: Callable[[], None]) -> Iterator[Stop]:
    """The event that the first signal sets; when the second one ends the program, its `last_words` go to stderr.

    Args:
        on_first: Called in the signal handler, so it must neither print through Python's streams nor wait.
    """
    stop, first = Stop(), True

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal first
        if first:
            first = False  # before anything else: a second signal interrupts this very function
            global asked_for
            asked_for = True
            on_first()
            stop.request()
            return
        # No unwinding: whatever the first signal is waiting for may hang. The lease runs out by itself.
        cursor = _SHOW_CURSOR if os.isatty(2) else ""
        with contextlib.suppress(OSError):
            os.write(2, f"{cursor}\n{stop.last_words}\n".encode(errors="replace"))
        os._exit(INTERRUPTED)

    before = {number: signal.signal(number, handle) for number in _SIGNALS}
    try:
        yield stop
    finally:
        # After a stop the program is on its way out, which takes Ray a second: a further signal still ends it at once.
        if not stop.is_set():
            for number, handler in before.items():
                signal.signal(number, handler)


@contextlib.contextmanager
def end_on_sigterm() -> Iterator[None]:
    """SIGTERM ends the block as Control-C does."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
