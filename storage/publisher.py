"""The publisher: tells MLflow what the outbox holds, each fact once in effect.

``python -m storage.publisher`` is a process of its own, so that MLflow, slow or down, never holds training up.
Settings come from the environment alone (passwords): ``NEUROSWEEP_DATABASE_URL``, ``MLFLOW_TRACKING_URI`` and
``NEUROSWEEP_HOME``. `storage.publisher_loop` says how it is steered and how it exits.

Once in effect means: a run is looked up by its key, the tag ``neurosweep.key``, before it is made; one publisher at a
time holds a study's outbox; the client never repeats a request by itself; every value and time stamp is frozen in the
database, and MLflow takes the same ones again without a change.
"""

from __future__ import annotations

import contextlib
import gc
import importlib.metadata
import itertools
import json
import logging
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pandas as pd

from neurosweep.errors import BadInputError, NeurosweepError, UnreachableError
from neurosweep.failpoints import reach
from storage import mlflow_door
from storage.facts import champion_key, extra_run_key, parent_key, study_key, trial_key
from storage.mlflow_door import file_of, refuses
from storage.patient_client import PatientClient
from storage.projection import KEY, STUDY_UID, RunContent, extra_run_content, study_content, trial_content
from storage.publisher_loop import UNANSWERED, Orders, log_to, reason_of, work
from storage.records import EpochRow, ExtraRun, StudyRecord, TrialRecord
from storage.secrecy import public_address, secrets_in
from storage.store import Store
from storage.telling import Teller, champion_folder, check_champion, page_file

# isort: split
import mlflow  # the door has set it up
import mlflow.pyfunc
from mlflow.entities import LoggedModelOutput, Metric, Param, RunTag, ViewType
from mlflow.models import ModelSignature
from mlflow.types.schema import AnyType, ColSpec, DataType, Schema, TensorSpec

ALIAS = "champion"
EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}  # so that the UI opens on runs and models
MAX_METRICS, MAX_PARAMS, MAX_PAGE = 1000, 100, 1000  # MLflow's limits for one request

log = logging.getLogger("storage.publisher")


@contextlib.contextmanager
def _already_there() -> Iterator[None]:
    """What can be there once only may be there."""
    try:
        yield
    except mlflow.MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


