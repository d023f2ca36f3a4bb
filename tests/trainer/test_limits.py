"""Trials that take too much memory or too much time, beside others that don't."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from neurosweep import failpoints
from tests.trainer.trainer_cases import (
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
from trainer.memory import training_memory
from trainer.pack import Pack
from trainer.settings import Settings
from trainer.work import Metric, Outcome, SegmentResult, TrialWork

SMALL = [settings_of(neurons=(size,)) for size in (7, 12, 30)]

HUGE = settings_of(neurons=(4000, 4000), learning_rate=1e-5)
"""64 MB for each number that it keeps for a weight: 256 MB when it is built, and up to 128 MB for its best network."""


def works_of(*settings: Settings, **changes: Any) -> list[TrialWork]:
    return [work_of(each, trial=trial, seed=trial, **changes) for trial, each in enumerate(settings)]


def same(one: SegmentResult, other: SegmentResult) -> None:
    """To the last bit."""
    assert one.outcome is other.outcome
    assert without_times(one.epochs) == without_times(other.epochs)
    for name, array in (one.weights or {}).items():
        assert other.weights is not None
        assert (array == other.weights[name]).all()


# Memory


def train_with_little_memory(megabytes: int) -> None:
    """Prints how four trials end in a process that gets no more than so much memory, then three of them in a new pack,
    then those without a limit."""
    import resource

    works = works_of(HUGE, *SMALL, epochs=3, until=3, metric=Metric.LOG_LOSS)
    expected = train_all(digits_trainer(digits(0, 200)), works[1:])
    trainer = digits_trainer(digits(0, 200))
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + megabytes * 10**6, resource.RLIM_INFINITY))
    huge, *small = train_all(trainer, works)
    again = train_all(trainer, works[1:])
    for one, other, another in zip(small, again, expected, strict=True):
        same(one, another)
        same(other, another)
    facts = {"outcome": huge.outcome, "reason": huge.reason, "memory": huge.memory, "epochs": len(huge.epochs)}
    print(json.dumps({**facts, "weights": huge.weight_count, "small": [result.outcome for result in small]}))


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a process's memory can't be limited")
@pytest.mark.parametrize(("megabytes", "built"), [(200, False), (385, True), (600, None)])
def test_a_trial_that_does_not_fit_ends_alone(megabytes: int, built: bool | None) -> None:
    program = f"from tests.trainer.test_limits import train_with_little_memory as main; main({megabytes})"
    command = [sys.executable, "-c", program]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    told = json.loads(ran.stdout)
    assert told["small"] == [Outcome.FINISHED] * 3
    if built is None:
        assert told["outcome"] == Outcome.FINISHED, "with enough memory it must fit, else the test says nothing"
        return
    assert told["outcome"] == Outcome.OUT_OF_MEMORY
    assert told["memory"] / 1e6 < megabytes
    assert "out of memory; a smaller network or batch may fit" in told["reason"]
    assert f"training takes about {training_memory(HUGE, (64,), 10, 200) / 1e6:,.0f} MB" in told["reason"]
    assert (told["weights"] > 0) is built
    assert bool(told["epochs"]) is built


def test_memory_is_shared_out_by_what_is_predicted() -> None:
    trainer = table_trainer()
    large = settings_of(neurons=(1500, 1500))
    alone = train(trainer, work_of(large))
    results = train_all(trainer, works_of(large, *SMALL))
    for result in (alone, results[0]):
        assert result.memory is not None
        assert result.memory == pytest.approx(training_memory(large, (5,), 3, 130), rel=0.5)
    assert all(0 < (result.memory or 0) < 1e6 for result in results[1:])


def test_the_dataset_is_no_trials_memory() -> None:
    """Though the first batch makes of it what networks take."""
    rows = blobs(20_000, features=500)
    trainer = table_trainer(rows, blobs(60, features=500))
    result = train(trainer, work_of(settings_of(batch_size=1000), epochs=1, until=1))
    assert (result.memory or 0) < rows.inputs.nbytes / 4


def test_nothing_is_known_of_the_memory_of_a_trial_that_was_not_trained() -> None:
    assert train(table_trainer(), work_of(settings_of(batch_norm=True, batch_size=1))).memory is None


def test_a_resumed_trial_begins_again_from_its_seed_where_its_pack_ran_out_of_memory() -> None:
    works = works_of(*SMALL)
    trainer = table_trainer()
    train_all(trainer, [dataclasses.replace(work, until=2) for work in works])
    with patch.object(Pack, "evaluate", failing(MemoryError, lambda pack: len(pack._members) > 1)):
        results = train_all(trainer, works)
    for work, result in zip(works, results, strict=True):
        assert len(result.epochs) == 4
        same(result, train(table_trainer(), work))


def failing(error: type[Exception], where: Callable[[Pack], bool]) -> Callable[..., Any]:
    evaluate = Pack.evaluate

    def evaluated(pack: Pack, *arguments: Any) -> Any:
        if where(pack):
            raise error
        return evaluate(pack, *arguments)

    return evaluated


# Time


class Clock:
    """Goes on by a second each time that it is read."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("trainer.segments.time.perf_counter", clock)
    return clock


