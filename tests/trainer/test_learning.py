"""Training depends on nothing but the trial's seed. Its numbers are held against plain PyTorch's in test_packs.py."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from tests.trainer.trainer_cases import (
    EVERYTHING_RANDOM,
    MLP,
    blobs,
    settings_of,
    split,
    table_trainer,
    train,
    weights_of,
    without_times,
    work_of,
)
from trainer.work import EpochResult, Metric, Outcome, SegmentResult, TrialWork


def test_train_figures_are_averages_over_rows_while_learning() -> None:
    """With a rate of 0 every batch sees the same network, so the averages are those of the whole split."""
    trainer = table_trainer()
    result = train(trainer, work_of(settings_of(learning_rate=0.0), keep_up_to=2, epochs=1, until=1))
    on_train = trainer.test(MLP, weights_of(result), Metric.ERROR, blobs())
    log_loss = trainer.test(MLP, weights_of(result), Metric.LOG_LOSS, blobs())
    assert result.epochs[0].train_metric == pytest.approx(on_train.value)
    assert result.epochs[0].train_loss == pytest.approx(log_loss.value, rel=1e-5)


@pytest.mark.parametrize("pauses", [(1, 2, 3, 4, 5, 6), (2, 6), (5, 6)])
def test_segments_give_the_numbers_of_one_go(pauses: tuple[int, ...]) -> None:
    work = work_of(EVERYTHING_RANDOM, epochs=6, until=6, keep_up_to=2)
    whole = train(table_trainer(), work)
    trainer = table_trainer()
    parts = [train(trainer, dataclasses.replace(work, until=until)) for until in pauses]
    assert [part.outcome for part in parts] == [Outcome.PAUSED] * (len(pauses) - 1) + [Outcome.FINISHED]
    assert without_times(sum((part.epochs for part in parts), ())) == without_times(whole.epochs)
    assert_same_end(parts[-1], whole)


def assert_same_end(one: SegmentResult, other: SegmentResult) -> None:
    assert (one.best_epoch, one.train, one.validation) == (other.best_epoch, other.train, other.validation)
    ours, theirs = weights_of(one), weights_of(other)
    assert ours.keys() == theirs.keys()
    for name in ours:
        np.testing.assert_array_equal(ours[name], theirs[name])


def test_trials_in_turns_give_the_numbers_of_trials_alone() -> None:
    works = [work_of(EVERYTHING_RANDOM, trial=trial, seed=trial, epochs=3, keep_up_to=2) for trial in range(3)]
    alone = [train(table_trainer(), dataclasses.replace(work, until=3)) for work in works]
    trainer = table_trainer()
    for until in (1, 2):
        for work in works:
            train(trainer, dataclasses.replace(work, until=until))
    for work, expected in zip(works, alone, strict=True):
        assert_same_end(train(trainer, dataclasses.replace(work, until=3)), expected)


def test_global_random_state_neither_matters_nor_changes() -> None:
    work = work_of(EVERYTHING_RANDOM, keep_up_to=2)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = train(table_trainer(), work)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    np.random.seed(3)
    assert_same_end(train(table_trainer(), work), first)


def first_epoch(work: TrialWork) -> EpochResult:
    return train(table_trainer(), dataclasses.replace(work, until=1)).epochs[0]


def test_another_seed_gives_other_numbers() -> None:
    losses = {first_epoch(work_of(seed=seed)).validation_loss for seed in range(4)}
    assert len(losses) == 4


def test_dropout_is_drawn_while_learning() -> None:
    dropped, whole = first_epoch(work_of(settings_of(dropout=0.4))), first_epoch(work_of())
    assert dropped.train_loss != whole.train_loss


def test_single_row_at_the_end_of_an_epoch_is_left_out_under_batch_norm_only() -> None:
    rows = blobs(33)
    trainer = table_trainer(rows)
    assert train(trainer, work_of(settings_of(batch_norm=True))).outcome is Outcome.FINISHED
    # Without batch norm it is learned from: with a rate of 0, its share shows in the epoch's average.
    result = train(trainer, work_of(settings_of(learning_rate=0.0), keep_up_to=2))
    whole = trainer.test(MLP, weights_of(result), Metric.LOG_LOSS, rows).value
    assert result.epochs[0].train_loss == pytest.approx(whole, rel=1e-5)


def test_last_incomplete_batch_of_several_rows_is_learned_from_under_batch_norm() -> None:
    full = train(table_trainer(blobs(32)), work_of(settings_of(batch_norm=True), keep_up_to=2, until=1, epochs=1))
    more = train(table_trainer(blobs(34)), work_of(settings_of(batch_norm=True), keep_up_to=2, until=1, epochs=1))
    assert weights_of(full)["dense1_norm.num_batches_tracked"] == 1
    assert weights_of(more)["dense1_norm.num_batches_tracked"] == 2


def test_validation_split_is_never_learned_from() -> None:
    one = train(table_trainer(blobs(), blobs(60, seed=1)), work_of(keep_up_to=2, epochs=1, until=1))
    other = train(table_trainer(blobs(), blobs(50, seed=2)), work_of(keep_up_to=2, epochs=1, until=1))
    for name, array in weights_of(one).items():
        np.testing.assert_array_equal(array, weights_of(other)[name])


def test_figures_of_one_class_alone_are_finite() -> None:
    lone = split(np.zeros((4, 5), dtype=np.float32), np.zeros(4, dtype=np.int64))
    result = train(table_trainer(validation=lone), work_of(metric=Metric.BALANCED_ERROR))
    assert result.validation in (0.0, 1.0)
