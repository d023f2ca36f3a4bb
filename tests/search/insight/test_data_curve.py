"""The data curve on known laws."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search.insight.data_curve import FARTHEST, data_curve, fitted
from search.insight.findings import Probe
from search.insight.seeds import seed_noise
from tests.search.insight.test_quick import levels
from tests.search.insight.trials import extra_run, trial

ROWS = (250, 500, 1000)


def law(rows: tuple[int, ...], a: float, b: float, c: float) -> tuple[float, ...]:
    return tuple(a * count**-b + c for count in rows)


@settings(deadline=None, max_examples=25)
@given(a=st.floats(0.5, 20), b=st.floats(0.2, 1.2), c=st.floats(0, 0.1), unit=st.sampled_from([1.0, 1e-6, 1e8]))
def test_a_law_is_found_again_and_so_are_the_rows_for_a_goal(a: float, b: float, c: float, unit: float) -> None:
    values = tuple(unit * value for value in law(ROWS, a, b, c))
    reach = unit * law((2500,), a, b, c)[0]

    found = fitted(ROWS, values, goal=reach, spread=0.0, seed=0)

    assert found.a is not None and found.b is not None and found.c is not None
    assert law(ROWS, found.a, found.b, found.c) == pytest.approx(values, rel=1e-3)
    assert found.rows_for_target is not None
    assert found.rows_for_target.value == pytest.approx(2500, rel=0.05)


def test_the_rows_are_told_only_where_noise_allows_and_the_interval_holds_the_truth() -> None:
    random, told, held = np.random.default_rng(0), 0, 0
    rows, goal = (125, 250, 500, 1000, 2000), law((4000,), 4.0, 0.6, 0.03)[0]
    for seed in range(12):
        values = np.array(law(rows, 4.0, 0.6, 0.03)) + random.normal(0, 0.0005, len(rows))
        found = fitted(rows, values.tolist(), goal=goal, spread=0.0005, seed=seed)
        if found.rows_for_target is not None:
            told += 1
            held += found.rows_for_target.low <= 4000 <= found.rows_for_target.high

    assert told >= 10
    assert held >= told - 3


@pytest.mark.parametrize(
    ("values", "goal", "why"),
    [
        ((0.1, 0.1, 0.1), 0.05, "did not help"),
        ((0.1, 0.11, 0.12), 0.05, "did not help"),
        ((0.100, 0.099, 0.098), 0.05, "did not help"),  # within the noise
        (law(ROWS, 4.0, 0.5, 0.1), 0.05, "levels off at 0.1"),
        (law(ROWS, 4.0, 0.1, 0.0), 0.1, "not to be trusted"),
        (law(ROWS, 4.0, 0.5, 0.0), None, "neither a target nor a person"),
        (law(ROWS, 4.0, 0.5, 0.0), 0.2, "reached with the rows at hand"),
    ],
)
def test_where_no_number_of_rows_is_told_the_reason_is(values: tuple[float, ...], goal: float | None, why: str) -> None:
    found = fitted(ROWS, values, goal=goal, spread=0.002, seed=0)

    assert found.rows_for_target is None
    assert found.why_not is not None and why in found.why_not


def test_no_number_is_told_far_beyond_the_rows_at_hand() -> None:
    goal = law((int(FARTHEST * 1.2 * ROWS[-1]),), 4.0, 0.5, 0.0)[0]

    assert fitted(ROWS, law(ROWS, 4.0, 0.5, 0.0), goal=goal, spread=0.0, seed=0).rows_for_target is None


def test_two_numbers_of_rows_make_no_law() -> None:
    found = fitted((500, 1000), (0.2, 0.1), goal=0.05, spread=0.0, seed=0)

    assert (found.a, found.rows_for_target) == (None, None)
    assert found.why_not is not None and "three" in found.why_not


def test_the_curve_is_made_of_the_winners_runs_and_ends_with_what_fresh_seeds_get() -> None:
    runs = [extra_run(Probe.ROWS, 4, share, validation=0.1 / share, rows=int(1000 * share)) for share in (0.25, 0.5)]
    runs.append(extra_run(Probe.ROWS, 5, 0.5, validation=0.9, rows=500))
    seeds = [extra_run(Probe.SEED, 4, at, validation=value) for at, value in enumerate((0.09, 0.11))]
    noise = seed_noise([trial(4, validation=0.05)], seeds, winner=4)
    usual = {"winner": 4, "levels": levels(), "rows": 1000, "noise": 0.0, "seed": 0}

    found = data_curve(runs, seeds=noise, **usual)  # type: ignore[arg-type]

    assert found is not None
    assert found.rows == (250, 500, 1000)
    assert found.values == pytest.approx((0.4, 0.2, 0.1))
    assert data_curve(runs, seeds=None, **usual).values[-1] == levels().validation.value  # type: ignore[arg-type, union-attr]
    assert data_curve(seeds, seeds=noise, **usual) is None  # type: ignore[arg-type]
