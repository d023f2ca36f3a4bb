"""How many workers fit, and what a pool promises: the real one, on a Ray of its own, and the one of the other tests."""

from __future__ import annotations

import dataclasses
import os
import pickle
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, cast

import numpy as np
import pytest
import ray

from neurosweep.errors import NeurosweepError, UnreachableError
from search.placement import WorkerShape
from search.pool import Done, Pool
from tests.faults.packs import SETTINGS, work
from tests.search.in_process_pool import InProcessPool
from trainer.data.dataset import DataRequest, Dataset
from trainer.data.load import load
from trainer.work import EpochResult, Metric, Outcome, SegmentResult, TrialWork
from trainer.worker import Trainer

# How many workers fit


# What a pool promises


@dataclasses.dataclass
class Rig:
    pool: Pool
    kill: Callable[[int], None]

    def collect(self, count: int) -> list[Done]:
        """Waits for so many answers."""
        done: list[Done] = []
        deadline = time.monotonic() + 60
        while len(done) < count:
            assert time.monotonic() < deadline, done
            done += self.pool.collect(0.5)
        assert len(done) == count
        return done


def pid(pool: Pool, worker: int) -> int:
    call = pool._members[worker].actor.__ray_call__.options(concurrency_group="control")
    number: int = ray.get(call.remote(lambda actor: os.getpid()))
    return number


@pytest.fixture(scope="module")
def data() -> Dataset:
    return load(DataRequest(source="iris"))


@pytest.fixture(scope="module")
def real() -> Iterator[Pool]:
    """Ray takes seconds to start: one for the whole file."""
    mine = signal.getsignal(signal.SIGTERM)
    pool = Pool.start(None)
    assert signal.getsignal(signal.SIGTERM) is mine, "SIGTERM is ours to answer"
    pool.open(WorkerShape(count=2, cpus=1.0, gpus=0.0))
    yield pool
    pool.close()


@pytest.fixture(params=["ray", "in process"])
def rig(request: pytest.FixtureRequest, data: Dataset) -> Rig:
    if request.param == "ray":
        pool: Pool = request.getfixturevalue("real")
        made = Rig(pool, lambda worker: os.kill(pid(pool, worker), signal.SIGKILL))
    else:
        fake = InProcessPool(workers=2)
        made = Rig(fake, fake.kill)
    made.pool.load(data)
    return made


ENDLESS = 1_000_000


def trainer(data: Dataset) -> Trainer:
    return Trainer(
        data.train, data.validation, data.preprocessing, data.task, data.input_shape, data.outputs, device="cpu"
    )


def alone(data: Dataset, trial: int) -> SegmentResult:
    """The trial, trained by nobody's worker."""
    return trainer(data).train([work(trial)], lambda: False, lambda trial, epoch: None)[0]


def figures(*results: SegmentResult | None) -> list[EpochResult]:
    epochs: list[EpochResult] = []
    for result in results:
        assert result is not None
        epochs += [dataclasses.replace(epoch, seconds=0.0) for epoch in result.epochs]
    return epochs


def only(done: Done) -> SegmentResult | None:
    """The result of a pack of one."""
    if done.results is None:
        return None
    (result,) = done.results
    return result


def test_a_pack_comes_back_whole_each_trial_as_if_it_were_alone(rig: Rig, data: Dataset) -> None:
    rig.pool.submit(0, [work(1), work(2, until=2), work(3)])

    (done,) = rig.collect(1)

    assert done.results is not None
    assert [each.trial for each in done.works] == [each.trial for each in done.results] == [1, 2, 3]
    outcomes = [each.outcome for each in done.results]
    assert outcomes == [Outcome.FINISHED, Outcome.PAUSED, Outcome.FINISHED]
    for trial, each in zip((1, 2, 3), done.results, strict=True):
        assert figures(each) == figures(alone(data, trial))[: len(each.epochs)]


def test_a_worker_answers_in_the_order_in_which_it_was_asked(rig: Rig, data: Dataset) -> None:
    for trial in (3, 1, 2):
        rig.pool.submit(0, [work(trial)])
    rig.pool.submit(1, [work(0)])
    assert (rig.pool.size, rig.pool.outstanding(0), rig.pool.outstanding(1)) == (2, 3, 1)

    done = rig.collect(4)

    assert [each.works[0].trial for each in done if each.worker == 0] == [3, 1, 2]
    assert [each.works[0].trial for each in done if each.worker == 1] == [0]
    assert all((each.death, each.waiting) == (None, False) for each in done)
    assert (rig.pool.outstanding(0), rig.pool.outstanding(1)) == (0, 0)
    for each in done:
        expected, result = alone(data, each.works[0].trial), only(each)
        assert result is not None
        assert (result.trial, result.outcome) == (each.works[0].trial, Outcome.FINISHED)
        assert figures(result) == figures(expected)
        assert (result.validation, result.train) == (expected.validation, expected.train)


