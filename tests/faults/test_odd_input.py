"""Input that nobody should have to survive: names in any script, huge study files, a thousand studies, losses that
explode, and a trial that prints a gigabyte."""

from __future__ import annotations

import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import pytest

from neurosweep.errors import NoSuchStudyError
from search.commands.main import main
from storage.records import NewStudy, StudyState
from storage.store import Store
from tests.faults.product import Fleet, mark, marked, study
from tests.system.product import wait_until

MEGABYTE = 1 << 20

NAMES = [
    "",
    " ",
    "-",
    "--",
    "名前",
    "שלום",
    "😀",
    "e\u0301",
    "a\u202eb",
    "it's",
    '"quoted"',
    "`whoami`",
    "'; DROP TABLE neurosweep_study; --",
    "../../etc/passwd",
    "a/b",
    "a\nb",
    "a\tb",
    "\x1b[31mred",
    "\udcff\udcfe",
    "%s%n",
    "{0.__class__}",
    "iris@0",
    "iris@-1",
    "iris@1e9",
    "iris@٣",
    "iris@iris@1",
    "@",
    "x" * 1_000,
]


@pytest.fixture
def here(tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A folder with a database that has one study, `iris`; commands work there."""
    for name in ("MLFLOW_TRACKING_URI", "RAY_ADDRESS", "NEUROSWEEP_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NEUROSWEEP_DATABASE_URL", database_url)
    monkeypatch.chdir(tmp_path)
    Store.open(database_url).submit(NewStudy(name="iris", spec={"name": "iris"}, text="name: iris\n", trials=1))
    return database_url


def is_an_error_in_words(told: str) -> bool:
    lines = told.strip().splitlines()
    return 1 <= len(lines) <= 2 and "Traceback" not in told and "should not" not in told and len(told) < 2000


@pytest.mark.parametrize("command", ["status", "best", "cancel", "resume"])
def test_no_name_is_too_odd_to_ask_for(here: str, command: str, capsys: pytest.CaptureFixture[str]) -> None:
    for name in NAMES:
        status = main([command, "--", name])
        told = capsys.readouterr()
        assert status in (2, 4), (name[:50], status)
        assert told.out == ""
        assert is_an_error_in_words(told.err), (name[:50], told.err[:3000])
        assert "\x1b" not in told.err, "a name colours the terminal"
    assert [summary.study.name for summary in Store.open(here).list_studies()] == ["iris"]


def test_a_study_file_refuses_an_odd_name_in_words(
    here: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in [*NAMES, "Iris", "a" * 65, ".hidden", "_x"]:
        quoted = "".join(f"\\U{ord(letter):08x}" for letter in name)
        (tmp_path / "study.yaml").write_text(f'name: "{quoted}"\ndata: {{source: iris}}\n', encoding="utf-8")
        status = main(["submit", "study.yaml"])
        told = capsys.readouterr()
        assert status == 2, (name[:50], told)
        assert is_an_error_in_words(told.err), (name[:50], told.err[:3000])
        assert "\x1b" not in told.err, "a name colours the terminal"
    assert [summary.study.name for summary in Store.open(here).list_studies()] == ["iris"]


BIG = {
    "comments": ("name: big\ndata: {source: iris}\n", "# a comment of no use at all, and not a short one either\n"),
    "a long list": ("name: big\ndata: {source: iris}\nspace:\n  neurons:\n", "    - 16\n"),
    "many keys": ("name: big\ndata: {source: iris}\nspace:\n", None),
    "one long text": ("name: big\ndata: {source: iris}\ntask: ", "x" * 1000),
    "deep": ("name: big\ndata: ", "["),
    "no line's end": ("name: big\ndata: {source: iris, features: [", "a, "),
}


@pytest.mark.parametrize("kind", BIG)
def test_a_study_file_of_ten_megabytes_is_read_or_refused_in_seconds_and_little_memory(
    tmp_path: Path, kind: str
) -> None:
    start, part = BIG[kind]
    if part is None:
        text = start + "".join(f"  key_{number}: 1\n" for number in range(700_000))
    else:
        text = start + part * (10 * MEGABYTE // len(part))
    fleet = Fleet(tmp_path)
    file = fleet.write("big", text)
    assert (tmp_path / file).stat().st_size > 9 * MEGABYTE
    # Ended by the system where it takes more: then there is no error in words.
    limited = f"ulimit -v {1536 * 1024}; exec {sys.executable} -m neurosweep validate {file}"
    begun = resource.getrusage(resource.RUSAGE_CHILDREN)
    ended = subprocess.run(["sh", "-c", limited], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime - begun.ru_utime
    assert seconds < 15, f"{seconds:.1f} s of a core"
    if ended.returncode != 0:
        assert ended.returncode == 2, ended
        assert is_an_error_in_words(ended.stderr), ended.stderr[:3000]


@pytest.mark.parametrize("studies", [1000])
def test_a_thousand_studies_wait_in_order_and_list_and_claim_stay_quick(database_url: str, studies: int) -> None:
    store = Store.open(database_url)
    names = [f"study-{number % 50}" for number in range(studies)]
    for name in names:
        store.submit(NewStudy(name=name, spec={"name": name, "text": "x" * 2000}, text="x" * 2000, trials=10))
    listed = sorted(_seconds(store.list_studies) for _ in range(3))[1]
    taken, took = [], []
    for _ in range(100):
        begun = time.perf_counter()
        claim = store.claim("somebody")
        took.append(time.perf_counter() - begun)
        assert claim is not None
        taken.append(claim.study)
    assert [record.name for record in taken] == names[:100]
    assert [record.number for record in taken[:100:50]] == [1, 2]
    assert [summary.study.id for summary in store.list_studies()] == list(range(studies, 0, -1))
    assert listed < 1.0
    assert sorted(took)[50] < 0.1
    with pytest.raises(NoSuchStudyError, match="did you mean"):
        store.find("study-7x")


def _seconds(work: object) -> float:
    assert callable(work)
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


EXPLODING = """\
name: exploding
data: {source: diabetes}
space:
  layers: 1
  neurons: {low: 4, high: 16}
  activation: [relu, leaky_relu]
  optimizer: [sgd, adam]
  batch_norm: false
  learning_rate: {low: 0.001, high: 1000000, log: true}
  batch_size: 16
search: {sampler: random}
budget: {trials: 12, epochs: 10}
workers: {count: 1}
"""


def test_losses_that_explode_or_are_no_numbers_end_in_failed_or_complete_trials(
    tmp_path: Path, database_url: str
) -> None:
    fleet = Fleet(tmp_path, database_url)
    ended = fleet.product()("run", fleet.write("exploding", EXPLODING))
    assert "Traceback" not in ended.stderr
    fleet.assert_whole("exploding", 12)


def test_a_study_of_which_nothing_can_learn_fails_with_one_reason(tmp_path: Path) -> None:
    hopeless = EXPLODING.replace("low: 0.001, high: 1000000, log: true", "low: 1.0e+30, high: 1.0e+35, log: true")
    fleet = Fleet(tmp_path)
    ended = fleet.product()("run", fleet.write("exploding", hopeless), status=1)
    assert "Traceback" not in ended.stderr
    error = ended.stderr.strip().splitlines()[-1]
    assert error.startswith("error: exploding: ")
    assert len(ended.stderr.splitlines()) < 30
    fleet.assert_whole("exploding", 12, StudyState.FAILED)


def test_a_trial_that_prints_a_gigabyte_neither_fills_the_memory_nor_stops_the_study(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path)
    word = mark()
    file = fleet.write("loud", study("loud", trials=8, epochs=5))
    running = fleet.product("training_trial_3=print", word).start("run", file)
    most = 0

    def ended() -> bool:
        nonlocal most
        with_memory = [process for process in marked(word) if process.pid == running.pid]
        most = max([most, *(_resident(process) for process in with_memory)])
        return fleet.ended("loud") == 8

    wait_until(ended, running, 120)
    _, shown = running.communicate(timeout=60)
    assert running.returncode == 0, shown[-2000:]
    assert len(shown) < 2 * MEGABYTE
    assert most < 1200 * MEGABYTE, f"{most >> 20} MiB"
    fleet.assert_whole("loud", 8)
    # Where Ray keeps what workers print, until its folder is removed.
    printed = list(Path(tempfile.gettempdir()).glob(f"ray/session_*_{running.pid}/logs/worker*.out*"))
    assert sum(file.stat().st_size for file in printed) > 500 * MEGABYTE, "nothing was printed"
    for log in printed:
        log.unlink()


def _resident(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.NoSuchProcess:
        return 0


def test_noise_instead_of_a_study_file_is_bad_input(
    here: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    draw = random.Random(7)
    for number in range(40):
        (tmp_path / "study.yaml").write_bytes(draw.randbytes(draw.choice([0, 1, 10, 1000, 100_000])))
        status = main(["submit", "study.yaml"])
        told = capsys.readouterr()
        assert status == 2, (number, told)
        assert is_an_error_in_words(told.err), (number, told.err[:3000])
