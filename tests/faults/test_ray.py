"""Ray under a study: workers that hang, its head that is killed, machines that go and come. On a real Ray."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

SETUP = """
import os, signal, sys, time
import psutil, ray
from search.placement import WorkerShape, fit_workers
from search.pool import Pool
from tests.faults.packs import data, figures, pack, until

def children(name):
    mine = psutil.Process().children(recursive=True)
    return [child for child in mine if name in " ".join(child.cmdline())]

def say(*words):
    print("said", *words, flush=True)  # Ray prints as well
"""


def in_a_process(script: str, tmp_path: Path) -> list[str]:
    """Ray ends with the process that started it, and some faults end that process: each script has its own.

    Returns:
        What it said, by lines.
    """
    whole = SETUP + textwrap.dedent(script)
    ended = subprocess.run(
        [sys.executable, "-c", whole], capture_output=True, text=True, timeout=240, cwd=Path(__file__).parents[2]
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return [line.removeprefix("said ") for line in ended.stdout.splitlines() if line.startswith("said ")]


def test_a_worker_that_hangs_is_ended_and_another_one_gives_the_same_numbers(tmp_path: Path) -> None:
    said = in_a_process(
        """
        pool = Pool.start(None)
        pool.open(WorkerShape(count=1, cpus=1.0, gpus=0.0))
        pool.load(data())
        pool.submit(0, pack(1))
        calm = until(pool, lambda done: done.results)
        os.kill(children("ray::PoolWorker")[0].pid, signal.SIGSTOP)
        pool.submit(0, pack(1))
        pool.submit(0, pack(2))
        assert pool.collect(1.0) == []
        pool.end(0, "it hung")
        dead, waiting = pool.collect(1.0)
        say(dead.death, dead.waiting, waiting.waiting, dead.blameless)
        pool.submit(0, pack(1))
        say(figures(until(pool, lambda done: done.results)) == figures(calm))
        pool.close()
        """,
        tmp_path,
    )
    assert said == ["it hung False True False", "True"]


@pytest.mark.parametrize("process", ["gcs_server", "raylet/raylet"])
def test_ray_that_is_killed_is_started_again_and_the_work_comes_back(process: str, tmp_path: Path) -> None:
    said = in_a_process(
        f"""
        pool = Pool.start(None)
        pool.open(WorkerShape(count=2, cpus=1.0, gpus=0.0))
        pool.load(data())
        pool.submit(0, pack(1))
        calm = until(pool, lambda done: done.results)
        pool.submit(1, pack(2, epochs=1_000_000))
        child = next(child for child in children({process!r}) if "{process}" in child.cmdline()[0])
        os.kill(child.pid, signal.SIGKILL)
        gone = until(pool, lambda done: done.death)
        say(gone.worker, gone.blameless)
        pool.submit(1, pack(1))
        say(figures(until(pool, lambda done: done.works and done.results)) == figures(calm))
        pool.close()
        say(len(children("ray::PoolWorker")))
        """,
        tmp_path,
    )
    assert said == ["1 True", "True", "0"]


def test_workers_go_and_come_with_their_machines(tmp_path: Path) -> None:
    said = in_a_process(
        """
        from ray.cluster_utils import Cluster
        os.environ["RAY_AUTH_MODE"] = "disabled"
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
        node = cluster.add_node(num_cpus=1)
        cluster.wait_for_nodes()
        pool = Pool.start(cluster.address)
        pool.open(fit_workers("auto", 1.0, 0.0, pool.nodes))
        pool.load(data())
        say(pool.size)
        for worker in (0, 1):
            pool.submit(worker, pack(1))
        until(pool, lambda done: done.results)
        until(pool, lambda done: done.results)
        for worker in (0, 1):
            pool.submit(worker, pack(2, epochs=1_000_000))
        pool.signs()
        cluster.remove_node(node, allow_graceful=False)
        gone = until(pool, lambda done: done.death)
        say(gone.blameless, gone.death)
        deadline = time.monotonic() + 60
        while pool.serves(gone.worker) and time.monotonic() < deadline:
            pool.signs()
            pool.collect(0.5)
        say(pool.serves(gone.worker), pool.serves(1 - gone.worker))
        cluster.add_node(num_cpus=1)
        back = until(pool, lambda done: not done.works)
        say(back.worker == gone.worker)
        pool.submit(back.worker, pack(1))
        say(until(pool, lambda done: done.results).worker == gone.worker)
        pool.close()
        cluster.shutdown()
        """,
        tmp_path,
    )
    assert said == ["2", "True its machine is gone", "False True", "True", "True"]


def test_a_worker_that_hangs_over_the_winner_is_replaced_and_the_next_one_answers(tmp_path: Path) -> None:
    said = in_a_process(
        """
        import search.pool
        from trainer.work import Metric
        from tests.faults.packs import SETTINGS
        search.pool.SILENCE_SECONDS = 3.0
        pool = Pool.start(None)
        pool.open(WorkerShape(count=1, cpus=1.0, gpus=0.0))
        pool.load(data())
        pool.submit(0, pack(1))
        weights = until(pool, lambda done: done.results).results[0].weights
        calm = pool.test(SETTINGS, weights, Metric.ERROR).value
        pool.signs()
        os.kill(children("ray::PoolWorker")[0].pid, signal.SIGSTOP)
        say(pool.test(SETTINGS, weights, Metric.ERROR).value == calm)
        pool.close()
        """,
        tmp_path,
    )
    assert said == ["True"]
