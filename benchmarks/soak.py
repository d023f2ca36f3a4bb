"""Half an hour of real studies with a random fault every five seconds, and the ledger over all of them at the end.

    python -m benchmarks.soak                    # on SQLite
    python -m benchmarks.soak --postgres

Two `neurosweep serve` work on one queue, with a real MLflow server; whoever has died is started again, as a supervisor
would. What is broken: the dispatchers, their workers, their publishers and their Rays, MLflow, the database, and
checkpoints on disk. Then nothing is broken any more, the queue runs out, and `tests/faults/ledger.py` says what was
lost, doubled, stuck, out of order or left over. The seed fixes which faults come, not when they meet what.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import psutil
import sqlalchemy as sa

from benchmarks.databases import postgres
from benchmarks.report import REPOSITORY, save, table
from neurosweep.errors import NeurosweepError
from search.study_file import parse_study
from storage.database import open_engine
from storage.records import NewStudy, StudyState, TrialState
from storage.store import Store
from tests.faults.ledger import check
from tests.mlflow_server import MlflowServer

STUDY = """\
name: soak-{seed}
seed: {seed}
data: {{source: digits}}
space: {{layers: {{low: 1, high: 3}}, neurons: {{low: 16, high: 128}}}}
budget: {{trials: {trials}, epochs: 27}}
workers: {{count: 1}}
"""

AHEAD = 3
"""Studies that wait or run at any time."""

OVER = (StudyState.FINISHED, StudyState.FAILED)


class Soak:
    """The services, and what can be done to them.

    Args:
        folder: Of the studies' files, MLflow's and the logs.
        url: The studies' database.
    """

    def __init__(self, folder: Path, url: str, seed: int, trials: int) -> None:
        self._folder, self._url, self._trials = folder, url, trials
        self._random = random.Random(seed)
        self._seeds = iter(range(1, 1_000_000))
        self.home = folder / "home"
        self.mlflow = MlflowServer(folder / "mlflow")
        self.store = Store.open(url)
        self._serves: list[subprocess.Popen[bytes] | None] = [None, None]
        self._log = (folder / "serve.log").open("ab")
        self._later: list[tuple[float, Callable[[], None]]] = []
        self.restarts = 0
        self.done: Counter[str] = Counter()

    # The services

    def keep_up(self) -> None:
        """Starts what is not there, does what was put off, and fills the queue."""
        for when, act in [each for each in self._later if each[0] <= time.monotonic()]:
            self._later.remove((when, act))
            act()
        for place, process in enumerate(self._serves):
            if process is None or process.poll() is not None:
                self.restarts += process is not None
                self._serves[place] = self._serve()

    def fill_queue(self) -> None:
        waiting = sum(each.study.state not in OVER for each in self.store.list_studies())
        for _ in range(AHEAD - waiting):
            text = STUDY.format(seed=next(self._seeds), trials=self._trials)
            spec = parse_study(text)
            self.store.submit(NewStudy(name=spec.name, spec=spec.to_mapping(), text=text, trials=self._trials))

    def _serve(self) -> subprocess.Popen[bytes]:
        environment = {
            **os.environ,
            "NEUROSWEEP_DATABASE_URL": self._url,
            "MLFLOW_TRACKING_URI": self.mlflow.url,
            "NEUROSWEEP_HOME": str(self.home),
            "PYTHONPATH": str(REPOSITORY),
        }
        command = [sys.executable, "-m", "neurosweep", "serve"]
        return subprocess.Popen(
            command, cwd=self._folder, env=environment, stdout=self._log, stderr=self._log, start_new_session=True
        )

    def settle(self) -> None:
        """Nothing is broken any more."""
        for _, act in self._later:
            act()
        self._later = []

    def stop(self) -> None:
        for process in self._serves:
            if process is not None and process.poll() is None:
                process.terminate()
        for process in self._serves:
            if process is not None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(30)
                process.kill()
        self.mlflow.stop()
        self._log.close()

    # The faults

    def break_something(self) -> str:
        """Does one fault, of those that find something to break; says which."""
        faults: list[tuple[str, Callable[[], bool]]] = [
            ("a dispatcher killed", lambda: self._signal(self._dispatchers(), signal.SIGKILL)),
            ("a dispatcher paused for 5 to 45 s", lambda: self._pause(self._dispatchers(), 5, 45)),
            ("a dispatcher told to stop", lambda: self._signal(self._dispatchers(), signal.SIGTERM)),
            ("a worker killed", lambda: self._signal(self._children("ray::PoolWorker"), signal.SIGKILL)),
            ("a worker that hangs", lambda: self._signal(self._children("ray::PoolWorker"), signal.SIGSTOP)),
            ("a publisher killed", lambda: self._signal(self._children("storage.publisher"), signal.SIGKILL)),
            ("Ray's head killed", lambda: self._signal(self._children("gcs_server"), signal.SIGKILL)),
            ("Ray's part of the machine killed", lambda: self._signal(self._children("raylet/raylet"), signal.SIGKILL)),
            ("MLflow away for 10 s", self._stop_mlflow),
            ("the database locked for 10 s", self._lock_database),
            ("the database's connections ended", self._end_connections),
            ("a checkpoint damaged", self._damage_checkpoint),
        ]
        self._random.shuffle(faults)
        for name, act in faults:
            with contextlib.suppress(psutil.Error, ProcessLookupError):
                if act():
                    self.done[name] += 1
                    return name
        return "nothing to break"

    def _dispatchers(self) -> list[psutil.Process]:
        return [psutil.Process(each.pid) for each in self._serves if each is not None and each.poll() is None]

    def _children(self, name: str) -> list[psutil.Process]:
        found = []
        for dispatcher in self._dispatchers():
            for child in dispatcher.children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    if any(name in word for word in child.cmdline()[:4]):
                        found.append(child)
        return found

    def _signal(self, processes: list[psutil.Process], number: signal.Signals) -> bool:
        if not processes:
            return False
        self._random.choice(processes).send_signal(number)
        return True

    def _pause(self, processes: list[psutil.Process], least: float, most: float) -> bool:
        if not processes:
            return False
        process = self._random.choice(processes)
        process.send_signal(signal.SIGSTOP)

        def wake() -> None:
            with contextlib.suppress(psutil.Error):
                process.send_signal(signal.SIGCONT)

        self._later.append((time.monotonic() + self._random.uniform(least, most), wake))
        return True

    def _stop_mlflow(self) -> bool:
        if any(act == self.mlflow.start for _, act in self._later):
            return False
        self.mlflow.stop()
        self._later.append((time.monotonic() + 10, self.mlflow.start))
        return True

    def _lock_database(self) -> bool:
        if any(name == "unlock" for _, act in self._later for name in [getattr(act, "__name__", "")]):
            return False
        connection = open_engine(self._url).connect()
        if connection.dialect.name == "postgresql":
            connection.execute(sa.text("SET idle_in_transaction_session_timeout = '60s'"))
            connection.execute(sa.text("LOCK TABLE neurosweep_study IN EXCLUSIVE MODE"))
        else:
            connection.execute(sa.text("SELECT 1"))  # begins, and so takes the write lock

        def unlock() -> None:
            with contextlib.suppress(sa.exc.SQLAlchemyError):
                connection.close()

        self._later.append((time.monotonic() + 10, unlock))
        return True

    def _end_connections(self) -> bool:
        if self._url.startswith("sqlite"):
            return False
        others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname = "
        with open_engine(self._url).begin() as connection:
            connection.execute(sa.text(others + "current_database()"))
        return True

    def _damage_checkpoint(self) -> bool:
        files = list(self.home.glob("studies/*/checkpoints/trials/*/*.safetensors"))
        if not files:
            return False
        with contextlib.suppress(OSError):
            file = self._random.choice(files)
            os.truncate(file, self._random.randrange(file.stat().st_size + 1))
        return True


def run(soak: Soak, seconds: float, every: float) -> None:
    """Breaks something every so many seconds."""
    ends, broken = time.monotonic() + seconds, time.monotonic()
    while time.monotonic() < ends:
        with contextlib.suppress(NeurosweepError):  # the database is locked: the next turn fills the queue
            soak.keep_up()
            soak.fill_queue()
        if time.monotonic() - broken >= every:
            broken = time.monotonic()
            print(f"{ends - broken:5.0f} s left: {soak.break_something()}", file=sys.stderr, flush=True)
        time.sleep(0.5)


def wait_for_the_end(soak: Soak, seconds: float) -> None:
    """Lets the queue run out, and the outbox."""
    soak.settle()
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        soak.keep_up()
        if all(each.study.state in OVER for each in soak.store.list_studies()) and not soak.store.pending_facts():
            return
        time.sleep(1)


def violations(soak: Soak, trials: int) -> Iterator[str]:
    """What the ledger says of each study."""
    for summary in soak.store.list_studies():
        label = summary.study.label
        for words in check(soak.store, label, trials=trials, home=soak.home, tracking=soak.mlflow.url):
            yield f"{label}: {words}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--every", type=float, default=5.0, help="seconds between two faults")
    parser.add_argument("--trials", type=int, default=100, help="of each study")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--postgres", action="store_true")
    parser.add_argument("--quick", action="store_true", help="half a minute, to see that it works")
    chosen = parser.parse_args()
    if chosen.quick:
        chosen.minutes, chosen.trials = 0.5, 6
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True)))
        url = stack.enter_context(postgres()) if chosen.postgres else f"sqlite:///{folder}/neurosweep.db"
        soak = Soak(folder, url, chosen.seed, chosen.trials)
        stack.callback(soak.stop)
        soak.mlflow.start()
        run(soak, 60 * chosen.minutes, chosen.every)
        wait_for_the_end(soak, 900)
        found = list(violations(soak, chosen.trials))
        studies = soak.store.list_studies()
    ended = sum(count for each in studies for state, count in each.counts.items() if state is not TrialState.RUNNING)
    figures = {
        "database": "PostgreSQL" if chosen.postgres else "SQLite",
        "minutes": chosen.minutes,
        "studies": len(studies),
        "trials": ended,
        "faults": soak.done.total(),
        "dispatchers started again": soak.restarts,
        "violations": len(found),
    }
    print(table(list(figures), [list(figures.values())]))
    print()
    print(table(["fault", "times"], [[name, count] for name, count in soak.done.most_common()]))
    for words in found:
        print(words)
    print(save("soak_quick" if chosen.quick else "soak", {**figures, "by kind": dict(soak.done), "found": found}))


if __name__ == "__main__":
    main()
