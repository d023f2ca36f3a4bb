"""The publisher: tells MLflow what the outbox holds, each fact once in effect. The only module that imports mlflow.

``python -m storage.publisher`` is a process of its own, so that MLflow, slow or down, never holds training up.
Settings come from the environment alone (passwords): ``NEUROSWEEP_DATABASE_URL``, ``MLFLOW_TRACKING_URI`` and
``NEUROSWEEP_HOME``. `storage.publisher_loop` says how it is steered and how it exits.

Once in effect means: a run is looked up by its key, the tag ``neurosweep.key``, before it is made; one publisher at a
time holds a study's outbox; the client never repeats a request by itself; every value and time stamp is frozen in the
database, and MLflow takes the same ones again without a change.
"""

from __future__ import annotations

import gc
import importlib.metadata
import json
import logging
import os
import signal
import socket
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

import numpy as np
import pandas as pd
import sqlalchemy as sa

from neurosweep.errors import BadInputError, LeaseLostError, NeurosweepError, UnreachableError
from storage.facts import champion_key, study_key, trial_key
from storage.projection import KEY, OVER, STUDY_UID, RunContent, study_content, trial_content
from storage.publisher_loop import UNANSWERED, Orders, Turn, log_to, reason_of, work
from storage.records import EpochRow, Fact, FactKind, MlflowRun, OutboxClaim, StudyRecord, TrialRecord
from storage.secrecy import public_address, secrets_in
from storage.store import Store

os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "0"  # a repeated POST makes a second run
os.environ["MLFLOW_ENABLE_ASYNC_LOGGING"] = "false"
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")  # seconds; well under the outbox's lease
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_CONFIGURE_LOGGING", "false")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # saves a request as well

import mlflow  # reads the settings above while it is imported
import mlflow.pyfunc
from mlflow.entities import LoggedModelOutput, Metric, Param, RunTag, ViewType
from mlflow.models import ModelSignature
from mlflow.types.schema import AnyType, ColSpec, DataType, Schema, TensorSpec

logging.getLogger("mlflow").addHandler(logging.NullHandler())  # without any handler Python prints to the screen

LEASE = 30.0  # seconds
RENEW = 5.0  # seconds after which the lease is renewed before the next fact
CHUNK = 50  # facts read and acknowledged together
SLOWEST = 8.0  # seconds: the longest wait between two attempts, shorter than PATIENCE so that a drain sees two
ALIAS = "champion"
EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}  # so that the UI opens on runs and models
MAX_METRICS, MAX_PARAMS, MAX_PAGE = 1000, 100, 1000  # MLflow's limits for one request

log = logging.getLogger("storage.publisher")


def connect(tracking: str) -> mlflow.MlflowClient:
    """A client of the tracking store. Credentials move from the address to where MLflow's messages don't show them."""
    parts = urlsplit(tracking)
    if parts.scheme in ("http", "https") and parts.username:
        os.environ["MLFLOW_TRACKING_USERNAME"] = unquote(parts.username)
        os.environ["MLFLOW_TRACKING_PASSWORD"] = unquote(parts.password or "")
        tracking = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
    elif parts.scheme.startswith(("sqlite", "postgres", "mysql", "mssql")):
        _check_database(tracking)
    mlflow.set_tracking_uri(tracking)  # artifacts that go through the server find it by this
    return mlflow.MlflowClient(tracking_uri=tracking, registry_uri=tracking)


def _check_database(tracking: str) -> None:
    """Fail now where MLflow would try for 100 seconds."""
    url = sa.make_url(tracking)
    if url.get_backend_name() == "sqlite":
        Path(url.database or "").parent.mkdir(parents=True, exist_ok=True)
    timeout = {"connect_timeout": 10} if url.get_backend_name() == "postgresql" else {}
    with sa.create_engine(url, poolclass=sa.NullPool, connect_args=timeout).connect():
        pass


