"""The tree-structured Parzen estimator, beside Optuna's own, and what it has to hold to."""

from __future__ import annotations

import math
import random
from typing import Any

import numpy as np
import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import TPESampler
from optuna.samplers._tpe.parzen_estimator import _ParzenEstimator, _ParzenEstimatorParameters
from optuna.samplers._tpe.sampler import _split_trials, default_gamma, default_weights
from optuna.trial import FrozenTrial, create_trial
from optuna.trial import TrialState as OptunaState
from scipy import stats

from search.parzen import CELLS, Floats, scale_of
from search.tpe import TreeParzen

DISTRIBUTIONS: dict[str, BaseDistribution] = {
    "rate": FloatDistribution(1e-5, 1.0, log=True),
    "dropout": FloatDistribution(0.0, 0.5),
    "stepped": FloatDistribution(0.0, 1.0, step=0.1),
    "layers": IntDistribution(1, 4),
    "neurons": IntDistribution(16, 256, step=16),
    "filters": IntDistribution(1, 300),
    "width": IntDistribution(8, 512, log=True),
    "activation": CategoricalDistribution(["relu", "tanh", "gelu"]),
}

EVEN = _ParzenEstimatorParameters(
    prior_weight=1.0, consider_magic_clip=True, consider_endpoints=False, weights=np.ones, multivariate=False
)


def made(
    number: int, state: OptunaState, value: float | None, params: dict[str, Any], steps: dict[int, float] | None = None
) -> FrozenTrial:
    trial = create_trial(
        state=state,
        value=value if state is OptunaState.COMPLETE else None,
        params=params,
        distributions={name: DISTRIBUTIONS[name] for name in params},
        intermediate_values=steps or {},
    )
    trial.number = number
    return trial


def random_params(numbers: np.random.Generator, names: list[str]) -> dict[str, Any]:
    params = {}
    for name in names:
        scale, distribution = scale_of(DISTRIBUTIONS[name]), DISTRIBUTIONS[name]
        # Not evenly spread: more in the lower half.
        place = numbers.beta(2, 4) * scale.cells
        params[name] = distribution.to_external_repr(scale.value(int(place), place % 1))
    return params


def history(seed: int, count: int) -> list[FrozenTrial]:
    """Trials of all states; some lack the parameter `neurons`."""
    numbers = np.random.default_rng(seed)
    states = [OptunaState.COMPLETE] * 4 + [OptunaState.PRUNED] * 3 + [OptunaState.FAIL, OptunaState.RUNNING]
    trials = []
    for number in range(count):
        names = ["rate", "layers", "activation", *(["neurons"] if numbers.random() < 0.6 else [])]
        params = random_params(numbers, names)
        value = abs(math.log10(params["rate"]) + 3) + 0.3 * params["layers"] + float(params["activation"] != "tanh")
        steps = {step: value + 1 / step for step in range(1, int(numbers.integers(1, 5)))}
        trials.append(made(number, states[numbers.integers(len(states))], value, params, steps))
    return trials


def taught(trials: list[FrozenTrial], seed: int = 0) -> TreeParzen:
    sampler = TreeParzen(lambda number: 1_000_000 * seed + number)
    for trial in trials:
        sampler.learn(trial)
    return sampler


def drawn(sampler: TreeParzen, number: int, names: list[str]) -> dict[str, Any]:
    study, trial = optuna.create_study(), made(number, OptunaState.RUNNING, None, {})
    return {name: sampler.sample_independent(study, trial, name, DISTRIBUTIONS[name]) for name in names}


@pytest.fixture(autouse=True)
def _quiet() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)


def optunas_density(name: str, observed: list[float], weights: Any = np.ones) -> Floats:
    """The mass that Optuna's estimator gives to each cell."""
    distribution, scale = DISTRIBUTIONS[name], scale_of(DISTRIBUTIONS[name])
    parameters = EVEN._replace(weights=weights)
    estimator = _ParzenEstimator({name: np.array(observed)}, {name: distribution}, parameters)
    places = np.array([scale.value(cell, 0.5) for cell in range(scale.cells)])
    masses: Floats = np.exp(estimator.log_pdf({name: places}))
    if isinstance(distribution, FloatDistribution) and distribution.step is None:
        # A density for each value, here times the width of a cell; Optuna has it on the logarithmic scale as well.
        ends = (distribution.low, distribution.high)
        low, high = np.log(ends) if distribution.log else ends
        masses *= (high - low) / scale.cells
    return masses


