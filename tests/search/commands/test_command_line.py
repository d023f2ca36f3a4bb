import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from search.commands import looking
from search.commands.main import cli
from search.commands.options import places
from tests.search.commands.shelf import Call, Shelf, environment

CONTRACT = [
    "init",
    "validate",
    "describe",
    "run",
    "submit",
    "serve",
    "list",
    "status",
    "watch",
    "best",
    "resume",
    "cancel",
    "predict",
    "explain",
    "report",
    "refine",
    "compare",
    "ui",
    "sync",
    "doctor",
    "export",
    "import",
    "version",
]


def test_every_command_of_the_contract_is_there() -> None:
    assert sorted(cli.commands) == sorted(CONTRACT)


@pytest.mark.parametrize("command", CONTRACT)
def test_help_fits_80_columns_and_names_each_variable_and_default(command: str, call: Call) -> None:
    page = call(command, "--help")
    assert (page.status, page.err) == (0, "")
    assert max(map(len, page.out.splitlines())) <= 80
    assert "--json" in page.out
    words = " ".join(page.out.split())
    for part in (
        "[env: NEUROSWEEP_DATABASE_URL; default: .neurosweep/neurosweep.db]",
        "[env: MLFLOW_TRACKING_URI; default: .neurosweep/mlflow.db]",
        "[env: RAY_ADDRESS; default: a Ray of its own]",
        "[env: NEUROSWEEP_HOME; default: .neurosweep]",
    ):
        assert part in words


def test_no_command_shows_the_help_as_bad_input(call: Call) -> None:
    ended = call()
    assert (ended.status, ended.out) == (2, "")
    assert "Commands:" in ended.err


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["lits"], "Did you mean"),
        (["list", "--jsno"], "--json"),
        (["run"], "FILE"),
        (["resume", "digits", "--trials", "0"], "--trials"),
        (["--database"], "--database"),
    ],
)
def test_wrong_arguments_are_one_line_and_exit_2(arguments: list[str], part: str, call: Call) -> None:
    ended = call(*arguments)
    assert (ended.status, ended.out) == (2, "")
    assert ended.err.startswith("error: ") and ended.err.count("\n") == 1
    assert part in ended.err


def test_wrong_arguments_with_json_are_a_document_on_stdout(call: Call) -> None:
    ended = call("run", "--json")
    assert (ended.status, ended.err) == (2, "")
    assert set(ended.document) == {"error"}
    assert set(ended.document["error"]) == {"kind", "message", "where"}
    assert ended.document["error"]["kind"] == "bad_input"


def test_an_unforeseen_error_has_no_traceback_and_no_text(monkeypatch: pytest.MonkeyPatch, call: Call) -> None:
    def broken(where: object) -> None:
        raise RuntimeError("postgresql://me:hunter2@db/studies")

    monkeypatch.setattr(looking, "open_store", broken)
    ended = call("list")
    assert (ended.status, ended.out) == (1, "")
    assert ended.err == "error: Something broke that should not: RuntimeError. Add --debug to see where.\n"
    assert call("list", "--json").document["error"]["kind"] == "error"
    with pytest.raises(RuntimeError):
        call("list", "--debug")


@pytest.mark.parametrize("option", ["--json", None])
def test_a_database_that_does_not_answer_exits_3_without_its_password(option: str | None, call: Call) -> None:
    address = "postgresql://me:hunter2@127.0.0.1:1/studies"
    ended = call("list", "--database", address, *([option] if option else []))
    assert ended.status == 3
    assert "hunter2" not in ended.out + ended.err
    if option:
        assert ended.document["error"]["kind"] == "unreachable"
    else:
        assert ended.err.startswith("error: ") and ended.err.count("\n") <= 2


def test_a_place_stands_before_or_behind_the_command_and_the_one_behind_wins(
    folder: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEUROSWEEP_DATABASE_URL", f"sqlite:///{folder}/environment.db")
    call("list")
    call("--database", "before.db", "list")
    call("list", "--database", "behind.db")
    call("--database", "loser.db", "list", "--database", f"sqlite:///{folder}/winner.db")
    assert {path.name for path in folder.glob("*.db")} == {"environment.db", "before.db", "behind.db", "winner.db"}


def test_the_defaults_are_under_the_home_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEUROSWEEP_HOME", "elsewhere")
    with cli.make_context("neurosweep", ["list"]):
        found = places()
    assert found.home == folder / "elsewhere"
    assert found.database == f"sqlite:///{folder}/elsewhere/neurosweep.db"
    assert found.tracking == f"sqlite:///{folder}/elsewhere/mlflow.db"
    assert found.ray is None


@pytest.mark.parametrize(("address", "part"), [("localhost:5000", "http://localhost:5000"), (".", "folder")])
def test_an_address_that_can_be_no_address_is_bad_input(address: str, part: str, call: Call) -> None:
    ended = call("ui", "--tracking", address)
    assert ended.status == 2
    assert part in ended.err and "--tracking" in ended.err


def test_version_names_ours_python_and_the_libraries(call: Call) -> None:
    found = call("version", "--json").document
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
    assert {"torch", "ray", "optuna", "mlflow", "sqlalchemy"} <= set(found["libraries"])
    assert found["libraries"]["optuna"] == "5.0.0"
    assert found["neurosweep"] in call("version").out


def test_a_reader_that_leaves_early_is_no_error(shelf: Shelf, folder: Path) -> None:
    for _ in range(3):
        shelf.queued()
    reading, writing = os.pipe()
    os.close(reading)
    ended = subprocess.run(
        [sys.executable, "-m", "neurosweep", "list"],
        stdout=writing,
        stderr=subprocess.PIPE,
        cwd=folder,
        env=environment(),
        timeout=60,
    )
    os.close(writing)
    assert (ended.returncode, ended.stderr) == (0, b"")


def test_a_terminal_without_utf8_gets_ascii(shelf: Shelf, folder: Path) -> None:
    shelf.finished()
    for arguments in (["list"], ["best", "digits"], ["status", "digits"]):
        ended = subprocess.run(
            [sys.executable, "-m", "neurosweep", *arguments],
            capture_output=True,
            cwd=folder,
            env=environment(PYTHONIOENCODING="ascii"),
            timeout=60,
        )
        assert ended.returncode == 0
        assert ended.stdout.isascii() and b"digits" in ended.stdout


LIGHT = """
import json, sys
from search.commands.main import main
status = main(sys.argv[1:])
heavy = [name for name in ("torch", "ray", "mlflow", "optuna") if name in sys.modules]
print(json.dumps({"status": status, "heavy": heavy}), file=sys.stderr)
"""


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["list"], ["status", "digits"], ["submit", "table.yaml"], ["validate", "table.yaml"], ["version"]],
    ids=lambda arguments: arguments[0],
)
def test_light_commands_start_without_the_heavy_libraries(arguments: list[str], shelf: Shelf, folder: Path) -> None:
    shelf.finished()
    rows = [f"{n % 7},{n % 5},{'yes' if n % 2 else 'no'}" for n in range(60)]
    (folder / "table.csv").write_text("\n".join(["a,b,answer", *rows]))
    (folder / "table.yaml").write_text("name: table\ndata: {source: table.csv, target: answer}\n")
    ended = subprocess.run(
        [sys.executable, "-c", LIGHT, *arguments],
        capture_output=True,
        text=True,
        cwd=folder,
        env=environment(),
        timeout=60,
    )
    assert json.loads(ended.stderr.splitlines()[-1]) == {"status": 0, "heavy": []}
