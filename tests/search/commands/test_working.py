"""run, resume and serve over a stand-in for the engine: what the commands do with signals, states and both streams."""

import os
import signal
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from neurosweep.errors import DataError, StudyTakenError
from search.places import Places
from search.progress import Progress
from search.stop import Stop
from storage.records import StudyRecord, StudyState
from storage.store import Store
from tests.search.commands.shelf import STUDY_TEXT, Call, Shelf, environment, result

OnProgress = Callable[[Progress], None]


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """Takes the place of the module that would start Ray."""
    module = types.ModuleType("search.engine")
    monkeypatch.setitem(sys.modules, "search.engine", module)
    return module


def ends_as(state: StudyState, error: str | None = None, good: bool = True) -> Callable[..., StudyRecord]:
    """An engine that claims the study and ends it."""

    def run_study(store: Store, study_id: int, places: Places, on_progress: OnProgress, stop: Stop) -> StudyRecord:
        claim = store.claim("stand-in", study_id=study_id)
        assert claim is not None
        on_progress(Progress(label=claim.study.label, metric="error", stage="training", total=4))
        print("a library that prints")
        store.finish(claim, state, error=error, result=result(claim.study, places.tracking) if good else None)
        return store.study(study_id)

    return run_study


@pytest.fixture
def study_file(folder: Path) -> str:
    (folder / "study.yaml").write_text(STUDY_TEXT)
    return "study.yaml"


def test_run_prints_progress_on_stderr_and_one_document_on_stdout(
    engine: Any, study_file: str, call: Call, folder: Path
) -> None:
    engine.run_study = ends_as(StudyState.FINISHED)
    ended = call("run", study_file, "--json")
    assert ended.status == 0
    assert ended.document["state"] == "finished" and ended.document["best"]["test"] == 0.017
    assert ended.err.splitlines() == ["digits: training, 0/4 trials, 0 s gone", "a library that prints"]
    stored = Store.open(f"sqlite:///{folder}/.neurosweep/neurosweep.db").find("digits")
    assert stored.text == STUDY_TEXT
    assert (stored.trials, stored.spec["budget"]["epochs"], stored.spec["search"]["sampler"]) == (4, 30, "tpe")


def test_run_prints_a_table_without_json(engine: Any, study_file: str, call: Call) -> None:
    engine.run_study = ends_as(StudyState.FINISHED)
    assert "models:/digits@champion" in call("run", study_file).out
    assert call("run", study_file).out.startswith("digits@2 finished")


@pytest.mark.parametrize("state", [StudyState.STOPPED, StudyState.CANCELLED])
def test_an_interrupted_run_exits_130_and_its_last_line_says_how_to_go_on(
    state: StudyState, engine: Any, study_file: str, call: Call
) -> None:
    engine.run_study = ends_as(state, good=False)
    ended = call("run", study_file, "--json")
    assert ended.status == 130
    assert ended.document["state"] == state and ended.document["best"] is None
    assert ended.err.splitlines()[-1] == "go on with: neurosweep resume digits"


def test_a_failed_run_exits_1_with_the_reason(engine: Any, study_file: str, call: Call) -> None:
    engine.run_study = ends_as(StudyState.FAILED, error="none of 4 trials was good", good=False)
    ended = call("run", study_file, "--json")
    assert ended.status == 1
    assert ended.document["error"] == {
        "kind": "study_failed",
        "message": "none of 4 trials was good",
        "where": "digits",
    }
    assert ended.err.splitlines()[-1] == "error: digits: none of 4 trials was good"


def test_data_that_do_not_fit_exit_2(engine: Any, study_file: str, call: Call) -> None:
    def run_study(*_: object) -> StudyRecord:
        raise DataError("The column 'x' is not there.", "data.csv")

    engine.run_study = run_study
    ended = call("run", study_file)
    assert (ended.status, ended.out, ended.err) == (
        2,
        "",
        "error: study.yaml:2, data.source: data.csv: The column 'x' is not there.\n",
    )


