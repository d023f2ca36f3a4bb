import signal
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import pytest

from search.commands.documents import stored_progress
from search.progress import WorkerActivity
from storage.records import MlflowRun, StudyState
from tests.search.commands.shelf import PARAMS, Call, Shelf, environment

KEYS = {
    "study",
    "state",
    "metric",
    "trials",
    "best",
    "splits",
    "seconds",
    "mlflow",
    "unpublished",
    "worth",
    "chance",
    "stopped_for",
    "ties",
    "leader",
    "created_at",
    "started_at",
    "ended_at",
    "error",
    "notice",
}
BEST_KEYS = {
    "trial",
    "params",
    "train",
    "validation",
    "test",
    "test_interval",
    "epochs",
    "best_epoch",
    "weights",
    "model",
}


def test_list_without_studies_says_how_to_begin(call: Call) -> None:
    assert call("list").out.startswith("No studies yet.")
    assert call("list", "--json").document == []


def test_list_shows_the_newest_first_under_its_label(shelf: Shelf, call: Call) -> None:
    shelf.finished()
    shelf.queued()
    shelf.running("letters")
    lines = call("list").out.splitlines()
    assert [line.split()[:3] for line in lines[2:]] == [
        ["letters", "running", "2/4"],
        ["digits@2", "queued", "0/4"],
        ["digits", "finished", "3/4"],
    ]
    assert lines[4].split()[3:5] == ["0.0120", "error"]
    documents = call("list", "--json").document
    assert [document["study"] for document in documents] == ["letters", "digits@2", "digits"]
    assert all(set(document) == KEYS for document in documents)
    assert documents[0]["trials"] == {"total": 4, "running": 1, "complete": 1, "pruned": 1, "failed": 0}
    assert documents[0]["best"]["validation"] == 0.012
    assert documents[1]["best"] is None
    assert set(documents[2]["best"]) == BEST_KEYS


def test_status_has_every_trial_in_the_contracts_words(shelf: Shelf, call: Call) -> None:
    shelf.finished()
    document = call("status", "digits", "--json").document
    assert set(document) == KEYS | {"trial_list"}
    assert [trial["trial"] for trial in document["trial_list"]] == [0, 1, 2]
    assert {key: document["trial_list"][1][key] for key in document["trial_list"][1] if key != "worker"} == {
        "trial": 1,
        "state": "complete",
        "params": PARAMS,
        "train": 0.001,
        "validation": 0.012,
        "epochs": 30,
        "best_epoch": 28,
        "seconds": 2.5,
        "error": None,
        "would_stop": None,
    }


def test_status_shows_a_failed_trials_reason_without_its_escapes(shelf: Shelf, call: Call) -> None:
    shelf.running(errors=("\x1b[2Jloss is nan", None, None))
    out = call("status", "digits").out
    assert "\\x1b[2Jloss is nan" in out and "\x1b" not in out
    assert out.startswith("digits running: 2 of 4 trials")


def test_a_name_alone_is_the_newest_and_a_number_names_an_older_one(shelf: Shelf, call: Call) -> None:
    shelf.finished()
    shelf.queued()
    assert call("status", "digits", "--json").document["study"] == "digits@2"
    assert call("status", "digits@1", "--json").document["state"] == "finished"


@pytest.mark.parametrize("command", ["status", "watch", "best", "cancel", "resume"])
def test_an_unknown_study_exits_4_with_a_near_miss(command: str, shelf: Shelf, call: Call) -> None:
    shelf.queued()
    ended = call(command, "digist")
    assert (ended.status, ended.out) == (4, "")
    assert "digits" in ended.err and ended.err.count("\n") <= 2
    assert call(command, "digist", "--json").document["error"]["kind"] == "no_such_study"


@pytest.mark.parametrize(
    "name", ["../../x", "digits@0", "digits@x", "digits@99999999999999999999", "", "a\x00b", "é\x1b"]
)
def test_a_name_that_no_study_can_have_exits_4_too(name: str, shelf: Shelf, call: Call) -> None:
    shelf.queued()
    ended = call("status", "--", name)
    assert (ended.status, ended.out) == (4, "")
    assert "\x1b" not in ended.err and "\x00" not in ended.err


def test_best_is_the_contracts_document(shelf: Shelf, call: Call) -> None:
    shelf.finished()
    document = call("best", "digits", "--json").document
    assert set(document) == KEYS and set(document["best"]) == BEST_KEYS
    assert document["best"]["test_interval"] == [0.008, 0.031]
    assert document["mlflow"] == {"tracking_uri": "sqlite:///mlflow.db", "experiment_id": "1", "run_id": "abc"}
    assert document["seconds"] == 41.2


