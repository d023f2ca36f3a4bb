"""The worker pool: the one door to Ray. Everyone else sees submit, collect and halt.

A worker is a long-lived actor. It imports torch once, holds the dataset once, and stays warm from trial to trial and
from study to study. Calls to one worker are served in the order in which they were made; a second thread in it answers
what it is doing and takes the order to halt, while the first one trains.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

# Read when Ray is imported: no usage reports, and no advice about its next version on the user's screen. Left alone,
# Ray gives its workers the niceness 15, behind nearly everything else on the machine, our own publisher included; with
# 5 they come behind the dispatcher and the user's programs only.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
os.environ.setdefault("RAY_worker_niceness", "5")

import ray
import ray.exceptions

from neurosweep.errors import NeurosweepError, UnreachableError
from search.placement import Node, WorkerShape
from search.progress import WorkerActivity
from trainer.data.dataset import Dataset, Preprocessing, Split, Task
from trainer.settings import Settings
from trainer.work import EpochResult, Metric, SegmentResult, TestResult, TrialWork

OBJECT_STORE_BYTES = 512 * 1024**2
"""Least size of our own Ray's object store; it holds the datasets and nothing else."""


CONNECT_SECONDS = 5.0


@dataclass(frozen=True, kw_only=True)
class Done:
    """What came back from a worker for a pack: a result for each trial, or the reason why the worker is gone.

    Attributes:
        waiting: The worker had not come to this yet, so it is not what the worker died of.
    """

    worker: int
    works: tuple[TrialWork, ...]
    results: tuple[SegmentResult, ...] | None = None
    death: str | None = None
    waiting: bool = False


@dataclass(frozen=True, kw_only=True)
class _TrainingData:
    """What every worker keeps of a study's data: all but the test split."""

    train: Split
    validation: Split
    preprocessing: Preprocessing
    task: Task
    input_shape: tuple[int, ...]
    outputs: int


Method = TypeVar("Method", bound=Callable[..., Any])


def _control(method: Method) -> Method:
    """Lets a second thread of the actor answer this call, while the first one trains."""
    marked: Method = ray.method(concurrency_group="control")(method)
    return marked


class _Worker:
    """The actor. Lives in a process of its own, so nothing of it is shared with the dispatcher."""

    def __init__(self, threads: int) -> None:
        import trainer.worker

        self._trainer_class = trainer.worker.Trainer
        self._trainer: trainer.worker.Trainer | None = None
        self._why_no_trainer = "it was given none"
        self._threads = threads
        # Which load of the pool's this is, and up to which all work is to end: a halt may overtake a load.
        self._loaded_as = 0
        self._halted_up_to = 0
        self._activity: tuple[int, int, int] | None = None

    def load(self, data: _TrainingData, number: int) -> None:
        """Holds another study's data; what is left of the study before is dropped first.

        Data that can't be held (a full GPU) are no error here, where nobody waits for the answer: work on them is.
        """
        self._loaded_as = number
        self._trainer = None
        try:
            self._trainer = self._trainer_class(
                train=data.train,
                validation=data.validation,
                preprocessing=data.preprocessing,
                task=data.task,
                input_shape=data.input_shape,
                outputs=data.outputs,
                threads=self._threads,
            )
        except Exception as error:
            self._why_no_trainer = f"{type(error).__name__}: {error}"

    def _loaded(self) -> Any:
        if self._trainer is None:
            raise NeurosweepError(f"The worker does not hold the study's data: {self._why_no_trainer}")
        return self._trainer

    def train(self, works: tuple[TrialWork, ...]) -> tuple[SegmentResult, ...]:
        epochs = {work.trial: work.epochs for work in works}
        self._activity = (works[0].trial, 0, works[0].epochs)

        def on_epoch(trial: int, result: EpochResult) -> None:
            self._activity = (trial, result.epoch, epochs[trial])

        try:
            return tuple(self._loaded().train(works, self._halted, on_epoch))
        finally:
            self._activity = None

    def forget(self, trials: tuple[int, ...]) -> None:
        for trial in trials:
            self._loaded().forget(trial)

    def test(self, settings: Settings, weights: dict[str, Any], metric: Metric, split: Split) -> TestResult:
        result: TestResult = self._loaded().test(settings, weights, metric, split)
        return result

    def export(self, settings: Settings, weights: dict[str, Any]) -> bytes:
        program: bytes = self._loaded().export(settings, weights)
        return program

    @_control
    def activity(self) -> tuple[int, int, int] | None:
        """The trial that is being trained, its last finished epoch and its last epoch at most."""
        return self._activity

    @_control
    def halt(self, number: int) -> None:
        """Ends the pack that trains, and those that wait, of loads up to this one as soon as the trainer looks up."""
        self._halted_up_to = number

    def _halted(self) -> bool:
        return self._loaded_as <= self._halted_up_to


