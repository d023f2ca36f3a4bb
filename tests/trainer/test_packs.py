"""Packs against plain PyTorch, and what a trial's companions must not change: its numbers."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.trainer.plain_training import History, train_plainly
from tests.trainer.trainer_cases import (
    CNN,
    EVERYTHING_RANDOM,
    MLP,
    blobs,
    device_data,
    digits,
    digits_trainer,
    settings_of,
    split,
    table_trainer,
    train,
    train_all,
    weights_of,
    without_times,
    work_of,
)
from trainer import pack as pack_module
from trainer import replay
from trainer.data.dataset import Split, Task
from trainer.device_data import DeviceData
from trainer.evaluation import Figures
from trainer.member import Member
from trainer.pack import Pack, likeness
from trainer.segments import MOST_MEMBERS, Segment, form_packs
from trainer.settings import Activation, ConvLayer, Family, OptimizerKind, Padding, Pool, Schedule, Settings
from trainer.shapes import feature_map_sizes
from trainer.work import Metric, Outcome, SegmentResult, TrialWork

EPOCHS = 3
IMAGE = (2, 9, 8)


pytestmark = pytest.mark.usefixtures("one_thread")


conv_layers = st.builds(
    ConvLayer,
    filters=st.integers(1, 6),
    filter_size=st.integers(1, 5),
    stride=st.integers(1, 2),
    pool=st.sampled_from(Pool),
)


def alike(family: Family, batch_size: int) -> st.SearchStrategy[Settings]:
    """Settings of which any can be in one pack, as far as settings decide that."""
    layers = st.lists(conv_layers, min_size=1, max_size=3).map(tuple) if family is Family.CNN else st.just(())
    return st.builds(
        Settings,
        family=st.just(family),
        neurons=st.lists(st.integers(1, 40), max_size=4).map(tuple),
        convolutions=layers,
        padding=st.sampled_from(Padding),
        activation=st.sampled_from(Activation),
        learning_rate=st.floats(1e-4, 0.02),
        optimizer=st.sampled_from(OptimizerKind),
        momentum=st.just(0.0) | st.floats(0.1, 0.9),
        weight_decay=st.just(0.0) | st.floats(1e-4, 0.1),
        dropout=st.just(0.0) | st.floats(0.05, 0.6),
        batch_norm=st.booleans(),
        batch_size=st.just(batch_size),
        schedule=st.sampled_from(Schedule),
    ).filter(lambda chosen: all(0 not in size for size in feature_map_sizes(chosen.convolutions, chosen.padding, 9, 8)))


batch_sizes = st.integers(4, 24) | st.sampled_from([32, 64, 100])


def packs_of(family: Family) -> st.SearchStrategy[list[Settings]]:
    return batch_sizes.flatmap(lambda size: st.lists(alike(family, size), min_size=1, max_size=5))


def rows_for(family: Family, task: Task, rows: int, seed: int) -> Split:
    rng = np.random.default_rng(seed)
    shape = IMAGE if family is Family.CNN else (5,)
    targets = rng.integers(0, 3, rows) if task is Task.CLASSIFICATION else rng.normal(size=rows).astype(np.float32)
    return split(rng.normal(size=(rows, *shape)).astype(np.float32), targets)


class Masks:
    """Spies on the steps of packs: what each member's dropout multiplied by, layer by layer, step by step."""

    def __init__(self) -> None:
        self.steps: dict[int, list[list[Tensor]]] = {}

    def spying(self) -> Callable[[pack_module._Batch], None]:
        learn = pack_module._Batch.learn

        def spy(batch: pack_module._Batch) -> None:
            for member, layers in zip(batch._members, batch.mask_rows, strict=True):
                seen = self.steps.setdefault(id(member), [[] for _ in layers])
                for number, rows in enumerate(layers):
                    seen[number].append(batch.masks[rows].clone())
            learn(batch)

        return spy


def train_packed(chosen: Sequence[Settings], data: DeviceData) -> tuple[list[History], list[History]]:
    """(the pack's, plain PyTorch's) figures and weights of these trials."""
    metric = Metric.LOG_LOSS if data.task is Task.CLASSIFICATION else Metric.MSE
    members = [Member(each, seed, metric, EPOCHS, data) for seed, each in enumerate(chosen)]
    starts = [{name: tensor.clone() for name, tensor in member.state().items()} for member in members]
    masks = Masks()
    with patch.object(pack_module._Batch, "learn", masks.spying()):
        # Members whose epochs have another number of rows (a last row left out under batch norm) are not alike.
        packs: dict[object, list[Member]] = {}
        for member in members:
            packs.setdefault(likeness(member, data), []).append(member)
        histories = {id(member): History([], [], {}) for member in members}
        for together in packs.values():
            pack = Pack(together, data)
            for _ in range(EPOCHS):
                learned, validation = pack.train_epoch(lambda: None), pack.evaluate(data.validation, lambda: None)
                for member, *both in zip(together, learned, validation, strict=True):
                    histories[id(member)].train.append(both[0].loss)
                    histories[id(member)].validation.append(both[1].loss)
    for member in members:
        histories[id(member)].weights.update(member.state())
    plain = []
    train_rows, validation_rows = (
        (each.images(torch.arange(len(each))), each.targets) for each in (data.train, data.validation)
    )
    for seed, (each, start) in enumerate(zip(chosen, starts, strict=True)):
        twin = Member(each, seed, metric, EPOCHS, data)
        orders = [twin.draw_order(len(data.train)) for _ in range(EPOCHS)]
        plain.append(
            train_plainly(
                each, start, orders, masks.steps[id(members[seed])], train_rows, validation_rows, data.outputs
            )
        )
    return [histories[id(member)] for member in members], plain


