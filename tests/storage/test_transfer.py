"""One study out of a database and into another: nothing is lost, and nothing of a bad file stays."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, timedelta
from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy as sa
from mlflow import MlflowClient

from neurosweep.errors import BadInputError
from storage import schema
from storage.database import open_engine
from storage.publisher import Publisher
from storage.records import Batch, Claim, FactKind, Probe, StudyRecord, StudyState, TrialState
from storage.schema import epoch, outbox, study, trial
from storage.store import Store
from storage.transfer import LEFT_BEHIND, Parcel, Snapshot, read_head, take_in
from storage.transfer_lines import EpochLine, ExtraRunLine, OpeningLine, StudyLine, TrialLine
from tests import small_study
from tests.storage.samples import WHEN, ended, extra_run, new_study, proposed
from tests.storage.samples import epoch as epoch_row

Lines = dict[str, list[bytes]]

FIGURES = (0.1, 1 / 3, 5e-324, 1.7976931348623157e308, 0.30000000000000004)
RESULT = {
    "study": "digits",
    "state": "finished",
    "metric": "error",
    "trials": {"total": 4, "complete": 1, "pruned": 1, "failed": 1},
    "best": {
        "trial": 0,
        "params": {"layers": 2, "learning_rate": 1 / 3, "activation": "gelu", "batch_norm": False},
        "train": 0.25,
        "validation": 0.1,
        "test": 0.2,
        "test_interval": [0.1, 0.3],
        "epochs": 2,
        "best_epoch": 1,
        "weights": 123,
        "model": "models:/digits@champion",
    },
    "splits": {"train": 1257, "validation": 270, "test": 270},
    "seconds": 1.5,
}


@pytest.fixture
def opened() -> Iterator[Callable[[str], Store]]:
    stores: list[Store] = []

    def open_store(url: str) -> Store:
        stores.append(Store.open(url))
        return stores[-1]

    yield open_store
    for store in stores:
        store.close()


def claimed(store: Store, name: str = "digits") -> Claim:
    """A study with a trial in each state, and with figures that are hard to carry."""
    claim = store.claim("somebody", study_id=store.submit(new_study(name, trials=5)).id)
    assert claim is not None
    store.started(claim, "a" * 64, {**claim.study.spec, "metric": "error", "note": "ünïcode \u2028 '\""})
    store.optuna_trials(claim.study.id)
    store.record(claim, Batch(proposed=tuple(proposed(number) for number in range(4)), assigned={3: "wörker"}))
    epochs = [
        replace(epoch_row(number, k + 1, figure), train_loss=-figure, at=WHEN + timedelta(microseconds=k))
        for number in (0, 1, 3)
        for k, figure in enumerate(FIGURES)
    ]
    epochs += [epoch_row(2, k + 1, bad) for k, bad in enumerate((math.inf, -math.inf, math.nan))]
    over = (
        ended(0, value=FIGURES[0]),
        replace(ended(1, TrialState.PRUNED, value=FIGURES[-1]), pack=0, memory=2**40, weights=2**40),
        ended(2, TrialState.FAILED, value=None, error="its \0 loss\n was not finite"),
    )
    store.record(claim, Batch(epochs=tuple(epochs), ended=over, deaths={3: 2}))
    store.record_extra_runs(
        claim.study.id,
        [
            replace(extra_run(Probe.ROWS, amount=0.25), at=WHEN, curve=FIGURES),
            replace(extra_run(Probe.SEED, amount=5, trial=1), seed=2**63, weights=2**40, curve=(math.nan, 0.5)),
            replace(extra_run(Probe.NEURONS, amount=2), train=None, validation=None, error="it was \0 too large"),
        ],
    )
    store.record_opening(claim.study.id, 0, "the winner")
    store.publish_page(claim.study.id, "report")
    return claim


def packed(store: Store, study_id: int) -> Lines:
    """What an export writes."""

    def lines(snapshot: Snapshot) -> Lines:
        return {
            "study": [snapshot.head()],
            "trials": list(snapshot.trials()),
            "epochs": list(snapshot.epochs()),
            "optuna": list(snapshot.optuna_trials()),
        }

    return store.export(study_id, lines)


def parcel(lines: Lines) -> Parcel:
    return Parcel(
        head=read_head(lines["study"][0]),
        trials=lambda: lines["trials"],
        epochs=lambda: lines["epochs"],
        optuna_trials=lambda: lines["optuna"],
    )


def unpacked(lines: Lines, store: Store) -> StudyRecord:
    return store.take_in(parcel(lines), lambda: None)


def rows(url: str, study_id: int) -> dict[str, list[dict[str, Any]]]:
    """Every column of every row of a study, but for its ids."""
    engine = open_engine(url)
    with engine.connect() as connection:
        found = {}
        for table, of, order in (
            (study, study.c.id, [study.c.id]),
            (trial, trial.c.study_id, [trial.c.number]),
            (epoch, epoch.c.study_id, [epoch.c.trial, epoch.c.epoch]),
            (schema.extra_run, schema.extra_run.c.study_id, [schema.extra_run.c.at, schema.extra_run.c.probe]),
            (schema.opening, schema.opening.c.study_id, [schema.opening.c.at]),
        ):
            mine = connection.execute(sa.select(table).where(of == study_id).order_by(*order))
            left_out = LEFT_BEHIND if table is study else {"study_id"}
            found[table.name] = [
                {name: value for name, value in row._mapping.items() if name not in left_out} for row in mine
            ]
    engine.dispose()
    return found


def count_all(url: str) -> dict[str, int]:
    engine = open_engine(url)
    with engine.connect() as connection:
        tables = [table for table in sa.inspect(connection).get_table_names() if table != "version_info"]
        counted = {table: connection.scalar(sa.text(f"SELECT count(*) FROM {table}")) or 0 for table in tables}
    engine.dispose()
    return counted


def read_by_optuna(url: str, label: str) -> list[dict[str, Any]]:
    found = optuna.load_study(study_name=label, storage=url.replace("postgresql:", "postgresql+psycopg:"))
    return [
        {
            **{name: getattr(each, name) for name in ("number", "state", "values", "params", "distributions")},
            **{name: getattr(each, name) for name in ("datetime_start", "datetime_complete")},
            **{name: getattr(each, name) for name in ("user_attrs", "system_attrs")},
            "steps": {step: str(value) for step, value in each.intermediate_values.items()},
        }
        for each in found.get_trials(deepcopy=False)
    ]


@pytest.mark.parametrize("way", [("sqlite_url", "postgres_url"), ("postgres_url", "sqlite_url")])
def test_a_study_is_the_same_there_and_back(
    way: tuple[str, str], request: pytest.FixtureRequest, opened: Callable[[str], Store], tmp_path: Path
) -> None:
    here, there = (request.getfixturevalue(name) for name in way)
    back = f"sqlite:///{tmp_path}/back.db" if "sqlite" in here else request.getfixturevalue("postgres").fresh_database()
    source = opened(here)
    claim = claimed(source)
    optuna.load_study(study_name="digits", storage=here.replace("postgresql:", "postgresql+psycopg:")).set_user_attr(
        "note", {"by": "somebody", "size": math.inf}
    )
    source.finish(claim, StudyState.FINISHED, result=RESULT)

    first = unpacked(packed(source, claim.study.id), opened(there))
    second = unpacked(packed(opened(there), first.id), opened(back))

    assert rows(here, claim.study.id) == rows(there, first.id) == rows(back, second.id)
    told = read_by_optuna(here, "digits")
    assert told == read_by_optuna(there, first.label) == read_by_optuna(back, second.label)
    assert [each["state"].name for each in told] == ["COMPLETE", "PRUNED", "FAIL", "RUNNING"]
    assert told[2]["steps"] == {1: "inf", 2: "-inf", 3: "nan"}
    attrs = optuna.load_study(study_name="digits", storage=back.replace("postgresql:", "postgresql+psycopg:"))
    assert attrs.user_attrs == {"note": {"by": "somebody", "size": math.inf}}


def test_every_column_travels_or_is_left_behind_on_purpose() -> None:
    assert set(study.c.keys()) == set(StudyLine.model_fields) | LEFT_BEHIND
    assert set(trial.c.keys()) == set(TrialLine.model_fields) | {"study_id"}
    assert set(epoch.c.keys()) == set(EpochLine.model_fields) | {"study_id"}
    assert set(schema.extra_run.c.keys()) == set(ExtraRunLine.model_fields) | {"study_id"}
    assert set(schema.opening.c.keys()) == set(OpeningLine.model_fields) | {"study_id"}


def test_a_study_that_an_older_program_has_exported_comes_in(
    database_url: str, opened: Callable[[str], Store], tmp_path: Path
) -> None:
    source = opened(f"sqlite:///{tmp_path}/source.db")
    lines = packed(source, claimed(source).study.id)
    head = json.loads(lines["study"][0])
    for name in ("extra_runs", "openings", "pages"):
        del head[name]
    for name in ("tree", "round", "rounds", "sealed"):
        del head["study"][name]
    trials = [json.loads(line) for line in lines["trials"]]
    for each in trials:
        del each["would_stop"]
    older = {**lines, "study": [json.dumps(head).encode()], "trials": [json.dumps(each).encode() for each in trials]}
    store = opened(database_url)
    record = unpacked(older, store)
    assert (record.tree, record.sealed, len(store.trials(record.id))) == (None, False, 4)
    assert (store.extra_runs(record.id), store.openings(record.id)) == ([], [])


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("extra_runs", lambda lines: lines[0].update(trial=4), "of trial 4, which is not there"),
        ("extra_runs", lambda lines: lines.append(lines[0]), "twice"),
        ("extra_runs", lambda lines: lines[0].update(probe="guess"), "probe"),
        ("extra_runs", lambda lines: lines[0].update(amount=math.pi * 1e9), "amount"),
        ("openings", lambda lines: lines[0].update(trial=9), "of trial 9, which is not there"),
        ("pages", lambda names: names.append("../report"), "pages"),
    ],
)
def test_what_stands_beside_the_search_is_checked(
    name: str, change: Callable[[Any], None], said: str, opened: Callable[[str], Store], tmp_path: Path
) -> None:
    source = opened(f"sqlite:///{tmp_path}/source.db")
    lines = packed(source, claimed(source).study.id)
    head = json.loads(lines["study"][0])
    change(head[name])
    with pytest.raises(BadInputError, match=said):
        unpacked({**lines, "study": [json.dumps(head).encode()]}, opened(f"sqlite:///{tmp_path}/there.db"))


def test_a_study_gets_the_next_number_of_its_name(
    database_url: str, opened: Callable[[str], Store], tmp_path: Path
) -> None:
    source, store = opened(f"sqlite:///{tmp_path}/source.db"), opened(database_url)
    claim = claimed(source)
    source.finish(claim, StudyState.FINISHED, result=RESULT)
    store.submit(new_study("digits"))
    own = claimed(store, "digits")

    record = unpacked(packed(source, claim.study.id), store)

    assert (own.study.label, record.label, record.uid) == ("digits@2", "digits@3", claim.study.uid)
    assert record.result is not None and record.result["study"] == "digits@3"
    assert len(read_by_optuna(database_url, "digits@3")) == 4
    assert store.find("digits").id == record.id
    # Another dispatcher's trials in the same tables are still its own.
    assert [each.number for each in store.optuna_trials(own.study.id)] == [0, 1, 2, 3]
    assert [each.number for each in store.optuna_trials(record.id)] == [0, 1, 2, 3]


@pytest.mark.parametrize("state", list(StudyState))
def test_a_study_comes_in_as_it_was_but_nobody_works_on_it(
    state: StudyState, database_url: str, opened: Callable[[str], Store], tmp_path: Path
) -> None:
    source, store = opened(f"sqlite:///{tmp_path}/source.db"), opened(database_url)
    if state is StudyState.QUEUED:
        study_id = source.submit(new_study()).id
    else:
        claim = claimed(source)
        study_id = claim.study.id
        if state is not StudyState.RUNNING:
            source.finish(claim, state, error="why" if state is StudyState.FAILED else None)
    lines = packed(source, study_id)
    before = source.study(study_id)

    record = unpacked(lines, store)

    if state is StudyState.RUNNING:
        exported_at = read_head(lines["study"][0]).exported_at.astimezone(UTC)
        before = replace(before, state=StudyState.STOPPED, ended_at=exported_at)
    assert record == replace(before, id=record.id)
    resumed = store.claim("somebody else", study_id=store.requeue(record.id).id)
    assert resumed is not None and resumed.token == 1
    facts = {kind: [fact for fact in told(database_url) if fact[1] is kind] for kind in FactKind}
    started = state is not StudyState.QUEUED
    assert [key for key, _, _ in facts[FactKind.STUDY_STARTED]] == [f"study-{record.uid}-started"] * started
    assert [key for key, _, _ in facts[FactKind.STUDY_ENDED]] == [f"study-{record.uid}-ended-0"] * started
    assert [number for _, _, number in facts[FactKind.TRIAL_ENDED]] == [0, 1, 2] * started


def told(url: str) -> list[tuple[str, FactKind, int | None]]:
    engine = open_engine(url)
    with engine.connect() as connection:
        found = connection.execute(sa.select(outbox.c.key, outbox.c.kind, outbox.c.trial).order_by(outbox.c.id)).all()
    engine.dispose()
    return [(row.key, FactKind(row.kind), row.trial) for row in found]


def test_an_mlflow_that_knows_the_study_is_told_nothing_twice(
    store: Store, fresh_tracking: str, network: Path, home: Path, opened: Callable[[str], Store], tmp_path: Path
) -> None:
    study_there = small_study.whole_study(store)
    small_study.write_champion(home / "studies" / study_there.uid / "champion", network)
    elsewhere = opened(f"sqlite:///{tmp_path}/elsewhere.db")
    elsewhere.submit(new_study("small"))
    assert Publisher(store, fresh_tracking, home).publish_due().reason is None
    client, before = MlflowClient(fresh_tracking), in_mlflow(fresh_tracking)

    record = unpacked(packed(store, study_there.id), elsewhere)
    assert elsewhere.pending_facts() == 6
    assert Publisher(elsewhere, fresh_tracking, home).publish_due().reason is None

    assert (record.label, elsewhere.pending_facts()) == ("small@2", 0)
    assert in_mlflow(fresh_tracking) == before
    assert len(before) == 5 and all(points for _, points in before.values())
    assert len(client.search_model_versions("name = 'small'")) == 1


def in_mlflow(tracking: str) -> dict[str, Any]:
    """The history of each metric of each run."""
    client = MlflowClient(tracking)
    experiment = client.get_experiment_by_name("small")
    return {
        run.data.tags["neurosweep.key"]: (
            run.info.run_id,
            {
                metric: [
                    (point.step, point.value, point.timestamp)
                    for point in client.get_metric_history(run.info.run_id, metric)
                ]
                for metric in run.data.metrics
            },
        )
        for run in client.search_runs([experiment.experiment_id])
    }


def test_what_another_process_writes_meanwhile_is_not_in_the_file(
    database_url: str, opened: Callable[[str], Store]
) -> None:
    store, other = opened(database_url), opened(database_url)
    claim = claimed(store)

    def export(snapshot: Snapshot) -> tuple[bytes, int, int, int]:
        head = snapshot.head()
        other.record(
            claim, Batch(proposed=(proposed(4),), epochs=(epoch_row(3, 9),), ended=(ended(3, value=0.5, epochs=9),))
        )
        other.finish(claim, StudyState.STOPPED)
        states = [json.loads(line)["state"] for line in snapshot.trials()]
        return head, states.count("running"), len(list(snapshot.epochs())), len(list(snapshot.optuna_trials()))

    head, running, epochs, optunas = store.export(claim.study.id, export)

    assert read_head(head).study.state is StudyState.RUNNING
    assert (running, epochs, optunas) == (1, 18, 4)
    assert len(store.trials(claim.study.id)) == 5


def test_a_study_is_taken_in_once(database_url: str, opened: Callable[[str], Store]) -> None:
    store = opened(database_url)
    claim = claimed(store)
    lines = packed(store, claim.study.id)
    before = count_all(database_url)
    with pytest.raises(BadInputError, match="already, as digits@1"):
        unpacked(lines, store)
    assert count_all(database_url) == before


def test_of_two_that_take_in_the_same_study_at_once_one_does(
    database_url: str, opened: Callable[[str], Store], tmp_path: Path
) -> None:
    source = opened(f"sqlite:///{tmp_path}/source.db")
    lines = packed(source, claimed(source).study.id)
    stores, barrier, ends = [opened(database_url) for _ in range(4)], threading.Barrier(4), list[str]()

    def work(store: Store) -> None:
        barrier.wait()
        try:
            ends.append(unpacked(lines, store).label)
        except BadInputError as error:
            ends.append(error.message[:33])

    threads = [threading.Thread(target=work, args=(store,)) for store in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(ends) == ["This study is in the database alr"] * 3 + ["digits"]
    assert len(stores[0].list_studies()) == 1


def test_an_import_whose_commit_had_no_answer_finds_its_own_study(
    database_url: str, opened: Callable[[str], Store], tmp_path: Path
) -> None:
    source, store = opened(f"sqlite:///{tmp_path}/source.db"), opened(database_url)
    lines = packed(source, claimed(source).study.id)
    record, before = unpacked(lines, store), count_all(database_url)
    engine = open_engine(database_url)
    with engine.begin() as connection:
        assert take_in(connection, parcel(lines), lambda: None, again=True) == record
    engine.dispose()
    assert count_all(database_url) == before


def test_what_fails_at_the_last_moment_leaves_nothing(
    database_url: str, opened: Callable[[str], Store], tmp_path: Path
) -> None:
    source, store = opened(f"sqlite:///{tmp_path}/source.db"), opened(database_url)
    lines = packed(source, claimed(source).study.id)
    store.optuna_trials(store.submit(new_study("other")).id)  # makes Optuna's tables
    before = count_all(database_url)

    def fail() -> None:
        raise OSError("no room")

    with pytest.raises(OSError, match="no room"):
        store.take_in(parcel(lines), fail)
    assert count_all(database_url) == before
    assert unpacked(lines, store).label == "digits"


Change = Callable[[Any], None]


def put(**values: Any) -> Change:
    return lambda line: line.update(values)


def param(**values: Any) -> Change:
    return lambda line: line["params"][0].update(values)


DEEP: Any = "x"
for _ in range(60):
    DEEP = [DEEP]

HOSTILE: dict[str, tuple[str, int, Change]] = {
    "a name that is a path": ("study", 0, lambda head: head["study"].update(name="../../etc")),
    "a name that ends in a line break": ("study", 0, lambda head: head["study"].update(name="digits\n")),
    "a uid that is a path": ("study", 0, lambda head: head["study"].update(uid="../../etc")),
    "a state that is none": ("study", 0, lambda head: head["study"].update(state="won")),
    "a moment without a zone": ("study", 0, lambda head: head["study"].update(created_at="2026-01-01T00:00:00")),
    "a moment before all others": (
        "study",
        0,
        lambda head: head["study"].update(created_at="0001-01-01T00:00:00+14:00"),
    ),
    "a study file with a NUL": ("study", 0, lambda head: head["study"].update(text="name: \0")),
    "a study file nested deep": ("study", 0, lambda head: head["study"].update(spec={"name": DEEP})),
    "a number of many digits": ("study", 0, lambda head: head["study"].update(spec={"seed": 10**400})),
    "a token": ("study", 0, lambda head: head["study"].update(token=10**6)),
    "a result without a test": ("study", 0, lambda head: head["study"].update(result={"best": {"trial": 0}})),
    "a pickle": ("study", 0, lambda head: head["optuna"]["system"].update({"cma:optimizer:0": '"80"'})),
    "an attribute that is no JSON": ("study", 0, lambda head: head["optuna"]["user"].update({"a": "{"})),
    "no trials asked for": ("study", 0, lambda head: head["study"].update(trials=0)),
    "a trial that is missing": ("trials", 1, put(number=2)),
    "a trial's number below 0": ("trials", 0, put(number=-1)),
    "a trial in another state": ("trials", 0, put(state="running")),
    "a complete trial without a value": ("optuna", 0, put(values=[])),
    "a running trial with a value": ("optuna", 3, put(values=[[0, 0.5]])),
    "a second objective": ("optuna", 0, put(values=[[0, 0.5], [1, 0.5]])),
    "a running trial that has ended": ("trials", 3, put(ended_at="2026-01-01T00:00:00Z")),
    "a figure that is a word": ("trials", 0, put(train="0.5")),
    "weights past 64 bits": ("trials", 0, put(weights=2**63)),
    "a setting that is a list": ("trials", 0, put(params={"layers": [1]})),
    "a seed that is no number": ("trials", 0, put(seed="1; DROP TABLE")),
    "a trial's pickle": ("optuna", 0, put(system_attrs={"sepcma:optimizer:0": '"80"'})),
    "a distribution of nobody's": ("optuna", 0, param(distribution='{"name": "os.system", "attributes": {}}')),
    "a distribution that is no JSON": ("optuna", 0, param(distribution="{")),
    "a distribution nested deep": ("optuna", 0, param(distribution="[" * 50_000)),
    "a distribution of words": (
        "optuna",
        0,
        param(distribution='{"name": "FloatDistribution", "attributes": {"low": "a", "high": "b"}}'),
    ),
    "a value out of its distribution": ("optuna", 0, param(value=1e6)),
    "a parameter twice": ("optuna", 0, lambda line: line["params"].append(line["params"][0])),
    "a step twice": ("optuna", 0, put(steps=[[1, 0.5], [1, 0.6]])),
    "a column of another program": ("trials", 0, put(admin=True)),
    "an epoch of no trial": ("epochs", 17, put(trial=4)),
    "an epoch before the first": ("epochs", 0, put(epoch=0)),
    "an epoch twice": ("epochs", 1, put(epoch=1)),
    "time that ran backwards": ("epochs", 0, put(seconds=-1.0)),
}


class Doorway:
    """A database that nothing may come into, and the lines of a study that could."""

    def __init__(self, folder: Path) -> None:
        source = Store.open(f"sqlite:///{folder}/source.db")
        self._lines = packed(source, claimed(source).study.id)
        source.close()
        self._url = f"sqlite:///{folder}/target.db"
        self._store = Store.open(self._url)
        self._store.optuna_trials(self._store.submit(new_study("other")).id)  # makes Optuna's tables
        self._before = count_all(self._url)

    def lines(self) -> Lines:
        return {table: list(lines) for table, lines in self._lines.items()}

    def refuses(self, lines: Lines, match: str = ".") -> None:
        with pytest.raises(BadInputError, match=match) as caught:
            unpacked(lines, self._store)
        assert len(caught.value.message) < 300 and "\n" not in caught.value.message
        assert count_all(self._url) == self._before

    def close(self) -> None:
        """It was what each test had changed: the lines as they were come in."""
        assert unpacked(self._lines, self._store).label == "digits"
        self._store.close()


@pytest.fixture(scope="module")
def doorway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Doorway]:
    made = Doorway(tmp_path_factory.mktemp("doorway"))
    yield made
    made.close()


@pytest.mark.parametrize("what", HOSTILE)
def test_a_line_that_no_export_writes_is_refused_and_nothing_stays(what: str, doorway: Doorway) -> None:
    lines = doorway.lines()
    table, number, change = HOSTILE[what]
    line = json.loads(lines[table][number])
    change(line)
    lines[table][number] = json.dumps(line).encode()
    doorway.refuses(lines)


@pytest.mark.parametrize("table", ["study", "trials", "epochs", "optuna"])
@pytest.mark.parametrize(
    "text",
    [b"", b"{", b"null", b"\xff\xfe", b'{"number": NaN}', b"[" * 100_000, b'{"number": ' + b"9" * 5000 + b"}"],
    ids=["empty", "cut off", "null", "no text", "not a number", "deep", "many digits"],
)
def test_a_line_that_is_no_json_is_refused(text: bytes, table: str, doorway: Doorway) -> None:
    lines = doorway.lines()
    doorway.refuses({**lines, table: [text, *lines[table][1:]]})


@pytest.mark.parametrize("table", ["trials", "optuna"])
def test_trials_that_optuna_lacks_are_refused(table: str, doorway: Doorway) -> None:
    lines = doorway.lines()
    doorway.refuses({**lines, table: lines[table][:-1]}, match="are not the same")


def test_a_file_of_a_newer_program_says_so(doorway: Doorway) -> None:
    head = json.loads(doorway.lines()["study"][0])
    for newer in ({"format": 2}, {"schema_version": "9999"}, {"format": 2, "something": "else"}):
        with pytest.raises(BadInputError, match=r"newer neurosweep .* upgrade the program"):
            read_head(json.dumps({**head, **newer, "neurosweep": "9.0"}).encode())
