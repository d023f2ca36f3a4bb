"""The walls between the rooms stand, and each one is seen to fall when it is broken."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("neurosweep", "search", "storage", "trainer")
CONTRACTS = [
    c["name"] for c in tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
]

# Who imports what where it must not, for every contract of pyproject.toml.
TRESPASSES = {
    "trainer imports neither search nor storage": [("trainer", "search"), ("trainer", "storage.records")],
    "storage imports neither search nor trainer": [("storage", "search"), ("storage", "trainer.settings")],
    "the shared errors import nothing of ours": [
        ("neurosweep.errors", "search"),
        ("neurosweep.errors", "trainer.work"),
    ],
    "Ray has one door": [(room, "ray") for room in ROOMS] + [("search.commands", "ray.exceptions")],
    "Optuna has its doors": [("neurosweep", "optuna"), ("storage", "optuna.trial"), ("trainer", "optuna")],
    "SQLAlchemy and Alembic live in storage": [
        ("search", "sqlalchemy.orm"),
        ("trainer", "alembic"),
        ("search", "alembic"),
    ],
    "MLflow has one door": [(room, "mlflow") for room in ROOMS] + [("search.commands", "mlflow.pyfunc")],
    "torch lives in the trainer": [("neurosweep", "torch"), ("search", "torch.nn"), ("storage", "torch")],
}


def test_every_contract_is_tried_with_a_trespass() -> None:
    assert sorted(TRESPASSES) == sorted(CONTRACTS)


def test_the_walls_stand() -> None:
    said = lint(ROOT)

    assert said.returncode == 0, said.stdout
    assert f"{len(CONTRACTS)} kept, 0 broken" in said.stdout


@pytest.mark.parametrize("contract", CONTRACTS)
def test_a_trespass_breaks_its_wall(contract: str, tmp_path: Path) -> None:
    copy_of_the_rooms(tmp_path)
    # Inside a function: a lazy import is as much of a door as one at the top.
    planted = [plant(tmp_path, n, *trespass) for n, trespass in enumerate(TRESPASSES[contract])]

    said = lint(tmp_path)

    assert said.returncode == 1
    assert f"{contract} BROKEN" in said.stdout
    for importer, imported in planted:
        # With more than one way through, import-linter names the others after an ampersand.
        assert any(importer in line and imported in line for line in said.stdout.splitlines()), said.stdout


def test_the_trainer_starts_with_torch_numpy_and_the_standard_library_alone() -> None:
    allowed = sys.stdlib_module_names | {"numpy", "torch", "neurosweep", "trainer"}

    assert {(path, name) for path, name in top_imports("trainer") if name.split(".")[0] not in allowed} == set()


def test_reading_data_needs_no_torch() -> None:
    assert [
        p for p in sorted((ROOT / "trainer/data").glob("*.py")) if "torch" in roots(imports(p, at_the_top=False))
    ] == []


def test_the_champions_own_code_imports_nothing_of_ours() -> None:
    assert roots(imports(ROOT / "storage/champion_model.py", at_the_top=False)).isdisjoint(ROOMS)


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [
        str(Path(sys.executable).with_name("lint-imports")),
        "--no-logo",
        "--no-cache",
        "--config",
        "pyproject.toml",
    ]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)


def copy_of_the_rooms(folder: Path) -> None:
    for room in ROOMS:
        shutil.copytree(ROOT / room, folder / room, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)


def plant(folder: Path, number: int, importer: str, imported: str) -> tuple[str, str]:
    """Add the import to a room, as a module of its own, or to the module that is named. Returns both as reported."""
    place = folder / importer.replace(".", "/")
    module = place / f"planted_{number}.py" if place.is_dir() else place.with_suffix(".py")
    with module.open("a") as file:
        file.write(f"\n\ndef planted_{number}() -> None:\n    import {imported}\n")
    ours = imported.split(".")[0] in ROOMS
    return module.relative_to(folder).with_suffix("").as_posix().replace(
        "/", "."
    ), imported if ours else imported.split(".")[0]


def top_imports(room: str) -> Iterator[tuple[str, str]]:
    for path in sorted((ROOT / room).rglob("*.py")):
        for name in imports(path, at_the_top=True):
            yield str(path.relative_to(ROOT)), name


def imports(path: Path, *, at_the_top: bool) -> set[str]:
    """The modules that a file imports; `at_the_top` leaves out what is imported inside functions."""
    tree = ast.parse(path.read_text())
    nodes = tree.body if at_the_top else ast.walk(tree)
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module)
    return found


def roots(names: set[str]) -> set[str]:
    return {name.split(".")[0] for name in names}
