"""Optuna's pruners for a study, and the epochs at which they can decide.

Between two of these epochs a trial trains undisturbed (a segment). Asked after every epoch, the pruners would decide
the same: in between, they answer 'go on' without a look at the trial.
"""

from __future__ import annotations

from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner, SuccessiveHalvingPruner

from search.spec import PrunerKind, StudySpec

REDUCTION = 3
"""Of so many trials that reach a rung, one goes on."""

RUNGS = 3
"""Looks of successive halving at a trial that is trained to its end."""

MEDIAN_LOOKS = 10
"""Looks of the median rule at such a trial, one of them at its end, where nothing is left to save."""


def make_pruner(spec: StudySpec) -> BasePruner:
    """The pruner of a study; it is fed with the validation metric of every epoch, counted from 1.

    - asha: asynchronous successive halving (Li et al. 2020, arXiv:1810.05934) with reduction factor 3 and rungs near
      1/27, 1/9 and 1/3 of the epochs, so that a trial in the top third at the last of them is trained to its end.
    - hyperband: (Li et al. 2018, JMLR 18:185) successive halving in several brackets, from the earliest first rung to
      one near the end, for metrics whose early epochs say little. A trial's bracket comes from the study's label and
      the trial's number.
    - median: at each tenth of the epochs, a trial ends whose best value so far is worse than the median of the complete
      trials' values at that epoch, once there are five of them.
    """
    epochs = spec.budget.epochs
    match spec.search.pruner:
        case PrunerKind.ASHA:
            return SuccessiveHalvingPruner(min_resource=_first_rung(spec), reduction_factor=REDUCTION)
        case PrunerKind.HYPERBAND:
            return HyperbandPruner(min_resource=_first_rung(spec), max_resource=epochs, reduction_factor=REDUCTION)
        case PrunerKind.MEDIAN:
            interval = _interval(epochs)
            return MedianPruner(n_startup_trials=5, n_warmup_steps=interval, interval_steps=interval)
        case PrunerKind.NONE:
            return NopPruner()


def decision_epochs(spec: StudySpec) -> tuple[int, ...]:
    """The epochs after which a trial has to be shown to the pruner, ascending; the last is the trial's end, which
    leaves nothing to decide."""
    epochs = spec.budget.epochs
    looks: list[int] = []
    match spec.search.pruner:
        case PrunerKind.ASHA | PrunerKind.HYPERBAND:
            rung = _first_rung(spec)
            while rung < epochs:
                looks.append(rung)
                rung *= REDUCTION
        case PrunerKind.MEDIAN:
            interval = _interval(epochs)
            looks.extend(range(interval, epochs, interval))
        case PrunerKind.NONE:
            pass
    return (*looks, epochs)


def _first_rung(spec: StudySpec) -> int:
    """asha rounds up, so that its last rung is not close to the end, where pruning costs a complete trial and saves
    little; hyperband rounds down, so that its last bracket is close to the end, as it has to be."""
    epochs = spec.budget.epochs
    most = int(REDUCTION**RUNGS)
    return -(-epochs // most) if spec.search.pruner is PrunerKind.ASHA else max(1, epochs // most)


def _interval(epochs: int) -> int:
    return max(1, epochs // MEDIAN_LOOKS)
