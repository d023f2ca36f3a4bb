"""The product as its users have it: the command line, in a folder of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from storage.records import TrialRecord
from storage.store import Store

RUN_SECONDS = 240

SLOWEST = 3
"""A machine that is slow, or busy with other things, takes so many times as long."""

DIGITS = """\
name: digits
seed: 3
data: {source: digits, max_rows: 900}
model: [mlp, cnn]
space:
  layers: 1
  neurons: {low: 8, high: 32}
  conv_layers: {low: 1, high: 2}
  filters: {low: 2, high: 6}
  learning_rate: {low: 0.001, high: 0.03, log: true}
  batch_size: 64
budget: {trials: 12, epochs: 4}
workers: {count: 2}
"""


class Product:
    """`neurosweep`, called in `folder`.

    Args:
        settings: Environment variables, such as NEUROSWEEP_DATABASE_URL.
    """

    def __init__(self, folder: Path, **settings: str) -> None:
        self.folder = folder
        ours = ("NEUROSWEEP_DATABASE_URL", "NEUROSWEEP_HOME", "MLFLOW_TRACKING_URI", "RAY_ADDRESS")
        self._environment = {name: value for name, value in os.environ.items() if name not in ours} | settings
        self._database = settings.get("NEUROSWEEP_DATABASE_URL", f"sqlite:///{folder}/.neurosweep/neurosweep.db")

    def write(self, text: str, name: str = "study.yaml") -> None:
        (self.folder / name).write_text(text, encoding="utf-8")

    def __call__(self, *words: str, status: int = 0) -> subprocess.CompletedProcess[str]:
        """Runs a command to its end and checks its exit status."""
        ended = subprocess.run(
            self._command(*words),
            cwd=self.folder,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=RUN_SECONDS,
        )
        assert ended.returncode == status, (words, ended.returncode, ended.stdout[-2000:], ended.stderr[-2000:])
        return ended

    def json(self, *words: str, status: int = 0) -> Any:
        """A command's JSON document; there is nothing else on stdout."""
        return json.loads(self(*words, "--json", status=status).stdout)

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Starts a command, in a process group of its own, as a shell does."""
        return subprocess.Popen(
            self._command(*words),
            cwd=self.folder,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def store(self) -> Store:
        return Store.open(self._database)

    def trials(self, label: str) -> list[TrialRecord]:
        store = self.store()
        return store.trials(store.find(label).id)

    def _command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "neurosweep", *words]


def wait_until(happened: Callable[[], bool], process: subprocess.Popen[str], seconds: float = RUN_SECONDS) -> None:
    """Waits for something that a running command is to bring about."""
    deadline = time.monotonic() + SLOWEST * seconds
    while not happened():
        assert process.poll() is None, (process.returncode, process.communicate())
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.1)


def interrupt(process: subprocess.Popen[str]) -> tuple[str, str]:
    """Control-C: the terminal sends it to the whole process group."""
    os.killpg(process.pid, signal.SIGINT)
    return process.communicate(timeout=60)
