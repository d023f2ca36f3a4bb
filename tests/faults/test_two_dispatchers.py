"""Several dispatchers at once: none acts on another one's study, and one that was thought dead writes nothing."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from neurosweep.errors import LeaseLostError
from storage import facts
from storage.records import Batch, Claim, NewStudy, StudyState, TrialState
from storage.store import Store
from tests.faults.product import Fleet, assert_gone, mark, study, wait
from tests.storage.samples import ended, epoch, proposed
from tests.system.product import interrupt, wait_until

LEASE = 30.0

SETTLED = "SELECT id, state, token, dispatcher, result, error FROM neurosweep_study"

STUDIES, DISPATCHERS, CLAIMS = 200, 8, 1500


def token_of(store: Store, label: str) -> tuple[int, str]:
    with store._engine.connect() as connection:
        row = connection.execute(
            sa.text("SELECT token, dispatcher FROM neurosweep_study WHERE name = :name"), {"name": label}
        ).one()
    return int(row.token), str(row.dispatcher)


def everything(store: Store) -> dict[str, list[Any]]:
    """All rows of all tables, but the publisher's lease: that is another process's."""
    inspector = sa.inspect(store._engine)
    ours = [name for name in inspector.get_table_names() if name != "neurosweep_outbox"]
    with store._engine.connect() as connection:
        rows = {name: sorted(map(str, connection.execute(sa.text(f"SELECT * FROM {name}")))) for name in ours}
        rows["neurosweep_study"] = sorted(
            map(
                str,
                connection.execute(sa.text(SETTLED)),
            )
        )
    return rows


@pytest.fixture
def running_ones() -> Iterator[list[subprocess.Popen[str]]]:
    """Commands that are ended at the test's end, whatever came of it."""
    started: list[subprocess.Popen[str]] = []
    yield started
    for process in started:
        if process.poll() is None:
            process.send_signal(signal.SIGCONT)
            process.kill()
            process.wait()


@pytest.mark.minutes_on("sqlite")
def test_a_dispatcher_that_sleeps_past_its_lease_wakes_and_writes_nothing(
    tmp_path: Path, database_url: str, running_ones: list[subprocess.Popen[str]]
) -> None:
    fleet = Fleet(tmp_path, database_url)
    word = mark()
    file = fleet.write("iris", study("iris", trials=40, epochs=400, pruner="none"))
    sleeper = fleet.product(mark=word).start("run", file)
    running_ones.append(sleeper)
    wait_until(lambda: fleet.ended("iris") >= 2, sleeper, 120)
    heir = fleet.product().start("serve")
    running_ones.append(heir)
    with fleet.store() as store:
        sleeper.send_signal(signal.SIGSTOP)
        first = token_of(store, "iris")
        taken = wait(lambda: token_of(store, "iris")[0] > first[0], LEASE + 15)
        assert taken < LEASE + 5, f"taken over after {taken:.1f} s"
        assert token_of(store, "iris") == (first[0] + 1, token_of(store, "iris")[1])
        wait(lambda: store.find("iris").state is StudyState.FINISHED, 120)
        wait(lambda: not store.pending_facts(), 60)
        before = everything(store)
        sleeper.send_signal(signal.SIGCONT)
        _, told = sleeper.communicate(timeout=60)
        assert sleeper.returncode == 1, told
        assert "Another dispatcher works on iris now" in told
        assert "Traceback" not in told
        assert everything(store) == before
    interrupt(heir)
    assert_gone(word)
    fleet.assert_whole("iris", 40)


# Eight dispatchers, two hundred studies, fifteen hundred claims