def test_resume_goes_on_with_more_trials(engine: Any, shelf: Shelf, call: Call) -> None:
    study = shelf.ended(StudyState.STOPPED)
    engine.run_study = ends_as(StudyState.FINISHED)
    ended = call("resume", "digits", "--trials", "9", "--json")
    assert (ended.status, ended.document["trials"]["total"]) == (0, 9)
    assert shelf.store.study(study.id).state is StudyState.FINISHED


def test_resume_of_a_study_that_has_all_its_trials_asks_for_more(engine: Any, shelf: Shelf, call: Call) -> None:
    shelf.finished()  # three trials
    ended = call("resume", "digits", "--trials", "3")
    assert (ended.status, ended.out) == (2, "")
    assert "--trials" in ended.err


def test_serve_works_until_it_is_stopped_and_counts_the_studies(engine: Any, call: Call) -> None:
    def serve(store: Store, places: Places, on_progress: OnProgress, stop: Stop) -> None:
        for label in ("digits", "digits", "letters"):
            on_progress(Progress(label=label, metric="error", stage="training", total=4))
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.wait(5)

    engine.serve = serve
    assert call("serve", "--json").document == {"served": ["digits", "letters"]}
    ended = call("serve", "--database", "sqlite:///other.db")
    assert (ended.status, ended.out) == (0, "stopped after 2 studies\n")
    assert "sqlite:///other.db" in ended.err and "stopping, what is done is kept" not in ended.out


SLOW = """
import sys, types
from search.commands.main import main
from storage.records import StudyState

def run_study(store, study_id, places, on_progress, stop):
    claim = store.claim("stand-in", study_id=study_id)
    print("ready", file=sys.stderr, flush=True)
    while not stop.wait(0.05) or HANGS:
        pass
    store.finish(claim, StudyState.STOPPED)
    return store.study(study_id)

HANGS = sys.argv[1] == "hangs"
engine = types.ModuleType("search.engine")
engine.run_study = run_study
sys.modules["search.engine"] = engine
sys.exit(main(["run", "study.yaml", "--json"]))
"""


def start(folder: Path, how: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW, how],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
        env=environment(),
    )
    assert process.stderr is not None
    assert process.stderr.readline() == "ready\n"
    return process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_stops_the_study_and_keeps_what_is_done(
    number: signal.Signals, study_file: str, folder: Path
) -> None:
    process = start(folder, "stops")
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert '"state": "stopped"' in out
    assert err.splitlines() == [
        "stopping, what is done is kept (Control-C again ends at once)",
        "go on with: neurosweep resume digits",
    ]


def test_a_second_signal_ends_at_once_even_where_the_engine_hangs(study_file: str, folder: Path) -> None:
    process = start(folder, "hangs")
    process.send_signal(signal.SIGINT)
    assert process.stderr is not None
    assert process.stderr.readline().startswith("stopping")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (130, "")
    assert err.splitlines()[-1] == "ended at once; go on with: neurosweep resume digits"


def test_a_study_that_a_serve_takes_first_is_followed_to_its_result(
    engine: Any, study_file: str, call: Call, shelf: Shelf
) -> None:
    def run_study(store: Store, study_id: int, *others: Any) -> StudyRecord:
        ends_as(StudyState.FINISHED)(store, study_id, *others)  # as the other process does meanwhile
        raise StudyTakenError("Another process is working on this study.")

    engine.run_study = run_study
    ended = call("run", study_file, "--json")
    assert (ended.status, ended.document["state"]) == (0, "finished")
    assert "has taken digits" in ended.err


def test_the_last_line_names_the_study_even_when_another_took_its_name_meanwhile(
    engine: Any, study_file: str, call: Call, shelf: Shelf
) -> None:
    def run_study(store: Store, study_id: int, *others: Any) -> StudyRecord:
        shelf.queued()
        return ends_as(StudyState.STOPPED, good=False)(store, study_id, *others)

    engine.run_study = run_study
    assert call("run", study_file).err.splitlines()[-1] == "go on with: neurosweep resume digits@1"
