"""A world with a clock of its own: processes that take turns in one thread, and faults that a seed decides on.

Every actor is a greenlet, left only where it sleeps; the one that wakes first goes on, of equal ones the first to fall
asleep. Nothing reads the machine's clock and every draw comes from one generator: a seed is a history.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import greenlet

from search.clock import Clock

START = datetime(2026, 3, 1, 12, tzinfo=UTC)

PLACES = (
    "worker dies",
    "worker hangs",
    "machine goes",
    "trial kills workers",
    "trial needs too much memory",
    "trial is not finite",
    "trial takes too long",
    "dispatcher is killed at a step",
    "process is killed",
    "process sleeps",
    "answer of the database is lost",
    "database is locked",
    "database is away",
    "MLflow is away",
    "MLflow breaks after storing",
    "MLflow is slow",
    "answer of MLflow is lost",
    "request to MLflow is lost",
    "clock jumps",
    "user cancels",
    "user stops",
    "user asks for more",
)
"""Where something can go wrong; each run has a quarter of them switched on."""


class Killed(BaseException):
    """The process is gone."""


@dataclass(eq=False)
class Process:
    """
    Attributes:
        actors: Its threads.
        frozen_until: Until then none of them goes on: SIGSTOP, or a machine that sleeps.
    """

    name: str
    actors: list[Actor] = field(default_factory=list)
    frozen_until: float = 0.0
    dead: bool = False


@dataclass(eq=False)
class Actor:
    process: Process
    greenlet: Any
    wakes: float = 0.0


class World:
    """
    Args:
        seed: Decides on everything.

    Attributes:
        now: Seconds since the world began.
        calm: No faults any more.
        trace: What happened, in lines.
        problems: What must not have happened.
    """

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.now = 0.0
        self.calm = False
        self.places = {place for place in PLACES if self.random.random() < 0.25}
        self.trace: list[str] = []
        self.problems: list[str] = []
        self.database_ahead = 0.0
        self.current: Actor | None = None
        self._hub = greenlet.getcurrent()
        self._asleep: list[tuple[float, int, Actor]] = []
        self._order = itertools.count()
        self.clock = Clock(monotonic=lambda: self.now, now=self.moment, sleep=self.sleep)

    def moment(self) -> datetime:
        return START + timedelta(seconds=self.now)

    def say(self, what: str) -> None:
        who = self.current.process.name if self.current is not None else "the test"
        self.trace.append(f"{self.now:.3f} {who}: {what}")

    def on(self, place: str, chance: float) -> bool:
        """Whether something goes wrong here now."""
        return place in self.places and not self.calm and self.random.random() < chance

    # Actors

    def start(self, process: Process, function: Callable[[], None], after: float = 0.0) -> Actor:
        actor = Actor(process, None)

        def live() -> None:
            try:
                function()
            except Killed:
                pass
            except BaseException as error:
                self.problems.append(f"{process.name} broke: {type(error).__name__}: {error}")

        actor.greenlet = greenlet.greenlet(live, self._hub)
        process.actors.append(actor)
        self._wake_at(actor, self.now + after)
        return actor

    def sleep(self, seconds: float) -> None:
        """Lets the others go on for so long."""
        actor = self.current
        if actor is None or actor.greenlet is not greenlet.getcurrent():
            self.now += seconds  # the test itself
            return
        if actor.process.dead:
            raise Killed
        self._wake_at(actor, self.now + max(0.0, seconds))
        self._hub.switch()

    def kill(self, process: Process) -> None:
        """Ends another process where it stands; nothing that it held in memory is of use any more."""
        self.say(f"kills {process.name}")
        process.dead = True
        for actor in process.actors:
            if not actor.greenlet.dead and actor is not self.current:
                before, self.current = self.current, actor
                actor.greenlet.parent = greenlet.getcurrent()
                with contextlib.suppress(Killed):  # one that had not begun
                    actor.greenlet.throw(Killed())
                self.current = before

    def die(self, why: str) -> None:
        """Ends the process that is at work."""
        assert self.current is not None
        self.say(f"dies {why}")
        self.kill(self.current.process)
        raise Killed

    def run(self, until: float, enough: Callable[[], bool] = lambda: False) -> None:
        """Lets time pass up to a moment, or until a look every 10 seconds says that it is enough."""
        look = self.now + 10
        while self._asleep and self._asleep[0][0] <= until:
            if self._asleep[0][0] > look:
                self.now = look
                if enough():
                    return
                look += 10
                continue
            wakes, _, actor = heapq.heappop(self._asleep)
            if actor.greenlet.dead or wakes != actor.wakes:
                continue
            if actor.process.frozen_until > wakes:
                self._wake_at(actor, actor.process.frozen_until)
                continue
            self.now, self.current = max(self.now, wakes), actor
            actor.greenlet.parent = self._hub
            actor.greenlet.switch()
            self.current = None
        self.now = max(self.now, until)

    def end(self) -> None:
        """Ends all that still waits."""
        for _, _, actor in self._asleep:
            if not actor.greenlet.dead:
                self.kill(actor.process)

    def _wake_at(self, actor: Actor, moment: float) -> None:
        actor.wakes = moment
        heapq.heappush(self._asleep, (moment, next(self._order), actor))


class Event:
    """`threading.Event` and `search.stop.Stop` in this world."""

    def __init__(self, world: World, slower: float = 1.0) -> None:
        self._world, self._slower = world, slower
        self._set = False

    def is_set(self) -> bool:
        return self._set

    def set(self) -> None:
        self._set = True

    def wait(self, seconds: float) -> bool:
        """Sleeps, where it is a poll longer than asked for: an idle poll costs this test more than it shows."""
        if not self._set:
            self._world.sleep(seconds * self._slower)
        return self._set


class Threading:
    """`threading` in this world: a thread is one more actor of its process."""

    def __init__(self, world: World) -> None:
        self._world = world

    def Event(self) -> Event:
        return Event(self._world)

    def Thread(self, target: Callable[[], None], name: str, daemon: bool) -> Any:
        return _Thread(self._world, target)


class _Thread:
    def __init__(self, world: World, target: Callable[[], None]) -> None:
        self._world, self._target = world, target

    def start(self) -> None:
        assert self._world.current is not None
        self._world.start(self._world.current.process, self._target)

    def join(self) -> None:
        """It ends at its next look at its event; nobody need wait for that."""
