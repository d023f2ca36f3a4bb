"""The product's own processes in a simulated world: what is real, and what stands in for the rest.

Real: `serve` with its session, lease and patience; the dispatcher, its proposals, its pruner; the store, on SQLite; the
publisher. Stood in for: Ray, training, MLflow, clocks, threads, the checkpoint folder, and the winner's last look.
"""

from __future__ import annotations

import functools
import logging
import random
import sqlite3
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tenacity
import tenacity.nap
import tenacity.wait
from mlflow import MlflowException

from neurosweep import failpoints
from search import engine, lease
from search.checkpoint import BestNetwork
from search.dispatcher import Dispatcher
from search.leaders import leaders, trial_figures
from search.patience import Patience
from search.placement import WorkerShape
from search.places import Places
from search.spec import StudySpec
from storage import heartbeat, mlflow_door, publisher, publisher_loop, queue, telling
from storage.records import Batch, Claim, StudyRecord, StudyState
from storage.store import Store
from tests.faults.fake_database import FakeDatabase
from tests.faults.fake_mlflow import FakeClient, FakeMlflow
from tests.faults.simulated_pool import Shared, SimulatedPool
from tests.faults.simulated_world import START, Event, Killed, Process, Threading, World

HOME = Path("/nowhere")
PLACES = Places(home=HOME, database="sqlite:////nowhere/n.db", tracking="fake", ray=None)
DATASET = SimpleNamespace(train=range(100), validation=range(20), input_shape=(4,), outputs=3, split_hash="5p1i7")
IDLE = 10.0
"""So many times longer than the product's do idle polls here wait."""


class SimulatedStore(Store):
    """A dispatcher's store. What was written was written with the newest token there is."""

    world: World
    database: FakeDatabase

    def record(self, claim: Claim, batch: Batch) -> None:
        super().record(claim, batch)
        self._check(claim, f"records {len(batch.proposed)} new, {len(batch.epochs)} epochs, {len(batch.ended)} ends")

    def finish(self, claim: Claim, state: StudyState, *args: Any, **kwargs: Any) -> None:
        super().finish(claim, state, *args, **kwargs)
        self._check(claim, f"finishes {claim.study.label} as {state}: {kwargs.get('error')}")

    def _check(self, claim: Claim, did: str) -> None:
        self.world.say(f"{did} with token {claim.token}")
        newest = self.database.rows(f"SELECT token FROM neurosweep_study WHERE id = {claim.study.id}")[0][0]
        if newest != claim.token:
            self.world.problems.append(f"token {claim.token} wrote to {claim.study.label}, whose newest is {newest}")


class CheckpointFolder:
    """In place of `CheckpointStore` and `Checkpoint`: the best network of each study, kept by address."""

    kept: dict[str, BestNetwork]

    def __init__(self, place: Any) -> None:
        self._address: str = place._address if isinstance(place, CheckpointFolder) else str(place)
        self.best = self.kept.get(self._address)

    def keep(self, network: BestNetwork) -> None:
        self.best = self.kept[self._address] = network

    def clear(self) -> None:
        self.kept.pop(self._address, None)


class Product:
    """What all processes of one world share, and how each is begun."""

    def __init__(self, world: World, database: FakeDatabase) -> None:
        self.world = world
        self.database = database
        self.mlflow = FakeMlflow()
        self.shared = Shared(saves=world.random.random() < 0.5)
        self.database_back_at = self.mlflow_back_at = 0.0
        self.workers = world.random.randint(1, 3)
        self.stops: dict[str, Event] = {}

    # Processes

    def dispatcher(self, process: Process) -> None:
        """`neurosweep serve`."""
        stop = self.stops[process.name] = Event(self.world, slower=IDLE)
        store = SimulatedStore(self.database.engine)
        store.world, store.database = self.world, self.database
        engine.serve(store, PLACES, lambda progress: None, stop)  # type: ignore[arg-type]
        self.world.say("stops")

    def publisher(self, process: Process) -> None:
        """`python -m storage.publisher`."""
        orders: Any = SimpleNamespace(stop=Event(self.world), drain=Event(self.world), study_id=None)
        orders.wait = lambda seconds: self.world.sleep(2 * IDLE * seconds)
        store = Store(self.database.engine)
        publisher_loop.work(publisher.Publisher(store, "fake", HOME).publish_due, store.behind, orders)

    def session(self, places: Places, on_progress: Any, stop: Any) -> engine.Session:
        return _Session(self, places, on_progress, stop)

    # What goes wrong on the way to the database and to MLflow

    def on_statement(self, statement: str) -> None:
        world = self.world
        if world.current is None:
            return
        if world.now < self.database_back_at:
            raise sqlite3.OperationalError("unable to open database file")
        if statement == "BEGIN IMMEDIATE" and world.on("database is locked", 0.05):
            raise sqlite3.OperationalError("database is locked")

    def on_commit(self, commit: Callable[[], None]) -> None:
        commit()
        if self.world.current is not None and self.world.on("answer of the database is lost", 0.05):
            self.world.say("loses the answer to a commit")
            raise sqlite3.OperationalError("the answer was lost")

    def wire(self, name: str, request: Callable[[], Any]) -> Any:
        """A request to MLflow."""
        world = self.world
        if world.on("MLflow is slow", 0.1):
            world.sleep(world.random.uniform(1, 12))
        if world.now < self.mlflow_back_at or world.on("request to MLflow is lost", 0.05):
            world.sleep(0.2)
            raise MlflowException(f"{name}: no answer")
        answer = request()
        world.say(f"asks MLflow to {name}")
        if world.on("MLflow breaks after storing", 0.05):
            raise MlflowException(f"{name}: API request failed with error code 500")
        if world.on("answer of MLflow is lost", 0.05):
            world.sleep(10)
            raise MlflowException(f"{name}: read timed out")
        return answer

    def reach(self, place: str) -> None:
        if self.world.current is not None and self.world.on("dispatcher is killed at a step", 0.03):
            self.world.die(f"at {place}")


