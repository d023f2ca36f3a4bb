"""Several rounds of one study: search, diagnose, refine, and again, until there is nothing left to win or to spend.

Each round is a study of its own, ``name@k``, in one tree; its file is the one that `refine` writes, and its sampler
knows the trials of the rounds before it. The test split stays shut in all of them. After the last one the winner of all
rounds, by its validation metric, is the one that is judged on it.

The file's budget is that of all rounds together. Trials are shared out by their epochs: each round gets an equal part
of what is left, and fewer trials where these are longer. Minutes are shared in the same way; what a report takes
counts. All of it is read from the database, so that `resume` goes on where a stop was.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from neurosweep.errors import BadInputError, InterruptedStudyError, StudyTakenError
from search.engine import OnProgress, run_study
from search.insight.findings import Report, Verdict
from search.insight.refining import Change, Refined, refine, refined_text
from search.places import Places
from search.spec import BudgetSpec, SpaceSpec, StudySpec
from search.stop import Stop
from search.yaml_reader import read_yaml
from storage.records import ENDED, NewStudy, StudyRecord, StudyState
from storage.store import Store

ENOUGH = (Verdict.DONE, Verdict.NOISE_BOUND)
"""Verdicts that end the rounds."""

LOOK_SECONDS = 1.0
"""How often a round is looked at that another process works on."""

MakeReport = Callable[[StudyRecord], Report]
"""What makes the report of a round; it raises `InterruptedStudyError` once it is told to stop."""


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How the rounds ended.

    Attributes:
        study: The round with the winner; where the rounds have not come to their end, the last one.
        complete: Whether the winner of all rounds was chosen and judged.
    """

    study: StudyRecord
    complete: bool


def first_round(new: NewStudy, rounds: int) -> NewStudy:
    """The first of so many rounds of a study.

    Raises:
        BadInputError: The study has fewer trials than rounds.
    """
    budget = new.spec["budget"]
    if new.trials < rounds:
        raise BadInputError(
            f"{rounds} rounds need at least as many trials, but budget.trials is {new.trials}: the rounds share them.",
            "--rounds",
        )
    share = _share(new.trials, rounds)
    shared = {**budget, "trials": share}
    if budget.get("minutes") is not None:
        shared["minutes"] = budget["minutes"] / rounds
    spec = {**new.spec, "budget": shared}
    return replace(new, spec=spec, trials=share, tree=None, round=1, rounds=rounds, sealed=True)


def last_round(store: Store, study: StudyRecord) -> StudyRecord | None:
    """The newest of the rounds that a study is one of; None where they have come to their end."""
    studies = store.rounds(study.tree) if study.tree is not None else []
    return None if any(map(_judged, studies)) or not studies else studies[-1]


class Rounds:
    """The rounds of one tree.

    Args:
        study: Any of them.
        make_report: Makes the report of a finished round.
    """

    def __init__(
        self,
        store: Store,
        study: StudyRecord,
        places: Places,
        on_progress: OnProgress,
        stop: Stop,
        make_report: MakeReport,
    ) -> None:
        if study.tree is None:
            raise ValueError(f"{study.label} is none of several rounds")
        self._store, self._tree, self._places = store, study.tree, places
        self._on_progress, self._stop = on_progress, stop
        self._make_report = make_report
        self._began, self._before = time.monotonic(), _worked(store, study.tree)

    def work(self) -> Ended:
        """Goes on with the rounds to their end, or until `stop` is set."""
        last = self._studies()[-1]
        try:
            while all(study.sealed for study in self._studies()):
                last = self._searched(last)
                if last.state in (StudyState.QUEUED, StudyState.RUNNING, StudyState.STOPPED, StudyState.CANCELLED):
                    return Ended(study=last, complete=False)
                following = self._following(last)
                if following is None:
                    break
                last = self._store.submit(following)
            return self._judged_winner(last)
        except InterruptedStudyError:
            return Ended(study=self._store.study(last.id), complete=False)

    def _studies(self) -> list[StudyRecord]:
        return self._store.rounds(self._tree)

    def _searched(self, study: StudyRecord) -> StudyRecord:
        """A round that has ended, or has been stopped."""
        if study.state in ENDED:
            return study
        if study.state is StudyState.STOPPED:
            study = self._store.requeue(study.id)
        try:
            return run_study(self._store, study.id, self._places, self._on_progress, self._stop)
        except StudyTakenError:  # by a `serve` on the same database
            while study.state not in ENDED and not self._stop.wait(LOOK_SECONDS):
                study = self._store.study(study.id)
            return study

    def _following(self, last: StudyRecord) -> NewStudy | None:
        """The next round; None where there is to be none."""
        if last.state is not StudyState.FINISHED or last.round is None or last.rounds is None:
            return None
        left, minutes = last.rounds - last.round, self._minutes_left()
        met = (last.result or {}).get("stopped_for") == "target"
        if left < 1 or met or self._epochs_left() < 1 or (minutes is not None and minutes <= 0):
            return None
        report = self._make_report(last)
        self._store.record_verdict(last.id, report.diagnosis.verdict)
        if report.diagnosis.verdict in ENOUGH:
            return None
        trials = [trial for study in self._studies() for trial in self._store.trials(study.id)]
        refined = refine(report, StudySpec.from_mapping(last.spec), trials)
        refined = _with_share(refined, self._epochs_left(), minutes, left)
        return NewStudy(
            name=last.name,
            spec=refined.spec.to_mapping(),
            text=refined_text(refined, report),
            trials=refined.spec.budget.trials,
            tree=self._tree,
            round=last.round + 1,
            rounds=last.rounds,
            sealed=True,
        )

    def _budget(self) -> BudgetSpec:
        """That of the file that all rounds come from."""
        written = read_yaml(self._studies()[0].text, "study.yaml").value
        return BudgetSpec.model_validate(written.get("budget") or {})

    def _epochs_left(self) -> int:
        """Of all trials together."""
        whole = self._budget()
        spent: int = sum(
            sum(self._store.summary(study.id).counts.values()) * study.spec["budget"]["epochs"]
            for study in self._studies()
        )
        return whole.trials * whole.epochs - spent

    def _minutes_left(self) -> float | None:
        minutes = self._budget().minutes
        if minutes is None:
            return None
        return minutes - (self._before + time.monotonic() - self._began) / 60

    def _judged_winner(self, last: StudyRecord) -> Ended:
        """Opens the test split for the winner of all rounds."""
        studies = self._studies()
        best = next((study for study in studies if not study.sealed), None) or _best(studies)
        if best is None:
            return Ended(study=last, complete=False)
        if not _judged(best):
            verdict = (best.result or {}).get("verdict")
            best = self._store.unseal(best.id) if best.sealed else best
            best = self._searched(best)
            if best.state is StudyState.FINISHED and verdict is not None:
                self._store.record_verdict(best.id, verdict)
        return Ended(study=self._store.study(best.id), complete=best.state is StudyState.FINISHED)


