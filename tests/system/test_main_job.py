"""The main job from the outside: one study file in, the best network out, every trial in MLflow."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import optuna
import pytest
from sklearn.datasets import load_digits

from search.study_file import data_request, parse_study
from tests.system.product import DIGITS as STUDY
from tests.system.product import Product
from trainer.data.load import load
from trainer.settings import Settings
from trainer.work import Metric, TrialWork
from trainer.worker import Trainer


@pytest.fixture
def client(product: Product) -> mlflow.MlflowClient:
    return mlflow.MlflowClient(tracking_uri=f"sqlite:///{product.folder}/.neurosweep/mlflow.db")


def test_the_result_is_the_contracts_document(best: dict[str, Any]) -> None:
    assert best["study"] == "digits"
    assert best["state"] == "finished"
    assert best["metric"] == "error"
    counts = best["trials"]
    assert counts["total"] == 12 == counts["complete"] + counts["pruned"] + counts["failed"]
    assert counts["complete"] >= 1
    assert best["splits"] == {"train": 630, "validation": 135, "test": 135}
    assert best["best"]["model"] == "models:/digits@champion"
    low, high = best["best"]["test_interval"]
    assert 0 <= low <= best["best"]["test"] <= high <= 1
    assert best["mlflow"]["run_id"]
    assert best["worth"]


def test_the_best_is_the_one_that_optunas_own_reader_finds(product: Product, best: dict[str, Any]) -> None:
    study = optuna.load_study(study_name="digits", storage=f"sqlite:///{product.folder}/.neurosweep/neurosweep.db")
    assert len(study.trials) == 12
    assert study.best_trial.number == best["best"]["trial"]
    assert study.best_value == best["best"]["validation"]
    trained = best["best"]["params"]
    for name in ("learning_rate", "optimizer", "activation", "dropout", "neurons_1"):
        assert study.best_trial.params[name] == trained[name]


def test_every_trial_can_be_trained_again_to_the_same_numbers(product: Product) -> None:
    """In this process, alone, from its seed and settings; its own run shared a worker with others."""
    dataset = load(data_request(parse_study(STUDY)))
    trainer = Trainer(
        dataset.train,
        dataset.validation,
        dataset.preprocessing,
        dataset.task,
        dataset.input_shape,
        dataset.outputs,
        device="cpu",
    )
    store = product.store()
    study = store.find("digits")
    for trial in store.trials(study.id)[:6]:
        recorded = store.epochs(study.id, [trial.number])
        work = TrialWork(
            trial=trial.number,
            settings=Settings.from_json(trial.settings),
            seed=trial.seed,
            metric=Metric.ERROR,
            epochs=4,
            until=len(recorded),
        )
        again = trainer.train([work], lambda: False, lambda trial, epoch: None)[0]
        assert [epoch.validation_metric for epoch in again.epochs] == [row.validation_metric for row in recorded]
        assert [epoch.train_loss for epoch in again.epochs] == pytest.approx([row.train_loss for row in recorded])


ONLY_MLFLOW_AND_TORCH = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("neurosweep", "search", "trainer", "storage"):
            raise ImportError(name)
sys.meta_path.insert(0, Refuse())
import json, mlflow, numpy
mlflow.set_tracking_uri(sys.argv[1])
model = mlflow.pyfunc.load_model("models:/digits@champion")
answers = model.predict(numpy.load(sys.argv[2]))
json.dump([int(answer) for answer in answers["prediction"]], sys.stdout)
"""


