"""A made-up study with its report, of any number of trials, for the tests of what is made from one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from search.insight.findings import (
    Advice,
    Border,
    Contender,
    DataCurve,
    DataFindings,
    Diagnosis,
    Level,
    Levels,
    Opening,
    Report,
    SeedNoise,
    SpaceFindings,
    StoppingFindings,
    Suspect,
    Verdict,
)
from search.leaders import leaders
from search.spec import StudySpec
from storage.records import EpochRow, ExtraRun, Probe, StudyRecord, StudyState, TrialRecord, TrialState

START = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
EPOCHS = 20


def sample_study(trials: int = 100, **changes: Any) -> StudyRecord:
    mapping = {
        "name": "digits",
        "data": {"source": "digits"},
        "task": "classification",
        "metric": "error",
        "human": 0.01,
        "budget": {"trials": trials, "epochs": EPOCHS},
    }
    spec = StudySpec.from_mapping({**mapping, **changes.pop("spec", {})}).to_mapping()
    record = StudyRecord(
        id=1,
        name="digits",
        number=1,
        spec=spec,
        text="",
        trials=trials,
        state=StudyState.FINISHED,
        created_at=START,
        started_at=START,
        ended_at=START + timedelta(seconds=412),
        error=None,
        result=None,
        split_hash="abc",
        cancel_requested=False,
        uid="f00d",
        worked=412.0,
    )
    return replace(record, **changes)


def sample_trials(count: int = 100, seed: int = 0) -> tuple[list[TrialRecord], list[EpochRow]]:
    """Trials over the default space of an mlp: most of them pruned, a few failed, with an epoch row for each epoch."""
    random = np.random.default_rng(seed)
    trials, epochs = [], []
    for number in range(count):
        params = _params(random)
        at = START + timedelta(seconds=412.0 * number / count)
        if random.random() < 0.02:
            trials.append(_trial(number, TrialState.FAILED, params, at, None, None, 2, "the loss is not finite"))
            continue
        state = TrialState.COMPLETE if random.random() < 0.3 else TrialState.PRUNED
        length = EPOCHS if state is TrialState.COMPLETE else int(random.integers(1, EPOCHS // 2))
        off = abs(np.log10(params["learning_rate"]) + 2.3)
        floor = 0.012 + 0.05 * off**2 + 0.03 * params["dropout"] + 0.02 * random.random()
        steps = np.arange(1, length + 1)
        validation = np.minimum(0.9, floor + 0.8 * np.exp(-steps / (1 + 2 * off)) + 0.004 * random.normal(size=length))
        train = np.maximum(0.0, validation - 0.012 * (1 - np.exp(-steps / 6)) - 0.002)
        validation = np.maximum(0.004, validation)
        best = int(validation.argmin())
        trials.append(_trial(number, state, params, at, float(train[best]), float(validation[best]), length, None))
        epochs += [
            EpochRow(
                trial=number,
                epoch=step,
                train_loss=2 * low,
                train_metric=low,
                validation_loss=2 * high,
                validation_metric=high,
                seconds=0.1,
                at=at,
            )
            for step, low, high in zip(steps.tolist(), train.tolist(), validation.tolist(), strict=True)
        ]
    return trials, epochs


def sample_report(trials: Sequence[TrialRecord] = (), **changes: Any) -> Report:
    """An overfitting winner, with everything that a report can have."""
    trials = trials or sample_trials()[0]
    best = leaders(trials)
    winner = best[0]
    value = float(winner.validation or 0)
    report = Report(
        study="digits",
        task="classification",
        metric="error",
        state="finished",
        trial=winner.number,
        settings=winner.params,
        epochs=winner.epochs,
        weights=winner.weights,
        diagnosis=Diagnosis(
            verdict=Verdict.OVERFITTING,
            reasons=(
                f"The validation error ({value:.4f}) lies above the training error (0.0010) by more than its interval.",
                "The training error is no longer above a person's (0.0100).",
            ),
            advice=(
                Advice(
                    key="data",
                    change="Get more rows: about 3,000 would reach a person's level.",
                    why="The validation error falls from 0.051 to 0.016 from a quarter of the rows to all of them.",
                    measured=True,
                ),
                Advice(
                    key="space.dropout",
                    change="Raise the upper end of dropout to 0.7.",
                    why="8 of the best 10 trials have a dropout within 5 % of 0.5.",
                ),
            ),
        ),
        levels=Levels(
            chance=Level(value=0.9, low=0.86, high=0.93),
            simple=Level(value=0.035, low=0.019, high=0.064),
            simple_models={
                "logistic regression": Level(value=0.041, low=0.023, high=0.072),
                "random forest": Level(value=0.035, low=0.019, high=0.064),
            },
            human=0.01,
            target=None,
            train=Level(value=0.001, low=0.0002, high=0.0045),
            validation=Level(value=value, low=max(0.0, value - 0.009), high=value + 0.014),
            test=Level(value=0.02, low=0.009, high=0.044),
            split="test",
        ),
        splits={"train": 1257, "validation": 270, "test": 270},
        openings=(Opening(at=START + timedelta(seconds=412), trial=winner.number, reason="the winner"),),
        extra_runs=(_extra(Probe.NEURONS, winner, 2.0, value - 0.001), _extra(Probe.EPOCHS, winner, 2.0, value)),
        not_run=("The fifth contender's seeds: they would have taken 12 s more than the 20 % that are allowed.",),
        seeds=_seeds(best[:5]),
        data_curve=DataCurve(
            rows=(314, 628, 1257),
            values=(0.051, 0.029, 0.016),
            a=6.1,
            b=0.84,
            c=0.001,
            rows_for_target=Level(value=3000, low=2300, high=5100),
            why_not=None,
        ),
        data=DataFindings(
            warnings=("Two rows of the train split stand in the validation split as well.",),
            suspects=(
                Suspect(split="train", row=17, label="8", predicted="3", loss=9.1),
                Suspect(split="validation", row=1203, label="<b>1</b>", predicted="7", loss=7.7),
            ),
            leaks={},
            duplicates={"train/validation": (2, 5)},
            classes={str(digit): 120 + digit for digit in range(10)},
        ),
        space=SpaceFindings(
            borders=(Border(key="dropout", end="upper", near=8, of=10, bound=0.5, movable=True),),
            importances={"learning_rate": (0.61, 0.05), "dropout": (0.22, 0.06), "neurons_1": (0.17, 0.04)},
            interactions=(("learning_rate", "optimizer", 0.08),),
            barren=("learning_rate above 0.1: none of 17 trials got under 0.5",),
            good={"learning_rate": (0.002, 0.011), "dropout": (0.31, 0.49)},
        ),
        stopping=StoppingFindings(
            stopped=70,
            audited=4,
            beaten=0,
            share=Level(value=0.0, low=0.0, high=0.49),
            saved_seconds=812.0,
            last_half=0.003,
            stopped_for=None,
        ),
        warnings=("Two rows of the train split stand in the validation split as well.",),
        trials={"total": len(trials), "complete": 30, "pruned": 68, "failed": 2},
        seconds=412.0,
        extra_seconds=61.0,
    )
    return replace(report, **changes)


def _params(random: np.random.Generator) -> dict[str, Any]:
    layers = int(random.integers(1, 5))
    return {
        "model": "mlp",
        "layers": layers,
        **{f"neurons_{layer + 1}": int(2 ** random.uniform(4, 8)) for layer in range(layers)},
        "activation": str(random.choice(["relu", "tanh", "gelu", "silu", "leaky_relu", "elu", "sigmoid"])),
        "learning_rate": float(10 ** random.uniform(-4, -0.5)),
        "optimizer": str(random.choice(["adam", "adamw", "sgd"])),
        "momentum": 0.9,
        "weight_decay": float(10 ** random.uniform(-6, -2)),
        "dropout": float(random.uniform(0, 0.5)),
        "batch_norm": bool(random.random() < 0.5),
        "batch_size": int(random.choice([32, 64, 128])),
        "schedule": str(random.choice(["constant", "cosine"])),
    }


def _trial(
    number: int,
    state: TrialState,
    params: dict[str, Any],
    at: datetime,
    train: float | None,
    validation: float | None,
    epochs: int,
    error: str | None,
) -> TrialRecord:
    return TrialRecord(
        number=number,
        state=state,
        params=params,
        settings={},
        seed=number,
        train=train,
        validation=validation,
        epochs=epochs,
        best_epoch=epochs,
        seconds=0.1 * epochs,
        weights=64 * params["neurons_1"] + 10,
        worker=f"worker-{number % 2 + 1}",
        error=error,
        started_at=at,
        ended_at=at + timedelta(seconds=2),
    )


def _extra(probe: Probe, winner: TrialRecord, amount: float, validation: float) -> ExtraRun:
    return ExtraRun(
        probe=probe,
        trial=winner.number,
        amount=amount,
        settings={},
        seed=1,
        train=0.0,
        validation=validation,
        rows=1257,
        epochs=EPOCHS,
        seconds=4.0,
        weights=winner.weights,
    )


def _seeds(best: Sequence[TrialRecord]) -> SeedNoise:
    random = np.random.default_rng(1)
    contenders = []
    for rank, trial in enumerate(best):
        values = (float(trial.validation or 0) + 0.004 + 0.003 * random.normal(size=5)).round(4)
        contenders.append(
            Contender(
                trial=trial.number,
                validation=float(trial.validation or 0),
                values=tuple(map(float, values)),
                mean=float(values.mean()),
                std=float(values.std(ddof=1)),
                weights=trial.weights,
                tied=rank < 3,
            )
        )
    return SeedNoise(
        contenders=tuple(contenders),
        std=0.003,
        luck=Level(value=0.004, low=0.001, high=0.007),
        simplest=min(contenders[:3], key=lambda each: each.weights).trial,
        best=contenders[0].trial,
    )