@dataclass
class _Member:
    """One worker as the pool sees it.

    Attributes:
        pending: Packs that it has not answered, oldest first, with the calls that will.
        asked: The call that will say what it is doing.
        activity: What it was doing when it answered last: trial, epoch, epochs.
    """

    actor: Any
    pending: list[tuple[Any, tuple[TrialWork, ...]]] = field(default_factory=list)
    asked: Any = None
    activity: tuple[int, int, int] | None = None


class Pool:
    """Workers on our own Ray or on a cluster. Used from one thread: our own Ray ends with the one that started it."""

    def __init__(self) -> None:
        self._shape: WorkerShape | None = None
        self._members: list[_Member] = []
        self._data: Any = None
        self._test: Any = None
        self._loads = 0

    @classmethod
    def start(cls, address: str | None) -> Pool:
        """Connects to the cluster at `address`, or starts a Ray on this machine that ends with this process.

        Raises:
            UnreachableError: There is no such cluster, or it wants another token.
        """
        logging.getLogger("ray").setLevel(logging.ERROR)
        if address is not None:
            _check_listens(address)
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
        with warnings.catch_warnings(), _own_signal_handlers():
            warnings.simplefilter("ignore")
            try:
                if address is None:
                    ray.init(
                        address="local",
                        num_cpus=os.cpu_count(),
                        include_dashboard=False,
                        object_store_memory=OBJECT_STORE_BYTES,
                        **quiet,
                    )
                else:
                    ray.init(address=address, **quiet)
            except (ConnectionError, OSError, RuntimeError, ValueError) as exc:
                if address is None:
                    raise UnreachableError(f"Ray could not be started on this machine: {_first_line(exc)}") from exc
                raise UnreachableError(
                    f"No Ray cluster answers at {address}, or it wants another token (RAY_AUTH_TOKEN): "
                    f"{_first_line(exc)}",
                    "--ray",
                ) from exc
        return cls()

    @property
    def nodes(self) -> list[Node]:
        """The machines that Ray has at this moment: they come and go."""
        alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        return [Node(cpus=has.get("CPU", 0.0), gpus=has.get("GPU", 0.0)) for has in alive]

    def open(self, shape: WorkerShape) -> None:
        """Brings the workers up without waiting for them; those of the same shape are kept as they are."""
        if self._shape is not None and (shape.cpus, shape.gpus) != (self._shape.cpus, self._shape.gpus):
            self._kill(self._members)
            self._members = []
        while len(self._members) > shape.count:
            self._kill([self._members.pop()])
        self._shape = shape
        while len(self._members) < shape.count:
            self._members.append(_Member(self._spawn()))

    def load(self, dataset: Dataset) -> None:
        """Puts the dataset once into the object store and lets every worker take it from there."""
        data = _TrainingData(
            train=dataset.train,
            validation=dataset.validation,
            preprocessing=dataset.preprocessing,
            task=dataset.task,
            input_shape=dataset.input_shape,
            outputs=dataset.outputs,
        )
        self._data, self._test = ray.put(data), ray.put(dataset.test)
        self._loads += 1
        for member in self._members:
            # What is still under way belongs to the study before; its results are nobody's.
            member.pending = []
            member.actor.load.remote(self._data, self._loads)

    @property
    def size(self) -> int:
        return len(self._members)

    @property
    def on_gpu(self) -> bool:
        """Whether each worker has a share of a GPU."""
        return self._shape is not None and self._shape.gpus > 0

    def outstanding(self, worker: int) -> int:
        """How many packs a worker has been given and has not answered."""
        return len(self._members[worker].pending)

    def submit(self, worker: int, works: Sequence[TrialWork]) -> None:
        """Gives a worker a pack: segments that it is to train together."""
        member, pack = self._members[worker], tuple(works)
        member.pending.append((member.actor.train.remote(pack), pack))

    def forget(self, worker: int, trials: Sequence[int]) -> None:
        """Lets a worker drop the state of paused trials."""
        self._members[worker].actor.forget.remote(tuple(trials))

    def collect(self, timeout: float) -> list[Done]:
        """What has come back, in the order of submission for each worker; waits up to `timeout` seconds for the first.

        A worker that died is replaced before this returns; all that it had been given comes back with its death.
        """
        refs = [ref for member in self._members for ref, _ in member.pending]
        if not refs:
            return []
        ray.wait(refs, num_returns=1, timeout=timeout, fetch_local=False)
        ready, _ = ray.wait(refs, num_returns=len(refs), timeout=0)
        answered = set(ready)
        done: list[Done] = []
        for worker, member in enumerate(self._members):
            while member.pending and member.pending[0][0] in answered:
                ref, works = member.pending.pop(0)
                try:
                    done.append(Done(worker=worker, works=works, results=ray.get(ref)))
                except ray.exceptions.RayError as exc:
                    death = _first_line(exc)
                    done.append(Done(worker=worker, works=works, death=death))
                    done.extend(
                        Done(worker=worker, works=each, death=death, waiting=True) for _, each in member.pending
                    )
                    self._replace(worker)
                    break
        return done

    def activity(self, names: Callable[[int], str]) -> tuple[WorkerActivity, ...]:
        """What each worker was doing when it answered last; never waits for one that is starting or gone."""
        activities = []
        for worker, member in enumerate(self._members):
            if member.asked is None:
                member.asked = member.actor.activity.remote()
            elif ray.wait([member.asked], timeout=0)[0]:
                try:
                    member.activity = ray.get(member.asked)
                except ray.exceptions.RayError:
                    member.activity = None
                member.asked = member.actor.activity.remote()
            trial, epoch, epochs = member.activity or (None, 0, 0)
            activities.append(WorkerActivity(name=names(worker), trial=trial, epoch=epoch, epochs=epochs))
        return tuple(activities)

    def halt(self) -> None:
        """Tells every worker to end its pack; what is under way comes back as stopped."""
        for member in self._members:
            member.actor.halt.remote(self._loads)

    def test(self, settings: Settings, weights: dict[str, Any], metric: Metric) -> TestResult:
        """Opens the test split, for the one network that has been chosen.

        Raises:
            NeurosweepError: The worker failed.
        """
        actor = self._members[0].actor
        result: TestResult = self._answer(actor.test.remote(settings, weights, metric, self._test))
        return result

    def export(self, settings: Settings, weights: dict[str, Any]) -> Callable[[], bytes]:
        """Begins to write the network as a `torch.export` program.

        Returns:
            A call that waits for the program; it raises `NeurosweepError` where the worker failed.
        """
        exporting = self._members[0].actor.export.remote(settings, weights)
        return lambda: self._answer(exporting)

    def close(self) -> None:
        """Ends the workers, and our own Ray with them."""
        self._kill(self._members)
        self._members = []
        ray.shutdown()

    def _spawn(self) -> Any:
        shape = self._shape
        assert shape is not None  # noqa: S101 - for the type checker: open() has set it
        remote = ray.remote(
            num_cpus=shape.cpus,
            num_gpus=shape.gpus,
            concurrency_groups={"control": 1},
            max_restarts=0,
            max_task_retries=0,
        )(_Worker)
        return remote.remote(max(1, int(shape.cpus)))

    def _replace(self, worker: int) -> None:
        self._kill([self._members[worker]])
        self._members[worker] = _Member(self._spawn())
        self._members[worker].actor.load.remote(self._data, self._loads)

    def _kill(self, members: list[_Member]) -> None:
        for member in members:
            ray.kill(member.actor)

    def _answer(self, call: Any) -> Any:
        try:
            return ray.get(call)
        except ray.exceptions.RayError as exc:
            raise NeurosweepError(f"A worker failed: {_first_line(exc)}") from exc


def _check_listens(address: str) -> None:
    """Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not (host and port.isdigit()):
        return  # `auto`, or something that Ray knows better
    try:
        socket.create_connection((host, int(port)), CONNECT_SECONDS).close()
    except OSError as exc:
        raise UnreachableError(f"No Ray cluster answers at {address}: {_first_line(exc)}", "--ray") from exc


@contextlib.contextmanager
def _own_signal_handlers() -> Iterator[None]:
    """Ray takes SIGTERM for itself while it starts, and would end this process with it; that is ours to answer."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


def _first_line(exc: BaseException) -> str:
    """The telling line of an error: Ray puts the remote traceback first and the cause last."""
    lines = [line.strip() for line in str(exc).splitlines() if line.strip()]
    if not lines:
        return type(exc).__name__
    return lines[-1] if isinstance(exc, ray.exceptions.RayTaskError) else lines[0]
