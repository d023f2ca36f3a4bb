"""The whole diagnosis of a study, put together from its parts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from search.insight.advice import Evidence, advise
from search.insight.data_checks import data_findings
from search.insight.data_curve import data_curve
from search.insight.decision import decide, judged
from search.insight.extra_plan import of_reports, seconds_of
from search.insight.findings import (
    DataFindings,
    Diagnosis,
    ExtraRun,
    Levels,
    Opening,
    Report,
    SeedNoise,
    StoppingFindings,
)
from search.insight.gains import gains
from search.insight.levels import Z, effective_rows, levels
from search.insight.plain_words import figure
from search.insight.quick import opened_before
from search.insight.seeds import seed_noise
from search.insight.simple_models import simple_models
from search.insight.space_checks import space_findings
from search.insight.stopping import stopping_findings
from search.leaders import trial_counts
from search.sampler import Stream, derived_seed
from search.spec import StudySpec
from storage.records import EpochRow, StudyRecord, TrialRecord
from trainer.data.dataset import Dataset
from trainer.work import Metric, TestResult


def diagnose(
    *,
    study: StudyRecord,
    spec: StudySpec,
    trials: Sequence[TrialRecord],
    winner: TrialRecord,
    epochs: Sequence[EpochRow],
    dataset: Dataset,
    train: TestResult,
    validation: TestResult,
    test: TestResult | None,
    extra_runs: Sequence[ExtraRun],
    openings: Sequence[Opening],
    not_run: Sequence[str],
) -> Report:
    """What a finished study is worth, why, and what to try next.

    Args:
        spec: The study's, with its task and metric.
        winner: The trial that the study has chosen.
        epochs: Of all trials, or of the winner at the least.
        train: The winner on the train split; so are `validation` and `test`, which is None while that split is shut.
        openings: Every look at the test split, oldest first.
        not_run: Extra runs that were left out, in words.
    """
    metric, seed = Metric(spec.metric or "error"), derived_seed(spec.seed, Stream.INSIGHT)
    asked = dataset.validation if test is None else dataset.test
    simple, notes = simple_models(metric, dataset, asked, seed)
    found = levels(
        metric=metric,
        dataset=dataset,
        train=train,
        validation=validation,
        test=test,
        simple=simple,
        human=spec.human,
        target=spec.budget.target,
        seed=seed,
    )
    rows = effective_rows(metric, dataset.validation.targets)
    seeds = seed_noise(trials, extra_runs, winner=winner.number)
    won = gains(extra_runs, winner=winner.number, levels=found, metric=metric, rows=rows, seeds=seeds)
    curve = data_curve(
        extra_runs,
        winner=winner.number,
        levels=found,
        rows=len(dataset.train),
        noise=(found.validation.high - found.validation.low) / (2 * Z) if seeds is None else seeds.std,
        seeds=seeds,
        seed=seed,
    )
    data = data_findings(metric=metric, dataset=dataset, levels=found, train=train, validation=validation, seed=seed)
    space = space_findings(spec, trials, chance=found.chance.value, seed=seed)
    stopping = stopping_findings(study, spec, trials)
    verdict, reasons = decide(found, str(metric), won)
    evidence = Evidence(
        spec=spec,
        metric=str(metric),
        levels=found,
        winner=winner,
        trials=trials,
        epochs=epochs,
        gains=won,
        seeds=seeds,
        data_curve=curve,
        data=data,
        space=space,
        validation_rows=len(dataset.validation),
    )
    return Report(
        study=study.label,
        task=str(dataset.task),
        metric=str(metric),
        state=str(study.state),
        trial=winner.number,
        settings=winner.params,
        epochs=winner.epochs,
        weights=winner.weights,
        diagnosis=Diagnosis(verdict=verdict, reasons=reasons, advice=advise(verdict, evidence)),
        levels=found,
        splits={"train": len(dataset.train), "validation": len(dataset.validation), "test": len(dataset.test)},
        openings=tuple(openings),
        extra_runs=tuple(extra_runs),
        not_run=tuple(not_run),
        seeds=seeds,
        data_curve=curve,
        data=data,
        space=space,
        stopping=stopping,
        warnings=tuple(_warnings(winner, trials, openings, found, data, seeds, stopping, notes)),
        trials=trial_counts(trials),
        seconds=float((study.result or {}).get("seconds", study.worked)),
        extra_seconds=seconds_of(of_reports(study, extra_runs), trials),
    )


def _warnings(
    winner: TrialRecord,
    trials: Sequence[TrialRecord],
    openings: Sequence[Opening],
    found: Levels,
    data: DataFindings,
    seeds: SeedNoise | None,
    stopping: StoppingFindings,
    notes: Sequence[str],
) -> Iterator[str]:
    """What must be known beside the verdict, the gravest first."""
    yield from data.warnings
    yield from _looks(winner, trials, openings)
    split, own = judged(found)
    if found.simple is not None and found.simple.value < own.value:
        name = min(found.simple_models, key=lambda each: found.simple_models[each].value)
        yield (
            f"A {name} does as well or better: {figure(found.simple.value)} on the {split} split, where the network "
            f"has {figure(own.value)}."
        )
    if seeds is not None and seeds.luck.low > 0:
        yield (
            f"The winner's validation figure was luck in part: from other seeds it is {figure(seeds.luck.value)} "
            f"higher ({figure(seeds.luck.low)} to {figure(seeds.luck.high)})."
        )
    if stopping.share is not None and stopping.beaten:
        yield (
            f"{stopping.beaten} of the {stopping.audited} trials that were to be stopped early, and were trained on as "
            "a check, beat all others: stopping early may cost good trials here."
        )
    yield from notes


def _looks(winner: TrialRecord, trials: Sequence[TrialRecord], openings: Sequence[Opening]) -> Iterator[str]:
    """What it does to the test figure that trials were begun after the split had been opened."""
    if not openings:
        return
    first = openings[0]
    later = sum(trial.started_at > first.at for trial in trials)
    if not later:
        return
    if first.trial != winner.number:
        yield opened_before(first.trial)
    else:
        yield (
            f"The test split was opened for this very trial, and {later} more trials were run after that without a "
            "better one: its figure is as good as it was."
        )
