"""Trials that the pruner would end and that train on: which, what the pruner sees of them, and what a resume does."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from neurosweep.errors import LeaseLostError
from search.audit import AuditedPruner, audited_share
from search.pruner import Curve, NoPruner, make_pruner
from search.spec import StudySpec
from storage.records import TrialRecord, TrialState
from tests.search.dispatched import Study, alone
from tests.search.in_process_pool import InProcessPool
from tests.search.test_pruner import curve, up_to

MakeStudy = Callable[..., Study]

EPOCHS, SHORT = 27, 9


def spec(audit: float | str, pruner: str = "asha", seed: int = 0, trials: int = 100) -> StudySpec:
    return StudySpec.from_mapping(
        {
            "name": "s",
            "seed": seed,
            "data": {"source": "digits"},
            "search": {"pruner": pruner, "audit": audit},
            "budget": {"epochs": EPOCHS, "trials": trials},
        }
    )


class Merciless(NoPruner):
    """Ends every trial at its first look."""

    def judge(self, curves: Mapping[int, Curve]) -> set[int]:
        return set(curves)


# The draw


def audited(audit: float, seed: int, trials: range) -> list[int]:
    pruner = AuditedPruner(Merciless((1, EPOCHS)), spec(audit, seed=seed), {})
    pruner.judge({trial: {1: 0.5} for trial in trials})
    return sorted(pruner.would_stop)


@pytest.mark.parametrize("share", [0.01, 0.05, 0.3])
def test_the_share_is_what_was_asked_for(share: float) -> None:
    count = len(audited(share, 0, range(3000)))
    low, high = stats.binom.interval(0.9999, 3000, share)
    assert low <= count <= high


def test_none_and_all() -> None:
    assert audited(0.0, 0, range(200)) == []
    assert audited(1.0, 0, range(200)) == list(range(200))


def test_a_trial_is_drawn_by_its_number_and_the_studys_seed_alone() -> None:
    together, apart = audited(0.1, 5, range(300)), [n for n in range(300) if audited(0.1, 5, range(n, n + 1))]
    assert together == apart
    assert audited(0.1, 6, range(300)) != together
    assert set(together) <= set(audited(0.2, 5, range(300)))


@pytest.mark.parametrize(("trials", "share"), [(10, 0.05), (200, 0.05), (1000, 0.01), (10_000, 0.001)])
def test_a_long_study_audits_about_ten_by_default(trials: int, share: float) -> None:
    assert audited_share(spec("auto", trials=trials)) == pytest.approx(share)
    assert audited_share(spec(0.2, trials=trials)) == 0.2


# What the pruner sees


def course(pruner: AuditedPruner, curves: Mapping[int, dict[int, float]], packs: list[list[int]]) -> dict[int, int]:
    """Trains packs of trials one after the other, each to its end; returns the epoch at which each trial ended."""
    ended: dict[int, int] = {}
    for pack in packs:
        alive = list(pack)
        for look in pruner.looks[:-1]:
            gone = pruner.judge({trial: up_to(curves[trial], look) for trial in alive})
            ended |= dict.fromkeys(gone, look)
            alive = [trial for trial in alive if trial not in gone]
        for trial in alive:
            ended[trial] = pruner.looks[-1]
            pruner.complete(trial, curves[trial])
    return ended


@given(st.integers(0, 2**32 - 1), st.sampled_from(["asha", "hyperband", "median"]))
@settings(max_examples=25, deadline=None)
def test_the_others_are_judged_as_if_it_had_ended(seed: int, kind: str) -> None:
    rng = np.random.default_rng(seed)
    curves = {trial: curve(rng, EPOCHS) for trial in range(48)}
    packs = [list(range(start, start + 6)) for start in range(0, 48, 6)]
    plain, audits = (AuditedPruner(make_pruner(spec(0, kind)), spec(share, kind, seed), {}) for share in (0.0, 0.4))
    expected, found = course(plain, curves, packs), course(audits, curves, packs)

    assert {**found, **audits.would_stop} == expected
    assert all(found[trial] == EPOCHS for trial in audits.would_stop)


@given(st.integers(0, 2**32 - 1), st.sampled_from(["asha", "hyperband", "median"]))
@settings(max_examples=25, deadline=None)
def test_a_pruner_that_is_restored_judges_as_the_one_before(seed: int, kind: str) -> None:
    rng = np.random.default_rng(seed)
    curves = {trial: curve(rng, EPOCHS) for trial in range(48)}
    packs = [list(range(start, start + 6)) for start in range(0, 48, 6)]
    straight, first = (AuditedPruner(make_pruner(spec(0.4, kind)), spec(0.4, kind, seed), {}) for _ in range(2))
    ended = course(first, curves, packs[:4])
    second = AuditedPruner(make_pruner(spec(0.4, kind)), spec(0.4, kind, seed), first.would_stop)
    for trial, epoch in ended.items():
        second.restore(trial, up_to(curves[trial], epoch), complete=epoch == EPOCHS)

    assert course(straight, curves, packs) == ended | course(second, curves, packs[4:])
    assert straight.would_stop == second.would_stop


# In a study


def audits(trials: list[TrialRecord]) -> dict[int, int]:
    return {trial.number: trial.would_stop for trial in trials if trial.would_stop is not None}


def test_an_audited_trial_is_a_complete_one_with_the_epoch_at_which_it_would_have_ended(study: MakeStudy) -> None:
    keys: dict[str, Any] = {"budget": {"trials": 24, "epochs": SHORT}, "seed": 2}
    plain, work = (study(search={"pruner": "asha", "audit": share}, **keys) for share in (0, 0.3))
    plain.work(InProcessPool())
    work.work(InProcessPool())

    assert audits(plain.trials()) == {}
    found = audits(work.trials())
    assert 0 < len(found) < sum(trial.state is TrialState.PRUNED for trial in plain.trials())
    assert set(found.values()) <= {1, 3}
    for trial in work.trials():
        if trial.number in found:
            expected = alone(work, trial)
            assert trial.state is TrialState.COMPLETE
            assert (trial.validation, trial.epochs) == (expected.validation, SHORT)
    assert {frozen.number for frozen in work.optuna().trials if frozen.state.name == "COMPLETE"} >= set(found)


def test_an_audited_trial_may_win(study: MakeStudy) -> None:
    work = study(search={"pruner": "asha", "audit": 1}, budget={"trials": 16, "epochs": SHORT})
    proposals = work.work(InProcessPool())

    assert work.states() == [TrialState.COMPLETE] * 16
    best = min(work.trials(), key=lambda trial: (trial.validation, trial.number))
    assert proposals.best() == (best.number, best.validation)
    assert len(audits(work.trials())) > 4


def test_an_audited_trial_is_one_still_after_its_dispatcher_was_killed(study: MakeStudy) -> None:
    work = study(search={"pruner": "asha", "audit": 0.5}, budget={"trials": 20, "epochs": SHORT})

    def renew() -> None:
        if any(trial.would_stop and trial.state is TrialState.RUNNING for trial in work.trials()):
            raise LeaseLostError("gone")

    claim = work.store.claim("first", -1.0, work.id)
    with pytest.raises(LeaseLostError):
        work.work(InProcessPool(), claim, renew)
    before = audits(work.trials())
    work.work(InProcessPool())

    # Packs are others after a kill, so that the pruner may end others: but of those that it would end, the same go on.
    after = audits(work.trials())
    assert before.items() <= after.items()
    drawn = AuditedPruner(Merciless((1, SHORT)), work.spec, {})
    drawn.judge({number: {1: 0.5} for number in range(20)})
    assert set(after) <= set(drawn.would_stop)
    for trial in work.trials():
        assert trial.state is not TrialState.PRUNED or trial.number not in drawn.would_stop
        assert trial.number not in after or (trial.state, trial.epochs) == (TrialState.COMPLETE, SHORT)


def test_a_twin_has_the_audit_of_the_trial_whose_result_it_is_given(study: MakeStudy) -> None:
    fixed = {"neurons": [2, 16], "activation": ["relu", "tanh"], "learning_rate": [0.0001, 0.03], "optimizer": "adam"}
    fixed |= {"weight_decay": 0, "dropout": 0, "batch_norm": False, "schedule": "constant"}
    work = study(search={"pruner": "asha", "audit": 1}, space=fixed, budget={"trials": 40, "epochs": SHORT})
    work.work(InProcessPool())

    first: dict[str, TrialRecord] = {}
    twins = [(trial, first.setdefault(str(trial.params), trial)) for trial in work.trials()]
    assert len(first) == 8
    assert any(trial.would_stop is not None for trial in first.values())
    assert [trial.would_stop for trial, _ in twins] == [same.would_stop for _, same in twins]
    assert {trial.state for trial in work.trials()} == {TrialState.COMPLETE}


def test_a_cancel_leaves_on_record_what_was_audited(study: MakeStudy) -> None:
    work = study(search={"pruner": "asha", "audit": 1}, budget={"trials": 8, "epochs": SHORT})
    pool = InProcessPool()

    def change(each: Any, result: Any) -> Any:
        work.stop = each.until == 3
        return result

    pool.change = change
    claim = work.claim()
    work.work(pool, claim)
    before = audits(work.trials())
    assert before
    work.stop, work.cancel = False, True
    work.work(InProcessPool(), claim)
    assert TrialState.FAILED in work.states()
    assert audits(work.trials()) == before