def dispatch(url: str, number: int, barrier: Any, log: Any) -> None:
    """A dispatcher without a pool: it claims what it gets, adds one trial to it, and lets go of it or is too slow."""
    store = Store.open(url)
    won: list[tuple[int, int, bool]] = []
    refused = 0
    barrier.wait(60)
    while True:
        dies = (number + len(won)) % 5 == 0  # one in five is not heard of again, until it wakes
        claim = store.claim(f"dispatcher-{number}", 0.2 if dies else 30.0)
        if claim is None:
            if store.find("last").state is StudyState.CANCELLED:
                break
            time.sleep(0.02)
            continue
        try:
            add_trial(store, claim)
        except LeaseLostError:  # another one was quicker than this short lease
            assert dies
            won.append((claim.study.id, claim.token, False))
            continue
        won.append((claim.study.id, claim.token, True))
        if dies:
            if len(won) % 10 == 0:
                refused += sleeps(store, claim)
            continue
        share = CLAIMS // STUDIES + (claim.study.id % STUDIES < CLAIMS % STUDIES)
        if claim.token >= share:
            finish(store, claim)
        else:
            store.finish(claim, StudyState.STOPPED)
            store.requeue(claim.study.id)
            if len(won) % 10 == 0:
                refused += is_refused(store, claim)
    log.put((won, refused))


def add_trial(store: Store, claim: Claim) -> None:
    number = claim.token - 1
    store.record(
        claim,
        Batch(
            proposed=(proposed(number),),
            epochs=(epoch(number, 1), epoch(number, 2)),
            ended=(ended(number),),
            facts=(facts.trial_ended(claim.study, number),),
        ),
    )


def finish(store: Store, claim: Claim) -> None:
    store.finish(claim, StudyState.FINISHED, facts=(facts.ended(claim.study, claim.token),))


def sleeps(store: Store, claim: Claim) -> int:
    """Wakes after another one has the study, and wants to go on."""
    until = time.monotonic() + 20
    while time.monotonic() < until:
        if not still_mine(store, claim):
            return is_refused(store, claim)
        time.sleep(0.05)
    return 0


def still_mine(store: Store, claim: Claim) -> bool:
    return token_by_id(store, claim.study.id) == claim.token


def token_by_id(store: Store, study_id: int) -> int:
    with store._engine.connect() as connection:
        row = connection.execute(sa.text("SELECT token FROM neurosweep_study WHERE id = :id"), {"id": study_id}).one()
    return int(row.token)


def is_refused(store: Store, claim: Claim) -> int:
    """Every write of a claim that is over is refused."""
    late = replace(proposed(99), params={"late": True})
    writes = (
        lambda: store.renew(claim, 30.0),
        lambda: store.record(claim, Batch(proposed=(late,))),
        lambda: store.started(claim, "late", {"late": True}),
        lambda: store.finish(claim, StudyState.FAILED, error="late"),
    )
    for write in writes:
        try:
            write()
        except LeaseLostError:
            continue
        raise AssertionError(f"a write of the token {claim.token} of study {claim.study.id} went through")
    return 1


