"""Whether a worker still lives: it shows signs while it trains, and one that shows none for too long is ended."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

SILENCE_SECONDS = 30.0
"""A worker may always be silent for so long, however short its pack is."""

START_SECONDS = 180.0
"""A worker that has not shown itself yet may take so long: its machine may have to read torch from a slow disk."""

UNSEEN_SECONDS = 15.0
"""After a longer time without a look, that time does not count."""

MARGIN = 3.0
"""A pack may take so many times what packs of its size took."""

GRACE_SECONDS = 5.0
"""So long after its trials' time is up a worker may still answer that it was."""

FIRST_RATE = 1e9
"""Floating-point operations a second, before the first pack has come back: a tenth of what slow cores do."""


@dataclass
class _Seen:
    """What is known of one worker.

    Attributes:
        at: When what it shows has changed last.
        allowed: Seconds without a change that its pack may take.
        limit: Seconds after which the pack's trials must have ended, whatever the worker shows; None: no limit.
        since: When it began, as far as is known.
        sign: What it showed last.
    """

    at: float
    allowed: float
    limit: float | None
    since: float | None
    sign: object = None


class Watch:
    """Watches every worker that has work."""

    def __init__(self) -> None:
        self._seen: dict[int, _Seen] = {}
        self._started: set[int] = set()
        self._rate = FIRST_RATE
        self._looked_at: float | None = None

    def expect(self, worker: int, flops: float, now: float, seconds: float | None = None) -> None:
        """A worker begins a pack.

        Args:
            flops: Of the pack.
            seconds: The time that its trials may take at most, together; None: no limit.
        """
        allowed = max(SILENCE_SECONDS, MARGIN * flops / self._rate)
        since = now if worker in self._started else None
        self._seen[worker] = _Seen(at=now, allowed=allowed, limit=seconds, since=since)

    def answered(self, worker: int, flops: float, now: float, training: float) -> None:
        """A worker has come back with a pack.

        Args:
            training: Seconds that it trained.
        """
        self._seen.pop(worker, None)
        self._started.add(worker)
        if training > 0:
            # The best of all: what is shared out over a pack's batches may be slow for a hundred reasons, and signs of
            # life come with every batch.
            self._rate = max(self._rate, flops / training)

    def gone(self, worker: int) -> None:
        """Another process takes its place."""
        self._seen.pop(worker, None)
        self._started.discard(worker)

    def shown(self, signs: Sequence[object | None], now: float) -> None:
        """Takes in what each worker shows; None where it has not answered since the last time.

        A time in which nobody looked, as this process was paused or waited for something, is no worker's silence.
        """
        gap = now - self._looked_at if self._looked_at is not None else 0.0
        self._looked_at = now
        if gap > UNSEEN_SECONDS:
            for each in self._seen.values():
                each.at += gap
                each.since = None if each.since is None else each.since + gap
        for worker, sign in enumerate(signs):
            seen = self._seen.get(worker)
            if sign is None:
                continue
            self._started.add(worker)
            if seen is not None:
                seen.since = now if seen.since is None else seen.since
                if sign != seen.sign:
                    seen.sign, seen.at = sign, now

    def late(self, now: float) -> dict[int, str]:
        """The workers that have been silent for too long, or are past their trials' time, with what to say of it."""
        found = {}
        for worker, seen in self._seen.items():
            allowed = seen.allowed if worker in self._started else max(START_SECONDS, seen.allowed)
            if now - seen.at > allowed:
                found[worker] = f"it showed no sign of life for {now - seen.at:.0f} s"
            elif self.overdue(worker, now):
                found[worker] = "it did not end when its trials' time was up"
        return found

    def overdue(self, worker: int, now: float) -> bool:
        """Whether its trials' time is up, and it has not said so."""
        seen = self._seen.get(worker)
        if seen is None or seen.limit is None or seen.since is None:
            return False
        return now - seen.since > seen.limit + GRACE_SECONDS
