"""neurosweep as a whole process, and what its database says of the run afterwards."""

from __future__ import annotations

import itertools
import json
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.report import timed
from storage.records import EpochRow, TrialRecord
from storage.store import Store
from trainer.data.dataset import Dataset
from trainer.worker import Trainer

ONE_ANSWER = timedelta(seconds=0.1)
"""Trials of one worker that ended within this of each other came back together."""


@dataclass(frozen=True)
class Run:
    """A `neurosweep run` that has ended.

    Attributes:
        seconds: Of the whole process.
        began: When the process was started.
        result: What `--json` printed.
    """

    seconds: float
    began: datetime
    result: dict[str, Any]
    trials: list[TrialRecord]
    epochs: list[EpochRow]

    @property
    def best(self) -> float:
        """The winner's validation metric."""
        return float(self.result["best"]["validation"])

    @property
    def settings(self) -> list[dict[str, Any]]:
        """Of every trial, under the study file's names."""
        return [trial.params for trial in self.trials]

    @property
    def inside(self) -> float:
        """Seconds from the first trial's start in its worker to the last one's end: start-up is left out."""
        ends = [trial.ended_at for trial in self.trials if trial.ended_at is not None]
        return (max(ends) - first_start(self.trials)).total_seconds()

    def since_began(self, at: datetime) -> float:
        """Seconds from the process's start."""
        return (at - self.began).total_seconds()


def first_start(trials: Sequence[TrialRecord]) -> datetime:
    """When the first pack began to train.

    A trial is proposed while the workers still start, and its `seconds` are its share of its pack's. So an answer's
    first trial began the seconds of all of its trials before the answer was recorded.
    """
    by_worker: dict[str | None, list[tuple[datetime, float]]] = defaultdict(list)
    for trial in trials:
        if trial.ended_at is not None:
            by_worker[trial.worker].append((trial.ended_at, trial.seconds))
    return min(_first_start(sorted(ends)) for ends in by_worker.values())


def _first_start(ends: Sequence[tuple[datetime, float]]) -> datetime:
    """Of one worker, from its trials' ends, in order."""
    last, seconds = ends[0]
    for (before, _), (end, share) in itertools.pairwise(ends):
        if end - before > ONE_ANSWER:
            break
        last, seconds = end, seconds + share
    return last - timedelta(seconds=seconds)


def run(text: str, folder: Path | None = None) -> Run:
    """Runs the study whose file has this text, in a folder of its own unless one is named."""
    if folder is None:
        with tempfile.TemporaryDirectory() as name:
            return run(text, Path(name))
    (folder / "study.yaml").write_text(text)
    began = datetime.fromtimestamp(time.time(), UTC)
    seconds, printed = timed([sys.executable, "-m", "neurosweep", "run", "study.yaml", "--json"], folder)
    store = Store.open(f"sqlite:///{folder / '.neurosweep' / 'neurosweep.db'}")
    study = store.list_studies()[0].study
    found = Run(seconds, began, json.loads(printed), store.trials(study.id), store.epochs(study.id))
    store.close()
    return found


def save_splits(dataset: Dataset, path: Path) -> None:
    """Writes a study's train and validation splits for the peers, images scaled by the train split's figures."""
    arrays = {}
    for name in ("train", "validation"):
        split = getattr(dataset, name)
        arrays[f"x_{name}"], arrays[f"y_{name}"] = scaled(dataset, split.inputs), split.targets
    np.savez(path, **arrays)


def scaled(dataset: Dataset, inputs: Any) -> Any:
    """What networks learn from: a table's inputs are scaled already."""
    told = dataset.preprocessing
    if told.kind != "image":
        return inputs
    mean, std = (np.array(values, np.float32).reshape(-1, 1, 1) for values in (told.mean, told.std))
    return (inputs.astype(np.float32) - mean) / std


def trainer_for(data: Dataset) -> Trainer:
    """What a worker with one CPU thread holds of a dataset, in this process."""
    splits = data.train, data.validation
    return Trainer(*splits, data.preprocessing, data.task, data.input_shape, data.outputs, device="cpu", threads=1)
