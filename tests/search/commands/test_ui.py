import json
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from search.commands import ui
from storage.records import Batch, Fact, FactKind, MlflowRun
from tests.search.commands.shelf import Call, Shelf, environment


def taken_port() -> socket.socket:
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    listening.listen()
    return listening


def test_a_tracking_server_is_only_named_and_without_its_password(call: Call) -> None:
    ended = call("ui", "--tracking", "http://me:hunter2@mlflow.example.org:5000")
    assert (ended.status, ended.out) == (0, "MLflow's UI: http://mlflow.example.org:5000\n")


def test_a_port_that_was_asked_for_and_is_taken_is_an_error(call: Call) -> None:
    with taken_port() as other:
        ended = call("ui", "--port", str(other.getsockname()[1]))
    assert (ended.status, ended.out) == (2, "")
    assert "in use" in ended.err


def test_the_next_free_port_is_taken_where_the_first_is_not_free() -> None:
    with taken_port() as other:
        taken = other.getsockname()[1]
        assert ui.free_port("127.0.0.1", taken, tries=20) in range(taken + 1, taken + 20)


def test_the_ui_and_the_dashboard_answer_at_the_printed_addresses_until_control_c(folder: Path) -> None:
    with taken_port() as other:
        port = other.getsockname()[1]
    serving = subprocess.Popen(
        [sys.executable, "-m", "neurosweep", "ui", "--port", str(port), "--dashboard", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
        env=environment(),
    )
    try:
        assert serving.stdout is not None
        document = "".join(iter(serving.stdout.readline, "}\n")) + "}"
        told = json.loads(document)
        assert told["address"] == f"http://127.0.0.1:{port}"
        assert told["report"] is None
        for page in (f"{told['address']}/health", f"{told['dashboard']}/api/studies"):
            with urllib.request.urlopen(page, timeout=10) as reply:
                assert reply.status == 200
        processes = subprocess.run(["ps", "-ww", "-ef"], capture_output=True, text=True, check=True).stdout
        ours = [line for line in processes.splitlines() if f"--port {port}" in line]
        assert ours and not [
            line for line in processes.splitlines() if f"{folder}/.neurosweep" in line
        ]  # or its password
    finally:
        serving.send_signal(signal.SIGINT)
        _, err = serving.communicate(timeout=30)
    assert serving.returncode == 0
    assert "Traceback" not in err
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0
    assert {path.name for path in folder.iterdir()} == {".neurosweep"}


def test_a_store_that_cannot_be_opened_exits_3_with_the_log(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ui, "_SECONDS_TO_START", 3)  # MLflow goes on trying for minutes
    ended = call("ui", "--tracking", "postgresql://me:hunter2@127.0.0.1:1/mlflow")
    assert (ended.status, ended.out) == (3, "")
    assert "mlflow-ui.log" in ended.err and "hunter2" not in ended.err


def told_mlflow(shelf: Shelf) -> None:
    """A publisher has made the study's run."""
    shelf.store.record(shelf.running(), Batch(facts=(Fact(key="started", kind=FactKind.STUDY_STARTED),)))
    claim = shelf.store.claim_outbox("publisher", 30)
    assert claim is not None
    shelf.store.set_run(claim, MlflowRun(experiment_id="7", run_id="abc"))


def test_a_studys_own_page_is_named(shelf: Shelf, call: Call) -> None:
    told_mlflow(shelf)
    document = call("ui", "digits", "--tracking", "http://mlflow.example.org/", "--json").document
    assert document["address"] == "http://mlflow.example.org/#/experiments/7/runs?workflowType=machine_learning"


def test_a_study_that_mlflow_does_not_know_has_no_page(shelf: Shelf, call: Call) -> None:
    shelf.finished()
    ended = call("ui", "digits", "--tracking", "http://mlflow.example.org")
    assert (ended.status, ended.out) == (2, "")
    assert "MLflow has not been told of digits yet" in ended.err
    assert call("ui", "digts", "--tracking", "http://mlflow.example.org").status == 4


def test_a_studys_report_is_named_once_it_is_written(shelf: Shelf, call: Call, folder: Path) -> None:
    told_mlflow(shelf)
    ended = call("ui", "digits", "--tracking", "http://mlflow.example.org")
    assert "digits has no report yet: neurosweep report digits" in ended.err
    page = folder / ".neurosweep" / "studies" / shelf.store.find("digits").uid / "pages" / "report.html"
    page.parent.mkdir(parents=True)
    page.write_text("<p>", encoding="utf-8")
    document = call("ui", "digits", "--tracking", "http://mlflow.example.org", "--json").document
    address = "http://mlflow.example.org/#/experiments/7/runs/abc/artifacts/pages/report.html"
    assert document["report"] == {"file": str(page), "address": address}


def test_a_dashboard_that_is_not_installed_is_an_error_with_its_remedy(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    ended = call("ui", "--dashboard")
    assert (ended.status, ended.out) == (2, "")
    assert "pip install optuna-dashboard" in ended.err
