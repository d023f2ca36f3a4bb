"""Machines whose clocks are an hour off, forward and back.

Leases run on the database's clock. With PostgreSQL that is the server's, and a machine's own clock changes nothing but
the times that are written down. SQLite has no server: its clock is that of the process that asks. There a clock that
is set forward makes a lease look run out, so that two may hold a study for a moment; the token lets only the newer
one write.

The commands get their clock from a library of a few lines, made here with the C compiler.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from storage.records import StudyState, TrialState
from storage.store import Store
from tests.faults.product import Fleet, assert_gone, mark, study, wait
from tests.system.product import interrupt, wait_until

HOUR = 3600
TRIALS = 30

CLOCK = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>

static long shift(void) { const char *s = getenv("SHIFTED_CLOCK"); return s ? atol(s) : 0; }

int clock_gettime(clockid_t clock, struct timespec *at) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int answer = real(clock, at);
    if (!answer && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) at->tv_sec += shift();
    return answer;
}

int gettimeofday(struct timeval *restrict at, void *restrict zone) {
    struct timespec now;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &now);
    at->tv_sec = now.tv_sec;
    at->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *at) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (at) *at = now.tv_sec;
    return now.tv_sec;
}
"""


@pytest.fixture(scope="session")
def clock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library; a process that loads it sees a clock that is SHIFTED_CLOCK seconds off."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        missing = "There is no C compiler, so no clock is set."
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)
    folder = tmp_path_factory.mktemp("clock")
    (folder / "clock.c").write_text(CLOCK)
    command = [compiler, "-shared", "-fPIC", "-O1", "-o", "clock.so", "clock.c", "-ldl"]
    subprocess.run(command, cwd=folder, check=True)
    return folder / "clock.so"


def shifted(clock: Path, seconds: int) -> dict[str, str]:
    return {"LD_PRELOAD": str(clock), "SHIFTED_CLOCK": str(seconds)}


def token(store: Store) -> int:
    with store._engine.connect() as connection:
        return int(connection.exec_driver_sql("SELECT max(token) FROM neurosweep_study").scalar() or 0)


@pytest.mark.parametrize("first, second", [(HOUR, -HOUR)])
def test_dispatchers_whose_clocks_are_hours_apart_share_a_study_in_turn(
    tmp_path: Path, postgres_url: str, clock: Path, first: int, second: int
) -> None:
    fleet, word = Fleet(tmp_path, postgres_url), mark()
    file = fleet.write("iris", study("iris", trials=TRIALS, epochs=600, pruner="none"))
    running = fleet.product(mark=word, **shifted(clock, first)).start("run", file)
    heir = fleet.product(**shifted(clock, second)).start("serve")
    try:
        with fleet.store() as store:
            wait_until(lambda: fleet.ended("iris") >= 2, running, 120)
            assert token(store) == 1, "it was taken over while its dispatcher lived"
            running.kill()
            running.communicate()
            taken = wait(lambda: token(store) == 2, 45)
            wait(lambda: store.find("iris").state is StudyState.FINISHED and not store.pending_facts(), 120)
    finally:
        _, shown = interrupt(heir)
    assert heir.returncode == 0, shown
    assert taken < 32, f"taken over after {taken:.1f} s"
    assert_gone(word)
    fleet.assert_whole("iris", TRIALS, clock_moved=True)


@pytest.mark.parametrize("first, second", [(HOUR, 0), (0, HOUR)])
def test_a_clock_that_was_set_between_two_dispatchers_of_a_file_keeps_nobody_waiting(
    tmp_path: Path, clock: Path, first: int, second: int
) -> None:
    """Back: the dead dispatcher's lease lies an hour ahead, and that is no lease. Forward: it has run out."""
    fleet, word = Fleet(tmp_path), mark()
    file = fleet.write("iris", study("iris", trials=TRIALS, epochs=600, pruner="none"))
    running = fleet.product(mark=word, **shifted(clock, first)).start("run", file)
    with fleet.store() as store:
        wait_until(lambda: fleet.ended("iris") >= 2, running, 120)
        running.kill()
        running.communicate()
        heir = fleet.product(**shifted(clock, second)).start("serve")
        try:
            wait(lambda: token(store) == 2, 60)
            wait(lambda: store.find("iris").state is StudyState.FINISHED and not store.pending_facts(), 120)
        finally:
            _, shown = interrupt(heir)
    assert heir.returncode == 0, shown
    assert_gone(word)
    fleet.assert_whole("iris", TRIALS, clock_moved=True)


def test_a_clock_that_is_set_forward_while_a_dispatcher_works_lets_only_one_of_two_write(
    tmp_path: Path, clock: Path
) -> None:
    fleet, word = Fleet(tmp_path), mark()
    file = fleet.write("iris", study("iris", trials=TRIALS, epochs=800, pruner="none"))
    robbed = fleet.product(mark=word).start("run", file)
    with fleet.store() as store:
        wait_until(lambda: fleet.ended("iris") >= 2, robbed, 120)
        heir = fleet.product(**shifted(clock, HOUR)).start("serve")
        try:
            _, told = robbed.communicate(timeout=90)
            wait(lambda: store.find("iris").state is StudyState.FINISHED and not store.pending_facts(), 180)
        finally:
            _, shown = interrupt(heir)
    assert heir.returncode == 0, shown
    # It has lost the study, unless it was quick enough to end it.
    assert robbed.returncode in (0, 1), told
    assert "Traceback" not in told
    assert robbed.returncode == 0 or "Another dispatcher works on iris now" in told
    assert_gone(word)
    fleet.assert_whole("iris", TRIALS, clock_moved=True)
    with fleet.store() as store:
        assert all(row.state is TrialState.COMPLETE for row in store.trials(store.find("iris").id))
