"""The product under faults: small studies, run as their user runs them, and the ledger over what they leave."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from neurosweep.errors import NeurosweepError
from storage.records import StudyState, TrialState
from storage.store import Store
from tests.faults.ledger import assert_whole
from tests.system.product import SLOWEST, Product

MARK = "NEUROSWEEP_TEST_MARK"
"""An environment variable that all processes of a command inherit, Ray's included."""

END_SECONDS = 45
"""The longest that what a killed dispatcher leaves behind may live."""

STUDY = """\
name: {name}
data: {{source: iris}}
space: {{layers: 1, neurons: {{low: 4, high: 16}}, learning_rate: {{low: 0.001, high: 0.01}}, batch_size: {batch}}}
search: {{sampler: random, pruner: {pruner}}}
budget: {{trials: {trials}, epochs: {epochs}}}
workers: {{count: {workers}}}
"""


def study(
    name: str, *, trials: int = 10, epochs: int = 8, workers: int = 1, pruner: str = "asha", batch: int = 16
) -> str:
    """A study file; a run of it takes about ten seconds, most of them for Ray."""
    return STUDY.format(name=name, trials=trials, epochs=epochs, workers=workers, pruner=pruner, batch=batch)


class Fleet:
    """Several commands on one database, one home and one MLflow.

    Args:
        url: The studies' database; SQLite in the folder where it is None.
    """

    def __init__(self, folder: Path, url: str | None = None, **settings: str) -> None:
        self.folder = folder
        self.url = url or f"sqlite:///{folder}/.neurosweep/neurosweep.db"
        self.home = folder / ".neurosweep"
        self.tracking = f"sqlite:///{self.home}/mlflow.db"
        self.home.mkdir(parents=True, exist_ok=True)
        self._settings = settings

    def product(self, failpoints: str = "", mark: str = "", **settings: str) -> Product:
        """The command line, with failures planned."""
        ours = {"NEUROSWEEP_DATABASE_URL": self.url, "NEUROSWEEP_FAILPOINTS": failpoints, MARK: mark}
        return Product(self.folder, **ours, **self._settings, **settings)

    def write(self, name: str, text: str) -> str:
        """Writes a study file, and says its name."""
        file = f"{name}.yaml"
        (self.folder / file).write_text(text, encoding="utf-8")
        return file

    def assert_whole(
        self,
        label: str,
        trials: int,
        state: StudyState = StudyState.FINISHED,
        *,
        drained: bool = True,
        clock_moved: bool = False,
    ) -> None:
        """The ledger over one study."""
        tracking = self.tracking if drained else None
        with self.store() as store:
            assert_whole(
                store,
                label,
                trials=trials,
                home=self.home,
                tracking=tracking,
                state=state,
                clock_moved=clock_moved,
            )

    @contextmanager
    def store(self) -> Iterator[Store]:
        store = Store.open(self.url)
        try:
            yield store
        finally:
            store.close()

    def ended(self, label: str) -> int:
        """How many trials of a study have ended; 0 before it is there."""
        try:
            with self.store() as store:
                counts = store.summary(store.find(label).id).counts
        except NeurosweepError:
            return 0
        return sum(count for state, count in counts.items() if state is not TrialState.RUNNING)


def mark() -> str:
    return uuid.uuid4().hex


def marked(word: str) -> list[psutil.Process]:
    """The living processes that a command with this mark has started, itself included."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == word and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def assert_gone(word: str, seconds: float = END_SECONDS) -> None:
    """What a killed command has left behind ends by itself."""
    wait(lambda: not marked(word), seconds, lambda: f"still there: {[p.cmdline()[:4] for p in marked(word)]}")


def wait(happened: Callable[[], bool], seconds: float, otherwise: Callable[[], str] = lambda: "") -> float:
    """Waits for something, and says how long it took: a slow machine gets more time than these seconds."""
    begun, most = time.monotonic(), SLOWEST * seconds
    while not happened():
        assert time.monotonic() - begun < most, f"not within {most} s; {otherwise()}"
        time.sleep(0.1)
    return time.monotonic() - begun
