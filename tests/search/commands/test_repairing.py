"""`sync` and `doctor`: MLflow again from the database, and what a crash leaves behind."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from mlflow import MlflowClient

from search import publishing
from search.checkpoint_store import BestNetwork, CheckpointStore
from search.commands import repairing
from search.places import Places
from storage import database
from storage.database import HEAD, open_engine
from storage.records import Batch, Fact, FactKind, OutboxClaim, StudyState, TrialState
from storage.store import Store
from storage.telling import NOT_HERE
from tests import small_study
from tests.faults.mlflow_compare import compare_mlflow
from tests.search.commands.shelf import Call, Shelf
from trainer.work import Snapshot

# sync


def test_sync_writes_a_study_to_an_empty_mlflow_and_again_without_a_change(
    shelf: Shelf, call: Call, folder: Path
) -> None:
    study = small_study.whole_study(shelf.store, winner=None)
    first = call("sync", "small", "--json")
    assert (first.status, first.document) == (
        0,
        {"study": "small", "facts": 6, "published": 6, "pending": 0, "set_aside": 0, "reason": None},
    )
    client = MlflowClient(f"sqlite:///{folder / '.neurosweep' / 'mlflow.db'}")
    assert compare_mlflow(shelf.store, client, study) == []
    experiment = client.get_experiment_by_name("small").experiment_id
    runs = sorted(run.info.run_id for run in client.search_runs([experiment]))
    again = call("sync", "small")
    assert (again.status, again.out) == (
        0,
        f"small: 6 of 6 facts written to sqlite:///{folder}/.neurosweep/mlflow.db\n",
    )
    assert "small: writing to MLflow" in again.err
    assert compare_mlflow(shelf.store, client, study) == []
    assert sorted(run.info.run_id for run in client.search_runs([experiment])) == runs


Tell = Callable[[Store, OutboxClaim], None]


@pytest.fixture
def publisher(monkeypatch: pytest.MonkeyPatch, shelf: Shelf) -> Callable[[Tell], None]:
    """Puts something else in the place of the publisher's process."""

    def install(tell: Tell) -> None:
        class FakePublisher:
            def __init__(self, places: Places) -> None:
                claim = shelf.store.claim_outbox("fake", 30)
                assert claim is not None
                tell(shelf.store, claim)
                shelf.store.release_outbox(claim)

            def order_drain(self, study_id: int) -> None:
                """It has done what it does."""

            def ended(self) -> bool:
                return True

            def drained(self, stop: Any) -> str:
                return "facts wait for MLflow"

            def stop(self) -> None:
                """It is at its end."""

        monkeypatch.setattr(publishing, "Publisher", FakePublisher)

    return install


def test_sync_exits_3_where_mlflow_does_not_answer_and_the_facts_wait(
    shelf: Shelf, call: Call, publisher: Callable[[Tell], None]
) -> None:
    small_study.whole_study(shelf.store, winner=None)
    reason = "MLflow does not answer at http://mlflow:5000"
    publisher(lambda store, claim: store.postponed(claim, store.facts(claim, 1)[0].key, reason, 60))
    ended = call("sync", "small", "--json")
    assert ended.status == 3
    assert ended.document == {
        "study": "small",
        "facts": 6,
        "published": 0,
        "pending": 6,
        "set_aside": 0,
        "reason": reason,
    }
    assert "facts wait for MLflow" in ended.err
    assert "MLflow is behind by 6 facts: it does not answer at http://mlflow:5000" in call("status", "small").out


def test_sync_without_the_champions_files_writes_the_rest_and_exits_1(
    shelf: Shelf, call: Call, publisher: Callable[[Tell], None]
) -> None:
    small_study.whole_study(shelf.store)

    def all_but_the_end(store: Store, claim: OutboxClaim) -> None:
        facts = [fact.key for fact in store.facts(claim, 99)]
        store.published(claim, facts[:-1])
        store.postponed(claim, facts[-1], f"{NOT_HERE} /elsewhere", 3)

    publisher(all_but_the_end)
    ended = call("sync", "small", "--json")
    assert (ended.status, ended.document["published"], ended.document["pending"]) == (1, 5, 1)
    assert ended.document["reason"] == f"{NOT_HERE} /elsewhere"


