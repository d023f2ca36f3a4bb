"""The worker pool: with `search.ray_session` the door to Ray. Everyone else sees submit, collect and halt.

A worker is a long-lived actor. It imports torch once, holds the dataset once, and stays warm from trial to trial and
from study to study. One that dies, or is ended because it does not answer, is replaced; where its machine is gone, it
comes back when there is room again; and where all of Ray is gone, it is started again. Ray's own restarts take no part
in it: they would not bring back what the worker held.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

# Read when Ray is imported: no usage reports, and no advice about its next version on the user's screen. Left alone,
# Ray gives its workers the niceness 15, behind nearly everything else on the machine, our own publisher included; with
# 5 they come behind the dispatcher and the user's programs only.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
os.environ.setdefault("RAY_worker_niceness", "5")

import ray
import ray.exceptions

from neurosweep.errors import InterruptedStudyError, NeurosweepError, UnreachableError
from search.placement import Node, WorkerShape, places
from search.pool_worker import PoolWorker, Sign, TrainingData
from search.progress import WorkerActivity
from search.ray_session import RaySession, first_line
from search.watch import SILENCE_SECONDS, START_SECONDS
from trainer.data.dataset import Dataset
from trainer.settings import Settings
from trainer.work import Metric, SegmentResult, TestResult, TrialWork

VITAL_SECONDS = 2.0
"""How often the pool looks whether Ray still lives: a process that goes on for a minute without Ray's head is ended by
Ray itself."""

PLACE_SECONDS = 5.0
"""How often it looks whether the machines still have room for all workers, or have it again."""

ATTEMPTS = 3
"""How many workers may die of one question about the winner."""


@dataclass(frozen=True, kw_only=True)
class Done:
    """What came back from a worker for a pack: a result for each trial, or the reason why the worker is gone.

    A worker that has come back after it had been gone answers once without any work: it can be given some.

    Attributes:
        waiting: The worker had not come to this yet, so it is not what the worker died of.
        blameless: The worker is gone for a reason that lies outside of it: its machine, or all of Ray.
    """

    worker: int
    works: tuple[TrialWork, ...]
    results: tuple[SegmentResult, ...] | None = None
    death: str | None = None
    waiting: bool = False
    blameless: bool = False


@dataclass
class _Member:
    """One worker as the pool sees it.

    Attributes:
        actor: None while there is no machine for it.
        pending: Packs that it has not answered, oldest first, with the calls that will.
        asked: The call that will say what it is doing.
        sign: What it was doing when it answered last; None before it has.
        new: Whether it has answered since the pool was asked last.
    """

    actor: Any
    pending: list[tuple[Any, tuple[TrialWork, ...]]] = field(default_factory=list)
    asked: Any = None
    sign: Sign | None = None
    new: bool = False


class Pool:
    """Workers on our own Ray or on a cluster. Used from one thread: our own Ray ends with the one that started it.

    Args:
        address: The cluster's; None for a Ray of our own.

    Attributes:
        stopped: Whether the user wants to end: waits are given up then.
    """

    def __init__(self, address: str | None = None) -> None:
        self._ray = RaySession(address)
        self._shape: WorkerShape | None = None
        self._members: list[_Member] = []
        self._dataset: Dataset | None = None
        self._checkpoints: str | None = None
        self._data: Any = None
        self._test: Any = None
        self._loads = 0
        self._spare: Any = None
        # What came back otherwise than by an answer, to be handed out first.
        self._returned: list[Done] = []
        self._looked_at_ray = self._looked_for_room = 0.0
        self.stopped: Callable[[], bool] = lambda: False

    @classmethod
    def start(cls, address: str | None) -> Pool:
        """Connects to the cluster at `address`, or starts a Ray on this machine that ends with this process.

        Raises:
            UnreachableError: There is no such cluster, or it wants another token.
        """
        pool = cls(address)
        pool._ray.connect()
        return pool

    @property
    def nodes(self) -> list[Node]:
        """The machines that Ray has at this moment: they come and go."""
        return self._ray.nodes()

    def open(self, shape: WorkerShape) -> None:
        """Brings the workers up without waiting for them; those of the same shape are kept as they are."""
        if self._shape is not None and (shape.cpus, shape.gpus) != (self._shape.cpus, self._shape.gpus):
            self._kill(self._members)
            self._members, self._spare = [], None
        while len(self._members) > shape.count:
            self._kill([self._members.pop()])
        self._shape = shape
        while len(self._members) < shape.count:
            self._members.append(_Member(self._spawn()))

    def load(self, dataset: Dataset, checkpoints: str | None = None) -> None:
        """Puts the dataset once into the object store and lets every worker take it from there.

        Args:
            checkpoints: Address of the study's checkpoints; None where none are kept.
        """
        self._dataset, self._checkpoints = dataset, checkpoints
        self._put()
        self._loads += 1
        self._returned = []
        if self._spare is not None:
            self._load(self._spare)
        for member in self._members:
            # What is still under way belongs to the study before; its results are nobody's.
            member.pending = []
            if member.actor is not None:
                self._load(member.actor)

    def _put(self) -> None:
        dataset = self._dataset
        assert dataset is not None  # noqa: S101 - for the type checker: load() has set it
        data = TrainingData(
            train=dataset.train,
            validation=dataset.validation,
            preprocessing=dataset.preprocessing,
            task=dataset.task,
            input_shape=dataset.input_shape,
            outputs=dataset.outputs,
        )
        self._data, self._test = ray.put(data), ray.put(dataset.test)

    def _load(self, actor: Any) -> None:
        actor.load.remote(self._data, self._loads, self._checkpoints)

    @property
    def size(self) -> int:
        return len(self._members)

    @property
    def on_gpu(self) -> bool:
        """Whether each worker has a share of a GPU."""
        return self._shape is not None and self._shape.gpus > 0

    def serves(self, worker: int) -> bool:
        """Whether a worker is there, or on its way; else there is no machine for it at the moment."""
        return self._members[worker].actor is not None

    def outstanding(self, worker: int) -> int:
        """How many packs a worker has been given and has not answered."""
        return len(self._members[worker].pending)

    def submit(self, worker: int, works: Sequence[TrialWork]) -> None:
        """Gives a worker a pack: segments that it is to train together."""
        member, pack = self._members[worker], tuple(works)
        if member.actor is None:  # it has gone since the dispatcher looked
            self._returned.append(Done(worker=worker, works=pack, death="its machine is gone", blameless=True))
        else:
            member.pending.append((member.actor.train.remote(pack), pack))

    def forget(self, worker: int, trials: Sequence[int]) -> None:
        """Lets a worker drop what is kept of trials, and their checkpoints."""
        members = [self._members[worker], *self._members]
        if (member := next((member for member in members if member.actor is not None), None)) is not None:
            member.actor.forget.remote(tuple(trials))

    def collect(self, timeout: float) -> list[Done]:
        """What has come back, in the order of submission for each worker; waits up to `timeout` seconds for the first.

        A worker that died is replaced before this returns; all that it had been given comes back with its death.
        """
        self._look_after_ray()
        done, self._returned = self._returned, []
        refs = [ref for member in self._members for ref, _ in member.pending]
        if not refs:
            if not done and not any(member.actor for member in self._members):
                time.sleep(timeout)
            return done
        ray.wait(refs, num_returns=1, timeout=0 if done else timeout, fetch_local=False)
        ready, _ = ray.wait(refs, num_returns=len(refs), timeout=0)
        answered = set(ready)
        for worker, member in enumerate(self._members):
            while member.pending and member.pending[0][0] in answered:
                ref, works = member.pending.pop(0)
                try:
                    done.append(Done(worker=worker, works=works, results=ray.get(ref)))
                except ray.exceptions.RayError as exc:
                    death, blameless = _death(exc)
                    done.append(Done(worker=worker, works=works, death=death, blameless=blameless))
                    done += self._unanswered(worker, death, blameless)
                    self._replace(worker)
                    break
        return done

    def end(self, worker: int, why: str, *, blameless: bool = False) -> None:
        """Ends a worker that is not to go on as it is, and puts another one in its place; what it had been given comes
        back with the next `collect`.

        Args:
            blameless: It is not ended for what it trains.
        """
        member = self._members[worker]
        blameless = blameless or member.sign is None  # it had never come up
        if member.pending:
            _, works = member.pending.pop(0)
            self._returned.append(Done(worker=worker, works=works, death=why, blameless=blameless))
        self._returned += self._unanswered(worker, why, blameless)
        self._replace(worker)

    def signs(self) -> list[Sign | None]:
        """What each worker shows, where it has answered since the last time; never waits for one."""
        asked = [member.asked for member in self._members if member.asked is not None]
        answered = set(ray.wait(asked, num_returns=len(asked), timeout=0)[0]) if asked else set()
        for member in self._members:
            if member.asked in answered:
                with contextlib.suppress(ray.exceptions.RayError):
                    member.sign, member.new = ray.get(member.asked), True
                member.asked = None
            if member.asked is None and member.actor is not None:
                member.asked = member.actor.sign.options(concurrency_group="control").remote()
        shown = [member.sign if member.new else None for member in self._members]
        for member in self._members:
            member.new = False
        return shown

    def activity(self, names: Callable[[int], str]) -> tuple[WorkerActivity, ...]:
        """What each worker was doing when it answered last."""
        idle = Sign(trial=None, epoch=0, epochs=0, beats=0)
        signs = [member.sign or idle for member in self._members]
        return tuple(
            WorkerActivity(name=names(worker), trial=sign.trial, epoch=sign.epoch, epochs=sign.epochs)
            for worker, sign in enumerate(signs)
        )

    def halt(self) -> None:
        """Tells every worker to end its pack; what is under way comes back as stopped."""
        for member in self._members:
            if member.actor is not None:
                member.actor.halt.options(concurrency_group="control").remote(self._loads)

    def test(self, settings: Settings, weights: dict[str, Any], metric: Metric) -> TestResult:
        """Opens the test split, for the one network that has been chosen.

        Raises:
            NeurosweepError: The worker failed.
            InterruptedStudyError: The user did not want to wait.
        """
        result: TestResult = self._ask(lambda actor: actor.test.remote(settings, weights, metric, self._test))()
        return result

    def export(self, settings: Settings, weights: dict[str, Any]) -> Callable[[], bytes]:
        """Begins to write the network as a `torch.export` program.

        Returns:
            A call that waits for the program; it raises as `test` does.
        """
        return self._ask(lambda actor: actor.export.remote(settings, weights))

    def close(self) -> None:
        """Ends the workers, and our own Ray with them."""
        if self._ray.lives():  # else Ray waits for its head, to tell it
            self._kill(self._members)
        self._members = []
        self._ray.close()

    # How

    def _ask(self, question: Callable[[Any], Any]) -> Callable[[], Any]:
        """Puts a question to a worker; the answer waits for it, and asks another one where the first has died."""
        first = self._any_worker()
        asked = question(self._members[first].actor)

        def answer() -> Any:
            worker, call = first, asked
            for attempt in range(1, ATTEMPTS + 1):
                try:
                    return self._wait(worker, call)
                except ray.exceptions.RayActorError as exc:
                    if attempt == ATTEMPTS:
                        raise NeurosweepError(f"A worker failed: {_death(exc)[0]}") from exc
                    if self._members[worker].actor is not None:
                        self._replace(worker)
                    worker = self._any_worker()
                    call = question(self._members[worker].actor)
                except ray.exceptions.RayError as exc:
                    raise NeurosweepError(f"A worker failed: {first_line(exc)}") from exc
            raise AssertionError("the last attempt returns or raises")

        return answer

    def _wait(self, worker: int, call: Any) -> Any:
        """The answer to a question, unless its worker shows no sign of life."""
        shown = time.monotonic()
        while not ray.wait([call], timeout=0.2)[0]:
            if self.stopped():
                raise InterruptedStudyError("Told to stop.")
            if self.signs()[worker] is not None:
                shown = time.monotonic()
            allowed = START_SECONDS if self._members[worker].sign is None else SILENCE_SECONDS
            if self._look_after_ray() or time.monotonic() - shown > allowed:
                raise ray.exceptions.RayActorError()
        return ray.get(call)

    def _any_worker(self) -> int:
        while True:
            for worker in range(self.size):
                if self.serves(worker):
                    return worker
            if self.stopped():
                raise InterruptedStudyError("Told to stop.")
            time.sleep(0.5)
            self._look_after_ray()

    def _spawn(self, *, spare: bool = False) -> Any:
        shape = self._shape
        assert shape is not None  # noqa: S101 - for the type checker: open() has set it
        remote = ray.remote(
            num_cpus=0 if spare else shape.cpus,
            num_gpus=0 if spare else shape.gpus,
            concurrency_groups={"control": 1},
            max_restarts=0,
            max_task_retries=0,
        )(PoolWorker)
        return remote.remote(max(1, int(shape.cpus)))

    def _replace(self, worker: int) -> None:
        self._kill([self._members[worker]])
        actor, self._spare = self._spare, None
        if actor is None:
            actor = self._spawn()
            self._load(actor)
        self._members[worker] = _Member(actor)
        if self._ray.own and not self.on_gpu:
            # Where one has died more may: the next one's place is taken by a process that has imported torch and holds
            # the data already, in 1.3 s instead of 4.8. On a cluster its CPU would be somebody else's.
            self._spare = self._spawn(spare=True)
            self._load(self._spare)

    def _unanswered(self, worker: int, death: str, blameless: bool) -> list[Done]:
        """What a worker that is gone had been given and had not come to."""
        pending, self._members[worker].pending = self._members[worker].pending, []
        return [
            Done(worker=worker, works=works, death=death, waiting=True, blameless=blameless) for _, works in pending
        ]

    def _kill(self, members: list[_Member]) -> None:
        for member in members:
            if member.actor is not None:
                ray.kill(member.actor)

    # Machines that go and come

    def _look_after_ray(self) -> bool:
        """Starts Ray again where it is gone, and lets workers go and come with their machines.

        Returns:
            Whether Ray was gone.
        """
        now = time.monotonic()
        if now - self._looked_at_ray < VITAL_SECONDS:
            return False
        self._looked_at_ray = now
        if not self._ray.lives():
            self._start_again()
            return True
        if now - self._looked_for_room >= PLACE_SECONDS:
            self._looked_for_room = now
            nodes = self.nodes
            if not nodes:
                self._start_again()
                return True
            self._fit(nodes)
        return False

    def _start_again(self) -> None:
        gone = "Ray was gone"
        for worker, member in enumerate(self._members):
            self._returned += self._unanswered(worker, gone, blameless=True)
            member.actor = member.asked = member.sign = None
        self._spare = None
        self._ray.close()
        while True:
            try:
                self._ray.connect()
                break
            except UnreachableError:
                if self.stopped():
                    raise
                time.sleep(1.0)
        self._put()
        self._fit(self.nodes)

    def _fit(self, nodes: Sequence[Node]) -> None:
        """As many workers as there is room for: those that never came up go first, and come back last."""
        shape = self._shape
        if shape is None or self._data is None:
            return
        room = places(shape.cpus, shape.gpus, nodes)
        serving = [worker for worker, member in enumerate(self._members) if member.actor is not None]
        waiting = [worker for worker in serving if self._members[worker].sign is None]
        for worker in waiting[::-1][: max(0, len(serving) - room)]:
            self._returned += self._unanswered(worker, "there is no machine for it", blameless=True)
            self._kill([self._members[worker]])
            self._members[worker] = _Member(None)
        absent = [worker for worker, member in enumerate(self._members) if member.actor is None]
        for worker in absent[: max(0, room - len(serving))]:
            self._members[worker] = _Member(self._spawn())
            self._load(self._members[worker].actor)
            self._returned.append(Done(worker=worker, works=(), results=()))


def _death(exc: BaseException) -> tuple[str, bool]:
    """What a worker died of, in a line, and whether that lies outside of it."""
    text = str(exc)
    if isinstance(exc, ray.exceptions.RayActorError):
        gone = ("node has died", "node was terminated", "node has crashed", "node failure")
        if isinstance(exc, ray.exceptions.ActorUnavailableError) or any(word in text for word in gone):
            return "its machine is gone", True
        if "memory" in text.lower() and "OOM killer" not in text:
            return "its machine ran out of memory", False
        return "its process ended (it was killed, crashed, or ran out of memory)", False
    if isinstance(exc, ray.exceptions.OutOfMemoryError):
        return "its machine ran out of memory", False
    return first_line(exc), False
