"""The schema: migrations give the tables that the code knows, once, whoever starts first."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from neurosweep.errors import BadInputError, NeurosweepError, UnreachableError
from storage import database
from storage.database import HEAD, VERSION_TABLE, open_engine
from storage.schema import metadata
from storage.store import Store


def test_a_migrated_database_has_the_tables_that_the_code_knows(database_url: str) -> None:
    Store.open(database_url)
    with open_engine(database_url).connect() as connection:
        ours = {
            "version_table": VERSION_TABLE,
            "include_name": lambda name, kind, parents: kind != "table" or str(name).startswith("neurosweep_"),
        }
        assert compare_metadata(MigrationContext.configure(connection, opts=ours), metadata) == []


def test_the_newest_migration_is_the_one_that_the_program_expects() -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(database.__file__).parent / "migrations"))
    assert ScriptDirectory.from_config(config).get_current_head() == HEAD


def test_our_history_leaves_optunas_alone(database_url: str) -> None:
    store = Store.open(database_url)
    store.optuna_trials(_submitted(store))
    with open_engine(database_url).connect() as connection:
        tables = set(sa.inspect(connection).get_table_names())
        assert {"alembic_version", VERSION_TABLE, "trials", "neurosweep_trial"} <= tables
        assert connection.scalar(sa.text("SELECT version_num FROM alembic_version")) != HEAD


def _submitted(store: Store) -> int:
    from storage.records import NewStudy

    return store.submit(NewStudy(name="a", spec={}, text="", trials=1)).id


FIRST_START = """
import sys
from storage.records import NewStudy
from storage.store import Store
store = Store.open(sys.argv[1])
study = store.submit(NewStudy(name="a", spec={}, text="", trials=1))
store.optuna_trials(study.id)
"""


def test_four_first_starts_at_once_end_with_one_schema(database_url: str) -> None:
    def start(_: int) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-c", FIRST_START, database_url], capture_output=True, text=True)

    with ThreadPoolExecutor(4) as threads:
        ended = list(threads.map(start, range(4)))
    assert [each.stderr for each in ended if each.returncode] == []
    with open_engine(database_url).connect() as connection:
        assert connection.scalar(sa.text(f"SELECT count(*) FROM {VERSION_TABLE}")) == 1
        assert connection.scalar(sa.text("SELECT count(*) FROM alembic_version")) == 1
        assert sorted(connection.scalars(sa.text("SELECT number FROM neurosweep_study"))) == [1, 2, 3, 4]


def test_a_database_of_a_newer_program_is_refused(database_url: str) -> None:
    Store.open(database_url)
    with open_engine(database_url).begin() as connection:
        connection.execute(sa.text(f"UPDATE {VERSION_TABLE} SET version_num = '9999'"))
    with pytest.raises(NeurosweepError, match=r"newer neurosweep.*9999.*upgrade"):
        Store.open(database_url)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://somebody:hunter2@127.0.0.1:1/studies",
        "postgresql://somebody@127.0.0.1:1/studies?password=hunter2",
        "mysql://somebody:hunter2@127.0.0.1/studies",
        "hunter2",
    ],
)
def test_an_address_that_does_not_work_never_shows_its_password(url: str) -> None:
    with pytest.raises((UnreachableError, BadInputError)) as caught:
        Store.open(url)
    assert "hunter2" not in str(caught.value)


def test_an_unreachable_database_is_named() -> None:
    with pytest.raises(UnreachableError, match=r"127\.0\.0\.1/studies"):
        Store.open("postgresql://somebody:hunter2@127.0.0.1:1/studies")


def test_a_second_opening_imports_neither_alembic_nor_optuna(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/a.db"
    Store.open(url)
    look = (
        "import sys; from storage.store import Store; Store.open(sys.argv[1]).list_studies();"
        "print([name for name in ('alembic', 'optuna', 'torch', 'ray', 'mlflow') if name in sys.modules])"
    )
    printed = subprocess.run([sys.executable, "-c", look, url], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "[]"


def test_the_studies_of_an_older_program_come_along(database_url: str) -> None:
    engine = open_engine(database_url)
    config = Config()
    config.set_main_option("script_location", str(Path(database.__file__).parent / "migrations"))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        moment = datetime(2026, 3, 4, tzinfo=UTC).replace(tzinfo=None)
        connection.execute(
            sa.text(
                "INSERT INTO neurosweep_study (id, name, number, spec, text, trials, state, created_at)"
                " VALUES (7, 'old', 1, '{}', '', 2, 'stopped', :moment)"
            ),
            {"moment": moment},
        )
        connection.execute(
            sa.text(
                "INSERT INTO neurosweep_trial (study_id, number, state, params, settings, seed, started_at)"
                " VALUES (7, 0, 'running', '{}', '{}', '5', :moment)"
            ),
            {"moment": moment},
        )

        connection.execute(
            sa.text(
                "INSERT INTO neurosweep_outbox (study_id, key, kind) VALUES (7, 'study-7-started', 'study_started')"
            )
        )

    store = Store.open(database_url)
    study = store.find("old")
    assert store.pending_facts(7) == 1
    assert (study.tree, study.round, study.sealed) == (None, None, False)
    assert (study.id, study.uid, study.worked, study.notice) == (7, "7", 0.0, None)  # its runs' keys in MLflow stay
    (trial,) = store.trials(7)
    assert (trial.seed, trial.deaths, trial.memory, trial.pack, trial.would_stop) == (5, 0, None, None, None)
    assert store.claim("d", study_id=7) is None  # it is stopped, and waits for its user
    assert store.requeue(7).state == "queued"
    _check_rules(engine)


def _check_rules(engine: sa.Engine) -> None:
    """What the migrations must keep, and comparing tables does not show."""
    fact = "INSERT INTO neurosweep_outbox (study_id, key, kind) VALUES (7, 'x', :kind)"
    with engine.connect() as connection:
        for kind in ("nonsense", "study started"):
            with pytest.raises(sa.exc.IntegrityError), connection.begin_nested():
                connection.execute(sa.text(fact), {"kind": kind})
        indexes = {index["name"]: index for index in sa.inspect(connection).get_indexes("neurosweep_outbox")}
        index = indexes["ix_neurosweep_outbox_pending"]
        assert index["column_names"] == ["study_id", "id"]
        assert any(str(name).endswith("_where") for name in index["dialect_options"])
    with engine.begin() as connection:
        connection.execute(sa.text(fact), {"kind": "page_written"})
        connection.execute(sa.text("DELETE FROM neurosweep_study WHERE id = 7"))
        for table in ("trial", "outbox"):  # they go with their study
            assert connection.scalar(sa.text(f"SELECT count(*) FROM neurosweep_{table}")) == 0
