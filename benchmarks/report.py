"""What every benchmark ends with: a table on stdout, a JSON file, and the machine that the figures belong to."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
RESULTS = REPOSITORY / "benchmarks" / "results"
LIBRARIES = ("torch", "optuna", "ray", "mlflow", "sqlalchemy", "numpy", "scikit-learn")


def machine() -> dict[str, Any]:
    """The processor, its cores, and the versions of those libraries that matter and are there."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        model = names[0].partition(":")[2].strip() if names else model
    versions = {}
    for name in LIBRARIES:
        with contextlib.suppress(metadata.PackageNotFoundError):  # a bare GPU machine has but some of them
            versions[name] = metadata.version(name)
    return {"processor": model, "cores": os.cpu_count(), "python": platform.python_version(), **versions}


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table."""
    cells = [[_cell(value) for value in row] for row in rows]
    widths = [max(len(str(name)), *(len(row[i]) for row in cells)) for i, name in enumerate(head)]
    lines = ["| " + " | ".join(str(name).ljust(width) for name, width in zip(head, widths, strict=True)) + " |"]
    lines.append("| " + " | ".join("-" * width for width in widths) + " |")
    lines.extend("| " + " | ".join(v.ljust(w) for v, w in zip(row, widths, strict=True)) + " |" for row in cells)
    return "\n".join(lines)


def _cell(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def save(name: str, figures: dict[str, Any]) -> Path:
    """Writes the figures as JSON into benchmarks/results, with the machine and the time."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    document = {"benchmark": name, "at": datetime.now(UTC).isoformat(timespec="seconds"), "machine": machine()}
    path.write_text(json.dumps({**document, **figures}, indent=1) + "\n", encoding="utf-8")
    return path


def spread(values: Sequence[float]) -> str:
    """The median, with the smallest and the largest value."""
    return f"{statistics.median(values):.3g} ({min(values):.3g} to {max(values):.3g})"


def timed(command: Sequence[str], folder: Path, **environment: str) -> tuple[float, str]:
    """Runs a whole process in `folder`.

    Returns:
        Its wall time in seconds, and what it printed on stdout.

    Raises:
        SystemExit: It failed; its stderr is shown.
    """
    started = time.perf_counter()
    ended = subprocess.run(command, cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True)
    seconds = time.perf_counter() - started
    if ended.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{ended.stderr[-3000:]}")
    return seconds, ended.stdout


def side_by_side(module: str, orders: Sequence[dict[str, Any]]) -> tuple[float, list[dict[str, Any]]]:
    """Runs a process of `benchmarks.peers` for each order; they begin together, once all are ready.

    Returns:
        Seconds from the first one's beginning to the last one's end, imports and data left out; and what each answered.

    Raises:
        SystemExit: One of them failed; its stderr has been shown.
    """
    command = [sys.executable, "-m", f"benchmarks.peers.{module}"]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "cwd": REPOSITORY}
    processes = [subprocess.Popen(command, **pipes) for _ in orders]
    for process, order in zip(processes, orders, strict=True):
        _tell(process, json.dumps(order))
    for process in processes:
        _heard(process)
    for process in processes:
        _tell(process, "begin")
    answers = [json.loads(_heard(process)) for process in processes]
    for process in processes:
        process.communicate()
    seconds = max(answer["ended"] for answer in answers) - min(answer["began"] for answer in answers)
    return seconds, answers


def _tell(process: subprocess.Popen[str], line: str) -> None:
    assert process.stdin is not None
    process.stdin.write(line + "\n")
    process.stdin.flush()


def _heard(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        sys.exit(f"{process.args!r} failed")
    return line
