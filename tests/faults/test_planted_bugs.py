"""That the stateful test and the simulation find what they are for: each of two bugs, planted here, makes both fail."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import Phase

from storage import publisher, queue
from storage.records import Claim
from storage.schema import study
from tests.faults import test_stateful
from tests.faults.fake_database import FakeDatabase
from tests.faults.simulation import simulate

SEEDS = 200
"""The planted bugs show themselves within far fewer."""


def without_fencing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every token is as good as the newest."""

    def fence(connection: sa.Connection, held: Claim, **values: Any) -> bool:
        changed = sa.update(study).where(study.c.id == held.study.id).values(values or {"token": study.c.token})
        return bool(connection.execute(changed.returning(study.c.cancel_requested)).one().cancel_requested)

    monkeypatch.setattr(queue, "fence", fence)


def without_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    """The publisher does not look for what it, or another one, may have written already."""

    def read_runs(self: Any) -> None:
        self._runs = {}

    monkeypatch.setattr(publisher.StudyInMlflow, "read_runs", read_runs)


@pytest.fixture(params=[without_fencing, without_ids])
def planted(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    plant: Callable[[pytest.MonkeyPatch], None] = request.param
    plant(monkeypatch)
    return plant


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeDatabase]:
    database = FakeDatabase(tmp_path, monkeypatch)
    yield database
    database.close()


def test_the_stateful_test_finds_it(
    planted: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: BaseException | None = None
    try:
        test_stateful.run(tmp_path, monkeypatch, phases=[Phase.generate], derandomize=True, print_blob=False)
    except BaseException as error:
        found = error
    assert isinstance(found, AssertionError | pytest.fail.Exception | ExceptionGroup), found


def test_the_simulation_finds_it(planted: Callable[..., None], database: FakeDatabase) -> None:
    words = {without_fencing: "wrote to", without_ids: "MLflow has"}[planted]
    reports = (simulate(seed, database) for seed in range(SEEDS))
    assert any(words in problem for report in reports for problem in report.problems)
