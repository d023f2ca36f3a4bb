"""Reports with figures made up here, for what reads them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from search.insight.findings import (
    Advice,
    Border,
    DataFindings,
    Diagnosis,
    Level,
    Levels,
    Report,
    SpaceFindings,
    StoppingFindings,
    Verdict,
)
from storage.records import TrialRecord
from tests.search.insight.trials import trial


def made_report(
    verdict: Verdict = Verdict.OVERFITTING,
    *,
    advice: tuple[Advice, ...] = (),
    borders: tuple[Border, ...] = (),
    importances: dict[str, tuple[float, float]] | None = None,
    good: dict[str, tuple[float, float]] | None = None,
    settings: dict[str, Any] | None = None,
    study: str = "digits",
) -> Report:
    """A report of a study; what is not named says nothing."""
    level = Level(value=0.1, low=0.05, high=0.15)
    return Report(
        study=study,
        task="classification",
        metric="error",
        state="finished",
        trial=3,
        settings=settings or {},
        epochs=30,
        weights=1000,
        diagnosis=Diagnosis(verdict=verdict, reasons=("so it is",), advice=advice),
        levels=Levels(
            chance=Level(value=0.9, low=0.85, high=0.95),
            simple=None,
            simple_models={},
            human=None,
            target=None,
            train=level,
            validation=level,
            test=None,
            split="validation",
        ),
        splits={"train": 100, "validation": 20, "test": 20},
        openings=(),
        extra_runs=(),
        not_run=(),
        seeds=None,
        data_curve=None,
        data=DataFindings(warnings=(), suspects=(), leaks={}, duplicates={}, classes={}),
        space=SpaceFindings(
            borders=borders, importances=importances or {}, interactions=(), barren=(), good=good or {}
        ),
        stopping=StoppingFindings(
            stopped=0, audited=0, beaten=0, share=None, saved_seconds=0.0, last_half=0.0, stopped_for=None
        ),
        warnings=(),
        trials={"complete": 30},
        seconds=10.0,
        extra_seconds=0.0,
    )


def pressed(key: str, end: str, bound: float) -> Border:
    """Eight of the best ten press against an end."""
    return Border(key=key, end=end, near=8, of=10, bound=bound, movable=True)


def trials(count: int) -> list[TrialRecord]:
    """So many complete trials."""
    return [replace(trial(number, validation=0.1), params={}) for number in range(count)]
