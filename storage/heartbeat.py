"""The heartbeat of something that is held under a lease."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

from neurosweep.errors import LeaseLostError


class Heartbeat:
    """Renews a lease from a thread of its own while its context lasts, and notices when it is lost.

    Args:
        beat: Renews it; raises `LeaseLostError` where somebody else has it.
        seconds: Between two beats.
        name: The thread's.
        on_error: Told of what else goes wrong with a beat: the next one may get through, and every write checks the
            token anyway. A heart that stops would give away what it holds.
    """

    def __init__(
        self,
        beat: Callable[[], None],
        seconds: float,
        name: str,
        on_error: Callable[[Exception], None] = lambda error: None,
    ) -> None:
        self._renew = beat
        self._seconds = seconds
        self._on_error = on_error
        self._ended = threading.Event()
        self._lost: LeaseLostError | None = None
        self._thread = threading.Thread(target=self._beat, name=name, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    def check(self) -> None:
        """Raises `LeaseLostError` where somebody else has it now."""
        if self._lost is not None:
            raise self._lost

    def _beat(self) -> None:
        while not self._ended.wait(self._seconds):
            try:
                self._renew()
            except LeaseLostError as lost:
                # It may have been given up by this very process between two beats.
                if not self._ended.is_set():
                    self._lost = lost
                return
            except Exception as error:
                self._on_error(error)