def test_an_answer_can_be_read_without_torch(rig: Rig) -> None:
    rig.pool.submit(0, [work(1)])
    (done,) = rig.collect(1)

    script = "import pickle, sys; pickle.load(sys.stdin.buffer); print('torch' in sys.modules)"
    read = subprocess.run([sys.executable, "-c", script], input=pickle.dumps(done.results), capture_output=True)

    assert read.stdout.decode().strip() == "False", read.stderr


def test_nothing_to_wait_for_is_answered_at_once(rig: Rig) -> None:
    began = time.monotonic()
    assert rig.pool.collect(30.0) == []
    assert time.monotonic() - began < 5


def test_a_paused_trial_goes_on_in_its_worker_and_one_that_was_forgotten_starts_anew(rig: Rig, data: Dataset) -> None:
    rig.pool.submit(0, [work(1, until=2)])
    rig.pool.submit(0, [work(1, until=4)])
    first, second = (only(each) for each in rig.collect(2))
    assert first is not None
    assert first.outcome is Outcome.PAUSED
    assert figures(first, second) == figures(alone(data, 1))[:4]

    rig.pool.forget(0, [1])
    rig.pool.submit(0, [work(1)])
    assert figures(only(rig.collect(1)[0])) == figures(alone(data, 1))


def test_halting_ends_what_runs_and_what_waits_until_other_data_come(rig: Rig, data: Dataset) -> None:
    """Even where the halt overtakes the data that were sent before it, or the other data overtake the halt."""
    rig.pool.submit(0, [work(0, until=ENDLESS, epochs=ENDLESS)])
    rig.pool.submit(0, [work(1)])
    rig.pool.halt()

    done = rig.collect(2)
    outcomes = [result and result.outcome for result in map(only, done)]
    assert outcomes == [Outcome.STOPPED, Outcome.STOPPED]

    rig.pool.load(data)
    rig.pool.submit(0, [work(1)])
    result = only(rig.collect(1)[0])
    assert result is not None
    assert result.outcome is Outcome.FINISHED


def test_a_worker_that_dies_gives_all_back_and_is_replaced_without_the_other_noticing(rig: Rig, data: Dataset) -> None:
    rig.pool.submit(0, [work(0, until=ENDLESS, epochs=ENDLESS)])
    rig.pool.submit(0, [work(1)])
    rig.pool.submit(1, [work(2)])
    rig.kill(0)

    done = rig.collect(3)

    lost = [each for each in done if each.worker == 0]
    assert [(each.works[0].trial, only(each), each.waiting) for each in lost] == [(0, None, False), (1, None, True)]
    assert all(each.death and "\n" not in each.death for each in lost)
    (other,) = (each for each in done if each.worker == 1)
    assert figures(only(other)) == figures(alone(data, 2))
    assert (rig.pool.size, rig.pool.outstanding(0)) == (2, 0)
    rig.pool.submit(0, [work(1)])
    assert figures(only(rig.collect(1)[0])) == figures(alone(data, 1))


def test_work_that_breaks_a_worker_in_an_unforeseen_way_comes_back_with_the_reason(rig: Rig, data: Dataset) -> None:
    rig.pool.submit(0, [dataclasses.replace(work(0), until=cast(Any, "nonsense"))])
    (done,) = rig.collect(1)
    # The trainer itself takes what goes wrong within a trial.
    result = only(done)
    assert result is not None
    assert result.outcome is Outcome.FAILED

    rig.pool.submit(0, [cast(TrialWork, "nonsense")])
    rig.pool.submit(0, [work(1)])
    broken, waiting = rig.collect(2)
    assert (only(broken), broken.waiting) == (None, False)
    assert "has no attribute" in (broken.death or "")
    assert (only(waiting), waiting.waiting, waiting.works[0].trial) == (None, True, 1)
    rig.pool.submit(0, [work(1)])
    assert figures(only(rig.collect(1)[0])) == figures(alone(data, 1))


