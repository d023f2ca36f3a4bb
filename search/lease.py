"""The heartbeat of a claimed study: renews the lease, hears of a cancel, and notices when the study is taken over."""

from __future__ import annotations

import threading
import time
from types import TracebackType
from typing import Self

from neurosweep.errors import LeaseLostError
from storage.records import Claim
from storage.store import Store

BEAT_SECONDS = 2.0
"""A cancel is heard within this; the lease itself is far longer."""

LEASE_SECONDS = 27.0
"""With a look at the queue every second, a study is taken over within 30 seconds of its dispatcher's death."""


class Lease:
    """Keeps a claim alive from a thread of its own while its context lasts.

    Attributes:
        notice: Why the study stands still, for those who look at it from elsewhere; None while it does not.
    """

    def __init__(self, store: Store, claim: Claim) -> None:
        self._store = store
        self._claim = claim
        self._began = time.monotonic()
        self._ended = threading.Event()
        self._cancelled = threading.Event()
        self._lost: LeaseLostError | None = None
        self.notice: str | None = None
        self._thread = threading.Thread(target=self._beat, name="lease", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    def worked(self) -> float:
        """Seconds of work on the study, those of earlier claims included."""
        return self._claim.study.worked + time.monotonic() - self._began

    def cancelled(self) -> bool:
        """Whether somebody has asked for the study's end."""
        return self._cancelled.is_set()

    def check(self) -> None:
        """Raises `LeaseLostError` where another dispatcher has taken the study over."""
        if self._lost is not None:
            raise self._lost

    def _beat(self) -> None:
        while not self._ended.wait(BEAT_SECONDS):
            try:
                if self._store.renew(self._claim, LEASE_SECONDS, self.worked(), self.notice):
                    self._cancelled.set()
            except LeaseLostError as lost:
                # The study may have been finished by this very process between two beats.
                if not self._ended.is_set():
                    self._lost = lost
                return
            except Exception:  # noqa: S112 - nobody could do anything about it
                # The database does not answer, or SQLAlchemy is half imported by another thread: the next beat may get
                # through, and every write checks the token anyway. A heart that stops would give the study away.
                continue
