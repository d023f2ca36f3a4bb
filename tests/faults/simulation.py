"""A deterministic simulation: the real dispatcher, store and publisher in a world whose seed decides what goes wrong.

A seed is a history: ``NEUROSWEEP_SIMULATION_SEED=17 pytest -s tests/faults/test_simulation.py -k one_seed`` runs the
one of seed 17 again and prints it line by line. `simulated_world.py` lists the places where something can go wrong, of
which each seed switches on a quarter; `simulated_product.py` says what is real and what is stood in for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from neurosweep.errors import NeurosweepError
from search.spec import StudySpec
from storage.records import ENDED, NewStudy, StudyState
from storage.store import Store
from tests.faults.fake_database import FakeDatabase
from tests.faults.simulated_end import whole
from tests.faults.simulated_product import Product, patched
from tests.faults.simulated_world import Process, World

VARIABLE = "NEUROSWEEP_SIMULATION_SEED"
TROUBLED = 45.0
"""Seconds with faults; after them everything is to come to its end."""
LONGEST = 2500.0
OVER = ENDED


@dataclass(frozen=True, kw_only=True)
class Report:
    """
    Attributes:
        trace: What happened, in lines.
        problems: What must not have happened; empty where all is well.
        places: Where something could go wrong.
        tally: What the database held in the end.
    """

    seed: int
    trace: list[str]
    problems: list[str]
    places: set[str]
    tally: dict[str, int]

    def __str__(self) -> str:
        return "\n".join([f"reproduce with {VARIABLE}={self.seed}", *sorted(self.places), *self.problems])


def simulate(seed: int, database: FakeDatabase) -> Report:
    """One history, from the submission of its studies to their end."""
    world = World(seed)
    database.fresh()
    product = Product(world, database)
    with patched(product):
        people = _People(product)
        people.begin()
        world.run(TROUBLED)
        people.end_all_trouble()
        world.run(LONGEST, people.all_is_over)
        if not people.all_is_over():
            world.problems.append(f"it has not come to its end after {world.now:.0f} s: {people.what_waits()}")
        world.current = None
        tally = whole(product, world.problems)
        world.end()
    return Report(seed=seed, trace=world.trace, problems=world.problems, places=world.places, tally=tally)


def spec(world: World) -> dict[str, Any]:
    """A study with few trials; in some, most settings are the same."""
    random = world.random
    few = random.random() < 0.25
    mapping: dict[str, Any] = {
        "name": "simulated",
        "seed": random.randint(0, 2**31),
        "data": {"source": "iris"},
        "metric": "error",
        "budget": {"trials": random.randint(3, 8), "epochs": 4},
        "search": {
            "sampler": random.choice(["random", "tpe"]),
            "pruner": random.choice(["asha", "asha", "none"]),
            "audit": 0.3,
        },
        "space": {
            "layers": 1,
            "neurons": [4, 5] if few else {"low": 4, "high": 400},
            "activation": "relu",
            "learning_rate": 0.01 if few else {"low": 0.001, "high": 0.1, "log": True},
            "optimizer": "adam",
            "weight_decay": 0.0,
            "dropout": 0.0,
            "batch_norm": False,
            "batch_size": 32,
            "schedule": "constant",
        },
    }
    if "trial takes too long" in world.places:
        mapping["budget"]["minutes_per_trial"] = 0.6
    return StudySpec.from_mapping(mapping).to_mapping()


class _People:
    """The user, and whoever breaks things and starts them again."""

    def __init__(self, product: Product) -> None:
        self._product, self._world, self._random = product, product.world, product.world.random
        self._store: Store = product.database.store()
        self._studies: list[int] = []
        self._processes: dict[str, tuple[Process, Any]] = {}
        self._lives = 0

    def begin(self) -> None:
        for _ in range(self._random.choice([1, 1, 2])):
            mapping = spec(self._world)
            new = NewStudy(name="simulated", spec=mapping, text="", trials=mapping["budget"]["trials"])
            self._studies.append(self._store.submit(new).id)
        for number in range(self._random.randint(2, 3)):
            self._start(f"dispatcher {number}", self._product.dispatcher)
        for number in range(self._random.randint(1, 2)):
            self._start(f"publisher {number}", self._product.publisher)
        self._world.start(Process("chaos"), self._break_things)
        self._world.start(Process("user"), self._use)

    def _start(self, name: str, function: Any) -> None:
        self._lives += 1
        process = Process(f"{name} in life {self._lives}")
        self._processes[name] = process, function
        self._world.start(process, lambda: function(process), after=self._random.uniform(0, 2))

    def _break_things(self) -> None:
        world, random = self._world, self._random
        while not world.calm:
            world.sleep(random.expovariate(1 / 4))
            process, _ = random.choice(list(self._processes.values()))
            if world.on("process is killed", 0.3) and not process.dead:
                world.kill(process)
            if world.on("process sleeps", 0.3):
                process.frozen_until = world.now + random.uniform(5, 60)
                world.say(f"lets {process.name} sleep until {process.frozen_until:.1f}")
            if world.on("database is away", 0.2):
                self._product.database_back_at = world.now + random.uniform(1, 20)
            if world.on("MLflow is away", 0.2):
                self._product.mlflow_back_at = world.now + random.uniform(1, 40)
            if world.on("clock jumps", 0.2):
                world.database_ahead += random.choice([-60, -20, 20, 60, 3600])
                world.say(f"sets the database's clock to {world.database_ahead:+.0f} s")
            self._start_the_dead_again()

    def _start_the_dead_again(self) -> None:
        for name, (process, function) in list(self._processes.items()):
            if process.dead or all(actor.greenlet.dead for actor in process.actors):
                self._start(name, function)

    def _use(self) -> None:
        world, random = self._world, self._random
        while not world.calm:
            world.sleep(random.expovariate(1 / 8))
            study = random.choice(self._studies)
            if world.on("user stops", 0.3):
                stop = (
                    self._product.stops.get(random.choice(list(self._product.stops))) if self._product.stops else None
                )
                if stop is not None:
                    world.say("stops a dispatcher")
                    stop.set()
            try:
                if world.on("user cancels", 0.15):
                    world.say(f"cancels study {study}")
                    self._store.request_cancel(study)
                if world.on("user asks for more", 0.3):
                    more = self._store.study(study).trials + random.randint(0, 2)
                    world.say(f"asks for {more} trials of study {study}")
                    self._store.requeue(study, more)
            except NeurosweepError as error:
                world.say(f"is told {error}")

    def end_all_trouble(self) -> None:
        world = self._world
        world.calm = True
        self._product.database_back_at = self._product.mlflow_back_at = 0.0
        for process, _ in self._processes.values():
            process.frozen_until = min(process.frozen_until, world.now + 1)
        world.start(Process("the end"), self._keep_all_alive)

    def _keep_all_alive(self) -> None:
        while True:
            self._start_the_dead_again()
            for study in self._studies:
                if self._store.study(study).state is StudyState.STOPPED:
                    self._store.requeue(study)
            self._world.sleep(10)

    def all_is_over(self) -> bool:
        return not self.what_waits()

    def what_waits(self) -> list[str]:
        rows = self._product.database.rows
        studies = [f"study {id} is {state}" for id, state in rows("SELECT id, state FROM neurosweep_study")]
        facts = rows("SELECT key, reason FROM neurosweep_outbox WHERE NOT published AND NOT set_aside")
        return [line for line in studies if not line.endswith(tuple(OVER))] + [
            f"fact {key}: {why}" for key, why in facts
        ]
