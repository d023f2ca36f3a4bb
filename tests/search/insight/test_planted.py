"""Planted illnesses: the diagnosis names each, and claims none of the healthy.

Two of each kind would take minutes: by default some of the cheap ones run. ``NEUROSWEEP_PLANTED=20`` runs twenty ill
studies and twenty healthy ones, and wants nineteen of the ill named.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Callable

import numpy as np
import pytest

from search.insight.findings import Report, Verdict
from tests.search.insight.planted import clouds, curved, diagnosed, rings, spec_of, studied, table
from trainer.data.dataset import Split

FULL = int(os.environ.get("NEUROSWEEP_PLANTED", "0"))

ILL = {Verdict.NOT_LEARNING, Verdict.UNDERFITTING, Verdict.OVERFITTING, Verdict.OVER_SEARCHED}


def advised(report: Report, key: str, up: bool) -> bool:
    return any(advice.key == key and advice.up is up for advice in report.diagnosis.advice)


def warned(report: Report, words: str) -> bool:
    return any(words in warning for warning in report.warnings)


def too_small(seed: int) -> bool:
    classes = 3 + seed % 2
    inputs, targets = rings(1800, classes=classes, seed=seed)
    data = table(inputs, targets, (1000, 400, 400), classes=classes)
    report = diagnosed(studied(data, spec_of(data, {"neurons": 2}, epochs=30, trials=8, seed=seed)))
    return report.diagnosis.verdict is Verdict.UNDERFITTING and advised(report, "space.neurons", True)


def too_few_epochs(seed: int) -> bool:
    inputs, targets = rings(1800, classes=2 + seed % 2, seed=seed)
    data = table(inputs, targets, (1000, 400, 400), classes=2 + seed % 2)
    space = {"learning_rate": {"low": 0.003, "high": 0.01, "log": True}}
    report = diagnosed(studied(data, spec_of(data, space, epochs=3, trials=8, seed=seed)))
    verdict = report.diagnosis.verdict
    return verdict in (Verdict.UNDERFITTING, Verdict.NOT_LEARNING) and advised(report, "budget.epochs", True)


def rate_too_low(seed: int) -> bool:
    inputs, targets = clouds(1800, classes=4, features=6, apart=5, seed=seed)
    data = table(inputs, targets, (1000, 400, 400), classes=4)
    space = {"learning_rate": {"low": 5e-6, "high": 2e-5, "log": True}}
    report = diagnosed(studied(data, spec_of(data, space, epochs=15, trials=8, seed=seed)))
    verdict = report.diagnosis.verdict
    return verdict in (Verdict.UNDERFITTING, Verdict.NOT_LEARNING) and advised(report, "space.learning_rate", True)


def rate_too_high(seed: int) -> bool:
    inputs, targets = rings(1800, classes=3, seed=seed)
    data = table(inputs, targets, (1000, 400, 400), classes=3)
    space = {"learning_rate": {"low": 5.0, "high": 20.0, "log": True}, "layers": 2}
    report = diagnosed(studied(data, spec_of(data, space, epochs=15, trials=8, seed=seed)))
    verdict = report.diagnosis.verdict
    return verdict in (Verdict.UNDERFITTING, Verdict.NOT_LEARNING) and advised(report, "space.learning_rate", False)


def shuffled_labels(seed: int) -> bool:
    inputs, targets = clouds(2600, classes=4, features=8, apart=5, seed=seed)
    random = np.random.default_rng(seed)
    wrong = random.random(len(targets)) < 0.3
    targets = targets.copy()
    targets[wrong] = random.permutation(targets[wrong])
    data = table(inputs, targets, (1400, 600, 600), classes=4)
    report = diagnosed(studied(data, spec_of(data, {"neurons": 8}, epochs=10, trials=8, seed=seed)))
    return warned(report, "labels may be wrong") and len(report.data.suspects) > 0


def leak(seed: int) -> bool:
    inputs, targets = clouds(1800, classes=3, features=5, apart=2.5, seed=seed)
    random = np.random.default_rng(seed)
    place = seed % inputs.shape[1]
    inputs[:, place] = targets * 7.0 + random.normal(size=len(targets))
    data = table(inputs, targets, (1000, 400, 400), classes=3)
    report = diagnosed(studied(data, spec_of(data, {}, epochs=5, trials=5, seed=seed)))
    return list(report.data.leaks) == [f"column {place}"] and warned(report, "almost perfectly")


def copies(seed: int) -> bool:
    inputs, targets = clouds(1800, classes=3, features=5, apart=3, seed=seed)
    copied = 20 + seed
    inputs[1000 : 1000 + copied], targets[1000 : 1000 + copied] = inputs[:copied], targets[:copied]
    data = table(inputs, targets, (1000, 400, 400), classes=3)
    report = diagnosed(studied(data, spec_of(data, {}, epochs=5, trials=5, seed=seed)))
    return report.data.duplicates["train/validation"] == (copied, 0) and warned(report, "stand in the train split")


def tiny_validation(seed: int) -> bool:
    inputs, targets = clouds(1424, classes=3, features=6, apart=4, seed=seed)
    data = table(inputs, targets, (1000, 24, 400), classes=3)
    report = diagnosed(studied(data, spec_of(data, {}, epochs=8, trials=8, seed=seed)))
    return report.diagnosis.verdict is Verdict.NOISE_BOUND and warned(report, "validation split is small")


def searched_to_death(seed: int) -> bool:
    """Sixty noisy validation rows, dealt out anew three hundred times until some trial looks good on them by luck."""
    inputs, targets = clouds(3500, classes=2, features=10, apart=1.5, seed=seed)
    random = np.random.default_rng(seed)
    targets = np.where(random.random(len(targets)) < 0.2, 1 - targets, targets)
    data = table(inputs, targets, (500, 1500, 1500), classes=2)
    space = {"neurons": {"low": 2, "high": 8}, "learning_rate": {"low": 0.003, "high": 0.03, "log": True}}
    study = studied(data, spec_of(data, space, epochs=2, trials=30, seed=seed))
    pool, wrong = data.validation, np.array([study.wrong(trial.number, data.validation) for trial in study.trials])
    dealings = [np.sort(random.choice(len(pool), 60, replace=False)) for _ in range(300)]
    dealt = min(dealings, key=lambda rows: wrong[:, rows].mean(axis=1).min())
    study.dataset = dataclasses.replace(
        data, validation=Split(inputs=pool.inputs[dealt], targets=pool.targets[dealt], rows=pool.rows[dealt])
    )
    study.trials = [
        dataclasses.replace(trial, validation=float(wrong[at, dealt].mean())) for at, trial in enumerate(study.trials)
    ]
    return diagnosed(study, ()).diagnosis.verdict is Verdict.OVER_SEARCHED


def healthy(seed: int) -> tuple[bool, str]:
    if seed % 3 == 2:
        inputs, targets = curved(3400, features=4, noise=0.15, seed=seed)
        data = table(inputs, targets, (1800, 800, 800))
        spec = spec_of(data, {}, epochs=20, trials=8, seed=seed)
    else:
        classes = 2 + seed % 4
        inputs, targets = clouds(3400, classes=classes, features=4 + seed % 5, apart=4 + seed % 2, seed=seed)
        data = table(inputs, targets, (1800, 800, 800), classes=classes)
        spec = spec_of(data, {}, epochs=12, trials=8, seed=seed)
    report = diagnosed(studied(data, spec))
    told = [each for each in report.warnings if each in report.data.warnings]
    clean = report.diagnosis.verdict not in ILL and not told
    return clean, f"{report.diagnosis.verdict}: {told} {report.diagnosis.reasons}"


ILLNESSES: tuple[Callable[[int], bool], ...] = (
    too_small,
    too_few_epochs,
    rate_too_low,
    rate_too_high,
    shuffled_labels,
    leak,
    copies,
    tiny_validation,
    searched_to_death,
)


@pytest.mark.skipif(FULL > 0, reason="all of them run at once")
@pytest.mark.parametrize("illness", ILLNESSES)
def test_an_illness_is_named(illness: Callable[[int], bool]) -> None:
    assert illness(0)


@pytest.mark.skipif(FULL > 0, reason="all of them run at once")
@pytest.mark.parametrize("seed", [0, 2])
def test_nothing_is_claimed_of_a_healthy_study(seed: int) -> None:
    clean, told = healthy(seed)
    assert clean, told


@pytest.mark.skipif(FULL == 0, reason="takes minutes: NEUROSWEEP_PLANTED=20")
@pytest.mark.timeout(3600)
def test_nineteen_of_twenty_illnesses_are_named_and_none_of_the_healthy_is_called_ill() -> None:
    missed = [
        f"{illness.__name__}({seed})"
        for seed, illness in ((at // len(ILLNESSES), ILLNESSES[at % len(ILLNESSES)]) for at in range(FULL))
        if not illness(seed)
    ]
    claimed = [f"{seed}: {told}" for seed in range(FULL) for clean, told in [healthy(seed)] if not clean]
    print(f"named {FULL - len(missed)} of {FULL}, claimed {len(claimed)} of {FULL}: {missed} {claimed}")

    assert len(missed) <= math.floor(FULL / 20)
    assert not claimed
