"""Stopping, resuming, cancelling, and workers that die."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import psutil
import pytest

from storage.records import StudyState, TrialState
from tests.system.product import Product, interrupt, wait_until

STUDY = """\
name: iris
data: {{source: iris}}
space: {{layers: 1, neurons: {{low: 4, high: 16}}, learning_rate: {{low: 0.001, high: 0.01}}, batch_size: 16}}
search: {{sampler: random, pruner: {pruner}}}
budget: {{trials: {trials}, epochs: {epochs}}}
workers: {{count: 2}}
"""


def ended_trials(product: Product) -> int:
    if not (product.folder / ".neurosweep" / "neurosweep.db").exists():
        return 0
    studies = product.store().list_studies()
    return sum(n for s in studies for state, n in s.counts.items() if state is not TrialState.RUNNING)


def test_control_c_keeps_what_is_done_and_resume_ends_with_exactly_what_was_asked_for(tmp_path: Path) -> None:
    product = Product(tmp_path)
    product.write(STUDY.format(pruner="asha", trials=40, epochs=150))
    running = product.start("run", "study.yaml")
    wait_until(lambda: ended_trials(product) >= 3, running)
    _, shown = interrupt(running)
    assert running.returncode == 130, shown
    assert shown.rstrip().splitlines()[-1].strip().endswith("neurosweep resume iris")
    store = product.store()
    study = store.find("iris")
    assert study.state is StudyState.STOPPED
    before = {trial.number: trial for trial in store.trials(study.id) if trial.state is not TrialState.RUNNING}
    assert 3 <= len(before) < 40

    document = product.json("resume", "iris")
    assert document["state"] == "finished"
    after = {trial.number: trial for trial in store.trials(study.id)}
    assert sorted(after) == list(range(40))
    assert {number: after[number] for number in before} == before
    assert all(trial.state is not TrialState.RUNNING for trial in after.values())
    # Each epoch is there once, without gaps, in trials that went on as in those that did not.
    for trial in after.values():
        rows = store.epochs(study.id, [trial.number])
        assert [row.epoch for row in rows] == list(range(1, trial.epochs + 1))
    assert store.pending_facts() == 0


def test_resume_with_more_trials_goes_on_from_those_that_are_there(tmp_path: Path) -> None:
    product = Product(tmp_path)
    product.write(STUDY.format(pruner="none", trials=3, epochs=3))
    product("run", "study.yaml")
    first = product.trials("iris")
    document = product.json("resume", "iris", "--trials", "6")
    assert document["trials"] == {"total": 6, "complete": 6, "pruned": 0, "failed": 0, "running": 0}
    assert product.trials("iris")[:3] == first


def test_a_running_study_is_cancelled_from_another_process(tmp_path: Path) -> None:
    product = Product(tmp_path)
    product.write(STUDY.format(pruner="none", trials=400, epochs=100))
    running = product.start("run", "study.yaml")
    wait_until(lambda: ended_trials(product) >= 1, running)
    product("cancel", "iris")
    _, shown = running.communicate(timeout=90)
    assert running.returncode == 130, shown
    assert product.store().find("iris").state is StudyState.CANCELLED
    assert all(trial.state is not TrialState.RUNNING for trial in product.trials("iris"))


def test_a_worker_that_is_killed_is_replaced_and_its_trials_end_with_the_same_numbers(tmp_path: Path) -> None:
    told = []
    for name, kills in (("calm", False), ("rough", True)):
        (tmp_path / name).mkdir()
        product = Product(tmp_path / name)
        product.write(STUDY.format(pruner="none", trials=10, epochs=60))
        running = product.start("run", "study.yaml", "--json")
        if kills:
            wait_until(lambda here=product: ended_trials(here) >= 2, running)  # type: ignore[misc]  # a bound default
            worker = next(
                child
                for child in psutil.Process(running.pid).children(recursive=True)
                if "ray::PoolWorker" in " ".join(child.cmdline())
            )
            os.kill(worker.pid, signal.SIGKILL)
        _, shown = running.communicate(timeout=200)
        assert running.returncode == 0, shown
        told.append([(t.number, t.params, t.state, t.validation, t.epochs) for t in product.trials("iris")])
    assert told[0] == told[1]


@pytest.mark.parametrize("database", ["sqlite", "postgres"])
def test_submit_in_one_process_and_serve_in_another(
    tmp_path: Path, database: str, request: pytest.FixtureRequest
) -> None:
    url = request.getfixturevalue(f"{database}_url")
    product = Product(tmp_path, NEUROSWEEP_DATABASE_URL=url)
    serving = product.start("serve")
    try:
        product.write(STUDY.format(pruner="none", trials=3, epochs=2))
        for expected in ("iris", "iris@2"):
            assert product.json("submit", "study.yaml")["study"] == expected
        store = product.store()
        wait_until(lambda: all(s.study.state is StudyState.FINISHED for s in store.list_studies()), serving)
        wait_until(lambda: store.pending_facts() == 0, serving)
        assert product.json("best", "iris")["best"]["test"] is not None
    finally:
        _, shown = interrupt(serving)
    assert serving.returncode == 0, shown


def test_mlflow_that_does_not_answer_is_waited_for_but_not_by_the_study(tmp_path: Path) -> None:
    product = Product(tmp_path, MLFLOW_TRACKING_URI="http://127.0.0.1:9")
    product.write(STUDY.format(pruner="none", trials=3, epochs=2))
    ended = product("run", "study.yaml")
    assert "finished" in ended.stdout
    assert "MLflow" in ended.stderr
    store = product.store()
    assert store.find("iris").state is StudyState.FINISHED
    # One fact for the start, one for each trial, one for the end.
    assert store.pending_facts() == 5


def test_a_cluster_that_is_not_there_is_exit_status_3(tmp_path: Path) -> None:
    product = Product(tmp_path)
    product.write(STUDY.format(pruner="none", trials=1, epochs=1))
    ended = product("run", "study.yaml", "--ray", "127.0.0.1:9", status=3)
    assert "127.0.0.1:9" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_more_workers_than_fit_are_refused_where_the_study_runs(tmp_path: Path) -> None:
    product = Product(tmp_path)
    product.write(STUDY.format(pruner="none", trials=1, epochs=1).replace("count: 2", "count: 500"))
    product("submit", "study.yaml")
    ended = product("run", "study.yaml", status=2)
    assert "500 workers" in ended.stderr
