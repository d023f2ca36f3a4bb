"""Every benchmark runs to its end in its quick form; what it measures there means nothing."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.report import REPOSITORY

SCRIPTS = (
    "against_ray_tune",
    "dispatcher",
    "faults",
    "large_networks",
    "memory",
    "no_gain",
    "packs",
    "preview",
    "quality",
    "report_page",
    "rounds",
    "sampler",
    "soak",
    "startup",
    "thousand_workers",
    "time_to_error",
    "where_time_goes",
)
HELPERS = ("__init__", "databases", "product", "report")


def numbers(value: Any) -> list[float]:
    """Every figure in a JSON document."""
    if isinstance(value, dict):
        return numbers(list(value.values()))
    if isinstance(value, list):
        return [number for part in value for number in numbers(part)]
    return [] if isinstance(value, str | bool | None) else [value]


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_benchmark_prints_a_table_and_writes_its_figures_with_the_machine(name: str) -> None:
    if name == "report_page" and not any(map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))):
        pytest.skip("Chromium is not installed, so the report's page is not timed.")
    ended = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{name}", "--quick"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    lines = ended.stdout.splitlines()
    assert lines[0].startswith("| ")
    assert set(lines[1]) == set("|- ")
    assert lines[0].count("|") == lines[2].count("|")
    written = Path(lines[-1])
    assert written.name == f"{name}_quick.json"
    document = json.loads(written.read_text())
    machine = document.pop("machine")
    assert machine["cores"] >= 1
    assert machine["torch"].startswith("2.")
    assert len(numbers(document)) > 2


def test_every_benchmark_is_tested_and_has_a_line_in_the_readme() -> None:
    scripts = {path.stem for path in (REPOSITORY / "benchmarks").glob("*.py")}
    assert scripts == {*SCRIPTS, *HELPERS}
    readme = (REPOSITORY / "benchmarks" / "README.md").read_text()
    assert all(f"python -m benchmarks.{name}`" in readme for name in SCRIPTS)