class StudyInMlflow:
    """One study's experiment, runs and registered model. Whoever uses it holds the study's outbox.

    Args:
        study: Name, number and study file count; its state is handed in with each call.
        home: Holds the artifacts where MLflow has no server to keep them.
    """

    def __init__(self, client: mlflow.MlflowClient, study: StudyRecord, tracking: str, home: Path) -> None:
        self._client = PatientClient(client, refuses)
        self._study = study
        self._home = home
        self._served = urlsplit(tracking).scheme in ("http", "https")
        self.experiment_id = self._experiment()
        self._runs: dict[str, str] = {}  # run id by key
        self._deleted: set[str] = set()
        self._doubtful = False
        self._first_round: str | None = None
        self.read_runs()

    def _experiment(self) -> str:
        def find() -> Any:
            return self._client.get_experiment_by_name(self._study.name)

        def make() -> Any:
            location = None if self._served else (self._home / "mlartifacts").resolve().as_uri()
            with _already_there():  # another publisher was faster
                self._client.create_experiment(self._study.name, artifact_location=location, tags=EXPERIMENT_TAGS)
            return find()

        experiment = self._client.find_or_make(find, make)
        if experiment.lifecycle_stage == "deleted":
            self._client.restore_experiment(experiment.experiment_id)
        return str(experiment.experiment_id)

    @property
    def parent(self) -> str | None:
        """Run id of the parent run, where it is there."""
        return self._runs.get(study_key(self._study))

    def is_there(self) -> bool:
        """Whether this MLflow is still the one that was read: it may have been replaced by an empty one."""
        if self.parent is None:
            return True
        try:
            tags = self._client.get_run(self.parent).data.tags
        except mlflow.MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return False
        return bool(tags.get(KEY) == study_key(self._study))

    def read_runs(self) -> None:
        """Find all runs of the study that are there, deleted ones included: they are restored when written to.

        A second run of a key, left by a request that was given up and arrived late, is deleted.
        """
        runs = self._runs = {}
        for run in self._search_runs():
            key, run_id = run.data.tags.get(KEY), run.info.run_id
            gone = run.info.lifecycle_stage == "deleted"
            if gone:
                self._deleted.add(run_id)
            if key not in runs or (runs[key] in self._deleted and not gone):
                runs[key] = run_id
            elif not gone:
                self._client.delete_run(run_id)

    def _search_runs(self) -> list[Any]:
        """All runs of the study; of one key the completed before the half-written."""
        found: list[Any] = []
        page = None
        while True:
            part = self._client.search_runs(
                [self.experiment_id],
                f"tags.`{STUDY_UID}` = '{self._study.uid}'",
                run_view_type=ViewType.ALL,
                max_results=MAX_PAGE,
                order_by=["attributes.end_time DESC"],
                page_token=page,
            )
            found += part
            page = part.token
            if not page:
                return found

    def start(self, study: StudyRecord) -> str:
        """Write the parent run, with the study file; returns its id."""
        run_id = self._write(study_key(study), self._content(study))
        self._client.log_text(run_id, study.text, "study.yaml")
        return run_id

    def _content(self, study: StudyRecord) -> RunContent:
        """What the parent run holds; of a later round it is a child of the first one's, where that is there."""
        if study.tree not in (None, study.uid) and self._first_round is None:
            key = parent_key(str(study.tree))
            found = self._client.search_runs([self.experiment_id], f"tags.`{KEY}` = '{key}'", ViewType.ALL, 1)
            self._first_round = str(found[0].info.run_id) if found else None
        return study_content(study, self._first_round)

    def trial(self, study: StudyRecord, trial: TrialRecord, epochs: Sequence[EpochRow]) -> None:
        """Write the child run of a trial that has ended, under the parent run."""
        parent = self._runs.get(study_key(study)) or self.start(study)  # MLflow may be a new one
        self._write(trial_key(study, trial.number), trial_content(study, trial, epochs, parent))

    def extra_run(self, study: StudyRecord, run: ExtraRun) -> None:
        """Write the child run of an extra run, under the parent run."""
        parent = self._runs.get(study_key(study)) or self.start(study)
        self._write(extra_run_key(study, run), extra_run_content(study, run, parent))

    def page(self, study: StudyRecord, name: str) -> None:
        """Attach a page to the parent run, which is told the verdict with it."""
        file = page_file(self._home, study, name)
        run_id = self._write(study_key(study), self._content(study))
        self._client.log_artifact(run_id, str(file), "pages")

    def end(self, study: StudyRecord) -> str:
        """Complete the parent run: figures, artifacts, the registered champion, the end; returns its id."""
        if self._doubtful:
            self.read_runs()
        content = self._content(study)
        run_id = self._write(study_key(study), content, terminate=False)
        self._drop_old_tags(run_id, content)
        self._client.log_text(run_id, study.text, "study.yaml")
        if study.result:
            self._client.log_text(run_id, json.dumps(study.result, indent=2), "result.json")
        champion = champion_folder(self._home, study)
        plots = champion.with_name("plots")
        if plots.is_dir():
            _each_file(plots, lambda file, inner: self._client.log_artifact(run_id, file, "/".join(["plots", *inner])))
        try:
            if study.result and (study.result.get("best") or {}).get("test") is not None:  # a sealed one has no model
                self._register_champion(study, run_id, content, champion)
        finally:
            self._client.set_terminated(run_id, content.status, content.ended)
        return run_id

    def _drop_old_tags(self, run_id: str, content: RunContent) -> None:
        """A study that was resumed may have ended with an error before."""
        for name in self._client.get_run(run_id).data.tags:
            if name.startswith("neurosweep.") and name not in content.tags:
                self._client.delete_tag(run_id, name)

    def _write(self, key: str, content: RunContent, *, terminate: bool = True) -> str:
        run_id = self._runs.get(key)
        tags = content.tags if run_id else {}  # a new run is made with them
        if run_id is None:
            run_id = self._runs[key] = self._make_run(key, content)
        elif run_id in self._deleted:
            self._client.restore_run(run_id)
            self._deleted.discard(run_id)
        metrics = [Metric(point.name, point.value, point.at, point.step) for point in content.points]
        params = [Param(name, value) for name, value in content.params.items()]
        labels = [RunTag(name, value) for name, value in tags.items()]
        while metrics or params or labels:
            room = MAX_METRICS - min(len(params), MAX_PARAMS) - min(len(labels), MAX_PARAMS)
            self._client.log_batch(run_id, metrics[:room], params[:MAX_PARAMS], labels[:MAX_PARAMS], synchronous=True)
            reach("after_log_batch")
            metrics, params, labels = metrics[room:], params[MAX_PARAMS:], labels[MAX_PARAMS:]
        if terminate and content.ended is not None:
            self._client.set_terminated(run_id, content.status, content.ended)
        return run_id

    def _make_run(self, key: str, content: RunContent) -> str:
        tries = itertools.count()

        def find() -> str | None:
            if next(tries) == 0:
                return None  # all runs have been read
            self._doubtful = True  # the first try may yet arrive
            of_key = [f"tags.`{KEY}` = '{key}'", ViewType.ALL]
            found = self._client.search_runs([self.experiment_id], *of_key, max_results=1)
            return str(found[0].info.run_id) if found else None

        def make() -> str:
            made = self._client.create_run(self.experiment_id, content.started, content.tags, content.name)
            reach("after_create_run")
            return str(made.info.run_id)

        return str(self._client.find_or_make(find, make))

    def _register_champion(self, study: StudyRecord, run_id: str, content: RunContent, folder: Path) -> None:
        """Register the winner once, under the study's name; the alias goes to the newest version."""
        best, name, metric = (study.result or {})["best"], study.name, study.spec["metric"]
        tags = {KEY: champion_key(study, best["trial"]), "neurosweep.study": study.label}
        tags["neurosweep.trial"] = str(best["trial"])
        known = f"name = '{name}' and tag.`{KEY}` = '{tags[KEY]}'"

        def find() -> Any:
            return self._client.search_model_versions(known, max_results=1)

        if not find():
            model_id = self._log_model(study, run_id, tags, folder)
            points = [p for p in content.points if p.name.startswith(("test_", "best_validation_"))]
            self._client.log_batch(
                run_id, [Metric(p.name, p.value, p.at, p.step, model_id=model_id, run_id=run_id) for p in points]
            )

            def make() -> Any:
                with _already_there():
                    self._client.create_registered_model(name)
                reach("registering_model")
                return self._client.create_model_version(
                    name,
                    f"models:/{model_id}",
                    run_id=run_id,
                    tags=tags,
                    description=f"Trial {best['trial']} of {study.label}: test {metric} {best['test']:.4g}",
                    model_id=model_id,
                )

            self._client.find_or_make(find, make)
        newest = self._client.search_model_versions(f"name = '{name}'", max_results=1, order_by=["version_number DESC"])
        self._client.set_registered_model_alias(name, ALIAS, newest[0].version)

    def _log_model(self, study: StudyRecord, run_id: str, tags: dict[str, str], folder: Path) -> str:
        """The logged model of the parent run; a half-written one of an earlier attempt is completed. Returns its id."""
        params = {name: str(value) for name, value in (study.result or {})["best"].get("params", {}).items()}
        ours = [[self.experiment_id], f"tags.`{KEY}` = '{tags[KEY]}'"]
        model = self._client.find_or_make(
            lambda: next(iter(self._client.search_logged_models(*ours, max_results=1)), None),
            lambda: self._client.create_logged_model(
                self.experiment_id, "champion", run_id, tags, params, "neurosweep"
            ),
        )
        if model.status == "READY":
            return str(model.model_id)
        description = mlflow.models.Model(
            artifact_path=model.artifact_location, model_uuid=model.model_id, run_id=run_id, model_id=model.model_id
        )
        with tempfile.TemporaryDirectory(prefix="neurosweep-") as scratch:
            saved = Path(scratch) / "model"
            save_champion(folder, saved, description)
            _each_file(
                saved,
                lambda file, inner: self._client.log_model_artifact(model.model_id, file, "/".join(inner) or None),
            )

        def has_output() -> bool:
            outputs = self._client.get_run(run_id).outputs
            return model.model_id in [output.model_id for output in (outputs.model_outputs if outputs else [])]

        self._client.find_or_make(
            has_output, lambda: self._client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=0)])
        )
        self._client.finalize_logged_model(model.model_id, "READY")
        return str(model.model_id)


