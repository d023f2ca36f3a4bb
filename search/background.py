"""Work beside the main thread that the program's end does not wait for."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYetError
from typing import TypeVar

from neurosweep.errors import InterruptedStudyError

Answer = TypeVar("Answer")


def in_background(call: Callable[[], Answer], name: str) -> Future[Answer]:
    """Begins a call in a daemon thread; an executor's threads would be waited for at the program's end."""
    future: Future[Answer] = Future()

    def run() -> None:
        try:
            future.set_result(call())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, name=name, daemon=True).start()
    return future


def wait_for(future: Future[Answer], stopped: Callable[[], bool]) -> Answer:
    """
    Raises:
        InterruptedStudyError: The user did not want to wait.
    """
    while True:
        try:
            return future.result(timeout=0.2)
        except NotYetError:
            if future.done():
                raise  # the call's own
            if stopped():
                raise InterruptedStudyError("Told to stop.") from None