def assert_close(chosen: Sequence[Settings], data: DeviceData, tolerance: float) -> None:
    for mine, plain in zip(*train_packed(chosen, data), strict=True):
        if not max(plain.train + plain.validation) < 100:
            continue  # it diverges, and every rounding with it
        np.testing.assert_allclose(mine.train, plain.train, rtol=tolerance, atol=tolerance)
        np.testing.assert_allclose(mine.validation, plain.validation, rtol=tolerance, atol=tolerance)
        for name, weights in mine.weights.items():
            torch.testing.assert_close(weights, plain.weights[name], rtol=tolerance, atol=tolerance)


def check_against_plain(chosen: list[Settings], task: Task, rows: int, seed: int) -> None:
    family = chosen[0].family
    smallest = min(rows, chosen[0].batch_size)
    # A few rows are normalised to nearly the same whatever the weights are: rounding is all that is left of their
    # gradients, which Adam blows up to a whole step.
    few = smallest < 8 or 2 <= rows % chosen[0].batch_size < 8
    assume(not (few and any(each.batch_norm for each in chosen)))
    data = device_data(
        rows_for(family, task, rows, seed), rows_for(family, task, 30, seed + 1), task, dtype=torch.float64
    )
    # Behind a layer that is nearly constant, as one of a single neuron may be, batch norm multiplies every rounding.
    assert_close(chosen, data, 1e-7 if any(each.batch_norm for each in chosen) else 1e-9)


some_tasks = st.sampled_from([Task.CLASSIFICATION, Task.REGRESSION])


@settings(max_examples=40, deadline=None)
@given(packs_of(Family.MLP), some_tasks, st.integers(2, 90), st.integers(0, 2**20))
def test_packs_of_mlps_train_like_plain_pytorch(chosen: list[Settings], task: Task, rows: int, seed: int) -> None:
    check_against_plain(chosen, task, rows, seed)


@settings(max_examples=40, deadline=None)
@given(packs_of(Family.CNN), some_tasks, st.integers(2, 60), st.integers(0, 2**20))
def test_packs_of_cnns_train_like_plain_pytorch(chosen: list[Settings], task: Task, rows: int, seed: int) -> None:
    check_against_plain(chosen, task, rows, seed)


EXPLICIT = settings_of(
    dropout=0.3, batch_norm=True, schedule=Schedule.COSINE, neurons=(48, 33, 20), learning_rate=0.003
)


@pytest.mark.parametrize("activation", Activation)
@pytest.mark.parametrize("optimizer", OptimizerKind)
def test_in_float32_three_epochs_differ_by_less_than_two_parts_in_ten_thousand(
    optimizer: OptimizerKind, activation: Activation
) -> None:
    one = settings_of(EXPLICIT, optimizer=optimizer, activation=activation, weight_decay=0.01)
    assert_close([one, settings_of(one, batch_norm=False, neurons=(70,))], device_data(blobs(300)), 2e-4)


def same(one: SegmentResult, other: SegmentResult) -> None:
    """To the last bit."""
    assert without_times(one.epochs) == without_times(other.epochs)
    assert (one.outcome, one.reason, one.best_epoch) == (other.outcome, other.reason, other.best_epoch)
    assert (one.train, one.validation) == (other.train, other.validation)
    if one.weights is None or other.weights is None:
        assert one.weights is other.weights
        return
    for name, array in weights_of(one).items():
        np.testing.assert_array_equal(array, weights_of(other)[name])


def works_for(chosen: Sequence[Settings]) -> list[TrialWork]:
    return [work_of(each, trial=number, seed=number, epochs=3, until=3) for number, each in enumerate(chosen)]


bits_batch_sizes = st.integers(2, 40) | st.sampled_from([64, 100, 200])