def _each_file(folder: Path, log: Callable[[str, tuple[str, ...]], Any]) -> None:
    """Hands over each file with the names of the folders that it is in: one that fails does not begin all anew."""
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            log(str(file), file.relative_to(folder).parts[:-1])


def save_champion(folder: Path, saved: Path, description: mlflow.models.Model | None = None) -> None:
    """Write the champion in MLflow's model format, as code and data; nothing is pickled.

    Args:
        folder: Holds network.pt2, preprocessing.json and example.json or example.npy.
        saved: A folder that is not there yet.

    Raises:
        NeurosweepError: The champion isn't on this machine.
    """
    check_champion(folder)
    preprocessing = json.loads((folder / "preprocessing.json").read_text(encoding="utf-8"))
    example: Any
    if (folder / "example.npy").is_file():
        example = np.load(folder / "example.npy", allow_pickle=False)[:1]  # kept as JSON: one image is enough
    else:
        example = pd.DataFrame(json.loads((folder / "example.json").read_text(encoding="utf-8")))
    mlflow.pyfunc.save_model(
        path=str(saved),
        python_model=str(Path(__file__).with_name("champion_model.py")),
        artifacts={"network": str(folder / "network.pt2"), "preprocessing": str(folder / "preprocessing.json")},
        signature=signature_of(preprocessing, example),
        input_example=example,
        pip_requirements=[
            f"{package}=={importlib.metadata.version(package).partition('+')[0]}"
            for package in ("mlflow", "torch", "numpy", "pandas")
        ],
        mlflow_model=description,
    )


