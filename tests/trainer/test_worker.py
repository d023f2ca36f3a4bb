"""What a worker hands back, what it keeps, and how it fails."""

from __future__ import annotations

import dataclasses
import io
import json
import subprocess
import sys
import time
import warnings

import numpy as np
import pytest
import sklearn.metrics
import torch
from sklearn.datasets import load_diabetes

from neurosweep.errors import BadInputError
from tests.trainer.trainer_cases import (
    CNN,
    DIGITS_MEAN,
    DIGITS_STD,
    EVERYTHING_RANDOM,
    MLP,
    blobs,
    digits,
    digits_trainer,
    settings_of,
    split,
    table_trainer,
    train,
    weights_of,
    without_times,
    work_of,
)
from trainer.data.dataset import Preprocessing, Split, Task
from trainer.segments import failure_reason, out_of_memory
from trainer.settings import Activation, ConvLayer, OptimizerKind, Padding, Pool, Settings
from trainer.work import EpochResult, Metric, Outcome
from trainer.worker import Trainer, find_device

EXPLODING = settings_of(optimizer=OptimizerKind.SGD, learning_rate=1e30)
# Weight decay makes the weights 1,000 times as large, with the sign changed, with each of an epoch's two batches: they
# overflow float32 after some epochs.
GROWING = settings_of(
    optimizer=OptimizerKind.SGD, learning_rate=1e3, weight_decay=1.0, momentum=0.0, neurons=(), batch_size=65
)


def test_digits_are_learned_by_an_mlp_and_a_cnn() -> None:
    trainer = digits_trainer()
    mlp = train(trainer, work_of(settings_of(neurons=(64,)), epochs=15, until=15))
    cnn = train(trainer, work_of(settings_of(CNN, batch_norm=True), epochs=6, until=6))
    # A nearest-centroid classifier has errors of about 0.15 on these rows, chance is 0.9.
    assert mlp.validation is not None
    assert mlp.validation < 0.09
    assert cnn.validation is not None
    assert cnn.validation < 0.06


def test_finished_trial_reports_the_best_epoch_and_the_network_of_it() -> None:
    trainer = table_trainer()
    work = work_of(settings_of(learning_rate=0.05, neurons=(64,)), epochs=25, until=25, keep_up_to=1)
    result = train(trainer, dataclasses.replace(work, metric=Metric.LOG_LOSS))
    values = [epoch.validation_metric for epoch in result.epochs]
    assert result.best_epoch == int(np.argmin(values)) + 1
    assert result.best_epoch < 25, "this must overfit for the test to mean anything"
    assert result.validation == min(values)
    weights = weights_of(result)
    on_validation = trainer.test(work.settings, weights, Metric.LOG_LOSS, blobs(60, seed=1))
    on_train = trainer.test(work.settings, weights, Metric.LOG_LOSS, blobs())
    assert on_validation.value == pytest.approx(result.validation)
    assert on_train.value == pytest.approx(result.train)
    assert result.weight_count == (5 * 64 + 64) + (64 * 3 + 3) == sum(array.size for array in weights.values())
    assert result.precision == "float32"


def test_of_equal_epochs_the_earliest_is_the_best() -> None:
    result = train(table_trainer(), work_of(settings_of(learning_rate=0.0)))
    assert len({epoch.validation_metric for epoch in result.epochs}) == 1
    assert result.best_epoch == 1


def test_weights_come_back_only_up_to_the_limit() -> None:
    first = train(table_trainer(), work_of(keep_up_to=float("inf")))
    assert first.weights is not None
    assert first.validation is not None
    assert train(table_trainer(), work_of(keep_up_to=first.validation)).weights is not None
    assert train(table_trainer(), work_of(keep_up_to=first.validation - 1e-9)).weights is None


def test_kept_weights_are_of_the_best_epoch_even_when_learning_went_on() -> None:
    """The copy must not share memory with the network, which goes on changing."""
    work = work_of(settings_of(learning_rate=0.05, neurons=(64,)), epochs=25, metric=Metric.LOG_LOSS)
    whole = train(table_trainer(), dataclasses.replace(work, until=25))
    cut = train(table_trainer(), dataclasses.replace(work, epochs=whole.best_epoch, until=whole.best_epoch))
    for name, array in weights_of(whole).items():
        np.testing.assert_array_equal(array, weights_of(cut)[name])


