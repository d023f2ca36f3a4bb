"""One dispatcher and a thousand workers that only wait: how long they stand idle, and what a result costs.

    python -m benchmarks.thousand_workers [--trials 50000] [--workers 1000] [--seconds 10] [--speed 1] [--quick]

The workers are simulated in the dispatcher's own process: each goes through its packs one by one, answers so many
seconds after it began one, and makes the figures up from the settings. Everything else is the product's: proposals,
packs, pruner (asha), and a PostgreSQL of its own, whose processes share the machine. What Ray does is missing.
Networks count as so large that each trial is a pack by itself; with `--packs` as so small that a pack takes as many as
it may. `--speed 5` lets a simulated second pass in a fifth of a real one, while the dispatcher stays as slow as it is:
its idle share is then that of five times as many workers. `--profile` adds where the dispatcher's time goes.
"""

from __future__ import annotations

import argparse
import cProfile
import heapq
import io
import itertools
import math
import pstats
import resource
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.databases import postgres
from benchmarks.report import save, table
from search.checkpoint import Checkpoint
from search.checkpoint_store import CheckpointStore
from search.dispatcher import Dispatcher, Signals
from search.no_gain import Noise
from search.packing import Packing
from search.pool import Done, Pool
from search.pool_worker import Sign
from search.progress import Progress, WorkerActivity
from search.spec import StudySpec
from search.study import Proposals
from storage.records import NewStudy
from storage.store import Store
from trainer.settings import Settings
from trainer.work import EpochResult, Metric, Outcome, SegmentResult, TrialWork

EPOCHS = 30
FEATURES = 64
LARGE, SMALL = 10_000_000, 1_257
"""Rows of the train split, as far as the packing knows."""

IDLE_TARGET, MEMORY_TARGET = 0.02, 1000
SHOWN_EVERY = 20.0


class WaitingPool(Pool):
    """Workers that wait, and answer in the order of their ends.

    Args:
        seconds: From the moment when a worker begins a pack to its answer.

    Attributes:
        idle: Seconds that workers stood still before a pack, together, from the beginning on.
        all_began: Seconds until every worker had its first pack.
        waited: Seconds that the dispatcher had nothing to do.
        made: Seconds that it took to make the results up: no time of the dispatcher's.
        results: Segments that have come back.
    """

    def __init__(self, workers: int, seconds: float) -> None:
        super().__init__()
        self._count = workers
        self._seconds = seconds
        self._queues: list[deque[tuple[TrialWork, ...]]] = [deque() for _ in range(workers)]
        self._began = time.perf_counter()
        self._free_since = [self._began] * workers
        self._never_began = workers
        self._ends: list[tuple[float, int]] = []
        self._reached: dict[int, int] = {}
        self.idle = self.waited = self.made = self.all_began = 0.0
        self.results = self.answers = 0

    @property
    def size(self) -> int:
        return self._count

    def outstanding(self, worker: int) -> int:
        return len(self._queues[worker])

    def submit(self, worker: int, works: Sequence[TrialWork]) -> None:
        self._queues[worker].append(tuple(works))
        if len(self._queues[worker]) == 1:
            now = time.perf_counter()
            self.idle += now - self._free_since[worker]
            if self._free_since[worker] == self._began:
                self._free_since[worker], self._never_began = now, self._never_began - 1
                if not self._never_began:
                    self.all_began = now - self._began
            heapq.heappush(self._ends, (now + self._seconds, worker))

    def forget(self, worker: int, trials: Sequence[int]) -> None:
        for trial in trials:
            self._reached.pop(trial, None)

    def collect(self, timeout: float) -> list[Done]:
        now = time.perf_counter()
        if self._ends and self._ends[0][0] > now:
            time.sleep(min(timeout, self._ends[0][0] - now))
            self.waited += time.perf_counter() - now
        began = time.perf_counter()
        done = []
        while self._ends and self._ends[0][0] <= time.perf_counter():
            end, worker = heapq.heappop(self._ends)
            done.append(self._answer(worker))
            if self._queues[worker]:
                heapq.heappush(self._ends, (end + self._seconds, worker))
            self._free_since[worker] = end
        self.made += time.perf_counter() - began
        return done

    def serves(self, worker: int) -> bool:
        return True

    def signs(self) -> list[Sign | None]:
        return [Sign(trial=None, epoch=0, epochs=0, beats=0)] * self._count

    def activity(self, names: Callable[[int], str]) -> tuple[WorkerActivity, ...]:
        return tuple(WorkerActivity(name=names(n), trial=None, epoch=0, epochs=0) for n in range(self._count))

    def halt(self) -> None:
        self._ends = []

    def _answer(self, worker: int) -> Done:
        works = self._queues[worker].popleft()
        self.answers += 1
        self.results += len(works)
        return Done(worker=worker, works=works, results=tuple(self._result(work) for work in works))

    def _result(self, work: TrialWork) -> SegmentResult:
        first = self._reached.pop(work.trial, 0) + 1
        share = self._seconds / (work.until - first + 1)
        epochs = tuple(_epoch(work.settings, epoch, share) for epoch in range(first, work.until + 1))
        finished = work.until == work.epochs
        if not finished:
            self._reached[work.trial] = work.until
        return SegmentResult(
            trial=work.trial,
            outcome=Outcome.FINISHED if finished else Outcome.PAUSED,
            epochs=epochs,
            best_epoch=work.until,
            train=epochs[-1].validation_metric if finished else None,
            validation=epochs[-1].validation_metric,
            weight_count=10_000,
            seconds=self._seconds,
        )


