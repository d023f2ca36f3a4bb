"""export and import: one file with the whole study, and nothing of a bad one."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import resource
import shutil
import signal
import stat
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest

from neurosweep.errors import BadInputError
from search import archive as archive_module
from search.archive import MANIFEST, TABLES, Archive, is_file_name
from search.checkpoint import BestNetwork, Checkpoint
from search.dispatcher import Dispatcher, Signals
from search.no_gain import Noise
from search.spec import StudySpec
from search.study import Proposals
from search.study_files import files_in
from search.whole_files import open_files
from storage.records import NewStudy, StudyRecord, StudyState, TrialState
from storage.store import Store
from tests.search.commands.shelf import Call, Shelf, environment
from tests.search.in_process_pool import InProcessPool, packing
from trainer.data.dataset import DataRequest
from trainer.data.load import load
from trainer.work import Metric

HOME = Path(".neurosweep")
THERE = ("--home", "there")


def study_folder(home: Path, uid: str) -> Path:
    return home / "studies" / uid


def with_files(study: StudyRecord) -> StudyRecord:
    """Files such as a study leaves in the home folder."""
    folder = study_folder(HOME, study.uid)
    for name in ("best.safetensors", "champion/network.pt2", "checkpoints/trial-2/epoch-4.safetensors"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode() * 1000)
    (folder / "best.tmp").write_bytes(b"in the making")
    return study


@pytest.fixture
def exported(shelf: Shelf, call: Call) -> Path:
    """The file of a finished study, at digits.zip."""
    with_files(shelf.finished())
    assert call("export", "digits", "-o", "digits.zip").status == 0
    return Path("digits.zip")


def contents(folder: Path) -> dict[str, bytes]:
    return {name: path.read_bytes() for name, path in files_in(folder).items()}


def test_a_study_moves_with_its_files(shelf: Shelf, call: Call) -> None:
    study = with_files(shelf.finished())
    file = f"digits-{study.uid}.neurosweep.zip"

    out = call("export", "digits", "--json")
    assert (out.status, out.err) == (0, "")
    size = Path(file).stat().st_size
    assert out.document == {"file": file, "study": "digits", "trials": 3, "files": 3, "bytes": size}

    back = call("import", file, "--json", *THERE)
    assert (back.status, back.err) == (0, "")
    assert back.document == {"study": "digits", "trials": 3, "state": "finished", "files": 3}
    found = contents(Path("there/studies") / study.uid)
    assert sorted(found) == ["best.safetensors", "champion/network.pt2", "checkpoints/trial-2/epoch-4.safetensors"]
    assert found == contents(study_folder(HOME, study.uid))
    assert sorted(path.name for path in Path("there/studies").iterdir()) == [study.uid]
    here, there = (call("status", "digits", "--json", *where).document for where in ((), THERE))
    # The MLflow there has not been told yet, so it has no model.
    assert (here.pop("unpublished"), there.pop("unpublished")) == (0, 5)
    assert (here["best"].pop("model"), there["best"].pop("model")) == ("models:/digits@champion", None)
    assert (here["mlflow"].pop("pending"), there["mlflow"].pop("pending")) == (0, 5)
    assert here == there


def test_what_is_printed_for_people(shelf: Shelf, call: Call) -> None:
    with_files(shelf.running().study)
    out = call("export", "digits", "-o", "digits.zip")
    assert out.out.startswith("Wrote digits to digits.zip: 3 trials, 3 files, 0.")
    assert "it is being worked on" in out.err
    back = call("import", "digits.zip", *THERE)
    assert back.out == "digits is here, stopped: 3 trials, 3 files.\n"
    assert back.err.splitlines() == [
        "it was being worked on when it was exported: see to it that only one of the two goes on",
        "go on with: neurosweep resume digits",
    ]


def test_a_file_that_is_there_stays(exported: Path, call: Call) -> None:
    before = exported.read_bytes()
    out = call("export", "digits", "-o", "digits.zip")
    assert out.status == 2 and "--force" in out.err
    assert exported.read_bytes() == before
    exported.write_bytes(b"old")
    assert call("export", "digits", "-o", "digits.zip", "--force").status == 0
    assert zipfile.is_zipfile(exported)
    assert call("export", "digits", "-o", str(HOME)).status == 2


def test_what_is_not_there(shelf: Shelf, call: Call) -> None:
    assert call("export", "digits").status == 4
    out = call("import", "nothing.zip")
    assert out.status == 2 and "nothing.zip" in out.err
    assert call("import", str(HOME)).status == 2


def test_an_import_is_refused_where_the_study_is_already(exported: Path, call: Call) -> None:
    out = call("import", "digits.zip")
    assert out.status == 2 and "already, as digits@1 (finished)" in out.err
    assert call("import", "digits.zip", *THERE).status == 0
    assert call("import", "digits.zip", *THERE).status == 2
    assert len(call("list", "--json", *THERE).document) == 1


def test_another_database_may_share_the_home_folder_while_the_files_are_the_same(
    exported: Path, shelf: Shelf, call: Call
) -> None:
    folder = study_folder(HOME, shelf.store.find("digits").uid)
    assert call("import", "digits.zip", "--database", "a.db").status == 0
    (folder / "best.safetensors").write_bytes(b"another winner")
    before = contents(folder)
    out = call("import", "digits.zip", "--database", "b.db")
    assert out.status == 2 and "--home" in out.err
    assert contents(folder) == before
    assert call("list", "--json", "--database", "b.db").document == []


@pytest.mark.parametrize("address", ["shared", "memory://shared"])
def test_checkpoints_move_to_where_they_are_kept_and_back(address: str, exported: Path, call: Call) -> None:
    (uid,) = [path.name for path in (HOME / "studies").iterdir()]
    name = "trial-2/epoch-4.safetensors"
    apart = (*THERE, "--checkpoints", address)

    assert call("import", "digits.zip", "--json", *apart).document["files"] == 3
    assert sorted(contents(Path("there/studies") / uid)) == ["best.safetensors", "champion/network.pt2"]
    store = open_files(f"{address}/{uid}")
    assert store.names("") == [name]
    assert call("export", "digits", "-o", "again.zip", "--json", *apart).document["files"] == 3
    assert files_of(Path("again.zip")) == files_of(exported)

    # A database of its own, but the same place: refused while the checkpoints there are others.
    assert call("import", "digits.zip", "--home", "b", "--checkpoints", address).status == 0
    store.write(name, b"another epoch")
    out = call("import", "digits.zip", "--home", "c", "--checkpoints", address)
    assert out.status == 2 and "--checkpoints" in out.err
    assert store.read(name) == b"another epoch"
    assert call("list", "--json", "--home", "c").document == []


def test_checkpoints_of_a_study_that_did_not_come_in_are_removed(exported: Path) -> None:
    apart = (*THERE, "--checkpoints", "shared")
    ended = run_alone("import", "digits.zip", *apart, failpoints="import_before_commit=memory")
    assert ended.returncode == 1
    assert [path for path in Path("shared").rglob("*") if path.is_file()] == []


def files_of(file: Path) -> dict[str, str]:
    with Archive(file) as archive:
        return archive.files


def test_a_study_that_ends_while_it_is_exported_is_exported_as_ended(
    shelf: Shelf, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim = shelf.running()
    folder = study_folder(HOME, with_files(claim.study).uid)
    real, looks = files_in, list[Path]()

    def ends_meanwhile(where: Path) -> dict[str, Path]:
        found = real(where)
        if not looks:
            (folder / "champion" / "network.pt2").write_bytes(b"the champion")
            shelf.store.finish(claim, StudyState.STOPPED)
        looks.append(where)
        return found

    monkeypatch.setattr("search.study_files.files_in", ends_meanwhile)
    assert call("export", "digits", "-o", "digits.zip").err == ""
    assert call("import", "digits.zip", *THERE).status == 0
    assert contents(Path("there/studies") / claim.study.uid)["champion/network.pt2"] == b"the champion"
    assert len(looks) == 2


# What breaks


def run_alone(*arguments: str, failpoints: str = "", limit: int | None = None) -> subprocess.CompletedProcess[str]:
    """A command as a process of its own.

    Args:
        limit: Bytes that a file may have.
    """

    def restrict() -> None:
        if limit is not None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    return subprocess.run(
        [sys.executable, "-m", "neurosweep", *arguments],
        env=environment(NEUROSWEEP_FAILPOINTS=failpoints, PYTHONPATH=os.pathsep.join(sys.path)),
        capture_output=True,
        text=True,
        preexec_fn=restrict,
        timeout=120,
    )


def test_a_disk_that_is_full_leaves_no_half_file(shelf: Shelf) -> None:
    study = with_files(shelf.finished())
    (study_folder(HOME, study.uid) / "large.safetensors").write_bytes(os.urandom(3 << 20))
    before = sorted(Path().iterdir())
    ended = run_alone("export", "digits", "-o", "digits.zip", limit=2 << 20)
    assert ended.returncode == 1
    assert ended.stderr.startswith("error: digits.zip: It can't be written: File too large")
    assert len(ended.stderr.splitlines()) == 1
    assert sorted(Path().iterdir()) == before


def test_files_that_find_no_room_leave_nothing(exported: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(".")._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    out = call("import", "digits.zip", *THERE)
    assert out.status == 1 and "make room" in out.err
    assert list(Path("there/studies").iterdir()) == []
    assert call("list", "--json", *THERE).document == []


@pytest.mark.parametrize("place", ["import_trials", "import_epochs", "import_before_commit"])
def test_an_import_that_is_killed_leaves_nothing_in_the_database(place: str, exported: Path, call: Call) -> None:
    if place == "import_epochs":
        rewrite(exported, tables={"epochs.jsonl": epochs_line()})
    ended = run_alone("import", "digits.zip", *THERE, failpoints=f"{place}=kill")
    assert ended.returncode == -signal.SIGKILL
    assert call("list", "--json", *THERE).document == []

    assert call("import", "digits.zip", *THERE).status == 0
    (study,) = list(Path("there/studies").iterdir())
    assert len(contents(study)) == 3


def test_an_export_that_is_killed_leaves_no_file_of_the_name(exported: Path) -> None:
    before = exported.read_bytes()
    ended = run_alone("export", "digits", "-o", "digits.zip", "--force", failpoints="export_piece@4=kill")
    assert ended.returncode == -signal.SIGKILL
    assert exported.read_bytes() == before


def test_an_import_whose_commit_fails_takes_its_files_back(exported: Path, call: Call) -> None:
    ended = run_alone("import", "digits.zip", *THERE, failpoints="import_before_commit=memory")
    assert ended.returncode == 1
    assert list(Path("there/studies").iterdir()) == []
    assert call("list", "--json", *THERE).document == []


# Files of a stranger


_whole: list[bytes] = []


@pytest.fixture
def sent(request: pytest.FixtureRequest) -> Path:
    """Likewise, without the database that it came from."""
    if not _whole:
        _whole.append(Path(request.getfixturevalue("exported")).read_bytes())
    Path("digits.zip").write_bytes(_whole[0])
    return Path("digits.zip")


def epochs_line() -> bytes:
    figures = dict.fromkeys(("train_loss", "train_metric", "validation_loss", "validation_metric", "seconds"), 0.5)
    return json.dumps({"trial": 0, "epoch": 1, **figures, "at": "2026-01-01T00:00:00Z"}).encode() + b"\n"


def rewrite(
    file: Path,
    tables: dict[str, bytes] | None = None,
    change: Callable[[zipfile.ZipFile], None] = lambda archive: None,
    manifest: Callable[[dict[str, Any]], None] = lambda content: None,
) -> None:
    """The same archive once more, made by hand: with other tables and a manifest that is true of them, with more
    members, or with a manifest that is not true."""
    with zipfile.ZipFile(file) as old:
        members = {info.filename: old.read(info) for info in old.infolist() if info.filename != MANIFEST}
    members |= tables or {}
    listed: dict[str, Any] = {
        name: {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()} for name, content in members.items()
    }
    content = {"unpacked": sum(map(len, members.values())), "members": listed}
    manifest(content)
    with zipfile.ZipFile(file, "w") as new:
        for name, text in members.items():
            new.writestr(name, text)
        change(new)
        new.writestr(MANIFEST, json.dumps(content))


def lists(name: str, content: bytes = b"x", size: int | None = None) -> Callable[[dict[str, Any]], None]:
    """A manifest that names one more member."""

    def change(manifest: dict[str, Any]) -> None:
        length = len(content) if size is None else size
        digest = hashlib.sha256(content).hexdigest()
        manifest["members"][name] = {"size": length, "sha256": digest}
        manifest["unpacked"] += length

    return change


def link(archive: zipfile.ZipFile) -> None:
    info = zipfile.ZipInfo("files/link")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    archive.writestr(info, "/etc/passwd")


def packed_file(archive: zipfile.ZipFile) -> None:
    archive.writestr("files/zeros", bytes(1 << 20), zipfile.ZIP_DEFLATED)


PATHS = ("/etc/x", "../x", "files/../../x", "files//x", "files/./x", "files/", "files/a\\b", "files/a:b", "files/a\nb")
UNTRUE: dict[str, tuple[Callable[[zipfile.ZipFile], None], Callable[[dict[str, Any]], None]]] = {
    **{path: (lambda archive, path=path: archive.writestr(path, "x"), lists(path)) for path in PATHS},  # type: ignore[misc]
    "a link": (link, lists("files/link", b"/etc/passwd")),
    "a file that is packed": (packed_file, lists("files/zeros", bytes(1 << 20))),
    "a member that the manifest lacks": (lambda archive: archive.writestr("files/x", "x"), lambda manifest: None),
    "a member that only the manifest has": (lambda archive: None, lists("files/x")),
    "a member of nobody's": (lambda archive: archive.writestr("x.py", "x"), lists("x.py")),
    "another size": (lambda archive: archive.writestr("files/x", "x"), lists("files/x", b"x", size=2)),
    "another content": (lambda archive: archive.writestr("files/x", "y"), lists("files/x", b"x")),
    "too much": (lambda archive: None, lambda manifest: manifest["members"]["study.json"].update(size=1 << 60)),
    "a sum that is not one": (lambda archive: None, lambda manifest: manifest.update(unpacked=1)),
    "no table": (lambda archive: None, lambda manifest: manifest["members"].pop("epochs.jsonl")),
    "a manifest with more": (lambda archive: None, lambda manifest: manifest.update(run="rm")),
    "a sum of nobody's": (
        lambda archive: None,
        lambda manifest: manifest["members"]["study.json"].update(sha256="../../x"),
    ),
}


def refused(call: Call) -> str:
    """Imports digits.zip, which has to be refused in one line, with nothing left of it; returns the line."""
    out = call("import", "digits.zip", *THERE)
    assert out.status == 2 and out.out == ""
    (line,) = out.err.splitlines()
    assert line.startswith("error: digits.zip: ")
    if Path("there").exists():  # else it was refused before a database was opened
        assert list(Path("there").glob("studies/*")) == []
        assert call("list", "--json", *THERE).document == []
    return line


@pytest.mark.parametrize("what", UNTRUE)
def test_an_archive_that_no_export_writes_is_refused(what: str, sent: Path, call: Call) -> None:
    change, manifest = UNTRUE[what]
    rewrite(sent, change=change, manifest=manifest)
    assert "not a whole file of `neurosweep export`" in refused(call)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_member_that_is_there_twice_is_refused(sent: Path, call: Call) -> None:
    rewrite(sent, change=lambda archive: archive.writestr("study.json", "{}"))
    assert "twice" in refused(call)


def test_the_hand_made_archive_is_taken_where_it_is_true(sent: Path, call: Call) -> None:
    rewrite(sent, tables={"epochs.jsonl": epochs_line(), "files/x": b"x"})
    assert call("import", "digits.zip", "--json", *THERE).document["files"] == 4


def test_tables_that_unpack_to_more_than_is_taken_are_refused(
    sent: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive_module, "MOST_TABLES", 1 << 20)
    rewrite(sent, tables={"epochs.jsonl": b" " * (2 << 20)})
    assert "are taken" in refused(call)
    monkeypatch.setattr(archive_module, "MOST_IN_MEMORY", 1 << 20)
    monkeypatch.setattr(archive_module, "MOST_TABLES", 4 << 20)
    assert "a line of more than 1 MB" in refused(call)


def test_a_study_file_that_could_not_run_is_refused(sent: Path, call: Call) -> None:
    with zipfile.ZipFile(sent) as archive:
        head = json.loads(archive.read("study.json"))
    for spec, said in (
        ({**head["study"]["spec"], "name": "other"}, "names 'other'"),
        ({**head["study"]["spec"], "budget": {"trials": -1}}, "breaks a rule"),
        ({}, "breaks a rule"),
    ):
        changed = {**head, "study": {**head["study"], "spec": spec}}
        rewrite(sent, tables={"study.json": json.dumps(changed).encode()})
        assert said in refused(call)


def test_a_line_of_a_stranger_is_named_by_its_place(sent: Path, call: Call) -> None:
    rewrite(sent, tables={"epochs.jsonl": epochs_line() + b'{"trial": "\x1b[2J"}\n'})
    assert "epochs.jsonl, line 2" in refused(call)


def test_a_file_that_was_cut_off_is_refused(sent: Path, call: Call) -> None:
    whole = sent.read_bytes()
    for length in (0, 1, 30, len(whole) // 2, len(whole) - 1):
        sent.write_bytes(whole[:length])
        assert "not a whole file" in refused(call)


def test_no_byte_of_a_file_can_change_unseen(sent: Path) -> None:
    """At each place tried, the archive is refused or says what it said before."""

    def said() -> dict[str, bytes]:
        with Archive(sent) as archive:
            archive.verify_tables()
            found = {name: b"".join(archive.lines(name)) for name in TABLES}
            for name in archive.files:
                with Path("scratch").open("wb") as file:
                    archive.unpack(name, file)
                found[name] = Path("scratch").read_bytes()
            return found

    whole, before, seen = sent.read_bytes(), said(), 0
    places = {*range(0, len(whole), 1 + len(whole) // 400), *range(len(whole) - 1500, len(whole), 11)}
    for place in sorted(places):
        sent.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << place % 8]) + whole[place + 1 :])
        try:
            assert said() == before
        except BadInputError:
            seen += 1
    assert seen > len(places) / 2


@pytest.mark.parametrize("name", ["a", "a/b.c", ".a", "a b", "ä", "a..b"])
def test_names_of_files(name: str) -> None:
    assert is_file_name(name)


@pytest.mark.parametrize("name", ["", ".", "..", "a/..", "../a", "/a", "a/", "a//b", "a\\b", "c:a", "a\0", "a" * 201])
def test_names_that_leave_the_folder(name: str) -> None:
    assert not is_file_name(name)


# Half-way


class Half:
    """A study of iris, as the engine works on it, with one worker in this process."""

    def __init__(self, home: Path, study: StudyRecord | None = None) -> None:
        self.data = load(DataRequest(source="iris"))
        mapping = {
            "name": "iris",
            "data": {"source": "iris"},
            "metric": "log_loss",
            "budget": {"trials": 8, "epochs": 9},
            "search": {"sampler": "random", "pruner": "asha"},
            "space": {"layers": 1, "neurons": {"low": 4, "high": 16}, "batch_size": 32},
        }
        self.spec = StudySpec.from_mapping(mapping).resolved(self.data.task)
        self.home, self.url = home, f"sqlite:///{home}/neurosweep.db"
        self.store = Store.open(self.url)
        if study is None:
            study = self.store.submit(NewStudy(name="iris", spec=self.spec.to_mapping(), text="", trials=8))
        self.study = self.store.find(study.label)

    def work(self, stop_after: int | None = None) -> None:
        self.store.requeue(self.study.id)
        claim = self.store.claim("dispatcher", study_id=self.study.id)
        assert claim is not None
        pool, answers = InProcessPool(), list[int]()
        pool.load(self.data)

        def stop() -> bool:
            answers.append(0)
            return stop_after is not None and len(answers) > stop_after

        Dispatcher(
            claim=claim,
            spec=self.spec,
            metric=Metric.LOG_LOSS,
            store=self.store,
            pool=pool,
            proposals=Proposals(
                self.spec, self.data.input_shape, claim.study.label, self.store.optuna_trials(self.study.id)
            ),
            checkpoint=Checkpoint(study_folder(self.home, claim.study.uid) / "best.safetensors"),
            packing=packing(8, pool, self.data),
            name_worker=lambda worker: f"worker-{worker + 1}",
            known=(known := self.store.trials(self.study.id)),
            known_epochs=self.store.epochs(
                self.study.id, [trial.number for trial in known if trial.state is TrialState.RUNNING]
            ),
            on_progress=lambda progress: None,
            signals=Signals(stop=stop, cancel=lambda: False, renew=lambda: None),
            started=time.monotonic(),
            noise=Noise(metric=Metric.LOG_LOSS, rows=len(self.data.validation)),
        ).work()
        self.store.finish(claim, StudyState.FINISHED if stop_after is None else StudyState.STOPPED)

    def figures(self) -> list[Any]:
        """All that does not depend on the clock or on the machine's memory."""
        epochs = self.store.epochs(self.study.id)
        trials = [
            dataclasses.replace(
                trial, seconds=0, started_at=self.study.created_at, ended_at=None, pack=None, memory=None
            )
            for trial in self.store.trials(self.study.id)
        ]
        return [trials, [dataclasses.replace(row, seconds=0, at=self.study.created_at) for row in epochs]]

    def best(self) -> BestNetwork | None:
        return Checkpoint(study_folder(self.home, self.study.uid) / "best.safetensors").best

    def optunas(self) -> list[Any]:
        found = optuna.load_study(study_name=self.study.label, storage=self.url).get_trials(deepcopy=False)
        return [(each.state, each.values, each.params, each.intermediate_values) for each in found]


def test_a_study_that_was_stopped_half_way_ends_elsewhere_as_if_it_had_stayed(folder: Path, call: Call) -> None:
    stayed = Half(folder / "stayed")
    stayed.work()
    here = Half(folder / "here")
    here.work(stop_after=3)
    states = [trial.state for trial in here.store.trials(here.study.id)]
    assert TrialState.RUNNING in states and len(set(states)) > 1, states

    assert call("export", "iris", "-o", "iris.zip", "--home", "here").status == 0
    there = Half(folder / "there")  # where a study of this name is already
    assert call("import", "iris.zip", "--json", "--home", "there").document["study"] == "iris@2"
    moved = Half(folder / "there", there.store.find("iris@2"))
    moved.work()

    moved.study = dataclasses.replace(moved.study, created_at=stayed.study.created_at)
    assert moved.figures() == stayed.figures()
    assert moved.optunas() == stayed.optunas()
    best, expected = moved.best(), stayed.best()
    assert best is not None and expected is not None
    assert (best.trial, best.validation) == (expected.trial, expected.validation)