@pytest.mark.parametrize("name", ["rate", "dropout", "stepped", "layers", "neurons", "activation"])
@pytest.mark.parametrize("count", [0, 1, 2, 5, 25, 90, 400])
def test_densities_are_optunas(name: str, count: int) -> None:
    scale = scale_of(DISTRIBUTIONS[name])
    numbers = np.random.default_rng(count)
    cells = np.minimum((numbers.beta(2, 4, count) * scale.cells).astype(np.int64), scale.cells - 1)
    counts = np.bincount(cells, minlength=scale.cells)

    density = scale.density(counts, counts.astype(float))

    assert density.sum() == pytest.approx(count + 1)
    expected = optunas_density(name, [scale.value(int(cell), 0.5) for cell in cells])
    assert expected.sum() == pytest.approx(1, abs=0.01)
    # Half of the summed differences: how much mass would have to be moved.
    assert np.abs(density / density.sum() - expected).sum() / 2 < 0.015


def test_a_logarithmic_int_has_its_density_between_its_values() -> None:
    """Cells are narrower than the small numbers: what falls on a number, all cells together, is Optuna's."""
    distribution, scale = DISTRIBUTIONS["width"], scale_of(DISTRIBUTIONS["width"])
    observed = [8, 9, 11, 64, 70, 300]
    counts = np.bincount([scale.cell(value) for value in observed], minlength=scale.cells)
    estimator = _ParzenEstimator({"width": np.array(observed, dtype=float)}, {"width": distribution}, EVEN)
    found = dict.fromkeys(range(8, 513), 0.0)
    for cell, mass in enumerate(scale.density(counts, counts.astype(float))):
        for within in (np.arange(200) + 0.5) / 200:
            found[round(scale.value(cell, within))] += mass / 200 / (len(observed) + 1)

    expected = np.exp(estimator.log_pdf({"width": np.arange(8.0, 513.0)}))

    assert np.abs(np.array(list(found.values())) - expected).sum() / 2 < 0.02


@pytest.mark.parametrize(("name", "count"), [("dropout", 4), ("dropout", 30), ("neurons", 5), ("activation", 4)])
def test_the_kernel_of_one_more_value_is_optunas(name: str, count: int) -> None:
    """Where it is alone in its cell, and has others on both sides."""
    scale = scale_of(DISTRIBUTIONS[name])
    cells = (np.random.default_rng(count).random(count) * scale.cells).astype(np.int64)
    counts = np.bincount(cells, minlength=scale.cells)
    kernels = scale.kernels(counts)
    assert kernels.sum(axis=1) == pytest.approx(np.ones(scale.cells))

    new = [c for c in range(cells.min() + 1, cells.max()) if not counts[c]] or list(range(scale.cells))
    for cell in new:
        # Weights that leave of all values only the last, and the prior: 1 each.
        values = [scale.value(int(c), 0.5) for c in (*cells, cell)]
        last = optunas_density(name, values, lambda n: np.array([1e-300] * (n - 1) + [1.0]))
        prior = scale.density(np.zeros(scale.cells, dtype=np.int64), np.zeros(scale.cells))
        assert np.abs((kernels[cell] + prior) / 2 - last).sum() / 2 < 0.02


def test_one_more_value_among_several_equal_ones_is_as_narrow_as_may_be() -> None:
    kernels = scale_of(DISTRIBUTIONS["layers"]).kernels(np.array([20, 20, 20, 1]))

    assert kernels[1, 1] > 0.99
    assert kernels[3, 3] < 0.9


@pytest.mark.parametrize("count", [12, 25, 40, 200, 2000])
def test_old_trials_weigh_less_as_with_optuna(count: int) -> None:
    """All trials have the parameter; its choices take turns in time, and the good trials are the first ones."""
    sampler, good = TreeParzen(lambda number: number), default_gamma(count)
    choices = [3 * number // count for number in range(count)]
    for number, choice in enumerate(choices):
        params = {"activation": ["relu", "tanh", "gelu"][choice]}
        sampler.learn(made(number, OptunaState.COMPLETE, 1.0, params))
    theirs = np.bincount(choices[good:], default_weights(count - good), minlength=3)

    weights = sampler._parameters["activation"].bad.weights(count - 1)

    # Numbers are not ranks: the good trials, which are no ranks among the bad ones, have numbers.
    assert weights == pytest.approx(theirs, abs=0.06 * count if count > 25 else 0)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), count=st.integers(0, 400), order=st.randoms(use_true_random=False))
