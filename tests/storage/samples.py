"""Trials for the storage tests, made by hand."""

from __future__ import annotations

from datetime import UTC, datetime

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    distribution_to_json,
)

from storage.records import EndedTrial, EpochRow, ExtraRun, NewStudy, OptunaParam, Probe, ProposedTrial, TrialState

WHEN = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)

SPACE: dict[str, tuple[object, BaseDistribution]] = {
    "learning_rate": (0.01, FloatDistribution(1e-4, 0.3, log=True)),
    "layers": (2, IntDistribution(1, 4)),
    "activation": ("gelu", CategoricalDistribution(["relu", "gelu"])),
    "batch_norm": (False, CategoricalDistribution([True, False])),
}


def new_study(name: str = "digits", trials: int = 3) -> NewStudy:
    return NewStudy(name=name, spec={"name": name, "budget": {"trials": trials}}, text=f"name: {name}\n", trials=trials)


def proposed(number: int, **params: object) -> ProposedTrial:
    chosen = {name: params.get(name, value) for name, (value, _) in SPACE.items()}
    return ProposedTrial(
        number=number,
        params={**chosen, "momentum": 0.9},
        settings={"neurons": [3, 4]},
        seed=2**63 - 1 - number,
        optuna=tuple(
            OptunaParam(
                name=name,
                internal=distribution.to_internal_repr(chosen[name]),
                distribution=distribution_to_json(distribution),
            )
            for name, (_, distribution) in SPACE.items()
        ),
        attrs={"sampler:note": [1, "two"]},
        started_at=WHEN,
    )


def epoch(trial: int, number: int, validation: float = 0.5) -> EpochRow:
    return EpochRow(
        trial=trial,
        epoch=number,
        train_loss=1.5,
        train_metric=0.25,
        validation_loss=1.75,
        validation_metric=validation,
        seconds=0.125,
        at=WHEN,
    )


def ended(
    number: int,
    state: TrialState = TrialState.COMPLETE,
    value: float | None = 0.5,
    error: str | None = None,
    epochs: int = 2,
) -> EndedTrial:
    return EndedTrial(
        number=number,
        state=state,
        value=value,
        train=0.25,
        validation=value,
        epochs=epochs,
        best_epoch=1,
        seconds=1.5,
        weights=123,
        worker="worker-1",
        error=error,
        attrs={"completed_rung_0": 0.5},
        ended_at=WHEN,
    )


def extra_run(probe: Probe, amount: float, trial: int = 0) -> ExtraRun:
    return ExtraRun(
        probe=probe,
        trial=trial,
        amount=amount,
        settings={"family": "mlp", "neurons": [3, 4], "convolutions": []},
        seed=5,
        train=0.25,
        validation=0.5,
        rows=100,
        epochs=2,
        seconds=1.5,
        weights=123,
        curve=(0.75, 0.5),
    )
