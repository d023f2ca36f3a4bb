"""Whether stopping trials early was right, and what searching on has brought."""

from __future__ import annotations

import math
from collections.abc import Sequence

from search.insight.findings import Level, StoppingFindings
from search.insight.levels import wilson
from search.leaders import leaders
from search.spec import StudySpec
from storage.records import StudyRecord, TrialRecord, TrialState


def stopping_findings(study: StudyRecord, spec: StudySpec, trials: Sequence[TrialRecord]) -> StoppingFindings:
    """What the pruner has done, and what the second half of the trials was good for.

    Audited trials are those that the pruner would have ended, at epoch `would_stop`, and that were trained on. One has
    beaten the winner where it is better than every trial that the pruner let through.
    """
    pruned = [trial for trial in trials if trial.state is TrialState.PRUNED]
    audited = [trial for trial in trials if trial.would_stop is not None and trial.state is TrialState.COMPLETE]
    others = leaders(trial for trial in trials if trial.would_stop is None)
    best = others[0].validation if others and others[0].validation is not None else math.inf
    beaten = sum(trial.validation is not None and trial.validation < best for trial in audited)
    share = None
    if audited:
        value = beaten / len(audited)
        low, high = wilson(value, len(audited))
        share = Level(value=value, low=low, high=high)
    return StoppingFindings(
        stopped=len(pruned),
        audited=len(audited),
        beaten=beaten,
        share=share,
        saved_seconds=sum(_saved(trial, spec.budget.epochs) for trial in pruned),
        last_half=last_half(trials),
        stopped_for=_stopped_for(study, spec, trials),
    )


def last_half(trials: Sequence[TrialRecord]) -> float:
    """By how much the best validation metric fell in the second half of the trials; 0 where it did not, or where there
    was none before."""
    numbers = sorted(trial.number for trial in trials)
    middle = numbers[len(numbers) // 2] if numbers else 0
    before = leaders(trial for trial in trials if trial.number < middle)
    after = leaders(trials)
    if not before or before[0].validation is None or after[0].validation is None:
        return 0.0
    return before[0].validation - after[0].validation


def _saved(trial: TrialRecord, epochs: int) -> float:
    """Seconds that the rest of a pruned trial's epochs would have taken."""
    return trial.seconds / trial.epochs * max(0, epochs - trial.epochs) if trial.epochs else 0.0


def _stopped_for(study: StudyRecord, spec: StudySpec, trials: Sequence[TrialRecord]) -> str | None:
    """Why it ended before its trials were spent: what its result says, or what its budget lets conclude."""
    told = (study.result or {}).get("stopped_for")
    if told is not None:
        return str(told)
    if len(trials) >= study.trials:
        return None
    best, target, minutes = next(iter(leaders(trials)), None), spec.budget.target, spec.budget.minutes
    if best is not None and best.validation is not None and target is not None and best.validation <= target:
        return "the target was reached"
    if minutes is not None and (study.result or {}).get("seconds", study.worked) >= minutes * 60:
        return "its minutes were spent"
    return None