def test_good_trials_are_those_that_optuna_takes(seed: int, count: int, order: random.Random) -> None:
    trials = history(seed, count)
    known = [trial for trial in trials if trial.state is not OptunaState.FAIL]
    finished = sum(trial.state.is_finished() for trial in known)
    below, _ = _split_trials(optuna.create_study(), known, default_gamma(finished))
    order.shuffle(trials)

    sampler = taught(trials)

    assert {rank[-1] for rank in sampler._ranks[: sampler._good]} == {trial.number for trial in below}
    assert not count or set(sampler._parameters["layers"].good.places) == {trial.number for trial in below}


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), count=st.integers(0, 120), order=st.randoms(use_true_random=False))
def test_proposals_do_not_depend_on_the_order_of_the_news(seed: int, count: int, order: random.Random) -> None:
    trials = history(seed, count)
    names = ["rate", "layers", "activation", "neurons"]
    straight, mixed = TreeParzen(lambda number: number), TreeParzen(lambda number: number)
    for trial in trials:
        if trial.state is OptunaState.FAIL and trial.number % 2:
            straight.too_large(trial.number)
            mixed.too_large(trial.number)
        straight.learn(trial)
    order.shuffle(trials)
    for trial in trials:
        if trial.state.is_finished() and order.random() < 0.5:
            # It was running for a while, and the tables were made and used meanwhile.
            mixed.learn(made(trial.number, OptunaState.RUNNING, None, trial.params))
            drawn(mixed, 10_000, names[:2])
            mixed.learn(made(10_000, OptunaState.FAIL, None, {}))
        if trial.state.is_finished():
            values = [trial.value] if trial.value is not None else None
            mixed.after_trial(optuna.create_study(), trial, trial.state, values)
        else:
            mixed.learn(trial)

    for number in (count, count + 1):
        assert drawn(mixed, number, names) == drawn(straight, number, names)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**62),
    count=st.integers(0, 40),
    low=st.floats(1e-3, 10),
    span=st.floats(1e-3, 1e3),
    whole=st.integers(1, 5000),
    step=st.integers(1, 7),
)
def test_values_lie_in_their_distributions(
    seed: int, count: int, low: float, span: float, whole: int, step: int
) -> None:
    distributions: dict[str, BaseDistribution] = {
        "a": FloatDistribution(low, low + span),
        "b": FloatDistribution(low, low + span, log=True),
        "c": FloatDistribution(0.0, 2.0, step=0.25),
        "d": IntDistribution(whole, whole + 5 * step, step=step),
        "e": IntDistribution(1, 1 + whole, log=True),
        "f": IntDistribution(-whole, whole),
        "g": CategoricalDistribution([True, "x", 0.5]),
    }
    sampler, study = TreeParzen(lambda number: seed + number), optuna.create_study()
    for number in range(count):
        frozen = made(number, OptunaState.RUNNING, None, {})
        for name, distribution in distributions.items():
            value = sampler.sample_independent(study, frozen, name, distribution)
            assert distribution._contains(distribution.to_internal_repr(value)), (name, value)
            assert type(value) in ((bool, str, float) if name == "g" else (int,) if name in "def" else (float,))
            frozen.params[name], frozen.distributions[name] = value, distribution
        sampler.after_trial(study, frozen, OptunaState.COMPLETE, [frozen.params["a"]])


def test_proposals_are_spread_as_optunas_are() -> None:
    """The same history, and 500 proposals each: the largest difference of the cumulative distributions is small, which
    that of a sampler without the history is not."""
    trials = [trial for trial in history(3, 150) if trial.state.is_finished()]
    study = optuna.create_study()
    study.add_trials(trials)
    names, count = ["rate", "layers", "activation", "neurons"], 500
    theirs: dict[str, list[Any]] = {name: [] for name in names}
    ours: dict[str, list[Any]] = {name: [] for name in names}
    sampler = taught(trials, seed=1)
    for number in range(1000, 1000 + count):
        optunas, trial = TPESampler(seed=number, multivariate=False), made(number, OptunaState.RUNNING, None, {})
        for name in names:
            theirs[name].append(optunas.sample_independent(study, trial, name, DISTRIBUTIONS[name]))
        for name, value in drawn(sampler, number, names).items():
            ours[name].append(value)
        sampler.after_trial(study, trial, OptunaState.FAIL, None)
    blind = [drawn(TreeParzen(lambda number: number), number, names) for number in range(count)]
    for name in names:
        apart, without = (
            stats.ks_2samp([order(name, v) for v in values], [order(name, v) for v in theirs[name]]).statistic
            for values in (ours[name], [proposed[name] for proposed in blind])
        )
        assert apart < 0.15 < 0.2 < without, name


