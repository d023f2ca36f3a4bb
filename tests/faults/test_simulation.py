"""A thousand histories of the real dispatcher, store and publisher in a world whose seeds decide what goes wrong.

A failing seed prints ``reproduce with NEUROSWEEP_SIMULATION_SEED=...``: with that in the environment,
``pytest -s -k one_seed`` runs that history alone and prints it line by line. `simulation.py` says more.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.fake_database import FakeDatabase
from tests.faults.simulated_world import PLACES
from tests.faults.simulation import VARIABLE, Report, simulate

SEEDS = 1000


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeDatabase]:
    database = FakeDatabase(tmp_path, monkeypatch)
    yield database
    database.close()


@pytest.mark.timeout(1800)
def test_a_thousand_seeds_lose_nothing_double_nothing_and_leave_nothing_stuck(database: FakeDatabase) -> None:
    failed: list[Report] = []
    tally: Counter[str] = Counter()
    places: Counter[str] = Counter()
    for seed in range(SEEDS):
        report = simulate(seed, database)
        tally.update(report.tally)
        places.update(report.places)
        if report.problems:
            failed.append(report)
        if len(failed) == 5:
            break
    assert not failed, "\n\n".join(map(str, failed))
    # It says something only if there was something to lose.
    assert all(places[place] > SEEDS / 8 for place in PLACES)
    for kind in ("complete", "pruned", "audited", "failed", "study finished", "study failed", "study cancelled"):
        assert tally[kind] > SEEDS / 100, tally


@pytest.mark.parametrize("seed", [3, 31, 184])
def test_a_seed_gives_the_same_history_twice(database: FakeDatabase, seed: int) -> None:
    once, twice = simulate(seed, database), simulate(seed, database)
    assert once.trace == twice.trace
    assert len(once.trace) > 20
    assert once.tally == twice.tally
    assert once.trace != simulate(seed + 1, database).trace


@pytest.mark.skipif(VARIABLE not in os.environ, reason=f"only where {VARIABLE} names one")
def test_one_seed_alone(database: FakeDatabase) -> None:
    report = simulate(int(os.environ[VARIABLE]), database)
    print("\n".join(report.trace))
    assert not report.problems, str(report)
