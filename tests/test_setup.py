"""make setup: what is missing is said in a sentence, and what it installs is pinned and has a reason."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
TO_RUN = [Requirement(line) for line in PROJECT["dependencies"]]
TO_DEVELOP = [Requirement(line) for line in PROJECT["optional-dependencies"]["dev"]]
PINS = dict(
    line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")
)


def make_setup(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs ``make setup`` as if .venv were in `folder`; none of these tests gets as far as to make it."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS", "PYTHON"))}
    return subprocess.run(
        [shutil.which("make") or "make", "setup", f"VENV={folder / 'venv'}"],
        cwd=ROOT,
        env=clean | environment,
        capture_output=True,
        text=True,
        timeout=60,
    )


def fake_python(folder: Path, script: str) -> str:
    path = folder / "python3"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


def test_an_interpreter_that_is_not_there(tmp_path: Path) -> None:
    said = make_setup(tmp_path, PYTHON="no-such-python")

    assert said.returncode != 0
    assert "there is no program 'no-such-python'" in said.stderr


def test_an_interpreter_that_is_too_old(tmp_path: Path) -> None:
    said = make_setup(tmp_path, PYTHON=fake_python(tmp_path, "echo Python 3.10.4; exit 1"))

    assert said.returncode != 0
    assert "Python 3.11 or newer is needed" in said.stderr
    assert "Python 3.10.4" in said.stderr


def test_an_interpreter_without_its_venv_module(tmp_path: Path) -> None:
    said = make_setup(tmp_path, PYTHON=fake_python(tmp_path, 'case "$2" in *ensurepip*) exit 1;; esac'))

    assert said.returncode != 0
    assert "install its venv module" in said.stderr


def test_no_python_at_all(tmp_path: Path) -> None:
    for tool in ("sh", "grep", "awk", "df"):
        (tmp_path / tool).symlink_to(shutil.which(tool) or tool)

    said = make_setup(tmp_path, PATH=str(tmp_path))

    assert said.returncode != 0
    assert "none is on the PATH" in said.stderr


def test_a_full_disk(tmp_path: Path) -> None:
    (tmp_path / "df").write_text("#!/bin/sh\necho 'Filesystem 1024-blocks Used Available'; echo 'disk 9 9 102400'\n")
    (tmp_path / "df").chmod(0o755)

    said = make_setup(tmp_path, PATH=f"{tmp_path}:{os.environ['PATH']}")

    assert said.returncode != 0
    assert "MiB of disk are needed here and 100 are free" in said.stderr


@pytest.mark.parametrize("wanted", TO_RUN + TO_DEVELOP, ids=str)
def test_every_dependency_is_pinned_within_its_range(wanted: Requirement) -> None:
    pins = {canonicalize_name(name): version for name, version in PINS.items()}

    assert Version(pins[canonicalize_name(wanted.name)]) in wanted.specifier


def test_torch_is_pinned_without_a_builds_name() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", PINS["torch"])
    assert f"TORCH ?= torch=={PINS['torch']}" in (ROOT / "Makefile").read_text()


def test_every_dependency_has_its_reason() -> None:
    page = (ROOT / "docs/dependencies.md").read_text()
    to_run, to_develop = page.split("## To develop")
    rows = re.compile(r"^\| ([\w.-]+) \| \S.{15,}", re.MULTILINE)

    assert [name for name in rows.findall(to_run) if name != "package"] == [wanted.name for wanted in TO_RUN]
    assert [name for name in rows.findall(to_develop) if name != "package"] == [wanted.name for wanted in TO_DEVELOP]