class _Session(engine.Session):
    """Without Ray, a publisher's process and data."""

    def __init__(self, product: Product, places: Places, on_progress: Any, stop: Any) -> None:
        self._product = product
        self._places, self._on_progress, self._stop = places, on_progress, stop
        self._simulated = SimulatedPool(product.world, product.shared)
        self._simulated.stopped = stop.is_set

    def __exit__(self, *error: object) -> None:
        self._simulated.close()

    def pool(self) -> Any:
        return self._simulated

    def revive_publisher(self) -> None:
        pass

    def _read(self, claim: Claim) -> Any:
        self._product.world.say(f"has {claim.study.label} with token {claim.token}")
        self._product.world.sleep(0.5)
        ending = SimpleNamespace(result=lambda: SimpleNamespace(conclude=self._conclude))
        return StudySpec.from_mapping(claim.study.spec), DATASET, ending

    def ready_pool(self, spec: StudySpec) -> Any:
        self._simulated.open(WorkerShape(count=self._product.workers, cpus=1.0, gpus=0.0))
        return self._simulated

    def _conclude(self, *, claim: Claim, trials: Any, **others: Any) -> dict[str, Any]:
        self._product.world.sleep(1)
        return {"study": claim.study.label, "best": {**trial_figures(leaders(trials)[0]), "test": 0.5, "weights": 10}}


def _register_champion(self: Any, study: StudyRecord, run_id: str, content: Any, folder: Path) -> None:
    """The model itself is another test's: its name will do."""
    self._client.log_text(run_id, str((study.result or {})["best"]["trial"]), "champion.txt")


@contextmanager
def patched(product: Product) -> Iterator[None]:
    """The product's modules in this world."""
    world = product.world

    class Everywhere(dict[str, Any]):
        def __bool__(self) -> bool:
            return True

        def __contains__(self, place: object) -> bool:
            return True

        def __getitem__(self, place: str) -> Any:
            return None, lambda: product.reach(place)

    time = SimpleNamespace(monotonic=lambda: world.now, sleep=world.sleep)
    kept = type("Kept", (CheckpointFolder,), {"kept": {}})
    ids = random.Random(world.random.random())
    replaced: list[tuple[Any, str, Any]] = [
        (engine, "Session", product.session),
        (engine, "Dispatcher", functools.partial(Dispatcher, clock=world.clock)),
        (engine, "Patience", lambda stopped, on_wait: Patience(stopped, on_wait, world.clock)),
        (engine, "CheckpointStore", kept),
        (engine, "Checkpoint", kept),
        (engine, "check_room", lambda folders: None),
        (engine, "_dispatcher_name", lambda: world.current and world.current.process.name),
        (mlflow_door, "connect", lambda tracking: FakeClient(product.mlflow, product.wire)),
        (publisher.StudyInMlflow, "_register_champion", _register_champion),
        (queue, "uuid", SimpleNamespace(uuid4=lambda: uuid.UUID(int=ids.getrandbits(128)))),
        (failpoints, "_planned", Everywhere()),
        *((module, "time", time) for module in (engine, lease, telling, publisher_loop, tenacity, tenacity.nap)),
        *((module, "threading", Threading(world)) for module in (lease, heartbeat)),
        (tenacity.wait, "random", random.Random(world.random.random())),
        (logging.getLogger("storage.publisher"), "disabled", True),
        (product.database, "seconds", lambda: START.timestamp() + world.now + world.database_ahead),
        (product.database, "on_statement", product.on_statement),
        (product.database, "on_commit", product.on_commit),
    ]
    with pytest.MonkeyPatch.context() as monkeypatch:
        for owner, name, value in replaced:
            monkeypatch.setattr(owner, name, value)
        yield


__all__ = ["Killed", "Product", "patched"]