def test_the_champion_loads_without_our_code_and_makes_exactly_the_test_errors_that_were_reported(
    product: Product, best: dict[str, Any], tmp_path: Path
) -> None:
    pixels, labels = load_digits(return_X_y=True)
    rows = load(data_request(parse_study(STUDY))).test.rows
    np.save(tmp_path / "pixels.npy", pixels.reshape(-1, 8, 8)[rows].astype(np.uint8))
    ended = subprocess.run(
        [
            sys.executable,
            "-I",
            "-c",
            ONLY_MLFLOW_AND_TORCH,
            f"sqlite:///{product.folder}/.neurosweep/mlflow.db",
            str(tmp_path / "pixels.npy"),
        ],
        cwd=tmp_path,
        env={**os.environ, "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr
    predictions = json.loads(ended.stdout[ended.stdout.index("[") :])
    assert np.mean(np.asarray(predictions) != labels[rows]) == pytest.approx(best["best"]["test"], abs=1e-9)


def test_mlflow_has_every_trial_with_its_curve(product: Product, client: mlflow.MlflowClient) -> None:
    store = product.store()
    study = store.find("digits")
    experiment = client.get_experiment_by_name("digits")
    runs = client.search_runs([experiment.experiment_id], max_results=100)
    children = {run.data.tags["neurosweep.trial"]: run for run in runs if "mlflow.parentRunId" in run.data.tags}
    assert sorted(map(int, children)) == list(range(12))
    for trial in store.trials(study.id):
        run = children[str(trial.number)]
        assert run.data.params == {
            name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in trial.params.items()
        }
        history = client.get_metric_history(run.info.run_id, "validation_error")
        recorded = [(row.epoch, row.validation_metric) for row in store.epochs(study.id, [trial.number])]
        assert sorted((point.step, point.value) for point in history) == recorded
        assert "test_error" not in run.data.metrics
    assert store.pending_facts() == 0


def test_the_parent_run_holds_the_result_and_the_plots(
    product: Product, best: dict[str, Any], client: mlflow.MlflowClient
) -> None:
    run = client.get_run(best["mlflow"]["run_id"])
    assert run.info.status == "FINISHED"
    assert run.data.metrics["test_error"] == best["best"]["test"]
    plots = {artifact.path for artifact in client.list_artifacts(run.info.run_id, "plots")}
    assert {f"plots/{name}" for name in ("history.png", "learning_curves.png", "confusion_matrix.png")} <= plots
    assert "plots/parallel_coordinates.html" in plots
    assert client.get_model_version_by_alias("digits", "champion").run_id == run.info.run_id


def test_predict_answers_for_new_images_on_any_machine(product: Product, tmp_path: Path) -> None:
    pixels = load_digits().images.astype(np.uint8)[:5]
    np.savez(product.folder / "new.npz", x=pixels)
    answers = product.json("predict", "digits", "new.npz")
    assert len(answers) == 5
    for answer in answers:
        shares = [value for name, value in answer.items() if name.startswith("probability_")]
        assert sum(shares) == pytest.approx(1, abs=1e-5)
    # Where the study did not run: all that it takes is the database and MLflow.
    kept = product.folder / ".neurosweep"
    elsewhere = (
        "--home",
        str(tmp_path),
        "--database",
        str(kept / "neurosweep.db"),
        "--tracking",
        str(kept / "mlflow.db"),
    )
    assert product.json("predict", "digits", "new.npz", *elsewhere) == answers


def test_status_list_and_watch_tell_the_same(product: Product, best: dict[str, Any]) -> None:
    status = product.json("status", "digits")
    assert len(status["trial_list"]) == 12
    assert status["trials"] == best["trials"]
    assert [study["study"] for study in product.json("list")] == ["digits"]
    assert product.json("watch", "digits")["state"] == "finished"


ONE_WORKER = """\
name: iris
seed: 5
data: {source: iris}
space: {layers: {low: 1, high: 2}, neurons: {low: 4, high: 16}, batch_size: 32}
budget: {trials: 8, epochs: 6}
workers: {count: 1}
"""


def test_with_one_worker_the_same_seed_gives_the_same_trials(tmp_path: Path) -> None:
    told = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        product = Product(tmp_path / name)
        product.write(ONE_WORKER)
        product("run", "study.yaml")
        told.append([(t.params, t.seed, t.state, t.validation, t.epochs) for t in product.trials("iris")])
    assert told[0] == told[1]


def test_a_study_whose_every_trial_diverges_says_why_and_fails(tmp_path: Path) -> None:
    product = Product(tmp_path)
    product.write(
        "name: bad\ndata: {source: diabetes}\n"
        "space: {layers: 1, neurons: 8, learning_rate: 1.0e+30, optimizer: sgd, batch_norm: false, batch_size: 32,\n"
        "  activation: relu}\n"
        "budget: {trials: 3, epochs: 3}\nworkers: {count: 1}\n"
    )
    ended = product("run", "study.yaml", status=1)
    assert "not finite" in ended.stderr + ended.stdout
    assert "Traceback" not in ended.stderr
    assert {trial.state.value for trial in product.trials("bad")} == {"failed"}


def test_a_regression_is_judged_in_the_targets_units(tmp_path: Path) -> None:
    product = Product(tmp_path)
    product.write(
        "name: d\ndata: {source: diabetes}\nmetric: mae\n"
        "space: {layers: 1, neurons: 16, learning_rate: 0.01, optimizer: adam, batch_size: 32}\n"
        "budget: {trials: 3, epochs: 20}\nworkers: {count: 1}\n"
    )
    best = product.json("run", "study.yaml")["best"]
    low, high = best["test_interval"]
    # The best constant guess is off by about 65 on this set; a network that learns stays well under that.
    assert 30 < low < best["test"] < high < 65