def order(name: str, value: Any) -> float:
    return DISTRIBUTIONS[name].to_internal_repr(value)


def test_proposals_of_one_moment_keep_away_from_each_other() -> None:
    """The first is where it is alone, and the others, which see it run, are not all there too."""
    trials = [made(n, OptunaState.COMPLETE, abs(n - 30) / 60, {"dropout": n / 120}) for n in range(60)]
    together, apart = taught(trials), []
    batch = [drawn(together, number, ["dropout"])["dropout"] for number in range(60, 92)]
    for number in range(60, 92):
        apart.append(drawn(taught(trials), number, ["dropout"])["dropout"])

    assert batch[0] == apart[0]
    assert np.std(batch) > 1.3 * np.std(apart)


def test_a_failed_trial_is_forgotten() -> None:
    trials = [trial for trial in history(5, 60) if trial.state.is_finished()]
    clean = [trial for trial in trials if trial.state is not OptunaState.FAIL]
    assert len(clean) < len(trials)

    names = ["rate", "layers", "activation"]
    assert drawn(taught(trials), 60, names) == drawn(taught(clean), 60, names)


def test_a_trial_that_did_not_fit_is_a_bad_one_and_never_a_good_one() -> None:
    """Also before there are other bad ones, and in whatever order it becomes known."""
    ended = [made(n, OptunaState.COMPLETE, n / 60, {"dropout": n / 120}) for n in range(12)]
    failed = [made(n, OptunaState.FAIL, None, {"dropout": 0.4 + n / 400}) for n in range(12, 30)]

    def knowing(trials: list[FrozenTrial]) -> TreeParzen:
        sampler = TreeParzen(lambda number: number)
        for trial in trials:
            if trial.state is OptunaState.FAIL:
                sampler.too_large(trial.number)
            sampler.learn(trial)
        return sampler

    def high(sampler: TreeParzen) -> int:
        return sum(drawn(sampler, number, ["dropout"])["dropout"] > 0.38 for number in range(100, 400))

    sampler = knowing(failed[:9])
    drawn(sampler, 50, ["dropout"])
    assert (sampler._good, sampler._ranks) == (0, [])
    sampler = knowing(failed + ended)
    dropout, forgetting = sampler._parameters["dropout"], taught(failed + ended)
    assert set(dropout.bad.places) == {trial.number for trial in failed + ended} - set(dropout.good.places)
    assert set(dropout.good.places) == set(forgetting._parameters["dropout"].good.places)
    assert drawn(knowing(ended + failed[::-1]), 99, ["dropout"]) == drawn(knowing(failed + ended), 99, ["dropout"])
    assert high(sampler) < 0.5 * high(forgetting)


def test_a_trial_draws_from_its_own_seed() -> None:
    trials = [trial for trial in history(7, 60) if trial.state.is_finished()]
    names = ["rate", "dropout"]

    again, other = drawn(taught(trials), 60, names), drawn(taught(trials, seed=1), 60, names)

    assert drawn(taught(trials), 60, names) == again != other
    assert drawn(taught(trials), 61, names) != again


def test_it_serves_an_optuna_study_and_finds_a_minimum() -> None:
    def parabola(trial: optuna.Trial) -> float:
        return (trial.suggest_float("x", -5, 5) - 2) ** 2 + trial.suggest_int("n", 0, 9)

    study = optuna.create_study(sampler=TreeParzen(lambda number: number))
    study.optimize(parabola, n_trials=80)

    assert study.best_value < 0.05
    assert study.best_params["n"] == 0


def test_a_range_of_many_values_has_no_more_cells_than_any() -> None:
    assert scale_of(DISTRIBUTIONS["filters"]).cells == scale_of(DISTRIBUTIONS["rate"]).cells == CELLS
    assert [scale_of(DISTRIBUTIONS[name]).cells for name in ("layers", "neurons", "stepped", "activation")] == [
        4,
        16,
        11,
        3,
    ]