@settings(max_examples=60, deadline=None)
@given(
    bits_batch_sizes.flatmap(lambda size: st.lists(alike(Family.MLP, size), min_size=2, max_size=MOST_MEMBERS)),
    st.integers(3, 130),
    st.randoms(use_true_random=False),
)
def test_companions_order_and_segments_change_no_bit_of_a_trial(chosen: list[Settings], rows: int, random: Any) -> None:
    works = works_for(chosen)
    random.shuffle(works)
    together = train_all(table_trainer(blobs(rows)), works)
    for work, result in zip(works, together, strict=True):
        same(train(table_trainer(blobs(rows)), work), result)
    trainer = table_trainer(blobs(rows))
    train_all(trainer, [dataclasses.replace(work, until=1) for work in works[1:]])
    random.shuffle(works)
    for work, part in zip(works, train_all(trainer, works), strict=True):
        whole = next(result for result in together if result.trial == work.trial)
        same(dataclasses.replace(part, epochs=whole.epochs[: 3 - len(part.epochs)] + part.epochs), whole)


@pytest.mark.parametrize("batch_size", [100, 128])
def test_companions_change_no_bit_of_wide_networks(batch_size: int) -> None:
    """Their products may go another way than small ones."""
    wide = settings_of(EVERYTHING_RANDOM, neurons=(300, 257), batch_size=batch_size)
    works = works_for([wide, settings_of(wide, neurons=(131, 290, 256)), settings_of(batch_size=batch_size), wide])
    together = train_all(digits_trainer(digits(0, 330)), works)
    for work, result in zip(works, together, strict=True):
        same(train(digits_trainer(digits(0, 330)), work), result)


@settings(max_examples=15, deadline=None)
@given(st.integers(3, 40).flatmap(lambda size: st.lists(alike(Family.CNN, size), min_size=2, max_size=MOST_MEMBERS)))
def test_companions_change_no_bit_of_a_cnn(chosen: list[Settings]) -> None:
    works = works_for(chosen)
    together = train_all(digits_trainer(digits(0, 90)), works)
    for work, result in zip(works, together, strict=True):
        same(train(digits_trainer(digits(0, 90)), work), result)


EXPLODING = settings_of(optimizer=OptimizerKind.SGD, learning_rate=1e30)


@pytest.mark.parametrize("base", [MLP, EXPLICIT, CNN])
def test_a_loss_that_is_not_finite_ends_its_trial_alone(base: Settings) -> None:
    """Also in the epoch in which it happens: the others' numbers are those that they have without it."""
    exploding = settings_of(base, optimizer=OptimizerKind.SGD, learning_rate=1e30)
    works = works_for([base, exploding, settings_of(base, neurons=(25, 7))])
    before, failed, after = train_all(digits_trainer(digits(0, 200)), works)
    assert failed.reason == "the loss was not finite in epoch 1"
    for work, result in ((works[0], before), (works[2], after)):
        assert result.outcome is Outcome.FINISHED
        same(train(digits_trainer(digits(0, 200)), work), result)


def test_nan_weights_reach_no_other_member() -> None:
    data = device_data()
    members = [Member(EXPLICIT, seed, Metric.ERROR, 2, data) for seed in range(3)]
    members[1].weights.fill_(torch.nan)
    losses = [found.loss for found in Pack(members, data).train_epoch(lambda: None)]
    assert np.isnan(losses).tolist() == [False, True, False]
    assert [bool(member.weights.isnan().any()) for member in members] == [False, True, False]


def test_a_trial_that_ends_earlier_leaves_the_pack() -> None:
    works = works_for([MLP, EXPLICIT, settings_of(neurons=(7,))])
    works[0] = dataclasses.replace(works[0], until=1)
    works[1] = dataclasses.replace(works[1], epochs=2)
    sizes: list[int] = []
    train_epoch = Pack.train_epoch

    def counting(pack: Pack, check_stop: Callable[[], None]) -> list[Figures]:
        sizes.append(len(pack._members))
        return train_epoch(pack, check_stop)

    trainer = table_trainer()
    with patch.object(Pack, "train_epoch", counting):
        results = train_all(trainer, works)
    assert sizes == [3, 2, 1]
    assert [result.outcome for result in results] == [Outcome.PAUSED, Outcome.FINISHED, Outcome.FINISHED]
    assert [len(result.epochs) for result in results] == [1, 2, 3]
    for work, result in zip(works, results, strict=True):
        same(train(table_trainer(), work), result)