def test_eight_dispatchers_race_for_two_hundred_studies(database_url: str) -> None:
    store = Store.open(database_url)
    first = store.submit(NewStudy(name="first", spec={}, text="", trials=1))
    store.request_cancel(first.id)
    names = [f"study-{number}" for number in range(STUDIES)]
    ids = [store.submit(NewStudy(name=name, spec={}, text="", trials=CLAIMS)).id for name in names]
    last = store.submit(NewStudy(name="last", spec={}, text="", trials=1))
    # Nobody can claim it: it is the sign that all is done.
    held = store.claim("the test", 250.0, study_id=last.id)
    assert held is not None
    context = multiprocessing.get_context("spawn")
    barrier, log = context.Barrier(DISPATCHERS), context.Queue()
    processes = [
        context.Process(target=dispatch, args=(database_url, number, barrier, log)) for number in range(DISPATCHERS)
    ]
    for process in processes:
        process.start()
    try:
        finished = sa.text("SELECT count(*) FROM neurosweep_study WHERE state = 'finished'")

        def done() -> bool:
            assert all(process.is_alive() for process in processes), "a dispatcher has failed"
            with store._engine.connect() as connection:
                return bool(connection.scalar(finished) == STUDIES)

        wait(done, 200)
        store.finish(held, StudyState.CANCELLED)
        told = [log.get(timeout=60) for _ in processes]
        for process in processes:
            process.join(30)
    finally:
        for process in processes:
            process.kill()
    won = {(study_id, token): wrote for mine, _ in told for study_id, token, wrote in mine}
    assert len(won) == sum(len(mine) for mine, _ in told), "a token was given twice"
    assert len(won) >= CLAIMS
    assert sum(refused for _, refused in told) >= 20
    for study_id in ids:
        tokens = sorted(token for owner, token in won if owner == study_id)
        assert tokens == list(range(1, len(tokens) + 1))
        rows = store.trials(study_id)
        assert [(row.number, row.state, row.epochs) for row in rows] == [
            (token - 1, TrialState.COMPLETE, 2) for token in tokens if won[study_id, token]
        ]
        assert store.study(study_id).state is StudyState.FINISHED
    with store._engine.connect() as connection:
        twice = connection.execute(
            sa.text("SELECT study_id, number, count(*) FROM trials GROUP BY study_id, number HAVING count(*) > 1")
        ).all()
        steps = connection.scalar(sa.text("SELECT count(*) FROM trial_intermediate_values"))
    assert twice == []
    wrote = sum(won.values())
    assert wrote >= CLAIMS / 2
    assert steps == 2 * wrote
    assert store.pending_facts() == wrote + STUDIES


FIRST_START = """
import sys
from storage.records import Batch, NewStudy
from storage.store import Store
from tests.storage.samples import proposed
store = Store.open(sys.argv[1])
mine = store.submit(NewStudy(name="first", spec={}, text="", trials=1))
claim = store.claim(sys.argv[2], study_id=mine.id)
store.record(claim, Batch(proposed=(proposed(0),)))
print(mine.number)
"""


def test_four_first_starts_on_an_empty_database_make_one_schema(database_url: str) -> None:
    here = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    starts = [
        subprocess.Popen(
            [sys.executable, "-c", FIRST_START, database_url, str(number)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=here,
        )
        for number in range(4)
    ]
    told = [(start.communicate(timeout=120), start.returncode) for start in starts]
    assert [status for _, status in told] == [0] * 4, told
    assert sorted(int(out) for (out, _), _ in told) == [1, 2, 3, 4]
    store = Store.open(database_url)
    with store._engine.connect() as connection:
        versions = connection.scalar(sa.text("SELECT count(*) FROM neurosweep_version"))
        optunas = connection.scalar(sa.text("SELECT count(*) FROM version_info"))
    assert (versions, optunas) == (1, 1)
    assert [len(store.trials(summary.study.id)) for summary in store.list_studies()] == [1] * 4


@pytest.mark.minutes_on("postgres")
def test_two_serves_share_a_queue_and_each_study_is_worked_on_once(
    tmp_path: Path, database_url: str, running_ones: list[subprocess.Popen[str]]
) -> None:
    fleet = Fleet(tmp_path, database_url)
    names = [f"q{number}" for number in range(4)]
    for name in names:
        fleet.product()("submit", fleet.write(name, study(name, trials=8, epochs=150, pruner="none")))
    running_ones += [fleet.product().start("serve") for _ in range(2)]
    with fleet.store() as store:

        def done() -> bool:
            assert all(serving.poll() is None for serving in running_ones)
            return (
                all(summary.study.state is StudyState.FINISHED for summary in store.list_studies())
                and not store.pending_facts()
            )

        wait(done, 180)
        tokens = {name: token_of(store, name) for name in names}
    for serving in running_ones:
        _, shown = interrupt(serving)
        assert serving.returncode == 0, shown
    assert {token for token, _ in tokens.values()} == {1}
    assert len({dispatcher for _, dispatcher in tokens.values()}) == 2, tokens
    for name in names:
        fleet.assert_whole(name, 8)