def test_paused_trial_says_how_it_stands() -> None:
    result = train(table_trainer(), work_of(until=2))
    assert result.outcome is Outcome.PAUSED
    assert [epoch.epoch for epoch in result.epochs] == [1, 2]
    assert result.train is None
    assert result.weights is None
    assert result.validation == min(epoch.validation_metric for epoch in result.epochs)


def test_epochs_are_shown_as_they_end() -> None:
    shown: dict[int, list[EpochResult]] = {3: [], 8: []}
    works = [work_of(trial=3), work_of(trial=8, seed=1)]
    results = table_trainer().train(works, lambda: False, lambda trial, epoch: shown[trial].append(epoch))
    for work, result in zip(works, results, strict=True):
        assert work.trial == result.trial
        epochs = shown[work.trial]
        assert tuple(epochs) == result.epochs
        assert all(epoch.seconds > 0 for epoch in epochs)
        assert sum(epoch.seconds for epoch in epochs) <= result.seconds


def test_forgotten_trial_starts_anew() -> None:
    trainer = table_trainer()
    first = train(trainer, work_of(until=2))
    trainer.forget(0)
    again = train(trainer, work_of(until=3))
    assert without_times(again.epochs)[:2] == without_times(first.epochs)
    assert len(again.epochs) == 3


def test_forgetting_an_unknown_trial_does_nothing() -> None:
    table_trainer().forget(5)


def test_paused_trial_of_another_study_with_the_same_number_is_not_gone_on_with() -> None:
    trainer = table_trainer()
    train(trainer, work_of(until=2, seed=1))
    assert [epoch.epoch for epoch in train(trainer, work_of(until=3, seed=2)).epochs] == [1, 2, 3]


def test_stop_ends_a_segment_long_before_its_time_and_drops_its_state() -> None:
    trainer = digits_trainer()
    started = time.monotonic()
    slow = settings_of(CNN, convolutions=(ConvLayer(filters=64, filter_size=5, stride=1, pool=Pool.NONE),) * 3)
    work = work_of(slow, epochs=1000, until=1000)
    result = train(trainer, work, lambda: time.monotonic() > started + 0.3)
    assert result.outcome is Outcome.STOPPED
    assert result.train is None
    assert result.seconds < 30  # a thousand epochs would take many minutes
    assert result.reason is None


def test_nothing_is_kept_of_a_trial_that_finished_failed_or_was_stopped() -> None:
    trainer = table_trainer()
    late_failure = work_of(GROWING, trial=3, epochs=50)
    for work in (work_of(trial=1, until=2), work_of(trial=2, until=2), dataclasses.replace(late_failure, until=1)):
        assert train(trainer, work).outcome is Outcome.PAUSED
    assert train(trainer, work_of(trial=1)).outcome is Outcome.FINISHED
    assert train(trainer, work_of(trial=2), lambda: True).outcome is Outcome.STOPPED
    assert train(trainer, dataclasses.replace(late_failure, until=50)).outcome is Outcome.FAILED
    assert trainer._paused == {}


def test_stop_is_asked_seldom_but_before_the_first_batch() -> None:
    asked: list[float] = []

    def stopped() -> bool:
        asked.append(time.monotonic())
        return False

    train(table_trainer(), work_of(epochs=30, until=30), stopped)
    assert asked
    assert len(asked) < 30 * 5, "there are 150 batches and 60 evaluations"
    result = train(table_trainer(), work_of(), lambda: True)
    assert (result.outcome, result.epochs) == (Outcome.STOPPED, ())


def test_loss_that_is_not_finite_ends_that_trial_alone() -> None:
    expected = train(table_trainer(), work_of(trial=1))
    trainer = table_trainer()
    train(trainer, work_of(trial=1, until=2))
    failed = train(trainer, work_of(EXPLODING, trial=2))
    assert failed.outcome is Outcome.FAILED
    assert failed.reason == "the loss was not finite in epoch 1"
    assert (failed.epochs, failed.best_epoch, failed.validation, failed.train) == ((), 0, None, None)
    rest = train(trainer, work_of(trial=1))
    assert without_times(rest.epochs) == without_times(expected.epochs[2:])


def test_loss_that_is_not_finite_on_the_validation_split_alone_fails_too() -> None:
    validation = blobs(20)
    validation.inputs[3, 2] = np.inf
    result = train(table_trainer(validation=validation), work_of())
    assert result.reason == "the loss was not finite in epoch 1"