def test_other_data_drop_the_study_before_with_all_that_is_under_way(rig: Rig, data: Dataset) -> None:
    rig.pool.submit(0, [work(1, until=2)])
    rig.collect(1)
    rig.pool.submit(0, [work(5)])

    wine = load(DataRequest(source="wine"))
    rig.pool.load(wine)

    assert rig.pool.outstanding(0) == 0
    rig.pool.submit(0, [work(1)])
    done = rig.collect(1)
    assert figures(only(done[0])) == figures(alone(wine, 1))


def test_a_worker_that_can_not_hold_the_data_says_why_and_never_trains_on_the_study_before(
    real: Pool, data: Dataset
) -> None:
    real.load(data)
    rig = Rig(real, lambda worker: None)
    real.submit(0, [work(0)])
    rig.collect(1)

    real.load(dataclasses.replace(data, train=dataclasses.replace(data.train, inputs=cast(Any, "no array"))))
    real.submit(0, [work(1)])
    (done,) = rig.collect(1)
    assert only(done) is None
    assert done.death is not None
    assert "does not hold the study's data" in done.death
    assert "Error: " in done.death.partition("data: ")[2]


def test_the_test_split_and_the_program_are_those_of_the_network_that_was_chosen(rig: Rig, data: Dataset) -> None:
    weights = alone(data, 1).weights
    assert weights is not None

    tested = rig.pool.test(SETTINGS, weights, Metric.ERROR)

    expected = trainer(data).test(SETTINGS, weights, Metric.ERROR, data.test)
    np.testing.assert_array_equal(tested.truth, data.test.targets)
    np.testing.assert_allclose(tested.outputs, expected.outputs, rtol=1e-5)
    assert tested.value == np.mean(tested.outputs.argmax(1) != data.test.targets)
    assert rig.pool.export(SETTINGS, weights)()[:2] == b"PK"  # a .pt2 is a zip archive


def test_weights_of_another_network_are_a_worker_failure_in_one_line(rig: Rig, data: Dataset) -> None:
    weights = alone(data, 1).weights
    assert weights is not None
    wider = dataclasses.replace(SETTINGS, neurons=(13,))

    for call in (lambda: rig.pool.test(wider, weights, Metric.ERROR), rig.pool.export(wider, weights)):
        with pytest.raises(NeurosweepError, match="A worker failed") as failed:
            call()
        assert "\n" not in failed.value.message


def test_every_worker_has_its_name_on_the_screen(rig: Rig) -> None:
    assert [each.name for each in rig.pool.activity(lambda worker: f"w{worker}")] == ["w0", "w1"]


# The real one alone


def test_the_screen_sees_which_epoch_a_worker_is_at(real: Pool, data: Dataset) -> None:
    real.load(data)
    real.submit(1, [work(7, until=ENDLESS, epochs=ENDLESS)])
    deadline, seen = time.monotonic() + 30, real.activity(str)
    while seen[1].epoch < 2:
        assert time.monotonic() < deadline, seen
        real.signs()
        time.sleep(0.05)
        seen = real.activity(str)
    assert (seen[1].trial, seen[1].epochs, seen[0].trial) == (7, ENDLESS, None)
    real.halt()


def test_workers_of_the_same_shape_stay_and_others_come_and_go(real: Pool, data: Dataset) -> None:
    first, second = pid(real, 0), pid(real, 1)
    real.open(WorkerShape(count=2, cpus=1.0, gpus=0.0))
    assert (pid(real, 0), pid(real, 1)) == (first, second)
    real.open(WorkerShape(count=1, cpus=1.0, gpus=0.0))
    assert (real.size, pid(real, 0)) == (1, first)
    real.open(WorkerShape(count=2, cpus=0.5, gpus=0.0))
    assert real.size == 2
    assert first not in (pid(real, 0), pid(real, 1))
    real.load(data)
    for worker in (0, 1):
        real.submit(worker, [work(worker)])
    assert len(Rig(real, lambda worker: None).collect(2)) == 2
    real.open(WorkerShape(count=2, cpus=1.0, gpus=0.0))


def test_the_only_node_is_this_machine(real: Pool) -> None:
    assert [node.cpus for node in real.nodes] == [os.cpu_count()]


def test_a_cluster_that_does_not_listen_is_told_within_seconds() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound, but nobody listens
        address = f"127.0.0.1:{closed.getsockname()[1]}"
        began = time.monotonic()
        for name in (address, f"ray://{address}"):
            with pytest.raises(UnreachableError, match=address) as failed:
                Pool.start(name)
            assert failed.value.where == "--ray"
        assert time.monotonic() - began < 15