def test_sync_takes_back_what_was_set_aside(shelf: Shelf, call: Call, publisher: Callable[[Tell], None]) -> None:
    study = small_study.whole_study(shelf.store, winner=None)

    def set_one_aside(store: Store, claim: OutboxClaim) -> None:
        poisoned, *good = store.facts(claim, 99)
        store.published(claim, [fact.key for fact in good])
        store.refused(claim, poisoned, "a changed parameter", 0, set_aside=True)

    publisher(set_one_aside)
    ended = call("sync", "small", "--json")
    assert (ended.status, ended.document["set_aside"], ended.document["pending"]) == (1, 1, 0)
    assert call("status", "small").out.splitlines()[1] == "MLflow lacks 1 fact, set aside: a changed parameter"
    told = call("status", "small", "--json").document["mlflow"]
    assert (told["pending"], told["set_aside"], told["reason"]) == (0, 1, "a changed parameter")
    publisher(lambda store, claim: store.published(claim, [fact.key for fact in store.facts(claim, 99)]))
    assert call("sync", "small").status == 0
    assert shelf.store.pending_facts(study.id) == 0


def test_sync_of_a_study_that_has_not_begun_has_nothing_to_do(shelf: Shelf, call: Call) -> None:
    shelf.queued()
    ended = call("sync", "digits")
    assert (ended.status, ended.out) == (0, "digits is queued: there is nothing to write yet\n")
    assert call("sync", "digts").status == 4


# doctor


