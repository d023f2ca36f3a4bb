"""Snapshots of trials under way: one that is restored in a fresh trainer goes on as one that was never interrupted."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.trainer.trainer_cases import (
    CNN,
    EVERYTHING_RANDOM,
    any_cnn_settings,
    any_settings,
    blobs,
    digits,
    digits_trainer,
    settings_of,
    table_trainer,
    train,
    train_all,
    without_times,
    work_of,
)
from trainer.segments import MOST_MEMBERS
from trainer.settings import Activation, OptimizerKind, Schedule, Settings
from trainer.shapes import feature_map_sizes
from trainer.work import Metric, Outcome, SegmentResult, Snapshot, TrialWork
from trainer.worker import Trainer

EPOCHS = 4
RANDOM_CNN = settings_of(CNN, batch_norm=True, dropout=0.2, schedule=Schedule.COSINE)


pytestmark = pytest.mark.usefixtures("one_thread")


def written_and_read(snapshot: Snapshot) -> Snapshot:
    """As a store gives it back: its arrays read-only, its facts by way of JSON."""
    arrays = {name: np.array(array) for name, array in snapshot.arrays.items()}
    for array in arrays.values():
        array.flags.writeable = False
    return dataclasses.replace(snapshot, arrays=arrays, facts=json.loads(json.dumps(snapshot.facts)))


def taken(trainer: Trainer, trial: int) -> Snapshot:
    snapshot = trainer.snapshot(trial)
    assert snapshot is not None
    return written_and_read(snapshot)


def assert_same(part: SegmentResult, whole: SegmentResult) -> None:
    """The end of a trial that was interrupted, against all of one that was not: to the last bit."""
    assert without_times(part.epochs) == without_times(whole.epochs)[-len(part.epochs) :]
    assert (part.outcome, part.reason, part.best_epoch) == (whole.outcome, whole.reason, whole.best_epoch)
    assert (part.train, part.validation) == (whole.train, whole.validation)
    assert (part.weights is None) == (whole.weights is None)
    if part.weights is not None and whole.weights is not None:
        assert list(part.weights) == list(whole.weights)
        for name, array in whole.weights.items():
            assert part.weights[name].dtype == array.dtype
            np.testing.assert_array_equal(part.weights[name], array)


def check(make: Callable[[], Trainer], works: Sequence[TrialWork], cuts: Sequence[int]) -> None:
    """Trains each on its own, and all together with a fresh trainer at each cut."""
    wholes = [train(make(), work) for work in works]
    assert {whole.outcome for whole in wholes} == {Outcome.FINISHED}
    trainer = make()
    for cut in cuts:
        train_all(trainer, [dataclasses.replace(work, until=cut) for work in works])
        snapshots = [taken(trainer, work.trial) for work in works]
        assert {snapshot.epoch for snapshot in snapshots} == {cut}
        trainer = make()
        for work, snapshot in zip(works, snapshots, strict=True):
            assert not trainer.holds(work)
            assert trainer.restore(work, snapshot)
            assert trainer.holds(work)
    for part, whole in zip(train_all(trainer, works), wholes, strict=True):
        assert len(part.epochs) == EPOCHS - cuts[-1]
        assert_same(part, whole)


def works_of(chosen: Sequence[Settings], metric: Metric) -> list[TrialWork]:
    return [
        work_of(each, trial=number, seed=number, metric=metric, epochs=EPOCHS, until=EPOCHS)
        for number, each in enumerate(chosen)
    ]


def packs(one: st.SearchStrategy[Settings]) -> st.SearchStrategy[list[Settings]]:
    """Settings that can be trained together, with dropout and without momentum as well."""
    varied = st.builds(
        settings_of,
        one,
        dropout=st.just(0.0) | st.floats(0.05, 0.6),
        momentum=st.just(0.0) | st.floats(0.1, 0.9),
        learning_rate=st.floats(1e-4, 0.02),
        weight_decay=st.just(0.0) | st.floats(1e-4, 0.1),
    )
    sizes = st.integers(3, 40)
    return st.tuples(sizes, st.lists(varied, min_size=1, max_size=MOST_MEMBERS)).map(
        lambda drawn: [settings_of(each, batch_size=drawn[0]) for each in drawn[1]]
    )


cuts = st.sets(st.integers(1, EPOCHS - 1), min_size=1).map(sorted)
metrics = st.sampled_from([Metric.ERROR, Metric.LOG_LOSS])


@settings(max_examples=60, deadline=None)
@given(packs(any_settings), cuts, metrics, st.integers(4, 130))
def test_restored_mlps_give_the_same_numbers(chosen: list[Settings], at: list[int], metric: Metric, rows: int) -> None:
    check(lambda: table_trainer(blobs(rows)), works_of(chosen, metric), at)


def fits(chosen: Settings) -> bool:
    return all(0 not in size for size in feature_map_sizes(chosen.convolutions, chosen.padding, 8, 8))


@settings(max_examples=20, deadline=None)
@given(packs(any_cnn_settings.filter(fits)), cuts, metrics)
def test_restored_cnns_give_the_same_numbers(chosen: list[Settings], at: list[int], metric: Metric) -> None:
    check(lambda: digits_trainer(digits(0, 90)), works_of(chosen, metric), at)


@pytest.mark.parametrize("optimizer", OptimizerKind)
@pytest.mark.parametrize("schedule", Schedule)
@pytest.mark.parametrize("base", [settings_of(EVERYTHING_RANDOM, neurons=(48, 33)), RANDOM_CNN])
def test_each_optimizer_and_schedule_goes_on(base: Settings, schedule: Schedule, optimizer: OptimizerKind) -> None:
    one = settings_of(base, optimizer=optimizer, schedule=schedule, weight_decay=0.01)
    check(
        lambda: digits_trainer(digits(0, 200)),
        works_of([one, settings_of(one, activation=Activation.SIGMOID, neurons=(21,))], Metric.LOG_LOSS),
        [1, 3],
    )


def test_the_best_network_of_an_epoch_before_the_snapshot_comes_back() -> None:
    """One that gets worse from some epoch on, cut behind that epoch."""
    work = work_of(settings_of(EVERYTHING_RANDOM, learning_rate=0.05, neurons=(64,)), epochs=25, metric=Metric.LOG_LOSS)
    whole = train(table_trainer(), dataclasses.replace(work, until=25))
    assert whole.best_epoch < 24, "this must overfit for the test to mean anything"
    first, second = table_trainer(), table_trainer()
    train(first, dataclasses.replace(work, until=24))
    last = dataclasses.replace(work, until=25)
    assert second.restore(last, taken(first, 0))
    assert_same(train(second, last), whole)


def test_a_snapshot_is_a_copy_and_training_goes_on_beside_it() -> None:
    trainer = digits_trainer(digits(0, 200))
    work = work_of(RANDOM_CNN)
    train(trainer, dataclasses.replace(work, until=1))
    snapshot = trainer.snapshot(0)
    assert snapshot is not None
    before = copy.deepcopy(snapshot)

    whole = train(trainer, work)

    assert list(snapshot.arrays) == list(before.arrays)
    for name, array in before.arrays.items():
        np.testing.assert_array_equal(snapshot.arrays[name], array)
    other = digits_trainer(digits(0, 200))
    assert other.restore(work, snapshot)
    # Nor does a trial that goes on from a snapshot change it.
    train(other, dataclasses.replace(work, until=2))
    for name, array in before.arrays.items():
        np.testing.assert_array_equal(snapshot.arrays[name], array)
    assert_same(train(other, work), whole)


def test_only_paused_trials_have_snapshots() -> None:
    trainer = table_trainer()
    assert trainer.snapshot(0) is None
    train(trainer, work_of(until=2))
    assert trainer.snapshot(0) is not None
    assert trainer.holds(work_of(until=4))
    trainer.forget(0)
    assert trainer.snapshot(0) is None
    assert not trainer.holds(work_of(until=4))
    train(trainer, work_of())
    assert trainer.snapshot(0) is None, "it is finished"


OTHERS: dict[str, dict[str, Any]] = {
    "number": {"trial": 1},
    "seed": {"seed": 8},
    "epochs": {"epochs": 5},
    "metric": {"metric": Metric.LOG_LOSS},
    "settings": {"settings": settings_of(learning_rate=0.011)},
}


@pytest.mark.parametrize("other", OTHERS)
def test_a_snapshot_of_another_trial_is_not_restored(other: str) -> None:
    trainer = table_trainer()
    train(trainer, work_of(until=2))
    work = work_of(**OTHERS[other])
    fresh = table_trainer()
    assert not trainer.holds(work)
    assert not fresh.restore(work, taken(trainer, 0))
    assert fresh.snapshot(work.trial) is None


def test_a_snapshot_past_the_segments_end_is_not_restored() -> None:
    """Its epochs up to there would be missing from the segment's result."""
    trainer = table_trainer()
    train(trainer, work_of(until=3))
    assert not table_trainer().restore(work_of(until=2), taken(trainer, 0))
    assert table_trainer().restore(work_of(until=3), taken(trainer, 0))