class StudyInMlflow:
    """One study's experiment, runs and registered model. Whoever uses it holds the study's outbox.

    Args:
        study: Name, number and study file count; its state is handed in with each call.
        home: Holds the artifacts where MLflow has no server to keep them.
    """

    def __init__(self, client: mlflow.MlflowClient, study: StudyRecord, tracking: str, home: Path) -> None:
        self._client = client
        self._study = study
        self._home = home
        self._served = urlsplit(tracking).scheme in ("http", "https")
        self.experiment_id = self._experiment()
        self._runs: dict[str, str] = {}  # run id by key
        self._deleted: set[str] = set()
        self.read_runs()

    def _experiment(self) -> str:
        name = self._study.name
        experiment = self._client.get_experiment_by_name(name)
        if experiment is None:
            location = None if self._served else (self._home / "mlartifacts").resolve().as_uri()
            try:
                return str(self._client.create_experiment(name, artifact_location=location, tags=EXPERIMENT_TAGS))
            except mlflow.MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
                experiment = self._client.get_experiment_by_name(name)  # another publisher was faster
        if experiment.lifecycle_stage == "deleted":
            self._client.restore_experiment(experiment.experiment_id)
        return str(experiment.experiment_id)

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
        run_id = self._write(study_key(study), study_content(study))
        self._client.log_text(run_id, study.text, "study.yaml")
        return run_id

    def trial(self, study: StudyRecord, trial: TrialRecord, epochs: Sequence[EpochRow]) -> None:
        """Write the child run of a trial that has ended, under the parent run."""
        parent = self._runs.get(study_key(study)) or self.start(study)  # MLflow may be a new one
        self._write(trial_key(study, trial.number), trial_content(study, trial, epochs, parent))

    def end(self, study: StudyRecord) -> str:
        """Complete the parent run: figures, artifacts, the registered champion, the end; returns its id."""
        content = study_content(study)
        run_id = self._write(study_key(study), content, terminate=False)
        self._client.log_text(run_id, study.text, "study.yaml")
        if study.result:
            self._client.log_text(run_id, json.dumps(study.result, indent=2), "result.json")
        folder = self._home / "studies" / study.uid
        if (folder / "plots").is_dir():
            self._client.log_artifacts(run_id, str(folder / "plots"), "plots")
        if study.result and study.result.get("best"):
            self._register_champion(study, run_id, content, folder / "champion")
        self._client.set_terminated(run_id, content.status, content.ended)
        return run_id

    def _write(self, key: str, content: RunContent, *, terminate: bool = True) -> str:
        run_id = self._runs.get(key)
        tags = content.tags if run_id else {}  # a new run is made with them
        if run_id is None:
            made = self._client.create_run(self.experiment_id, content.started, content.tags, content.name)
            run_id = str(made.info.run_id)
            self._runs[key] = run_id
        elif run_id in self._deleted:
            self._client.restore_run(run_id)
            self._deleted.discard(run_id)
        metrics = [Metric(point.name, point.value, point.at, point.step) for point in content.points]
        params = [Param(name, value) for name, value in content.params.items()]
        labels = [RunTag(name, value) for name, value in tags.items()]
        while metrics or params or labels:
            room = MAX_METRICS - min(len(params), MAX_PARAMS) - min(len(labels), MAX_PARAMS)
            self._client.log_batch(run_id, metrics[:room], params[:MAX_PARAMS], labels[:MAX_PARAMS], synchronous=True)
            metrics, params, labels = metrics[room:], params[MAX_PARAMS:], labels[MAX_PARAMS:]
        if terminate and content.ended is not None:
            self._client.set_terminated(run_id, content.status, content.ended)
        return run_id

    def _register_champion(self, study: StudyRecord, run_id: str, content: RunContent, folder: Path) -> None:
        """Register the winner once, under the study's name; the alias goes to the newest version."""
        best, name = (study.result or {})["best"], study.name
        tags = {KEY: champion_key(study, best["trial"]), "neurosweep.study": study.label}
        tags["neurosweep.trial"] = str(best["trial"])
        known = f"name = '{name}' and tag.`{KEY}` = '{tags[KEY]}'"
        if not self._client.search_model_versions(known, max_results=1):
            model_id = self._log_model(study, run_id, tags, folder)
            points = [p for p in content.points if p.name.startswith(("test_", "best_validation_"))]
            self._client.log_batch(
                run_id, [Metric(p.name, p.value, p.at, p.step, model_id=model_id, run_id=run_id) for p in points]
            )
            try:
                self._client.create_registered_model(name)
            except mlflow.MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
            self._client.create_model_version(
                name,
                f"models:/{model_id}",
                run_id=run_id,
                tags=tags,
                description=f"Trial {best['trial']} of {study.label}: test {study.spec['metric']} {best['test']:.4g}",
                model_id=model_id,
            )
        newest = self._client.search_model_versions(f"name = '{name}'", max_results=1, order_by=["version_number DESC"])
        self._client.set_registered_model_alias(name, ALIAS, newest[0].version)

    def _log_model(self, study: StudyRecord, run_id: str, tags: dict[str, str], folder: Path) -> str:
        """The logged model of the parent run; a half-written one of an earlier attempt is completed. Returns its id."""
        known = self._client.search_logged_models([self.experiment_id], f"tags.`{KEY}` = '{tags[KEY]}'", max_results=1)
        params = {name: str(value) for name, value in (study.result or {})["best"].get("params", {}).items()}
        model = (
            known[0]
            if known
            else self._client.create_logged_model(self.experiment_id, "champion", run_id, tags, params, "neurosweep")
        )
        if model.status == "READY":
            return str(model.model_id)
        description = mlflow.models.Model(
            artifact_path=model.artifact_location, model_uuid=model.model_id, run_id=run_id, model_id=model.model_id
        )
        with tempfile.TemporaryDirectory(prefix="neurosweep-") as scratch:
            saved = Path(scratch) / "model"
            save_champion(folder, saved, description)
            self._client.log_model_artifacts(model.model_id, str(saved))
        outputs = self._client.get_run(run_id).outputs
        if model.model_id not in [output.model_id for output in (outputs.model_outputs if outputs else [])]:
            self._client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=0)])  # refuses the same one again
        self._client.finalize_logged_model(model.model_id, "READY")
        return str(model.model_id)