def test_failure_in_a_later_epoch_keeps_the_figures_before_it() -> None:
    result = train(table_trainer(), work_of(GROWING, epochs=50, until=50))
    assert result.outcome is Outcome.FAILED
    assert result.epochs
    assert result.reason == f"the loss was not finite in epoch {len(result.epochs) + 1}"
    assert result.best_epoch >= 1
    assert result.validation == min(epoch.validation_metric for epoch in result.epochs)


VANISHING = settings_of(
    CNN, padding=Padding.VALID, convolutions=(ConvLayer(filters=2, filter_size=5, stride=3, pool=Pool.MAX),) * 2
)


@pytest.mark.parametrize(
    ("settings", "outcome", "words"),
    [
        (VANISHING, Outcome.FAILED, "the map is"),
        (settings_of(neurons=(10**7, 10**7)), Outcome.OUT_OF_MEMORY, "training takes about 2,400,"),
        (settings_of(batch_norm=True, batch_size=1), Outcome.FAILED, "batch_norm"),
    ],
)
def test_network_that_can_not_be_built_fails_with_one_line(settings: Settings, outcome: Outcome, words: str) -> None:
    trainer = digits_trainer()
    result = train(trainer, work_of(settings))
    assert result.outcome is outcome
    assert result.reason is not None
    assert words in result.reason
    assert "\n" not in result.reason
    assert train(trainer, work_of(epochs=1, until=1)).outcome is Outcome.FINISHED


def test_cnn_on_a_table_fails_with_a_remedy() -> None:
    assert "use model: mlp" in (train(table_trainer(), work_of(CNN)).reason or "")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (BadInputError("so", where="there"), "so"),
        (ValueError("one\ntwo"), "ValueError: one"),
        (KeyError(), "KeyError: "),
        (torch.OutOfMemoryError("CUDA out"), "out of memory; a smaller network or batch may fit (CUDA out)"),
    ],
)
def test_reason_of_a_failure_is_one_line(error: Exception, reason: str) -> None:
    assert failure_reason(error) == reason


@pytest.mark.parametrize(
    ("error", "ran_out"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError(), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), True),
        (RuntimeError("std::bad_alloc"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling"), True),
        (RuntimeError("shapes"), False),
        (ValueError(), False),
    ],
)
def test_running_out_of_memory_is_told_from_other_failures(error: Exception, ran_out: bool) -> None:
    assert out_of_memory(error) is ran_out
    try:
        try:
            raise error
        finally:
            raise RuntimeError("the capture ended early")
    except RuntimeError as later:
        assert out_of_memory(later) is ran_out


def test_8_bit_images_stay_so_and_learn_like_scaled_floats() -> None:
    small = digits(0, 300)
    trainer = digits_trainer(small)
    assert trainer._data.train.inputs.dtype is torch.uint8
    work = work_of(settings_of(EVERYTHING_RANDOM), epochs=2, until=2)
    result = train(trainer, work)

    def scaled(rows: Split) -> Split:
        flat = rows.inputs.reshape(len(rows), 64).astype(np.float32)
        return split((flat - np.float32(DIGITS_MEAN)) / np.float32(DIGITS_STD), rows.targets)

    table = Preprocessing(kind="table", task="classification", classes=tuple(range(10)))
    flat_trainer = Trainer(scaled(small), scaled(digits(1200, 1500)), table, Task.CLASSIFICATION, (64,), 10)
    assert without_times(train(flat_trainer, work).epochs) == without_times(result.epochs)


def test_each_channel_is_scaled_by_its_own_figures() -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (40, 3, 4, 4), dtype=np.uint8)
    labels = (np.arange(40) % 2).astype(np.int64)
    preprocessing = Preprocessing(
        kind="image", task="classification", shape=(3, 4, 4), mean=(1.0, 20.0, 100.0), std=(10.0, 3.0, 50.0)
    )
    rows = split(images, labels)
    trainer = Trainer(rows, rows, preprocessing, Task.CLASSIFICATION, (3, 4, 4), 2, device="cpu")
    scaled = trainer._data.train.images(torch.arange(40)).numpy()
    for channel, (mean, std) in enumerate(((1.0, 10.0), (20.0, 3.0), (100.0, 50.0))):
        np.testing.assert_allclose(scaled[:, channel], (images[:, channel].astype(float) - mean) / std, rtol=1e-6)