@pytest.fixture
def reachable(monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow is asked in a test of its own: importing it takes seconds."""
    monkeypatch.setattr(repairing, "mlflow", lambda where: iter(()))


@pytest.fixture
def examined(call: Call, reachable: None) -> Callable[..., tuple[int, list[dict[str, Any]]]]:
    def run(*arguments: str) -> tuple[int, list[dict[str, Any]]]:
        ended = call("doctor", "--json", *arguments)
        return ended.status, ended.document["findings"]

    return run


Examined = Callable[..., tuple[int, list[dict[str, Any]]]]


def kinds(findings: list[dict[str, Any]]) -> list[tuple[str, str | None, bool]]:
    return [(finding["kind"], finding["study"], finding["repaired"]) for finding in findings]


def change(shelf: Shelf, statement: str) -> None:
    with shelf.store._engine.begin() as connection:
        connection.execute(sa.text(statement))


def test_a_healthy_database_is_well(shelf: Shelf, call: Call, examined: Examined) -> None:
    shelf.finished()
    shelf.running("letters")
    shelf.ended(StudyState.STOPPED, "stopped")  # its running trial goes on when it is resumed
    assert examined() == (0, [])
    assert call("doctor", "--repair").out == "All is well.\n"


def test_a_study_whose_dispatcher_is_gone_goes_back_into_the_queue(
    shelf: Shelf, call: Call, examined: Examined
) -> None:
    study = shelf.running().study
    change(shelf, "UPDATE neurosweep_study SET leased_until = leased_until - 100")
    status, (finding,) = examined()
    assert (status, finding["kind"], finding["repaired"]) == (1, "lease", False)
    assert re.fullmatch(
        r"the lease of dispatcher ran out 1 min 1\d s ago; a `.*serve` takes it over", finding["message"]
    )
    assert shelf.store.study(study.id).state is StudyState.RUNNING
    out = call("doctor", "--repair").out
    assert out.startswith("repaired  lease       digits: the lease of dispatcher ran out")
    assert shelf.store.study(study.id).state is StudyState.QUEUED
    assert examined() == (0, [])
    claim = shelf.store.claim("another")
    assert claim is not None and claim.token == 2


def test_trials_that_run_in_an_ended_study_are_failed_in_both_tables_and_told(shelf: Shelf, examined: Examined) -> None:
    study = shelf.ended(StudyState.CANCELLED)
    status, findings = examined()
    assert (status, kinds(findings)) == (1, [("trial", "digits", False)])
    assert "2" in findings[0]["message"]
    status, findings = examined("--repair")
    assert (status, kinds(findings)[0]) == (1, ("trial", "digits", True))
    assert kinds(findings)[1:] == [("outbox", "digits", False)]  # MLflow is to hear of it
    assert shelf.store.trials(study.id)[2].state is TrialState.FAILED
    assert shelf.store.optuna_trials(study.id)[2].state.name == "FAIL"
    assert kinds(examined()[1]) == [("outbox", "digits", False)]


def test_facts_that_do_not_drain_are_named_with_their_reason(shelf: Shelf, examined: Examined) -> None:
    claim = shelf.running()
    facts = tuple(Fact(key=key, kind=FactKind.TRIAL_ENDED, trial=0) for key in ("waits", "poisoned"))
    shelf.store.record(claim, Batch(facts=facts))
    assert examined() == (0, [])  # of a study at work that is nothing unusual
    outbox = shelf.store.claim_outbox("p", 30)
    assert outbox is not None
    shelf.store.postponed(outbox, "waits", "MLflow does not answer at http://m", 60)
    shelf.store.refused(outbox, facts[1], "a changed parameter", 0, set_aside=True)
    status, findings = examined()
    assert (status, kinds(findings)) == (1, [("outbox", "digits", False), ("set_aside", "digits", False)])
    assert "1 facts wait: MLflow does not answer at http://m" in findings[0]["message"]
    assert "a changed parameter" in findings[1]["message"]
    assert kinds(examined("--repair")[1]) == [("outbox", "digits", False), ("set_aside", "digits", True)]
    assert shelf.store.behind().set_aside == 0


def test_tables_that_disagree_are_counted(shelf: Shelf, examined: Examined) -> None:
    shelf.finished()
    change(shelf, "UPDATE trials SET state = 'RUNNING' WHERE number = 1")
    status, (finding,) = examined("--repair")
    assert (status, finding["kind"], finding["repaired"]) == (1, "optuna", False)
    assert "Optuna's tables have 1 running, 1 complete, 1 pruned, ours 2 complete, 1 pruned" in finding["message"]


def test_files_of_no_study_are_named_and_left_alone(shelf: Shelf, examined: Examined, folder: Path) -> None:
    study = shelf.finished()
    for uid in (study.uid, "0123456789ab"):
        (folder / ".neurosweep" / "studies" / uid).mkdir(parents=True)
    status, (finding,) = examined("--repair")
    assert (status, finding["kind"]) == (1, "checkpoint")
    assert "0123456789ab is of no study" in finding["message"]
    assert (folder / ".neurosweep" / "studies" / "0123456789ab").is_dir()


def test_checkpoints_of_an_ended_study_are_removed_and_its_best_network_stays(
    shelf: Shelf, examined: Examined, folder: Path
) -> None:
    study = shelf.finished()
    kept = CheckpointStore(str(folder / ".neurosweep" / "studies" / study.uid / "checkpoints"))
    weights: dict[str, Any] = {"x": np.zeros(3, np.float32)}
    kept.save(Snapshot(trial=1, epoch=3, arrays=weights, facts={}))
    kept.keep_best(BestNetwork(trial=0, validation=0.5, weights=weights))
    status, (finding,) = examined()
    assert (status, finding["kind"], finding["repaired"]) == (1, "checkpoint", False)
    assert "checkpoints of 1 of its trials" in finding["message"]
    assert [each["repaired"] for each in examined("--repair")[1]] == [True]
    assert kept.found() == {}
    assert kept.best() is not None
    assert examined() == (0, [])


def test_a_database_of_an_older_program_is_brought_up_to_date(folder: Path, examined: Examined) -> None:
    engine = open_engine(f"sqlite:///{folder / '.neurosweep' / 'neurosweep.db'}")
    config = Config()
    config.set_main_option("script_location", str(Path(database.__file__).parent / "migrations"))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0002")
    status, (finding,) = examined()
    assert (status, finding["kind"], finding["repaired"]) == (0, "schema", True)
    assert finding["message"] == f"it was 0002 and is {HEAD} now"
    assert examined() == (0, [])


def test_a_database_of_a_newer_program_is_a_finding(shelf: Shelf, examined: Examined) -> None:
    shelf.finished()
    change(shelf, "UPDATE neurosweep_version SET version_num = '9999'")
    status, (finding,) = examined("--repair")
    assert (status, finding["kind"], finding["repaired"]) == (1, "schema", False)
    assert "newer neurosweep" in finding["message"] and "9999" in finding["message"]


def test_a_disk_that_is_nearly_full_is_a_finding(folder: Path) -> None:
    where = Places(home=folder / "not" / "yet", database="", tracking="", ray=None)
    assert list(repairing.disks(where, lambda path: 2 << 30)) == []
    (finding,) = repairing.disks(where, lambda path: 5 << 20)
    assert (finding.kind, finding.message) == ("disk", f"{folder} has 5 MB left: make room there")


def test_an_mlflow_that_does_not_answer_is_a_finding(shelf: Shelf, call: Call) -> None:
    began = time.monotonic()
    ended = call("doctor", "--tracking", "http://me:hunter2@127.0.0.1:1")
    assert ended.status == 1
    assert ended.out == "found  mlflow      MLflow does not answer at http://127.0.0.1:1\n"
    assert time.monotonic() - began < 60


def test_a_database_that_does_not_answer_exits_3(call: Call, reachable: None) -> None:
    assert call("doctor", "--database", "postgresql://me@127.0.0.1:1/x").status == 3
