"""Control-C once and twice, SIGTERM and a closed terminal, at random times: everything so far is kept.

Four of them run by default; ``NEUROSWEEP_FAULT_RUNS=20`` runs twenty. A failing seed is in the test's name.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from storage.records import StudyState, TrialRecord, TrialState
from tests.faults.product import Fleet, assert_gone, mark, study, wait
from tests.system.product import interrupt

RUNS = int(os.environ.get("NEUROSWEEP_FAULT_RUNS", "4"))
TRIALS = 30
END_SECONDS = 10
LATEST = 14.0
"""By then the study is being trained or published; before about six seconds Ray is still starting."""


@dataclass(frozen=True)
class Blow:
    """What hits a running study, and when."""

    signals: tuple[signal.Signals, ...]
    to_group: bool
    after: float


KINDS = {
    "control-c": ((signal.SIGINT,), True),
    "control-c twice": ((signal.SIGINT, signal.SIGINT), True),
    "term": ((signal.SIGTERM,), False),
    "terminal closed": ((signal.SIGHUP,), True),
}


def blows(seed: int) -> list[tuple[str, Blow]]:
    """Every kind in turn; the moments are spread over the run's whole length, so that each phase is hit."""
    draw = random.Random(seed)
    kinds = list(KINDS)
    draw.shuffle(kinds)
    planned = []
    for number in range(RUNS):
        kind = kinds[number % len(kinds)]
        signals, to_group = KINDS[kind]
        after = LATEST * (number + draw.random()) / RUNS
        planned.append((f"{kind} after {after:.1f} s", Blow(signals, to_group, after)))
    return planned


def strike(running: subprocess.Popen[str], blow: Blow) -> tuple[str, float]:
    """Sends the signals; returns what the command wrote on stderr, and how long its end took."""
    try:
        running.wait(blow.after)
    except subprocess.TimeoutExpired:
        begun = time.monotonic()
        for number in blow.signals:
            if running.poll() is None:
                (os.killpg if blow.to_group else os.kill)(running.pid, number)
                time.sleep(0.3)  # two presses of a key; at once they would be one signal
    else:
        begun = time.monotonic()
    _, shown = running.communicate(timeout=60)
    return shown, time.monotonic() - begun


@pytest.mark.minutes_on("postgres")
@pytest.mark.parametrize("seed", [1])
def test_a_stop_at_any_moment_keeps_all_so_far_and_the_study_ends_with_exactly_what_was_asked_for(
    tmp_path: Path, database_url: str, seed: int
) -> None:
    fleet = Fleet(tmp_path, database_url)
    kept: dict[str, list[TrialRecord]] = {}
    wrong: list[str] = []
    word = mark()
    for number, (words, blow) in enumerate(blows(seed)):
        name = f"s{number}"
        file = fleet.write(name, study(name, trials=TRIALS, epochs=60, pruner="none"))
        running = fleet.product(mark=word).start("run", file)
        shown, seconds = strike(running, blow)
        with fleet.store() as store:
            known = {summary.study.name: summary.study for summary in store.list_studies()}
            found = complaints(running.returncode, shown, seconds, began=name in known)
            if name in known:
                rows = store.trials(known[name].id)
                kept[name] = [row for row in rows if row.state is not TrialState.RUNNING]
                store.requeue(known[name].id)
        wrong += [f"{words}: {complaint}" for complaint in found]
    assert not wrong, "\n".join(wrong)
    assert_gone(word)
    finish(fleet, list(kept))
    for name, before in kept.items():
        fleet.assert_whole(name, TRIALS)
        with fleet.store() as store:
            after = {row.number: row for row in store.trials(store.find(name).id)}
        assert [after[row.number] for row in before] == before, name


def complaints(status: int, shown: str, seconds: float, began: bool) -> list[str]:
    """What is not as it was promised. A study that had ended before the signal ends with 0; a command that has not
    come as far as its database may end by the signal itself."""
    found = []
    # A machine that is busy with other things takes so many times longer.
    busy = max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
    if seconds > END_SECONDS * busy:
        found.append(f"it took {seconds:.1f} s to end")
    if status not in (130, 0) and (began or status >= 0):
        found.append(f"exit status {status}: {shown[-800:]}")
    if status == 0 and "finished" not in shown:
        found.append(f"exit status 0, but it did not finish: {shown[-800:]}")
    if "Traceback" in shown:
        found.append(f"a traceback: {shown[-1500:]}")
    return found


def finish(fleet: Fleet, names: list[str]) -> None:
    """One `serve` goes on with all of them, and tells MLflow."""
    serving = fleet.product().start("serve")
    try:
        with fleet.store() as store:

            def done() -> bool:
                assert serving.poll() is None, serving.communicate()
                states = {summary.study.name: summary.study.state for summary in store.list_studies()}
                return all(states[name] is StudyState.FINISHED for name in names) and not store.pending_facts()

            wait(done, 60 + 15 * len(names))
    finally:
        _, shown = interrupt(serving)
    assert serving.returncode == 0, shown
