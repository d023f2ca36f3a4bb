"""How long a study will take, from what its trials are said to take."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from neurosweep.errors import BadInputError
from search import forecast as forecasts
from search.forecast import BETWEEN_PACKS, CROWDED, IMPORT_SECONDS, IMPORTS, Forecast, forecast
from search.preview import preview
from search.spec import StudySpec
from search.validation import read_data

FIXED: dict[str, Any] = {
    "layers": 1,
    "neurons": 8,
    "activation": "relu",
    "learning_rate": 0.01,
    "optimizer": "adam",
    "weight_decay": 0.0,
    "dropout": 0.0,
    "batch_norm": False,
    "batch_size": 32,
    "schedule": "constant",
}
EPOCH = 3.0
"""Seconds, where a test says what is measured."""


@pytest.fixture(autouse=True)
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """And torch's import as on a quiet machine, whoever has imported it before."""
    import trainer.worker  # noqa: F401

    monkeypatch.setattr("os.cpu_count", lambda: 2)
    monkeypatch.setattr("trainer.worker.gpu_count", lambda: 0)


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every epoch takes three seconds, and nothing else any."""
    pace = forecasts._Pace(rates=(0.0, 0.0, 1.0), beginning=0.0, failing=0.0, measured=7)
    monkeypatch.setattr(forecasts, "_measured", lambda *_: pace)
    monkeypatch.setattr(forecasts, "_features", lambda *_: (0.0, 0.0, EPOCH))


def foretold(pruner: str = "none", *, workers: int = 1, changes: Any = None, **budget: Any) -> Forecast:
    mapping = {
        "name": "s",
        "data": {"source": "iris"},
        "metric": "log_loss",
        "space": FIXED,
        "search": {"sampler": "random", "pruner": pruner, "audit": 0.0},
        "budget": {"trials": 20, "epochs": 27, **budget},
        "workers": {"count": workers},
        **(changes or {}),
    }
    spec, dataset = read_data(StudySpec.from_mapping(mapping))
    draws = preview(spec, dataset.input_shape, dataset.outputs, len(dataset.train)).draws[:50]
    return forecast(spec, dataset, draws)


@pytest.mark.usefixtures("measured")
def test_without_a_pruner_every_trial_takes_all_its_epochs() -> None:
    found = foretold()
    packs = 20 / 5  # a quarter of the study at a time
    assert found.epochs == 27
    assert found.seconds.value == pytest.approx(
        IMPORTS * IMPORT_SECONDS + 20 * 27 * EPOCH + packs * BETWEEN_PACKS, abs=1e-6
    )
    assert found.seconds.low < found.seconds.value < found.seconds.high
    assert found.worker_hours.value == pytest.approx(found.seconds.value / 3600)
    assert (found.gpu_hours.value, found.measured, found.limited) == (0, 7, False)


@pytest.mark.usefixtures("measured")
def test_two_workers_halve_it_but_leave_no_core_to_anybody_else() -> None:
    alone, together = (foretold(workers=count).seconds.value - IMPORTS * IMPORT_SECONDS for count in (1, 2))
    assert together == pytest.approx(CROWDED * alone / 2, rel=0.01)


@pytest.mark.usefixtures("measured")
def test_successive_halving_trains_a_ninth_of_the_epochs_and_the_audit_adds_its_share() -> None:
    # Rungs at 1, 3 and 9 of 27 epochs, a third goes on: about 1 + 2 / 3 + 6 / 9 + 18 / 27 = 3 epochs. Each audited one
    # adds what it would have been spared.
    halved = foretold("asha", trials=300).epochs
    assert 2.5 < halved < 4
    everything, some = ({"search": {"sampler": "random", "pruner": "asha", "audit": share}} for share in (1.0, 0.05))
    assert foretold(trials=300, changes=everything).epochs == 27
    assert halved + 0.5 < foretold(trials=300, changes=some).epochs < halved + 2


@pytest.mark.usefixtures("measured")
def test_more_trials_go_on_where_the_sampler_learns_or_many_are_equally_good() -> None:
    search = {"sampler": "random", "pruner": "asha", "audit": 0.0}
    usual = foretold(trials=300, changes={"search": search}).epochs
    assert foretold(trials=300, changes={"search": {**search, "sampler": "tpe"}}).epochs > usual
    assert foretold(trials=300, changes={"search": search, "metric": "error"}).epochs > usual  # of 22 rows


@pytest.mark.usefixtures("measured")
def test_a_long_study_is_played_through_in_part() -> None:
    short, long = (foretold(trials=trials).seconds.value - IMPORTS * IMPORT_SECONDS for trials in (400, 400_000))
    assert long == pytest.approx(1000 * short, rel=0.02)


@pytest.mark.usefixtures("measured")
def test_the_minutes_of_the_budget_end_it() -> None:
    found = foretold(minutes=1)
    assert (found.seconds.value, found.seconds.high, found.limited) == (60, 60, True)
    assert not foretold(minutes=1000).limited


@pytest.mark.usefixtures("measured")
def test_trials_that_fail_at_once_take_one_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    pace = dataclasses.replace(forecasts._measured(*[None] * 5), failing=1.0)  # type: ignore[arg-type]
    monkeypatch.setattr(forecasts, "_measured", lambda *_: pace)
    assert foretold().epochs == 1


def test_workers_that_do_not_fit_are_refused() -> None:
    with pytest.raises(BadInputError, match=r"workers\.count"):
        foretold(workers=3)


@pytest.mark.parametrize("pruner", ["asha", "hyperband", "median"])
def test_a_few_trials_are_really_trained_and_their_epochs_cost_something(
    pruner: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forecasts, "MEASURED_SECONDS", 0.2)
    found = foretold(pruner, changes={"space": {"layers": [1, 2], "neurons": {"low": 4, "high": 32}}})
    assert found.measured >= 5
    assert IMPORTS * IMPORT_SECONDS < found.seconds.value < 1e5
    assert found.seconds.low <= found.seconds.value <= found.seconds.high
    assert 1 <= found.epochs <= 27


def test_rates_are_found_again_and_keep_their_proportion_where_nothing_is_said_of_them() -> None:
    rates = np.array([4e-10, 3e-11, 5e-4])
    features = np.random.default_rng(0).uniform(0.1, 1, (5000, 3)) * [1e9, 1e10, 1e3]
    assert forecasts._rates(features, features @ rates) == pytest.approx(rates, rel=0.05)
    slow = np.array([[0.0, 0.0, 1e3]])  # one pack, of calls alone: ten times as slow as the reference
    assert forecasts._rates(slow, slow @ (10 * forecasts.REFERENCE)) == pytest.approx(10 * forecasts.REFERENCE)
