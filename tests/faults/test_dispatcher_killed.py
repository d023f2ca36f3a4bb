"""A dispatcher, or the publisher beside it, killed at each of its steps and at random moments; another one goes on.

Three random moments by default; ``NEUROSWEEP_FAULT_RUNS=50`` kills fifty dispatchers.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
from pathlib import Path

import pytest

from storage.records import StudyState, TrialRecord, TrialState
from storage.store import Store
from tests.faults.product import Fleet, assert_gone, mark, study, wait
from tests.system.product import interrupt

RUNS = int(os.environ.get("NEUROSWEEP_FAULT_RUNS", "3"))
TRIALS = 10
LEASE = 30.0
LATEST = 16.0

STEPS = (
    "after_propose",
    "after_propose@2",
    "in_transaction",
    "in_transaction@3",
    "after_commit",
    "after_commit@3",
    "after_dispatch@2",
    "testing_winner",
    "before_finish",
)
"""Steps of a dispatcher; some are reached again after the first results have come."""

SHARED = {"sqlite": STEPS, "postgres": ("in_transaction@3", "after_commit")}

PUBLISHING = ("after_create_run@4", "after_log_batch@3", "before_acknowledge@2", "registering_model")


def ended_trials(store: Store, label: str) -> list[TrialRecord]:
    rows = store.trials(store.find(label).id)
    return [row for row in rows if row.state is not TrialState.RUNNING]


def let_another_go_on(fleet: Fleet, names: list[str]) -> None:
    """A `serve` takes over what the dead have left, and tells MLflow the rest."""
    serving = fleet.product().start("serve")
    try:
        with fleet.store() as store:

            def done() -> bool:
                assert serving.poll() is None, serving.communicate()
                states = [store.find(name).state for name in names]
                return all(state is StudyState.FINISHED for state in states) and not store.pending_facts()

            wait(done, 90 + 20 * len(names))
    finally:
        _, shown = interrupt(serving)
    assert serving.returncode == 0, shown


def token(store: Store, label: str) -> int:
    with store._engine.connect() as connection:
        found = connection.exec_driver_sql(f"SELECT token FROM neurosweep_study WHERE name = '{label}'").scalar()
    return int(found or 0)


@pytest.mark.parametrize("database", SHARED)
def test_a_dispatcher_killed_at_any_step_loses_nothing(
    tmp_path: Path, database: str, request: pytest.FixtureRequest
) -> None:
    fleet = Fleet(tmp_path, request.getfixturevalue(f"{database}_url"))
    kept: dict[str, list[TrialRecord]] = {}
    word = mark()
    for step in SHARED[database]:
        name = step.replace("@", "-")
        file = fleet.write(name, study(name, trials=TRIALS, epochs=8))
        running = fleet.product(f"{step}=kill", word).start("run", file)
        _, shown = running.communicate(timeout=120)
        assert running.returncode == -signal.SIGKILL, (step, running.returncode, shown)
        with fleet.store() as store:
            assert store.find(name).state is StudyState.RUNNING
            kept[name] = ended_trials(store, name)
    assert_gone(word)
    let_another_go_on(fleet, list(kept))
    check_all(fleet, kept)


def check_all(fleet: Fleet, kept: dict[str, list[TrialRecord]]) -> None:
    for name, before in kept.items():
        fleet.assert_whole(name, TRIALS)
        with fleet.store() as store:
            after = {row.number: row for row in store.trials(store.find(name).id)}
        assert [after[row.number] for row in before] == before, name


@pytest.mark.minutes_on("postgres")
def test_a_waiting_dispatcher_takes_over_within_one_lease(tmp_path: Path, database_url: str) -> None:
    fleet = Fleet(tmp_path, database_url)
    word = mark()
    dying = fleet.product("after_commit@3=hang", word).start(
        "run", fleet.write("iris", study("iris", trials=TRIALS, epochs=8))
    )
    with fleet.store() as store:
        wait(lambda: known(store, "iris") and token(store, "iris") == 1, 60)
        serving = fleet.product().start("serve")
        try:
            wait(lambda: fleet.ended("iris") > 0, 120)
            before = ended_trials(store, "iris")
            dying.kill()
            seconds = wait(lambda: token(store, "iris") == 2, LEASE + 30)
            dying.communicate()
            wait(lambda: store.find("iris").state is StudyState.FINISHED and not store.pending_facts(), 120)
        finally:
            _, shown = interrupt(serving)
    assert serving.returncode == 0, shown
    assert seconds < LEASE + 2, f"taken over after {seconds:.1f} s"
    assert_gone(word)
    check_all(fleet, {"iris": before})


def known(store: Store, name: str) -> bool:
    return any(summary.study.name == name for summary in store.list_studies())


def test_a_publisher_killed_at_any_step_tells_mlflow_everything_once(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path)
    for step in PUBLISHING:
        name = step.partition("@")[0]
        file = fleet.write(name, study(name, trials=TRIALS, epochs=4))
        ended = fleet.product(f"{step}=kill").start("run", file)
        out, shown = ended.communicate(timeout=120)
        assert ended.returncode == 0, (step, shown)
        assert "finished" in out
        assert "the publisher failed" in shown, (step, shown)
        assert "Traceback" not in shown
    names = [step.partition("@")[0] for step in PUBLISHING]
    let_another_go_on(fleet, names)
    check_all(fleet, {name: [] for name in names})


@pytest.mark.minutes_on("sqlite")
@pytest.mark.parametrize("seed", [2])
def test_dispatchers_killed_at_random_moments_lose_nothing(tmp_path: Path, database_url: str, seed: int) -> None:
    draw = random.Random(seed)
    fleet = Fleet(tmp_path, database_url)
    kept: dict[str, list[TrialRecord]] = {}
    word = mark()
    for number in range(RUNS):
        name = f"k{number}"
        file = fleet.write(name, study(name, trials=TRIALS, epochs=60, workers=1 + number % 2))
        running = fleet.product(mark=word).start("run", file)
        # Spread over the whole of its life; most of it is the start of Ray.
        try:
            running.wait(LATEST * (number + draw.random()) / RUNS)
        except subprocess.TimeoutExpired:
            running.kill()
        running.communicate()
        with fleet.store() as store:
            if known(store, name):
                kept[name] = ended_trials(store, name)
    assert_gone(word)
    let_another_go_on(fleet, list(kept))
    check_all(fleet, kept)
