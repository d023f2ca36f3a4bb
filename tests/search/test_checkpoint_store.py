"""Checkpoints: what was written comes back to the last bit or not at all, whatever has happened to the files."""

from __future__ import annotations

import dataclasses
import errno
import json
import math
import os
import resource
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import given, settings
from hypothesis import strategies as st

from neurosweep.errors import BadInputError
from search.checkpoint import Checkpoint
from search.checkpoint_store import BestNetwork, CheckpointStore, DamagedError, seal, unseal
from search.whole_files import LocalFiles, RemoteFiles, open_files
from trainer.work import Snapshot

ROOT = Path(__file__).parents[2]


def snapshot_of(trial: int = 7, epoch: int = 4, size: int = 5) -> Snapshot:
    rng = np.random.default_rng(1000 * trial + epoch)
    arrays: dict[str, Any] = {
        "weights": rng.normal(size=size).astype(np.float32),
        "optimizer.steps": np.array(12, np.float32),
        "generator.order": rng.integers(0, 256, size, dtype=np.uint8),
        "best.dense1.weight": rng.normal(size=(2, 3)).astype(np.float64).T,
        "best.dense1_norm.num_batches_tracked": np.array(3),
        "none": np.empty((0, 4), np.float32),
    }
    facts = {"identity": {"seed": 2**63 + trial, "settings": {"neurons": [3]}}, "best": None, "text": 'ä "checksum":"'}
    return Snapshot(trial=trial, epoch=epoch, arrays=arrays, facts=facts)


def network_of(trial: int, validation: float = 0.25) -> BestNetwork:
    return BestNetwork(
        trial=trial, validation=validation, weights={"output.weight": np.full((2, 3), trial, np.float32)}
    )


def assert_equal(read: Snapshot | None, written: Snapshot) -> None:
    assert read is not None
    assert (read.trial, read.epoch, read.facts) == (written.trial, written.epoch, written.facts)
    assert_equal_arrays(read.arrays, written.arrays)


def assert_equal_arrays(read: dict[str, Any], written: dict[str, Any]) -> None:
    assert set(read) == set(written)
    for name, array in written.items():
        assert read[name].dtype == array.dtype
        assert read[name].shape == array.shape
        assert read[name].tobytes() == array.tobytes()