def test_a_trial_ends_when_its_time_is_up_in_the_middle_of_an_epoch(clock: Clock) -> None:
    """Of five batches and a validation split in one piece: seven seconds an epoch."""
    work = work_of(epochs=50, until=50, seconds=24.0)
    result = train(table_trainer(), work)
    assert result.outcome is Outcome.TOO_LONG
    assert result.reason == "its time of 24 s was up"
    assert [epoch.seconds for epoch in result.epochs] == [7.0] * 3
    assert 24 < result.seconds < 28
    assert (result.best_epoch, result.validation) == (
        1 + [epoch.validation_metric for epoch in result.epochs].index(result.validation or 0),
        min(epoch.validation_metric for epoch in result.epochs),
    )
    assert result.weights is None
    trainer = table_trainer()
    assert train(trainer, work).outcome is Outcome.TOO_LONG
    assert trainer._paused == {}
    enough = train(table_trainer(), dataclasses.replace(work, epochs=3, until=3))
    assert enough.outcome is Outcome.FINISHED


def test_a_trial_that_has_done_its_last_epoch_is_not_too_late(clock: Clock) -> None:
    assert train(table_trainer(), work_of(epochs=1, until=1, seconds=7.0)).outcome is Outcome.FINISHED
    assert train(table_trainer(), work_of(epochs=2, until=1, seconds=7.0)).outcome is Outcome.TOO_LONG
    assert train(table_trainer(), work_of(epochs=1, until=1, seconds=5.0)).outcome is Outcome.TOO_LONG


def test_a_trial_without_time_is_not_begun() -> None:
    result = train(table_trainer(), work_of(seconds=0.0))
    assert (result.outcome, result.epochs, result.seconds) == (Outcome.TOO_LONG, (), 0.0)


def test_a_trial_that_takes_too_long_leaves_its_pack_and_changes_no_bit_of_the_others(clock: Clock) -> None:
    works = works_of(settings_of(neurons=(200, 200)), *SMALL, keep_up_to=1.0)
    works[0] = dataclasses.replace(works[0], seconds=9.0)
    late, *others = train_all(table_trainer(), works)
    assert late.outcome is Outcome.TOO_LONG
    assert len(late.epochs) == 2, "it has nearly all weights of the pack and so nearly all of its time"
    for work, result in zip(works[1:], others, strict=True):
        assert result.outcome is Outcome.FINISHED
        same(result, train(table_trainer(), work))


def test_epochs_that_are_done_again_cost_no_time(clock: Clock) -> None:
    """Four epochs were paid for before; that their state is gone, as the pack failed, was not the trials' doing."""
    works = works_of(*SMALL[:2], epochs=6, until=6)
    trainer = table_trainer()
    train_all(trainer, [dataclasses.replace(work, until=4) for work in works])
    with patch.object(Pack, "evaluate", failing(MemoryError, lambda pack: len(pack._members) > 1)):
        results = train_all(trainer, [dataclasses.replace(work, seconds=15.0, known_epochs=4) for work in works])
    assert [(result.outcome, len(result.epochs)) for result in results] == [(Outcome.FINISHED, 6)] * 2


def test_a_slow_trial_ends_long_before_its_epochs() -> None:
    began = time.monotonic()
    result = train(digits_trainer(), work_of(settings_of(batch_size=1), epochs=10**6, until=10**6, seconds=0.3))
    assert result.outcome is Outcome.TOO_LONG
    assert result.seconds == pytest.approx(0.3, abs=0.2)
    assert time.monotonic() - began < 30


# Failpoints


@pytest.fixture
def plan(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    def planned(text: str) -> None:
        monkeypatch.setattr(failpoints, "_planned", failpoints._read(text))
        monkeypatch.setattr(failpoints, "_visits", {})

    return planned


@pytest.mark.parametrize(
    ("action", "outcome", "reason"),
    [
        ("memory", Outcome.OUT_OF_MEMORY, "out of memory; a smaller network or batch may fit (a failpoint)"),
        ("raise", Outcome.FAILED, "RuntimeError: a failpoint"),
    ],
)
@pytest.mark.parametrize("place", ["training_trial_1", "epoch_of_trial_1"])
def test_a_failpoint_fails_its_trial_alone(
    plan: Callable[[str], None], place: str, action: str, outcome: Outcome, reason: str
) -> None:
    works = works_of(*SMALL)
    plan(f"{place}={action}")
    first, failed, last = train_all(table_trainer(), works)
    assert failed.outcome is outcome
    assert (failed.reason or "").startswith(reason)
    for work, result in ((works[0], first), (works[2], last)):
        same(result, train(table_trainer(), work))


def test_a_failpoint_is_reached_once_for_each_work(plan: Callable[[str], None]) -> None:
    plan("training_trial_1@3=raise,epoch_of_trial_2@99=raise")
    trainer = table_trainer()
    works = works_of(*SMALL)
    with patch.object(Pack, "evaluate", failing(MemoryError, lambda pack: len(pack._members) > 1)):
        train_all(trainer, works)
    assert failpoints._visits == {"training_trial_1": 1, "epoch_of_trial_2": 4}