def signature_of(preprocessing: dict[str, Any], example: Any) -> ModelSignature:
    """Names and types of what goes in and comes out.

    A table's columns may hold any type: MLflow refuses whole numbers where a schema says double, and a reader makes
    whole numbers of ``1065``. The model checks them itself.
    """
    if preprocessing["kind"] == "table":
        inputs = Schema([ColSpec(AnyType(), column["name"]) for column in preprocessing["columns"]])
    else:
        inputs = Schema([TensorSpec(example.dtype, (-1, *example.shape[1:]))])
    classes = preprocessing["classes"]
    kinds = {type(name) for name in classes} or {float}
    answer = {str: DataType.string, bool: DataType.boolean, int: DataType.long, float: DataType.double}
    outputs = [ColSpec(answer[kinds.pop()] if len(kinds) == 1 else AnyType(), "prediction")]
    outputs += [ColSpec(DataType.double, f"probability_{name}") for name in classes]
    return ModelSignature(inputs=inputs, outputs=Schema(outputs))


class PublishedModel:
    """A model that MLflow keeps, fetched and ready to answer.

    Attributes:
        preprocessing: What raw rows become before the network sees them, as it was saved with the model.

    Raises:
        UnreachableError: MLflow does not answer.
        NeurosweepError: There is no such model.
    """

    def __init__(self, model_uri: str, tracking: str) -> None:
        self._uri, self._tracking = model_uri, tracking
        try:
            mlflow_door.connect(tracking)
            self._model = mlflow.pyfunc.load_model(model_uri)
        except Exception as error:
            reason = reason_of(error, tracking)
            if reason.startswith(UNANSWERED):
                raise UnreachableError(reason) from error
            raise NeurosweepError(f"{model_uri} can't be loaded from {public_address(tracking)}: {reason}") from error
        self.preprocessing: dict[str, Any] = self._model.unwrap_python_model().preprocessing

    def answers(self, rows: Any) -> list[dict[str, Any]]:
        """For raw rows: a list of mappings for a table, an array for images.

        Raises:
            BadInputError: The rows don't fit the model.
        """
        try:
            answers = self._model.predict(rows if isinstance(rows, np.ndarray) else pd.DataFrame(rows))
        except Exception as error:
            raise BadInputError(f"these rows don't fit {self._uri}: {reason_of(error, self._tracking)}") from error
        return list(answers.to_dict("records"))


class Publisher(Teller):
    """Publishes what is due of a store to the MLflow at an address; `home` holds the champions' files."""

    def __init__(self, store: Store, tracking: str, home: Path) -> None:
        super().__init__(
            store,
            home,
            read=lambda study: StudyInMlflow(mlflow_door.connect(tracking), study, tracking, home),
            refuses=refuses,
            reason=lambda error: reason_of(error, tracking),
            file=lambda: file_of(tracking),
        )


def main() -> int:
    """The publisher process."""
    database, tracking = os.environ["NEUROSWEEP_DATABASE_URL"], os.environ["MLFLOW_TRACKING_URI"]
    home = Path(os.environ["NEUROSWEEP_HOME"])
    log_to(home / "logs", secrets_in(database) + secrets_in(tracking))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Control-C reaches the whole group; stdin says when to go
    orders = Orders(sys.stdin)
    log.info("publishing to %s", public_address(tracking))
    try:
        store = Store.open(database)
        publisher = Publisher(store, tracking, home)
        return work(publisher.publish_due, store.behind, orders)
    except NeurosweepError as error:
        log.error("%s", error)
        print(error, flush=True)
        return error.exit_status
    except Exception as error:  # a traceback on the screen could show a password
        log.exception("the publisher broke")
        print(f"the publisher broke ({type(error).__name__}); see {home / 'logs' / 'publisher.log'}", flush=True)
        return 1


if __name__ == "__main__":
    status = main()
    gc.freeze()  # the interpreter's last look for garbage walks all of mlflow: more than a second, and somebody waits
    sys.exit(status)
