"""What faults cost, and what being ready for them costs a run that meets none.

    python -m benchmarks.faults

- trials a second with a worker killed every ten seconds, against the same study undisturbed, one after the other;
- seconds from a dispatcher's death to another one's claim of its study;
- seconds that a study of 10,000 trials takes to be read back when it is resumed, on SQLite and on PostgreSQL;
- with --against, whole undisturbed runs of this version and of another one, in turn.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import sqlalchemy as sa

from benchmarks.databases import postgres
from benchmarks.report import REPOSITORY, save, spread, table, timed
from benchmarks.sampler import IMAGES, fourteen, work
from neurosweep.errors import NeurosweepError
from search.study import Proposals
from storage.database import open_engine
from storage.records import NewStudy, TrialState
from storage.schema import study
from storage.store import Store

STUDY = """\
name: digits
data: {{source: digits}}
space: {{layers: {{low: 1, high: 3}}, neurons: {{low: 16, high: 128}}}}
budget: {{trials: {trials}, epochs: 20}}
workers: {{count: 2}}
"""

EVERY = 10.0
"""Seconds between two kills."""


class Command:
    """A `neurosweep` command on one folder's database."""

    def __init__(self, folder: Path, *words: str) -> None:
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
        command = [sys.executable, "-m", "neurosweep", *words]
        self._process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self.url = f"sqlite:///{folder}/.neurosweep/neurosweep.db"

    def ended_trials(self) -> int:
        """How many trials have ended; 0 before the database is there."""
        try:
            with opened(self.url) as store:
                counts = store.list_studies()[0].counts
        except (NeurosweepError, IndexError):
            return 0
        return sum(count for state, count in counts.items() if state is not TrialState.RUNNING)

    def kill_a_worker(self) -> None:
        children = psutil.Process(self._process.pid).children(recursive=True)
        for child in children:
            with contextlib.suppress(psutil.Error):
                if any("ray::PoolWorker" in word for word in child.cmdline()[:1]):
                    child.send_signal(signal.SIGKILL)
                    return

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(60)


@contextmanager
def opened(url: str) -> Iterator[Store]:
    store = Store.open(url)
    try:
        yield store
    finally:
        store.close()


def wait_for(happened: Any, seconds: float = 180.0) -> None:
    ends = time.monotonic() + seconds
    while not happened():
        if time.monotonic() > ends:
            sys.exit("it did not happen in time")
        time.sleep(0.2)


def trials_a_second(seconds: float, kills: bool) -> float:
    """Of a study that has more trials than it can do in the time, from its first trials' end on."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name)
        (folder / "study.yaml").write_text(STUDY.format(trials=100_000))
        running = Command(folder, "run", "study.yaml")
        wait_for(lambda: running.ended_trials() > 0)
        began, first, killed = time.monotonic(), running.ended_trials(), time.monotonic()
        while time.monotonic() - began < seconds:
            time.sleep(0.5)
            if kills and time.monotonic() - killed >= EVERY:
                killed = time.monotonic()
                running.kill_a_worker()
        rate = (running.ended_trials() - first) / (time.monotonic() - began)
        running.stop()
    return rate


def takeover() -> float:
    """Seconds from the death of a dispatcher to the claim of another one that is idle beside it."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name)
        (folder / "study.yaml").write_text(STUDY.format(trials=100_000))
        running = Command(folder, "run", "study.yaml")
        wait_for(lambda: running.ended_trials() > 0)
        other = Command(folder, "serve")
        time.sleep(20)  # it has started its workers, and looks into the queue
        running.kill()
        dead = time.monotonic()
        wait_for(lambda: claims(running.url) == 2)
        seconds = time.monotonic() - dead
        other.stop()
    return seconds


def claims(url: str) -> int:
    """How often the study was claimed."""
    with open_engine(url).connect().execution_options(writes=False) as connection:
        return int(connection.scalar(sa.select(study.c.token)) or 0)


def resume(url: str, trials: int) -> float:
    """Seconds to read a study back, as a dispatcher does that takes it over."""
    spec, store = fourteen(), Store.open(url)
    record = store.submit(NewStudy(name="s", spec=spec.to_mapping(), text="", trials=trials))
    claim = store.claim("benchmark", lease_seconds=3600.0, study_id=record.id)
    assert claim is not None
    proposals = Proposals(spec, IMAGES, "s")
    for _ in range(0, trials, 250):
        work(store, claim, proposals, min(250, trials))
    began = time.perf_counter()
    known = store.trials(record.id)
    Proposals(spec, IMAGES, "s", store.optuna_trials(record.id))
    seconds = time.perf_counter() - began
    assert len(known) == trials
    store.close()
    return seconds


def whole_runs(trials: int, repeats: int, other: Path) -> dict[str, list[float]]:
    """Seconds of whole runs, of this version and of another one's checkout, in turn."""
    text, times = STUDY.format(trials=trials), dict[str, list[float]]()
    for _ in range(repeats):
        for name, checkout in (("this version", REPOSITORY), ("the other", other)):
            with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
                (Path(folder) / "study.yaml").write_text(text)
                command = [sys.executable, "-m", "neurosweep", "run", "study.yaml", "--json"]
                seconds, _ = timed(command, Path(folder), PYTHONPATH=str(checkout))
            times.setdefault(name, []).append(seconds)
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0, help="of each stretch whose trials are counted")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--against", type=Path, help="another version's checkout: undisturbed runs of both, in turn")
    parser.add_argument("--trials", type=int, default=200, help="of those runs")
    parser.add_argument("--quick", action="store_true", help="short stretches, once each, no PostgreSQL")
    chosen = parser.parse_args()
    if chosen.quick:
        chosen.seconds, chosen.repeats = 12.0, 1
    calm, rough = [], []
    for _ in range(chosen.repeats):
        calm.append(trials_a_second(chosen.seconds, kills=False))
        rough.append(trials_a_second(chosen.seconds, kills=True))
        print(f"calm {calm[-1]:.3g}, with kills {rough[-1]:.3g} trials a second", file=sys.stderr)
    figures: dict[str, Any] = {
        "trials a second, undisturbed": calm,
        "trials a second, a worker killed every 10 s": rough,
        "share that is left": [part / whole for part, whole in zip(rough, calm, strict=True)],
    }
    if not chosen.quick:
        figures["seconds to a takeover"] = [takeover() for _ in range(chosen.repeats)]
    count = 500 if chosen.quick else 10_000
    with tempfile.TemporaryDirectory() as folder:
        figures[f"seconds to read {count:,} trials back, SQLite"] = [resume(f"sqlite:///{folder}/n.db", count)]
    if not chosen.quick:
        with postgres() as url:
            figures[f"seconds to read {count:,} trials back, PostgreSQL"] = [resume(url, count)]
    if chosen.against is not None:
        for name, times in whole_runs(chosen.trials, chosen.repeats, chosen.against).items():
            figures[f"seconds of a whole run, {name}"] = times
    print(table(["what", "median (least to most)"], [[name, spread(values)] for name, values in figures.items()]))
    print(save("faults_quick" if chosen.quick else "faults", figures))


if __name__ == "__main__":
    main()
