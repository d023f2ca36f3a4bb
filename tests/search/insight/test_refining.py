"""The next study file: what moves, what stays, and that it is always a study file."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search.dimensions import Choice, Range
from search.insight.findings import Advice, Border, Report, Verdict
from search.insight.refining import ENOUGH, LIMITS, Change, Refined, refine, refined_text
from search.spec import CONV_KEYS, StudySpec
from search.study_file import parse_study
from storage.records import TrialState
from tests.search.insight.made_reports import made_report, pressed, trials
from tests.search.test_study_file_properties import SPACES
from trainer.settings import Family

LABEL = "digits@1"


def spec(space: dict[str, Any] | None = None, **keys: Any) -> StudySpec:
    return StudySpec.from_mapping({"name": "digits", "data": {"source": "digits"}, "space": space or {}, **keys})


def only(refined: Refined) -> Change:
    """The one change beside `start_from`."""
    changes = [change for change in refined.changes if change.key != "start_from"]
    assert len(changes) == 1, changes
    return changes[0]


def test_a_report_that_says_nothing_changes_nothing_but_where_the_search_starts_from() -> None:
    refined = refine(made_report(), spec(), trials(40))
    assert [change.key for change in refined.changes] == ["start_from"]
    assert refined.spec == spec(start_from=LABEL)


def test_values_that_press_against_an_end_move_it_outwards_and_only_it() -> None:
    report = made_report(borders=(pressed("learning_rate", "upper", 0.3),))
    change = only(refine(report, spec(), trials(40)))
    assert change.key == "space.learning_rate"
    assert change.before == {"low": 0.0001, "high": 0.3, "log": True}
    assert change.after == {"low": 0.0001, "high": 3.0, "log": True}
    assert change.why == "8 of the best 10 are within 5 % of the upper end, 0.3"


@pytest.mark.parametrize(
    ("space", "border", "after"),
    [
        ({"layers": {"low": 1, "high": 3}}, pressed("layers", "upper", 3), {"low": 1, "high": 4}),
        ({"dropout": {"low": 0.0, "high": 0.5}}, pressed("dropout", "upper", 0.5), {"low": 0.0, "high": 0.75}),
        (
            {"neurons": {"low": 16, "high": 256, "log": True}},
            pressed("neurons_2", "lower", 16),
            {"low": 4, "high": 256, "log": True},
        ),
        (
            {"neurons": {"low": 8, "high": 40, "step": 8}},
            pressed("neurons_1", "upper", 40),
            {"low": 8, "high": 80, "step": 8},
        ),
        ({"batch_size": [32, 64, 128]}, pressed("batch_size", "upper", 128), [32, 64, 128, 256]),
        ({"batch_size": [32, 64, 128]}, pressed("batch_size", "lower", 32), [16, 32, 64, 128]),
        ({"layers": [1, 2]}, pressed("layers", "upper", 2), [1, 2, 3]),
    ],
)
def test_each_kind_of_dimension_goes_on_in_its_own_way(space: dict[str, Any], border: Border, after: Any) -> None:
    assert only(refine(made_report(borders=(border,)), spec(space), trials(40))).after == after


def test_advice_moves_a_range_and_the_end_that_is_left_behind_comes_half_way_to_the_winners_value() -> None:
    advice = Advice(key="space.neurons", change="more neurons", why="twice as many gave 0.02 less", up=True)
    report = made_report(advice=(advice,), settings={"neurons_1": 256, "neurons_2": 64})
    change = only(refine(report, spec(), trials(40)))
    assert change.after == {"low": 32, "high": 1024, "log": True}  # half way from 16 to 64 on the logarithmic scale
    assert change.why == "more neurons twice as many gave 0.02 less"


def test_a_learning_rate_that_has_taught_nothing_is_moved_a_long_way() -> None:
    space = {"learning_rate": {"low": 0.3, "high": 3.0, "log": True}}
    advice = Advice(key="space.learning_rate", change="a lower learning rate", why="the loss jumped", up=False)
    report = made_report(Verdict.NOT_LEARNING, advice=(advice,), settings={"learning_rate": 0.3})
    after = refine(report, spec(space), trials(40)).spec.space.learning_rate
    assert isinstance(after, Range)
    assert after.low <= 0.0003
    assert after.high == pytest.approx(0.95)


def test_where_trials_do_better_and_better_towards_an_end_the_range_moves_there() -> None:
    rates = [10 ** (-5 + 2 * index / 19) for index in range(20)]
    found = [
        replace(trial, params={"learning_rate": rate}, validation=1 - index / 40, state=state)
        for index, (trial, rate) in enumerate(zip(trials(20), rates, strict=True))
        for state in [TrialState.COMPLETE if index > 12 else TrialState.PRUNED]
    ]
    space = {"learning_rate": {"low": 0.00001, "high": 0.001, "log": True}}
    change = only(refine(made_report(), spec(space), found))
    assert change.why == "the larger it was, the better the trials did (rank correlation 1.00 over 20 trials)"
    assert change.after["high"] == 0.01
    assert 0.00001 < change.after["low"] < 0.0003
    shuffled = [replace(trial, state=TrialState.COMPLETE, validation=(7 * trial.number % 20) / 20) for trial in found]
    assert refine(made_report(), spec(space), shuffled).spec.space == spec(space).space


def test_where_nothing_was_learnt_and_nothing_says_why_the_learning_rate_goes_on_both_ways() -> None:
    space = {"learning_rate": {"low": 0.001, "high": 0.01, "log": True}}
    change = only(refine(made_report(Verdict.NOT_LEARNING), spec(space), trials(40)))
    assert change.after == {"low": 1e-6, "high": 10.0, "log": True}
    assert change.why == "next to nothing was learnt, with none of these rates"


def test_where_it_underfits_and_nothing_says_where_to_larger_values_are_let_in() -> None:
    space = {"neurons": {"low": 2, "high": 6}, "learning_rate": {"low": 0.00001, "high": 0.001, "log": True}}
    found = refine(made_report(Verdict.UNDERFITTING), spec(space), trials(12)).spec.space
    assert (found.neurons, found.learning_rate) == (
        Range(low=2, high=12),
        Range(low=0.00001, high=0.01, log=True),
    )
    fixed = refine(made_report(Verdict.UNDERFITTING), spec({"neurons": 8, "learning_rate": 0.01}), trials(12))
    assert [change.key for change in fixed.changes] == ["start_from"]


def test_more_epochs_are_twice_as_many() -> None:
    advice = Advice(key="budget.epochs", change="more epochs", why="it was still falling", up=True)
    change = only(refine(made_report(advice=(advice,)), spec(budget={"epochs": 20}), trials(40)))
    assert (change.key, change.before, change.after) == ("budget.epochs", 20, 40)


def test_a_range_that_matters_closes_in_on_the_best_where_there_are_enough_trials() -> None:
    report = made_report(
        importances={"learning_rate": (0.5, 0.1)},
        good={"learning_rate": (0.003, 0.02)},
        settings={"learning_rate": 0.004},
    )
    after = refine(report, spec(), trials(ENOUGH)).spec.space.learning_rate
    assert isinstance(after, Range)
    assert 0.0001 < after.low < 0.003
    assert 0.02 < after.high < 0.1
    assert refine(report, spec(), trials(ENOUGH - 1)).spec.space == spec().space
    unsure = replace(report, space=replace(report.space, importances={"learning_rate": (0.5, 0.6)}))
    assert refine(unsure, spec(), trials(ENOUGH)).spec.space == spec().space


def test_what_is_fixed_stays_and_its_advice_is_said_to_be_left_over() -> None:
    advice = Advice(key="space.dropout", change="more dropout", why="the gap is 0.1", up=True)
    rows = Advice(key="data", change="more rows", why="half of them gave 0.03 more")
    report = made_report(Verdict.OVERFITTING, advice=(advice, rows))
    refined = refine(report, spec({"dropout": 0.1}), trials(40))
    assert refined.left == (advice, rows)
    assert "more rows half of them gave 0.03 more" in refined_text(refined, report).replace("\n# ", " ")


def test_where_the_trials_and_the_advice_disagree_the_trials_are_believed() -> None:
    advice = Advice(key="space.neurons", change="fewer neurons", why="the gap is 0.1", up=False)
    report = made_report(Verdict.OVERFITTING, advice=(advice,), borders=(pressed("neurons_1", "upper", 256),))
    assert only(refine(report, spec(), trials(40))).after == {"low": 16, "high": 1024, "log": True}


def test_other_samplers_than_tpe_start_from_nothing() -> None:
    assert refine(made_report(), spec(search={"sampler": "random"}), trials(40)).changes == ()


def test_the_file_has_each_reason_above_its_line_and_reads_as_the_same_study() -> None:
    report = made_report(borders=(pressed("learning_rate", "upper", 0.3),))
    refined = refine(report, spec(), trials(40))
    lines = refined_text(refined, report).splitlines()
    assert lines[0] == "# The study that follows digits, whose verdict is overfitting."
    at = lines.index("  learning_rate: {low: 0.0001, high: 3.0, log: true}")
    was = "was {low: 0.0001, high: 0.3, log: true}"
    assert lines[at - 1] == f"  # {was}: 8 of the best 10 are within 5 % of the upper end, 0.3"
    assert lines[lines.index(f"start_from: '{LABEL}'") - 1].startswith("# the trials of digits@1")
    assert parse_study("\n".join(lines)) == refined.spec


# Whatever is reported of whatever study

NUMBERS = sorted(LIMITS)
TEXTS = st.text(max_size=60)


@st.composite
def reports(draw: st.DrawFn) -> tuple[Report, StudySpec]:
    model = draw(st.sampled_from(["mlp", ["mlp", "cnn"]]))
    space = {key: value for key, value in draw(SPACES).items() if model != "mlp" or key not in CONV_KEYS}
    of = spec(space, model=model, budget={"epochs": draw(st.integers(1, 1_000_000))})
    keys = st.sampled_from(NUMBERS)
    advice = st.builds(
        Advice,
        key=st.one_of(keys.map(lambda key: f"space.{key}"), st.sampled_from(["data", "budget.epochs", "dropout"])),
        change=TEXTS,
        why=TEXTS,
        up=st.sampled_from([True, False, None]),
    )
    border = st.builds(pressed, keys, st.sampled_from(["upper", "lower"]), st.just(1.0))
    pairs = st.tuples(st.floats(0, 1), st.floats(0, 0.2))
    report = made_report(
        draw(st.sampled_from(Verdict)),
        advice=tuple(draw(st.lists(advice, max_size=5))),
        borders=tuple(draw(st.lists(border, max_size=4))),
        importances=draw(st.dictionaries(keys, pairs, max_size=6)),
        good=draw(st.dictionaries(keys, st.tuples(st.floats(1e-3, 1), st.floats(1, 50)), max_size=6)),
        settings={key: value for key in draw(st.sets(keys)) if (value := inside(draw, of, key)) is not None},
    )
    return report, of


def inside(draw: st.DrawFn, of: StudySpec, key: str) -> Any:
    """A value that a winner can have there."""
    dimension = getattr(of.space, key)
    if isinstance(dimension, Choice):
        return draw(st.sampled_from(dimension.values))
    if not isinstance(dimension, Range):
        return dimension.value
    if isinstance(dimension.low, int):
        return draw(st.integers(dimension.low, int(dimension.high)))
    return draw(st.floats(dimension.low, dimension.high))


@settings(max_examples=40, deadline=None)
@given(reports())
def test_what_is_written_is_a_study_file_that_keeps_what_is_fixed_and_what_the_winner_has(
    made: tuple[Report, StudySpec],
) -> None:
    report, of = made
    refined = refine(report, of, trials(40))
    text = refined_text(refined, report)
    assert parse_study(text, "/x/study.yaml").to_mapping() == refined.spec.to_mapping()
    assert refined_text(refined, report) == text
    changed = {change.key for change in refined.changes}
    assert all(change.why.strip(": ") or report.diagnosis.advice for change in refined.changes)
    for key in type(of.space).model_fields:
        before, after = getattr(of.space, key), getattr(refined.spec.space, key)
        assert (before != after) == (f"space.{key}" in changed)
        if before != after:
            assert isinstance(before, Range | Choice)
            assert type(before) is type(after)
        value = report.settings.get(key)
        if isinstance(before, Range) and value is not None and not isinstance(value, bool):
            assert isinstance(after, Range)
            assert after.low <= value <= after.high
    rest = {"space", "budget", "start_from"}
    assert refined.spec.model_dump(exclude=rest) == of.model_dump(exclude=rest)


@settings(max_examples=60, deadline=None)
@given(reports(), st.sampled_from(NUMBERS), st.booleans())
def test_best_values_that_press_against_an_end_always_move_it_where_there_is_room(
    made: tuple[Report, StudySpec], key: str, up: bool
) -> None:
    report, of = made
    dimension = getattr(of.space, key)
    lowest, highest = LIMITS[key]
    if (
        not isinstance(dimension, Range)
        or dimension.step is not None
        or (key in CONV_KEYS and of.model == (Family.MLP,))
    ):
        return
    end = "upper" if up else "lower"
    report = replace(report, space=replace(report.space, borders=(pressed(key, end, 1.0),)))
    after = getattr(refine(report, of, trials(40)).spec.space, key)
    if up and dimension.high < highest:
        assert after.high > dimension.high
    elif not up and dimension.low > lowest:
        assert after.low < dimension.low
    else:
        assert (after.high == dimension.high) if up else (after.low == dimension.low)
