"""MLflow's tracking stores for the storage room's tests: each takes seconds to make, so each is made once."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from storage.mlflow_door import connect
from storage.store import Store
from tests import small_study
from tests.mlflow_server import MlflowServer, mlflow_server


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    """A real `mlflow server`; each test's study has a name of its own."""
    with mlflow_server(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture(scope="session")
def file_tracking(tmp_path_factory: pytest.TempPathFactory) -> str:
    """MLflow in a SQLite file; likewise."""
    address = f"sqlite:///{tmp_path_factory.mktemp('tracking') / 'mlflow.db'}"
    connect(address).search_experiments()
    return address


@pytest.fixture
def fresh_tracking(file_tracking: str, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> str:
    """A SQLite file of the test's own."""
    shutil.copy(file_tracking.removeprefix("sqlite:///"), tmp_path / "mlflow.db")
    return f"sqlite:///{tmp_path / 'mlflow.db'}"


@pytest.fixture(scope="session")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network for the small study's rows, as a `torch.export` program."""
    file = tmp_path_factory.mktemp("network") / "network.pt2"
    small_study.export_network(file, inputs=4, outputs=2)
    return file


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def store(home: Path) -> Iterator[Store]:
    """The studies' database in the home folder."""
    store = Store.open(f"sqlite:///{home / 'neurosweep.db'}")
    yield store
    store.close()
