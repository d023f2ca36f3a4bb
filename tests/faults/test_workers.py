"""Workers that are killed or stopped while a study runs: it ends with the same numbers, and nothing is lost.

What takes minutes runs where ``NEUROSWEEP_FAULT_RUNS`` is set.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.faults.product import Fleet, assert_gone, mark, marked, study
from tests.system.product import wait_until

TRIALS = 16
EPOCHS = 150


def workers_of(word: str) -> list[psutil.Process]:
    """The workers of a command with this mark."""
    found = []
    for process in marked(word):
        try:
            # Idle processes of Ray, which have not been given a worker yet, are called otherwise.
            if "ray::PoolWorker" in " ".join(process.cmdline()):
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return sorted(found, key=lambda process: process.pid)


def figures(fleet: Fleet) -> list[tuple[Any, ...]]:
    """All of the trials that does not depend on when and where they were trained."""
    with fleet.store() as store:
        rows = store.trials(store.find("iris").id)
        epochs = store.epochs(store.find("iris").id)
    told = [(row.number, row.state, row.params, row.seed, row.validation, row.train, row.epochs) for row in rows]
    return [*told, *((row.trial, row.epoch, row.train_loss, row.validation_loss) for row in epochs)]


def text() -> str:
    return study("iris", trials=TRIALS, epochs=EPOCHS, pruner="none")


def start(fleet: Fleet, word: str) -> subprocess.Popen[str]:
    running = fleet.product(mark=word).start("run", fleet.write("iris", text()))
    wait_until(lambda: fleet.ended("iris") >= 1, running, 120)
    return running


def end(fleet: Fleet, running: subprocess.Popen[str], word: str) -> None:
    _, shown = running.communicate(timeout=240)
    assert running.returncode == 0, shown[-3000:]
    assert "Traceback" not in shown
    assert_gone(word)
    fleet.assert_whole("iris", TRIALS)


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Any, ...]]:
    """What the study comes to when nothing happens."""
    fleet = Fleet(tmp_path_factory.mktemp("calm"))
    fleet.product()("run", fleet.write("iris", text()))
    fleet.assert_whole("iris", TRIALS)
    return figures(fleet)


def test_workers_killed_one_after_the_other_cost_nothing_but_time(
    tmp_path: Path, database_url: str, calm: list[tuple[Any, ...]]
) -> None:
    fleet, word = Fleet(tmp_path, database_url), mark()
    running = start(fleet, word)
    killed: set[int] = set()
    until = time.monotonic() + 60
    while running.poll() is None and len(killed) < 2 and time.monotonic() < until:
        for worker in workers_of(word)[:1]:
            if worker.pid not in killed:
                worker.kill()
                killed.add(worker.pid)
        time.sleep(0.2)
    assert killed
    end(fleet, running, word)
    assert figures(fleet) == calm


def test_a_worker_that_answers_nothing_more_is_replaced(tmp_path: Path, calm: list[tuple[Any, ...]]) -> None:
    fleet, word = Fleet(tmp_path), mark()
    running = start(fleet, word)
    (worker,) = workers_of(word)
    worker.send_signal(signal.SIGSTOP)
    try:
        end(fleet, running, word)
        assert not worker.is_running(), "the stopped worker is still there"
    finally:
        if worker.is_running():
            worker.kill()
    assert figures(fleet) == calm


@pytest.mark.parametrize("action", ["exit", "kill", "memory", "hang"])
def test_a_trial_that_brings_its_worker_down_fails_alone(tmp_path: Path, action: str) -> None:
    fleet, word = Fleet(tmp_path), mark()
    text = study("iris", trials=8, epochs=5, pruner="none")
    if action == "hang":
        text = text.replace("epochs: 5}", "epochs: 5, minutes_per_trial: 0.1}")
    file = fleet.write("iris", text)
    running = fleet.product(f"training_trial_3={action}", word).start("run", file)
    _, shown = running.communicate(timeout=240)
    assert running.returncode == 0, shown[-3000:]
    assert_gone(word)
    fleet.assert_whole("iris", 8)
    with fleet.store() as store:
        rows = store.trials(store.find("iris").id)
    assert [row.number for row in rows if row.state == "failed"] == [3], [(row.number, row.error) for row in rows]
    assert rows[3].error


@pytest.mark.skipif(
    "NEUROSWEEP_FAULT_RUNS" not in os.environ, reason="it takes minutes: NEUROSWEEP_FAULT_RUNS=1 runs it"
)
@pytest.mark.timeout(900)
def test_a_trial_that_hangs_three_workers_is_failed_without_any_time_limit(tmp_path: Path) -> None:
    fleet, word = Fleet(tmp_path), mark()
    file = fleet.write("iris", study("iris", trials=8, epochs=5, pruner="none"))
    running = fleet.product("training_trial_3=hang", word).start("run", file)
    _, shown = running.communicate(timeout=800)
    assert running.returncode == 0, shown[-3000:]
    assert_gone(word)
    fleet.assert_whole("iris", 8)