def rounds_document(store: Store, tree: str) -> list[dict[str, Any]]:
    """The rounds as JSON values: each one's study, trials, best validation metric, verdict, and what it had changed."""
    found: list[dict[str, Any]] = []
    before: StudyRecord | None = None
    for study in store.rounds(tree):
        summary, result = store.summary(study.id), study.result or {}
        best = result.get("best") or {}
        found.append(
            {
                "round": study.round,
                "study": study.label,
                "state": study.state.value,
                "trials": sum(summary.counts.values()),
                "epochs": study.spec["budget"]["epochs"],
                "trial": best.get("trial"),
                "validation": best.get("validation", summary.best),
                "verdict": result.get("verdict"),
                "changes": list(_changed(before.spec, study.spec)) if before is not None else [],
            }
        )
        before = study
    return found


def _changed(before: dict[str, Any], after: dict[str, Any]) -> Iterable[dict[str, Any]]:
    keys = [("space", key) for key in SpaceSpec.model_fields] + [("budget", "epochs")]
    for section, key in keys:
        old, new = before[section].get(key), after[section].get(key)
        if old != new:
            yield {"key": f"{section}.{key}", "from": old, "to": new}


def _with_share(refined: Refined, epochs_left: int, minutes_left: float | None, rounds: int) -> Refined:
    """The refined study with its part of what is left for so many rounds."""
    budget = refined.spec.budget
    trials = _share(epochs_left // budget.epochs, rounds)
    minutes = None if minutes_left is None else minutes_left / rounds
    why = f"what is left is shared among {rounds} more round{'' if rounds == 1 else 's'}"
    changes = [Change(key="budget.trials", before=budget.trials, after=trials, why=why)]
    if minutes is not None:
        changes.append(Change(key="budget.minutes", before=budget.minutes, after=minutes, why=why))
    spec = refined.spec.model_copy(update={"budget": budget.model_copy(update={"trials": trials, "minutes": minutes})})
    changed = tuple(change for change in changes if change.before != change.after)
    return replace(refined, spec=spec, changes=(*refined.changes, *changed))


def _share(trials: int, rounds: int) -> int:
    return max(1, -(-trials // rounds))


def _worked(store: Store, tree: str) -> float:
    """Seconds that earlier processes have worked on a tree, extra runs included."""
    return sum(study.worked + sum(run.seconds for run in store.extra_runs(study.id)) for study in store.rounds(tree))


def _judged(study: StudyRecord) -> bool:
    return study.state is StudyState.FINISHED and not study.sealed


def _best(studies: Sequence[StudyRecord]) -> StudyRecord | None:
    """The finished round with the best validation metric; of equal ones the first."""
    finished = [study for study in studies if study.state is StudyState.FINISHED]
    return min(finished, key=lambda study: (study.result or {})["best"]["validation"], default=None)
