"""A small study with figures made up here, written to a real database, and a tiny network as its champion."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from storage import facts
from storage.records import (
    Batch,
    Claim,
    EndedTrial,
    EpochRow,
    Fact,
    FactKind,
    NewStudy,
    ProposedTrial,
    StudyRecord,
    StudyState,
    TrialState,
)
from storage.store import Store

START = datetime(2026, 3, 1, 12, 0, 0, 123_000, tzinfo=UTC)

TEXT = "name: small\n# as its user wrote it\n"

STATES = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAILED, TrialState.COMPLETE)

EPOCHS = {TrialState.COMPLETE: 3, TrialState.PRUNED: 1, TrialState.FAILED: 2}

PREPROCESSING: dict[str, Any] = {
    "kind": "table",
    "task": "classification",
    "columns": [
        {"name": "length", "kind": "number", "mean": 10.0, "std": 2.0, "fill": 11.0, "missing": True},
        {"name": "colour", "kind": "category", "values": ["blue", "red"]},
    ],
    "shape": [],
    "channels_last": False,
    "mean": [],
    "std": [],
    "classes": ["no", "yes"],
    "target_name": "bought",
    "target_mean": 0.0,
    "target_std": 1.0,
}


def spec(name: str) -> dict[str, Any]:
    """As much of a study file as MLflow is told."""
    return {
        "name": name,
        "seed": 7,
        "data": {"source": "shop.csv", "target": "bought"},
        "task": "classification",
        "metric": "error",
        "model": ["mlp", "cnn"],
        "search": {"sampler": "tpe", "pruner": "asha"},
        "budget": {"trials": len(STATES), "epochs": 3, "minutes": None, "target": None},
    }


def params(number: int) -> dict[str, Any]:
    return {"model": "mlp", "layers": 1, "neurons_1": 16 + number, "learning_rate": 0.1 / 3, "batch_norm": True}


def epoch_rows(number: int) -> list[EpochRow]:
    """Figures that no two epochs share; the failed trial's last loss is not a number."""
    last = EPOCHS[STATES[number]]
    failed = STATES[number] is TrialState.FAILED
    return [
        EpochRow(
            trial=number,
            epoch=epoch,
            train_loss=math.nan if failed and epoch == last else 1 / (number + epoch),
            train_metric=0.5 / (number + epoch),
            validation_loss=1.5 / (number + epoch),
            validation_metric=0.75 / (number + epoch),
            seconds=0.25 * epoch,
            at=START + timedelta(seconds=10 * number + epoch),
        )
        for epoch in range(1, last + 1)
    ]


def ended(number: int) -> EndedTrial:
    rows, state = epoch_rows(number), STATES[number]
    good = state is TrialState.COMPLETE
    return EndedTrial(
        number=number,
        state=state,
        value=rows[-1].validation_metric if good else None,
        train=0.4 / (number + 3) if good else None,
        validation=rows[-1].validation_metric if good else None,
        epochs=len(rows),
        best_epoch=len(rows) if good else 0,
        seconds=1.5,
        weights=1000 + number,
        worker=f"worker-{number % 2}",
        error="the loss is not finite" if state is TrialState.FAILED else None,
        ended_at=START + timedelta(seconds=10 * number + 5),
        pack=number // 2 * 2,
    )


def result_of(name: str, winner: int) -> dict[str, Any]:
    return {
        "study": name,
        "state": "finished",
        "metric": "error",
        "trials": {"total": 4, "complete": 2, "pruned": 1, "failed": 1},
        "best": {
            "trial": winner,
            "params": params(winner),
            "train": 0.01,
            "validation": 0.02,
            "test": 0.03,
            "test_interval": [0.005, 0.055],
            "epochs": 3,
            "weights": 1000 + winner,
            "model": f"models:/{name}@champion",
        },
        "seconds": 12.5,
    }


def submit(store: Store, name: str = "small") -> StudyRecord:
    return store.submit(NewStudy(name=name, spec=spec(name), text=TEXT, trials=len(STATES)))


def start(store: Store, study: StudyRecord) -> Claim:
    """Claim it and record that it runs, with the fact that says so."""
    claim = store.claim("dispatcher", study_id=study.id)
    assert claim is not None
    store.optuna_trials(study.id)  # makes Optuna's tables, as a dispatcher does before its first trial
    store.started(claim, "5p1i7", study.spec, [facts.started(study)])
    return claim


def end_trial(store: Store, claim: Claim, number: int) -> None:
    """Record all of a trial, from proposal to end, with the fact that it ended."""
    proposed = ProposedTrial(
        number=number,
        params=params(number),
        settings={},
        seed=100 + number,
        started_at=START + timedelta(seconds=10 * number),
    )
    fact = facts.trial_ended(claim.study, number)
    batch = Batch(
        proposed=(proposed,), epochs=tuple(epoch_rows(number)), ended=(ended(number),), facts=(fact,), assigned={}
    )
    store.record(claim, batch)


def finish(
    store: Store, claim: Claim, winner: int | None, suffix: str = "", result: dict[str, Any] | None = None
) -> None:
    fact = Fact(key=f"study-{claim.study.uid}-ended{suffix}", kind=FactKind.STUDY_ENDED)
    state = StudyState.FAILED if winner is None else StudyState.FINISHED
    outcome = None if winner is None else result or result_of(claim.study.label, winner)
    store.finish(claim, state, error="no good trial" if winner is None else None, result=outcome, facts=[fact])


def whole_study(store: Store, name: str = "small", winner: int | None = 3) -> StudyRecord:
    """All of a study, from submission to its end."""
    claim = start(store, submit(store, name))
    for number in range(len(STATES)):
        end_trial(store, claim, number)
    finish(store, claim, winner)
    return store.study(claim.study.id)


def export_network(file: Path, inputs: int, outputs: int, *, shape: tuple[int, ...] = ()) -> Any:
    """Write a tiny random network as a `torch.export` program; returns the network."""
    import torch
    from torch import nn

    torch.manual_seed(1)
    network = nn.Sequential(nn.Flatten(), nn.Linear(inputs, 8), nn.Tanh(), nn.Linear(8, outputs)).eval()
    example = torch.zeros(2, *(shape or (inputs,)))
    program = torch.export.export(network, (example,), dynamic_shapes=({0: torch.export.Dim("rows", min=1)},))
    torch.export.save(program, file)
    return network


def write_champion(folder: Path, network: Path) -> None:
    """The champion's folder, as the engine leaves it, with a network for `PREPROCESSING`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "network.pt2").write_bytes(network.read_bytes())
    (folder / "preprocessing.json").write_text(json.dumps(PREPROCESSING), encoding="utf-8")
    rows = [{"length": 9, "colour": "red"}, {"length": None, "colour": "blue"}, {"length": 12, "colour": None}]
    (folder / "example.json").write_text(json.dumps(rows), encoding="utf-8")
