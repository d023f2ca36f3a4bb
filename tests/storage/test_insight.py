"""What is remembered beside the search: extra runs, looks at the test split, pages, rounds, audits."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, datetime

import pytest
import sqlalchemy as sa

from storage.database import open_engine
from storage.facts import page_of
from storage.records import Batch, FactKind, NewStudy, Probe, StudyState
from storage.schema import outbox
from storage.store import Store
from tests.storage.samples import WHEN, ended, extra_run, new_study, proposed

HARD = replace(
    extra_run(Probe.ROWS, amount=0.25),
    seed=2**63 - 1,
    train=1 / 3,
    validation=5e-324,
    weights=2**40,
    curve=(1.7976931348623157e308, 0.1),
    error="out of \N{GREEK SMALL LETTER MU}emory",
    at=WHEN,
)


def facts_of(url: str) -> list[tuple[str, FactKind, int | None, bool]]:
    with open_engine(url).connect() as connection:
        rows = connection.execute(sa.select(outbox).order_by(outbox.c.id)).all()
    return [(row.key, FactKind(row.kind), row.trial, row.published) for row in rows]


def test_an_extra_run_comes_back_as_it_was(database_url: str) -> None:
    store = Store.open(database_url)
    study = store.submit(new_study())
    store.record_extra_runs(study.id, [HARD])
    assert store.extra_runs(study.id) == [HARD]
    assert store.extra_runs(store.submit(new_study("other")).id) == []


def test_what_is_not_finite_is_not_a_number_in_the_curve_and_nothing_elsewhere(database_url: str) -> None:
    store = Store.open(database_url)
    study = store.submit(new_study())
    run = replace(HARD, train=math.inf, validation=math.nan, curve=(0.5, math.inf, math.nan))
    store.record_extra_runs(study.id, [run])
    (found,) = store.extra_runs(study.id)
    assert (found.train, found.validation) == (None, None)
    assert [str(value) for value in found.curve] == ["0.5", "nan", "nan"]


def test_a_run_that_is_there_already_stays_as_it_is(database_url: str) -> None:
    store = Store.open(database_url)
    study = store.submit(new_study())
    store.record_extra_runs(study.id, [HARD])
    others = [replace(HARD, amount=0.5), replace(HARD, trial=1), replace(HARD, probe=Probe.SEED)]
    store.record_extra_runs(study.id, [*others, replace(HARD, validation=0.9)])
    found = store.extra_runs(study.id)
    assert len(found) == 4 and HARD in found
    keys = [(kind, trial) for _, kind, trial, _ in facts_of(database_url)]
    assert keys == [(FactKind.EXTRA_RUN_ENDED, trial) for trial in (0, 0, 1, 0)]


def test_a_run_without_an_end_ends_when_it_is_recorded(database_url: str) -> None:
    store = Store.open(database_url)
    study = store.submit(new_study())
    before = datetime.now(UTC)
    store.record_extra_runs(study.id, [extra_run(Probe.SEED, amount=3)])
    (run,) = store.extra_runs(study.id)
    assert run.at is not None and before <= run.at <= datetime.now(UTC)


def test_every_look_at_the_test_split_is_kept_and_the_same_one_once(database_url: str) -> None:
    store = Store.open(database_url)
    study = store.submit(new_study())
    assert store.openings(study.id) == []
    for trial, reason in ((57, "the winner"), (57, "the winner"), (58, "the winner"), (None, "a person looked")):
        store.record_opening(study.id, trial, reason)
    looks = store.openings(study.id)
    assert [(look.trial, look.reason) for look in looks] == [
        (57, "the winner"),
        (58, "the winner"),
        (None, "a person looked"),
    ]
    assert [look.at for look in looks] == sorted(look.at for look in looks)
    assert looks[0].at.tzinfo is UTC


def test_a_page_that_is_written_again_is_told_again(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store.open(database_url)
    study = store.submit(new_study())
    store.publish_page(study.id, "report")
    store.publish_page(study.id, "what-it-sees")
    claim = store.claim_outbox("p", 15)
    assert claim is not None
    told = store.facts(claim, 9)
    assert [page_of(fact.key) for fact in told] == ["report", "what-it-sees"]

    store.publish_page(study.id, "report")  # while the publisher is at it
    store.published(claim, [fact.key for fact in told])

    again = store.facts(claim, 9)
    assert [(page_of(fact.key), fact.kind) for fact in again] == [("report", FactKind.PAGE_WRITTEN)]
    assert len(facts_of(database_url)) == 2


def test_a_page_that_waits_holds_up_neither_a_studys_end_nor_another_page(database_url: str) -> None:
    store = Store.open(database_url)
    claim = store.claim("d", study_id=store.submit(new_study()).id)
    assert claim is not None
    store.publish_page(claim.study.id, "report")
    held = store.claim_outbox("p", 15)
    assert held is not None
    store.postponed(held, store.facts(held, 1)[0].key, "it is not here", 60)
    store.finish(claim, StudyState.STOPPED)
    store.publish_page(claim.study.id, "champion")
    assert [page_of(fact.key) for fact in store.facts(held, 9)] == ["champion"]


def test_everything_is_told_again(database_url: str) -> None:
    store = Store.open(database_url)
    claim = store.claim("d", study_id=store.submit(new_study()).id)
    assert claim is not None
    store.record_extra_runs(claim.study.id, [HARD, replace(HARD, amount=0.5)])
    store.publish_page(claim.study.id, "report")
    held = store.claim_outbox("p", 15)
    assert held is not None
    store.published(held, [fact.key for fact in store.facts(held, 9)])
    assert store.tell_again(claim.study.id) == 3
    assert [published for *_, published in facts_of(database_url)] == [False] * 3


def test_a_verdict_goes_to_the_result_of_a_study_that_has_one(database_url: str) -> None:
    store = Store.open(database_url)
    claim = store.claim("d", study_id=store.submit(new_study()).id)
    assert claim is not None
    store.record_verdict(claim.study.id, "done")
    assert store.study(claim.study.id).result is None
    store.finish(claim, StudyState.FINISHED, result={"seconds": 1.5})
    store.record_verdict(claim.study.id, "overfitting")
    store.record_verdict(claim.study.id, "done")
    assert store.study(claim.study.id).result == {"seconds": 1.5, "verdict": "done"}


def test_the_rounds_of_a_tree_bear_the_first_ones_name(database_url: str) -> None:
    store = Store.open(database_url)

    def submit(tree: str | None, number: int, sealed: bool) -> NewStudy:
        return replace(new_study(), tree=tree, round=number, rounds=3, sealed=sealed)

    first = store.submit(submit(None, 1, sealed=True))
    second = store.submit(submit(first.uid, 2, sealed=False))
    assert (first.tree, first.round, first.sealed) == (first.uid, 1, True)
    assert (second.tree, second.round, second.sealed) == (first.uid, 2, False)
    assert (first.rounds, second.rounds) == (3, 3)
    assert store.study(second.id) == second
    assert store.rounds(first.uid) == [first, second]
    alone = store.submit(new_study())
    assert (alone.tree, alone.round, alone.sealed) == (None, None, False)


def test_an_audited_trial_says_where_it_would_have_been_stopped(database_url: str) -> None:
    store = Store.open(database_url)
    claim = store.claim("d", study_id=store.submit(new_study()).id)
    assert claim is not None
    store.record(claim, Batch(proposed=(proposed(0), proposed(1))))
    store.record(claim, Batch(ended=(replace(ended(0), would_stop=2), ended(1))))
    assert [trial.would_stop for trial in store.trials(claim.study.id)] == [2, None]