def diabetes_trainer() -> tuple[Trainer, Split, float, float]:
    inputs, targets = load_diabetes(return_X_y=True)
    inputs = ((inputs - inputs.mean(axis=0)) / inputs.std(axis=0)).astype(np.float32)
    mean, std = float(targets[:300].mean()), float(targets[:300].std())
    standardised = ((targets - mean) / std).astype(np.float32)
    preprocessing = Preprocessing(kind="table", task="regression", target_mean=mean, target_std=std)
    train_rows, validation, test = (
        split(inputs[a:b], standardised[a:b]) for a, b in ((0, 300), (300, 370), (370, 442))
    )
    trainer = Trainer(train_rows, validation, preprocessing, Task.REGRESSION, (10,), 1, device="cpu")
    return trainer, test, mean, std


@pytest.mark.parametrize("metric", [Metric.MSE, Metric.MAE])
def test_regression_is_reported_in_the_targets_units(metric: Metric) -> None:
    trainer, test, mean, std = diabetes_trainer()
    raw = load_diabetes().target
    result = train(trainer, work_of(metric=metric, epochs=8, until=8))
    tested = trainer.test(MLP, weights_of(result), metric, test)
    oracle = {Metric.MSE: sklearn.metrics.mean_squared_error, Metric.MAE: sklearn.metrics.mean_absolute_error}[metric]
    np.testing.assert_allclose(tested.truth, raw[370:442], rtol=1e-4)
    assert tested.outputs.shape == (72,)
    assert tested.value == pytest.approx(oracle(raw[370:442], tested.outputs), rel=1e-4)
    constant = oracle(raw[300:370], np.full(70, mean))
    assert result.validation is not None
    assert 0.3 * constant < result.validation < 0.85 * constant
    if metric is Metric.MSE:
        losses = [epoch.validation_loss * std**2 for epoch in result.epochs]
        np.testing.assert_allclose([epoch.validation_metric for epoch in result.epochs], losses, rtol=1e-5)


def test_answers_far_from_zero_keep_their_digits() -> None:
    """Moments in time: at 1.7e9 seconds neighbouring float32 numbers are 128 apart."""
    inputs = np.random.default_rng(0).normal(size=(40, 2)).astype(np.float32)
    rows = split(inputs, inputs[:, 0])
    far = Preprocessing(kind="table", task="regression", target_mean=1.7e9, target_std=3.0)
    trainer = Trainer(rows, rows, far, Task.REGRESSION, (2,), 1, device="cpu")

    tested = trainer.test(MLP, weights_of(train(trainer, work_of(metric=Metric.MSE))), Metric.MSE, rows)

    np.testing.assert_allclose(tested.truth - 1.7e9, inputs[:, 0].astype(float) * 3, atol=1e-5)
    assert tested.value == pytest.approx(np.mean((tested.outputs - tested.truth) ** 2), rel=1e-4)


