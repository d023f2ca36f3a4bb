"""What each worker has been given, and what it goes on with."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from trainer.work import TrialWork


@dataclass
class _Hand:
    """One worker's.

    Attributes:
        packs: The packs that it has not answered, oldest first.
        ready: Trials that it goes on with in its next pack.
        apart: Groups of trials each of which is a pack by itself: one among them may have brought a worker down.
    """

    packs: list[list[TrialWork]] = field(default_factory=list)
    ready: list[int] = field(default_factory=list)
    apart: list[list[int]] = field(default_factory=list)


class Hands:
    """The hands of all workers, by number from 0."""

    def __init__(self, workers: int) -> None:
        self._hands = [_Hand() for _ in range(workers)]
        # Of workers that are gone for good: whoever comes next takes them.
        self._left = _Hand()

    def packs(self, worker: int) -> list[list[TrialWork]]:
        """The packs that a worker has not answered, oldest first."""
        return self._hands[worker].packs

    def trials(self, worker: int) -> int:
        """How many trials these are."""
        return sum(len(pack) for pack in self._hands[worker].packs)

    def has_ready(self, worker: int) -> bool:
        """Whether a next pack begins with trials that are under way."""
        hand = self._hands[worker]
        return bool(hand.ready or hand.apart or self._left.ready or self._left.apart)

    def give(self, worker: int, pack: Sequence[TrialWork]) -> None:
        self._hands[worker].packs.append(list(pack))

    def answered(self, worker: int) -> None:
        """The oldest pack has come back."""
        self._hands[worker].packs.pop(0)

    def keep(self, worker: int, trials: Iterable[int]) -> None:
        """These go on in this worker."""
        self._hands[worker].ready += trials

    def keep_apart(self, worker: int, trials: Sequence[int]) -> None:
        """These go on as packs of their own: one by itself, several in halves, to find out which one it is."""
        middle = -(-len(trials) // 2)
        halves = [list(trials[:middle]), list(trials[middle:])]
        self._hands[worker].apart[:0] = [half for half in halves if half]

    def leave(self, trials: Iterable[int]) -> None:
        """These go on in whichever worker comes next."""
        self._left.ready += trials

    def empty(self, worker: int) -> None:
        """A worker is gone for good, or is to go on with nothing: others take what it had."""
        hand = self._hands[worker]
        self._left.ready += hand.ready
        self._left.apart += hand.apart
        hand.ready, hand.apart = [], []

    def take_apart(self, worker: int) -> list[int]:
        """A group that is a pack by itself; empty where there is none."""
        for hand in (self._hands[worker], self._left):
            if hand.apart:
                return hand.apart.pop(0)
        return []

    def take_ready(self, worker: int, most: int) -> list[int]:
        """All that the worker itself goes on with, and of what others have left as much as a pack holds."""
        hand = self._hands[worker]
        pack, hand.ready = hand.ready, []
        room = max(0, most - len(pack))
        pack += self._left.ready[:room]
        del self._left.ready[:room]
        return pack