def _epoch(settings: Settings, epoch: int, seconds: float) -> EpochResult:
    """Best with a learning rate of 0.003 and little dropout, and better with every epoch."""
    value = 0.02 + 0.05 * abs(math.log10(settings.learning_rate) + 2.5) + 0.05 * settings.dropout + 0.3 / (1 + epoch)
    figures = {"train_loss": value, "train_metric": value, "validation_loss": value, "validation_metric": value}
    return EpochResult(epoch=epoch, seconds=seconds, **figures)


def measure(url: str, home: Path, chosen: argparse.Namespace) -> dict[str, Any]:
    """Runs the study to its end."""
    mapping = {
        "name": "simulated",
        "data": {"source": "digits"},
        "metric": "error",
        "search": {"sampler": "tpe", "pruner": "asha"},
        "budget": {"trials": chosen.trials, "epochs": EPOCHS},
    }
    spec = StudySpec.from_mapping(mapping)
    store = Store.open(url)
    study = store.submit(NewStudy(name=spec.name, spec=spec.to_mapping(), text="", trials=chosen.trials))
    claim = store.claim("benchmark", lease_seconds=86_400.0, study_id=study.id)
    assert claim is not None
    pool = WaitingPool(chosen.workers, chosen.seconds / chosen.speed)
    course = Course(pool)
    dispatcher = Dispatcher(
        claim=claim,
        spec=spec,
        metric=Metric.ERROR,
        store=store,
        pool=pool,
        proposals=Proposals(spec, (FEATURES,), "simulated"),
        checkpoint=Checkpoint(CheckpointStore(str(home))),
        packing=Packing(
            trials=chosen.trials,
            workers=chosen.workers,
            on_gpu=False,
            rows=SMALL if chosen.packs else LARGE,
            input_shape=(FEATURES,),
            outputs=10,
        ),
        name_worker=lambda worker: f"worker-{worker + 1}",
        known=(),
        known_epochs=(),
        on_progress=course.show,
        signals=Signals(stop=lambda: False, cancel=lambda: False, renew=lambda: None),
        started=time.monotonic(),
        noise=Noise(metric=Metric.ERROR, rows=SMALL),
    )
    profile = cProfile.Profile()
    began, cpu = time.perf_counter(), time.process_time()
    if chosen.profile:
        profile.runcall(dispatcher.work)
    else:
        dispatcher.work()
    seconds = time.perf_counter() - began
    cpu = time.process_time() - cpu
    store.close()
    busy = seconds - pool.waited - pool.made
    figures = {
        "whole seconds": seconds,
        "idle": course.idle_share(),
        "until all had begun": pool.all_began,
        "results": pool.results,
        "results a second": course.rate(),
        "most results a second": pool.results / busy,
        "trials in an answer": pool.results / pool.answers,
        "milliseconds": 1000 * busy / pool.results,
        "milliseconds of processor": 1000 * (cpu - pool.made) / pool.results,
        "milliseconds by fifths": course.costs(),
        "peak memory, MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "course": course.thinned(),
    }
    if chosen.profile:
        figures["profile"] = profiled(profile)
    return figures


