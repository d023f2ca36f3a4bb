"""When so much fails that going on would be a waste: the study ends with one reason, the most frequent one."""

from __future__ import annotations

from collections import Counter

IN_A_ROW = 10
"""So many failed trials, one after the other, end a study."""

FIRST, OF_THE_FIRST = 20, 10
"""So does this share of the first trials that end."""


class FailureBudget:
    """Counts the failures of one claim of a study: after a resume, whose user may have mended something, it begins
    anew."""

    def __init__(self) -> None:
        self._ended = 0
        self._in_a_row = 0
        self._early = 0
        self._reasons: Counter[str] = Counter()

    def add(self, failure: str | None) -> None:
        """Takes in how a trial ended: its failure's reason, or None."""
        self._ended += 1
        if failure is None:
            self._in_a_row = 0
            return
        self._in_a_row += 1
        self._early += self._ended <= FIRST
        self._reasons[failure] += 1

    def spent(self) -> str | None:
        """Why the study should end, in one line; None while it should not."""
        if self._in_a_row >= IN_A_ROW:
            what = f"{self._in_a_row} trials in a row failed"
        elif self._early >= OF_THE_FIRST:
            what = f"{self._early} of the first {min(FIRST, self._ended)} trials failed"
        else:
            return None
        return f"{what}; {self.most_frequent()}"

    def most_frequent(self) -> str:
        """The reason that most failures have, with their count."""
        (reason, count), *_ = self._reasons.most_common(1)
        return f"{count} of {self._reasons.total()} failed because {reason}"