def save_champion(folder: Path, saved: Path, description: mlflow.models.Model | None = None) -> None:
    """Write the champion in MLflow's model format, as code and data; nothing is pickled.

    Args:
        folder: Holds network.pt2, preprocessing.json and example.json or example.npy.
        saved: A folder that is not there yet.

    Raises:
        NeurosweepError: The champion isn't on this machine.
    """
    if not (folder / "network.pt2").is_file():
        raise NeurosweepError(f"the champion's files are not in {folder}: it has to be published where it was trained")
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
            connect(tracking)
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


class Publisher:
    """Publishes due facts, study by study, each study's in order, under the study's outbox lease."""

    def __init__(self, store: Store, tracking: str, home: Path) -> None:
        self._store = store
        self._tracking = tracking
        self._home = home
        self._name = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self._studies: dict[int, tuple[int, StudyInMlflow]] = {}  # with the token under which it was read
        self._doubtful: set[int] = set()  # studies with a request that may yet arrive
        self._failures = 0  # in a row
        self._rest_until = 0.0  # monotonic
        self._reason: str | None = None

    def publish_due(self, stopped: Callable[[], bool] = lambda: False) -> Turn:
        """Publish all that is due now. After a failure nothing is tried for a while, longer each time in a row.

        Raises:
            UnreachableError: The database does not answer.
        """
        published = 0
        while not stopped() and time.monotonic() >= self._rest_until:
            claim = self._store.claim_outbox(self._name, LEASE)
            if claim is None:
                self._reason = None
                break
            try:
                published += self._publish_study(claim, stopped)
                self._store.release_outbox(claim)
            except LeaseLostError:
                log.warning("study %s: another publisher has taken over", claim.study.label)
                self._studies.pop(claim.study.id, None)
        return Turn(published=published, reason=self._reason)

    def _publish_study(self, claim: OutboxClaim, stopped: Callable[[], bool]) -> int:
        """Publish a study's due facts up to the first that fails; returns how many."""
        published, renewed = 0, time.monotonic()
        while not stopped() and (facts := self._store.facts(claim, CHUNK)):
            done: list[str] = []
            failure: Exception | None = None
            try:
                study = self._in_mlflow(claim)
                trials, epochs = self._trials(claim.study.id, facts)
                for fact in facts:
                    if stopped():
                        break
                    if time.monotonic() - renewed > RENEW:
                        self._store.renew_outbox(claim, LEASE)
                        renewed = time.monotonic()
                    if fact.trial is None:
                        self._publish_study_fact(claim, study, fact)
                    else:
                        study.trial(claim.study, trials[fact.trial], epochs[fact.trial])
                    done.append(fact.key)
            except (LeaseLostError, UnreachableError):
                raise
            except Exception as error:  # whatever it is, the fact waits and training goes on
                failure = error
            if done:
                self._store.published(claim, done)
                self._failures, published = 0, published + len(done)
            if failure:
                self._put_off(claim, facts[len(done)], failure)
                break
        return published

    def _in_mlflow(self, claim: OutboxClaim) -> StudyInMlflow:
        """The study as it is in MLflow: read again after a failure, as a request that failed may have gone through,
        and after another publisher has held the outbox, as it may have gone away between a run and its receipt."""
        token, study = self._studies.get(claim.study.id, (0, None))
        if study is None or claim.token > token + 1:
            study = StudyInMlflow(connect(self._tracking), claim.study, self._tracking, self._home)
        self._studies[claim.study.id] = claim.token, study
        return study

    def _trials(self, study_id: int, facts: Sequence[Fact]) -> tuple[dict[int, TrialRecord], dict[int, list[EpochRow]]]:
        """The trials that the facts are about, and their epochs, each in one query."""
        numbers = [fact.trial for fact in facts if fact.trial is not None]
        epochs: dict[int, list[EpochRow]] = {number: [] for number in numbers}
        if not numbers:
            return {}, epochs
        for row in self._store.epochs(study_id, numbers):
            epochs[row.trial].append(row)
        return {trial.number: trial for trial in self._store.trials(study_id, numbers)}, epochs

    def _publish_study_fact(self, claim: OutboxClaim, study: StudyInMlflow, fact: Fact) -> None:
        current = self._store.study(claim.study.id)
        if fact.kind is FactKind.STUDY_STARTED:
            run_id = study.start(current)
            self._store.set_run(claim, MlflowRun(experiment_id=study.experiment_id, run_id=run_id))
        elif current.state in OVER:  # else it was resumed meanwhile: its next end says more
            if current.id in self._doubtful:
                study.read_runs()
                self._doubtful.discard(current.id)
            study.end(current)

    def _put_off(self, claim: OutboxClaim, fact: Fact, error: Exception) -> None:
        """Make a fact wait, and this publisher with it: twice as long after each failure in a row."""
        self._failures += 1
        delay = min(SLOWEST, 0.5 * 2 ** (self._failures - 1))
        self._rest_until = time.monotonic() + delay
        self._reason = reason_of(error, self._tracking)
        log.warning("%s waits %.1f s: %s", fact.key, delay, self._reason)
        if not isinstance(error, (mlflow.MlflowException, NeurosweepError, OSError)):
            log.error("unexpected", exc_info=error)
        self._studies.pop(claim.study.id, None)
        self._doubtful.add(claim.study.id)
        self._store.postponed(claim, fact.key, self._reason, delay)


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
        return work(publisher.publish_due, store.pending_facts, orders)
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
