"""How quick the report's page is with a made-up study of 10,000 trials, in a headless Chromium.

A filter is timed from the change to the frame that shows it, and to the last frame in which lines were added; the
page's own processor time tells what that would be on a machine that does nothing else.

python -m benchmarks.report_page [--trials 10000] [--repeat 9] [--quick]
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from playwright.sync_api import CDPSession, Page, sync_playwright

from benchmarks.report import save, spread, table
from search.insight.report_page import report_page
from tests.search.insight.samples import sample_report, sample_study, sample_trials

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
QUIET = ("--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking")

FILTERS = {
    "half of the trials": "setFilter(axes[0], [0, axes[0].scale.back(0.5)])",
    "the best tenth": "setFilter(metricColumn, [0, metricColumn.values[byRank[COUNT / 10 | 0]]])",
    "nearly all": "setFilter(metricColumn, [0, 1e9])",
    "one state": "states.delete('pruned'); applyFilters()",
}
CLEAR = "filters.clear(); everyState.forEach((state) => states.add(state)); applyFilters()"

FRAMES = """change => new Promise(done => {
  const start = performance.now();
  let first = 0, last = 0;
  const paint = Pixels.prototype.paint;
  Pixels.prototype.paint = function (...rest) { paint.apply(this, rest); last = performance.now(); };
  new Function(change)();
  requestAnimationFrame(() => requestAnimationFrame(() => { first = performance.now(); }));
  setTimeout(() => {
    Pixels.prototype.paint = paint;
    done([first - start, Math.max(first, last) - start]);
  }, 1500);
})"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--repeat", type=int, default=9)
    parser.add_argument("--quick", action="store_true", help="300 trials, one repetition")
    chosen = parser.parse_args()
    trials, repeat = (300, 1) if chosen.quick else (chosen.trials, chosen.repeat)
    if CHROMIUM is None:
        sys.exit("Chromium is not installed, so there is nothing to open the page with.")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "report.html"
        file.write_text(_page(trials), encoding="utf-8")
        found = _measure(file, Path(folder), repeat)
        size = file.stat().st_size
    rows = [(name, spread(each["first"]), spread(each["whole"]), spread(each["cpu"])) for name, each in found.items()]
    print(table(("what", "first picture, ms", "whole picture, ms", "processor, ms"), rows))
    figures = {"trials": trials, "bytes": size, "load": os.getloadavg()[0], "milliseconds": found}
    print(f"\n{save('report_page' + ('_quick' if chosen.quick else ''), figures)}")


def _page(count: int) -> str:
    trials, epochs = sample_trials(count)
    return report_page(sample_report(trials), sample_study(count), trials, epochs)


def _measure(file: Path, folder: Path, repeat: int) -> dict[str, dict[str, list[float]]]:
    root = ("--no-sandbox",) if os.geteuid() == 0 else ()
    found: dict[str, dict[str, list[float]]] = {}
    with sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            folder / "profile",
            executable_path=CHROMIUM,
            args=[*QUIET, *root],
            viewport={"width": 1280, "height": 900},
        )
        page = context.pages[0]
        session = context.new_cdp_session(page)
        session.send("Performance.enable", {"timeDomain": "threadTicks"})
        for _ in range(repeat):
            _add(found, "opening", *_opened(page, session, file))
        page.evaluate("document.getElementById('trials').scrollIntoView()")
        for name, change in FILTERS.items():
            for _ in range(repeat):
                page.evaluate(CLEAR)
                time.sleep(1)
                before = _cpu(session)
                first, whole = page.evaluate(FRAMES, change)
                _add(found, f"filter: {name}", first, whole, _cpu(session) - before)
        context.close()
    return found


def _opened(page: Page, session: CDPSession, file: Path) -> tuple[float, float, float]:
    """A page of its own has a thread whose time begins with it."""
    page.goto("about:blank")
    page.goto(file.as_uri())
    shown = page.evaluate(
        "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(performance.now()))))"
    )
    return shown, shown, _cpu(session)


def _cpu(session: CDPSession) -> float:
    metrics = session.send("Performance.getMetrics")["metrics"]
    return 1000 * next(metric["value"] for metric in metrics if metric["name"] == "TaskDuration")


def _add(found: dict[str, dict[str, list[float]]], name: str, *values: Any) -> None:
    place = found.setdefault(name, {"first": [], "whole": [], "cpu": []})
    for key, value in zip(place, values, strict=True):
        place[key].append(round(float(value), 1))


if __name__ == "__main__":
    main()
