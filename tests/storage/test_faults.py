"""What the store does when an answer is lost, a connection ends, somebody else is quicker, or the input is hostile."""

from __future__ import annotations

import json
import math
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta, timezone
from pathlib import Path
from typing import Any

import optuna
import psycopg
import pytest
import sqlalchemy as sa
from optuna.trial import FrozenTrial
from optuna.trial import TrialState as OptunaState

from neurosweep.errors import BadInputError, LeaseLostError, NeurosweepError, NoSuchStudyError, UnreachableError
from storage.database import open_engine
from storage.records import Batch, Claim, Fact, FactKind, StudyState, TrialState
from storage.schema import metadata
from storage.store import Store
from tests.storage.samples import WHEN, ended, epoch, new_study, proposed


@pytest.fixture
def store(database_url: str) -> Store:
    return Store.open(database_url)


def claimed(store: Store, name: str = "digits", lease_seconds: float = 30) -> Claim:
    claim = store.claim("d", lease_seconds, study_id=store.submit(new_study(name)).id)
    assert claim is not None
    return claim


def plain_url(url: str) -> str:
    """As a user would hand it to Optuna."""
    return url.replace("postgresql://", "postgresql+psycopg://")


# Answers that are lost


@pytest.fixture
def lose_the_next_answer(store: Store, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Arms a fault: the next COMMIT goes through, but its answer does not arrive."""
    dialect = store._engine.dialect
    commit, lost = dialect.do_commit, []

    def commit_and_lose(connection: Any) -> None:
        monkeypatch.setattr(dialect, "do_commit", commit)
        commit(connection)
        lost.append(True)
        if dialect.name == "sqlite":
            raise sqlite3.OperationalError("database is locked")
        connection.dbapi_connection.close()
        raise psycopg.OperationalError("the connection was lost")

    yield lambda: monkeypatch.setattr(dialect, "do_commit", commit_and_lose)
    assert lost == [True]


def test_a_submission_whose_answer_is_lost_is_one_study(store: Store, lose_the_next_answer: Any) -> None:
    before = store.submit(new_study())
    lose_the_next_answer()
    again = store.submit(new_study())
    assert (before.number, again.number) == (1, 2)
    assert [summary.study for summary in store.list_studies()] == [again, before]


@pytest.mark.parametrize("given", [True, False])
def test_a_claim_whose_answer_is_lost_is_held(store: Store, lose_the_next_answer: Any, given: bool) -> None:
    study = store.submit(new_study())
    lose_the_next_answer()
    claim = store.claim("mine", study_id=study.id if given else None)
    assert claim is not None
    assert (claim.study.id, claim.token) == (study.id, 1)
    assert store.renew(claim, 30.0) is False
    assert store.claim("another") is None


def test_a_batch_whose_answer_is_lost_is_written_once(store: Store, lose_the_next_answer: Any) -> None:
    claim = claimed(store)
    store.record(claim, Batch(proposed=(proposed(0),)))
    lose_the_next_answer()
    store.record(
        claim,
        Batch(
            proposed=(proposed(1), proposed(2)),
            epochs=(epoch(0, 1), epoch(1, 1)),
            ended=(ended(1),),
            facts=(Fact(key="k", kind=FactKind.TRIAL_ENDED, trial=1),),
        ),
    )
    assert [(trial.number, trial.state) for trial in store.trials(claim.study.id)] == [
        (0, TrialState.RUNNING),
        (1, TrialState.COMPLETE),
        (2, TrialState.RUNNING),
    ]
    seen = store.optuna_trials(claim.study.id)
    assert [(trial.number, trial.intermediate_values) for trial in seen] == [(0, {1: 0.5}), (1, {1: 0.5}), (2, {})]
    assert len(store.epochs(claim.study.id)) == 2
    assert store.pending_facts() == 1


def test_an_end_whose_answer_is_lost_is_no_lost_lease(store: Store, lose_the_next_answer: Any) -> None:
    claim = claimed(store)
    lose_the_next_answer()
    fact = Fact(key="end", kind=FactKind.STUDY_ENDED)
    store.finish(claim, StudyState.FINISHED, result={"best": 1}, facts=(fact,))
    assert (store.study(claim.study.id).state, store.study(claim.study.id).result) == (StudyState.FINISHED, {"best": 1})
    assert store.pending_facts() == 1
    with pytest.raises(LeaseLostError):
        store.finish(claim, StudyState.FAILED, error="but it has finished")


def test_a_store_goes_on_after_the_server_has_ended_its_connections(postgres_url: str) -> None:
    store = Store.open(postgres_url)
    claim = claimed(store)
    with open_engine(postgres_url).connect() as other:
        ended_ones = other.scalars(
            sa.text(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        ).all()
    assert True in ended_ones
    store.record(claim, Batch(proposed=(proposed(0),)))
    assert len(store.trials(claim.study.id)) == 1


# Others who are quicker


def test_one_dispatcher_wins_each_race_for_a_study_and_its_token_grows(database_url: str) -> None:
    rounds, racers = 200, 4
    stores = [Store.open(database_url) for _ in range(racers)]
    study = stores[0].submit(new_study())
    won: list[list[int]] = [[] for _ in range(rounds)]

    def next_round() -> None:
        if any(won):
            stores[0].requeue(study.id)

    start, end = threading.Barrier(racers, action=next_round), threading.Barrier(racers)

    def race(store: Store) -> None:
        for tokens in won:
            start.wait(60)
            claim = store.claim("d", study_id=study.id)
            end.wait(60)
            if claim is not None:
                tokens.append(claim.token)
                store.finish(claim, StudyState.STOPPED)

    with ThreadPoolExecutor(racers) as threads:
        list(threads.map(race, stores))
    assert won == [[token] for token in range(1, rounds + 1)]


SUBMITTER = """
import sys
from storage.records import NewStudy
from storage.store import Store
store = Store.open(sys.argv[1])
for _ in range(10):
    print(store.submit(NewStudy(name="digits", spec={}, text="", trials=1)).number)
"""

CLAIMER = """
import sys, time
from storage.store import Store
store, until = Store.open(sys.argv[1]), time.monotonic() + 60
while store.summary(1).study.trials != 99 and time.monotonic() < until:  # the signal that all are submitted
    claim = store.claim("d")
    if claim is None:
        time.sleep(0.01)
    else:
        print(claim.study.id, claim.token)
while (claim := store.claim("d")) is not None:
    print(claim.study.id, claim.token)
"""


def test_studies_from_two_processes_are_claimed_once_each_by_two_others(database_url: str) -> None:
    store = Store.open(database_url)
    signal = store.submit(new_study("signal"))
    assert signal.id == 1
    store.request_cancel(signal.id)

    def start(program: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", program, database_url],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        )

    claimers, submitters = [start(CLAIMER) for _ in range(2)], [start(SUBMITTER) for _ in range(2)]
    numbers = [int(line) for each in submitters for line in _lines(each)]
    assert sorted(numbers) == list(range(1, 21))
    with store._engine.begin() as connection:
        connection.execute(sa.text("UPDATE neurosweep_study SET trials = 99 WHERE id = 1"))
    claims = Counter(line for each in claimers for line in _lines(each))
    ids = [summary.study.id for summary in store.list_studies() if summary.study.id != signal.id]
    assert claims == Counter(f"{study_id} 1" for study_id in ids)


def _lines(process: subprocess.Popen[str]) -> list[str]:
    out, err = process.communicate(timeout=90)
    assert process.returncode == 0, err
    return out.splitlines()


def test_a_dispatcher_that_gets_its_study_back_knows_the_trials_that_another_added(store: Store) -> None:
    other = Store.open(store._engine.url.render_as_string(hide_password=False))
    claim = claimed(store, lease_seconds=0.05)
    store.record(claim, Batch(proposed=(proposed(0),)))
    time.sleep(0.1)
    theirs = other.claim("other", 0.05)
    assert theirs is not None
    other.record(theirs, Batch(proposed=(proposed(1),), epochs=(epoch(1, 1),)))
    time.sleep(0.1)
    back = store.claim("d")
    assert back is not None
    store.record(back, Batch(epochs=(epoch(1, 2),), ended=(ended(0), ended(1))))
    assert [trial.state for trial in store.optuna_trials(claim.study.id)] == [OptunaState.COMPLETE] * 2


def test_a_study_that_is_worked_on_is_not_put_back(store: Store) -> None:
    claim = claimed(store)
    store.request_cancel(claim.study.id)
    after = store.requeue(claim.study.id, trials=50)
    assert (after.state, after.trials, after.cancel_requested) == (StudyState.RUNNING, claim.study.trials, True)
    assert store.claim("other") is None


def test_a_study_whose_dispatcher_died_is_resumed_with_more_trials(store: Store) -> None:
    claim = claimed(store, lease_seconds=0.05)
    time.sleep(0.1)
    assert store.requeue(claim.study.id, trials=50).trials == 50
    again = store.claim("other")
    assert again is not None
    assert (again.token, again.study.trials) == (2, 50)


def test_no_trials_at_all_are_too_few(store: Store) -> None:
    study = store.submit(new_study())
    with pytest.raises(BadInputError, match="at least 1"):
        store.requeue(study.id, trials=0)


def test_a_publisher_acknowledges_facts_of_its_own_study_only(store: Store) -> None:
    for key in ("a", "b"):
        store.record(claimed(store, key), Batch(facts=(Fact(key=key, kind=FactKind.STUDY_STARTED),)))
    claim = store.claim_outbox("p", 30)
    assert claim is not None
    assert [fact.key for fact in store.facts(claim, 9)] == ["a"]
    store.postponed(claim, "b", "not mine", 3600)
    store.published(claim, ["b"])
    other = store.claim_outbox("q", 30)
    assert other is not None
    assert [fact.key for fact in store.facts(other, 9)] == ["b"]


# Optuna's tables


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("state", [TrialState.PRUNED, TrialState.FAILED])
def test_a_last_value_that_is_not_finite_is_kept_as_optuna_keeps_it(
    sqlite_url: str, value: float, state: TrialState
) -> None:
    store = Store.open(sqlite_url)
    claim = claimed(store)
    store.record(
        claim,
        Batch(proposed=(proposed(0),), epochs=(epoch(0, 1, value),), ended=(ended(0, state, value),)),
    )
    theirs = optuna.create_study(storage=sqlite_url)
    kind = OptunaState.PRUNED if state is TrialState.PRUNED else OptunaState.FAIL
    values = None if math.isnan(value) else [value]
    moment = WHEN.astimezone().replace(tzinfo=None)
    frozen = FrozenTrial(0, kind, None, moment, moment, {}, {}, {}, {}, {1: value}, -1, values=values)
    theirs._storage.create_new_trial(theirs._study_id, template_trial=frozen)
    (theirs_read,) = optuna.load_study(study_name=theirs.study_name, storage=sqlite_url).trials
    (ours,) = optuna.load_study(study_name="digits", storage=sqlite_url).trials
    assert (ours.state, ours.values, repr(ours.intermediate_values)) == (
        theirs_read.state,
        theirs_read.values,
        repr(theirs_read.intermediate_values),
    )
    (record,) = store.trials(claim.study.id)
    assert record.validation is None


def test_a_study_of_optunas_own_with_the_same_name_is_not_mixed_with_ours(database_url: str) -> None:
    theirs = optuna.create_study(study_name="digits", storage=plain_url(database_url))
    theirs.add_trial(optuna.trial.create_trial(value=1.0))
    store = Store.open(database_url)
    claim = claimed(store)
    with pytest.raises(BadInputError, match=r"'digits'.*another name"):
        store.optuna_trials(claim.study.id)
    with pytest.raises(BadInputError, match=r"'digits'.*another name"):
        store.record(claim, Batch(proposed=(proposed(0),)))
    assert len(optuna.load_study(study_name="digits", storage=plain_url(database_url)).trials) == 1
    assert store.trials(claim.study.id) == []


def test_mlflows_tables_in_the_same_database_are_an_error_in_words(database_url: str) -> None:
    store = Store.open(database_url)
    with store._engine.begin() as connection:
        connection.execute(sa.text("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)"))
        connection.execute(sa.text("INSERT INTO alembic_version VALUES ('bda7b8c39065')"))
    with pytest.raises(NeurosweepError, match=r"MLflow.*database of its own"):
        store.record(claimed(store), Batch(proposed=(proposed(0),)))


def test_a_folder_with_braces_in_its_name_is_no_template(tmp_path: Path) -> None:
    store = Store.open(f"sqlite:///{tmp_path}/{{SCHEMA_VERSION}}{{x}}/a.db")
    claim = claimed(store)
    store.record(claim, Batch(proposed=(proposed(0),)))
    assert len(store.optuna_trials(claim.study.id)) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["{SCHEMA_VERSION}{x}"]


# The schema and the settings of a connection


def test_a_migrated_database_has_the_constraints_that_the_code_knows(database_url: str) -> None:
    Store.open(database_url)
    engine = open_engine(database_url)
    migrated = _constraints(engine)
    with engine.begin() as connection:
        metadata.drop_all(connection)
        metadata.create_all(connection)
    assert migrated == _constraints(engine)
    assert sum(len(each["checks"]) for each in migrated.values()) == 4


def _constraints(engine: sa.Engine) -> dict[str, dict[str, list[Any]]]:
    inspector = sa.inspect(engine)
    return {
        name: {
            "checks": sorted(inspector.get_check_constraints(name), key=repr),
            "uniques": sorted(inspector.get_unique_constraints(name), key=repr),
            "references": sorted(inspector.get_foreign_keys(name), key=repr),
            "indexes": sorted(map(_plain, inspector.get_indexes(name))),
        }
        for name in metadata.tables
    }


def _plain(index: Any) -> str:
    """Without the addresses of objects."""
    options = {name: str(value) for name, value in index.get("dialect_options", {}).items()}
    return repr({**index, "dialect_options": options})


def test_a_state_that_nobody_knows_is_refused_by_the_database(store: Store) -> None:
    claim = claimed(store)
    store.record(claim, Batch(proposed=(proposed(0),)))
    for table in ("neurosweep_study", "neurosweep_trial"):
        with pytest.raises(sa.exc.IntegrityError), store._engine.begin() as connection:
            connection.execute(sa.text(f"UPDATE {table} SET state = 'lost'"))


def test_postgresql_ends_what_waits_too_long(postgres_url: str) -> None:
    with Store.open(postgres_url)._engine.connect() as connection:
        names = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout")
        assert [connection.scalar(sa.text(f"SHOW {name}")) for name in names] == ["30s", "5s", "15s"]


def test_sqlite_waits_for_writers_and_keeps_references(sqlite_url: str) -> None:
    with Store.open(sqlite_url)._engine.connect() as connection:
        names = ("journal_mode", "busy_timeout", "foreign_keys", "synchronous")
        assert [connection.scalar(sa.text(f"PRAGMA {name}")) for name in names] == ["wal", 5000, 1, 1]


def test_moments_of_any_zone_come_back_as_the_same_moment(store: Store) -> None:
    claim = claimed(store)
    elsewhere = WHEN.astimezone(timezone(timedelta(hours=-7, minutes=-30)))
    store.record(claim, Batch(proposed=(replace(proposed(0), started_at=elsewhere),)))
    (trial,) = store.trials(claim.study.id)
    assert trial.started_at == WHEN
    assert trial.started_at.utcoffset() == timedelta(0)


# Input that nobody should have to survive


def test_a_network_of_more_weights_than_a_small_column_holds_stops_no_batch(store: Store) -> None:
    weights = 2 * 50_000**2  # two layers of 50,000 neurons, which a study file may ask for
    claim = claimed(store)
    store.record(claim, Batch(proposed=(proposed(0),), ended=(replace(ended(0), weights=weights),)))
    assert store.trials(claim.study.id)[0].weights == weights


def test_text_that_no_database_holds_does_not_stop_a_batch(store: Store) -> None:
    claim = claimed(store)
    store.record(claim, Batch(proposed=(proposed(0),), ended=(ended(0, TrialState.FAILED, None, error="a\0b\udcffc"),)))
    (trial,) = store.trials(claim.study.id)
    assert trial.error == "a\N{REPLACEMENT CHARACTER}b?c"


@pytest.mark.parametrize("label", ["\udcff", "a\0b", "digits@" + "9" * 400, "digits@-1", "digits@\u0663", "%", "'"])
def test_any_text_may_be_asked_for_as_a_study(store: Store, label: str) -> None:
    store.submit(new_study("digits"))
    with pytest.raises(NoSuchStudyError):
        store.find(label)


def test_a_study_that_is_not_there_is_an_error_by_its_id_too(store: Store) -> None:
    for ask in (store.study, store.summary, store.request_cancel, store.requeue):
        with pytest.raises(NoSuchStudyError):
            ask(12345)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://somebody:hunter2/x@127.0.0.1:1/studies",
        "postgresql://somebody@hunter2:hunter2/studies",
        "postgresql://somebody@127.0.0.1:1/studies?password=hunter2&sslmode=hunter2",
        "postgresql://somebody@127.0.0.1:1/studies?sslpassword=hunter2",
    ],
)
def test_no_spelling_of_an_address_shows_its_password(url: str) -> None:
    with pytest.raises((UnreachableError, BadInputError)) as caught:
        Store.open(url)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///", "sqlite:///:memory:"])
def test_a_database_in_memory_is_refused(url: str) -> None:
    with pytest.raises(BadInputError, match="in memory"):
        Store.open(url)


def test_a_file_that_is_no_database_and_a_folder_that_is_a_file_are_errors_in_words(tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("some notes, long enough to be no header of a database " * 20)
    with pytest.raises(NeurosweepError, match=r"notes\.txt.*not a database"):
        Store.open(f"sqlite:///{file}")
    with pytest.raises(UnreachableError, match="can't be made"):
        Store.open(f"sqlite:///{file}/a.db")


def test_an_option_that_the_driver_lacks_is_bad_input() -> None:
    with pytest.raises(BadInputError, match="colour"):
        Store.open("postgresql://somebody@127.0.0.1:1/studies?colour=red")


def test_a_summary_is_json_able_even_for_a_study_without_trials(store: Store) -> None:
    study = store.submit(new_study())
    summary = store.summary(study.id)
    assert (summary.counts, summary.best) == ({}, None)
    assert json.loads(json.dumps(summary.study.spec)) == new_study().spec
