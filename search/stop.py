"""A user's wish to stop, as the work sees it."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

from neurosweep.errors import InterruptedStudyError


class Stop(threading.Event):
    """Set once; the work looks at it between its steps. A step that can't look may let itself be broken off.

    Attributes:
        last_words: What a user who won't wait for the end is told.
    """

    def __init__(self, last_words: str = "ended at once") -> None:
        super().__init__()
        self.last_words = last_words
        self._breaks = False

    def request(self) -> None:
        """Called in a signal handler, so in the main thread, between any two of its instructions.

        Raises:
            InterruptedStudyError: What the main thread does lets itself be broken off.
        """
        self.set()
        if self._breaks:
            raise InterruptedStudyError("Told to stop.")

    @contextlib.contextmanager
    def breaks(self) -> Iterator[None]:
        """What runs in here, in the main thread, is broken off."""
        if self.is_set():
            raise InterruptedStudyError("Told to stop.")
        self._breaks = True
        try:
            yield
        finally:
            self._breaks = False