def test_best_shows_what_a_reader_needs_in_80_columns(shelf: Shelf, call: Call) -> None:
    shelf.finished()
    out = call("best", "digits").out
    words = " ".join(out.split())
    assert max(map(len, out.splitlines())) <= 80
    for part in (
        "digits finished: 3 of 4 trials in 41 s (2 complete, 1 pruned, 0 failed)",
        "The best: trial 1, 21,834 weights, as it was after epoch 28 of 30",
        "learning_rate 0.0021",
        "error on test 0.0170 95 % interval 0.0080 to 0.0310",
        "The winner beats chance (0.9 error) by far.",
        "models:/digits@champion",
        "neurosweep predict digits FILE",
        "neurosweep ui",
    ):
        assert part in words


def test_best_of_a_study_under_way_is_not_tested_yet(shelf: Shelf, call: Call) -> None:
    shelf.running()
    best = call("best", "digits", "--json").document["best"]
    assert (best["trial"], best["validation"], best["test"], best["model"]) == (1, 0.012, None, None)
    assert "has not been read" in call("best", "digits").out


def test_best_of_a_study_that_has_none_says_why(shelf: Shelf, call: Call) -> None:
    shelf.queued()
    shelf.ended(StudyState.FAILED, "broken", error="none of 3 trials was good")
    waiting, failed = call("best", "digits"), call("best", "broken")
    assert (waiting.status, waiting.out) == (2, "")
    assert "queued" in waiting.err
    assert (failed.status, failed.err) == (1, "error: broken: none of 3 trials was good\n")


def test_no_document_holds_mlflows_password(shelf: Shelf, call: Call) -> None:
    shelf.finished(tracking="http://me:hunter2@mlflow:5000")
    for command in ("best", "status"):
        assert "hunter2" not in call(command, "digits").out
        document = call(command, "digits", "--json").document
        assert document["mlflow"]["tracking_uri"] == "http://mlflow:5000"


def test_progress_from_the_database_says_what_each_worker_does(shelf: Shelf) -> None:
    study = shelf.running().study
    trials = shelf.store.trials(study.id)
    progress = stored_progress(shelf.store.summary(study.id), trials, trials[0].started_at + timedelta(seconds=30))
    assert (progress.stage, progress.total, progress.complete, progress.pruned) == ("training", 4, 1, 1)
    assert (progress.best_trial, progress.best_value) == (1, 0.012)
    assert progress.workers == (WorkerActivity(name="worker-1", trial=2, epoch=0, epochs=30),)
    # Two trials ended in the 30 seconds since the first began; two are to come.
    assert progress.left == pytest.approx(30)


@pytest.mark.parametrize(
    ("state", "status"), [(StudyState.FINISHED, 0), (StudyState.FAILED, 1), (StudyState.STOPPED, 130)]
)
def test_watch_follows_until_the_end_and_exits_as_run_does(
    state: StudyState, status: int, shelf: Shelf, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim = shelf.running()
    error = "all failed" if state is StudyState.FAILED else None
    # Between its first look and its second one, the study ends.
    monkeypatch.setattr(time, "sleep", lambda seconds: shelf.store.finish(claim, state, error=error))
    ended = call("watch", "digits", "--json")
    assert ended.status == status
    assert ended.document["state"] == state
    assert "digits: training, 2/4 trials" in ended.err
    if state is StudyState.STOPPED:
        assert ended.err.splitlines()[-1].endswith("neurosweep resume digits")


def test_control_c_ends_the_watching_and_not_the_study(shelf: Shelf, folder: Path) -> None:
    study = shelf.running().study
    watching = subprocess.Popen(
        [sys.executable, "-m", "neurosweep", "watch", "digits"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
        env=environment(),
    )
    assert watching.stderr is not None
    watching.stderr.readline()
    watching.send_signal(signal.SIGINT)
    out, err = watching.communicate(timeout=30)
    assert (watching.returncode, out) == (130, "")
    assert "goes on" in err and "Traceback" not in err
    assert shelf.store.summary(study.id).study.state is StudyState.RUNNING


def test_cancel_ends_a_queued_study_and_asks_a_running_one(shelf: Shelf, call: Call) -> None:
    shelf.queued()
    shelf.running("letters")
    assert call("cancel", "digits").out == "digits is cancelled\n"
    assert "will stop" in call("cancel", "letters").out
    assert shelf.store.find("letters").cancel_requested
    assert call("cancel", "letters", "--json").document["study"] == "letters"


def test_an_older_studys_own_model_is_named_when_the_alias_is_a_later_ones(
    shelf: Shelf, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(shelf.store), "mlflow_run", lambda *_: MlflowRun(experiment_id="1", run_id="r1"))
    shelf.finished()
    assert call("best", "digits", "--json").document["best"]["model"] == "models:/digits@champion"
    shelf.queued()
    assert call("best", "digits@1", "--json").document["best"]["model"] == "runs:/r1/champion"


def test_a_model_that_mlflow_has_not_got_is_not_named(
    shelf: Shelf, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(shelf.store), "pending_facts", lambda *_: 3)
    shelf.finished()
    document = call("best", "digits", "--json").document
    assert (document["best"]["model"], document["unpublished"]) == (None, 3)
    assert "not in MLflow yet" in call("best", "digits").out