def test_tested_probabilities_and_value_agree() -> None:
    trainer = digits_trainer()
    weights = weights_of(train(trainer, work_of(settings_of(CNN), epochs=2, until=2)))
    rows = digits(1500, 1797)
    tested = trainer.test(CNN, weights, Metric.LOG_LOSS, rows)
    assert tested.outputs.shape == (297, 10)
    np.testing.assert_allclose(tested.outputs.sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_array_equal(tested.truth, rows.targets)
    assert tested.value == pytest.approx(sklearn.metrics.log_loss(rows.targets, tested.outputs), rel=1e-4)


def test_an_overconfident_networks_log_loss_is_that_of_its_probabilities() -> None:
    trainer = digits_trainer()
    weights = weights_of(train(trainer, work_of(epochs=2, until=2)))
    weights["output.weight"] = np.multiply(weights["output.weight"], 40, dtype=np.float32)
    rows = digits(1500, 1797)
    tested = trainer.test(MLP, weights, Metric.LOG_LOSS, rows)
    losses = -np.log(tested.outputs[np.arange(len(rows)), rows.targets])
    assert 110 < losses.max() < 700  # float32 has no such probability
    assert tested.value == pytest.approx(losses.mean(), rel=1e-4)


def test_exported_images_network_takes_raw_pixels_in_any_number() -> None:
    trainer = digits_trainer()
    chosen = settings_of(CNN, batch_norm=True, dropout=0.3)
    weights = weights_of(train(trainer, work_of(chosen, epochs=1, until=1)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        program = torch.export.load(io.BytesIO(trainer.export(chosen, weights))).module()
    for count in (1, 2, 57):
        rows = digits(1500, 1500 + count)
        expected = trainer.test(chosen, weights, Metric.ERROR, rows).outputs
        outputs = program(torch.from_numpy(rows.inputs.astype(np.float32))).softmax(dim=1)
        np.testing.assert_allclose(outputs.detach().numpy(), expected, atol=1e-6)


def test_exported_regression_gives_the_standardised_target() -> None:
    trainer, test, mean, std = diabetes_trainer()
    weights = weights_of(train(trainer, work_of(EVERYTHING_RANDOM, metric=Metric.MSE)))
    program = torch.export.load(io.BytesIO(trainer.export(EVERYTHING_RANDOM, weights))).module()
    outputs = program(torch.from_numpy(test.inputs)).detach().numpy()
    assert outputs.shape == (72, 1)
    expected = trainer.test(EVERYTHING_RANDOM, weights, Metric.MSE, test).outputs
    np.testing.assert_allclose(outputs[:, 0] * std + mean, expected, rtol=1e-5)


@pytest.mark.parametrize("activation", Activation)
def test_every_activation_learns(activation: Activation) -> None:
    chosen = settings_of(activation=activation, learning_rate=0.02)
    result = train(table_trainer(), work_of(chosen, epochs=15, until=15))
    assert result.validation is not None
    assert result.validation < 0.45  # chance is 0.67


def test_weights_of_another_network_are_refused() -> None:
    trainer = table_trainer()
    weights = weights_of(train(trainer, work_of()))
    with pytest.raises(BadInputError, match="weights must be those"):
        trainer.test(settings_of(neurons=(16,)), weights, Metric.ERROR, blobs())
    with pytest.raises(BadInputError, match="weights must be those"):
        trainer.export(settings_of(neurons=(17, 12)), weights)


def test_read_only_arrays_are_shared_without_a_warning_and_never_written() -> None:
    rows = blobs()
    rows.inputs.setflags(write=False)
    rows.targets.setflags(write=False)
    before = rows.inputs.copy()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trainer = table_trainer(rows, rows)
    assert trainer._data.train.inputs.data_ptr() == rows.inputs.ctypes.data
    train(trainer, work_of(EVERYTHING_RANDOM))
    np.testing.assert_array_equal(rows.inputs, before)


def test_trainer_uses_the_threads_it_is_given() -> None:
    before = torch.get_num_threads()
    try:
        Trainer(blobs(), blobs(), Preprocessing(kind="table", task=""), Task.CLASSIFICATION, (5,), 3, threads=2)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
@pytest.mark.parametrize("name", ["cuda", "cuda:7", "toaster"])
def test_device_that_is_not_there_is_an_error(name: str) -> None:
    with pytest.raises(BadInputError, match=f"not '{name}'"):
        find_device(name)
    assert find_device("auto") == torch.device("cpu")


ALONE = """
import sys

sys.modules.update(dict.fromkeys({walled}))  # as if they were not installed
import numpy, torch, torch._dynamo, torch.export
before = {name.partition(".")[0] for name in sys.modules}
import trainer.worker, trainer.shapes
loaded = {name.partition(".")[0] for name in sys.modules} - before - set(sys.stdlib_module_names)
assert loaded == {"trainer", "neurosweep"}, loaded

import json
import numpy as np
from trainer.data.dataset import Preprocessing, Split, Task
from trainer.settings import Settings
from trainer.work import Metric, TrialWork
rows = Split(inputs=np.eye(6, dtype=np.float32), targets=np.arange(6) % 2, rows=np.arange(6))
preprocessing = Preprocessing(kind="table", task="classification")
worker = trainer.worker.Trainer(rows, rows, preprocessing, Task.CLASSIFICATION, (6,), 2, device="cpu")
settings = Settings.from_json(json.loads('''{settings}'''))
work = TrialWork(trial=0, settings=settings, seed=0, metric=Metric.ERROR, epochs=1, until=1)
result = worker.train([work], lambda: False, lambda trial, epoch: None)[0]
assert result.outcome == "finished", result
worker.test(settings, result.weights, Metric.ERROR, rows)
worker.export(settings, result.weights)
"""


def test_trainer_runs_with_torch_numpy_and_the_standard_library_alone() -> None:
    walled = {"sklearn", "scipy", "pandas", "datasets", "PIL", "optuna", "ray", "mlflow", "sqlalchemy", "pydantic"}
    walled |= {"search", "storage", "matplotlib", "alembic"}
    script = ALONE.replace("{walled}", repr(walled)).replace("{settings}", json.dumps(MLP.to_json()))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