class Course:
    """What the dispatcher had come to at each of its reports, until all trials had been given out.

    The last trials are left out of shares and rates: then there is nothing left that idle workers could do.
    """

    def __init__(self, pool: WaitingPool) -> None:
        self._pool = pool
        self._began = time.perf_counter()
        self._said = 0.0
        self.points: list[dict[str, float]] = []

    def show(self, progress: Progress) -> None:
        now = time.perf_counter() - self._began
        ended = progress.complete + progress.pruned + progress.failed
        if ended + progress.running < progress.total or not self.points:
            self.points.append(
                {
                    "seconds": now,
                    "ended": ended,
                    "results": self._pool.results,
                    "idle": self._pool.idle,
                    "waited": self._pool.waited,
                    "made": self._pool.made,
                }
            )
        if now - self._said > SHOWN_EVERY:
            self._said = now
            print(f"{now:.0f} s: {ended} trials ended, {self.idle_share():.2%} idle", file=sys.stderr)

    def idle_share(self) -> float:
        last = self.points[-1]
        return last["idle"] / (self._pool.size * last["seconds"])

    def rate(self) -> float:
        last = self.points[-1]
        return last["results"] / last["seconds"]

    def costs(self) -> list[float]:
        """Milliseconds of the dispatcher for each result, in each fifth of the time."""
        ends = [self.points[n * (len(self.points) - 1) // 5] for n in range(6)]
        return [_cost(first, last) for first, last in itertools.pairwise(ends)]

    def thinned(self) -> list[dict[str, float]]:
        """At most a hundred of the points."""
        return self.points[:: max(1, len(self.points) // 100)]


def _cost(first: dict[str, float], last: dict[str, float]) -> float:
    spent = {name: last[name] - first[name] for name in first}
    return 1000 * (spent["seconds"] - spent["waited"] - spent["made"]) / max(1.0, spent["results"])


def profiled(profile: cProfile.Profile) -> list[str]:
    """The functions that take the most time themselves, and with what they call."""
    lines: list[str] = []
    for order in ("tottime", "cumtime"):
        text = io.StringIO()
        pstats.Stats(profile, stream=text).strip_dirs().sort_stats(order).print_stats(35)
        lines += text.getvalue().splitlines()
    return lines


def rows(figures: dict[str, Any]) -> list[tuple[object, ...]]:
    """Of the table: what, how much, and the target."""
    return [
        ("workers idle, until the last trial was given out", f"{figures['idle']:.2%}", f"{IDLE_TARGET:.0%}"),
        ("seconds until every worker had begun", figures["until all had begun"], "-"),
        ("results a second", figures["results a second"], "-"),
        ("results a second, were it never waiting", figures["most results a second"], "-"),
        ("trials in an answer", figures["trials in an answer"], "-"),
        ("the dispatcher's milliseconds a result", figures["milliseconds"], "-"),
        ("of these on its own processor", figures["milliseconds of processor"], "-"),
        ("in each fifth of the time", ", ".join(f"{ms:.2f}" for ms in figures["milliseconds by fifths"]), "-"),
        ("peak memory of its process, MB", figures["peak memory, MB"], MEMORY_TARGET),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=50_000)
    parser.add_argument("--workers", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=10.0, help="simulated, of a pack")
    parser.add_argument("--speed", type=float, default=1.0)
    parser.add_argument("--packs", action="store_true", help="small networks, several to a pack")
    parser.add_argument("--profile", action="store_true", help="slower, and with the profiler's table on stderr")
    parser.add_argument("--quick", action="store_true", help="20 workers that answer after 0.2 s, 100 trials")
    chosen = parser.parse_args()
    if chosen.quick:
        chosen.trials, chosen.workers, chosen.seconds = 100, 20, 0.2
    with postgres() as url, tempfile.TemporaryDirectory() as home:
        figures = measure(url, Path(home), chosen)
    print("\n".join(figures.pop("profile", [])), file=sys.stderr)
    about = f"{chosen.trials:,} trials, {chosen.workers:,} workers, {chosen.seconds:g} s a pack, speed {chosen.speed:g}"
    print(table((about, "measured", "target"), rows(figures)))
    given = {name: value for name, value in vars(chosen).items() if name not in ("quick", "profile")}
    print(f"\n{save('thousand_workers' + ('_quick' if chosen.quick else ''), {**given, **figures})}")


if __name__ == "__main__":
    main()
