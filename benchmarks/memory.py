"""What a worker holds of memory after thousands of trials, and how long the first epoch takes from a cold start.

    python -m benchmarks.memory [--trials 5000] [--repeat 3] [--quick]

Memory: a process with nothing but the trainer and the digits trains eight trials at a time to their first look, of
which the best go on to their end and the others are dropped. Then the largest of Ray's worker processes in a
`neurosweep run`, which hold Ray as well. Cold start: from the start of `neurosweep run` until the first epochs are
known to its dispatcher, with those of all trials that came back together.
"""

from __future__ import annotations

import argparse
import json
import pickle
import statistics
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import psutil

from benchmarks import product
from benchmarks.report import REPOSITORY, save, spread, table, timed

STUDY = """\
name: cold
seed: {seed}
data: {{source: digits}}
budget: {{trials: {trials}, epochs: {epochs}}}
"""

PACK, LOOK, EPOCHS = 8, 1, 3
GO_ON = 2
"""Of a pack, about a third."""

MEMORY_TARGET, COLD_TARGET = 500.0, 8.0
MEGABYTE = 1024**2


def write_order(trials: int, path: Path) -> None:
    """Writes what a worker is handed: the data, and the settings of random trials with their seeds."""
    from search.spec import StudySpec
    from search.study import Proposals
    from storage.records import TrialState
    from trainer.data.dataset import DataRequest
    from trainer.data.load import load

    data = load(DataRequest(source="digits"))
    spec = StudySpec.from_mapping({"name": "m", "data": {"source": "digits"}, "search": {"sampler": "random"}})
    proposals, asked = Proposals(spec, data.input_shape, "m"), []
    for _ in range(trials):
        trial = proposals.ask()
        assert trial is not None
        proposals.tell(trial.number, TrialState.FAILED)
        asked.append((trial.number, trial.settings, trial.seed))
    path.write_bytes(pickle.dumps((data, asked)))


def train_many(order: Path, marks: list[int]) -> Iterator[dict[str, float]]:
    """Trains in this process, which imports the trainer alone, as a worker does.

    Yields:
        At each mark how many trials have been trained, and the megabytes that this process holds.
    """
    from trainer.settings import Settings
    from trainer.work import Metric, TrialWork

    data, asked = pickle.loads(order.read_bytes())
    trainer = product.trainer_for(data)
    best, process = float("inf"), psutil.Process()
    yield {"trials": 0, "megabytes": process.memory_info().rss / MEGABYTE}
    for first in range(0, len(asked), PACK):
        works = [
            TrialWork(
                trial=number,
                settings=Settings.from_json(settings),
                seed=seed,
                metric=Metric.ERROR,
                epochs=EPOCHS,
                until=LOOK,
                keep_up_to=best,
            )
            for number, settings, seed in asked[first : first + PACK]
        ]
        paused = trainer.train(works, lambda: False, lambda trial, epoch: None)
        ranked = sorted(paused, key=lambda result: (result.validation is None, result.validation))
        going = {result.trial for result in ranked[:GO_ON]}
        for work in works:
            if work.trial not in going:
                trainer.forget(work.trial)
        last = [replace(work, until=EPOCHS) for work in works if work.trial in going]
        for result in trainer.train(last, lambda: False, lambda trial, epoch: None):
            best = min(best, result.validation or best)
        if marks and first + PACK >= marks[0]:
            yield {"trials": marks.pop(0), "megabytes": process.memory_info().rss / MEGABYTE}


def held(trials: int, marks: list[int]) -> list[dict[str, float]]:
    """What `train_many` says in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        order = Path(folder) / "order.pickle"
        write_order(trials, order)
        command = [sys.executable, "-m", "benchmarks.memory", "--order", str(order)]
        printed = timed([*command, "--marks", ",".join(map(str, marks))], REPOSITORY)[1]
    return [json.loads(line) for line in printed.splitlines()]


class Watch:
    """The largest that a worker process below this one has been."""

    def __init__(self) -> None:
        self.largest = 0.0
        self._ended = threading.Event()

    def __enter__(self) -> Watch:
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._ended.wait(0.5):
            for child in psutil.Process().children(recursive=True):
                try:
                    # Ray names its processes: `ray::_Worker.train`, say.
                    if "ray::_Worker" in " ".join(child.cmdline()):
                        self.largest = max(self.largest, child.memory_info().rss / MEGABYTE)
                except psutil.Error:
                    continue


def cold_start(seed: int, trials: int, epochs: int) -> dict[str, float]:
    """One `neurosweep run` in a fresh folder."""
    with tempfile.TemporaryDirectory() as folder, Watch() as watch:
        ran = product.run(STUDY.format(seed=seed, trials=trials, epochs=epochs), Path(folder))
    first = min(epoch.at for epoch in ran.epochs)
    answer = [epoch for epoch in ran.epochs if epoch.at - first < timedelta(seconds=0.05)]
    first_epoch = ran.since_began(first)
    began = first_epoch - sum(epoch.seconds for epoch in answer)
    return {"first epoch": first_epoch, "first pack began": began, "worker": watch.largest, "whole": ran.seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=5000)
    parser.add_argument("--marks", help="after how many trials to look; 100,1000,5000 and the last by default")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--order", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--quick", action="store_true", help="80 trials, one cold start")
    chosen = parser.parse_args()
    if chosen.quick:
        chosen.trials, chosen.marks, chosen.repeat = 80, "16,80", 1
    if chosen.order:
        for point in train_many(chosen.order, [int(word) for word in chosen.marks.split(",")]):
            print(json.dumps(point), flush=True)
        return
    wanted = [int(word) for word in (chosen.marks or f"100,1000,5000,{chosen.trials}").split(",")]
    marks = sorted({mark for mark in wanted if mark <= chosen.trials})
    memory = held(chosen.trials, marks)
    starts = [cold_start(seed, 4 if chosen.quick else 64, 2 if chosen.quick else 30) for seed in range(chosen.repeat)]
    lines: list[tuple[object, ...]] = [
        (f"the trainer's process after {point['trials']:,} trials, MB", point["megabytes"], MEMORY_TARGET)
        for point in memory
    ]
    lines += [
        ("the largest worker of `neurosweep run`, MB", spread([start["worker"] for start in starts]), MEMORY_TARGET),
        ("seconds to the first epoch", spread([start["first epoch"] for start in starts]), COLD_TARGET),
        ("seconds until the first pack began", spread([start["first pack began"] for start in starts]), "-"),
    ]
    print(table(("what", "measured", "target"), lines))
    medians = {name: statistics.median(start[name] for start in starts) for name in starts[0]}
    figures = {"trials": chosen.trials, "memory": memory, "starts": starts, "medians": medians}
    print(f"\n{save('memory' + ('_quick' if chosen.quick else ''), figures)}")


if __name__ == "__main__":
    main()