def test_a_pack_that_fails_as_a_whole_is_tried_again_with_each_alone() -> None:
    """In the middle, when its members have learned already: each begins again from its seed."""
    works = works_for([MLP, EXPLICIT, settings_of(neurons=(7,))])
    evaluate, asked = Pack.evaluate, 0

    def out_of_memory(pack: Pack, *arguments: Any) -> list[Figures]:
        nonlocal asked
        asked += 1
        if len(pack._members) > 1 and asked > 1:
            raise MemoryError
        if pack._members[0].seed == 2 and len(pack._members) == 1:
            raise MemoryError("again")
        return evaluate(pack, *arguments)

    with patch.object(Pack, "evaluate", out_of_memory):
        results = train_all(table_trainer(), works)
    for work, result in zip(works[:2], results[:2], strict=True):
        same(train(table_trainer(), work), result)
    assert results[2].outcome is Outcome.OUT_OF_MEMORY
    assert (results[2].reason or "").startswith("out of memory; a smaller network or batch may fit (again): training")


def test_a_stop_leaves_nothing_of_a_pack_that_was_under_way() -> None:
    trainer = table_trainer()
    works = [dataclasses.replace(work, epochs=10**6, until=10**6) for work in works_for([MLP, EXPLICIT])]
    ends = time.monotonic() + 0.3
    results = train_all(trainer, works, lambda: time.monotonic() > ends)
    assert [result.outcome for result in results] == [Outcome.STOPPED] * 2
    assert trainer._paused == {}


def test_packs_are_of_alike_trials_and_no_larger_than_is_fast() -> None:
    works = works_for([MLP] * (MOST_MEMBERS + 1) + [settings_of(batch_size=16), settings_of(MLP, neurons=())])
    works.append(work_of(trial=99, metric=Metric.LOG_LOSS))
    segments = [Segment(work, Member(work.settings, 0, work.metric, 3, device_data())) for work in works]
    sizes = sorted(len(pack) for pack in form_packs(segments, device_data()))
    assert sizes == [1, 1, 2, MOST_MEMBERS]
    torch.set_num_threads(2)
    assert {len(pack) for pack in form_packs(segments, device_data())} == {1}


def test_under_batch_norm_a_single_last_row_parts_packs() -> None:
    """For an epoch has another number of rows then."""
    with_norm, without = (Member(each, 0, Metric.ERROR, 3, device_data()) for each in (EVERYTHING_RANDOM, MLP))
    for rows, equal in ((128, True), (129, False), (130, True)):
        data = device_data(blobs(rows))
        assert (likeness(with_norm, data) == likeness(without, data)) is equal


def test_dropout_keeps_its_share_and_scales_what_it_keeps() -> None:
    data = device_data(blobs(600))
    chosen = [settings_of(neurons=(40, 30), dropout=share) for share in (0.1, 0.0, 0.5, 0.75)]
    members = [Member(each, seed, Metric.ERROR, 2, data) for seed, each in enumerate(chosen)]
    masks = Masks()
    with patch.object(pack_module._Batch, "learn", masks.spying()):
        Pack(members, data).train_epoch(lambda: None)
    assert masks.steps[id(members[1])] == []
    for each, member in zip(chosen, members, strict=True):
        for number, steps in enumerate(masks.steps[id(member)]):
            values = torch.cat(steps, dim=1)
            assert values.shape == (each.neurons[number], 600)
            assert len(set(values.flatten().tolist())) == 2
            assert values.min() == 0
            assert values.max() == pytest.approx(1 / (1 - each.dropout), rel=1e-4)
            # Four standard deviations of a mean of 24,000 or 18,000 draws.
            spread = 4 * (each.dropout * (1 - each.dropout) / values.numel()) ** 0.5
            assert (values == 0).double().mean().item() == pytest.approx(each.dropout, abs=spread)
    first, second = (torch.cat(steps, dim=1) for steps in masks.steps[id(members[2])])
    assert abs(np.corrcoef(first[:30].flatten(), second.flatten())[0, 1]) < 0.04


@pytest.mark.parametrize("base", [EXPLICIT, settings_of(CNN, dropout=0.2, batch_norm=True)])
def test_steps_that_are_captured_once_and_replayed_change_no_number(base: Settings) -> None:
    """As a GPU does it: a replay meets the addresses of the capture, so that nothing it reads may have moved."""
    captured: list[list[int]] = []

    def addresses(batch: pack_module._Batch) -> list[int]:
        inputs = [batch._images] if batch._trunks else batch._flat
        return [tensor.data_ptr() for tensor in (*inputs, batch.targets, batch.masks, batch.outputs)]

    def capture(step: Any) -> Any:
        batch = step.__self__
        captured.append(addresses(batch))

        def replayed() -> None:
            assert addresses(batch) in captured
            step()

        return replayed

    works = works_for([base, settings_of(base, neurons=(9,))])
    expected = train_all(digits_trainer(digits(0, 330)), works)
    with patch.object(replay, "for_device", lambda device, step: replay.Replayed(step, capture)):
        results = train_all(digits_trainer(digits(0, 330)), works)
    # Ten full batches an epoch and one of ten rows, which comes three times: too seldom.
    assert len(captured) == 1
    for one, other in zip(expected, results, strict=True):
        same(one, other)
