"""Results: written in one transaction, harmless when written again, and read by Optuna as its own."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from typing import Any
from wsgiref.util import setup_testing_defaults

import optuna
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from optuna.trial import FrozenTrial
from optuna.trial import TrialState as OptunaState

from storage.database import open_engine
from storage.records import Batch, Claim, Fact, FactKind, TrialState
from storage.store import Store
from tests.storage.samples import SPACE, WHEN, ended, epoch, new_study, proposed


def claimed(store: Store, name: str = "digits") -> Claim:
    study = store.submit(new_study(name))
    store.optuna_trials(study.id)  # makes Optuna's tables, as the engine does
    claim = store.claim("d", study_id=study.id)
    assert claim is not None
    return claim


def plain_url(url: str) -> str:
    """As a user would hand it to Optuna."""
    return url.replace("postgresql://", "postgresql+psycopg://")


def test_what_is_written_is_read_back(database_url: str) -> None:
    store = Store.open(database_url)
    claim = claimed(store)
    batch = Batch(
        proposed=(proposed(0), proposed(1)),
        epochs=(epoch(0, 1), epoch(0, 2, math.nan)),
        ended=(ended(0),),
        assigned={1: "worker-2"},
    )
    store.record(claim, batch)
    done, running = store.trials(claim.study.id)
    assert done.state is TrialState.COMPLETE
    assert (done.seed, running.seed) == (2**63 - 1, 2**63 - 2)
    assert done.params == batch.proposed[0].params
    assert (done.train, done.validation, done.epochs, done.best_epoch, done.weights) == (0.25, 0.5, 2, 1, 123)
    assert (done.started_at, done.ended_at) == (WHEN, WHEN)
    assert (running.state, running.worker, running.ended_at) == (TrialState.RUNNING, "worker-2", None)
    first, second = store.epochs(claim.study.id)
    assert first == epoch(0, 1)
    assert math.isnan(second.validation_metric)
    assert store.epochs(claim.study.id, [1]) == []


def test_a_batch_that_is_written_twice_counts_once(database_url: str) -> None:
    """The answer to a COMMIT can be lost: the same batch then comes again."""
    store = Store.open(database_url)
    claim = claimed(store)
    batch = Batch(
        proposed=(proposed(0),),
        epochs=(epoch(0, 1), epoch(0, 2)),
        ended=(ended(0),),
        facts=(Fact(key="k", kind=FactKind.TRIAL_ENDED, trial=0),),
    )
    store.record(claim, batch)
    once = (store.trials(claim.study.id), store.epochs(claim.study.id), _optuna_rows(database_url))
    store.record(claim, batch)
    Store.open(database_url).record(claim, batch)
    assert (store.trials(claim.study.id), store.epochs(claim.study.id), _optuna_rows(database_url)) == once
    assert store.pending_facts() == 1


def _optuna_rows(url: str) -> dict[str, int]:
    tables = ("trials", "trial_params", "trial_values", "trial_intermediate_values", "trial_system_attributes")
    with open_engine(url).connect() as connection:
        return {name: connection.scalar(sa.text(f"SELECT count(*) FROM {name}")) or 0 for name in tables}


def test_a_batch_that_can_not_be_written_whole_leaves_nothing(database_url: str) -> None:
    store = Store.open(database_url)
    claim = claimed(store)
    with pytest.raises(KeyError):
        store.record(claim, Batch(proposed=(proposed(0),), epochs=(epoch(7, 1),)))  # nobody proposed trial 7
    assert store.trials(claim.study.id) == []
    assert sum(_optuna_rows(database_url).values()) == 0
    store.record(claim, Batch(proposed=(proposed(0),), epochs=(epoch(0, 1),)))
    assert len(store.optuna_trials(claim.study.id)) == 1


FIGURES = st.one_of(st.floats(-1e6, 1e6), st.sampled_from([math.nan, math.inf, -math.inf]))
ENDS = {
    OptunaState.COMPLETE: TrialState.COMPLETE,
    OptunaState.PRUNED: TrialState.PRUNED,
    OptunaState.FAIL: TrialState.FAILED,
    OptunaState.RUNNING: TrialState.RUNNING,
}


@st.composite
def trials(draw: st.DrawFn) -> dict[str, Any]:
    state = draw(st.sampled_from(list(ENDS)))
    return {
        "params": {
            "learning_rate": draw(st.floats(1e-4, 0.3)),
            "layers": draw(st.integers(1, 4)),
            "activation": draw(st.sampled_from(["relu", "gelu"])),
            "batch_norm": draw(st.booleans()),
        },
        "curve": draw(st.lists(FIGURES, max_size=4)),
        "state": state,
        "value": draw(st.floats(0, 1e6)) if state in (OptunaState.COMPLETE, OptunaState.PRUNED) else None,
    }


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    drawn=st.lists(trials(), min_size=1, max_size=4), name=st.from_regex(r"[a-z0-9][a-z0-9._-]{5,12}", fullmatch=True)
)
def test_optuna_reads_ours_as_it_reads_its_own(database_url: str, drawn: list[dict[str, Any]], name: str) -> None:
    """The contract with the pinned Optuna: the same trials, once through its own storage and once in bulk."""
    store = Store.open(database_url)
    claim = claimed(store, name)
    store.record(claim, Batch(proposed=tuple(proposed(n, **each["params"]) for n, each in enumerate(drawn))))
    store.record(
        claim,
        Batch(
            epochs=tuple(
                epoch(n, step, value) for n, each in enumerate(drawn) for step, value in enumerate(each["curve"], 1)
            ),
            ended=tuple(
                ended(n, ENDS[each["state"]], each["value"])
                for n, each in enumerate(drawn)
                if each["state"].is_finished()
            ),
        ),
    )
    theirs = optuna.create_study(
        study_name=f"theirs {claim.study.label} {claim.study.id}", storage=plain_url(database_url), direction="minimize"
    )
    for each in drawn:
        theirs.add_trial(_frozen(each))
    ours = optuna.load_study(study_name=claim.study.label, storage=plain_url(database_url))
    assert ours.direction == theirs.direction
    assert list(map(_comparable, ours.trials)) == list(map(_comparable, theirs.trials))
    # A resume reads them faster than Optuna does, and no other ones.
    assert list(map(_comparable, store.optuna_trials(claim.study.id))) == list(map(_comparable, ours.trials))
    store.close()


def _frozen(drawn: dict[str, Any]) -> FrozenTrial:
    finished = drawn["state"].is_finished()
    local = WHEN.astimezone().replace(tzinfo=None)
    return FrozenTrial(
        number=-1,
        trial_id=-1,
        state=drawn["state"],
        value=drawn["value"],
        datetime_start=local,
        datetime_complete=local if finished else None,
        params=drawn["params"],
        distributions={name: distribution for name, (_, distribution) in SPACE.items()},
        user_attrs={},
        system_attrs={"sampler:note": [1, "two"], **({"completed_rung_0": 0.5} if finished else {})},
        intermediate_values=dict(enumerate(drawn["curve"], 1)),
    )


def _comparable(trial: FrozenTrial) -> tuple[object, ...]:
    return (
        trial.number,
        trial.state,
        trial.values,
        trial.params,
        trial.distributions,
        {step: repr(value) for step, value in trial.intermediate_values.items()},
        trial.datetime_start,
        trial.datetime_complete,
        trial.system_attrs,
        trial.user_attrs,
    )


def test_optuna_dashboard_opens_the_database(database_url: str) -> None:
    from optuna_dashboard import wsgi

    store = Store.open(database_url)
    claim = claimed(store)
    store.record(claim, Batch(proposed=(proposed(0), proposed(1)), epochs=(epoch(0, 1),), ended=(ended(0),)))
    app = wsgi(plain_url(database_url))
    (study,) = _get(app, "/api/studies")["study_summaries"]
    assert study["study_name"] == "digits"
    shown = _get(app, f"/api/studies/{study['study_id']}")["trials"]
    assert [trial["state"] for trial in shown] == ["Complete", "Running"]
    assert shown[0]["values"] == [0.5]


def _get(app: Any, path: str) -> Any:
    environ: dict[str, Any] = {"PATH_INFO": path, "QUERY_STRING": ""}
    setup_testing_defaults(environ)
    status: list[str] = []
    body = b"".join(app(environ, lambda line, headers, exc=None: status.append(line)))
    assert status[0].startswith("200"), (path, status)
    return json.loads(body)


def test_moments_are_utc_whatever_zone_they_came_in(database_url: str) -> None:
    store = Store.open(database_url)
    claim = claimed(store)
    record = store.study(claim.study.id)
    assert record.created_at.tzinfo is UTC
    assert abs((datetime.now(UTC) - record.created_at).total_seconds()) < 60
