"""The report as one self-contained HTML page: `search/pages/files/report.html` and what it shows."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from neurosweep import __version__
from search.commands.words import duration, setting
from search.insight.findings import Level, Probe, Report
from search.insight.glossary import glossary, slug
from search.insight.page_data import curve_columns, parameter_columns, trial_columns
from search.insight.plain_words import VERDICTS, in_plain_words, name_of, unfinished
from search.pages.shell import render
from storage.records import EpochRow, StudyRecord, TrialRecord

_SCRIPTS = ("report_scales", "report_model", "report_pictures", "report_trials", "report_table", "report")


def report_page(report: Report, study: StudyRecord, trials: Sequence[TrialRecord], epochs: Sequence[EpochRow]) -> str:
    """The whole page, as HTML.

    Args:
        trials: All of the study's, by number.
        epochs: Theirs.
    """
    trials = sorted(trials, key=lambda trial: trial.number)
    data = _data(report, study, trials, epochs)
    return render(
        "report.html",
        data=data,
        scripts=[f"{name}.js" for name in _SCRIPTS],
        report=report,
        words=VERDICTS[report.diagnosis.verdict],
        plain=in_plain_words(report),
        unfinished=unfinished(report),
        metric=name_of(report.metric),
        day=(study.ended_at or study.created_at).strftime("%-d %B %Y"),
        tiles=list(_tiles(report)),
        gaps=list(_gaps(report)),
        level_rows=[_level_row(name, level) for name, level in levels_of(report).items()],
        settings=[(name, setting(value)) for name, value in report.settings.items()],
        seed_sentence=_seed_sentence(report),
        rows_sentence=_rows_sentence(report),
        stopping_sentence=_stopping_sentence(report),
        probes=list(_probes(report)),
        all_curves=data["curves"]["all"],
        terms=glossary(),
        slug=slug,
        number=_figure,
        version=__version__,
    )


def levels_of(report: Report) -> dict[str, Level]:
    """The levels that are known, in the order in which a practitioner reads them."""
    levels = report.levels
    exact = {name: value for name, value in (("human", levels.human), ("target", levels.target)) if value is not None}
    found: dict[str, Level | None] = {
        "chance": levels.chance,
        "simple": levels.simple,
        **{name: Level(value=value, low=value, high=value) for name, value in exact.items()},
        "train": levels.train,
        "validation": levels.validation,
        "test": levels.test,
    }
    return {name: level for name, level in found.items() if level is not None}


def _data(
    report: Report, study: StudyRecord, trials: Sequence[TrialRecord], epochs: Sequence[EpochRow]
) -> dict[str, Any]:
    seeds, curve = report.seeds, report.data_curve
    document: dict[str, Any] = _finite(
        {
            "study": report.study,
            "metric": report.metric,
            "metricName": name_of(report.metric),
            "winner": report.trial,
            "levels": {name: _triple(level) for name, level in levels_of(report).items()},
            "simpleModels": {name: _triple(level) for name, level in report.levels.simple_models.items()},
            "trials": trial_columns(trials),
            "parameters": parameter_columns(trials, study.spec.get("space", {}), report.space.importances),
            "curves": curve_columns(trials, epochs),
            "importances": [[name, *spread] for name, spread in report.space.importances.items()],
            "good": {name: list(ends) for name, ends in report.space.good.items()},
            "seeds": [asdict(contender) for contender in seeds.contenders] if seeds else [],
            "rows": asdict(curve) if curve else None,
            "classes": report.data.classes,
            "seconds": {
                "search": report.seconds,
                "extra": report.extra_seconds,
                "saved": report.stopping.saved_seconds,
            },
            "workers": max(1, len({trial.worker for trial in trials if trial.worker})),
        }
    )
    return document


def _tiles(report: Report) -> Iterator[dict[str, str]]:
    levels = report.levels
    name = name_of(report.metric)
    if levels.test is not None:
        yield _tile(f"Test {name}", levels.test, "test split")
    yield _tile(f"Validation {name}", levels.validation, "validation split")
    yield _tile(f"Training {name}", levels.train, "train split")
    if levels.simple is not None:
        yield _tile("A simple model", levels.simple, "simple models")
    yield _tile("Chance", levels.chance, "chance")
    ended = sum(number for state, number in report.trials.items() if state in ("complete", "pruned", "failed"))
    yield {
        "name": "Trials",
        "term": "trial",
        "value": f"{ended:,}",
        "note": f"{report.trials.get('complete', 0):,} to the end, in {duration(report.seconds)}",
    }


def _tile(name: str, level: Level, term: str) -> dict[str, str]:
    note = f"{level.low:.2g} to {level.high:.2g}"
    return {"name": name, "term": term, "value": _figure(level.value), "note": note}


def _gaps(report: Report) -> Iterator[dict[str, Any]]:
    """The steps between the levels, with what each of them means; the largest is marked."""
    levels = report.levels
    goal, name = (levels.human, "a person") if levels.target is None else (levels.target, "the target")
    steps = (
        [] if goal is None else [(f"from {name} to training", "what it has not learnt yet", levels.train.value - goal)]
    )
    steps += [
        (
            "from training to validation",
            "what it loses on rows that it has not seen",
            levels.validation.value - levels.train.value,
        ),
    ]
    if levels.test is not None:
        hidden = levels.test.value - levels.validation.value
        steps.append(("from validation to test", "what the search's luck has hidden", hidden))
    largest = max(value for _, _, value in steps)
    for name, meaning, value in steps:
        yield {
            "name": name,
            "meaning": meaning,
            "value": f"{value:+.4f}" if 0.00005 <= abs(value) < 10 else f"{value:+.3g}",
            "share": f"{100 * max(0.0, value) / largest:.1f}" if largest > 0 else "0",
            "largest": value == largest > 0,
        }


def _level_row(name: str, level: Level) -> dict[str, str]:
    exact = level.low == level.high
    return {
        "name": name,
        "value": _figure(level.value),
        "low": "" if exact else _figure(level.low),
        "high": "" if exact else _figure(level.high),
    }


def _seed_sentence(report: Report) -> str:
    seeds = report.seeds
    if seeds is None:
        return ""
    tied = [str(contender.trial) for contender in seeds.contenders if contender.tied]
    count = len(seeds.contenders)
    if len(tied) > 1:
        said = f"{len(tied)} of the best {count} trials are tied: {', '.join(tied)} can't be told apart. "
        said += f"Trial {seeds.simplest} is the smallest of them. "
    else:
        said = f"Trial {seeds.best} is better than the others of the best {count}, by more than its seed makes. "
    luck = seeds.luck
    return said + (
        f"From seed to seed the figure moves by {_figure(seeds.std)} (one standard deviation). The winner's own figure "
        f"was {_figure(abs(luck.value))} too {'good' if luck.value >= 0 else 'bad'}, by luck "
        f"(between {_figure(luck.low)} and {_figure(luck.high)})."
    )


def _rows_sentence(report: Report) -> str:
    curve = report.data_curve
    if curve is None:
        return ""
    if curve.rows_for_target is None:
        return curve.why_not or "The curve does not tell how many rows would reach the goal."
    need = curve.rows_for_target
    return (
        f"About {need.value:,.0f} rows would reach the goal, if the curve goes on like this (between {need.low:,.0f} "
        f"and {need.high:,.0f}); there are {curve.rows[-1]:,} to learn from now."
    )


def _stopping_sentence(report: Report) -> str:
    found = report.stopping
    saved = duration(found.saved_seconds)
    said = f"{found.stopped:,} trials were stopped early, which saved about {saved} of training. "
    if found.share is None:
        said += "None of them was trained on to see whether that was right. "
    else:
        said += (
            f"{found.audited:,} that would have been stopped were trained on to see: {found.beaten:,} of them would "
            f"have beaten the winner ({100 * found.share.low:.0f} % to {100 * found.share.high:.0f} % of such). "
        )
    said += f"The second half of the trials made the best figure better by {_figure(found.last_half)}."
    return said + (f" The study ended early: {found.stopped_for}." if found.stopped_for else "")


def _probes(report: Report) -> Iterator[dict[str, Any]]:
    names = {Probe.NEURONS: "{:g} times the neurons", Probe.EPOCHS: "{:g} times the epochs"}
    for run in report.extra_runs:
        if run.probe in names:
            name = names[run.probe].format(run.amount)
            name += f" (failed: {run.error})" if run.error else f", {run.weights:,} weights"
            yield {"name": name, "train": run.train, "validation": run.validation}


def _figure(value: float | None) -> str:
    if value is None or not math.isfinite(value):
        return "-"
    return f"{value:.4f}" if value == 0 or 0.001 <= abs(value) < 10 else f"{value:.4g}"


def _triple(level: Level) -> list[float]:
    return [level.value, level.low, level.high]


def _finite(value: Any) -> Any:
    """A copy in which numbers that are not finite are None: JSON has no word for them."""
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
