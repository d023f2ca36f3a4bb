"""The publisher's process, as the engine sees it: started beside the dispatcher, asked to drain, and ended.

It has a process of its own so that MLflow never holds training up. Addresses, which may hold passwords, reach it
through its environment; orders through its standard input.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import threading
import time

from search.places import Places

DRAIN_SECONDS = 300.0
"""The longest that the end of a study waits for MLflow; what is left then is published by the next one."""

STOP_SECONDS = 3.0
"""How long a stop waits for the fact at hand; one that is cut off is found again by its key."""

_LOW_PRIORITY = ["nice", "-n", "19"] if shutil.which("nice") else []
"""From its first line on: importing MLflow takes seconds that the workers need."""


def drain(places: Places, study_id: int) -> str | None:
    """Lets a publisher's process write what the outbox has of a study.

    Returns:
        None when all was published, else how far MLflow is behind, in a line.
    """
    publisher = Publisher(places)
    try:
        publisher.order_drain(study_id)
        return publisher.drained(threading.Event())
    finally:
        publisher.stop()


class Publisher:
    """A running `python -m storage.publisher`."""

    def __init__(self, places: Places) -> None:
        self._process = subprocess.Popen(
            [*_LOW_PRIORITY, sys.executable, "-m", "storage.publisher"],
            env={
                **os.environ,
                "NEUROSWEEP_DATABASE_URL": places.database,
                "MLFLOW_TRACKING_URI": places.tracking,
                "NEUROSWEEP_HOME": str(places.home),
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            # A Control-C in the terminal is the dispatcher's to answer.
            start_new_session=True,
        )

    def ended(self) -> bool:
        """Whether the process has gone away by itself."""
        return self._process.poll() is not None

    def order_drain(self, study_id: int) -> None:
        """Lets the process end once everything that the outbox has of a study has reached MLflow."""
        self._order(f"drain {study_id}\n")

    def drained(self, stop: threading.Event) -> str | None:
        """Waits for the end of a drain.

        Args:
            stop: The user won't wait: the outbox keeps what is left.

        Returns:
            None when all was published, else how far MLflow is behind, in a line.
        """
        deadline = time.monotonic() + DRAIN_SECONDS
        while self._process.poll() is None and time.monotonic() < deadline and not stop.is_set():
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(0.2)
        if self._process.poll() is None:
            self.stop()
            return "MLflow has not been told everything yet"
        said = self._process.stdout.read().decode().strip() if self._process.stdout is not None else ""
        return None if self._process.returncode == 0 else said or "the publisher failed: see publisher.log"

    def order_stop(self) -> None:
        """Lets the process end after the fact that it is publishing, without waiting for that."""
        with contextlib.suppress(BrokenPipeError, ValueError):
            if self._process.stdin is not None:
                self._process.stdin.close()

    def stop(self) -> None:
        """Ends the process after the fact that it is publishing; the outbox keeps the rest."""
        self.order_stop()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _order(self, line: str) -> None:
        with contextlib.suppress(BrokenPipeError):
            if self._process.stdin is not None:
                self._process.stdin.write(line.encode())
                self._process.stdin.flush()
