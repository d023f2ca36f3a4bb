"""A way to call the command line, in an empty folder, and the database that it opens there."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from search.commands.main import main
from storage.store import Store
from tests.search.commands.shelf import Call, Ended, Shelf


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder, and none of the caller's own settings."""
    for name in ("NEUROSWEEP_DATABASE_URL", "MLFLOW_TRACKING_URI", "RAY_ADDRESS", "NEUROSWEEP_HOME", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Call:
    def run(*arguments: str) -> Ended:
        capsys.readouterr()
        status = main(arguments)
        captured = capsys.readouterr()
        return Ended(status=status, out=captured.out, err=captured.err)

    return run


@pytest.fixture
def shelf(folder: Path) -> Shelf:
    """The database that a command in this folder opens by default."""
    return Shelf(Store.open(f"sqlite:///{folder / '.neurosweep' / 'neurosweep.db'}"))


@pytest.fixture(autouse=True)
def own_signal_handlers() -> Iterator[None]:
    """A command that was stopped leaves its handlers in place, as its process is about to end: this one is not."""
    kept = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in kept.items():
        signal.signal(number, handler)