def spoil(snapshot: Snapshot, how: str, name: str) -> Snapshot:
    arrays, facts = dict(snapshot.arrays), json.loads(json.dumps(snapshot.facts))
    match how:
        case "missing array":
            del arrays[name]
        case "too long":
            arrays[name] = np.append(arrays[name].ravel(), arrays[name].ravel()[:1])
        case "empty":
            arrays[name] = arrays[name].ravel()[:0]
        case "other type":
            arrays[name] = arrays[name].astype(np.float16)
        case "text":
            arrays[name] = np.array("no number")
        case "missing fact":
            del facts[name]
        case _:
            facts[name] = {"no": None} if how == "another fact" else None
    return dataclasses.replace(snapshot, arrays=arrays, facts=facts)


def test_a_snapshot_that_does_not_fit_is_not_restored_and_changes_nothing() -> None:
    trainer = digits_trainer(digits(0, 200))
    work = work_of(RANDOM_CNN)
    train(trainer, dataclasses.replace(work, until=2))
    good = taken(trainer, 0)
    spoiled = [
        spoil(good, how, name)
        for how in ("missing array", "too long", "empty", "other type", "text")
        for name in good.arrays
    ]
    spoiled += [spoil(good, how, name) for how in ("missing fact", "another fact") for name in good.facts]
    spoiled += [spoil(good, "no fact", name) for name in ("identity", "steps", "precision")]
    spoiled += [dataclasses.replace(good, facts={}), dataclasses.replace(good, arrays={})]
    spoiled += [dataclasses.replace(good, epoch=epoch) for epoch in (0, -1, 5)]
    fresh = digits_trainer(digits(0, 200))
    for snapshot in spoiled:
        assert not fresh.restore(work, snapshot)
        assert fresh.snapshot(0) is None
        assert not trainer.restore(work, snapshot)
        assert trainer.holds(work)
    assert fresh.restore(work, good)


def test_one_of_another_dataset_is_not_restored() -> None:
    trainer = table_trainer(blobs(features=5))
    train(trainer, work_of(until=2))
    fresh = table_trainer(blobs(features=6), blobs(60, features=6, seed=1))
    assert not fresh.restore(work_of(), taken(trainer, 0))


def test_what_a_snapshot_holds_is_plain() -> None:
    trainer = table_trainer()
    train(trainer, work_of(EVERYTHING_RANDOM, until=2))
    snapshot = trainer.snapshot(0)
    assert snapshot is not None
    assert json.loads(json.dumps(snapshot.facts, allow_nan=False)) == snapshot.facts
    assert {array.dtype.name for array in snapshot.arrays.values()} <= {"float32", "uint8"}
    weights = len(snapshot.arrays["weights"])
    assert snapshot.arrays["optimizer.moment1"].shape == snapshot.arrays["optimizer.moment2"].shape == (weights,)
