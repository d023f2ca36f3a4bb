"""Was stopping early right? A random share of the trials that the pruner would end train on to their end instead.

Whether a trial is among them is a draw of its own: it depends on the study's seed and the trial's number alone, so
that a study that goes on after a stop audits the same ones. The pruner judges the others as if it had ended them.
"""

from __future__ import annotations

from collections.abc import Mapping

from search.pruner import Curve, Pruner
from search.sampler import Stream, derived_seed
from search.spec import StudySpec

SHARE = 0.05
"""Of a study's trials that the pruner would end, for an `audit` that is auto, in a study of up to 200 trials."""

ENOUGH = 10
"""Audits of a longer study, about. With asha, a trial that is trained to its end costs as much as nine others: a
twentieth of them makes 100 trials a sixth dearer, and 10,000 by two fifths. Ten make 10,000 one percent dearer."""


def audited_share(spec: StudySpec) -> float:
    """The share of the trials that the pruner would end that are trained to their end, from 0 to 1."""
    if spec.search.audit != "auto":
        return spec.search.audit
    return min(SHARE, ENOUGH / spec.budget.trials)


class AuditedPruner:
    """A pruner that lets some of those go on that it would end.

    Args:
        would_stop: What an earlier dispatcher has let go on: the epoch after which each trial would have ended.

    Attributes:
        would_stop: The same, with those of this one.
    """

    def __init__(self, pruner: Pruner, spec: StudySpec, would_stop: Mapping[int, int]) -> None:
        self._pruner = pruner
        self._share = audited_share(spec)
        self._seed = spec.seed
        self.looks = pruner.looks
        self.would_stop = dict(would_stop)

    def judge(self, curves: Mapping[int, Curve]) -> set[int]:
        """The trials that end here. They are given by number, with their curves up to the look that each has reached;
        one that is being audited ends no more."""
        shown = {trial: curve for trial, curve in curves.items() if trial not in self.would_stop}
        ending = self._pruner.judge(shown)
        self.would_stop |= {trial: max(curves[trial]) for trial in sorted(ending) if self._drawn(trial)}
        return ending - self.would_stop.keys()

    def complete(self, trial: int, curve: Curve) -> None:
        """Takes in a trial that was trained to its end here."""
        if trial not in self.would_stop:
            self._pruner.complete(curve)

    def restore(self, trial: int, curve: Curve, *, complete: bool) -> None:
        """Takes in a trial of an earlier dispatcher."""
        if (stop := self.would_stop.get(trial)) is not None:
            curve, complete = {epoch: value for epoch, value in curve.items() if epoch <= stop}, False
        self._pruner.restore(trial, curve, complete=complete)

    def _drawn(self, trial: int) -> bool:
        return derived_seed(self._seed, Stream.AUDIT, trial) < self._share * 2**63