class FileServer(MemoryFileSystem):  # type: ignore[misc]  # fsspec has no types
    """A store with a rename of its own, as SFTP has one: a file is seen while it is written, and needs its folder."""

    protocol = "fileserver"
    store: dict[str, Any] = {}  # noqa: RUF012 - as in its base, shared by all with this address
    pseudo_dirs = [""]  # noqa: RUF012
    fail: Callable[[str], None] | None = None

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return str(MemoryFileSystem._strip_protocol(path.removeprefix("fileserver://")))

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **options: Any) -> None:
        if not self.isdir(self._parent(path)):
            raise FileNotFoundError(path)
        super().pipe_file(path, value[: len(value) // 2])
        if FileServer.fail is not None:
            FileServer.fail(path)
        super().pipe_file(path, value)

    def mv(self, path1: str, path2: str, **options: Any) -> None:
        self.store[self._strip_protocol(path2)] = self.store.pop(self._strip_protocol(path1))


fsspec.register_implementation("fileserver", FileServer, clobber=True)

PLACES = ["folder", "file", "memory", "fileserver"]


@pytest.fixture(params=PLACES)
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "folder":
        return str(tmp_path / "not" / "yet")
    if request.param == "file":
        return f"file://{tmp_path}/study"
    return f"{request.param}://{uuid.uuid4().hex}/study"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "study"


@pytest.fixture(autouse=True)
def working_file_server() -> Iterator[None]:
    yield
    FileServer.fail = None


def trial_file(folder: Path, trial: int = 7, epoch: int = 4) -> Path:
    return folder / "trials" / str(trial) / f"{epoch}.safetensors"


def files_in(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def run(code: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Python in a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


# What was written comes back


def test_a_snapshot_comes_back_to_the_last_bit(address: str) -> None:
    written = snapshot_of()
    CheckpointStore(address).save(written)
    assert_equal(CheckpointStore(address).load(7, at_most=4), written)


def test_the_newest_up_to_an_epoch_is_loaded(address: str) -> None:
    store = CheckpointStore(address)
    for epoch in (2, 4):
        store.save(snapshot_of(epoch=epoch))
    loaded = [store.load(7, at_most) for at_most in (1, 2, 3, 4, 100)]
    assert [found and found.epoch for found in loaded] == [None, 2, 2, 4, 4]
    assert store.load(8, at_most=100) is None


def test_the_two_newest_of_each_trial_are_kept(address: str) -> None:
    store = CheckpointStore(address)
    for epoch in (1, 3, 9, 10, 27):
        store.save(snapshot_of(epoch=epoch))
        store.save(snapshot_of(trial=70, epoch=epoch + 1))
    assert store.found() == {7: [10, 27], 70: [11, 28]} == CheckpointStore(address).found()
    assert_equal(store.load(7, at_most=20), snapshot_of(epoch=10))


def test_another_process_goes_on_with_what_it_finds(address: str) -> None:
    """As the worker that takes a dead one's trials over: it has seen none of them."""
    for epoch in (1, 3, 9):
        CheckpointStore(address).save(snapshot_of(epoch=epoch))
    assert CheckpointStore(address).found() == {7: [3, 9]}


def test_a_trial_that_went_back_leaves_no_later_epochs(address: str) -> None:
    """Else the damaged ones that it went back behind would push the new ones out."""
    for epoch in (6, 8, 2):
        CheckpointStore(address).save(snapshot_of(epoch=epoch))
    assert CheckpointStore(address).found() == {7: [2]}


def test_a_trial_that_has_ended_leaves_nothing(address: str) -> None:
    worker, dispatcher = CheckpointStore(address), CheckpointStore(address)
    dispatcher.drop([7])
    for trial in (7, 8, 77):
        for epoch in (1, 2):
            worker.save(snapshot_of(trial, epoch))
    dispatcher.drop(iter([7, 8, 1000]))
    assert dispatcher.found() == worker.found() == {77: [1, 2]}
    assert dispatcher.load(7, at_most=9) is None
    worker.drop([])
    worker.save(snapshot_of(epoch=5))
    assert worker.found() == {7: [5], 77: [1, 2]}


def test_clear_removes_all_trials_and_never_the_best_network(address: str) -> None:
    store = CheckpointStore(address)
    store.clear()
    store.save(snapshot_of())
    store.keep_best(network_of(3))
    store.clear()
    store.drop([3])
    assert store.found() == {}
    best = store.best()
    assert best is not None
    assert best.trial == 3
    store.save(snapshot_of(epoch=6))
    assert store.found() == {7: [6]}


def test_the_network_that_was_kept_last_is_the_best(address: str) -> None:
    store = CheckpointStore(address)
    assert store.best() is None
    for trial in range(12):
        store.keep_best(network_of(trial, 1 / (trial + 3)))
    best = CheckpointStore(address).best()
    assert best is not None
    assert (best.trial, best.validation) == (11, 1 / 14)
    assert_equal_arrays(best.weights, network_of(11).weights)
    assert len(open_files(address).names("best")) == 2
    Checkpoint(CheckpointStore(address)).keep(network_of(20))
    kept = Checkpoint(CheckpointStore(address)).best
    assert kept is not None
    assert kept.trial == 20


def test_a_checkpoint_by_its_path_is_the_store_of_that_folder(folder: Path) -> None:
    Checkpoint(folder / "best.safetensors").keep(network_of(5))
    best = CheckpointStore(str(folder)).best()
    assert best is not None
    assert best.trial == 5


def test_infinite_and_undefined_metrics_come_back(folder: Path) -> None:
    store = CheckpointStore(str(folder))
    for value in (math.inf, math.nan):
        store.keep_best(network_of(1, value))
        best = store.best()
        assert best is not None
        assert str(best.validation) == str(value)


def test_the_store_outlives_its_process(folder: Path) -> None:
    code = (
        "import sys, numpy as np\n"
        "from search.checkpoint_store import CheckpointStore\n"
        "from trainer.work import Snapshot\n"
        "arrays = {'weights': np.arange(9, dtype=np.float32)}\n"
        "CheckpointStore(sys.argv[1]).save(Snapshot(trial=2, epoch=3, arrays=arrays, facts={'seed': 5}))\n"
        "print([name for name in sys.modules if name in ('torch', 'fsspec')])\n"
    )
    ended = run(code, str(folder))
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.strip() == "[]", "a folder needs neither"
    read = CheckpointStore(str(folder)).load(2, at_most=3)
    assert_equal(
        read, Snapshot(trial=2, epoch=3, arrays={"weights": np.arange(9, dtype=np.float32)}, facts={"seed": 5})
    )


def test_other_tools_read_the_file(folder: Path) -> None:
    import safetensors

    CheckpointStore(str(folder)).save(snapshot_of())
    with safetensors.safe_open(trial_file(folder), framework="numpy") as file:
        assert_equal_arrays({name: file.get_tensor(name) for name in snapshot_of().arrays}, snapshot_of().arrays)
        assert json.loads(file.metadata()["facts"])["epoch"] == 4


# Damage

SEALED = seal(snapshot_of().arrays, {"epoch": 4, "facts": snapshot_of().facts})


def damaged(data: bytes) -> bool:
    try:
        unseal(data)
    except DamagedError:
        return True
    return False


def test_an_intact_file_is_not_taken_for_a_damaged_one() -> None:
    assert not damaged(SEALED)


def test_a_file_that_is_cut_at_any_length_is_damaged() -> None:
    assert all(damaged(SEALED[:length]) for length in range(len(SEALED)))


@settings(max_examples=400, deadline=None)
@given(st.integers(0, 8 * len(SEALED) - 1))
def test_any_one_bit_that_is_flipped_is_damage(bit: int) -> None:
    flipped = bytearray(SEALED)
    flipped[bit // 8] ^= 1 << bit % 8
    assert damaged(bytes(flipped))


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=300))
def test_foreign_bytes_are_damage(data: bytes) -> None:
    assert damaged(data)
    assert damaged(SEALED + data + b"x")


def flip(data: bytes) -> bytes:
    return data[:-3] + bytes([data[-3] ^ 4]) + data[-2:]


DAMAGE: dict[str, Callable[[Path], object]] = {
    "missing": lambda path: path.unlink(),
    "empty": lambda path: path.write_bytes(b""),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-40]),
    "one bit flipped": lambda path: path.write_bytes(flip(path.read_bytes())),
    "of something else": lambda path: path.write_bytes(seal({}, {"name": 1})),
    "no object": lambda path: path.write_bytes(seal({}, [])),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_checkpoint_falls_back_to_the_one_before_and_then_to_none(folder: Path, damage: str) -> None:
    store = CheckpointStore(str(folder))
    for epoch in (2, 4):
        store.save(snapshot_of(epoch=epoch))
    DAMAGE[damage](trial_file(folder, epoch=4))
    assert_equal(store.load(7, at_most=4), snapshot_of(epoch=2))
    DAMAGE[damage](trial_file(folder, epoch=2))
    assert store.load(7, at_most=4) is None

    store.save(snapshot_of(epoch=2))
    store.save(snapshot_of(epoch=4))
    assert_equal(CheckpointStore(str(folder)).load(7, at_most=4), snapshot_of(epoch=4))


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_best_network_falls_back_to_the_one_before_and_then_to_none(folder: Path, damage: str) -> None:
    store = CheckpointStore(str(folder))
    for trial in (1, 2):
        store.keep_best(network_of(trial))
    older, newest = sorted((folder / "best").iterdir())
    DAMAGE[damage](newest)
    best = CheckpointStore(str(folder)).best()
    assert best is not None
    assert best.trial == 1
    DAMAGE[damage](older)
    fresh = CheckpointStore(str(folder))
    assert fresh.best() is None
    fresh.keep_best(network_of(9))
    best = CheckpointStore(str(folder)).best()
    assert best is not None
    assert best.trial == 9


def test_files_of_others_in_the_folder_are_left_alone(folder: Path) -> None:
    store = CheckpointStore(str(folder))
    store.save(snapshot_of(epoch=2))
    foreign = [
        folder / "trials" / "7" / "notes.txt",
        folder / "trials" / "x" / "1.safetensors",
        folder / "trials" / "y",
    ]
    for path in foreign:
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine")
    for epoch in (4, 6, 8):
        CheckpointStore(str(folder)).save(snapshot_of(epoch=epoch))
    assert CheckpointStore(str(folder)).found() == {7: [6, 8]}
    assert all(path.read_text() == "mine" for path in foreign)


# Crashes and full disks

WRITER = """
import sys
from search.checkpoint_store import CheckpointStore
from tests.search.test_checkpoint_store import network_of, snapshot_of
store = CheckpointStore(sys.argv[1])
for epoch in (2, 4, 6):
    store.save(snapshot_of(epoch=epoch))
    store.keep_best(network_of(epoch))
"""


@pytest.mark.parametrize(("visit", "epochs", "best"), [(1, [], None), (2, [2], None), (5, [2, 4], 4), (6, [4, 6], 4)])
def test_a_crash_before_the_rename_leaves_what_was_there(
    folder: Path, visit: int, epochs: list[int], best: int | None
) -> None:
    ended = run(WRITER, str(folder), NEUROSWEEP_FAILPOINTS=f"file_before_rename@{visit}=kill")
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    left = [name for name in files_in(folder) if name.endswith(".tmp")]
    assert len(left) == 1

    store = CheckpointStore(str(folder))
    assert store.found() == ({7: epochs} if epochs else {})
    read = store.load(7, at_most=100)
    assert read is None if not epochs else read is not None and read.epoch == epochs[-1]
    kept = store.best()
    assert (kept and kept.trial) == best

    # The next one that writes there collects it.
    store.save(snapshot_of(epoch=8))
    store.keep_best(network_of(8))
    assert not [name for name in files_in(folder) if name.endswith(".tmp")]
    assert store.found() == {7: [*epochs[-1:], 8]}


def test_what_a_crash_left_goes_with_its_trial(folder: Path) -> None:
    run(WRITER, str(folder), NEUROSWEEP_FAILPOINTS="file_before_rename@5=kill")
    CheckpointStore(str(folder)).drop([7])
    assert {name.split("/")[0] for name in files_in(folder)} == {"best"}
    run(WRITER, str(folder), NEUROSWEEP_FAILPOINTS="file_before_rename@5=kill")
    CheckpointStore(str(folder)).clear()
    assert {name.split("/")[0] for name in files_in(folder)} == {"best"}


def test_a_writer_that_is_killed_at_any_time_leaves_whole_files(folder: Path) -> None:
    code = (
        "import sys\n"
        "from search.checkpoint_store import CheckpointStore\n"
        "from tests.search.test_checkpoint_store import snapshot_of\n"
        "store = CheckpointStore(sys.argv[1])\n"
        "for epoch in range(1, 10**6):\n"
        "    store.save(snapshot_of(epoch=epoch, size=200_000))\n"
        "    print(epoch, flush=True)\n"
    )
    for kills in range(4):
        with subprocess.Popen(
            [sys.executable, "-c", code, str(folder)], cwd=ROOT, stdout=subprocess.PIPE, text=True
        ) as writer:
            assert writer.stdout is not None
            for _ in range(3 + kills):
                reported = int(writer.stdout.readline())
            writer.kill()
        read = CheckpointStore(str(folder)).load(7, at_most=10**6)
        assert read is not None
        assert read.epoch >= reported, "what was reported as written is there"
        assert_equal(read, snapshot_of(epoch=read.epoch, size=200_000))


FILLING = """
import errno, subprocess, sys
from pathlib import Path
from search.checkpoint_store import CheckpointStore
from tests.search.test_checkpoint_store import assert_equal, files_in, snapshot_of
folder = Path(sys.argv[1])
folder.mkdir()
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)], check=True)
store = CheckpointStore(str(folder))
for epoch in (1, 2, 3):
    store.save(snapshot_of(epoch=epoch, size=100_000))
(folder / "filler").write_bytes(bytes(700_000))
for attempt in range(3):
    try:
        store.save(snapshot_of(epoch=4, size=100_000))
    except OSError as error:
        assert error.errno == errno.ENOSPC, error
    else:
        raise AssertionError("the disk is full")
    assert files_in(folder) == {"filler", "trials/7/2.safetensors", "trials/7/3.safetensors"}, files_in(folder)
assert_equal(store.load(7, at_most=9), snapshot_of(epoch=3, size=100_000))
(folder / "filler").unlink()
store.save(snapshot_of(epoch=4, size=100_000))
assert store.found() == {7: [3, 4]}
print("done")
"""


def can_mount() -> bool:
    return subprocess.run(["unshare", "-rm", "mount", "-t", "tmpfs", "x", "/mnt"], capture_output=True).returncode == 0


def test_a_full_disk_is_an_os_error_and_goes_on_when_there_is_room(folder: Path) -> None:
    if not can_mount():
        pytest.skip("no disk of our own can be made here")
    ended = subprocess.run(
        ["unshare", "-rm", sys.executable, "-c", FILLING, str(folder)], cwd=ROOT, capture_output=True, text=True
    )
    assert ended.stdout == "done\n", ended.stderr


def test_a_write_that_breaks_off_halfway_is_an_os_error_and_leaves_nothing(folder: Path) -> None:
    """On a process's own limit, which needs no rights: what is larger is cut off."""
    store = CheckpointStore(str(folder))
    store.save(snapshot_of(epoch=1))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(OSError, match="File too large") as caught:
            store.save(snapshot_of(epoch=2, size=50_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert caught.value.errno == errno.EFBIG
    assert files_in(folder) == {"trials/7/1.safetensors"}
    assert_equal(store.load(7, at_most=2), snapshot_of(epoch=1))


def test_a_folder_that_can_not_be_written_is_an_os_error(folder: Path) -> None:
    folder.write_text("a file where the folder should be")
    store = CheckpointStore(str(folder))
    with pytest.raises(OSError, match="directory"):
        store.save(snapshot_of())
    with pytest.raises(OSError, match="directory"):
        store.keep_best(network_of(1))
    assert store.load(7, at_most=4) is None
    assert store.best() is None
    assert store.found() == {}


READ_ONLY = """
import errno, subprocess, sys
from pathlib import Path
from search.checkpoint_store import CheckpointStore
from tests.search.test_checkpoint_store import assert_equal, files_in, network_of, snapshot_of
folder = sys.argv[1]
CheckpointStore(folder).save(snapshot_of())
CheckpointStore(folder).keep_best(network_of(1))
before = files_in(Path(folder))
subprocess.run(["mount", "--bind", folder, folder], check=True)
subprocess.run(["mount", "-o", "remount,ro,bind", folder], check=True)
store = CheckpointStore(folder)
writes = [lambda: store.save(snapshot_of(epoch=9)), lambda: store.save(snapshot_of(8)), lambda: store.drop([7])]
for write in [*writes, store.clear, lambda: store.keep_best(network_of(2))]:
    try:
        write()
    except OSError as error:
        assert error.errno == errno.EROFS, error
    else:
        raise AssertionError("it can't be written")
assert_equal(store.load(7, at_most=4), snapshot_of())
assert store.best().trial == 1
assert files_in(Path(folder)) == before
print("done")
"""


def test_a_read_only_folder_is_an_os_error_and_can_be_read(folder: Path) -> None:
    if not can_mount():
        pytest.skip("no disk of our own can be made here")
    ended = subprocess.run(
        ["unshare", "-rm", sys.executable, "-c", READ_ONLY, str(folder)], cwd=ROOT, capture_output=True, text=True
    )
    assert ended.stdout == "done\n", ended.stderr


# Remote stores


def test_what_kind_of_store_an_address_is(tmp_path: Path) -> None:
    assert isinstance(open_files(str(tmp_path)), LocalFiles)
    assert isinstance(open_files(f"file://{tmp_path}"), LocalFiles)
    for address, renames in (("memory://x", False), ("fileserver://x", True)):
        files = open_files(address)
        assert isinstance(files, RemoteFiles)
        assert files._renames is renames


def test_a_file_server_that_breaks_off_keeps_the_whole_one() -> None:
    address = f"fileserver://{uuid.uuid4().hex}"
    store = CheckpointStore(address)
    store.save(snapshot_of(epoch=1))
    seen = []

    def break_off(path: str) -> None:
        seen.append(store.found())
        raise ConnectionResetError("the connection broke off")

    FileServer.fail = break_off
    for change in (snapshot_of(epoch=1, size=9), snapshot_of(epoch=2)):
        with pytest.raises(OSError, match="broke off"):
            store.save(change)
    assert seen == [{7: [1]}] * 2
    assert open_files(address).names("trials") == ["trials/7/1.safetensors"]
    assert_equal(store.load(7, at_most=2), snapshot_of(epoch=1))


def test_errors_of_a_stores_own_library_are_os_errors() -> None:
    store = CheckpointStore(f"fileserver://{uuid.uuid4().hex}")

    def refuse(path: str) -> None:
        raise RuntimeError("no credentials")

    FileServer.fail = refuse
    with pytest.raises(OSError, match="no credentials"):
        store.save(snapshot_of())


class Counted(MemoryFileSystem):  # type: ignore[misc]
    """An object store that counts its requests."""

    protocol = "counted"
    requests: list[str] = []  # noqa: RUF012

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return str(MemoryFileSystem._strip_protocol(path.removeprefix("counted://")))

    def find(self, path: str, *arguments: Any, **options: Any) -> Any:
        self.requests.append("list")
        return super().find(path, *arguments, **options)

    def pipe_file(self, *arguments: Any, **options: Any) -> None:
        self.requests.append("put")
        super().pipe_file(*arguments, **options)

    def rm(self, path: list[str], **options: Any) -> None:
        self.requests.append(f"delete {len(path)}")
        super().rm(path, **options)


fsspec.register_implementation("counted", Counted, clobber=True)


def test_an_object_store_is_asked_seldom() -> None:
    Counted.requests.clear()
    store = CheckpointStore(f"counted://{uuid.uuid4().hex}")
    for epoch in (1, 2, 3, 4):
        store.save(snapshot_of(epoch=epoch))
    assert Counted.requests == ["list", "put", "put", "put", "delete 1", "put", "delete 1"]
    store.save(snapshot_of(trial=8))
    Counted.requests.clear()
    store.drop(range(10))
    assert Counted.requests == ["list", "delete 3"]
    Counted.requests.clear()
    for number in range(3):
        store.keep_best(network_of(number))
    assert Counted.requests == ["list", "put", "put", "put", "delete 1"]


@pytest.mark.parametrize(
    ("address", "message"),
    [("nowhere://bucket", "Protocol not known: nowhere"), ("s3://key:hush@bucket/x?token=hush", "s3fs")],
)
def test_an_address_that_can_not_be_used_says_what_is_missing(address: str, message: str) -> None:
    if address.startswith("s3"):
        try:
            import s3fs  # type: ignore[import-not-found]  # noqa: F401
        except ImportError:
            pass
        else:
            pytest.skip("s3fs is here")
    with pytest.raises(BadInputError, match=message) as caught:
        CheckpointStore(address)
    assert "hush" not in caught.value.message
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("pattern", ["a*", "a?", "a[bc]"])
def test_an_address_that_stands_for_many_is_refused(pattern: str, tmp_path: Path) -> None:
    """Else fsspec would remove the files of other studies."""
    with pytest.raises(BadInputError, match=r"without \*"):
        CheckpointStore(f"memory://x/{pattern}")
    store = CheckpointStore(str(tmp_path / pattern))
    store.save(snapshot_of())
    assert store.found() == {7: [4]}, "a folder's name may be so"


def test_a_snapshot_keeps_its_trial_whatever_the_file_is_called(folder: Path) -> None:
    """So that a trainer can refuse one that was copied to another trial's place."""
    store = CheckpointStore(str(folder))
    store.save(snapshot_of(trial=7))
    trial_file(folder, 8).parent.mkdir()
    trial_file(folder, 8).write_bytes(trial_file(folder, 7).read_bytes())
    read = store.load(8, at_most=4)
    assert read is not None
    assert read.trial == 7
    assert_equal(dataclasses.replace(read), snapshot_of(trial=7))
