"""The heartbeat of a claimed study: renews the lease, hears of a cancel, and notices when the study is taken over."""

from __future__ import annotations

import threading
import time

from storage.heartbeat import Heartbeat
from storage.records import Claim
from storage.store import Store

BEAT_SECONDS = 2.0
"""A cancel is heard within this; the lease itself is far longer."""

LEASE_SECONDS = 27.0
"""With a look at the queue every second, a study is taken over within 30 seconds of its dispatcher's death."""


class Lease(Heartbeat):
    """Keeps a claim alive from a thread of its own while its context lasts. What goes wrong with a beat (the database
    does not answer, or SQLAlchemy is half imported by another thread) is nobody's to mend.

    Attributes:
        notice: Why the study stands still, for those who look at it from elsewhere; None while it does not.
    """

    def __init__(self, store: Store, claim: Claim) -> None:
        super().__init__(self._renew_claim, BEAT_SECONDS, "lease")
        self._store = store
        self._claim = claim
        self._began = time.monotonic()
        self._cancelled = threading.Event()
        self.notice: str | None = None

    def worked(self) -> float:
        """Seconds of work on the study, those of earlier claims included."""
        return self._claim.study.worked + time.monotonic() - self._began

    def cancelled(self) -> bool:
        """Whether somebody has asked for the study's end."""
        return self._cancelled.is_set()

    def _renew_claim(self) -> None:
        if self._store.renew(self._claim, LEASE_SECONDS, self.worked(), self.notice):
            self._cancelled.set()
